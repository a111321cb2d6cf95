package job

import (
	"context"
	"errors"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/storage"
)

// LookShare bounds what is spent on looking at sources where points may come, or be locked, all day: a look that took so long is made
// again after so many times as long, at the earliest.
const LookShare = 200

const (
	// firstPause is how long is waited before the second attempt; before each further one, pauseGrows times as long.
	firstPause = 5 * time.Second
	pauseGrows = 3
	// lookAgain is how often the sources are looked at while something is waited for.
	lookAgain = time.Minute
	// longestLook is after what time at the latest, for all of LookShare, sources are looked at again while points or locks are waited for.
	longestLook = 15 * time.Minute
	// longestPause is how long is waited at most before a target that turned out full or read only is tried again.
	longestPause = 15 * time.Minute
)

// rounds looks and copies until nothing is left that is worth waiting for.
func (r *runner) rounds(ctx context.Context, phase *Phase) error {
	pause := firstPause
	for {
		again, err := r.round(ctx, phase)
		if errors.Is(err, storage.ErrFull) && !r.madeRoom {
			again, err = atOnce, r.makeRoom(ctx)
		}
		if err != nil {
			return r.targetTrouble(err)
		}
		if again == never || r.expired() && again != afterPause && again != goesOn {
			return nil
		}
		var length time.Duration
		var wait Wait
		switch again {
		case never, atOnce, goesOn:
			continue
		case afterPause:
			length, pause = pause, pause*pauseGrows
			wait = waitFor(WaitRetry, "trouble that may pass").till(r.Now().Add(length))
		case whileWaiting:
			left := r.left()
			if left <= 0 {
				return nil
			}
			length, wait = min(r.untilLook(left), left), r.blocked
		}
		if err := r.pauseFor(ctx, length, wait); err != nil {
			return err
		}
	}
}

// again is whether a round is followed by another.
type again int

const (
	never again = iota
	atOnce
	// goesOn: at once, also after the end of the interval: what was chosen is not done.
	goesOn
	afterPause
	whileWaiting
)

// untilLook is how long is waited before the next look. There is one shortly before nothing is waited for any more. Sources that are
// listed on are looked at as soon as may be, and how long one kept the look waiting says nothing. While the window is closed only the
// clock is looked at: it may be set, and the interval be over by that.
func (r *runner) untilLook(left time.Duration) time.Duration {
	switch {
	case r.blocked.Kind == WaitWindow && !r.blocked.Until.IsZero():
		return min(lookAgain, max(time.Second, r.blocked.Until.Sub(r.Now())))
	case r.blocked.Kind != WaitPoint && r.blocked.Kind != WaitLock, len(r.listings) > 0:
		return lookAgain
	}
	return max(lookAgain, min(LookShare*r.looked, longestLook, left-r.looked-lookAgain))
}

// next is what follows a round in which nothing was to copy.
func (r *runner) next(p plan.IntervalPlan) again {
	var awaited []string
	r.session.Awaited = map[backup.MachineKey]bool{}
	for _, m := range p.Machines {
		switch {
		case m.Locked:
			r.blocked = waitFor(WaitLock, r.locks())
			return whileWaiting
		case !m.Waits:
		case r.Job.Lookup.Direction == policy.Forward:
			if r.Host.Awaits {
				awaited = append(awaited, nameOf(describeMachine(m.Machine))+": "+m.Reason)
			}
		case r.Job.Schedule.Mode == policy.Periodic && !r.hadTurn(m.Machine.Key):
			r.session.Awaited[m.Machine.Key] = true
		}
	}
	if len(awaited) > 0 {
		r.blocked = waitFor(WaitPoint, firstFew(awaited))
		return whileWaiting
	}
	if wait, is := r.unanswered(); is && !r.stoodLong() {
		r.blocked = wait
		return whileWaiting
	}
	return never
}

// locks says which machines' points are locked.
func (r *runner) locks() string {
	var names []string
	for _, key := range r.order {
		if task := r.tasks[key]; task.State == TaskWaits {
			names = append(names, nameOf(task.Machine)+": "+task.Reason)
		}
	}
	return firstFew(names)
}
