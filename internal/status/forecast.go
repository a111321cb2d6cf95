package status

import (
	"fmt"
	"math"
	"slices"
	"time"

	"ferry/internal/catalog"
)

const (
	// forecastFrom is how far back figures count.
	forecastFrom = 60 * 24 * time.Hour
	// forecastLeast is the time that figures must span, and fewestFigures how many they must be, to say anything.
	forecastLeast = 48 * time.Hour
	fewestFigures = 4
	// mostFigures is how many of the figures the slopes are taken of: the work grows with the square.
	mostFigures = 64
	// farthest is how far a forecast goes. Beyond that it would be read as a promise.
	farthest = 3 * 365 * 24 * time.Hour
)

// forecast says when a repository will be full if it goes on like this, from the space that was left at various times: from
// the oldest figure to the newest. words say the same, or why it cannot be said; then full is zero.
//
//  1. Of the figures, evenly spread ones are taken.
//  2. The trend is the median of the slopes between any two of them (Theil and Sen): a reclaim that frees much at once, or a
//     week in which nothing ran, moves it little, unlike the mean.
//  3. From what was free last it goes on with that slope.
func forecast(figures []catalog.Figure, now time.Time) (full time.Time, words string) {
	known := slices.DeleteFunc(slices.Clone(figures), func(f catalog.Figure) bool { return f.FreeBytes < 0 })
	if len(known) == 0 {
		if len(figures) > 0 {
			return full, "its storage does not say what is left"
		}
		return full, "no session has looked yet"
	}
	last := known[len(known)-1]
	if last.FreeBytes == 0 {
		return last.At, "it is full"
	}
	span := last.At.Sub(known[0].At)
	if len(known) < fewestFigures || span < forecastLeast {
		return full, "no forecast yet, it takes two days and four sessions"
	}
	slope := slopeOf(spread(known))
	if slope >= 0 {
		return full, "it does not fill up"
	}
	left := float64(last.FreeBytes) / -slope // seconds
	if left > farthest.Seconds() {
		return full, "not in the next three years"
	}
	full = last.At.Add(time.Duration(left * float64(time.Second)))
	return full, fmt.Sprintf("full in about %s", roughly(full.Sub(now)))
}

// spread are figures that are evenly spread over all, the first and the last among them.
func spread(figures []catalog.Figure) []catalog.Figure {
	if len(figures) <= mostFigures {
		return figures
	}
	chosen := make([]catalog.Figure, mostFigures)
	for i := range chosen {
		chosen[i] = figures[i*(len(figures)-1)/(mostFigures-1)]
	}
	return chosen
}

// slopeOf is the median of the slopes between any two figures: bytes that become free in a second.
func slopeOf(figures []catalog.Figure) float64 {
	var slopes []float64
	for i, a := range figures {
		for _, b := range figures[i+1:] {
			if seconds := b.At.Sub(a.At).Seconds(); seconds > 0 {
				slopes = append(slopes, float64(b.FreeBytes-a.FreeBytes)/seconds)
			}
		}
	}
	if len(slopes) == 0 {
		return math.Inf(1)
	}
	slices.Sort(slopes)
	middle := len(slopes) / 2
	if len(slopes)%2 == 1 {
		return slopes[middle]
	}
	return (slopes[middle-1] + slopes[middle]) / 2
}

// roughly is a length of time of which nobody should believe the hours.
func roughly(d time.Duration) string {
	days := int(d.Hours() / 24)
	switch {
	case days < 2:
		return "a day"
	case days < 60:
		return fmt.Sprint(days, " days")
	case days < 730:
		return fmt.Sprint(days/30, " months")
	}
	return fmt.Sprint(days/365, " years")
}
