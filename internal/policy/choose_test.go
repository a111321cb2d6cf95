package policy

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ferry/internal/backup"
)

// night is the day on which the lookups of these tests happen, 22:00 is where their interval of a day begins.
const night = "2026-11-24 "

// sourcePoints reads points such as "a 21:00, b 22:30 locked 23:10": an id, the time of creation on the evening, the state,
// and since when a lock has not grown. "-1 a …" is of the evening before.
func sourcePoints(t testing.TB, text string) []SourcePoint {
	t.Helper()
	var points []SourcePoint
	for _, one := range strings.Split(text, ", ") {
		fields := strings.Fields(one)
		if len(fields) == 0 {
			continue
		}
		p := SourcePoint{ID: backup.PointID{fields[0][0]}, State: backup.StateComplete}
		day := night
		if len(fields[0]) > 1 { // "a-1"
			day = "2026-11-23 "
		}
		p.Created = when(t, day+fields[1], time.UTC)
		if len(fields) > 2 {
			p.State = backup.State(fields[2])
		}
		if len(fields) > 3 {
			p.Grew = when(t, night+fields[3], time.UTC)
		}
		points = append(points, p)
	}
	return points
}

// shown is a choice in short: what is taken, "wait", the lock waited for, and how many warnings there are.
func shown(c Choice) string {
	var parts []string
	for _, id := range c.Take {
		parts = append(parts, string(id[0]))
	}
	if c.Wait {
		parts = append(parts, "wait")
	}
	if c.Lock != (backup.PointID{}) {
		parts = append(parts, "for "+string(c.Lock[0]))
	}
	if n := len(c.Warnings); n > 0 {
		parts = append(parts, "warned")
	}
	return strings.Join(parts, " ")
}

