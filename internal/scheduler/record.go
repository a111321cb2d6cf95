package scheduler

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/source"
)

// record notes in the catalog what a session does, while it does it. What cannot be noted is logged and keeps no copy from being
// made; only that another process has taken the session over ends it.
type record struct {
	*Scheduler
	run *run

	mu sync.Mutex
	// open are the phases that have begun and not ended. One within another has no number: the catalog has them one after the other.
	open []openPhase
	// tasks are the session's that have not ended, by point.
	tasks map[backup.PointID]*task
	// stored counts the points that were copied, by this process or one before it.
	stored int
	// before is how many of these it were when this process took the session up, and earlier what was to be copied until then.
	before  int
	earlier []job.EarlierCopy
	// pace is how much this process has dealt with, in how long.
	pace pace
}

type openPhase struct {
	name   job.PhaseName
	number int64
	began  time.Time
}

// task is a row of the catalog, and while it is worked on its lease and counters.
type task struct {
	id       int64
	row      catalog.Task
	lease    *catalog.TaskLease
	progress *mover.Progress
}

// took is what a task's counters say, or those of whoever had it before.
func (t *task) took() catalog.Progress {
	if t.progress == nil {
		return t.row.Progress
	}
	total := cmp.Or(t.progress.Total.Load(), t.row.Progress.Total) // it is not read yet
	return catalog.Progress{
		Done: t.progress.Done.Load(), Total: total, Kept: t.progress.Kept.Load(), Attempt: t.row.Progress.Attempt, Resumed: t.row.Progress.Resumed,
	}
}

// context is for what is noted: it is noted also when the session is being stopped.
func (n *record) context() context.Context { return context.WithoutCancel(n.run.context) }

// note says of an error of noting something what it means.
func (n *record) note(err error) {
	if errors.Is(err, catalog.ErrLostLease) {
		n.run.stop(errLostHold)
		return
	}
	n.trouble("what sessions do cannot be noted", err)
}

// noteAgain is how long is waited before what could not be noted is tried again.
const noteAgain = 10 * time.Second

// untilNoted does what must be noted before the session is over, until it is: without its end the job would never run again. When
// the process ends before, the session is taken up by the next one.
func (n *record) untilNoted(do func() error) {
	for {
		err := do()
		if errors.Is(err, catalog.ErrLostLease) {
			err = nil // it is another process's business
		}
		n.trouble("the end of a session of job "+n.run.session.Job+" cannot be noted", err)
		if err == nil {
			return
		}
		again := time.NewTimer(noteAgain)
		select {
		case <-again.C:
		case <-n.run.leaving.Done():
			again.Stop()
			return
		}
	}
}

// resume brings the tasks of a session that another process had into the state that nobody works on them.
func (n *record) resume() {
	rows, err := n.catalog.Tasks.Of(n.context(), n.run.session.ID)
	n.note(err)
	for _, row := range rows {
		if row.Point != nil && (row.State == catalog.TaskWaiting || row.State == catalog.TaskRunning) {
			n.tasks[*row.Point] = &task{id: row.ID, row: row}
		}
		if row.Point != nil {
			n.earlier = append(n.earlier, earlierCopy(row))
		}
		switch row.State {
		case catalog.TaskDone:
			n.stored++
		case catalog.TaskRunning:
			claimed, err := n.catalog.Tasks.Take(n.context(), row.ID, n.options.Owner, leaseLength)
			if err == nil && claimed != nil {
				err = n.catalog.Tasks.Postpone(n.context(), claimed.Lease, "interrupted; it goes on from what was kept", claimed.Progress, false)
			}
			n.note(err)
		case catalog.TaskWaiting, catalog.TaskFailed, catalog.TaskStopped:
		}
	}
	n.before = n.stored
}

func earlierCopy(row catalog.Task) job.EarlierCopy {
	e := job.EarlierCopy{
		PlannedCopy: job.PlannedCopy{Machine: row.Machine, Point: *row.Point, Created: row.Created, Source: row.Source, Target: row.Target},
		Done:        row.State == catalog.TaskDone, Attempts: int(row.Attempts) + 1, Read: row.Progress.Read, Written: row.Progress.Written,
	}
	if e.Done && !row.Began.IsZero() {
		e.Took = max(0, row.Ended.Sub(row.Began))
	}
	return e
}

