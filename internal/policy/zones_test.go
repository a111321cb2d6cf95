package policy

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// The names of all zones in the IANA's list of 2026, for there is no way to ask for them.
//
//go:embed testdata/zones.txt
var zoneList string

// change is a clock change: a zone's distances from UTC before and after.
type change struct {
	zone          *time.Location
	at            time.Time
	before, after time.Duration
}

// everyChange are the clock changes of every zone over fifty years, once for zones that have all in common; with -short, of
// every tenth zone. It finds them by looking at the clock, and knows nothing of ZoneBounds.
func everyChange(t testing.TB) []change {
	t.Helper()
	all := findChanges()
	if least := 8000; !testing.Short() && len(all) < least {
		t.Fatalf("only %d clock changes", len(all))
	}
	return all
}

var findChanges = sync.OnceValue(func() []change {
	var all []change
	known := map[string]bool{}
	for n, name := range strings.Fields(zoneList) {
		if testing.Short() && n%10 != 0 {
			continue
		}
		changes := changesOf(mustZone(name))
		var common strings.Builder
		for _, c := range changes {
			fmt.Fprintln(&common, c.at.Unix(), c.before, c.after)
		}
		if !known[common.String()] {
			known[common.String()] = true
			all = append(all, changes...)
		}
	}
	return all
})

func changesOf(zone *time.Location) []change {
	offset := func(at time.Time) time.Duration {
		_, seconds := at.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	const step = 12 * time.Hour
	var changes []change
	for at := time.Date(1995, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2045; at = at.Add(step) {
		old, low, high := offset(at), at, at.Add(step)
		if offset(high) == old {
			continue
		}
		for high.Sub(low) > time.Second {
			if middle := low.Add(high.Sub(low) / 2).Truncate(time.Second); offset(middle) == old {
				low = middle
			} else {
				high = middle
			}
		}
		changes = append(changes, change{zone, high, old, offset(high)})
	}
	return changes
}

// firstShown is the first instant at which the clock has come to a time of a day that is close to the change, so close that
// there is no other.
func (c change) firstShown(day date, at Clock) time.Time {
	wall := day.utc().Add(time.Duration(at) * time.Minute)
	if by := wall.Add(-c.before); by.Before(c.at) {
		return by
	}
	if by := wall.Add(-c.after); by.After(c.at) {
		return by
	}
	return c.at
}

// A job that runs every day by the clock runs on each day around every clock change: in the gap at the first valid instant,
// in the overlap at the first.
func TestDaysAroundEveryClockChange(t *testing.T) {
	changes, checked := everyChange(t), 0
	for _, c := range changes {
		for _, at := range []Clock{0, 2*60 + 30, 23*60 + 59} {
			in := Schedule{Mode: Periodic, Every: Every{Days: 1}, At: at, Zone: c.zone}.From(c.at.Add(-10 * dayLength))
			last := in.Next(c.at.Add(-3 * dayLength))
			for day := dateOf(last, c.zone).add(1); !last.After(c.at.Add(2 * dayLength)); day = day.add(1) {
				want := c.firstShown(day, at)
				if want.Equal(last) {
					continue // the zone leaves the day out
				}
				next := in.Next(last)
				if !next.Equal(want) || !in.Current(next.Add(-1)).Equal(last) {
					t.Fatalf("%s: after %s comes %s, want %s", c.zone, last.In(c.zone), next.In(c.zone), want.In(c.zone))
				}
				last = next
				checked++
			}
		}
	}
	t.Logf("%d clock changes, %d boundaries", len(changes), checked)
	if checked < 12*len(changes) {
		t.Errorf("only %d boundaries were checked", checked)
	}
}

// Elapsed time does not mind clock changes.
func TestHoursAroundEveryClockChange(t *testing.T) {
	for _, c := range everyChange(t) {
		start := c.at.Add(-2*dayLength - 17*time.Minute)
		in := Schedule{Mode: Periodic, Every: Every{Elapsed: 7 * time.Hour}, Zone: c.zone}.From(start)
		at := in.Next(start.Add(-1))
		for n := range 14 {
			if want := start.Add(time.Duration(n) * 7 * time.Hour); !at.Equal(want) {
				t.Fatalf("%s: boundary %d is %s, want %s", c.zone, n, at, want)
			}
			at = in.Next(at)
		}
	}
}

// Around every clock change a window opens and closes where a look at the clock every few minutes says so.
func TestWindowAroundEveryClockChange(t *testing.T) {
	windows := [][]string{{"23:30-00:45", "02:15-02:45"}, {"mon-fri 20:00-06:00", "sat,sun 00:00-24:00"}}
	open := func(n int, at time.Time, zone *time.Location) bool {
		local := at.In(zone)
		minute, day := local.Hour()*60+local.Minute(), local.Weekday()
		switch {
		case n == 0:
			return minute >= 23*60+30 || minute < 45 || minute >= 135 && minute < 165
		case day == time.Saturday || day == time.Sunday:
			return true
		}
		return minute >= 20*60 || minute < 6*60 && day != time.Monday
	}
	const step = 5 * time.Minute
	changes, checked := everyChange(t), 0
	for i, c := range changes {
		n := i % 2
		w := window(t, c.zone, windows[n]...)
		from := c.at.Add(-2 * dayLength)
		next, ok := w.Change(from)
		was := open(n, from, c.zone)
		for look := from.Add(step); look.Before(c.at.Add(2 * dayLength)); look = look.Add(step) {
			is := open(n, look, c.zone)
			if is != was {
				// The edge lies between two looks.
				if !ok || next.After(look) || look.Sub(next) >= step || w.Open(next) != is || w.Open(next.Add(-1)) != was {
					t.Fatalf("%s: %v changes %s, by looking %s", c.zone, windows[n], next.In(c.zone), look.In(c.zone))
				}
				next, ok = w.Change(next)
				checked++
			}
			was = is
		}
	}
	t.Logf("%d edges", checked)
	if checked < 8*len(changes) {
		t.Errorf("only %d edges were checked", checked)
	}
}

// Around every clock change each point is in one slot of each tier, slots follow one another, and a retention by days keeps
// whole days.
func TestRetentionAroundEveryClockChange(t *testing.T) {
	for _, c := range everyChange(t) {
		r := Retention{Days: 2, Tiers: [tiers]Keep{{Keep: 2}, {Keep: 2}, {Keep: 1}, {Keep: 1}}, Zone: c.zone}
		var points []Candidate
		for hour := -48; hour <= 48; hour += 3 {
			points = append(points, Candidate{Created: c.at.Add(time.Duration(hour)*time.Hour - time.Second), Good: true})
		}
		verdicts := r.Decide(points, c.at.Add(3*dayLength))
		newest := dateOf(points[len(points)-1].Created, c.zone)
		for i, p := range points {
			day := dateOf(p.Created, c.zone)
			within := newest.number()-day.number() <= 2
			if within && !verdicts[i].Keep || !within && verdicts[i].Keep && len(verdicts[i].Slots) == 0 {
				t.Fatalf("%s: keep %v (%v) the point of %s, with the newest of %s", c.zone, verdicts[i].Keep, verdicts[i].Reasons, p.Created.In(c.zone), newest)
			}
			for tier := range tiers {
				slot := r.SlotAt(tier, p.Created)
				begins := c.firstShown(slot.anchor, 0)
				if near := c.at.Sub(begins).Abs() < 3*dayLength; near && p.Created.Before(begins) || near && day.before(slot.anchor) {
					t.Fatalf("%s: the point of %s is in %s", c.zone, p.Created.In(c.zone), slot)
				}
			}
		}
	}
}