func TestChoose(t *testing.T) {
	backward, forward, within := Lookup{}, Lookup{Direction: Forward}, Lookup{WithinInterval: true}
	for _, c := range []struct {
		what   string
		lookup Lookup
		mode   Mode
		points string
		held   string // ids, oldest first
		pinned string
		stored bool
		now    string
		want   string
	}{
		{"backward takes the newest, of any age", backward, Periodic, "a-1 01:00, b-1 02:00", "", "", false, "22:00", "b"},
		{"backward takes nothing older than what the job has", backward, Periodic, "a-1 01:00, b-1 02:00, c 03:00", "b", "", false, "22:00", "c"},
		{"backward waits for the first that appears", backward, Periodic, "a-1 01:00, b-1 02:00", "b", "", false, "22:00", "wait"},
		{"and takes it", backward, Periodic, "a-1 01:00, b-1 02:00, c 22:20", "b", "", false, "23:00", "c"},
		{"one point of a machine in an interval", backward, Periodic, "a-1 01:00, b 22:20, c 22:40", "ab", "", true, "23:00", ""},
		{"a locked newest point is waited for, not replaced", backward, Periodic, "a-1 01:00, b-1 02:00, c 21:00 locked 21:50", "a", "", false, "22:00", "wait for c"},
		{"a lock older than what is taken does not matter", backward, Periodic, "a-1 01:00, b 21:00 locked 21:50, c 21:30", "a", "", false, "22:00", "c"},
		{"a stale lock counts as broken: the one before, and a warning", backward, Periodic, "a-1 01:00, b-1 02:00, c 19:00 locked 20:00", "a", "", false, "22:00", "b warned"},
		{"a lock that grew is not stale", backward, Periodic, "a-1 01:00, b-1 02:00, c 19:00 locked 20:01", "a", "", false, "22:00", "wait for c"},
		{"a stale lock of its own length", Lookup{StaleLock: 10 * time.Minute}, Periodic, "b-1 02:00, c 19:00 locked 21:50", "", "", false, "22:00", "b warned"},
		{"nothing but a stale lock", backward, Periodic, "a-1 01:00, c 19:00 locked 20:00", "a", "", false, "22:00", "wait warned"},
		{"a broken point is passed over", backward, Periodic, "a-1 01:00, b-1 02:00, c 19:00 broken", "a", "", false, "22:00", "b warned"},
		{"lookback of an interval: 23 hours old is taken", within, Periodic, "b-1 23:00", "", "", false, "22:00", "b"},
		{"lookback of an interval: 25 hours old is not", within, Periodic, "b-1 21:00", "", "", false, "22:00", "wait"},
		{"forward takes nothing from before the interval", forward, Periodic, "b 21:59", "", "", false, "23:00", "wait"},
		{"forward takes what was created as the interval began", forward, Periodic, "b 21:59, c 22:00", "", "", false, "23:00", "c"},
		{"forward takes the newest of those that are complete", forward, Periodic, "b 22:10, c 22:20, d 22:30 locked 22:50", "", "", false, "23:00", "c"},
		{"forward waits for a lock if there is nothing else", forward, Periodic, "b 21:00, d 22:30 locked 22:50", "", "", false, "23:00", "wait for d"},
		{"forward and a stale lock", forward, Periodic, "c 22:00 locked 22:00", "", "", false, "24:00", "wait warned"},
		{"a pinned point goes on", backward, Periodic, "a-1 01:00, b 21:00, c 21:30", "a", "b", false, "22:00", "b"},
		{"a pinned point of an earlier interval goes on", forward, Periodic, "b-1 22:30, c 22:30", "", "b", false, "23:00", "b"},
		{"and does not use this interval up", forward, Periodic, "b-1 22:30, c 22:30", "b", "b", false, "23:00", "c"},
		{"a pinned point that vanished: the next", backward, Periodic, "a-1 01:00, c 21:30", "a", "b", false, "22:00", "c"},
		{"a pinned point that broke: the next", backward, Periodic, "a-1 01:00, b 20:00 broken, c 21:30", "a", "b", false, "22:00", "c"},
		{"several pinned points, in their order", backward, Periodic, "a 20:00, b 20:30, c 21:00", "a", "abc", false, "22:00", "b c"},
		{"immediate takes the newest only at first", backward, Immediate, "a 01:00, b 02:00, c 03:00", "", "", false, "22:00", "c"},
		{"immediate with backfill takes some before it", Lookup{Backfill: 1}, Immediate, "a 01:00, b 02:00, c 03:00", "", "", false, "22:00", "b c"},
		{"immediate with all history", Lookup{Backfill: BackfillAll}, Immediate, "c 03:00, a 01:00, x 01:30 broken, b 02:00", "", "", false, "22:00", "a b c"},
		{"backfill of what is broken", Lookup{Backfill: 3}, Immediate, "a 01:00, x 01:30 broken, c 03:00", "", "", false, "22:00", "a c"},
		{"backfill with one of two at one time: the first", Lookup{Backfill: 1}, Immediate, "a 02:00, b 02:00, c 03:00", "", "", false, "22:00", "a c"},
		{"backfill by the interval", Lookup{Backfill: 1}, Periodic, "a 01:00, b 02:00, c 03:00", "", "", false, "22:00", "b c"},
		{"then every point, oldest first", backward, Immediate, "a 01:00, b 02:00, d 04:00, c 03:00", "b", "", false, "22:00", "c d"},
		{"also those that were passed over", backward, Immediate, "b 02:00, c 03:00, d 04:00, e 05:00", "bd", "", false, "22:00", "c e"},
		{"a lock holds back those after it", backward, Immediate, "b 02:00, c 03:00, d 04:00 locked 21:00, e 05:00", "b", "", false, "22:00", "c wait for d"},
		{"until it is stale", backward, Immediate, "b 02:00, c 03:00, d 04:00 locked 20:00, e 05:00", "b", "", false, "22:00", "c e warned"},
		{"immediate has no end of an interval", backward, Immediate, "b 02:00, c 03:00", "b", "", true, "22:00", "c"},
		{"immediate with nothing new", backward, Immediate, "b 02:00", "b", "", false, "22:00", "wait"},
		{"after a job: the newest", backward, After, "a 01:00, b 02:00, c 03:00", "a", "", false, "22:00", "c"},
		{"by hand: the newest", backward, Manual, "a 01:00, b 02:00, c 03:00", "a", "", false, "22:00", "c"},
		{"a source without points", backward, Periodic, "", "a", "", false, "22:00", "wait"},
		{"of two at one time the first", backward, Periodic, "c 03:00, b 03:00", "", "", false, "22:00", "c"},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := Machine{Points: sourcePoints(t, c.points), Stored: c.stored}
			for i := range len(c.pinned) {
				m.Pinned = append(m.Pinned, backup.PointID{c.pinned[i]})
			}
			m.Has = func(id backup.PointID) bool { return strings.ContainsRune(c.held, rune(id[0])) }
			for _, p := range m.Points {
				if m.Has(p.ID) {
					if m.Oldest.IsZero() || p.Created.Before(m.Oldest) {
						m.Oldest = p.Created
					}
					if p.Created.After(m.Newest) {
						m.Newest = p.Created
					}
				}
			}
			if len(c.points) == 0 {
				m.Oldest = when(t, night+"00:00", time.UTC)
				m.Newest = m.Oldest
			}
			begins := when(t, night+"22:00", time.UTC)
			now := begins.Add(2 * time.Hour)
			if c.now != "24:00" {
				now = when(t, night+c.now, time.UTC)
			}
			got := c.lookup.Choose(c.mode, m, Interval{begins, begins.Add(dayLength)}, now)
			if shown(got) != c.want {
				t.Errorf("%q, want %q (%s)", shown(got), c.want, got.Reason)
			}
			if got.Reason == "" {
				t.Error("no reason")
			}
			if waits := got.Lock != (backup.PointID{}); waits != !got.Look.IsZero() || waits && !got.Look.After(now) {
				t.Errorf("looks again %s", got.Look)
			}
		})
	}
}

