package status

import (
	"maps"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
)

// Session is the record of a session without its phases, tasks and report, which lists leave out.
func Session(s catalog.Session) api.Session {
	return api.Session{
		ID: s.ID, Job: s.Job, Boundary: s.Boundary, Began: s.Started, Ended: s.Ended, State: string(s.State), Phase: s.Phase, Reason: s.Reason, WaitsFor: s.Wait.Kind,
		Counts: copyCounts(s.Counts), Stopping: s.Cancel != catalog.CancelNone, Phases: []api.Phase{}, Tasks: []api.Task{},
	}
}

// Phase is a phase of a session.
func Phase(p catalog.Phase) api.Phase {
	return api.Phase{Name: p.Name, State: string(p.State), Reason: p.Reason, Began: p.Started, Ended: p.Ended, Counts: copyCounts(p.Counts)}
}

// copyCounts gives counts as JSON has them: never null.
func copyCounts(counts catalog.Counts) map[string]int64 {
	copied := map[string]int64{}
	maps.Copy(copied, counts)
	return copied
}

// Task is the work on a machine.
func Task(t catalog.Task) api.Task {
	task := api.Task{
		ID: t.ID, Session: t.Session, Job: t.Job, Machine: Machine(t.Machine), Created: t.Created, Source: t.Source, Target: t.Target,
		State: string(t.State), Reason: t.Reason, Attempts: t.Attempts, Began: t.Began, Ended: t.Ended,
		Done: t.Progress.Done, Total: t.Progress.Total, Read: t.Progress.Read, Written: t.Progress.Written, Kept: t.Progress.Kept,
		AttemptBegan: t.Progress.Attempt, Resumed: t.Progress.Resumed,
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
