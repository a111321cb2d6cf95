package policy

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
)

// SourcePoint is a point of one machine as its source shows it.
type SourcePoint struct {
	ID backup.PointID
	// Created is the state's time as the source records it.
	Created time.Time
	State   backup.State
	// Reason says why the state is not complete.
	Reason string
	// Grew is when a locked point was last seen to grow, or first seen.
	Grew time.Time
}

// Machine is what a lookup knows of one machine.
type Machine struct {
	// Points of the source, in any order; of two created at one time the first counts as the newer.
	Points []SourcePoint
	// Has is true for points that the job holds, or has held and given up. They are not taken.
	Has func(backup.PointID) bool
	// GaveUp is true for points that the job has held and given up. Those of them that Has is not true for may be taken again. nil:
	// there are none.
	GaveUp func(backup.PointID) bool
	// Oldest and Newest are the times of creation of the oldest and newest points that the job holds or has held; zero if
	// it never held any. Newest is without those that it gave up and may take again.
	Oldest, Newest time.Time
	// Pinned are the points that an earlier look has chosen and that are not stored yet, in their order: a copy that has
	// begun is not given up because something newer came.
	Pinned []backup.PointID
	// Stored is true if a point that was looked up in this interval has been stored.
	Stored bool
}

// Interval is the interval in which a lookup is done.
type Interval struct {
	// Begins is the nominal start; Ends the boundary at which the interval is over, zero if nothing ends it.
	Begins, Ends time.Time
}

// Choice is what an interval does with one machine.
type Choice struct {
	// Take are the points to copy, in this order. The first Again of them the job has given up before; they do not use the interval up.
	Take  []backup.PointID
	Again int
	// Wait is true if something to copy may still come in this interval.
	Wait bool
	// Lock is the point whose lock is waited for.
	Lock backup.PointID
	// Look is when to look again although nothing changed in the source; zero if never.
	Look time.Time
	// Reason in words for a person.
	Reason string
	// Warnings are what a person should know beside: points passed over that are newer than what is taken.
	Warnings []string
}

// Choose says which points of a machine are copied now.
//
//  1. A pinned point first. It counts for the interval in which it began, so it does not use this one up.
//  2. Immediate: of a machine that the job never held, the newest complete point (with Backfill, those before it too); then
//     every complete point created after the oldest that it has held, oldest first. A locked one holds back those after it.
//  3. Backward: the newest point newer than what the job has held. If it is locked, it is waited for until the interval ends.
//  4. Forward: of the points created at or after the interval began, the newest complete one.
//  5. A lock that has not grown for StaleLock is none: the point counts as broken, with a warning.
//  6. With Backfill, what the job has given up and may take again comes before that, as far back as a first interval would reach. Without
//     it none of that is taken, in mode immediate neither, unless the job holds nothing else.
//
// Reasons and warnings tell times in the zone of now.
func (l Lookup) Choose(mode Mode, m Machine, in Interval, now time.Time) Choice {
	if pinned := m.pinned(); len(pinned) > 0 {
		return Choice{Take: pinned, Reason: "its copy has begun and goes on"}
	}
	if m.Stored && mode != Immediate {
		return l.again(Choice{Reason: "this interval has copied a point of it"}, m)
	}
	var c Choice
	fresh := l.candidates(mode, m, in)
	first := m.Newest.IsZero()
	switch {
	case mode == Immediate && !first:
		c = l.everyPoint(fresh, now)
	case l.Direction == Forward:
		c = l.newestComplete(fresh, now)
	default:
		c = l.newest(fresh, now)
	}
	if first && len(c.Take) == 1 {
		c = l.backfill(c, m)
	}
	if len(c.Take) == 0 && c.Reason == "" {
		c.Wait, c.Reason = true, l.nothing(mode, m, in, now)
	}
	if first {
		return c
	}
	return l.again(c, m)
}

// pinned are those of the pinned points that the source still has.
func (m Machine) pinned() []backup.PointID {
	return slices.DeleteFunc(slices.Clone(m.Pinned), func(id backup.PointID) bool {
		return m.Has(id) || !slices.ContainsFunc(m.Points, func(p SourcePoint) bool { return p.ID == id && p.State == backup.StateComplete })
	})
}

// candidates are the points that the interval may take, newest first.
func (l Lookup) candidates(mode Mode, m Machine, in Interval) []SourcePoint {
	var fresh []SourcePoint
	for _, p := range m.Points {
		switch {
		case m.Has(p.ID):
		case mode == Immediate && !m.Newest.IsZero() && (!p.Created.After(m.Oldest) || m.GaveUp != nil && m.GaveUp(p.ID)):
		case mode != Immediate && !p.Created.After(m.Newest):
		case mode == Periodic && l.Direction == Forward && p.Created.Before(in.Begins):
		case mode == Periodic && l.WithinInterval && p.Created.Before(l.earliest(in)):
		default:
			fresh = append(fresh, p)
		}
	}
	slices.SortStableFunc(fresh, func(a, b SourcePoint) int { return b.Created.Compare(a.Created) })
	return fresh
}

// earliest is one interval before the interval begins.
func (l Lookup) earliest(in Interval) time.Time { return in.Begins.Add(-in.Ends.Sub(in.Begins)) }

// stale is when the lock of a point counts as left behind.
func (l Lookup) stale(p SourcePoint) time.Time {
	return p.Grew.Add(cmp.Or(l.StaleLock, DefaultStaleLock))
}

