package plan

import (
	"cmp"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// choose asks the lookup, and adds what the target has and cannot read whole.
func (m *machinePlanner) choose() {
	lookup := policy.Machine{Has: func(id backup.PointID) bool {
		if o, offered := m.offer(id); offered {
			if _, gone := m.forgotten(o.Brief); gone || m.twin(o.Brief) {
				return true
			}
		}
		return m.mine(id) || m.damaged(id)
	}, GaveUp: func(id backup.PointID) bool {
		_, gaveUp := m.gaveUp(id)
		return gaveUp
	}}
	for _, o := range m.offers {
		if _, gone := m.gaveUp(o.ID); gone && (lookup.Oldest.IsZero() || o.Created.Before(lookup.Oldest)) { // whatever rules say of it now
			lookup.Oldest = o.Created
		}
		if _, gone := m.forgotten(o.Brief); gone {
			m.remember(&lookup, o.Brief)
		}
		if there, ok := m.heldAs(o.ID); m.comesBack(o) && (!ok || there.State != backup.StateComplete) {
			continue
		}
		lookup.Points = append(lookup.Points, policy.SourcePoint{ID: o.ID, Created: o.Created, State: o.State, Reason: o.Reason, Grew: o.Grew})
		if m.s.Pinned[o.ID] {
			lookup.Pinned = append(lookup.Pinned, o.ID)
		}
	}
	for _, h := range m.held {
		if m.holds(h) {
			m.remember(&lookup, h.Brief)
		}
	}
	slices.SortStableFunc(lookup.Pinned, func(a, b backup.PointID) int {
		return m.offers[m.offeredAs[a]].Created.Compare(m.offers[m.offeredAs[b]].Created)
	})
	lookup.Stored, m.newest = m.s.Stored[m.plan.Machine.Key], lookup.Newest
	m.notKept = map[backup.PointID]bool{}
	if m.s.Full {
		m.takeKept(m.newestWhole())
		m.s.Full = len(m.take) > 0 // else it is an interval like any other
	}
	if !m.s.Full {
		m.takeKept(m.lookUp(lookup))
	}
	if len(m.take) == 0 && len(lookup.Pinned) > 0 { // the rules have come to give up what has begun
		lookup.Pinned = nil
		m.takeKept(m.lookUp(lookup))
	}
	m.plan.Reason, m.plan.Waits, m.plan.Look = m.choice.Reason, m.choice.Wait, m.choice.Look
	m.plan.Pinned = len(lookup.Pinned) > 0 && len(m.choice.Take) > 0 && m.s.Pinned[m.choice.Take[0]]
	m.plan.Locked = m.choice.Wait && m.choice.Lock != backup.PointID{}
	m.plan.Warnings = m.choice.Warnings
}

// lookUp asks the lookup, whose reasons tell times in the zone of the job.
func (m *machinePlanner) lookUp(machine policy.Machine) policy.Choice {
	return m.s.Lookup.Choose(m.s.Mode, machine, m.s.Interval, m.s.Now.In(cmp.Or(m.s.Zone, time.UTC)))
}

// arrivals are the complete points of the source.
func (m *machinePlanner) arrivals() []policy.Arrival {
	var arrivals []policy.Arrival
	for _, o := range m.offers {
		if o.State == backup.StateComplete {
			complete := o.Created
			if o.Grew.After(complete) {
				complete = o.Grew
			}
			arrivals = append(arrivals, policy.Arrival{Created: o.Created, Complete: complete})
		}
	}
	return arrivals
}

// remember makes the lookup count a point among those that the job has held.
func (m *machinePlanner) remember(lookup *policy.Machine, p *backup.Brief) {
	if m.isFuture(p) {
		return
	}
	if lookup.Newest.IsZero() || p.Created.After(lookup.Newest) {
		lookup.Newest = p.Created
	}
	if lookup.Oldest.IsZero() || p.Created.Before(lookup.Oldest) {
		lookup.Oldest = p.Created
	}
}

// newestWhole is the choice of an interval that reads whole points: the newest complete one that the job holds, or may copy;
// nothing if there is none. One that has begun goes first: else a slow read of a machine that is saved often never comes to its end.
func (m *machinePlanner) newestWhole() policy.Choice {
	newest := -1
	for i, o := range m.offers {
		if m.mayBeReadWhole(o) && (newest < 0 || m.comesBefore(o, m.offers[newest])) {
			newest = i
		}
	}
	if newest < 0 {
		return policy.Choice{}
	}
	reason := "the newest complete point is read whole"
	if m.s.WholeBegun[m.offers[newest].ID] {
		reason = "the point is read whole, which has begun"
	}
	return policy.Choice{Take: []backup.PointID{m.offers[newest].ID}, Reason: reason}
}

// comesBefore is true for the point that is rather read whole.
func (m *machinePlanner) comesBefore(a, b *Offer) bool {
	if begun := m.s.WholeBegun[a.ID]; begun != m.s.WholeBegun[b.ID] {
		return begun
	}
	return a.Created.After(b.Created)
}

// mayBeReadWhole is true for a complete point that the job holds, or is free to copy: one that was not given up, nor is older
// than what the job has held. One that came from the target is no second source of what is there.
func (m *machinePlanner) mayBeReadWhole(o *Offer) bool {
	if o.State != backup.StateComplete || m.isFuture(o.Brief) || m.comesBack(o) {
		return false
	}
	if m.mine(o.ID) || m.damaged(o.ID) || m.twin(o.Brief) {
		return true
	}
	_, gone := m.forgotten(o.Brief)
	return !gone && o.Created.After(m.newest)
}

// takeKept takes a choice over, without what the rules would remove at once.
func (m *machinePlanner) takeKept(choice policy.Choice) {
	m.choice, m.take, m.again = choice, map[backup.PointID]bool{}, map[backup.PointID]bool{}
	for n, id := range choice.Take {
		m.take[id], m.again[id] = true, n < choice.Again
	}
	candidates, verdicts := m.decide()
	for i, c := range candidates {
		if m.take[c.ID] && !verdicts[i].Keep {
			delete(m.take, c.ID)
			m.notKept[c.ID] = true
		}
	}
}
