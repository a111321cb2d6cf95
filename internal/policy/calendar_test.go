package policy

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	at, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestDayBegins(t *testing.T) {
	for _, c := range []struct {
		zone string
		day  date
		want string
	}{
		{"UTC", date{2026, 11, 22}, "2026-11-22T00:00:00Z"},
		{"Europe/Berlin", date{2026, 11, 22}, "2026-11-21T23:00:00Z"},
		{"Europe/Berlin", date{2026, 3, 29}, "2026-03-28T23:00:00Z"}, // clocks go forward at 2
		{"Europe/Berlin", date{2026, 10, 25}, "2026-10-24T22:00:00Z"},
		{"America/Havana", date{2026, 3, 8}, "2026-03-08T05:00:00Z"},  // midnight to one o'clock does not exist
		{"America/Havana", date{2026, 11, 1}, "2026-11-01T04:00:00Z"}, // midnight to one o'clock comes twice: the first
		{"America/Sao_Paulo", date{2018, 11, 4}, "2018-11-04T03:00:00Z"},
		{"Asia/Amman", date{2022, 2, 25}, "2022-02-24T22:00:00Z"},
		{"Pacific/Apia", date{2011, 12, 30}, "2011-12-30T10:00:00Z"}, // a day that was left out: begins with the next
		{"Pacific/Apia", date{2011, 12, 31}, "2011-12-30T10:00:00Z"},
		{"Asia/Kathmandu", date{2026, 1, 1}, "2025-12-31T18:15:00Z"},
		{"Europe/Berlin", date{2040, 12, 31}, "2040-12-30T23:00:00Z"},
		{"Europe/Berlin", date{2041, 1, 1}, "2040-12-31T23:00:00Z"},
		{"America/Havana", date{2041, 1, 1}, "2041-01-01T05:00:00Z"},
	} {
		if got := c.day.begin(zone(t, c.zone)).Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s begins %s, want %s", c.day, c.zone, got, c.want)
		}
	}
}

// The first instant of a day, found by looking at every minute.
func TestDayBeginsAsEveryMinuteSays(t *testing.T) {
	zones := []string{
		"Europe/Berlin", "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Asia/Gaza", "Africa/Cairo", "Asia/Tehran", "America/St_Johns",
		"Australia/Lord_Howe", "Pacific/Apia", "America/Asuncion", "Atlantic/Azores", "America/Scoresbysund", "Africa/Casablanca", "Antarctica/Troll",
	}
	checked := 0
	for _, name := range zones {
		in := zone(t, name)
		for at := time.Date(2005, 1, 1, 0, 0, 0, 0, in); at.Year() < 2031; {
			_, change := at.ZoneBounds()
			if change.IsZero() {
				break
			}
			for n := -2; n <= 2; n++ {
				day := dateOf(change, in).add(n)
				minute := change.Add(-5 * 24 * time.Hour).Truncate(time.Minute)
				for dateOf(minute, in).before(day) {
					minute = minute.Add(time.Minute)
				}
				if got := day.begin(in); !got.Equal(minute) {
					t.Fatalf("%s in %s begins %s, want %s", day, name, got, minute.UTC())
				}
				checked++
			}
			at = change.Add(time.Hour)
		}
	}
	if checked < 1000 {
		t.Fatalf("only %d days were checked", checked)
	}
}

func TestOn(t *testing.T) {
	for _, c := range []struct {
		text   string
		period date
		want   date
	}{
		{"sunday", date{2026, 11, 1}, date{2026, 11, 1}},
		{"Mon", date{2026, 11, 1}, date{2026, 11, 2}},
		{"saturday", date{2026, 11, 1}, date{2026, 11, 7}},
		{"1", date{2026, 11, 1}, date{2026, 11, 1}},
		{"31", date{2026, 11, 1}, date{2026, 11, 30}},
		{"31", date{2028, 2, 1}, date{2028, 2, 29}},
		{"15", date{2026, 10, 1}, date{2026, 10, 15}},
	} {
		on, err := ParseOn(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := on.in(c.period); got != c.want {
			t.Errorf("on %s of the period from %s is %s, want %s", c.text, c.period, got, c.want)
		}
		again, err := ParseOn(on.String())
		if err != nil || again != on {
			t.Errorf("%s reads back as %v, %v", on, again, err)
		}
	}
	for _, bad := range []string{"", "0", "32", "someday", "-1", "1.5"} {
		if _, err := ParseOn(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
