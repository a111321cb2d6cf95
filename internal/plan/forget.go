package plan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Claim is a job's claim on a point, as far as planning needs it.
type Claim struct {
	// Flags are the slots that the point filled when it was claimed; Flagged says that this was decided.
	Flags   []string
	Flagged bool
}

// ForgetRequest says which points a job is to give up: by rules, or by name.
type ForgetRequest struct {
	// Machines are selectors as in Request; none means all.
	Machines []string
	// Points are beginnings of ids, six characters or more. With them there are no rules.
	Points []string
	Rules  policy.Retention
	// Newest allows that a point named is the newest good one of its machine.
	Newest bool
}

// ForgetStep is what becomes of one point that the job claims.
type ForgetStep struct {
	Point backup.Point
	// Remove is true if the job gives the point up.
	Remove bool
	// Reasons in words for a person, at least one.
	Reasons []string
	// Slots that the point fills by the rules, by name: its claim keeps them from now on.
	Slots []string
}

// ErrNoPointID: the text cannot be the beginning of a point's id.
var ErrNoPointID = errors.New("it is not six or more characters of an id")

// ErrNewest: a point is the newest good one of its machine, and giving it up was not asked for expressly.
var ErrNewest = errors.New("newest good point of its machine")

// Forget plans which points a job gives up. claimed tells whether the job claims a point; others are none of its
// business. Only complete points count as good. One that is neither complete nor broken may be good all the same: rules
// leave it, and by name it is guarded as the newest good one is. Machines keep the order in which they first occur; a
// machine's steps go by time. Errors wrap ErrNotFound, ErrAmbiguous, ErrNoPointID or ErrNewest.
func Forget(points []backup.Point, claimed func(backup.PointID) (Claim, bool), request ForgetRequest, now time.Time) ([]ForgetStep, error) {
	var order []backup.MachineKey
	own := map[backup.MachineKey][]backup.Point{}
	for _, p := range points {
		if _, mine := claimed(p.ID); !mine || !Selected(p.Machine, request.Machines) {
			continue
		}
		if own[p.Machine.Key] == nil {
			order = append(order, p.Machine.Key)
		}
		own[p.Machine.Key] = append(own[p.Machine.Key], p)
	}
	var steps []ForgetStep
	for _, machine := range order {
		slices.SortStableFunc(own[machine], func(a, b backup.Point) int { return a.Created.Compare(b.Created) })
		if len(request.Points) > 0 {
			for _, p := range own[machine] {
				steps = append(steps, ForgetStep{Point: p, Reasons: []string{"not named"}})
			}
			continue
		}
		steps = append(steps, byRules(own[machine], claimed, request.Rules, now)...)
	}
	for _, text := range request.Points {
		if err := forgetNamed(steps, text, request.Newest); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

func byRules(points []backup.Point, claimed func(backup.PointID) (Claim, bool), rules policy.Retention, now time.Time) []ForgetStep {
	steps := make([]ForgetStep, len(points))
	var candidates []policy.Candidate
	var at []int // their steps
	for i, p := range points {
		steps[i].Point = p
		if p.State != backup.StateComplete && p.State != backup.StateBroken {
			steps[i].Reasons = []string{"whether it is good is not known"}
			continue
		}
		claim, _ := claimed(p.ID)
		candidates = append(candidates, policy.Candidate{ID: p.ID, Created: p.Created, Good: p.State == backup.StateComplete, Flags: claim.Flags, Flagged: claim.Flagged})
		at = append(at, i)
	}
	for i, v := range rules.Decide(candidates, now) {
		step := &steps[at[i]]
		step.Remove, step.Reasons, step.Slots = !v.Keep, v.Reasons, v.Slots
	}
	return steps
}

// forgetNamed marks the one step whose point's id begins with the text.
func forgetNamed(steps []ForgetStep, text string, newest bool) error {
	ids := make([]backup.PointID, len(steps))
	for i, step := range steps {
		ids[i] = step.Point.ID
	}
	found, err := PointNamed(ids, text)
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("%w among those that the job claims", err)
	case err != nil:
		return err
	}
	step := &steps[found]
	if !newest && step.Point.State != backup.StateBroken && !slices.ContainsFunc(steps[found+1:], func(other ForgetStep) bool {
		return other.Point.Machine.Key == step.Point.Machine.Key && other.Point.State == backup.StateComplete
	}) {
		return fmt.Errorf("point %s is the %w", step.Point.ID.Short(), ErrNewest)
	}
	step.Remove, step.Reasons = true, []string{"named"}
	return nil
}
