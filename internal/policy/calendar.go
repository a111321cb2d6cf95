package policy

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// date is a day of the calendar, without a time zone.
type date struct {
	year  int
	month time.Month
	day   int
}

// dateOf is the day of an instant in a zone.
func dateOf(t time.Time, zone *time.Location) date {
	year, month, day := t.In(zone).Date()
	return date{year, month, day}
}

// add returns the date n days later, n may be negative.
func (d date) add(n int) date {
	return dateOf(time.Date(d.year, d.month, d.day+n, 0, 0, 0, 0, time.UTC), time.UTC)
}

func (d date) weekday() time.Weekday {
	return d.utc().Weekday()
}

func (d date) before(other date) bool {
	switch {
	case d.year != other.year:
		return d.year < other.year
	case d.month != other.month:
		return d.month < other.month
	}
	return d.day < other.day
}

// String is the date as 2006-01-02.
func (d date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.year, d.month, d.day) }

// zoneReach is farther than any clock is from UTC, and than any clock change moves it.
const zoneReach = 36 * time.Hour

// utc is the date's midnight, were its zone UTC.
func (d date) utc() time.Time { return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC) }

// begin is the first instant of the date in a zone: midnight; where a clock change leaves midnight out, the first instant
// after it; where midnight comes twice, the first. A date that a zone leaves out altogether begins with the next.
func (d date) begin(zone *time.Location) time.Time { return d.clock(0, zone) }

// clock is the first instant at which a zone's clock has come to a time of the date: where a clock change leaves that time
// out, the first instant after the change; where it comes twice, the first.
func (d date) clock(at Clock, zone *time.Location) time.Time {
	wall := d.utc().Add(time.Duration(at) * time.Minute)
	for s := range stretches(zone, wall.Add(-zoneReach), wall.Add(zoneReach)) {
		by := wall.Add(-s.offset) // if the offset of this stretch is in force then
		switch {
		case !by.After(s.start):
			return s.start.UTC()
		case by.Before(s.end):
			return by
		}
	}
	panic("a zone's clock never comes to " + wall.String())
}

// stretch is a time in which a zone's clock keeps one distance from UTC.
type stretch struct {
	start, end time.Time
	offset     time.Duration
}

// stretches divides a time by the clock changes of a zone.
func stretches(zone *time.Location, from, to time.Time) iter.Seq[stretch] {
	return func(yield func(stretch) bool) {
		for at := from; at.Before(to); {
			local := at.In(zone)
			_, offset := local.Zone()
			_, end := local.ZoneBounds()
			// time.Location ends the last day of a leap year, from 2040 on, with a change that is none and leads nowhere.
			if !end.IsZero() && !end.After(at) {
				end = at.Add(time.Hour)
			}
			if end.IsZero() || end.After(to) {
				end = to
			}
			if !yield(stretch{at, end, time.Duration(offset) * time.Second}) {
				return
			}
			at = end
		}
	}
}

// On is the day on which a period of a tier begins to count: a weekday, or a day of the period. The zero value leaves it
// to the tier.
type On struct {
	set     bool
	weekday time.Weekday
	day     int // of the period's first month, from 1; 0: the weekday counts
}

// OnWeekday is the first such weekday of a period.
func OnWeekday(day time.Weekday) On { return On{set: true, weekday: day} }

// OnDay is a day of a period's first month, from 1; in a month that is shorter, its last day.
func OnDay(day int) On { return On{set: true, day: day} }

// ParseOn reads a weekday's English name, whole or its first three letters, or a number from 1 to 31.
func ParseOn(text string) (On, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	for day := time.Sunday; day <= time.Saturday; day++ {
		if name := strings.ToLower(day.String()); lower == name || lower == name[:3] {
			return OnWeekday(day), nil
		}
	}
	if n, err := strconv.Atoi(lower); err == nil && n >= 1 && n <= 31 {
		return OnDay(n), nil
	}
	return On{}, fmt.Errorf("%q is neither a weekday nor a day of a month from 1 to 31", text)
}

// String is what ParseOn reads; empty for the zero value.
func (o On) String() string {
	switch {
	case !o.set:
		return ""
	case o.day > 0:
		return strconv.Itoa(o.day)
	}
	return strings.ToLower(o.weekday.String())
}

// in returns the day on which a period counts that begins on the date given.
func (o On) in(period date) date {
	if o.day > 0 {
		last := date{period.year, period.month + 1, 0}.add(0)
		return date{period.year, period.month, min(o.day, last.day)}
	}
	return period.add((int(o.weekday) - int(period.weekday()) + 7) % 7)
}
