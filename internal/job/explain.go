package job

import (
	"context"
	"time"

	"ferry/internal/plan"
)

// Explanation is what a session would do now.
type Explanation struct {
	Plan    plan.IntervalPlan
	Target  TargetState
	Sources []SourceState
	// Locked is until when the storage keeps the target's files, at least; zero if it does not. The space of points that are
	// removed comes back then.
	Locked time.Time
	// Warnings of looking.
	Warnings []string
}

// Explain plans as a session does that would begin now, and changes nothing. The error is that the target is not ready, or
// what looking at it gave; the explanation is true as far as it goes.
func Explain(ctx context.Context, setup Setup) (*Explanation, error) {
	r := newRunner(setup)
	defer r.close()
	defer r.endListings()
	e := &Explanation{}
	err := r.openTarget(ctx)
	if err == nil {
		var v *view
		if v, err = r.look(ctx); err == nil {
			v.close()
			e.Plan, e.Locked = v.plan, r.lockedUntil()
		}
	}
	e.Target, e.Sources, e.Warnings = r.session.Target, r.session.Sources, r.session.Warnings
	return e, err
}

// lockedUntil is until when the storage keeps all that the target's log names, at least; zero if it does not now.
func (r *runner) lockedUntil() time.Time {
	if until := r.target.LockInfo().Until; until.After(r.Now()) {
		return until
	}
	return time.Time{}
}
