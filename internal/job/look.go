package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
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
	err := r.list(ctx, reading, v)
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
	out := r.dropped(situation.Held)
	r.noteSelected(situation.Held, out)
	for _, d := range out {
		r.session.Selected = append(r.session.Selected, d.machine())
	}
	v.plan = r.planned(situation)
	r.judgeSelection(&v.plan, out)
	return v, nil
}

// situation is what is planned from: what the sources offered when they were listed last, and what the target had when it was
// refreshed last.
func (r *runner) situation(ctx context.Context) (plan.Situation, error) {
	s := plan.Situation{
		Mode: r.Job.Schedule.Mode, Lookup: r.Job.Lookup, Interval: r.interval(), Now: r.Now(), Zone: r.Job.Schedule.Zone, Full: r.Full,
		Intervals: r.intervals(), Turns: map[backup.MachineKey][]policy.Turn{},
		Offers: r.offers, Doubt: r.doubt, Unread: r.unread(), Hidden: r.hidden, Job: r.Job.Name, Map: r.Job.Target.Map, Selected: r.selected,
		Retention: r.rulesOf, AllRules: r.Job.Retentions(), Forgotten: r.forgotten, GaveUp: r.gaveUp, TargetID: r.target.ID(), PurgeAfter: r.Job.PurgeAfter,
		Pinned: r.pinned(), Stored: r.stored, Missing: map[backup.MachineKey]time.Time{}, Retired: map[backup.MachineKey]time.Time{},
	}
	if r.Host.Retired != nil {
		r.told = r.Host.Retired()
	}
	var err error
	s.Held, err = r.held(ctx)
	for _, key := range r.selected {
		s.Turns[key] = r.memory.Turns[key.String()]
		if r.Host.Again && r.hadTurn(key) {
			r.stored[key] = true
		}
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

// forgotten tells of a point that the target has given up, and why.
func (r *runner) forgotten(id backup.PointID) (reason string, ok bool) {
	stone, ok := r.target.Tombstone(id)
	return stone.Reason, ok
}

// gaveUp is the claim that this job had on a point which it has given up; false if it has not.
func (r *runner) gaveUp(id backup.PointID) (plan.Claim, bool) {
	stone, ok := r.target.Tombstone(id)
	if !ok || stone.Job != r.Job.Name {
		return plan.Claim{}, false
	}
	return plan.Claim{Flags: stone.Flags, Flagged: len(stone.Flags) > 0}, true
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
