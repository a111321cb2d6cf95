package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Turn is an interval that took a point of a machine.
type Turn struct {
	// Began is the nominal start.
	Began time.Time `json:"began"`
	// Taken is when the newest point that it took had been created.
	Taken time.Time `json:"taken"`
}

// Arrival is a point of a source.
type Arrival struct {
	// Created is the state's time as the source records it, Complete when the point's last file was written.
	Created, Complete time.Time
}

const (
	// behindAfter is how many intervals in a row say that it is no accident.
	behindAfter = 3
	// turnsKept is one more: the last one may be in progress, and say nothing yet.
	turnsKept = behindAfter + 1
	// behindMargin is added to the latest that points have come, where a better start is named.
	behindMargin = 15 * time.Minute
)

// AddTurn adds an interval to the last ones of its machine, and drops those that no longer matter. Of an interval that is
// there already, the newer point counts; those dated later were noted by a clock that has been set back since.
func AddTurn(turns []Turn, t Turn) []Turn {
	var before []Turn
	for _, other := range turns {
		switch {
		case other.Began.Before(t.Began):
			before = append(before, other)
		case other.Began.Equal(t.Began) && other.Taken.After(t.Taken):
			t.Taken = other.Taken
		}
	}
	return append(before[max(0, len(before)-turnsKept+1):], t)
}

// Behind tells of a machine that is always one interval behind, because its points come soon after intervals begin. It
// returns what was seen and the settings that help; empty: nothing is known of that. turns are in the order of time.
//
// An interval says so if both hold:
//
//  1. It took a point that was created more than three quarters of an interval before it began.
//  2. A newer one came in its first quarter.
//
// So a machine that is backed up many times an interval is not behind, nor one of which the copy begins soon after the
// backup. An interval whose first quarter is not over says nothing until a point comes.
func (i Intervals) Behind(l Lookup, turns []Turn, points []Arrival, now time.Time) string {
	if !i.Periodic() || l.Direction == Forward {
		return ""
	}
	points = withTaken(points, turns)
	var seen int
	var age, after time.Duration
	forward := true
	for _, t := range slices.Backward(turns) {
		if seen == behindAfter {
			break
		}
		length, before := i.Next(t.Began).Sub(t.Began), t.Began.Sub(i.Current(t.Began.Add(-1)))
		if !i.Current(t.Began).Equal(t.Began) || t.Began.Sub(t.Taken) <= before*3/4 {
			return "" // not of this schedule, or not behind
		}
		late, found := firstAfter(points, t, length/4)
		switch {
		case found:
			seen++
			age, after = max(age, t.Began.Sub(t.Taken)), max(after, late.Complete.Sub(t.Began))
			forward = forward && !late.Created.Before(t.Began)
		case now.Before(t.Began.Add(length / 4)):
		default:
			return ""
		}
	}
	if seen < behindAfter {
		return ""
	}
	cures := i.schedule.laterAt(after)
	if forward {
		cures = append([]string{"lookup: forward, which waits for it"}, cures...)
	}
	if len(cures) == 0 {
		cures = []string{"intervals that begin later"}
	}
	return fmt.Sprintf("each of the last %d intervals took a point that was up to %s old, and the next one came up to %s after it began; what helps: %s",
		behindAfter, FormatDuration(age.Truncate(time.Minute)), FormatDuration(after.Truncate(time.Minute)), strings.Join(cures, ", or "))
}

// withTaken adds the points that intervals took and that the source has no more. When they were complete is not known.
func withTaken(points []Arrival, turns []Turn) []Arrival {
	points = slices.Clone(points)
	for _, t := range turns {
		if !slices.ContainsFunc(points, func(p Arrival) bool { return p.Created.Equal(t.Taken) }) {
			points = append(points, Arrival{t.Taken, t.Taken})
		}
	}
	return points
}

// firstAfter is the first point newer than what the interval took that was complete within a time after it began.
func firstAfter(points []Arrival, t Turn, within time.Duration) (first Arrival, found bool) {
	for _, p := range points {
		wait := p.Complete.Sub(t.Began)
		if p.Created.After(t.Taken) && wait >= 0 && wait <= within && (!found || p.Complete.Before(first.Complete)) {
			first, found = p, true
		}
	}
	return first, found
}

// laterAt is the setting by which intervals begin so much later, with a margin; empty if there is none on the same days.
func (s Schedule) laterAt(after time.Duration) []string {
	if s.Every.Elapsed > 0 {
		return nil
	}
	minute := int(s.At) + int((after+behindMargin)/time.Minute)
	minute = (minute + 4) / 5 * 5
	if minute >= minutesPerDay && (s.Every.Days != 1 || len(s.On) > 0) {
		return nil
	}
	return []string{fmt.Sprintf("at: %q", Clock(minute%minutesPerDay))}
}
