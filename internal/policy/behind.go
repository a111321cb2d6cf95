package policy

import (
	"fmt"
	"slices"
	"time"
)

// Turn is what one interval came to for one machine.
type Turn struct {
	// Began is the nominal start.
	Began time.Time
	// Taken is when the point that was copied had been created; zero if none was.
	Taken time.Time
	// Later is when the first newer point was complete in the source, within the interval; zero if none was.
	Later time.Time
}

const (
	// behindAfter is how many intervals in a row say that it is no accident.
	behindAfter = 3
	// behindMargin is added to the latest that points have come, where a better start is named.
	behindMargin = 15 * time.Minute
)

// Behind tells of a machine that is always one interval behind, because its points appear after intervals begin: each of the
// last three took a point from before it began, and a newer one came before it ended. cure names the setting that helps.
// turns are in the order of time.
func (s Schedule) Behind(l Lookup, turns []Turn) (cure string, behind bool) {
	if s.Mode != Periodic || l.Direction == Forward || len(turns) < behindAfter {
		return "", false
	}
	turns = turns[len(turns)-behindAfter:]
	if slices.ContainsFunc(turns, func(t Turn) bool {
		return t.Taken.IsZero() || t.Later.IsZero() || !t.Taken.Before(t.Began) || t.Later.Before(t.Began)
	}) {
		return "", false
	}
	var latest time.Duration
	for _, t := range turns {
		latest = max(latest, t.Later.Sub(t.Began))
	}
	cure = fmt.Sprintf("each of the last %d intervals copied a point from before it began, and a newer one was there up to %s after; lookup: forward waits for it",
		behindAfter, FormatDuration(latest.Truncate(time.Minute)))
	if s.Every.Elapsed > 0 {
		return cure, true
	}
	minute := int(s.At) + int((latest+behindMargin)/time.Minute)
	minute = (minute + 4) / 5 * 5 % minutesPerDay
	return cure + fmt.Sprintf("; so does at: %q", Clock(minute)), true
}
