package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// list opens the sources into the view, and notes what they offer. Where it does not come to the end, what was listed before still holds.
func (r *runner) list(ctx, reading context.Context, v *view) error {
	states, err := r.openSources(ctx, reading, v)
	if err != nil {
		return err
	}
	r.offers, r.selected, r.partly, r.hidden = nil, nil, "", false
	doubt := ""
	now, locked := r.Now(), map[string]bool{}
	var offers []policy.Offer
	var listings []Listing
	for i, place := range r.Sources {
		opened, state := v.opened[i], &states[i]
		var briefs []backup.Brief
		if opened != nil {
			briefs = briefsOf(opened)
			offered := place.offers(i, opened, briefs, func(p *source.Point) time.Time {
				key := state.Name + "/" + p.ID.String()
				locked[key] = true
				return r.Host.Locks.see(key, p, now)
			})
			for _, o := range offered {
				offers = append(offers, policy.Offer{Point: o.Brief, Source: state.Name, Via: o.Via})
			}
			r.offers = append(r.offers, offered...)
			if state.Points = len(offered); state.Points == 0 {
				state.State, state.Reason = StateEmpty, cmp.Or(state.Reason, "it offers no restore points"+mountedHint(place))
			}
		}
		unlisted := r.unlisted(opened, state.Name)
		doubt = cmp.Or(doubt, unlisted)
		if state.State != StateReady {
			doubt = cmp.Or(doubt, fmt.Sprintf("source %s is %s", state.Name, state.State))
		}
		if opened != nil && !slices.ContainsFunc(listings, func(l Listing) bool { return l.Repository == state.Name }) {
			listings = append(listings, Listing{Repository: state.Name, Complete: state.State == StateReady && unlisted == "" && len(opened.Incomplete) == 0, Points: briefs})
		}
	}
	r.session.Sources = states
	r.session.Selected = []backup.Machine{}
	r.selection = r.Job.Choose(offers, r.targetID())
	for _, m := range r.selection.Machines {
		if m.In {
			r.selected = append(r.selected, m.Machine.Key)
			r.session.Selected = append(r.session.Selected, m.Machine)
		}
	}
	r.session.Listings, r.session.Seen = listings, r.complete()
	r.doubt, r.memory.Listed = doubt, nil
	if doubt == "" {
		r.memory.Listed = r.places()
		r.Host.Locks.only(locked)
	}
	return nil
}

// unlisted notes that a source may have points that are not listed, and returns why that is doubt; empty: it is none. An encrypted
// repository among the backups hides its points for good: that is nothing that the session fails to do, and only keeps from purging. One
// with another history than was seen lacks what it had, which has not gone from the machines that it was copied from.
func (r *runner) unlisted(opened *registry.Source, name string) (doubt string) {
	if opened == nil {
		return ""
	}
	for _, reason := range opened.Incomplete {
		if stateOf(reason) == StateNeedsKey {
			r.hidden = true
			continue
		}
		doubt = fmt.Sprintf("source %s is not listed whole: %s", name, backup.SafeText(reason.Error()))
		r.partly = cmp.Or(r.partly, doubt)
		r.alarm(AlarmOther, doubt+"; machines that lie there are not copied")
		return doubt // one tells what to look after
	}
	for _, problem := range opened.Problems {
		if errors.Is(problem, repo.ErrDiverged) {
			doubt = fmt.Sprintf("source %s is not as it was: %s", name, backup.SafeText(problem.Error()))
			r.alarm(AlarmOther, doubt+"; what it lacks does not count as gone; "+backup.SafeText(backup.Hint(problem)))
			return doubt
		}
	}
	return ""
}

// complete are the complete points of the machines that are selected, and whose they are.
func (r *runner) complete() map[backup.PointID]*backup.Machine {
	selected := map[backup.MachineKey]bool{}
	for _, key := range r.selected {
		selected[key] = true
	}
	points := map[backup.PointID]*backup.Machine{}
	for _, o := range r.offers {
		if o.State == backup.StateComplete && selected[o.Machine.Key] {
			points[o.ID] = o.Machine
		}
	}
	return points
}

// briefsOf are the briefs of a source's points, in their order.
func briefsOf(opened *registry.Source) []backup.Brief {
	var briefer backup.Briefer
	briefs := make([]backup.Brief, len(opened.Points))
	for i := range opened.Points {
		briefs[i] = briefer.Brief(&opened.Points[i].Point)
	}
	return briefs
}

// offers are the points of a source that are the job's, by their briefs. grew says when a locked one was last seen to grow.
func (p Place) offers(number int, opened *registry.Source, briefs []backup.Brief, grew func(*source.Point) time.Time) []plan.Offer {
	offers := make([]plan.Offer, 0, len(opened.Points))
	for i := range opened.Points {
		point := &opened.Points[i]
		var jobs []string
		if p.Jobs != nil {
			jobs = p.Jobs(*point)
		}
		if p.Origin.Offers(point.Machine, jobs) {
			offer := plan.Offer{Brief: &briefs[i], Source: number, Via: point.Via, Grew: lastWritten(point)}
			if point.State == backup.StateLocked {
				offer.Grew = grew(point)
			}
			offers = append(offers, offer)
		}
	}
	return offers
}

// openSource lists a source, and says what state it is in.
func (r *runner) openSource(ctx context.Context, place Place) (*registry.Source, SourceState) {
	state := SourceState{Name: place.Origin.Repository.Name, State: StateReady}
	opened, err := registry.Answering(ctx, place.Origin.Repository.Location, func() (*registry.Source, error) { return place.Open(ctx) })
	if err != nil {
		state.State, state.Reason, state.silent = StateUnreadable, backup.SafeText(err.Error()), errors.Is(err, answer.ErrNone)
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrNoRepository)) && !errors.Is(err, ErrNoKey) {
			state.State = StateMissing
		}
		if errors.Is(err, syscall.ENOENT) { // what else is not there says more itself
			state.Reason += mountedHint(place)
		}
		return nil, state
	}
	for _, problem := range opened.Problems {
		state.Reason = cmp.Or(state.Reason, backup.SafeText(problem.Error()))
	}
	return opened, state
}

// mountedHint is what a person is asked of a folder that is not there, or has nothing.
func mountedHint(place Place) string {
	if place.Origin.Repository.InBucket() {
		return ""
	}
	return "; is the disk mounted?"
}

// sourceWait is a wait for the sources, none of which is ready.
func (r *runner) sourceWait() Wait {
	wait, states := waitFor(WaitSource, r.notReady()), r.session.Sources
	if !slices.ContainsFunc(states, func(s SourceState) bool { return s.State != states[0].State }) {
		wait.State = states[0].State
	}
	return wait
}

// notReady says of each source that is not ready why.
func (r *runner) notReady() string {
	var texts []string
	for _, state := range r.session.Sources {
		if state.State != StateReady {
			texts = append(texts, fmt.Sprintf("source %s %s: %s", state.Name, state.State.Is(), state.Reason))
		}
	}
	return strings.Join(texts, "; ")
}
