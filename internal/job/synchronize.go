package job

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// maxAttempts is how often a point's copy is begun in one session.
const maxAttempts = 4

// trouble is what an error of a copy calls for.
type trouble int

const (
	// troubleRetry: a connection, or the source in motion. Trying again may help.
	troubleRetry trouble = iota
	// troubleGone: the point is no longer there. Another one is looked for at once.
	troubleGone
	// troubleStays: trying again does not help.
	troubleStays
)

// troubleOf classes an error.
func troubleOf(err error) trouble {
	switch {
	case errors.Is(err, backup.ErrVanished):
		return troubleGone
	case errors.Is(err, backup.ErrBroken), errors.Is(err, backup.ErrUnsupported), errors.Is(err, backup.ErrEncrypted),
		errors.Is(err, backup.ErrDamaged), errors.Is(err, repo.ErrCorrupt):
		return troubleStays
	}
	return troubleRetry
}

// errWindow ends the copies that are in progress when the window closes.
var errWindow = errors.New("the window has closed")

// synchronize copies what the plan says, and looks again as long as that leads on: after trouble that may pass, after a
// point that is gone, and while locks are waited for. Each look plans anew from what is there then, so what is done is not
// done again.
func (r *runner) synchronize(ctx context.Context) error {
	return r.during(PhaseSynchronize, func(phase *Phase) error {
		err := r.rounds(ctx, phase)
		r.sum(phase)
		return err
	})
}

// sum notes in the phase what the tasks came to.
func (r *runner) sum(phase *Phase) {
	phase.Counts["copied"], phase.Counts["claimed"], phase.Counts["failed"] = 0, 0, 0
	for _, task := range r.tasks {
		phase.Counts["copied"] += int64(task.outcomes(plan.ActionCopy, OutcomeCopied))
		phase.Counts["claimed"] += int64(task.outcomes(plan.ActionClaim, OutcomeCopied))
		phase.Counts["failed"] += int64(task.outcomes(plan.ActionCopy, OutcomeFailed))
		for _, p := range task.Points {
			phase.Counts["readBytes"] += p.ReadBytes
			phase.Counts["storedBytes"] += p.StoredBytes
		}
	}
	if phase.State == PhaseDone && phase.Counts["failed"] > 0 {
		phase.State = PhaseWarned
	}
}

// round looks once, and carries out what it sees. While the window is closed it looks at nothing.
func (r *runner) round(ctx context.Context, phase *Phase) (again, error) {
	if open, until := r.window(); !open {
		if err := r.transformBeforeWindow(ctx); err != nil {
			return never, err
		}
		return r.untilOpen(phase, until), nil
	}
	r.transformed = false
	open, cancel := r.whileOpen(ctx)
	defer cancel()
	began := r.Now()
	v, err := r.lookWithin(ctx, open)
	r.looked = r.Now().Sub(began)
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(context.Cause(open), errWindow):
		r.block(phase, waitFor(WaitWindow, errWindow.Error()))
		r.noteUnlisted()
		return whileWaiting, nil
	case err != nil:
		return never, err
	}
	defer v.close()
	if r.session.SourcesWait() {
		r.block(phase, r.sourceWait())
		return whileWaiting, nil
	}
	phase.State, phase.Reason = PhaseDone, ""
	r.describe(v.plan)
	r.noteMissing(v.plan)
	r.beginTurn()
	if err := r.claimThere(ctx, v.plan); err != nil {
		return never, err
	}
	todo := r.inTurn(r.todo(v.plan))
	if r.endBackfills(v.plan, todo) {
		return atOnce, nil
	}
	if len(todo) == 0 {
		return r.next(v.plan), nil
	}
	if r.Host.Planned != nil {
		r.Host.Planned(r.plannedCopies(todo))
	}
	if err := r.before(ctx); err != nil {
		return never, err
	}
	if made, err := r.checkRoom(ctx, todo); made || err != nil {
		return atOnce, err
	}
	if isOpen, until := r.window(); !isOpen { // the script took that long
		then := r.untilOpen(phase, until)
		r.waitAll(todo, phase.Reason)
		return then, nil
	}
	r.waits(Wait{})
	then, err := r.transfer(ctx, open, v, todo, phase)
	return then, r.withRoom(ctx, err, todo)
}