// What the job has given up and may take again comes with backfill, as far back as that reaches, and beside what the interval takes.
func TestChooseAgain(t *testing.T) {
	for _, c := range []struct {
		what     string
		backfill Backfill
		mode     Mode
		points   string
		held     string
		gaveUp   string
		stored   bool
		want     string
		again    int
	}{
		{"not without backfill", 0, Periodic, "a 01:00, b 02:00, c 03:00", "c", "ab", false, "wait", 0},
		{"all", BackfillAll, Periodic, "a 01:00, b 02:00, c 03:00", "c", "ab", false, "a b wait", 2},
		{"not what is broken", BackfillAll, Periodic, "a 01:00, b 02:00 broken, c 03:00", "c", "ab", false, "a wait", 1},
		{"nor what the job never held", BackfillAll, Periodic, "a 01:00, b 02:00, c 03:00", "c", "b", false, "b wait", 1},
		{"as many as are wanted, of all that there are", 2, Periodic, "a 01:00, b 02:00, c 03:00, d 04:00", "cd", "ab", false, "b wait", 1},
		{"with the newest, from which is counted", 2, Periodic, "a 01:00, b 02:00, c 03:00, d 04:00", "c", "ab", false, "b d", 1},
		{"of the same time as the newest", 1, Periodic, "a 03:00, b 03:00, x 03:00 broken", "x", "ab", false, "b a wait", 2},
		{"while a lock is waited for", BackfillAll, Periodic, "a 01:00, b 02:00, c 21:00 locked 21:50", "b", "a", false, "a wait for c", 1},
		{"after the interval has had its point", BackfillAll, Periodic, "a 01:00, b 02:00", "b", "a", true, "a", 1},
		{"immediate: not what is given up without backfill", 0, Immediate, "a 01:00, b 02:00, c 03:00, d 04:00", "b", "ac", false, "d", 0},
		{"immediate: beside every point that is newer", BackfillAll, Immediate, "a 01:00, b 02:00, c 03:00, d 04:00", "b", "ac", false, "a c d", 2},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := Machine{Points: sourcePoints(t, c.points), Stored: c.stored}
			m.Has = func(id backup.PointID) bool { return strings.ContainsRune(c.held, rune(id[0])) }
			m.GaveUp = func(id backup.PointID) bool { return strings.ContainsRune(c.gaveUp, rune(id[0])) }
			for _, p := range m.Points {
				if m.Has(p.ID) && (m.Oldest.IsZero() || p.Created.Before(m.Oldest)) {
					m.Oldest = p.Created
				}
				if m.Has(p.ID) && p.Created.After(m.Newest) {
					m.Newest = p.Created
				}
			}
			begins := when(t, night+"22:00", time.UTC)
			got := Lookup{Backfill: c.backfill}.Choose(c.mode, m, Interval{begins, begins.Add(dayLength)}, begins)
			if shown(got) != c.want || got.Again != c.again {
				t.Errorf("%q, %d again, want %q, %d (%s)", shown(got), got.Again, c.want, c.again, got.Reason)
			}
		})
	}
}

