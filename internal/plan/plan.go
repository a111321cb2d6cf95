// Package plan decides what a copy does, and says why for every point. It is pure: what a source offers, what a target
// has and what was asked for go in, steps with reasons come out. The same input gives the same plan, and after a plan
// has been carried out the next one is empty.
package plan

import (
	"cmp"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Action is what happens to a point.
type Action string

// The actions. Only ActionCopy moves data.
const (
	ActionCopy         Action = "copy"
	ActionAlreadyThere Action = "already there"
	ActionOlder        Action = "older"
	ActionLocked       Action = "locked"
	ActionBroken       Action = "broken"
	ActionUnsupported  Action = "unsupported"
	ActionEncrypted    Action = "encrypted"
	// ActionForgotten: the target had it and gave it up; it is not to come back by itself.
	ActionForgotten Action = "forgotten"
)

// Step is what happens to one point, and why.
type Step struct {
	Point  backup.Point
	Action Action
	// Reason in words for a person; empty where the action says it all.
	Reason string
	// Failure is true if not copying this point is a failure of its machine rather than something to mention.
	Failure bool
}

// Request says what is wanted.
type Request struct {
	// All takes every complete point, oldest first; else the newest complete point of each machine is taken.
	All bool
	// Machines are selectors; a machine is taken if one of them matches. None means all.
	Machines []string
	// Forgotten tells of points that the target had and gave up: they are not copied again. Nil means none.
	Forgotten func(backup.PointID) bool
	// Damaged tells of points that the target has and cannot read whole: each is copied again, whatever else is taken. Nil
	// means none. They are not among those that the target has.
	Damaged func(backup.PointID) bool
	// Full reads points whole from the source, also those that the target has.
	Full bool
}

// Plan is the steps for every point of the machines that were asked for.
type Plan struct {
	Steps []Step
}

// Copies are the steps that move data, in order.
func (p Plan) Copies() []Step {
	var copies []Step
	for _, step := range p.Steps {
		if step.Action == ActionCopy {
			copies = append(copies, step)
		}
	}
	return copies
}

// Make plans a copy of points to a target that has those for which has returns true. Machines keep the order in which
// they first occur; a machine's points go by time.
func Make(points []backup.Point, has func(backup.PointID) bool, request Request) Plan {
	order := map[backup.MachineKey]int{}
	var chosen []backup.Point
	for _, p := range points {
		if !Selected(p.Machine, request.Machines) {
			continue
		}
		if _, seen := order[p.Machine.Key]; !seen {
			order[p.Machine.Key] = len(order)
		}
		chosen = append(chosen, p)
	}
	slices.SortStableFunc(chosen, func(a, b backup.Point) int {
		return cmp.Or(cmp.Compare(order[a.Machine.Key], order[b.Machine.Key]), a.Created.Compare(b.Created))
	})
	forgotten := func(id backup.PointID) bool { return request.Forgotten != nil && request.Forgotten(id) }
	damaged := func(id backup.PointID) bool { return request.Damaged != nil && request.Damaged(id) }
	newest := map[backup.MachineKey]int{}
	for i, p := range chosen {
		// A point that the target has, or had, counts as complete, whatever became of the source's file: nothing older than
		// what is held is taken.
		if p.State != backup.StateComplete && !has(p.ID) && !forgotten(p.ID) && !damaged(p.ID) {
			continue
		}
		if taken, any := newest[p.Machine.Key]; !any || p.Created.After(chosen[taken].Created) {
			newest[p.Machine.Key] = i // of several at one time, the first in the source's order
		}
	}
	var plan Plan
	for i, p := range chosen {
		taken, any := newest[p.Machine.Key]
		step := decide(p, has)
		if request.Full && step.Action == ActionAlreadyThere && (request.All || i == taken) {
			step = decide(p, func(backup.PointID) bool { return false })
			if step.Action == ActionCopy {
				step.Reason = "it is there, and is read whole again"
			}
		}
		if forgotten(p.ID) && step.Action != ActionAlreadyThere {
			step.Action, step.Reason = ActionForgotten, "the repository has given it up; --again copies it all the same"
		}
		if step.Action == ActionCopy && damaged(p.ID) {
			step.Reason = "the repository's copy of it is damaged"
		} else if step.Action == ActionCopy && !request.All && i != taken {
			step.Action, step.Reason = ActionOlder, "a newer complete point is taken; --all takes this one too"
		}
		// A point that is broken fails its machine if it was asked for, or if what is copied is older than it.
		step.Failure = step.Action == ActionBroken && (request.All || len(request.Machines) > 0 || !any || i > taken)
		plan.Steps = append(plan.Steps, step)
	}
	return plan
}

func decide(p backup.Point, has func(backup.PointID) bool) Step {
	step := Step{Point: p, Reason: p.Reason}
	switch {
	case has(p.ID):
		step.Action, step.Reason = ActionAlreadyThere, ""
	case p.State == backup.StateLocked:
		step.Action = ActionLocked
	case p.State == backup.StateBroken:
		step.Action = ActionBroken
	case p.State == backup.StateUnsupported:
		step.Action = ActionUnsupported
	case p.State == backup.StateEncrypted:
		step.Action = ActionEncrypted
	default:
		step.Action = ActionCopy
	}
	return step
}

// Selected is true if a machine matches one of the selectors, or there are none.
func Selected(m backup.Machine, selectors []string) bool {
	return len(selectors) == 0 || slices.ContainsFunc(selectors, func(s string) bool { return policy.Selector(s).Matches(m) })
}