// passOver says whether a point that is not complete is passed over now, and notes why.
func (l Lookup) passOver(c *Choice, p SourcePoint, now time.Time) bool {
	why := fmt.Sprintf("the point of %s is %s", ShowTime(p.Created, now.Location()), p.State)
	if p.Reason != "" {
		why += ": " + p.Reason
	}
	if p.State == backup.StateLocked {
		if now.Before(l.stale(p)) {
			return false
		}
		why = fmt.Sprintf("the point of %s is locked, and was not seen to grow since %s: it counts as broken", ShowTime(p.Created, now.Location()), ShowTime(p.Grew, now.Location()))
	}
	c.Warnings = append(c.Warnings, why)
	return true
}

// await makes the choice one to wait for a lock.
func (l Lookup) await(c *Choice, p SourcePoint, now time.Time) {
	c.Wait, c.Lock, c.Look = true, p.ID, l.stale(p)
	if len(c.Take) > 0 {
		return
	}
	c.Reason = fmt.Sprintf("the point of %s is locked; it is waited for", ShowTime(p.Created, now.Location()))
}

// newest takes the newest point, or waits for its lock.
func (l Lookup) newest(fresh []SourcePoint, now time.Time) (c Choice) {
	for _, p := range fresh {
		if p.State == backup.StateComplete {
			c.Take, c.Reason = []backup.PointID{p.ID}, "the newest"
			return c
		}
		if !l.passOver(&c, p, now) {
			l.await(&c, p, now)
			return c
		}
	}
	return c
}

// newestComplete takes the newest complete point; it waits for the newest lock if there is none.
func (l Lookup) newestComplete(fresh []SourcePoint, now time.Time) (c Choice) {
	for _, p := range fresh {
		if p.State == backup.StateComplete {
			return Choice{Take: []backup.PointID{p.ID}, Reason: "the newest complete one since the interval began", Warnings: c.Warnings}
		}
		if !l.passOver(&c, p, now) && !c.Wait {
			l.await(&c, p, now)
		}
	}
	return c
}

// everyPoint takes all, oldest first, up to the first lock.
func (l Lookup) everyPoint(fresh []SourcePoint, now time.Time) (c Choice) {
	for _, p := range slices.Backward(fresh) {
		if p.State == backup.StateComplete {
			c.Take, c.Reason = append(c.Take, p.ID), "every point, oldest first"
			continue
		}
		if !l.passOver(&c, p, now) {
			l.await(&c, p, now)
			break
		}
	}
	return c
}

// backfill puts before the first point of a machine as many complete older ones as are wanted.
func (l Lookup) backfill(c Choice, m Machine) Choice {
	at := slices.IndexFunc(m.Points, func(p SourcePoint) bool { return p.ID == c.Take[0] })
	var older []SourcePoint
	for _, p := range m.Points {
		if p.State == backup.StateComplete && !m.Has(p.ID) && p.ID != c.Take[0] && !p.Created.After(m.Points[at].Created) {
			older = append(older, p)
		}
	}
	older = l.reached(older)
	if len(older) == 0 {
		return c
	}
	var take []backup.PointID
	for _, p := range older {
		take = append(take, p.ID)
	}
	c.Take = append(take, c.Take...)
	c.Reason = fmt.Sprintf("the newest, and %d before it", len(older))
	return c
}

// reached are the newest of the points, as many as Backfill says, oldest first.
func (l Lookup) reached(older []SourcePoint) []SourcePoint {
	slices.SortStableFunc(older, func(a, b SourcePoint) int { return b.Created.Compare(a.Created) }) // of two of one time the first is the newer
	if l.Backfill >= 0 {
		older = older[:min(int(l.Backfill), len(older))]
	}
	slices.Reverse(older)
	return older
}

// again puts before the choice what the job has given up and may take again: of as many complete points before the newest that it has
// held, or takes, as Backfill says.
func (l Lookup) again(c Choice, m Machine) Choice {
	if l.Backfill == 0 || m.GaveUp == nil {
		return c
	}
	takes := func(p SourcePoint) bool { return slices.Contains(c.Take, p.ID) }
	newest, there := m.Newest, false
	for _, p := range m.Points {
		if p.Created.After(newest) && takes(p) {
			newest = p.Created
		}
	}
	var upToIt []SourcePoint
	for _, p := range m.Points {
		if p.State == backup.StateComplete && !p.Created.After(newest) {
			upToIt = append(upToIt, p)
			there = there || p.Created.Equal(newest)
		}
	}
	if there && l.Backfill > 0 {
		l.Backfill++
	}
	var take []backup.PointID
	for _, p := range l.reached(upToIt) {
		if m.GaveUp(p.ID) && !m.Has(p.ID) && !takes(p) {
			take = append(take, p.ID)
		}
	}
	if len(take) == 0 {
		return c
	}
	c.Take, c.Again = append(take, c.Take...), len(take)
	c.Reason += fmt.Sprintf(", and what the rules keep again of %d given up before", len(take))
	return c
}

// nothing says why there is nothing to take.
func (l Lookup) nothing(mode Mode, m Machine, in Interval, now time.Time) string {
	switch {
	case len(m.Points) == 0:
		return "the source has no point of it"
	case mode == Periodic && l.Direction == Forward:
		return "no point has been created since " + ShowTime(in.Begins, now.Location())
	case mode == Periodic && l.WithinInterval:
		return "no new point has been created since " + ShowTime(l.earliest(in), now.Location())
	}
	return "nothing newer than what the job has"
}
