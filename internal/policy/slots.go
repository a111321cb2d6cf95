package policy

import (
	"fmt"
	"strings"
	"time"
)

// Tier is one kind of period of which a point is kept longer: grandfather, father, son.
type Tier uint8

// The tiers, from the shortest period to the longest.
const (
	Weekly Tier = iota
	Monthly
	Quarterly
	Yearly
	tiers
)

var tierNames = [tiers]string{"weekly", "monthly", "quarterly", "yearly"}

// String is the tier's name in policies and flags.
func (t Tier) String() string { return tierNames[t] }

// Keep says how many points of a tier are kept, and where its periods begin.
type Keep struct {
	// Keep is how many of the newest filled slots keep their point; 0 is none.
	Keep int
	// On is the day on which a slot begins. Weekly takes Sunday without it. The longer tiers take the first day of
	// the weekly tier on or after the period's first day, or that first day itself if nothing is kept weekly.
	On On
}

// Slot is one period of a tier, from its anchor to the next. It is filled by the first good point in it.
type Slot struct {
	Tier   Tier
	anchor date
}

// String is the slot's name in a claim's flags: "weekly:2026-11-22", the day on which it begins.
func (s Slot) String() string { return s.Tier.String() + ":" + s.anchor.String() }

// ParseSlot reads a slot's name.
func ParseSlot(text string) (Slot, error) {
	name, day, _ := strings.Cut(text, ":")
	at, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return Slot{}, fmt.Errorf("%q is not the name of a slot", text)
	}
	for tier := range tiers {
		if tier.String() == name {
			return Slot{Tier: tier, anchor: dateOf(at, time.UTC)}, nil
		}
	}
	return Slot{}, fmt.Errorf("%q is not the name of a slot", text)
}

// SlotAt is the slot of a tier in which an instant lies.
//
//	period:   |1 November          |1 December
//	anchor:        |Sunday 1st         |Sunday 6th       (monthly, weekly on Sunday)
//	slot:          [------------------)[----------- …
func (r Retention) SlotAt(tier Tier, at time.Time) Slot {
	day := dateOf(at, r.zone())
	if tier == Weekly {
		back := (int(day.weekday()) - int(r.weeklyOn().weekday) + 7) % 7
		slot := Slot{Weekly, day.add(-back)}
		return r.notAfter(slot, at, func() Slot { return Slot{Weekly, slot.anchor.add(-7)} })
	}
	period := day.period(tier)
	slot := Slot{tier, r.anchorOf(tier, period)}
	return r.notAfter(slot, at, func() Slot { return Slot{tier, r.anchorOf(tier, period.add(-1).period(tier))} })
}

// notAfter returns the slot, or the one before it if the slot begins after the instant.
func (r Retention) notAfter(slot Slot, at time.Time, previous func() Slot) Slot {
	if slot.anchor.begin(r.zone()).After(at) {
		return previous()
	}
	return slot
}

// period is the first day of the tier's period that a day is in.
func (d date) period(tier Tier) date {
	switch tier {
	case Quarterly:
		return date{d.year, (d.month-1)/3*3 + 1, 1}
	case Yearly:
		return date{d.year, time.January, 1}
	}
	return date{d.year, d.month, 1}
}

// anchorOf is the day on which a period of a tier longer than a week begins to count.
func (r Retention) anchorOf(tier Tier, period date) date {
	on := r.Tiers[tier].On
	if !on.set {
		if r.Tiers[Weekly].Keep == 0 {
			return period
		}
		on = r.weeklyOn()
	}
	return on.in(period)
}

func (r Retention) weeklyOn() On {
	if on := r.Tiers[Weekly].On; on.set {
		return on
	}
	return OnWeekday(time.Sunday)
}
