package policy

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func window(t testing.TB, in *time.Location, spans ...string) Window {
	t.Helper()
	w, err := ParseWindow(spans, in)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWindowOpens(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	night := window(t, berlin, "mon-fri 20:00-06:00", "sat,sun 00:00-24:00")
	for _, c := range []struct {
		at   string // in Berlin
		open bool
	}{
		{"2026-11-23 19:59", false}, // a Monday
		{"2026-11-23 20:00", true},
		{"2026-11-24 05:59", true},
		{"2026-11-24 06:00", false},
		{"2026-11-23 05:00", false}, // Sunday's span ends at midnight
		{"2026-11-27 23:00", true},
		{"2026-11-28 05:00", true},
		{"2026-11-28 12:00", true},
		{"2026-11-29 23:59", true},
		{"2026-11-30 00:00", false},
	} {
		at, err := time.ParseInLocation("2006-01-02 15:04", c.at, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got := night.Open(at); got != c.open {
			t.Errorf("%s: open %v", c.at, got)
		}
	}
	if !(Window{}).Open(time.Now()) {
		t.Error("no window is closed")
	}
	if _, changes := (Window{}).Change(time.Now()); changes {
		t.Error("a window that is always open changes")
	}
	if _, changes := window(t, nil, "00:00-24:00").Change(time.Now()); changes {
		t.Error("a window that is open all day changes")
	}
}

func TestWindowSpans(t *testing.T) {
	for _, good := range []string{"mon-fri 20:00-06:00", "sat,sun 00:00-24:00", "22:00-23:30", "fri-mon 0:00-1:00", "Monday 10:00-9:00", "mon,wed-fri 01:00-02:00"} {
		if _, err := ParseWindow([]string{good}, nil); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "mon", "mon 20:00", "mon 25:00-26:00", "mon 10:00-10:00", "xyz 10:00-11:00", "mon- 10:00-11:00", "mon 10-11", "mon 10:0-11:00", "mon 24:00-01:00", "1 10:00-11:00", "mon 10:00 - 11:00"} {
		if _, err := ParseWindow([]string{bad}, nil); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// The next change is where a search minute by minute finds it.
func TestWindowChanges(t *testing.T) {
	zones := []*time.Location{mustZone("Europe/Berlin"), mustZone("America/Havana"), mustZone("Australia/Lord_Howe"), mustZone("Pacific/Apia"), nil}
	starts := []time.Time{
		time.Date(2026, 3, 27, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 23, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 6, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 11, 5, 0, 0, 0, 0, time.UTC), time.Date(2026, 4, 3, 0, 0, 0, 0, time.UTC), time.Date(2011, 12, 27, 0, 0, 0, 0, time.UTC),
	}
	rapid.Check(t, func(t *rapid.T) {
		clock := func(label string) string {
			return fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 23).Draw(t, label), rapid.SampledFrom([]int{0, 15, 30, 59}).Draw(t, label))
		}
		var spans []string
		for range rapid.IntRange(1, 3).Draw(t, "spans") {
			from, to := clock("from"), clock("to")
			if from == to {
				continue
			}
			day := time.Weekday(rapid.IntRange(0, 6).Draw(t, "day")).String()[:3]
			last := time.Weekday(rapid.IntRange(0, 6).Draw(t, "last")).String()[:3]
			spans = append(spans, day+"-"+last+" "+from+"-"+to)
		}
		w, err := ParseWindow(spans, rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.SampledFrom(starts).Draw(t, "start").Add(time.Duration(rapid.IntRange(0, 5*minutesPerDay).Draw(t, "minute")) * time.Minute)
		next, ok := w.Change(at)
		minute := at
		for w.Open(minute) == w.Open(at) && minute.Sub(at) < changeHorizon {
			minute = minute.Add(time.Minute)
		}
		if never := minute.Sub(at) >= changeHorizon; never != !ok || ok && !next.Equal(minute) {
			t.Fatalf("%v from %s: next change %s %v, by the minute %s", spans, at, next, ok, minute)
		}
	})
}