// untilOpen notes that the phase waits for the window, and says how it goes on.
func (r *runner) untilOpen(phase *Phase, until time.Time) again {
	r.block(phase, waitFor(WaitWindow, "the window is closed until "+r.show(until)).till(until))
	if until.After(r.until) {
		return never
	}
	return whileWaiting
}

// transfer copies points while open lasts, which ends with the window, and says how it goes on.
func (r *runner) transfer(ctx, open context.Context, v *view, todo []plan.IntervalStep, phase *Phase) (again, error) {
	// Copies leave the space that giving space back takes: else a full target would never get any again.
	if err := r.target.Reserve(ctx); err != nil {
		return never, err
	}
	r.choose(todo)
	if err := r.remember(ctx); err != nil {
		return never, err
	}
	r.entries = map[string][]repo.Entry{}
	for _, entry := range r.target.Entries() {
		machine := entry.Machine.String()
		r.entries[machine] = append(r.entries[machine], entry)
	}
	r.stands = time.Time{}
	copying, end := r.untilListed(open)
	defer end()
	copying, cut := context.WithCancelCause(copying)
	defer cut(nil)
	retry, err := r.copyAll(copying, cut, v.opened, todo, r.awaited(v.plan))
	switch {
	case ctx.Err() != nil:
		return never, ctx.Err()
	case errors.Is(context.Cause(copying), errWindow):
		r.block(phase, waitFor(WaitWindow, errWindow.Error()))
		r.waitAll(todo, phase.Reason)
		return whileWaiting, nil
	case errors.Is(context.Cause(copying), errListed):
		r.noteCuts()
		return goesOn, nil
	case errors.Is(context.Cause(copying), errAppeared):
		r.appearedBefore++
		return goesOn, nil
	case errors.Is(context.Cause(copying), errExpired):
		phase.State, phase.Reason = PhaseWaits, errExpired.Error()
		r.waitAll(todo, expiredText)
		return never, nil
	case err != nil && stateOf(err) == StateUnreadable && r.targetTries < maxAttempts-1:
		r.targetTries++
		r.warnOnce("the target: " + err.Error())
		return afterPause, nil
	case err != nil:
		return never, err
	case retry:
		return afterPause, nil
	}
	return atOnce, nil // what is gone, or was pinned: is there something newer?
}

// targetTrouble notes an error of the target in its state, which ends the session. Health check and compact do not: what
// fails to be read there, or lacks space, may keep no copy from being made.
func (r *runner) targetTrouble(err error) error {
	if err == nil {
		return nil
	}
	if state := stateOf(err); state == StateFull || state == StateReadOnly || state == StateOffline || errors.Is(err, answer.ErrNone) {
		r.session.Target.State, r.session.Target.Reason = state, backup.SafeText(err.Error())
	}
	return err
}

func (r *runner) show(at time.Time) string { return policy.ShowTime(at, r.Job.Schedule.Zone) }

// describe gives each selected machine the task that the plan says, before anything is done.
func (r *runner) describe(p plan.IntervalPlan) {
	r.alarmsOf(p)
	for _, m := range p.Machines {
		if !m.Selected && m.Missing.IsZero() {
			continue
		}
		task := r.task(m.Machine)
		task.Behind = cmp.Or(backup.SafeText(m.Behind), task.Behind) // before the copies, or after them
		if r.seeded(m.Machine.Key) {
			task.Mapped = mappedCopy(m)
		}
		for _, warning := range m.Warnings {
			r.warnOnce(nameOf(describeMachine(m.Machine)) + ": " + warning)
		}
		if task.State != TaskCopied {
			task.State, task.Reason = taskState(m), backup.SafeText(m.Reason)
		}
		for _, step := range m.Steps {
			if step.Failure {
				r.note(step, OutcomeFailed, step.Reasons)
			}
		}
	}
}

