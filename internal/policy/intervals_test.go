package policy

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// when reads a time, by the zone's clock if it names no other.
func when(t testing.TB, text string, zone *time.Location) time.Time {
	t.Helper()
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			return at.UTC()
		}
	}
	t.Fatalf("%q is not a time", text)
	return time.Time{}
}

func schedule(t testing.TB, text ScheduleText) Schedule {
	t.Helper()
	s, err := ParseSchedule(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// boundaries are the next n after an instant, by the schedule's clock.
func boundaries(s Schedule, start, after time.Time, n int) string {
	var all []string
	for range n {
		after = s.From(start).Next(after)
		all = append(all, after.In(s.zone()).Format("2 15:04"))
	}
	return strings.Join(all, ", ")
}

func TestBoundaries(t *testing.T) {
	berlin := "Europe/Berlin"
	for _, c := range []struct {
		what  string
		text  ScheduleText
		start string // by the schedule's clock, as after
		after string
		want  string
	}{
		{"four hours from noon", ScheduleText{Every: "4h"}, "2026-11-25 12:00", "2026-11-25 11:59", "25 12:00, 25 16:00, 25 20:00, 26 00:00"},
		{"hours go on before the start", ScheduleText{Every: "4h"}, "2026-11-25 12:00", "2026-11-25 07:00", "25 08:00, 25 12:00"},
		{"hours are elapsed time over a clock change", ScheduleText{Every: "6h", TimeZone: berlin}, "2026-03-28 12:00", "2026-03-28 12:00", "28 18:00, 29 00:00, 29 07:00, 29 13:00"},
		{"hours are elapsed time when the clock goes back", ScheduleText{Every: "6h", TimeZone: berlin}, "2026-10-24 12:00", "2026-10-24 18:00", "25 00:00, 25 05:00, 25 11:00"},
		{"a day at noon, enabled at nine", ScheduleText{Every: "1d", At: "12:00"}, "2026-11-25 09:00", "2026-11-25 09:00", "25 12:00, 26 12:00"},
		{"a day at noon, enabled at one", ScheduleText{Every: "2d", At: "12:00"}, "2026-11-25 13:00", "2026-11-25 13:00", "26 12:00, 28 12:00"},
		{"a day by the clock", ScheduleText{Every: "1d", At: "22:00", TimeZone: berlin}, "2026-03-27 10:00", "2026-03-27 23:00", "28 22:00, 29 22:00, 30 22:00"},
		{"in the gap the first valid instant", ScheduleText{Every: "1d", At: "02:30", TimeZone: berlin}, "2026-03-27 10:00", "2026-03-27 10:00", "28 02:30, 29 03:00, 30 02:30"},
		{"in the overlap the first", ScheduleText{Every: "1d", At: "02:30", TimeZone: berlin}, "2026-10-23 10:00", "2026-10-24 10:00", "25 02:30, 26 02:30"},
		{"a day that does not exist begins with the next", ScheduleText{Every: "1d", At: "22:00", TimeZone: "Pacific/Apia"}, "2011-12-27 10:00", "2011-12-29 10:00", "29 22:00, 31 00:00, 31 22:00"},
		{"nor twice", ScheduleText{Every: "1d", TimeZone: "Pacific/Apia"}, "2011-12-27 10:00", "2011-12-29 10:00", "31 00:00, 1 00:00"},
		{"a leap day", ScheduleText{Every: "1d"}, "2028-01-01 00:00", "2028-02-28 00:00", "29 00:00, 1 00:00"},
		{"a week from the first", ScheduleText{Every: "7d", At: "06:00"}, "2026-11-21 08:00", "2026-11-21 08:00", "22 06:00, 29 06:00"},
		{"Sundays and firsts", ScheduleText{On: []string{"sunday", "1"}, At: "03:00"}, "2026-11-01 00:00", "2026-11-21 08:00", "22 03:00, 29 03:00, 1 03:00, 6 03:00"},
		{"the 31st of every month", ScheduleText{On: []string{"31"}}, "2026-01-01 00:00", "2028-02-01 00:00", "29 00:00, 31 00:00, 30 00:00"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := schedule(t, c.text)
			if got := boundaries(s, when(t, c.start, s.zone()), when(t, c.after, s.zone()), strings.Count(c.want, ",")+1); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	if at := (Schedule{Mode: Manual}).From(time.Now()).Next(time.Now()); !at.IsZero() {
		t.Errorf("a manual job has a boundary at %s", at)
	}
}

func TestDue(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	daily, hourly := ScheduleText{Every: "1d", At: "22:00", TimeZone: "Europe/Berlin"}, ScheduleText{Every: "4h", TimeZone: "Europe/Berlin"}
	at := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		return when(t, text, berlin)
	}
	for _, c := range []struct {
		what    string
		text    ScheduleText
		start   string
		last    string
		running bool
		asked   string
		now     string
		want    string // action, nominal start or next look, how many are not run
	}{
		{"before the first boundary", daily, "2026-11-25 09:00", "", false, "", "2026-11-25 21:59", "wait 2026-11-25 22:00 0"},
		{"the first boundary", daily, "2026-11-25 09:00", "", false, "", "2026-11-25 22:00", "begin 2026-11-25 22:00 0"},
		{"hours begin when the job is enabled", hourly, "2026-11-25 09:00", "", false, "", "2026-11-25 09:00", "begin 2026-11-25 09:00 0"},
		{"done until the next", daily, "2026-11-25 09:00", "2026-11-25 22:00", false, "", "2026-11-26 21:59", "wait 2026-11-26 22:00 0"},
		{"in progress", daily, "2026-11-25 09:00", "2026-11-25 22:00", true, "", "2026-11-26 21:59", "wait 2026-11-26 22:00 0"},
		{"in progress at the boundary", daily, "2026-11-25 09:00", "2026-11-25 22:00", true, "", "2026-11-26 22:00", "end  0"},
		{"one missed", daily, "2026-11-20 09:00", "2026-11-22 22:00", false, "", "2026-11-24 10:00", "begin 2026-11-23 22:00 0"},
		{"one catch-up, counted from the last missed", daily, "2026-11-20 09:00", "2026-11-20 22:00", false, "", "2026-11-24 10:00", "begin 2026-11-23 22:00 2"},
		{"hours missed", hourly, "2026-11-20 00:00", "2026-11-20 04:00", false, "", "2026-11-21 10:00", "begin 2026-11-21 08:00 6"},
		{"none since the job was enabled", daily, "2026-11-20 09:00", "", false, "", "2026-11-24 10:00", "begin 2026-11-23 22:00 3"},
		{"the clock jumps ten years ahead", hourly, "2026-11-20 00:00", "2026-11-20 04:00", false, "", "2036-11-20 09:00", "begin 2036-11-20 08:00 21918"},
		{"the clock is set back three days", daily, "2026-11-20 09:00", "2026-11-28 22:00", false, "", "2026-11-25 23:00", "wait 2026-11-26 22:00 0"},
		{"and runs at the next boundary", daily, "2026-11-20 09:00", "2026-11-25 22:00", false, "", "2026-11-26 22:00", "begin 2026-11-26 22:00 0"},
		{"set back while in progress", daily, "2026-11-20 09:00", "2026-11-28 22:00", true, "", "2026-11-25 23:00", "wait 2026-11-26 22:00 0"},
		{"set back by a second at the boundary", daily, "2026-11-20 09:00", "2026-11-25 22:00", false, "", "2026-11-25 21:59:59", "wait 2026-11-26 22:00 0"},
		{"enabled by a clock in the future", daily, "2036-11-20 09:00", "", false, "", "2026-11-25 23:00", "begin 2026-11-25 22:00 0"},
		{"hours enabled by a clock in the future", hourly, "2036-11-20 01:00", "2036-11-20 01:00", false, "", "2026-11-25 23:00", "wait 2026-11-26 01:00 0"},
		{"asked for between boundaries", daily, "2026-11-20 09:00", "2026-11-24 22:00", false, "2026-11-25 10:00", "2026-11-25 10:00", "begin 2026-11-24 22:00 0"},
		{"asked for while in progress", daily, "2026-11-20 09:00", "2026-11-24 22:00", true, "2026-11-25 10:00", "2026-11-25 10:00", "wait 2026-11-25 22:00 0"},
		{"immediate, nothing new", ScheduleText{Mode: "immediate"}, "2026-11-20 09:00", "2026-11-24 22:00", false, "", "2026-11-25 10:00", "wait  0"},
		{"immediate, a new point", ScheduleText{Mode: "immediate"}, "2026-11-20 09:00", "2026-11-24 22:00", false, "2026-11-25 09:59", "2026-11-25 10:00", "begin 2026-11-25 09:59 0"},
		{"immediate, a new point while in progress", ScheduleText{Mode: "immediate"}, "2026-11-20 09:00", "2026-11-24 22:00", true, "2026-11-25 09:59", "2026-11-25 10:00", "wait  0"},
		{"immediate after the clock was set back", ScheduleText{Mode: "immediate"}, "2026-11-20 09:00", "2026-12-24 22:00", false, "2026-11-25 09:59", "2026-11-25 10:00", "begin 2026-11-25 09:59 0"},
		{"after a job that stored nothing", ScheduleText{After: "web"}, "2026-11-20 09:00", "", false, "", "2026-11-25 10:00", "wait  0"},
		{"after a job that stored a point", ScheduleText{After: "web"}, "2026-11-20 09:00", "", false, "2026-11-25 09:59", "2026-11-25 10:00", "begin 2026-11-25 09:59 0"},
		{"manual", ScheduleText{Mode: "manual"}, "2026-11-20 09:00", "", false, "", "2026-11-25 10:00", "wait  0"},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := schedule(t, c.text)
			d := s.Due(History{Start: at(c.start), Last: at(c.last), Running: c.running, Asked: at(c.asked)}, at(c.now))
			shown := d.Look
			if d.Action == Begin {
				shown = d.Begins
			}
			got := string(d.Action) + " "
			if !shown.IsZero() {
				got += shown.In(berlin).Format("2006-01-02 15:04")
			}
			if got += " " + strconv.Itoa(d.Missed.Count); got != c.want {
				t.Errorf("%s (%s), want %s", got, d.Reason, c.want)
			}
			if d.Reason == "" {
				t.Error("no reason")
			}
			if again := s.Due(d.History, at(c.now)); d.Action == Begin && again.Action != Wait {
				t.Errorf("and then %s: %s", again.Action, again.Reason)
			}
		})
	}
}

// The words in which a person reads it.
func TestDueReasons(t *testing.T) {
	s := schedule(t, ScheduleText{Every: "1d", At: "22:00", TimeZone: "Europe/Berlin"})
	start, last := when(t, "2026-10-20 09:00", s.Zone), when(t, "2026-10-22 22:00", s.Zone)
	for now, want := range map[string]string{
		"2026-10-23 10:00": "the next interval begins 2026-10-23 22:00 CEST",
		"2026-10-23 22:00": "its interval begins 2026-10-23 22:00 CEST",
		"2026-10-25 10:00": "catches up from 2026-10-24 22:00 CEST; not run: the interval of 2026-10-23 22:00 CEST",
		"2026-10-26 10:00": "catches up from 2026-10-25 22:00 CET; not run: 2 intervals from 2026-10-23 22:00 CEST to 2026-10-24 22:00 CEST",
		"2026-10-21 23:00": "the next interval begins 2026-10-22 22:00 CEST (the clock was set back: it has been 2026-10-22 22:00 CEST)",
	} {
		if got := s.Due(History{Start: start, Last: last}, when(t, now, s.Zone)).Reason; got != want {
			t.Errorf("%s: %s, want %s", now, got, want)
		}
	}
}

func drawSchedule(t *rapid.T) Schedule {
	s := Schedule{
		Mode: Periodic, At: Clock(rapid.IntRange(0, minutesPerDay-1).Draw(t, "at")),
		Zone: rapid.SampledFrom([]*time.Location{nil, mustZone("Europe/Berlin"), mustZone("America/Havana"), mustZone("Pacific/Apia"), mustZone("Australia/Lord_Howe")}).Draw(t, "zone"),
	}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		s.Every.Elapsed = time.Duration(rapid.IntRange(1, 3000).Draw(t, "minutes")) * time.Minute
	case 1:
		s.Every.Days = rapid.IntRange(1, 40).Draw(t, "days")
	default:
		s.On = []On{OnWeekday(time.Weekday(rapid.IntRange(0, 6).Draw(t, "weekday"))), OnDay(rapid.IntRange(1, 31).Draw(t, "day"))}
		s.On = s.On[rapid.IntRange(0, 1).Draw(t, "one"):]
	}
	return s
}

