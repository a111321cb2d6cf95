package job

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/source"
	"ferry/internal/storage"
)

// A copy may take days, and no other machine waits for it:
//
//  1. When the interval ends and the job's next one is due, the copies in progress end after a checkpoint, as at the end of a window. The
//     session goes on with retention. The next one takes them up, beside what it copies of the other machines.
//  2. A point that is waited for, or of mode immediate any, and is complete while others are copied, ends these as well, and all go on at
//     once. That is done as soon as the first such point is there, and then once an hour.
//  3. A copy ends for another only when it is ahead. Of a stream, which can only be read from its beginning, a copy that is taken up reads
//     again what is stored: until it has stored as much beyond that, it goes on, and so do those that were chosen with it.
//  4. Machines that had no turn, since there were not slots enough for the time, begin first the next time; those whose copies are taken up
//     begin last. So each comes to its turn with one slot as well.
//
// A session that reads all machines whole because a person said so is no interval's, and nothing ends it but its end.

var (
	// errExpired ends the copies that are in progress when the next interval is due.
	errExpired = errors.New("the interval has ended")
	// errAppeared ends them when a point is complete that they did not wait for.
	errAppeared = errors.New("a point has appeared that was waited for")
)

// expiredText is why a machine waits whose copy has been ended, or did not come to its turn.
const expiredText = "the interval has ended: its copy goes on in the next"

// isOver is true once the host has said that the interval is over.
func (r *runner) isOver() bool {
	select {
	case <-r.Host.Over:
		return true
	default:
		return false
	}
}

// untilOthersAreDue ends copies by cut when they are to end for other machines, until the function that it returns is called. awaited are
// the machines of which points are waited for.
func (r *runner) untilOthersAreDue(ctx context.Context, c *copier, awaited map[backup.MachineKey]bool, cut context.CancelCauseFunc) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	if !r.Full {
		watching.Go(func() {
			select {
			case <-ctx.Done():
			case <-r.Host.Over:
				if c.untilMayEnd(ctx) == nil {
					cut(errExpired)
				}
			}
		})
	}
	everyPoint := r.Job.Schedule.Mode == policy.Immediate && !r.Full && !r.Host.Start.IsZero()
	if len(awaited) > 0 || everyPoint {
		awaits := func(of backup.MachineKey) bool { return awaited[of] || everyPoint && c.isThroughWith(of) }
		watching.Go(func() {
			if r.untilAppeared(ctx, awaits) == nil && c.untilMayEnd(ctx) == nil && !r.isOver() {
				cut(errAppeared)
			}
		})
	}
	return func() {
		cancel()
		watching.Wait()
	}
}

// untilAppeared returns when a point of one of some machines is there for which copies may be ended, or with an error when ctx ends.
func (r *runner) untilAppeared(ctx context.Context, awaits func(backup.MachineKey) bool) error {
	began := time.Now()
	for pause := lookAgain; ; {
		if err := storage.Sleep(ctx, pause); err != nil {
			return err
		}
		looking := time.Now()
		if r.appeared(ctx, awaits) && (r.appearedBefore == 0 || time.Since(began) >= cutAgain) {
			return ctx.Err()
		}
		pause = max(lookAgain, min(LookShare*time.Since(looking), longestLook))
	}
}

// appeared is true if the sources have a complete point of one of some machines that they did not have as the session looked last.
func (r *runner) appeared(ctx context.Context, awaits func(backup.MachineKey) bool) bool {
	setup := r.Setup
	setup.Target.ID = r.targetID()
	now, err := Look(ctx, setup) // what cannot be listed the session's own look says
	if err != nil {
		return false
	}
	for id, of := range now {
		if _, known := r.session.Seen[id]; !known && awaits(of.Key) {
			return true
		}
	}
	return false
}

// awaited are the machines of which a point may still come that this interval takes.
func (r *runner) awaited(p plan.IntervalPlan) map[backup.MachineKey]bool {
	awaited := map[backup.MachineKey]bool{}
	for _, m := range p.Machines {
		forward := r.Job.Lookup.Direction == policy.Forward
		switch {
		case r.Full, r.expired():
		case m.Locked, m.Waits && forward && r.Host.Awaits, m.Waits && !forward && r.takesWhatComes() && !r.hadTurn(m.Machine.Key):
			awaited[m.Machine.Key] = true
		}
	}
	return awaited
}

