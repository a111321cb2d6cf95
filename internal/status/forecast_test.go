package status

import (
	"testing"
	"time"

	"ferry/internal/catalog"
)

const gib = 1 << 30

// figures has one for each day, with what free says was left in GiB.
func figures(days int, free func(day int) int64) (list []catalog.Figure) {
	for n := range days {
		list = append(list, catalog.Figure{At: time.Date(2026, 3, 1+n, 22, 0, 0, 0, time.UTC), FreeBytes: free(n)})
	}
	return list
}

func TestForecast(t *testing.T) {
	steady := func(day int) int64 { return (1000 - 10*int64(day)) * gib }
	for name, c := range map[string]struct {
		figures  []catalog.Figure
		from, to int // in how many days it is full, at the earliest and the latest; 0: it is not said
		words    string
	}{
		"steady": {figures(31, steady), 70, 70, "full in about 2 months"},
		// A reclaim on one day that frees as much as three days take.
		"one reclaim": {figures(31, func(day int) int64 {
			if day >= 20 {
				return steady(day) + 30*gib
			}
			return steady(day)
		}), 72, 90, ""},
		// Every Sunday half of the week's growth is given back: 5 GiB a day in the end.
		"weekly reclaim": {figures(57, func(day int) int64 { return steady(day) + int64(day/7)*35*gib }), 120, 170, ""},
		// Somebody else filled the disk for a day.
		"a spike": {figures(31, func(day int) int64 {
			if day == 15 {
				return gib
			}
			return steady(day)
		}), 69, 71, ""},
		"many":        {figures(200, func(day int) int64 { return 800*gib - int64(day)*gib }), 601, 601, "full in about 20 months"},
		"slow":        {figures(31, func(day int) int64 { return 1000*gib - int64(day) }), 0, 0, "not in the next three years"},
		"it shrinks":  {figures(31, func(day int) int64 { return 1000*gib + int64(day)*gib }), 0, 0, "it does not fill up"},
		"it stays":    {figures(31, func(int) int64 { return 1000 * gib }), 0, 0, "it does not fill up"},
		"too few":     {figures(3, steady), 0, 0, "no forecast yet, it takes two days and four sessions"},
		"too short":   {hourly(30), 0, 0, "no forecast yet, it takes two days and four sessions"},
		"full":        {figures(5, func(day int) int64 { return int64(4-day) * gib }), 0, 0, "it is full"},
		"a bucket":    {figures(31, func(int) int64 { return catalog.Unknown }), 0, 0, "its storage does not say what is left"},
		"never":       {nil, 0, 0, "no session has looked yet"},
		"partly said": {append(figures(31, steady), catalog.Figure{At: time.Date(2026, 4, 2, 0, 0, 0, 0, time.UTC), FreeBytes: catalog.Unknown}), 70, 70, ""},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Time{}
			if n := len(c.figures); n > 0 {
				now = c.figures[n-1].At
			}
			full, words := forecast(c.figures, now)
			if c.words != "" && words != c.words {
				t.Errorf("%q, want %q", words, c.words)
			}
			if name == "full" {
				if !full.Equal(now) {
					t.Errorf("full %v", full)
				}
				return
			}
			if c.from == 0 {
				if !full.IsZero() {
					t.Errorf("full on %v", full)
				}
				return
			}
			if days := full.Sub(now).Hours() / 24; full.IsZero() || days < float64(c.from)-2 || days > float64(c.to)+0.01 {
				t.Errorf("full in %.1f days, want %d to %d; %q", days, c.from, c.to, words)
			}
		})
	}
}

func hourly(n int) (list []catalog.Figure) {
	for i := range n {
		list = append(list, catalog.Figure{At: time.Date(2026, 3, 1, i, 0, 0, 0, time.UTC), FreeBytes: int64(100-i) * gib})
	}
	return list
}

func TestSpreadKeepsTheEnds(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 1000} {
		all := figures(n, func(day int) int64 { return int64(day) })
		some := spread(all)
		if len(some) > mostFigures || some[0] != all[0] || some[len(some)-1] != all[n-1] {
			t.Errorf("of %d there are %d, from %v to %v", n, len(some), some[0], some[len(some)-1])
		}
	}
}
