package simulate

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/policy"
)

// Whatever goes wrong, and when: three weeks of the year with outages, clocks that are wrong, sources that cannot be reached,
// slow links, and points that stay locked, are broken or vanish.
func TestOracleAgreesOnAnyTrouble(t *testing.T) {
	year := theYear()
	rapid.Check(t, func(t *rapid.T) {
		w := year
		w.Jobs = slices.Clone(year.Jobs)
		w.From = w.From.AddDate(0, 0, rapid.IntRange(0, 340).Draw(t, "first day"))
		w.To = w.From.AddDate(0, 0, 21)
		minutes := int(w.To.Sub(w.From) / time.Minute)
		// The first nine days are quiet, so that all jobs have begun.
		trouble := func(what string, longest int) Span {
			from := w.From.Add(time.Duration(rapid.IntRange(9*1440, minutes).Draw(t, what)) * time.Minute)
			return Span{from, from.Add(time.Duration(rapid.IntRange(1, longest).Draw(t, what+" lasts")) * time.Minute)}
		}
		w.Down, w.Clock = nil, nil
		for range rapid.IntRange(0, 2).Draw(t, "outages") {
			w.Down = append(w.Down, trouble("outage", 4000))
		}
		for range rapid.IntRange(0, 2).Draw(t, "clocks") {
			w.Clock = append(w.Clock, Skew{trouble("clock", 3000), time.Duration(rapid.IntRange(-7*1440, 30*1440).Draw(t, "ahead")) * time.Minute})
		}
		for n := range w.Jobs {
			j := &w.Jobs[n]
			j.Enabled = w.From.Add(time.Duration(rapid.IntRange(0, 1440).Draw(t, "enabled")) * time.Minute)
			j.Slow, j.Offline = nil, nil
			for range rapid.IntRange(0, 2).Draw(t, "slow links") {
				j.Slow = append(j.Slow, Slow{trouble("slow", 2000), policy.Rate(rapid.IntRange(1, 20).Draw(t, "rate") * 250_000)})
			}
			for range rapid.IntRange(0, 1).Draw(t, "offline sources") {
				j.Offline = append(j.Offline, trouble("offline", 2000))
			}
			j.Machines = slices.Clone(j.Machines)
			for i := range j.Machines {
				j.Machines[i].Points = troubled(t, w, j.Machines[i].Points)
			}
		}
		if difference := firstDifference(eventsOf(w, decided()), oracle(w)); difference != "" {
			t.Fatal(difference)
		}
	})
}

// troubled are the points of a world's time, some of them in trouble.
func troubled(t *rapid.T, w World, all []Point) []Point {
	var points []Point
	for _, p := range all {
		if p.Created.Before(w.To) && p.Created.After(w.From.AddDate(0, 0, -3)) {
			points = append(points, p)
		}
	}
	for range rapid.IntRange(0, min(4, len(points))).Draw(t, "points in trouble") {
		p := &points[rapid.IntRange(0, len(points)-1).Draw(t, "point")]
		after := time.Duration(rapid.IntRange(0, 3000).Draw(t, "minutes")) * time.Minute
		switch rapid.IntRange(0, 3).Draw(t, "trouble") {
		case 0:
			p.Complete = p.Created.Add(after)
		case 1:
			p.Complete, p.Grew = time.Time{}, p.Created.Add(after)
		case 2:
			p.Broken = true
		default:
			p.Gone = p.Created.Add(after)
		}
	}
	return points
}
