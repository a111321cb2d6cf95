package simulate

import (
	"slices"
	"testing"
	"time"

	"ferry/internal/policy"
)

// What must hold at every moment of the year, beside what the table says.
func TestYearHolds(t *testing.T) {
	if removals := holds(t, theYear(), lived()); removals < 8000 {
		t.Errorf("only %d points were removed", removals)
	}
}

// holds goes through what happened in a world, and returns how many points were removed.
func holds(t *testing.T, w World, events []Event) (removals int) {
	t.Helper()
	type copied struct{ begun, stored time.Time }
	type key struct{ job, machine string }
	held := map[key]map[int]copied{}
	turn := map[string]time.Time{} // when the interval began
	stored := map[key]map[int]bool{}
	beginsOf := map[key]map[int]time.Time{}
	for _, e := range events {
		k := key{e.Job, e.Machine}
		if held[k] == nil {
			held[k], stored[k], beginsOf[k] = map[int]copied{}, map[int]bool{}, map[int]time.Time{}
		}
		points := []Point(nil)
		if e.Machine != "" {
			points = w.machine(e.Job, e.Machine).Points
		}
		switch e.Kind {
		case Interval:
			turn[e.Job] = e.At
		case Copies:
			beginsOf[k][e.Point] = e.At
			if points[e.Point].Complete.IsZero() || points[e.Point].Complete.After(e.At) {
				t.Errorf("%s: %s copies a point that is locked", shown(e.At), e.Machine)
			}
		case Stored:
			if stored[k][e.Point] {
				t.Errorf("%s: %s copied twice", shown(e.At), shown(points[e.Point].Created))
			}
			stored[k][e.Point] = true
			held[k][e.Point] = copied{beginsOf[k][e.Point], e.At}
		case Removed:
			removals++
			was := held[k][e.Point]
			delete(held[k], e.Point)
			newer := false
			came := false // something that came when its copy had begun
			for p := range held[k] {
				newer = newer || points[p].Created.After(points[e.Point].Created)
				came = came || points[p].Complete.After(was.begun)
			}
			if !newer {
				t.Errorf("%s: the newest point of %s was removed", shown(e.At), e.Machine)
			}
			if !came || e.Job != "mirror" && was.stored.After(turn[e.Job]) {
				t.Errorf("%s: %s was copied and removed in one interval", shown(e.At), shown(points[e.Point].Created))
			}
		}
	}
	return removals
}

// However wrong the clock is, retention removes nothing that it would not have removed anyway.
func TestNoClockJumpRemoves(t *testing.T) {
	w := theYear()
	w.To = wall("07-20 00:00")
	right := decided()
	asked := 0
	right.keep = func(r policy.Retention, points []policy.Candidate, now time.Time) []policy.Verdict {
		verdicts := r.Decide(points, now)
		if asked++; asked%10 != 0 {
			return verdicts
		}
		for _, days := range []int{-4000, -30, -3, 3, 30, 4000} {
			for i, v := range r.Decide(points, now.AddDate(0, 0, days)) {
				// By a clock that is right: nothing in the year is dated in the future.
				if !v.Keep && r.Decide(points, points[len(points)-1].Created)[i].Keep {
					t.Fatalf("%d days off, the point of %s is removed", days, points[i].Created)
				}
			}
		}
		return verdicts
	}
	run(w, right, func(Event) {})
	if asked < 1000 {
		t.Errorf("asked %d times", asked)
	}
}

// A machine whose points never come free leaves the others as they would be without it.
func TestNoMachineWaitsForAnother(t *testing.T) {
	w := theYear()
	w.Jobs = slices.Clone(w.Jobs[1:2])
	w.To = wall("07-20 00:00")
	web, mail := w.Jobs[0].Machines[0], w.Jobs[0].Machines[1]
	mail.Points = slices.Clone(mail.Points)
	for i := range mail.Points {
		mail.Points[i].Complete = time.Time{}
		mail.Points[i].Grew = mail.Points[i].Created.AddDate(1, 0, 0)
	}
	of := func(machines ...Machine) (events []Event) {
		w.Jobs[0].Machines = machines
		run(w, decided(), func(e Event) {
			if e.Machine == "web" && e.Kind != Removed { // retention is for all machines together, when all are done
				events = append(events, e)
			}
		})
		return events
	}
	if difference := firstDifference(of(web, mail), of(web)); difference != "" {
		t.Error(difference)
	}
}

