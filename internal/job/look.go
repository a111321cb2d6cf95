package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// intervals are those of the job's schedule.
func (r *runner) intervals() policy.Intervals {
	if !r.Host.Start.IsZero() {
		return r.Job.Schedule.From(r.Host.Start)
	}
	return r.Job.Schedule.From(r.memory.started())
}

// interval is the one that the session is of.
func (r *runner) interval() policy.Interval {
	if !r.Host.Interval.Begins.IsZero() {
		return r.Host.Interval
	}
	began := r.session.Began
	intervals := r.intervals()
	if !intervals.Periodic() {
		return policy.Interval{Begins: began}
	}
	return policy.Interval{Begins: intervals.Current(began), Ends: intervals.Next(began)}
}

// look lists the sources and plans. The caller closes the view.
func (r *runner) look(ctx context.Context) (*view, error) { return r.lookWithin(ctx, ctx) }

// lookWithin looks with another context for what reads the sources.
func (r *runner) lookWithin(ctx, reading context.Context) (*view, error) {
	v := &view{}
	err := r.list(reading, v)
	if err == nil {
		err = r.target.Refresh(ctx)
	}
	var situation plan.Situation
	if err == nil {
		r.letGo(v)
		situation, err = r.situation(ctx)
	}
	if err != nil {
		v.close()
		return nil, err
	}
	r.session.Selected = append(r.session.Selected, r.unoffered(situation.Held)...)
	v.plan = r.planned(situation)
	return v, nil
}

// unoffered are the machines that the job selects and has points of, and that no source offers now.
func (r *runner) unoffered(held []plan.Held) []backup.Machine {
	offered := map[backup.MachineKey]bool{}
	for _, o := range r.offers {
		offered[o.Machine.Key] = true
	}
	var points []policy.Offer
	for _, h := range held {
		key := r.backupOf(h.Machine.Key)
		if !h.Claimed || offered[key] {
			continue
		}
		point := *h.Brief
		if h.Machine.Key != key {
			machine := *h.Machine
			machine.Key, point.Machine = key, &machine
		}
		points = append(points, policy.Offer{Point: &point})
	}
	var machines []backup.Machine
	for _, m := range r.Job.Choose(points, r.targetID()).Machines {
		if m.In {
			machines = append(machines, m.Machine)
		}
	}
	return machines
}

// list opens the sources into the view, and notes what they offer. What it does not come to the end of leaves doubt: retention must
// not take a machine that was not listed for one that is gone.
func (r *runner) list(ctx context.Context, v *view) error {
	r.offers, r.doubt, r.selected, r.partly, r.hidden = nil, "the sources were not all listed", nil, "", false
	doubt := ""
	states := []SourceState{}
	var offers []policy.Offer
	var listings []Listing
	for i, place := range r.Sources {
		opened, state := r.openSource(ctx, place)
		v.opened = append(v.opened, opened)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var briefs []backup.Brief
		if opened != nil {
			briefs = briefsOf(opened)
			offered := place.offers(i, opened, briefs)
			for _, o := range offered {
				offers = append(offers, policy.Offer{Point: o.Brief, Source: state.Name, Via: o.Via})
			}
			r.offers = append(r.offers, offered...)
			if state.Points = len(offered); state.Points == 0 {
				state.State, state.Reason = StateEmpty, cmp.Or(state.Reason, "it offers no restore points")
			}
		}
		unlisted := r.unlisted(opened, state.Name)
		doubt = cmp.Or(doubt, unlisted)
		if state.State != StateReady {
			doubt = cmp.Or(doubt, fmt.Sprintf("source %s is %s", state.Name, state.State))
		}
		states = append(states, state)
		if opened != nil && !slices.ContainsFunc(listings, func(l Listing) bool { return l.Repository == state.Name }) {
			listings = append(listings, Listing{Repository: state.Name, Complete: state.State == StateReady && len(opened.Incomplete) == 0, Points: briefs})
		}
	}
	r.session.Sources = states
	r.session.Selected = []backup.Machine{}
	for _, m := range r.Job.Choose(offers, r.targetID()).Machines {
		if m.In {
			r.selected = append(r.selected, m.Machine.Key)
			r.session.Selected = append(r.session.Selected, m.Machine)
		}
	}
	r.session.Listings, r.session.Seen = listings, r.complete()
	r.doubt = doubt
	return nil
}

