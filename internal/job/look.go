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
	var machines map[repo.Pseudonym]*backup.Machine
	if err == nil {
		machines, err = r.machinesHeld(ctx)
	}
	var situation plan.Situation
	if err == nil {
		r.letGo(v) // what is not lost
		situation, err = r.situationOf(ctx, machines)
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
	machines, err := r.machinesHeld(ctx)
	if err != nil {
		return plan.Situation{}, err
	}
	return r.situationOf(ctx, machines)
}

// situationOf is the situation with the target's machines as they were read.
func (r *runner) situationOf(ctx context.Context, machines map[repo.Pseudonym]*backup.Machine) (plan.Situation, error) {
	s := plan.Situation{
		Mode: r.Job.Schedule.Mode, Lookup: r.Job.Lookup, Interval: r.interval(), Now: r.Now(), Zone: r.Job.Schedule.Zone, Full: r.Full,
		Intervals: r.intervals(), Turns: map[backup.MachineKey][]policy.Turn{},
		Offers: r.offers, Doubt: r.doubt, Unread: r.unread(), Hidden: r.hidden, Job: r.Job.Name, Map: r.Job.Target.Map, Selected: r.selected,
		Retention: r.rulesOf, AllRules: r.Job.Retentions(), Forgotten: r.forgotten, TargetID: r.target.ID(), PurgeAfter: r.Job.PurgeAfter,
		Pinned: r.pinned(), Stored: r.stored, Missing: map[backup.MachineKey]time.Time{}, Retired: map[backup.MachineKey]time.Time{},
	}
	if r.Host.Retired != nil {
		r.told = r.Host.Retired()
	}
	s.Held = r.heldOf(machines)
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
	var err error
	if r.Full || len(r.whole) > 0 {
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

// forgotten tells of a point that the target has given up.
func (r *runner) forgotten(id backup.PointID) (plan.Tombstone, bool) {
	stone, gone := r.target.Tombstone(id)
	told := plan.Tombstone{Reason: stone.Reason}
	if gone && stone.Job == r.Job.Name {
		told.Own, told.Claim = true, plan.Claim{Flags: stone.Flags, Flagged: len(stone.Flags) > 0}
	}
	return told, gone
}

// held are the target's points. One file is read for each machine; the rest is in the log.
func (r *runner) held(ctx context.Context) ([]plan.Held, error) {
	machines, err := r.machinesHeld(ctx)
	if err != nil {
		return nil, err
	}
	return r.heldOf(machines), nil
}

// machinesHeld are the target's machines, by pseudonym, as the newest point of each that can be read describes it. Newer ones whose files are
// lost are noted as damaged, though no verification has come to them yet: else they would count as the newest good ones, and the last that
// can be restored would be removed for them.
func (r *runner) machinesHeld(ctx context.Context) (map[repo.Pseudonym]*backup.Machine, error) {
	newest, err := r.target.ReadNewest(ctx)
	if err != nil {
		return nil, err
	}
	machines := map[repo.Pseudonym]*backup.Machine{}
	var lost []repo.Entry
	for _, read := range newest {
		switch {
		case read.Err == nil:
			machine := read.Point.Machine // else the brief would hold the point alive
			machines[read.Entry.Machine] = &machine
		case read.Lost():
			lost = append(lost, read.Entry)
		}
	}
	r.tellUnknown(newest, machines)
	if len(machines) > 0 { // else it is rather the storage
		r.noteLost(ctx, lost)
	}
	return machines, nil
}

// noteLost notes that the files of points are lost: in the target, if this is a session that may write there.
func (r *runner) noteLost(ctx context.Context, lost []repo.Entry) {
	r.lost = map[backup.PointID]repo.Entry{}
	for _, entry := range lost {
		r.lost[entry.ID] = entry
	}
	if !r.notes {
		return
	}
	if err := r.target.NoteLost(ctx, lost); err != nil && ctx.Err() == nil {
		r.warnOnce("which points are lost could not be noted in the target: " + err.Error())
	}
}

// damageOf says what of a point of the target cannot be read; false if nothing is known to be damaged.
func (r *runner) damageOf(entry repo.Entry) (repo.PointDamage, bool) {
	damage, is := r.target.DamageOf(entry.ID)
	if !is && r.lost[entry.ID] == entry { // else it was copied again since
		return repo.PointDamage{Point: entry.ID, File: true}, true
	}
	return damage, is
}

// heldOf are the target's points, as far as their machines are known.
func (r *runner) heldOf(machines map[repo.Pseudonym]*backup.Machine) []plan.Held {
	entries := r.target.Entries()
	held, briefs := make([]plan.Held, 0, len(entries)), make([]backup.Brief, len(entries))
	for i, entry := range entries {
		machine, known := machines[entry.Machine]
		if !known {
			continue
		}
		briefs[i] = backup.Brief{ID: entry.ID, Machine: machine, Created: entry.Created, State: backup.StateComplete}
		h := plan.Held{Brief: &briefs[i]}
		if damage, is := r.damageOf(entry); is {
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
	return held
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
