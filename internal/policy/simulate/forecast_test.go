package simulate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// times reads times of the year 2028 in Berlin.
func times(text string) []time.Time {
	var all []time.Time
	for one := range strings.SplitSeq(text, ", ") {
		all = append(all, wall(one))
	}
	return all
}

func shownAll(all []time.Time) string {
	var text []string
	for _, at := range all {
		text = append(text, shown(at))
	}
	return strings.Join(text, ", ")
}

func TestRhythm(t *testing.T) {
	workdays := "03-06 20:00, 03-07 20:05, 03-08 20:00, 03-09 20:00, 03-10 20:00, 03-13 20:00, 03-14 20:00, 03-15 20:10, 03-16 20:00, 03-17 20:00, 03-20 20:00"
	for _, c := range []struct{ what, created, words, next string }{
		{"days by the clock, over a clock change", "03-23 22:30, 03-24 22:31, 03-25 22:30", "one a day", "03-26 22:30, 03-27 22:30"},
		{"a day that failed changes nothing", "03-20 22:30, 03-21 22:30, 03-23 22:30, 03-24 22:30, 03-25 22:30", "one a day", "03-26 22:30, 03-27 22:30"},
		{"hours are elapsed time", "03-25 20:00, 03-26 00:00", "one every 4h", "03-26 05:00, 03-26 09:00"},
		{"weeks", "03-05 01:00, 03-12 01:00, 03-19 01:00", "one every 7 days", "03-26 01:00, 04-02 01:00"},
		{"free weekends stay free", workdays, "5 a week, as in the last", "03-21 20:00, 03-22 20:10, 03-23 20:00, 03-24 20:00, 03-27 20:00, 03-28 20:00"},
	} {
		created := times(c.created)
		slices.Reverse(created) // the order does not matter
		r, ok := FindRhythm(created, berlin)
		if !ok || r.String() != c.words {
			t.Errorf("%s: %v %s, want %s", c.what, ok, r, c.words)
			continue
		}
		next := r.Next(created[0], created[0].AddDate(0, 1, 0), berlin)
		if n := strings.Count(c.next, ",") + 1; len(next) < n || shownAll(next[:n]) != c.next {
			t.Errorf("%s: next are %s, want %s", c.what, shownAll(next[:min(n, len(next))]), c.next)
		}
	}
	if _, ok := FindRhythm(times("03-25 22:30"), berlin); ok {
		t.Error("one point has a rhythm")
	}
	same := times("03-25 22:30, 03-25 22:30, 03-25 22:30")
	if r, _ := FindRhythm(same, berlin); len(r.Next(same[0], same[0].Add(time.Hour), berlin)) > 60 {
		t.Error("points of one time go on for ever")
	}
}

func knownDays(name string, from, to int, held bool) Known {
	k := Known{Name: name, Whole: 100, Changed: 3}
	for day := from; day <= to; day++ {
		k.Points = append(k.Points, KnownPoint{
			ID: backup.PointID{byte(day), name[0]}, Created: wall(fmt.Sprintf("03-%02d 22:30", day)), State: backup.StateComplete, Source: true, Held: held,
		})
	}
	return k
}

func keptDays(m FutureMachine) string {
	var days []string
	for _, p := range m.Kept {
		days = append(days, p.Created.In(berlin).Format("01-02"))
	}
	return strings.Join(days, " ")
}