// takesWhatComes is true for an interval that takes the first point which appears of a machine that has had nothing to copy.
func (r *runner) takesWhatComes() bool {
	return r.Job.Schedule.Mode == policy.Periodic && !r.Host.Interval.Ends.IsZero()
}

// inTurn puts copies into the order in which they begin: first those of machines that had no turn the last time, then as planned, and
// last those that have begun. The points of a machine stay together, in their order.
func (r *runner) inTurn(todo []plan.IntervalStep) []plan.IntervalStep {
	begun := map[backup.PointID]bool{}
	for _, id := range r.target.Unfinished() {
		begun[id] = true
	}
	skipped := map[string]int{}
	for at, id := range r.memory.Skipped {
		skipped[id] = at - len(r.memory.Skipped)
	}
	turns := map[backup.MachineKey]int{}
	for _, step := range todo {
		key := r.backupOf(step.Point.Machine.Key)
		if _, known := turns[key]; known { // its first point has decided
			continue
		}
		turns[key] = skipped[key.String()]
		if turns[key] == 0 && begun[step.Point.ID] {
			turns[key] = 1
		}
	}
	slices.SortStableFunc(todo, func(a, b plan.IntervalStep) int {
		return turns[r.backupOf(a.Point.Machine.Key)] - turns[r.backupOf(b.Point.Machine.Key)]
	})
	return todo
}

// noteSkipped notes the machines of which copies were to be made that have come to nothing yet. Where the copies go on at once, for others,
// it only strikes out who had a turn: else those others came behind all that were there before.
func (r *runner) noteSkipped(todo []plan.IntervalStep, done []StepReport, c *copier, goOn bool) {
	had := map[backup.MachineKey]bool{}
	for i, step := range todo {
		key := r.backupOf(step.Point.Machine.Key)
		had[key] = had[key] || done[i].Outcome != OutcomeNotReached || c.gained[i]
	}
	if goOn {
		struck := map[string]bool{}
		for key, is := range had {
			struck[key.String()] = is
		}
		r.memory.Skipped = slices.DeleteFunc(r.memory.Skipped, func(id string) bool { return struck[id] })
		return
	}
	r.memory.Skipped = nil
	for _, step := range todo {
		if key := r.backupOf(step.Point.Machine.Key); !had[key] {
			had[key] = true
			r.memory.Skipped = append(r.memory.Skipped, key.String())
		}
	}
}

// begin notes that a point is being copied, until the function that it returns is called.
func (c *copier) begin(i int) (end func()) {
	id := c.works[i].point.ID
	c.mu.Lock()
	defer c.mu.Unlock()
	c.underWay[id] = nil
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		progress := c.underWay[id]
		c.gained[i] = c.gained[i] || progress != nil && progress.Gained()
		delete(c.underWay, id)
	}
}

// started notes how far the copy of a point is from now on.
func (c *copier) started(p source.Point, progress *mover.Progress) {
	c.mu.Lock()
	if _, is := c.underWay[p.ID]; is {
		c.underWay[p.ID] = progress
	}
	c.mu.Unlock()
	if c.options.Started != nil {
		c.options.Started(p, progress)
	}
}

// untilMayEnd returns when all copies that are under way are ahead, or with an error when ctx ends.
func (c *copier) untilMayEnd(ctx context.Context) error {
	for !c.mayEnd() {
		if err := storage.Sleep(ctx, lookAgain); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// isThroughWith is true if nothing of a machine is left to be copied.
func (c *copier) isThroughWith(of backup.MachineKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !slices.ContainsFunc(c.report.Steps, func(s StepReport) bool { return s.Outcome == OutcomeNotReached && s.Point.Machine.Key == of })
}

// mayEnd is true if all copies that are under way are ahead.
func (c *copier) mayEnd() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, progress := range c.underWay {
		if progress != nil && !progress.Ahead() {
			return false
		}
	}
	return true
}