// unlisted notes that a source may have points that are not listed, and returns why that is doubt; empty: it is none. An encrypted
// repository among the backups hides its points for good: that is nothing that the session fails to do, and only keeps from purging.
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
	return ""
}

// complete are the complete points of the machines that are selected.
func (r *runner) complete() map[backup.PointID]bool {
	selected := map[backup.MachineKey]bool{}
	for _, key := range r.selected {
		selected[key] = true
	}
	points := map[backup.PointID]bool{}
	for _, o := range r.offers {
		if o.State == backup.StateComplete && selected[o.Machine.Key] {
			points[o.ID] = true
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

// situation is what is planned from: what the sources offered when they were listed last, and what the target had when it was
// refreshed last.
func (r *runner) situation(ctx context.Context) (plan.Situation, error) {
	s := plan.Situation{
		Mode: r.Job.Schedule.Mode, Lookup: r.Job.Lookup, Interval: r.interval(), Now: r.Now(), Zone: r.Job.Schedule.Zone, Full: r.Full,
		Intervals: r.intervals(), Turns: map[backup.MachineKey][]policy.Turn{},
		Offers: r.offers, Doubt: r.doubt, Hidden: r.hidden, Job: r.Job.Name, Map: r.Job.Target.Map, Selected: r.selected,
		Retention: r.rulesOf, Forgotten: r.forgotten, TargetID: r.target.ID(), PurgeAfter: r.Job.PurgeAfter,
		Pinned: r.pinned(), Stored: r.stored, Missing: map[backup.MachineKey]time.Time{}, Retired: map[backup.MachineKey]time.Time{},
	}
	if r.Host.Retired != nil {
		r.told = r.Host.Retired()
	}
	var err error
	s.Held, err = r.held(ctx)
	for _, key := range r.selected {
		s.Turns[key] = r.memory.Turns[key.String()]
	}
	r.links = s.Links()
	for _, o := range r.offers {
		r.noteRetired(s.Retired, o.Machine.Key)
	}
	for _, h := range s.Held {
		key := r.backupOf(h.Machine.Key)
		if since, known := r.memory.Missing[key.String()]; known {
			s.Missing[key] = since
		}
		r.noteRetired(s.Retired, key)
	}
	r.noteWhole(s.Held)
	s.Whole = r.whole
	if err == nil && (r.Full || len(r.whole) > 0) {
		s.WholeBegun, err = r.wholeBegun(ctx)
	}
	return s, err
}

// backupOf is the machine whose backup a machine's points are: itself, unless target.map links it with another.
func (r *runner) backupOf(key backup.MachineKey) backup.MachineKey {
	if of, linked := r.links[key]; linked {
		return of
	}
	return key
}

// seeded is true for a machine that another one of the target is linked with by target.map.
func (r *runner) seeded(key backup.MachineKey) bool {
	for _, of := range r.links {
		if of == key {
			return true
		}
	}
	return false
}

// offers are the points of a source that are the job's, by their briefs.
func (p Place) offers(number int, opened *registry.Source, briefs []backup.Brief) []plan.Offer {
	offers := make([]plan.Offer, 0, len(opened.Points))
	for i := range opened.Points {
		point := &opened.Points[i]
		var jobs []string
		if p.Jobs != nil {
			jobs = p.Jobs(*point)
		}
		if p.Origin.Offers(point.Machine, jobs) {
			offers = append(offers, plan.Offer{Brief: &briefs[i], Source: number, Via: point.Via, Grew: grew(point)})
		}
	}
	return offers
}

// planned plans, and remembers as what the plan takes each machine.
func (r *runner) planned(situation plan.Situation) plan.IntervalPlan {
	p := plan.Interval(situation)
	for _, m := range p.Machines {
		r.machines[m.Machine.Key] = m.Machine
	}
	return p
}

// rulesOf are the retention of a machine as it is described.
func (r *runner) rulesOf(m backup.Machine) policy.Retention {
	rules, _ := r.Job.RetentionOf(m)
	return rules
}

// rules are the retention of a machine, by the description that the plan goes by. The one that a point has may be of another
// time, when a label or a name was another.
func (r *runner) rules(of backup.Machine) policy.Retention {
	if m, known := r.machines[r.backupOf(of.Key)]; known {
		return r.rulesOf(m)
	}
	return r.rulesOf(of)
}

// openSource lists a source, and says what state it is in.
func (r *runner) openSource(ctx context.Context, place Place) (*registry.Source, SourceState) {
	state := SourceState{Name: place.Origin.Repository.Name, State: StateReady}
	opened, err := registry.Answering(ctx, place.Origin.Repository.Location, func() (*registry.Source, error) { return place.Open(ctx) })
	if err != nil {
		state.State, state.Reason = StateUnreadable, backup.SafeText(err.Error())
		if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, repo.ErrNoRepository)) && !errors.Is(err, ErrNoKey) {
			state.State = StateMissing
		}
		return nil, state
	}
	for _, problem := range opened.Problems {
		state.Reason = cmp.Or(state.Reason, backup.SafeText(problem.Error()))
	}
	return opened, state
}

// grew is when the files of a point last grew.
func grew(p *source.Point) time.Time {
	var last time.Time
	for _, file := range p.Files {
		if file.ModTime.After(last) {
			last = file.ModTime
		}
	}
	return last
}

// forgotten tells of a point that the target has given up, and why.
func (r *runner) forgotten(id backup.PointID) (reason string, ok bool) {
	reason, _, ok = r.target.Tombstone(id)
	return reason, ok
}

// held are the target's points. One file is read for each machine; the rest is in the log.
func (r *runner) held(ctx context.Context) ([]plan.Held, error) {
	newest, err := r.target.ReadNewest(ctx)
	if err != nil {
		return nil, err
	}
	machines := map[repo.Pseudonym]*backup.Machine{} // by pseudonym
	for _, read := range newest {
		if read.Err == nil {
			machine := read.Point.Machine // else the brief would hold the point alive
			machines[read.Entry.Machine] = &machine
		}
	}
	r.tellUnknown(newest, machines)
	entries := r.target.Entries()
	held, briefs := make([]plan.Held, 0, len(entries)), make([]backup.Brief, len(entries))
	for i, entry := range entries {
		machine, known := machines[entry.Machine]
		if !known {
			continue
		}
		briefs[i] = backup.Brief{ID: entry.ID, Machine: machine, Created: entry.Created, State: backup.StateComplete}
		h := plan.Held{Brief: &briefs[i]}
		if damage, is := r.target.DamageOf(entry.ID); is {
			h.State, h.Reason = backup.StateBroken, damage.String()
		}
		h.Claim, h.Claimed = r.claim(entry.ID)
		for _, claim := range r.target.Claims(entry.ID) {
			if claim.Job != r.Job.Name {
				h.Others = append(h.Others, claim.Job)
			}
		}
		for _, hold := range r.target.HoldsOn(entry.ID) {
			text := hold.Reason
			if !hold.Until.IsZero() {
				text += ", until " + policy.ShowTime(hold.Until, r.Job.Schedule.Zone)
			}
			h.Holds = append(h.Holds, text)
		}
		held = append(held, h)
	}
	return held, nil
}

// tellUnknown warns of machines in the target of which no point can be read: the newest point of each, and why.
func (r *runner) tellUnknown(read []repo.PointRead, known map[repo.Pseudonym]*backup.Machine) {
	var reasons []string
	seen := map[repo.Pseudonym]bool{}
	for _, p := range read {
		pseudonym := p.Entry.Machine
		if _, is := known[pseudonym]; !is && !seen[pseudonym] {
			seen[pseudonym] = true
			reasons = append(reasons, (&backup.Error{Machine: pseudonym.String(), Point: p.Entry.ID.Short(), Offset: backup.NoOffset, Err: errors.New(Reason(p.Err))}).Error())
		}
	}
	if len(reasons) > 0 {
		r.warnOnce(fmt.Sprintf("of %d machines in the target no point can be read, and they are left as they are: %s", len(reasons), firstFew(reasons)))
	}
}

// few is how many of a list are told in one sentence.
const few = 3

// firstFew joins the first of the texts, and says how many more there are.
func firstFew(texts []string) string {
	if len(texts) <= few {
		return strings.Join(texts, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(texts[:few], "; "), len(texts)-few)
}

func (r *runner) warnOnce(text string) {
	if !slices.Contains(r.session.Warnings, backup.SafeText(text)) {
		r.warn("%s", text)
	}
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