// mappedCopy is the newest point that the job has of a machine; nil if it has none.
func mappedCopy(m plan.MachinePlan) *MappedCopy {
	var newest *MappedCopy
	for _, step := range m.Steps { // oldest first
		if step.OnTarget && (step.Action == plan.ActionKeep || step.Action == plan.ActionClaim) {
			created, _ := backup.BoundTime(step.Point.Created)
			newest = &MappedCopy{Point: step.Point.ID.String(), Created: created}
		}
	}
	return newest
}

// alarmsOf raises the alarms of a plan.
func (r *runner) alarmsOf(p plan.IntervalPlan) {
	for _, alarm := range p.Alarms {
		r.alarm(AlarmOther, alarm)
	}
	for _, warning := range p.Warnings {
		r.warnOnce(warning)
	}
	for _, m := range p.Machines {
		for _, alarm := range m.Alarms {
			r.alarm(AlarmOther, nameOf(describeMachine(m.Machine))+": "+alarm)
		}
	}
}

func taskState(m plan.MachinePlan) TaskState {
	for _, step := range m.Steps {
		if step.Action == plan.ActionCopy || step.Action == plan.ActionClaim {
			return TaskNotReached
		}
	}
	switch {
	case !m.Missing.IsZero():
		return TaskMissing
	case m.Locked:
		return TaskWaits
	}
	return TaskUpToDate
}

func (r *runner) alarm(kind AlarmKind, text string) {
	if alarm := (Alarm{kind, backup.SafeText(text)}); !slices.Contains(r.session.Alarms, alarm) {
		r.session.Alarms = append(r.session.Alarms, alarm)
	}
}

// claimThere claims what the target has for other jobs.
func (r *runner) claimThere(ctx context.Context, p plan.IntervalPlan) error {
	steps := p.Steps(plan.ActionClaim)
	var claims []repo.Claim
	for _, step := range steps {
		claim := repo.Claim{Point: step.Point.ID, Job: r.Job.Name}
		if r.rules(*step.Point.Machine).HasTiers() { // as planned: older points, which fill slots first, may still be copied
			claim.Flags = FlagsOf(step.Slots)
		}
		claims = append(claims, claim)
	}
	if _, err := r.target.Claim(ctx, claims); err != nil {
		return err
	}
	for _, step := range steps {
		r.note(step, OutcomeCopied, step.Reasons)
		if !step.Again {
			r.noteTurn(step)
		}
		r.done(step)
	}
	return nil
}

// done notes that the job holds a point from now on.
func (r *runner) done(step plan.IntervalStep) {
	task := r.task(*step.Point.Machine)
	task.State, task.Reason = TaskCopied, ""
}

// todo are the copies that the plan asks for, without those that were tried often enough or that trying again does not help. After
// the end of the interval they are what was chosen before: what has come since is the next one's.
func (r *runner) todo(p plan.IntervalPlan) []plan.IntervalStep {
	var todo []plan.IntervalStep
	late := r.expired() && len(r.chosen) > 0
	for _, step := range p.Steps(plan.ActionCopy) {
		if id := step.Point.ID; r.attempts[id] < maxAttempts && !r.copiedNow[id] && (!late || r.chosen[id]) {
			todo = append(todo, step)
		}
	}
	return todo
}

// waitAll makes the tasks of copies wait that are not done.
func (r *runner) waitAll(todo []plan.IntervalStep, reason string) {
	for _, step := range todo {
		if task := r.task(*step.Point.Machine); task.State != TaskCopied {
			task.State, task.Reason = TaskWaits, reason
		}
	}
}
