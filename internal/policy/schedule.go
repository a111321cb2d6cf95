package policy

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Mode is what begins the intervals of a job.
type Mode string

// The modes.
const (
	// Periodic: an interval begins at every boundary of a schedule. The zero Schedule has no boundary.
	Periodic Mode = "periodic"
	// Immediate: whenever a source has a new point.
	Immediate Mode = "immediate"
	// After: when a session of another job has stored at least one point.
	After Mode = "after"
	// Manual: when a person says so.
	Manual Mode = "manual"
)

// Schedule says when the intervals of a job begin, or the turns of a part of it such as its health check.
//
// A periodic one counts either elapsed time from its start, untouched by clock changes, or days of the calendar, at a
// clock time in its zone.
type Schedule struct {
	Mode Mode
	// Every is the length of an interval, for Periodic without On.
	Every Every
	// On are the days on which an interval begins, instead of Every: weekdays, days of the month, or both.
	On []On
	// At is when on those days; it does not count with Every.Elapsed.
	At Clock
	// After is the name of the other job, for After.
	After string
	// Zone is where days begin; nil is UTC.
	Zone *time.Location
}

// Every is the length of an interval: elapsed time, or days by the calendar, never both.
type Every struct {
	Elapsed time.Duration
	Days    int
}

// ParseEvery reads "30m", "4h", "1h30m" (elapsed time, a minute at least) or "1d", "2w" (days of the calendar).
func ParseEvery(text string) (Every, error) {
	parts, err := parseParts(text)
	switch {
	case err != nil:
		return Every{}, err
	case parts.days > 0 && parts.elapsed > 0:
		return Every{}, fmt.Errorf("%q mixes days, which go by the calendar, with hours, which do not", text)
	case parts.days == 0 && parts.elapsed < time.Minute:
		return Every{}, fmt.Errorf("%q is shorter than a minute", text)
	}
	return Every{Elapsed: parts.elapsed, Days: int(parts.days)}, nil
}

// String is what ParseEvery reads; empty for the zero value.
func (e Every) String() string {
	switch {
	case e.Days > 0:
		return fmt.Sprintf("%dd", e.Days)
	case e.Elapsed > 0:
		return formatElapsed(e.Elapsed) // 24h is not 1d
	}
	return ""
}

// Clock is a time of day in minutes since midnight, from 0 to 1439.
type Clock int

// ParseClock reads a time of day from 00:00 to 23:59.
func ParseClock(text string) (Clock, error) {
	minute, ok := minuteOfDay(strings.TrimSpace(text))
	if !ok || minute == minutesPerDay {
		return 0, fmt.Errorf("%q is not a time of day from 00:00 to 23:59", text)
	}
	return Clock(minute), nil
}

// String is what ParseClock reads.
func (c Clock) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }

// ParseZone reads the name of a time zone in the IANA's list, such as Europe/Berlin, or UTC.
func ParseZone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("%q is not a time zone such as Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is not a time zone such as Europe/Berlin", name)
	}
	return zone, nil
}

// ScheduleText is a schedule as it is written. Mode may be left out where another field says it.
type ScheduleText struct {
	Mode, Every, At, After, TimeZone string
	On                               []string
}

// FieldError is a mistake in one field of a text, named as it is written: "every", "timeZone".
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the field.
func (e *FieldError) Unwrap() error { return e.Err }

// ParseSchedule reads a schedule; without a time zone it goes by the one given (nil: UTC). Errors are *FieldError.
//
// {every: 4h}, {every: 1d, at: "22:00"}, {on: [sunday], at: "03:00"}, {mode: immediate}, {after: web}, {mode: manual}
func ParseSchedule(text ScheduleText, zone *time.Location) (Schedule, error) {
	s := Schedule{Mode: Mode(text.Mode), After: text.After, Zone: zone}
	fail := func(field string, err error) (Schedule, error) { return Schedule{}, &FieldError{field, err} }
	if s.Mode == "" {
		s.Mode = Periodic
		if text.After != "" {
			s.Mode = After
		}
	}
	var err error
	if text.TimeZone != "" {
		if s.Zone, err = ParseZone(text.TimeZone); err != nil {
			return fail("timeZone", err)
		}
	}
	if text.Every != "" {
		if s.Every, err = ParseEvery(text.Every); err != nil {
			return fail("every", err)
		}
	}
	for _, day := range text.On {
		on, err := ParseOn(day)
		if err != nil {
			return fail("on", err)
		}
		s.On = append(s.On, on)
	}
	if text.At != "" {
		if s.At, err = ParseClock(text.At); err != nil {
			return fail("at", err)
		}
	}
	if err := s.check(text); err != nil {
		return Schedule{}, err
	}
	return s, nil
}

// check finds what contradicts itself.
func (s Schedule) check(text ScheduleText) error {
	fail := func(field, why string) error { return &FieldError{field, errors.New(why)} }
	switch s.Mode {
	case Periodic:
		switch {
		case text.Every == "" && len(text.On) == 0:
			return fail("every", "a periodic schedule needs every, such as 1d or 4h, or the days that it is on")
		case text.Every != "" && len(text.On) > 0:
			return fail("on", "either every or on says the days")
		case text.At != "" && s.Every.Elapsed > 0:
			return fail("at", fmt.Sprintf("every %s is counted from the job's start, so no time of day holds; it does with days", s.Every))
		}
	case Immediate, After, Manual:
		for _, field := range []struct {
			name  string
			given bool
		}{{"every", text.Every != ""}, {"on", len(text.On) > 0}, {"at", text.At != ""}} {
			if field.given {
				return fail(field.name, fmt.Sprintf("it does not go with mode %s", s.Mode))
			}
		}
	default:
		return fail("mode", fmt.Sprintf("%q is not periodic, immediate, after or manual", text.Mode))
	}
	switch {
	case s.Mode == After && s.After == "":
		return fail("after", "it needs the name of the other job")
	case s.Mode != After && s.After != "":
		return fail("after", fmt.Sprintf("it does not go with mode %s", s.Mode))
	}
	return nil
}

func (s Schedule) zone() *time.Location { return cmp.Or(s.Zone, time.UTC) }

// ShowTime tells an instant to a person, to the minute, by the clock of a zone; nil is UTC.
func ShowTime(at time.Time, zone *time.Location) string {
	return at.In(cmp.Or(zone, time.UTC)).Format("2006-01-02 15:04 MST")
}
