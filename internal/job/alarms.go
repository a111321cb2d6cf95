package job

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// lookBack raises the alarms of what the target holds as the session ends, however it ends: a session that could not copy is
// the one in which copies grow old.
func (r *runner) lookBack(ctx context.Context) {
	state := r.session.Target.State
	if r.target == nil || ctx.Err() != nil || state != StateReady && state != StateFull && state != StateReadOnly {
		return // a target that is not there, or another one, says nothing
	}
	r.checkDamage()
	if r.Job.RPO == 0 {
		return
	}
	held, err := r.held(ctx)
	if err != nil {
		r.alarm("how old the copies are could not be found out: " + err.Error())
		return
	}
	r.checkAges(held)
}

// checkDamage raises an alarm for what of the job's copies is known to be damaged, until it is healed or has gone: what one
// session found, later ones must not keep quiet about.
func (r *runner) checkDamage() {
	damage := &r.session.Damage
	for _, entry := range r.target.Entries() {
		known, damaged := r.target.DamageOf(entry.ID)
		if _, mine := r.claim(entry.ID); mine && damaged {
			damage.Points++
			damage.Places += max(known.Places, 1) // of a point whose own file cannot be read none is counted
		}
	}
	if r.found != nil { // also what belongs to no point of the job
		damage.Places = max(damage.Places, len(r.found.Damage))
	}
	switch {
	case damage.Points > 0:
		r.alarm(fmt.Sprintf("points of the job that cannot be restored whole: %d; ferry verify lists them", damage.Points))
	case damage.Places > 0:
		r.alarm(fmt.Sprintf("damaged places in the target without a good copy: %d; ferry verify lists them", damage.Places))
	}
}

// checkAges raises an alarm for each machine whose newest copy is older than the job allows: of those that the job copies,
// and of those that it has copied and that no source offers now, unless the job leaves them out.
func (r *runner) checkAges(held []plan.Held) {
	newest, machines := map[backup.MachineKey]time.Time{}, map[backup.MachineKey]backup.Machine{}
	offered := map[backup.MachineKey]bool{}
	for _, o := range r.offers {
		offered[o.Point.Machine.Key], machines[o.Point.Machine.Key] = true, o.Point.Machine
	}
	var gone []policy.Offer
	for _, h := range held {
		key := h.Machine.Key
		if !h.Claimed {
			continue
		}
		if h.State == backup.StateComplete && h.Created.After(newest[key]) {
			newest[key] = h.Created
		}
		if !offered[key] {
			machines[key] = h.Machine
			gone = append(gone, policy.Offer{Point: h.Point})
		}
	}
	keys := slices.Clone(r.selected)
	for _, m := range r.Job.Choose(gone, r.target.ID()).Machines {
		if m.In {
			keys = append(keys, m.Machine.Key)
		}
	}
	for _, key := range keys {
		name := nameOf(describeMachine(machines[key]))
		switch at := newest[key]; {
		case at.IsZero():
			r.alarm(name + ": it has no copy")
		case r.Now().Sub(at) > r.Job.RPO:
			r.alarm(fmt.Sprintf("%s: its newest copy is of %s, older than %s, which rpo allows", name, r.show(at), policy.FormatDuration(r.Job.RPO)))
		}
	}
}
