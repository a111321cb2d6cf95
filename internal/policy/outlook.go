package policy

import (
	"cmp"
	"slices"
	"time"
)

// Outlook is when a point that is kept now goes at the earliest, if points keep coming: when a good point comes that was
// created at From or later, and Points good ones have come since now, that one included.
type Outlook struct {
	// Never: there are no rules, so nothing goes.
	Never bool
	// From is zero where only the number of points counts.
	From time.Time
	// Points is at least 1.
	Points int
}

// later is the outlook by two rules, each of which keeps the point.
func (o Outlook) later(other Outlook) Outlook {
	if other.From.After(o.From) {
		o.From = other.From
	}
	o.Points = max(o.Points, other.Points)
	return o
}

// Outlook says for each point of one machine, by the verdicts that Decide gave on them, when it goes at the earliest. What
// is removed now has the zero Outlook. Points that do not count stay as long as something younger than them is kept short
// term, at least until one more good point comes.
//
//  1. Of N newest points the one that i others are newer than goes when N-i more have come.
//  2. Of D days it goes with the first point made D+1 days after it, and not before there are as many newer ones as a rule
//     by days keeps at least.
//  3. Of K slots it goes when as many slots are filled that begin later.
func (r Retention) Outlook(points []Candidate, verdicts []Verdict) []Outlook {
	outlooks := make([]Outlook, len(points))
	var good []int // newest first
	for i, p := range points {
		if p.Good {
			good = append(good, i)
		}
	}
	slices.SortStableFunc(good, func(a, b int) int {
		return cmp.Or(points[b].Created.Compare(points[a].Created), slices.Compare(points[a].ID[:], points[b].ID[:]))
	})
	filled := r.filledSlots(points, verdicts)
	for i := range points {
		switch {
		case !verdicts[i].Keep:
		case r.Empty():
			outlooks[i].Never = true
		default:
			outlooks[i].Points = 1
			if rank := slices.Index(good, i); rank >= 0 {
				newest := points[good[0]].Created
				outlooks[i] = outlooks[i].later(r.shortOutlook(points[i].Created, rank)).later(r.longOutlook(verdicts[i].Slots, filled, newest))
				if !outlooks[i].From.After(newest) {
					outlooks[i].From = time.Time{}
				}
			}
		}
	}
	return outlooks
}

// shortOutlook is for a good point that rank others are newer than.
func (r Retention) shortOutlook(created time.Time, rank int) Outlook {
	o := Outlook{Points: max(1, r.Points-rank)}
	if r.Days > 0 {
		o = o.later(Outlook{
			From:   dateOf(created, r.zone()).add(r.Days + 1).begin(r.zone()),
			Points: leastByDays - rank,
		})
	}
	return o
}

// longOutlook is for a point that fills the slots named, when the newest good point was created at newest.
func (r Retention) longOutlook(slots []string, filled [tiers][]Slot, newest time.Time) Outlook {
	var o Outlook
	for _, name := range slots {
		slot, err := ParseSlot(name)
		if err != nil {
			continue
		}
		keep, rank := r.Tiers[slot.Tier].Keep, slices.Index(filled[slot.Tier], slot)
		if rank < 0 || rank >= keep {
			continue
		}
		// The next slots that can be filled: that of the newest point, if nothing fills it, and those behind it.
		last := filled[slot.Tier][0]
		next := r.SlotAt(slot.Tier, newest)
		if !last.anchor.before(next.anchor) {
			next = r.following(last)
		}
		for range keep - rank - 1 {
			next = r.following(next)
		}
		o = o.later(Outlook{From: next.anchor.begin(r.zone()), Points: keep - rank})
	}
	return o
}

// filledSlots are the slots of each tier that a good point fills, newest first.
func (r Retention) filledSlots(points []Candidate, verdicts []Verdict) (filled [tiers][]Slot) {
	for i := range points {
		for _, name := range verdicts[i].Slots {
			if slot, err := ParseSlot(name); err == nil && points[i].Good && !slices.Contains(filled[slot.Tier], slot) {
				filled[slot.Tier] = append(filled[slot.Tier], slot)
			}
		}
	}
	for tier := range filled {
		slices.SortFunc(filled[tier], func(a, b Slot) int { return cmp.Compare(b.anchor.String(), a.anchor.String()) })
	}
	return filled
}

// following is the slot that begins when one ends.
func (r Retention) following(s Slot) Slot {
	switch s.Tier {
	case Weekly:
		return Slot{Weekly, s.anchor.add(7)}
	case Monthly:
		return Slot{s.Tier, r.anchorOf(s.Tier, nextMonth(s.anchor.period(s.Tier), 1))}
	case Quarterly:
		return Slot{s.Tier, r.anchorOf(s.Tier, nextMonth(s.anchor.period(s.Tier), 3))}
	}
	return Slot{s.Tier, r.anchorOf(s.Tier, nextMonth(s.anchor.period(s.Tier), 12))}
}

// nextMonth is the first of a month n months after the first of another.
func nextMonth(first date, n int) date {
	return date{first.year, first.month + time.Month(n), 1}.add(0)
}