// ran are the scripts that the session has run.
func (n *record) ran() map[job.PhaseName]bool {
	phases, err := n.catalog.Sessions.Phases(n.context(), n.run.session.ID)
	n.note(err)
	ran := map[job.PhaseName]bool{}
	for _, phase := range phases {
		if phase.State == catalog.PhaseDone || phase.State == catalog.PhaseWarned {
			ran[job.PhaseName(phase.Name)] = true
		}
	}
	return ran
}

func (n *record) phaseBegan(name job.PhaseName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	phase := openPhase{name: name, began: n.options.Now()}
	if len(n.open) == 0 {
		number, err := n.catalog.Sessions.Enter(n.context(), n.run.held(), string(name))
		n.note(err)
		phase.number = number
		n.tell(Event{Kind: EventPhase, Phase: &catalog.Phase{Number: number, Name: string(name), Started: phase.began, State: catalog.PhaseRunning}})
	}
	n.open = append(n.open, phase)
	n.log.Debug("phase begins", "job", n.run.session.Job, "session", n.run.session.ID, "phase", name)
}

// phaseLeft ends the phase that is open as done, if one is.
func (n *record) phaseLeft(counts map[string]int64) {
	n.mu.Lock()
	open := slices.Clone(n.open)
	n.mu.Unlock()
	if len(open) > 0 {
		n.phaseEnded(job.Phase{Name: open[0].name, State: job.PhaseDone, Began: open[0].began.UTC(), Ended: n.options.Now().UTC(), Counts: counts})
	}
}

func (n *record) phaseEnded(ended job.Phase) {
	n.mu.Lock()
	defer n.mu.Unlock()
	state := catalog.PhaseState(ended.State)
	var number int64
	if last := len(n.open) - 1; last >= 0 && n.open[last].name == ended.Name {
		if number = n.open[last].number; number > 0 {
			n.note(n.catalog.Sessions.Leave(n.context(), n.run.held(), number, state, ended.Reason, ended.Counts))
		}
		n.open = n.open[:last]
	} else if len(n.open) == 0 { // it was skipped
		var err error
		number, err = n.catalog.Sessions.Skip(n.context(), n.run.held(), string(ended.Name), ended.Reason)
		n.note(err)
	}
	if number == 0 {
		return
	}
	n.tell(Event{Kind: EventPhase, Phase: &catalog.Phase{
		Number: number, Name: string(ended.Name), Started: ended.Began, Ended: ended.Ended, State: state, Reason: ended.Reason, Counts: ended.Counts,
	}})
	if ended.State == job.PhaseFailed || ended.State == job.PhaseWarned {
		n.log.Warn("phase ended", "job", n.run.session.Job, "session", n.run.session.ID, "phase", ended.Name, "state", ended.State, "reason", ended.Reason)
	}
}

// waits notes what the session waits for; the zero value: it no longer does.
func (n *record) waits(wait job.Wait) {
	n.note(n.catalog.Sessions.Wait(n.context(), n.run.held(), catalog.Blocked{
		Kind: string(wait.Kind), State: string(wait.State), Reason: wait.Reason, Source: wait.Source, Until: wait.Until,
	}, wait.Text))
	if wait.Kind == job.WaitWindow { // its end has ended all copies
		n.giveBack(wait.Text)
	}
	if wait != (job.Wait{}) {
		n.log.Info("session waits", "job", n.run.session.Job, "session", n.run.session.ID, "kind", wait.Kind, "for", wait.Text)
	}
	n.tellSession()
}

// planned makes the tasks of what is to be copied.
func (n *record) planned(copies []job.PlannedCopy) {
	var rows []catalog.NewTask
	for i, c := range copies {
		rows = append(rows, catalog.NewTask{Machine: c.Machine, Point: &c.Point, Created: c.Created, Source: c.Source, Target: c.Target, Order: int64(i), Size: c.Size})
	}
	_, err := n.catalog.Tasks.Enqueue(n.context(), n.run.held(), rows)
	n.note(err)
	there, err := n.catalog.Tasks.Of(n.context(), n.run.session.ID)
	n.note(err)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, row := range there {
		if row.Point != nil && row.State == catalog.TaskWaiting && n.tasks[*row.Point] == nil {
			n.tasks[*row.Point] = &task{id: row.ID}
		}
	}
}

