package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
)

// Retention says which points of a machine are kept: those that any of its rules keeps.
type Retention struct {
	// Points keeps this many of the newest good points; 0 is no such rule.
	Points int
	// Days keeps the points of this many calendar days before the day of the newest good point, and of that day, but
	// never fewer than leastByDays good points; 0 is no such rule.
	Days int
	// Tiers keep the first good point of weeks, months, quarters and years, by Tier.
	Tiers [tiers]Keep
	// Zone is where days begin; nil is UTC.
	Zone *time.Location
}

const (
	// leastByDays is how many good points a rule by days keeps at least.
	leastByDays = 3
	// future is how far ahead of the clock a point may be dated before it stops removal: its reference day would be
	// wrong, and everything else too old by it.
	future = 24 * time.Hour
)

// Candidate is a point that a retention decides on.
type Candidate struct {
	ID      backup.PointID
	Created time.Time
	// Good is true for points that are whole and not known to be damaged. Others never count.
	Good bool
	// Flags are the slots that the point filled when it was stored, by name; Flagged says that this was decided then,
	// and does not change any more. Without it the slots are worked out from the points that there are.
	Flags   []string
	Flagged bool
}

// Verdict is what becomes of a candidate.
type Verdict struct {
	Keep bool
	// Reasons why it is kept, one for each rule that keeps it; or the one why it goes.
	Reasons []string
	// Slots that the point fills, by name, in the order of the tiers.
	Slots []string
}

// NoRuleKeeps is the reason of a verdict by which a point goes. It stands in tombstones too.
const NoRuleKeeps = "no rule keeps it"

// Purged is the reason for which all points of a machine go that a person has retired. It stands in tombstones too.
const Purged = "its machine was retired, and purgeAfter has passed"

// PurgeTime is the first moment at which the points of a machine may go: so long after it was retired, or after its newest point was
// made if that was later.
func PurgeTime(retired, newest time.Time, after time.Duration) time.Time {
	if newest.After(retired) {
		return newest.Add(after)
	}
	return retired.Add(after)
}

// Check returns an error for rules that cannot be meant.
func (r Retention) Check() error {
	if r.Points < 0 || r.Days < 0 {
		return errors.New("a number of points or days to keep cannot be negative")
	}
	for tier := range tiers {
		if r.Tiers[tier].Keep < 0 {
			return fmt.Errorf("%s: a number of points to keep cannot be negative", tier)
		}
	}
	if on := r.Tiers[Weekly].On; on.set && on.day > 0 {
		return fmt.Errorf("weekly: a week begins on a weekday, not on day %d of a month", on.day)
	}
	return nil
}

// Empty is true without any rule. Such a retention keeps everything.
func (r Retention) Empty() bool {
	return r.Points == 0 && r.Days == 0 && !r.HasTiers()
}

// HasTiers is true if points of any tier are kept.
func (r Retention) HasTiers() bool {
	return slices.ContainsFunc(r.Tiers[:], func(k Keep) bool { return k.Keep > 0 })
}

func (r Retention) zone() *time.Location {
	if r.Zone == nil {
		return time.UTC
	}
	return r.Zone
}

// Decide says for each point of one machine what becomes of it; verdicts have the order of the points. now is the clock,
// and only tells whether a point is dated in the future: what is old is measured from the newest good point, so that a
// source that has stopped loses nothing to the calendar.
//
//  1. Slots: a slot takes the first good point in it, unless that was decided when points were stored.
//  2. Short term: the newest N; the days before the newest; whatever is as young as what these keep, or as the newest good point, and is
//     not good.
//  3. Long term: of each tier the newest filled slots.
//  4. The newest good point stays whatever the rules say, and everything does while a point is dated in the future.
func (r Retention) Decide(points []Candidate, now time.Time) []Verdict {
	verdicts := make([]Verdict, len(points))
	order := make([]int, len(points)) // newest first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(points[b].Created.Compare(points[a].Created), slices.Compare(points[a].ID[:], points[b].ID[:]))
	})
	keep := func(i int, reason string) {
		verdicts[i].Keep = true
		verdicts[i].Reasons = append(verdicts[i].Reasons, reason)
	}
	var good []int
	for _, i := range order {
		if points[i].Good {
			good = append(good, i)
		}
	}
	r.fillSlots(points, order, verdicts)
	switch {
	case len(good) == 0:
		r.keepAll(verdicts, "no point of the machine is good")
		return verdicts
	case r.Empty():
		r.keepAll(verdicts, "there are no rules")
		return verdicts
	}
	if newest := points[order[0]].Created; newest.After(now.Add(future)) {
		r.keepAll(verdicts, fmt.Sprintf("a point is dated %s, which is in the future", newest.In(r.zone()).Format(time.DateTime)))
		return verdicts
	}
	r.shortTerm(points, order, good, keep)
	r.longTerm(points, verdicts, keep)
	if !verdicts[good[0]].Keep {
		keep(good[0], "the newest")
	}
	for i := range verdicts {
		if !verdicts[i].Keep {
			verdicts[i].Reasons = []string{NoRuleKeeps}
		}
	}
	return verdicts
}

