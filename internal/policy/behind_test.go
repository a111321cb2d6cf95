package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAlwaysOneIntervalBehind(t *testing.T) {
	start := when(t, "2026-11-01 09:00", time.UTC)
	daily, hourly := schedule(t, ScheduleText{Every: "1d", At: "22:00"}), schedule(t, ScheduleText{Every: "1h"})
	days, sundays := schedule(t, ScheduleText{Every: "2d", At: "22:00"}), schedule(t, ScheduleText{On: []string{"sunday"}, At: "22:00"})
	at := func(day int, clock string) time.Time {
		return when(t, "2026-11-01 "+clock, time.UTC).AddDate(0, 0, day)
	}
	// backups are points of each of the days, created and complete at a time.
	backups := func(first, last int, created, complete string, step int) []Arrival {
		var all []Arrival
		for day := first; day <= last; day += step {
			p := Arrival{at(day, created), at(day, complete)}
			if p.Complete.Before(p.Created) {
				p.Complete = p.Complete.AddDate(0, 0, 1)
			}
			all = append(all, p)
		}
		return all
	}
	// copies are what intervals of the days took that begin at 22:00: the newest complete by then.
	copies := func(points []Arrival, first, last, step int) []Turn {
		var turns []Turn
		for day := first; day <= last; day += step {
			turn := Turn{Began: at(day, "22:00")}
			for _, p := range points {
				if !p.Complete.After(turn.Began) {
					turn.Taken = p.Created
				}
			}
			turns = AddTurn(turns, turn)
		}
		return turns
	}
	late := backups(0, 15, "22:20", "22:51", 1)
	noted := copies(late, 10, 12, 1)
	some := append(backups(0, 10, "22:20", "22:51", 1), backups(12, 15, "22:20", "22:51", 1)...)
	var often []Arrival
	for hour := range 16 * 6 {
		p := start.Add(time.Duration(hour) * 4 * time.Hour)
		often = append(often, Arrival{p, p})
	}
	met := AddTurn(noted, Turn{at(12, "22:00"), at(12, "22:20")})
	noon := at(13, "12:00")
	for _, c := range []struct {
		what   string
		s      Schedule
		l      Lookup
		turns  []Turn
		points []Arrival
		now    time.Time
		cure   string // empty: it is not behind
	}{
		{"points come after the interval begins", daily, Lookup{}, noted, late, noon,
			`took a point that was up to 23h40m old, and the next one came up to 51m after it began; what helps: lookup: forward, which waits for it, or at: "23:10"`},
		{"past midnight", daily, Lookup{}, copies(backups(0, 15, "23:20", "00:10", 1), 10, 13, 1), backups(0, 15, "23:20", "00:10", 1), noon,
			`2h10m after it began; what helps: lookup: forward, which waits for it, or at: "00:25"`},
		{"the source keeps the newest only", daily, Lookup{}, noted, late[12:13], noon, `51m after it began; what helps: lookup: forward, which waits for it, or at: "23:10"`},
		{"forward would not take them", daily, Lookup{}, copies(backups(0, 15, "21:50", "22:40", 1), 10, 12, 1), backups(0, 15, "21:50", "22:40", 1), noon,
			`40m after it began; what helps: at: "22:55"`},
		{"the interval in progress says nothing yet", daily, Lookup{}, copies(late, 10, 13, 1), late[:13], at(13, "22:10"), `or at: "23:10"`},
		{"of two days, on other days", days, Lookup{}, copies(backups(0, 15, "23:50", "23:55", 2), 10, 14, 2), backups(0, 15, "23:50", "23:55", 2), at(15, "12:00"),
			"what helps: lookup: forward, which waits for it"},
		{"a time of day on certain days", sundays, Lookup{}, copies(backups(0, 35, "22:20", "22:51", 7), 7, 28, 7), backups(0, 35, "22:20", "22:51", 7), at(29, "12:00"), `or at: "23:10"`},
		{"hours have no time of day", hourly, Lookup{}, []Turn{{at(3, "09:00"), at(3, "08:10")}, {at(3, "10:00"), at(3, "09:10")}, {at(3, "11:00"), at(3, "10:10")}},
			[]Arrival{{at(3, "11:10"), at(3, "11:12")}}, at(3, "11:50"), "what helps: lookup: forward, which waits for it"},
		{"nothing can be named", hourly, Lookup{}, []Turn{{at(3, "09:00"), at(3, "07:50")}, {at(3, "10:00"), at(3, "08:50")}, {at(3, "11:00"), at(3, "09:50")}},
			[]Arrival{{at(3, "08:50"), at(3, "09:12")}, {at(3, "09:50"), at(3, "10:12")}, {at(3, "10:50"), at(3, "11:12")}}, at(3, "11:50"), "what helps: intervals that begin later"},

		{"two intervals prove nothing", daily, Lookup{}, noted[1:], late, noon, ""},
		{"none came in the last", daily, Lookup{}, noted, late[:12], noon, ""},
		{"not every time", daily, Lookup{}, append(copies(some, 10, 11, 1), copies(some, 13, 13, 1)...), some, noon, ""},
		{"it waited for the last one", daily, Lookup{}, met, late, noon, ""},
		{"points come before", daily, Lookup{}, copies(backups(0, 15, "20:00", "21:00", 1), 10, 12, 1), backups(0, 15, "20:00", "21:00", 1), noon, ""},
		{"points come in the morning", daily, Lookup{}, copies(backups(0, 15, "09:00", "09:30", 1), 10, 12, 1), backups(0, 15, "09:00", "09:30", 1), noon, ""},
		{"many a day", daily, Lookup{}, copies(often, 10, 12, 1), often, noon, ""},
		{"weekly ones", daily, Lookup{}, copies(backups(0, 15, "22:20", "22:51", 7), 1, 15, 7), backups(0, 15, "22:20", "22:51", 7), noon, ""},
		{"files that were written much later", daily, Lookup{}, noted, backups(0, 15, "22:20", "06:00", 1), noon, ""},
		{"another schedule since", schedule(t, ScheduleText{Every: "1d", At: "23:10"}), Lookup{}, noted, late, noon, ""},
		{"forward is not behind", daily, Lookup{Direction: Forward}, noted, late, noon, ""},
		{"nor is immediate", Schedule{Mode: Immediate}, Lookup{}, noted, late, noon, ""},
	} {
		cure := c.s.From(start).Behind(c.l, c.turns, c.points, c.now)
		if (cure == "") != (c.cure == "") || !strings.HasSuffix(cure, c.cure) {
			t.Errorf("%s: %q, want %q", c.what, cure, c.cure)
		}
	}
}

func TestTurnsAreFew(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 3, day, 22, 0, 0, 0, time.UTC) }
	var turns []Turn
	add := func(day, taken int) { turns = AddTurn(turns, Turn{at(day), at(taken)}) }
	want := func(what string, wanted ...int) {
		t.Helper()
		var days []int
		for _, turn := range turns {
			days = append(days, turn.Began.Day(), turn.Taken.Day())
		}
		if !slices.Equal(days, wanted) {
			t.Errorf("%s: %v, want %v", what, days, wanted)
		}
	}
	for day := 2; day < 9; day++ {
		add(day, day-1)
	}
	want("the last four", 5, 4, 6, 5, 7, 6, 8, 7)
	add(8, 3)
	want("an older point of the same interval", 5, 4, 6, 5, 7, 6, 8, 7)
	add(8, 8)
	want("a newer one", 5, 4, 6, 5, 7, 6, 8, 8)
	add(6, 6)
	want("the clock was set back", 5, 4, 6, 6)
}
