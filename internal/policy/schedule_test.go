package policy

import (
	"errors"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "2h": 2 * time.Hour, "26h": 26 * time.Hour, "30d": 720 * time.Hour, "2w": 336 * time.Hour, "1h30m": 90 * time.Minute,
		"1d12h": 36 * time.Hour, "5m": 5 * time.Minute, "36525d": longest,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
		if again, err := ParseDuration(FormatDuration(want)); err != nil || again != want {
			t.Errorf("%v reads back as %v, %v", want, again, err)
		}
	}
	for _, bad := range []string{"", "0h", "h", "2", "2x", "-2h", "1.5h", "2h2h", "2m1h", "36526d", "5218w", "99999999999999999999d", "36525d1s", "5217w36525d876600h", "1 h"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
	if got := FormatDuration(0); got != "0s" {
		t.Errorf("nothing is %q", got)
	}
}

func TestScheduleInWords(t *testing.T) {
	for want, text := range map[string]ScheduleText{
		"every day at 22:00 (Europe/Berlin)":           {Every: "1d", At: "22:00", TimeZone: "Europe/Berlin"},
		"every 14 days at 00:00 (UTC)":                 {Every: "2w"},
		"every 4h":                                     {Every: "4h"},
		"every sunday, 1. of the month at 03:05 (UTC)": {On: []string{"sun", "1"}, At: "3:05"},
		"when a source has a new point":                {Mode: "immediate"},
		"after job web":                                {After: "web"},
		"when it is asked for":                         {Mode: "manual"},
	} {
		if got, err := ParseSchedule(text, nil); err != nil || got.String() != want {
			t.Errorf("%+v is %q, %v; want %q", text, got, err, want)
		}
	}
	if got := (Schedule{}).String(); got != "never" {
		t.Errorf("the zero schedule is %q", got)
	}
}

func TestParseSchedule(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		text ScheduleText
		want Schedule
	}{
		{ScheduleText{Every: "1d", At: "22:00", TimeZone: "Europe/Berlin"}, Schedule{Mode: Periodic, Every: Every{Days: 1}, At: 22 * 60, Zone: berlin}},
		{ScheduleText{Every: "4h"}, Schedule{Mode: Periodic, Every: Every{Elapsed: 4 * time.Hour}}},
		{ScheduleText{Every: "2w"}, Schedule{Mode: Periodic, Every: Every{Days: 14}}},
		{ScheduleText{Mode: "periodic", On: []string{"sunday", "1"}, At: "3:05"}, Schedule{Mode: Periodic, On: []On{OnWeekday(time.Sunday), OnDay(1)}, At: 185}},
		{ScheduleText{Mode: "immediate"}, Schedule{Mode: Immediate}},
		{ScheduleText{After: "web"}, Schedule{Mode: After, After: "web"}},
		{ScheduleText{Mode: "after", After: "web"}, Schedule{Mode: After, After: "web"}},
		{ScheduleText{Mode: "manual"}, Schedule{Mode: Manual}},
	} {
		got, err := ParseSchedule(c.text, nil)
		if err != nil {
			t.Errorf("%+v: %v", c.text, err)
		} else if got.Mode != c.want.Mode || got.Every != c.want.Every || got.At != c.want.At || got.After != c.want.After || got.zone().String() != c.want.zone().String() || len(got.On) != len(c.want.On) {
			t.Errorf("%+v is %+v", c.text, got)
		}
	}
	for _, c := range []struct {
		field string
		text  ScheduleText
	}{
		{"every", ScheduleText{}},
		{"every", ScheduleText{At: "22:00"}},
		{"every", ScheduleText{Every: "1d12h"}},
		{"every", ScheduleText{Every: "30s"}},
		{"every", ScheduleText{Mode: "manual", Every: "1d"}},
		{"on", ScheduleText{Every: "1d", On: []string{"sunday"}}},
		{"on", ScheduleText{On: []string{"someday"}}},
		{"at", ScheduleText{Every: "4h", At: "22:00"}},
		{"at", ScheduleText{Every: "1d", At: "24:00"}},
		{"at", ScheduleText{Mode: "immediate", At: "22:00"}},
		{"mode", ScheduleText{Mode: "sometimes"}},
		{"after", ScheduleText{Mode: "after"}},
		{"after", ScheduleText{Mode: "immediate", After: "web"}},
		{"timeZone", ScheduleText{Every: "1d", TimeZone: "Europe/Nowhere"}},
		{"timeZone", ScheduleText{Every: "1d", TimeZone: "Local"}},
	} {
		_, err := ParseSchedule(c.text, nil)
		var field *FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("%+v: %v, want an error in %s", c.text, err, c.field)
		}
	}
}

func TestBandwidth(t *testing.T) {
	for text, want := range map[string]Rate{"50Mbit/s": 6_250_000, "10MB/s": 10_000_000, "10 MiB/s": 10 << 20, "1.5Gbit/s": 187_500_000, "100kbit/s": 12_500, "50mbit/s": 6_250_000} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
		if again, err := ParseRate(got.String()); err != nil || again != got {
			t.Errorf("%s reads back as %d, %v", got, again, err)
		}
	}
	for _, bad := range []string{"", "50", "Mbit/s", "0Mbit/s", "-1Mbit/s", "1kbit/s", "50Mbit", "NaNMB/s", "1e9MB/s", "9999999999GB/s", "1.2.3MB/s", "50Mb/s", "50mb/s", "50Mib/s"} {
		if got, err := ParseRate(bad); err == nil {
			t.Errorf("%q was taken as %d", bad, got)
		}
	}
	limit := func(rate, when string) Limit {
		r, err := ParseRate(rate)
		if err != nil {
			t.Fatal(err)
		}
		l := Limit{Rate: r}
		if when != "" {
			if l.When, err = ParseWindow([]string{when}, nil); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	b := Bandwidth{limit("50Mbit/s", "mon-fri 08:00-18:00"), limit("10Mbit/s", "mon 12:00-20:00"), limit("100Mbit/s", "")}
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) // a Monday
	for _, want := range []string{"00:00 100Mbit/s", "08:00 50Mbit/s", "12:00 10Mbit/s", "20:00 100Mbit/s", "08:00 50Mbit/s", "18:00 100Mbit/s"} {
		if got := at.Format("15:04 ") + b.LimitAt(at).String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		var changes bool
		if at, changes = b.Change(at); !changes {
			t.Fatal("no change any more")
		}
	}
	if _, changes := b[2:].Change(at); changes || (Bandwidth{}).LimitAt(at) != 0 {
		t.Error("what always holds changes")
	}
}

func TestLookupWords(t *testing.T) {
	for _, good := range []string{"0", "3", "all"} {
		if b, err := ParseBackfill(good); err != nil || b.String() != good {
			t.Errorf("%q is %v, %v", good, b, err)
		}
	}
	for _, bad := range []string{"", "-1", "some", "1.5"} {
		if _, err := ParseBackfill(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