// Intervals lie back to back, wherever one looks from.
func TestIntervalsCoverTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawSchedule(t).From(time.Unix(rapid.Int64Range(0, 3_000_000_000).Draw(t, "start"), 0))
		at := time.Unix(rapid.Int64Range(0, 3_000_000_000).Draw(t, "now"), 0)
		begins, ends := in.Current(at), in.Next(at)
		if begins.After(at) || !ends.After(at) {
			t.Fatalf("%s lies between %s and %s", at, begins, ends)
		}
		if next := in.Next(begins); !next.Equal(ends) {
			t.Fatalf("behind %s comes %s, and behind %s within it %s", begins, next, at, ends)
		}
		if again := in.Current(ends.Add(-1)); !again.Equal(begins) {
			t.Fatalf("just before %s it is %s, not %s", ends, again, begins)
		}
		m := in.between(begins.Add(-1), in.Next(ends.Add(1)))
		if m.Count < 2 || !m.First.Equal(begins) {
			t.Fatalf("from %s on there are %+v", begins, m)
		}
	})
}

// However a clock goes wrong, and goes right again, a job runs at every boundary of the right time, and at most one interval
// is in progress.
func TestNoClockJumpDoesHarm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchedule(t)
		start := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
		h := History{Start: start}
		now := start
		step := func(at time.Time) (began bool) {
			for range 3 {
				d := s.Due(h, at)
				h = d.History
				switch d.Action {
				case Begin:
					if began {
						t.Fatal("two intervals at one time")
					}
					if d.Begins.After(at) {
						t.Fatalf("an interval of the future: %s", d.Begins)
					}
					began = true
				case End:
					h.Running = false
				case Wait:
					if !d.Look.After(at) {
						t.Fatalf("waits until %s, which is past", d.Look)
					}
					return began
				}
			}
			t.Fatal("it does not come to rest")
			return false
		}
		for range rapid.IntRange(1, 10).Draw(t, "jumps") {
			wrong := time.Duration(rapid.Int64Range(-400*24*60, 400*24*60).Draw(t, "minutes wrong")) * time.Minute
			step(now.Add(wrong))
			h.Running = h.Running && rapid.Bool().Draw(t, "still running")
			step(now) // the clock is right again
			boundary := s.From(h.Start).Next(s.From(h.Start).Next(now))
			if !step(boundary) || !h.Last.Equal(boundary) {
				t.Fatalf("no interval began at %s, the second boundary after %s", boundary, now)
			}
			now = boundary.Add(time.Minute / 2)
		}
	})
}