// A choice is never of what the job has, nor of what is not complete; with the same world it is the same; and once what it
// takes is stored, there is nothing left to take.
func TestChooseComesToRest(t *testing.T) {
	begins := time.Date(2026, 11, 24, 22, 0, 0, 0, time.UTC)
	states := []backup.State{backup.StateComplete, backup.StateComplete, backup.StateComplete, backup.StateLocked, backup.StateBroken}
	rapid.Check(t, func(t *rapid.T) {
		l := Lookup{
			Direction: rapid.SampledFrom([]Direction{Backward, Forward}).Draw(t, "direction"), WithinInterval: rapid.Bool().Draw(t, "within"),
			Backfill: Backfill(rapid.IntRange(-1, 3).Draw(t, "backfill")),
		}
		mode := rapid.SampledFrom([]Mode{Periodic, Immediate, After, Manual}).Draw(t, "mode")
		if mode != Periodic {
			l.Direction, l.WithinInterval = Backward, false
		}
		now := begins.Add(time.Duration(rapid.IntRange(0, 1439).Draw(t, "now")) * time.Minute)
		m, has, byID := Machine{}, map[backup.PointID]bool{}, map[backup.PointID]SourcePoint{}
		m.Has = func(id backup.PointID) bool { return has[id] }
		gaveUp := map[backup.PointID]bool{}
		m.GaveUp = func(id backup.PointID) bool { return gaveUp[id] }
		store := func(p SourcePoint) {
			has[p.ID] = true
			if m.Oldest.IsZero() || p.Created.Before(m.Oldest) {
				m.Oldest = p.Created
			}
			if p.Created.After(m.Newest) {
				m.Newest = p.Created
			}
		}
		for i := range rapid.IntRange(0, 8).Draw(t, "points") {
			p := SourcePoint{
				ID: backup.PointID{byte(i + 1)}, State: rapid.SampledFrom(states).Draw(t, "state"),
				Created: now.Add(-time.Duration(rapid.IntRange(0, 3000).Draw(t, "age")) * time.Minute),
				Grew:    now.Add(-time.Duration(rapid.IntRange(0, 240).Draw(t, "grew")) * time.Minute),
			}
			m.Points = append(m.Points, p)
			byID[p.ID] = p
			switch rapid.IntRange(0, 3).Draw(t, "held") {
			case 0:
				store(p)
			case 1:
				gaveUp[p.ID] = true
				if m.Oldest.IsZero() || p.Created.Before(m.Oldest) {
					m.Oldest = p.Created
				}
			}
		}
		look := func() Choice {
			c := l.Choose(mode, m, Interval{begins, begins.Add(dayLength)}, now)
			for _, id := range c.Take {
				p := byID[id]
				if has[id] || p.State != backup.StateComplete {
					t.Fatalf("took %v", p)
				}
				if mode == Periodic && l.Direction == Forward && len(c.Take) == 1 && c.Again == 0 && p.Created.Before(begins) {
					t.Fatalf("forward took %v", p)
				}
				store(p)
			}
			m.Stored = m.Stored || len(c.Take) > 0
			return c
		}
		first := m.Newest.IsZero()
		c := look()
		next := look()
		if mode == Immediate && first && len(c.Take) > 0 { // all that it has held is given up: the newest comes first, and then those before it that it never held
			next = look()
		}
		if len(next.Take) > 0 {
			t.Fatalf("took %v, and then %v", c.Take, next.Take)
		}
	})
}