// Admit says for each point that is about to be copied whether it would stay, were it and the others stored beside what is
// held: what would go at once is not copied.
func (r Retention) Admit(held, coming []Candidate, now time.Time) []Verdict {
	return r.Decide(slices.Concat(held, coming), now)[len(held):]
}

func (r Retention) keepAll(verdicts []Verdict, reason string) {
	for i := range verdicts {
		verdicts[i].Keep, verdicts[i].Reasons = true, []string{reason}
	}
}

// shortTerm keeps by number and by days, and what is not good and as young as anything that is kept so or as the newest good point.
func (r Retention) shortTerm(points []Candidate, order, good []int, keep func(int, string)) {
	oldest := points[good[0]].Created // that is kept short term
	note := func(i int, reason string) {
		keep(i, reason)
		if points[i].Created.Before(oldest) {
			oldest = points[i].Created
		}
	}
	for n, i := range good[:min(r.Points, len(good))] {
		note(i, newestOf(n, r.Points))
	}
	if r.Days > 0 {
		first := dateOf(points[good[0]].Created, r.zone()).add(-r.Days).begin(r.zone())
		if first.Before(oldest) {
			oldest = first
		}
		for n, i := range good {
			switch {
			case !points[i].Created.Before(first):
				note(i, fmt.Sprintf("within %d days of the newest", r.Days))
			case n < leastByDays:
				note(i, newestOf(n, leastByDays)+", which a rule by days keeps at least")
			}
		}
	}
	if len(good) < r.Points || r.Days > 0 && len(good) < leastByDays {
		oldest = time.Time{} // the rule reaches farther back than there is anything that counts
	}
	for _, i := range order {
		if !points[i].Good && !points[i].Created.Before(oldest) {
			keep(i, "does not count, and is as young as those that do")
		}
	}
}

// newestOf says that a good point, counted from 0 for the newest, is one of so many.
func newestOf(n, of int) string {
	if n == 0 {
		return "the newest"
	}
	return fmt.Sprintf("one of the %d newest", of)
}

// longTerm keeps the points of the newest filled slots of each tier.
func (r Retention) longTerm(points []Candidate, verdicts []Verdict, keep func(int, string)) {
	for tier := range tiers {
		if r.Tiers[tier].Keep == 0 {
			continue
		}
		filled := map[Slot][]int{}
		for i := range verdicts {
			for _, name := range verdicts[i].Slots {
				if slot, err := ParseSlot(name); err == nil && slot.Tier == tier {
					filled[slot] = append(filled[slot], i)
				}
			}
		}
		slots := make([]Slot, 0, len(filled))
		for slot := range filled {
			slots = append(slots, slot)
		}
		slices.SortFunc(slots, func(a, b Slot) int { return cmp.Compare(b.anchor.String(), a.anchor.String()) })
		n := 0
		for _, slot := range slots {
			if n == r.Tiers[tier].Keep {
				break
			}
			counts := false
			for _, i := range filled[slot] {
				counts = counts || points[i].Good
				keep(i, fmt.Sprintf("%s: the first since %s", tier, slot.anchor))
			}
			if counts {
				n++
			}
		}
	}
}

// fillSlots puts into each verdict the slots that its point fills.
func (r Retention) fillSlots(points []Candidate, order []int, verdicts []Verdict) {
	taken := map[Slot]bool{}
	for _, i := range order {
		if !points[i].Flagged {
			continue
		}
		verdicts[i].Slots = slices.Clone(points[i].Flags)
		for _, name := range points[i].Flags {
			if slot, err := ParseSlot(name); err == nil && points[i].Good {
				taken[slot] = true
			}
		}
	}
	for _, i := range slices.Backward(order) { // oldest first
		if points[i].Flagged || !points[i].Good {
			continue
		}
		for tier := range tiers {
			if r.Tiers[tier].Keep == 0 {
				continue
			}
			if slot := r.SlotAt(tier, points[i].Created); !taken[slot] {
				taken[slot] = true
				verdicts[i].Slots = append(verdicts[i].Slots, slot.String())
			}
		}
	}
}
