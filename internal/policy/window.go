package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is when something may happen in the course of a week, to the minute, by the clock of a zone. The zero value is
// always open.
type Window struct {
	spans []span
	zone  *time.Location
}

// span is a time of some days of the week. One that ends at or before its start ends on the next day.
type span struct {
	days       [7]bool
	start, end int // minutes since midnight; end at most 24 hours
}

const minutesPerDay = 24 * 60

// ParseWindow reads spans such as "mon-fri 20:00-06:00" or "sat,sun 00:00-24:00" or "22:00-23:30" (every day), each with
// the days on which it starts. None is a window that is always open.
func ParseWindow(spans []string, zone *time.Location) (Window, error) {
	w := Window{zone: zone}
	for _, text := range spans {
		s, err := parseSpan(text)
		if err != nil {
			return Window{}, err
		}
		w.spans = append(w.spans, s)
	}
	return w, nil
}

func parseSpan(text string) (span, error) {
	var s span
	fields := strings.Fields(strings.ToLower(text))
	bad := func(what string) (span, error) {
		return span{}, fmt.Errorf("%q: %s; a window is written as in \"mon-fri 20:00-06:00\"", text, what)
	}
	switch len(fields) {
	case 1:
		s.days = [7]bool{true, true, true, true, true, true, true}
	case 2:
		for _, part := range strings.Split(fields[0], ",") {
			first, last, isRange := strings.Cut(part, "-")
			from, ok := weekday(first)
			to := from
			if isRange && ok {
				to, ok = weekday(last)
			}
			if !ok {
				return bad("there is no such day")
			}
			for day := from; ; day = (day + 1) % 7 {
				s.days[day] = true
				if day == to {
					break
				}
			}
		}
	default:
		return bad("it is not days and hours")
	}
	from, to, ok := strings.Cut(fields[len(fields)-1], "-")
	if !ok {
		return bad("it has no hours")
	}
	var okFrom, okTo bool
	s.start, okFrom = minuteOfDay(from)
	s.end, okTo = minuteOfDay(to)
	if !okFrom || !okTo || s.start == minutesPerDay {
		return bad("the hours are not from 00:00 to 24:00")
	}
	if s.start == s.end {
		return bad("it begins when it ends; all day is 00:00-24:00")
	}
	return s, nil
}

func weekday(name string) (time.Weekday, bool) {
	on, err := ParseOn(name)
	return on.weekday, err == nil && on.day == 0
}

func minuteOfDay(text string) (int, bool) {
	hour, minute, ok := strings.Cut(text, ":")
	h, errHour := strconv.Atoi(hour)
	m, errMinute := strconv.Atoi(minute)
	if !ok || errHour != nil || errMinute != nil || len(minute) != 2 || len(hour) > 2 || h < 0 || m < 0 || m > 59 || h*60+m > minutesPerDay {
		return 0, false
	}
	return h*60 + m, true
}

// Open is true if the window is open at an instant. What counts is the local clock: an hour that a clock change leaves out
// is never open, one that comes twice is open twice.
func (w Window) Open(at time.Time) bool {
	if len(w.spans) == 0 {
		return true
	}
	local := at.In(w.location())
	day, minute := local.Weekday(), local.Hour()*60+local.Minute()
	before := (day + 6) % 7
	return slices.ContainsFunc(w.spans, func(s span) bool {
		if s.end > s.start {
			return s.days[day] && minute >= s.start && minute < s.end
		}
		return s.days[day] && minute >= s.start || s.days[before] && minute < s.end
	})
}

func (w Window) location() *time.Location { return cmp.Or(w.zone, time.UTC) }

// changeHorizon is how far ahead a change is looked for: a span of one day in the week may fall into the hour, or the day,
// that a clock change leaves out, and then the next is a week later.
const changeHorizon = 16 * dayLength

// Change is the next instant after at when the window opens or closes; ok is false if it never does.
func (w Window) Change(at time.Time) (next time.Time, ok bool) {
	open, zone := w.Open(at), w.location()
	for s := range stretches(zone, at, at.Add(changeHorizon)) {
		if s.start.After(at) && w.Open(s.start) != open {
			return s.start.UTC(), true
		}
		for day := dateOf(s.start, zone); ; day = day.add(1) {
			midnight := day.utc().Add(-s.offset)
			if !midnight.Before(s.end) {
				break
			}
			if next, ok = w.changeOn(midnight, s, open); ok {
				return next, true
			}
		}
	}
	return time.Time{}, false
}

// changeOn is the first edge within a stretch, in the day from a midnight on, behind which the window is no longer as it
// was.
func (w Window) changeOn(midnight time.Time, within stretch, open bool) (first time.Time, ok bool) {
	for _, s := range w.spans {
		for _, minute := range []int{s.start, s.end} {
			edge := midnight.Add(time.Duration(minute) * time.Minute)
			if edge.After(within.start) && edge.Before(within.end) && w.Open(edge) != open && (!ok || edge.Before(first)) {
				first, ok = edge, true
			}
		}
	}
	return first, ok
}