// Each wrong rule is noticed, by the table and by the oracle.
func TestWrongRulesAreNoticed(t *testing.T) {
	year := theYear()
	for n, c := range []struct {
		name  string
		until string // the year is lived until then
		wrong func(*rules)
	}{
		{"days are 24 hours", "03-27 12:00", func(r *rules) {
			due := r.due
			r.due = func(s policy.Schedule, h policy.History, now time.Time) policy.Decision {
				if s.Every.Days > 0 {
					h.Start = s.From(h.Start).Next(h.Start.Add(-1))
					s.Every = policy.Every{Elapsed: time.Duration(s.Every.Days) * 24 * time.Hour}
				}
				return due(s, h, now)
			}
		}},
		{"catch-up is counted from the first missed", "07-07 12:00", func(r *rules) {
			due := r.due
			r.due = func(s policy.Schedule, h policy.History, now time.Time) policy.Decision {
				d := due(s, h, now)
				if d.Action == policy.Begin && d.Missed.Count > 0 {
					d.Begins, d.History.Last = d.Missed.First, d.Missed.First
				}
				return d
			}
		}},
		{"a clock that was set back is believed", "03-16 12:00", func(r *rules) {
			due := r.due
			r.due = func(s policy.Schedule, h policy.History, now time.Time) policy.Decision {
				if h.Last.After(now) {
					return policy.Decision{Action: policy.Wait, Look: h.Last, History: h}
				}
				return due(s, h, now)
			}
		}},
		{"a locked newest point is replaced by the one before", "02-07 12:00", func(r *rules) {
			choose := r.choose
			r.choose = func(l policy.Lookup, mode policy.Mode, m policy.Machine, in policy.Interval, now time.Time) policy.Choice {
				m.Points = slices.DeleteFunc(slices.Clone(m.Points), func(p policy.SourcePoint) bool { return p.State == "locked" })
				return choose(l, mode, m, in, now)
			}
		}},
		{"forward takes what was created before the interval", "01-06 12:00", func(r *rules) {
			choose := r.choose
			r.choose = func(l policy.Lookup, mode policy.Mode, m policy.Machine, in policy.Interval, now time.Time) policy.Choice {
				l.Direction = policy.Backward
				return choose(l, mode, m, in, now)
			}
		}},
		{"a lock is never stale", "04-10 12:00", func(r *rules) {
			choose := r.choose
			r.choose = func(l policy.Lookup, mode policy.Mode, m policy.Machine, in policy.Interval, now time.Time) policy.Choice {
				l.StaleLock = 10000 * time.Hour
				return choose(l, mode, m, in, now)
			}
		}},
		{"a copy that has begun is given up for a newer point", "01-06 12:00", func(r *rules) {
			choose := r.choose
			r.choose = func(l policy.Lookup, mode policy.Mode, m policy.Machine, in policy.Interval, now time.Time) policy.Choice {
				m.Pinned = nil
				return choose(l, mode, m, in, now)
			}
		}},
		{"immediate takes the newest only", "02-11 12:00", func(r *rules) {
			choose := r.choose
			r.choose = func(l policy.Lookup, mode policy.Mode, m policy.Machine, in policy.Interval, now time.Time) policy.Choice {
				c := choose(l, mode, m, in, now)
				c.Take = c.Take[max(0, len(c.Take)-1):]
				return c
			}
		}},
		{"what retention removes at once is copied", "07-07 12:00", func(r *rules) {
			r.admit = func(_ policy.Retention, _, coming []policy.Candidate, _ time.Time) []policy.Verdict {
				verdicts := make([]policy.Verdict, len(coming))
				for i := range verdicts {
					verdicts[i].Keep = true
				}
				return verdicts
			}
		}},
		{"days are counted from the clock", "08-22 12:00", func(r *rules) {
			r.keep = func(rule policy.Retention, points []policy.Candidate, now time.Time) []policy.Verdict {
				verdicts := rule.Decide(points, now)
				for i, p := range points {
					if rule.Days > 0 && now.Sub(p.Created) > time.Duration(rule.Days+1)*24*time.Hour {
						verdicts[i].Keep = false
					}
				}
				return verdicts
			}
		}},
		{"a month begins on its first day", "05-16 12:00", func(r *rules) {
			r.keep = func(rule policy.Retention, points []policy.Candidate, now time.Time) []policy.Verdict {
				rule.Tiers[policy.Monthly].On = policy.OnDay(1)
				return rule.Decide(points, now)
			}
		}},
		{"a point dated in the future does not stop removal", "05-16 12:00", func(r *rules) {
			r.keep = func(rule policy.Retention, points []policy.Candidate, now time.Time) []policy.Verdict {
				return rule.Decide(points, now.AddDate(1, 0, 0))
			}
		}},
		{"a window ends at midnight", "01-06 12:00", func(r *rules) {
			open := r.open
			r.open = func(w policy.Window, at time.Time) bool {
				return open(w, at) && (open(w, at.Add(-6*time.Hour)) || at.In(berlin).Hour() >= 20)
			}
		}},
		{"limits hold at all hours", "01-02 12:00", func(r *rules) {
			r.limit = func(b policy.Bandwidth, _ time.Time) policy.Rate { return b.LimitAt(wall("01-03 12:00")) }
		}},
	} {
		if testing.Short() && n%3 != 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			w := year
			w.To = wall(c.until)
			r := decided()
			c.wrong(&r)
			events := eventsOf(w, r)
			wrong := mismatches(t, w, events)
			if len(wrong) == 0 {
				t.Error("the table does not notice")
			}
			if difference := firstDifference(events, oracle(w)); difference == "" {
				t.Error("the oracle does not notice")
			}
		})
	}
}

