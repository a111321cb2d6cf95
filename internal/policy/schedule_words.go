package policy

import (
	"fmt"
	"strings"
)

// String is the schedule in words: "every day at 22:00 (Europe/Berlin)", "every 4h", "after job web"; "never" for the zero value.
func (s Schedule) String() string {
	switch s.Mode {
	case Immediate:
		return "when a source has a new point"
	case After:
		return "after job " + s.After
	case Manual:
		return "when it is asked for"
	case Periodic:
	}
	at := fmt.Sprintf(" at %s (%s)", s.At, s.zone())
	switch {
	case s.Every.Elapsed > 0:
		return "every " + s.Every.String()
	case s.Every.Days == 1:
		return "every day" + at
	case s.Every.Days > 1:
		return fmt.Sprintf("every %d days", s.Every.Days) + at
	case len(s.On) > 0:
		return "every " + s.daysText() + at
	}
	return "never"
}

// daysText names the days of a week and of a month.
func (s Schedule) daysText() string {
	var days []string
	for _, on := range s.On {
		text := on.String()
		if on.day > 0 {
			text += ". of the month"
		}
		days = append(days, text)
	}
	return strings.Join(days, ", ")
}