// started notes that a point is being copied.
func (n *record) started(p source.Point, progress *mover.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.tasks[p.ID]
	if t == nil {
		return
	}
	claimed, err := n.catalog.Tasks.Take(n.context(), t.id, n.options.Owner, leaseLength)
	n.note(err)
	if claimed != nil {
		t.lease, t.progress, t.row = &claimed.Lease, progress, claimed.Task
		kept := max(t.row.Progress.Kept, progress.Kept.Load()) // an earlier session may have stored it
		t.row.Progress.Kept, t.row.Progress.Resumed, t.row.Progress.Attempt = kept, kept, n.options.Now().UTC()
		row := t.row
		n.tell(Event{Kind: EventTask, Task: &row})
	}
}

// finished notes what became of a point that was being copied. One that failed may be tried again, and waits.
func (n *record) finished(step job.StepReport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.tasks[step.Point.ID]
	if step.Err == nil {
		n.stored++
	}
	if t == nil || t.lease == nil || step.Err != nil && n.run.context.Err() != nil { // it was interrupted: what is kept is still being written
		return
	}
	n.pace.add(t, step, n.options.Now())
	var err error
	if step.Err != nil {
		err = n.catalog.Tasks.Postpone(n.context(), *t.lease, job.Reason(step.Err), t.took(), true)
	} else {
		progress := t.took()
		progress.Read, progress.Written = step.Result.Read, step.Result.Stored
		err = n.catalog.Tasks.Finish(n.context(), *t.lease, catalog.TaskDone, "", progress)
		delete(n.tasks, step.Point.ID)
	}
	n.note(err)
	t.row.Progress = t.took()
	t.lease, t.progress = nil, nil
	n.tellTask(t.id)
}

// progress tells how far what is being worked on is, and with renew notes it and renews the leases.
func (n *record) progress(renew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tasks {
		if t.lease == nil {
			continue
		}
		row := t.row
		row.Progress = t.took()
		n.tell(Event{Kind: EventTask, Task: &row})
		if renew {
			_, err := n.catalog.Tasks.Renew(n.context(), t.lease, leaseLength, row.Progress)
			n.note(err)
		}
	}
}

// leave gives back the tasks that were being worked on: whoever takes the session over goes on with them.
func (n *record) leave() { n.giveBack("the server ended; it goes on from what was kept") }

// giveBack has the tasks wait that were being worked on, and says why.
func (n *record) giveBack(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tasks {
		if t.lease != nil {
			t.row.Progress = t.took()
			n.note(n.catalog.Tasks.Postpone(n.context(), *t.lease, reason, t.row.Progress, false))
			t.lease, t.progress = nil, nil
			n.tellTask(t.id)
		}
	}
}

// close ends the tasks that have not ended, by what the session says of their points and by what its target holds now.
func (n *record) close(s *job.Session, held map[backup.PointID]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	reports := map[string]job.TaskPoint{}
	reasons := map[string]string{}
	for _, of := range s.Tasks {
		for _, p := range of.Points {
			reports[p.Point], reasons[p.Point] = p, of.Reason
		}
	}
	for id, t := range n.tasks {
		if t.lease == nil {
			claimed, err := n.catalog.Tasks.Take(n.context(), t.id, n.options.Owner, leaseLength)
			if err != nil {
				return err
			}
			if claimed == nil { // it has ended
				delete(n.tasks, id)
				continue
			}
			t.lease = &claimed.Lease
		}
		state, reason := catalog.TaskStopped, s.Reason
		switch p := reports[id.String()]; {
		case p.Outcome == job.OutcomeFailed:
			state, reason = catalog.TaskFailed, p.Error
		case held[id]:
			state, reason = catalog.TaskDone, "it was stored before the session was interrupted"
		case reasons[id.String()] != "":
			reason = reasons[id.String()]
		}
		if err := n.catalog.Tasks.Finish(n.context(), *t.lease, state, reason, t.took()); err != nil {
			return err
		}
		if state == catalog.TaskDone {
			n.stored++
		}
		n.tellTask(t.id)
		delete(n.tasks, id)
	}
	return nil
}

func (n *record) tell(e Event) { n.events.publish(n.run.session.ID, e) }

func (n *record) tellTask(id int64) {
	if n.events.wanted(n.run.session.ID) {
		if row, err := n.catalog.Tasks.Get(n.context(), id); err == nil {
			n.tell(Event{Kind: EventTask, Task: &row})
		}
	}
}

func (n *record) tellSession() {
	if n.events.wanted(n.run.session.ID) {
		if session, err := n.catalog.Sessions.Get(n.context(), n.run.session.ID); err == nil {
			n.tell(Event{Kind: EventSession, Session: &session})
		}
	}
}
