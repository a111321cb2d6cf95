package job

import (
	"context"

	"ferry/internal/plan"
)

// Explanation is what a session would do now.
type Explanation struct {
	Plan    plan.IntervalPlan
	Target  TargetState
	Sources []SourceState
	// Warnings of looking.
	Warnings []string
}

// Explain plans as a session does that would begin now, and changes nothing. The error is that the target is not ready, or
// what looking at it gave; the explanation is true as far as it goes.
func Explain(ctx context.Context, setup Setup) (*Explanation, error) {
	r := newRunner(setup)
	defer r.close()
	e := &Explanation{}
	err := r.openTarget(ctx)
	if err == nil {
		var v *view
		if v, err = r.look(ctx); err == nil {
			v.close()
			e.Plan = v.plan
		}
	}
	e.Target, e.Sources, e.Warnings = r.session.Target, r.session.Sources, r.session.Warnings
	return e, err
}
