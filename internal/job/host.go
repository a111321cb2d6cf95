package job

import (
	"context"
	"errors"
	"iter"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// Why a session is interrupted, as the cause of its context. Any other cause is a person's wish that it end after a checkpoint.
var (
	// ErrLeft: the process ends, and another one carries the session on: there is a checkpoint, and no script after the job.
	ErrLeft = errors.New("the process ends, and another one goes on")
	// ErrStopNow: a person wants it to end at once. What was not committed is not kept, and no script after the job is run.
	ErrStopNow = errors.New("stopped at once")
)

// Host is what a session is given by the process that carries out many of them, and what it tells it. The zero value is that of
// a session which is the only one.
type Host struct {
	// ID names the session in its record and for scripts; empty: a random one.
	ID string
	// Start is when the job was first enabled: its intervals count from there. Zero: from when it first ran.
	Start time.Time
	// Interval that the session is of; the zero value: the one in which it begins. Once it has ended nothing is waited for any
	// more, and no points are looked for beyond those that were chosen. Until then a target that is not ready is waited for too.
	Interval policy.Interval
	// Over, if not nil, is closed once the interval has ended and the job's next one begins as soon as this session has ended: copies in
	// progress end then after a checkpoint, and go on in that one. It is so also where the clock was set back since.
	Over <-chan struct{}
	// Awaits: the session is the interval's own, so a job that looks forward waits until its end for the points of machines that have
	// made none since it began.
	Awaits bool
	// Again: an earlier session was of the same interval. Machines of which the interval has had a point get no second one.
	Again bool
	// Retired is what the process knows of machines that have gone for good, or are back. It is asked before each decision: who is
	// said to be back loses nothing to a session that runs. Session.Retired says what the target knew.
	Retired func() map[backup.MachineKey]backup.Retirement
	// Began is when the session began, if another process began it, and Earlier what that was to copy: it is in the report too.
	Began   time.Time
	Earlier []EarlierCopy
	// Ran are scripts that a process has run for this session before it went. They are not run again.
	Ran map[PhaseName]bool

	// Window is the job's window as it stands, which may be changed meanwhile; it is asked by several goroutines. nil: it is Job.Window.
	Window func() policy.Window
	// Locks are what the process has seen of locked points in the job's sources; nil: nothing yet.
	Locks *Locks

	// PhaseEnded is told of each phase when it has ended, or was skipped.
	PhaseEnded func(Phase)
	// Planned is told which points are to be copied, in their order, before the first of them is.
	Planned func([]PlannedCopy)
	// Slots are those that its machines take, one each. What was copied is committed before other jobs are waited for. nil: one
	// machine is copied at a time.
	Slots *Slots
	// Waits is told what the session waits for; the zero value: it no longer does.
	Waits func(Wait)
	// Leaving is given the target at the end of the work on it, if it is ready.
	Leaving func(context.Context, *repo.Repository)
}

// PlannedCopy is a point that is to be copied, and the names of the repositories that it is copied between.
type PlannedCopy struct {
	Machine        backup.Machine
	Point          backup.PointID
	Created        time.Time
	Source, Target string
	// Size of the point's objects in bytes, of those whose size is known.
	Size int64
}

// Listing is what a source had when it was listed last.
type Listing struct {
	Repository string
	// Complete: all of it could be listed, and it has something. Only then does what is not there mean anything.
	Complete bool
	// Points are all that it has, of any state.
	Points []backup.Brief
}

// Briefs are the listing's points.
func (l *Listing) Briefs() iter.Seq[*backup.Brief] {
	return func(yield func(*backup.Brief) bool) {
		for i := range l.Points {
			if !yield(&l.Points[i]) {
				return
			}
		}
	}
}

// Look lists the sources of a job and returns the complete points that they have of the machines selected, and whose they are. It
// neither opens the target nor changes anything. Sources that are not ready have none, nor has any while the window is closed.
func Look(ctx context.Context, setup Setup) (map[backup.PointID]*backup.Machine, error) {
	r := newRunner(setup)
	if open, _ := r.window(); !open {
		return r.session.Seen, nil
	}
	defer r.endListings()
	v := &view{}
	defer v.close()
	if err := r.list(ctx, ctx, v); err != nil {
		return nil, err
	}
	return r.session.Seen, nil
}

// targetID is the target's id as far as it is known.
func (r *runner) targetID() string {
	if r.target != nil {
		return r.target.ID()
	}
	return r.Target.ID
}

// expired is true once the interval has ended that whoever keeps the schedule gave.
func (r *runner) expired() bool {
	ends := r.Host.Interval.Ends
	return !ends.IsZero() && (!r.Now().Before(ends) || r.isOver())
}

// left is how long may be waited still.
func (r *runner) left() time.Duration {
	if r.expired() {
		return 0
	}
	return r.until.Sub(r.Now())
}

// plannedCopies are copies as the host is told of them.
func (r *runner) plannedCopies(todo []plan.IntervalStep) []PlannedCopy {
	copies := make([]PlannedCopy, len(todo))
	for i, step := range todo {
		copies[i] = PlannedCopy{
			Machine: *step.Point.Machine, Point: step.Point.ID, Created: step.Point.Created, Size: step.Point.Size,
			Source: r.Sources[step.Source].Origin.Repository.Name, Target: r.Target.Name,
		}
	}
	return copies
}

// pauseFor waits for a time, and tells for what.
func (r *runner) pauseFor(ctx context.Context, length time.Duration, wait Wait) error {
	r.waits(wait)
	return r.Pause(ctx, length)
}

// untilReady runs the phases, and again after a target has turned out full or read only at work, for as long as the interval
// goes on. One that is not there to begin with the phases wait for themselves.
func (r *runner) untilReady(ctx context.Context) error {
	for pause := lookAgain; ; pause = min(2*pause, longestPause) { // a full target costs a look at everything each time
		err := r.phases(ctx)
		state := r.session.Target.State
		left := r.left()
		if err == nil || ctx.Err() != nil || r.Host.Interval.Begins.IsZero() || state == StateReady || state == StateOther || state == "" || left <= 0 {
			return err
		}
		r.close() // meanwhile it can be unmounted
		if err := r.pauseFor(ctx, min(pause, left), r.targetWait()); err != nil {
			return err
		}
	}
}
