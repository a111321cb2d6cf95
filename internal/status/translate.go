package status

import (
	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
)

// Session is the record of a session without its phases, tasks and report, which lists leave out.
func Session(s catalog.Session) api.Session {
	counts := map[string]int64{}
	for name, n := range s.Counts {
		counts[name] = n
	}
	return api.Session{
		ID: s.ID, Job: s.Job, Boundary: s.Boundary, Began: s.Started, Ended: s.Ended, State: string(s.State), Phase: s.Phase, Reason: s.Reason,
		Counts: counts, Stopping: s.Cancel != catalog.CancelNone, Phases: []api.Phase{}, Tasks: []api.Task{},
	}
}

// Task is the work on a machine.
func Task(t catalog.Task) api.Task {
	task := api.Task{
		ID: t.ID, Session: t.Session, Job: t.Job, Machine: Machine(t.Machine), Created: t.Created, Source: t.Source, Target: t.Target,
		State: string(t.State), Reason: t.Reason, Attempts: t.Attempts, Began: t.Began, Ended: t.Ended,
		Done: t.Progress.Done, Total: t.Progress.Total, Read: t.Progress.Read, Written: t.Progress.Written,
	}
	if t.Point != nil {
		task.Point = t.Point.String()
	}
	return task
}

// Machine is a machine, its names encoded.
func Machine(m backup.Machine) api.Machine {
	return api.Machine{ID: m.Key.String(), Name: backup.SafeText(backup.EncodeName(m.Name))}
}