func TestForesee(t *testing.T) {
	rules := policy.Retention{Days: 3, Zone: berlin}
	rules.Tiers[policy.Weekly].Keep = 2
	job := Job{Name: "offsite", Schedule: must(policy.ParseSchedule(policy.ScheduleText{Every: "1d", At: "23:00"}, berlin)), Retention: rules}
	stopped := knownDays("old", 1, 2, true)
	for i := range stopped.Points {
		stopped.Points[i].Created = stopped.Points[i].Created.AddDate(0, -2, 0)
	}
	two := policy.Retention{Points: 2}
	web02 := knownDays("eve", 1, 10, true)
	web02.Retention = &two
	f := Foresee(job, []Known{knownDays("web", 1, 10, false), web02, stopped, {Name: "new"}}, wall("03-11 12:00"), 20, berlin)
	for n, want := range []struct {
		made    int
		expects string
		kept    string
	}{
		// Three days before 03-30, and the first points of the weeks from 03-19 and 03-26.
		{20, "one a day", "03-19 03-26 03-27 03-28 03-29 03-30"},
		// Two by the rule; retention comes with the boundary, because the others are never done.
		{20, "one a day", "03-28 03-29 03-30"},
		{0, "none: the source has made none for 68d", "01-01 01-02"},
		{0, "none: two points at least show a rhythm", ""},
	} {
		m := f.Machines[n]
		if m.Made != want.made || m.Expects != want.expects || keptDays(m) != want.kept {
			t.Errorf("%s: %d %s, keeps %s; want %+v", m.Name, m.Made, m.Expects, keptDays(m), want)
		}
	}
	if len(f.Days) != 21 {
		t.Fatalf("%d days", len(f.Days))
	}
	var text []string
	for _, n := range []int{0, 1, 2, 3, 19, 20} {
		d := f.Days[n]
		text = append(text, fmt.Sprintf("%s +%d -%d = %d, %d", shown(d.Ends), d.Stored, d.Removed, d.Points, d.Size))
	}
	// On the first day eve gives up eight of ten, and each machine that lives gets one: web 100, eve 100 + 3 + 3, old 100 + 3.
	// Then web grows by a point a day, until its rules bite; eve gives one up at each boundary. At the end web has
	// 100 + 4 × 3, and between 03-19 and 03-26 changed 7 × 3.
	want := []string{
		"03-12 00:00 +2 -8 = 6, 309",
		"03-13 00:00 +2 -1 = 7, 312",
		"03-14 00:00 +2 -1 = 8, 315",
		"03-15 00:00 +2 -1 = 9, 318",
		"03-31 00:00 +2 -2 = 11, 342",
		"03-31 12:00 +0 -0 = 11, 342",
	}
	if !slices.Equal(text, want) {
		t.Errorf("days are\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(want, "\n"))
	}
	for _, p := range f.Machines[0].Kept {
		if len(p.Reasons) == 0 {
			t.Errorf("no reason for %s", shown(p.Created))
		}
	}
}

// An image is written over: its source shows one point, and the target tells the rhythm.
func TestForeseeImages(t *testing.T) {
	k := knownDays("image", 6, 10, true)
	for i := range k.Points {
		k.Points[i].Source = i == len(k.Points)-1
		k.Points[i].Held = !k.Points[i].Source
	}
	two := policy.Retention{Points: 2}
	k.Retention = &two
	job := Job{Name: "offsite", Schedule: must(policy.ParseSchedule(policy.ScheduleText{Every: "1d", At: "23:00"}, berlin))}
	f := Foresee(job, []Known{k}, wall("03-10 22:45"), 3, berlin)
	if m := f.Machines[0]; m.Expects != "one a day" || m.Made != 3 || keptDays(m) != "03-11 03-12" {
		t.Errorf("%d %s, keeps %s", m.Made, m.Expects, keptDays(m))
	}
}

// What begins a job that has no boundaries of its own.
func TestForeseeModes(t *testing.T) {
	two := policy.Retention{Points: 2}
	for _, c := range []struct {
		text policy.ScheduleText
		kept string
	}{
		{policy.ScheduleText{Mode: "immediate"}, "03-13 03-14"},
		{policy.ScheduleText{After: "local"}, "03-13 03-14"},
		{policy.ScheduleText{Mode: "manual"}, "03-07 03-08 03-09 03-10"},
		{policy.ScheduleText{On: []string{"monday"}, At: "12:00"}, "03-10 03-12"}, // 03-13 is a Monday
	} {
		k := knownDays("web", 7, 10, true)
		k.Retention = &two
		job := Job{Name: "offsite", Schedule: must(policy.ParseSchedule(c.text, berlin))}
		if got := keptDays(Foresee(job, []Known{k}, wall("03-10 22:45"), 4, berlin).Machines[0]); got != c.kept {
			t.Errorf("%+v: keeps %s, want %s", c.text, got, c.kept)
		}
	}
}

// What is held of a machine that has gone for good goes on its day, and no point of it is expected. Without others' points of then
// it stays.
func TestForeseeRetired(t *testing.T) {
	gone := knownDays("gone", 1, 4, true)
	for i := range gone.Points {
		gone.Points[i].Source = false
	}
	gone.Retired, gone.Purge = true, wall("03-15 12:00")
	job := Job{Name: "offsite", Schedule: must(policy.ParseSchedule(policy.ScheduleText{Every: "1d", At: "23:00"}, berlin))}
	f := Foresee(job, []Known{knownDays("web", 9, 10, true), gone}, wall("03-10 22:45"), 10, berlin)
	if m := f.Machines[1]; m.Expects != "none: it is retired" || m.Made != 0 || keptDays(m) != "" {
		t.Errorf("%d %s, keeps %s", m.Made, m.Expects, keptDays(m))
	}
	var removed []string
	for _, d := range f.Days {
		if d.Removed > 0 {
			removed = append(removed, fmt.Sprintf("%s -%d", shown(d.Ends.Add(-1)), d.Removed))
		}
	}
	if text := strings.Join(removed, ", "); text != "03-15 23:59 -4" {
		t.Errorf("removed %s", text)
	}
	if m := Foresee(job, []Known{gone}, wall("03-10 22:45"), 10, berlin).Machines[0]; keptDays(m) != "03-01 03-02 03-03 03-04" {
		t.Errorf("by the clock alone: keeps %s", keptDays(m))
	}
}
