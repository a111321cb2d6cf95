package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// AlarmKind is what an alarm of a session is about.
type AlarmKind string

// The kinds of alarms.
const (
	// AlarmAge: a machine has no copy, or one that is older than the job allows.
	AlarmAge AlarmKind = "rpo"
	// AlarmDamage: some of what the target holds cannot be read.
	AlarmDamage AlarmKind = "damage"
	AlarmOther  AlarmKind = "other"
)

// Alarm is something that a person has to see to.
type Alarm struct {
	Kind AlarmKind `json:"kind"`
	Text string    `json:"text"`
}

// lookBack raises the alarms of what the target holds as the session ends, however it ends: a session that could not copy is
// the one in which copies grow old.
func (r *runner) lookBack(ctx context.Context) {
	if r.target == nil || ctx.Err() != nil || !r.session.Target.readable() {
		return // a target that is not there, or another one, says nothing
	}
	stored := r.target.Proven(ctx)[0]
	r.session.Target.Verified, r.session.Target.Unverified = stored.Oldest.UTC(), stored.Never
	damaged := r.damaged()
	var held []plan.Held
	if len(damaged) > 0 || r.Job.RPO > 0 {
		var err error
		if held, err = r.held(ctx); err != nil {
			r.alarm(AlarmOther, "which machines the target has could not be found out: "+err.Error())
		}
		if err == nil && r.Job.RPO > 0 {
			r.checkAges(held)
		}
	}
	r.checkDamage(damaged, held)
}

// damaged are the log's entries of the job's points that are known to be damaged.
func (r *runner) damaged() []repo.Entry {
	var damaged []repo.Entry
	for _, entry := range r.target.Entries() {
		if _, is := r.damageOf(entry); is {
			if _, mine := r.claim(entry.ID); mine {
				damaged = append(damaged, entry)
			}
		}
	}
	return damaged
}

// checkDamage raises an alarm for each machine of which copies of the job are damaged, until they are healed or have gone:
// what one session found, later ones must not keep quiet about. What this session's health check found is warned of by place.
func (r *runner) checkDamage(damaged []repo.Entry, held []plan.Held) {
	names := map[string]string{} // by pseudonym
	var last *backup.Machine     // a machine's points share it
	for _, h := range held {
		if len(damaged) > 0 && h.Machine != last {
			last = h.Machine
			names[r.target.Pseudonym(h.Machine.Key).String()] = nameOf(describeMachine(*h.Machine))
		}
	}
	var order []string
	points := map[string][]string{}
	sum := &r.session.Damage
	for _, entry := range damaged {
		known, _ := r.damageOf(entry)
		sum.Points++
		sum.Places += max(known.Places, 1) // of a point whose own file cannot be read none is counted
		machine := entry.Machine.String()
		name := cmp.Or(names[machine], "machine "+machine) // of one of which no point can be read the name is not known
		if points[name] == nil {
			order = append(order, name)
		}
		points[name] = append(points[name], fmt.Sprintf("%s (%s), %s", r.show(entry.Created), entry.ID.Short(), known))
	}
	for _, name := range order {
		r.alarm(AlarmDamage, fmt.Sprintf("%s: points that cannot be restored whole: %d, of %s; ferry verify lists what is damaged", name, len(points[name]), firstFew(points[name])))
	}
	if r.found == nil {
		return
	}
	var places, files []string // those of points are told first
	for _, found := range r.found.Damage {
		text := found.Place() + ": " + found.Reason
		if found.Point != "" {
			places = append(places, text)
		} else {
			files = append(files, text)
		}
	}
	places = append(places, files...)
	r.warnOnce("damaged places without a good copy: " + firstFew(places))
	sum.Places = max(sum.Places, len(places)) // also what belongs to no point of the job
	if sum.Points == 0 && sum.Places > 0 {
		r.alarm(AlarmDamage, fmt.Sprintf("damaged places in the target without a good copy: %d; ferry verify lists them", sum.Places))
	}
}

// checkAges raises an alarm for each machine whose newest copy is older than the job allows: of those that the job copies,
// and of those that it has copied and that have dropped out of that. Who has gone for good has no newer copies.
func (r *runner) checkAges(held []plan.Held) {
	newest, machines := map[backup.MachineKey]time.Time{}, map[backup.MachineKey]*backup.Machine{}
	for _, o := range r.offers {
		machines[o.Machine.Key] = o.Machine
	}
	for _, h := range held {
		key := r.backupOf(h.Machine.Key)
		if !h.Claimed {
			continue
		}
		if h.State == backup.StateComplete && h.Created.After(newest[key]) {
			newest[key] = h.Created
		}
	}
	keys := slices.Clone(r.selected)
	for _, d := range r.dropped(held) {
		m := d.machine()
		keys, machines[m.Key] = append(keys, m.Key), &m
	}
	for _, key := range keys {
		if r.backupOf(key) != key || !r.retirement(key).Since.IsZero() {
			continue // of one that is linked it is asked of the other
		}
		name := nameOf(describeMachine(*machines[key]))
		switch at := newest[key]; {
		case at.IsZero():
			r.alarm(AlarmAge, name+": it has no copy")
		case r.Now().Sub(at) > r.Job.RPO:
			r.alarm(AlarmAge, fmt.Sprintf("%s: its newest copy is of %s, older than %s, which rpo allows", name, r.show(at), policy.FormatDuration(r.Job.RPO)))
		}
	}
}