// A job after another one begins when that has stored a point, and only then; one that nobody asks for never does.
func TestAfterAnotherJob(t *testing.T) {
	day := func(s string) string { return "03-" + s }
	machine := func() []Machine {
		m := Machine{Name: "web", Whole: 600_000_000}
		for _, d := range []string{"06", "07", "09"} { // none on the 8th
			m.Points = append(m.Points, point("web", len(m.Points), wall(day(d)+" 20:00"), 5, 600_000_000, 40*24*time.Hour))
		}
		return []Machine{m}
	}
	job := func(name string, text policy.ScheduleText) Job {
		return Job{Name: name, Enabled: wall(day("06") + " 10:00"), Link: 10_000_000, Machines: machine(), Schedule: must(policy.ParseSchedule(text, berlin))}
	}
	w := World{From: wall(day("06") + " 00:00"), To: wall(day("11") + " 00:00"), Jobs: []Job{
		job("second", policy.ScheduleText{After: "first"}), job("first", policy.ScheduleText{Every: "1d", At: "22:00"}), job("never", policy.ScheduleText{Mode: "manual"}),
	}}
	var got []string
	run(w, decided(), func(e Event) {
		if e.Job != "first" {
			got = append(got, shown(e.At)+" "+e.Job+" "+w.words(e))
		}
	})
	want := []string{
		"03-06 22:01 second interval from 03-06 22:01", "03-06 22:01 second copies 03-06 20:00", "03-06 22:02 second stored 03-06 20:00",
		"03-07 22:01 second interval from 03-07 22:01", "03-07 22:01 second copies 03-07 20:00", "03-07 22:02 second stored 03-07 20:00",
		// The first job's interval of the 8th has waited for a point, and takes the first that appears, complete at 20:05.
		"03-09 20:06 second interval from 03-09 20:06", "03-09 20:06 second copies 03-09 20:00", "03-09 20:07 second stored 03-09 20:00",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
