package policy

import (
	"fmt"
	"slices"
	"time"
)

// Intervals are those of a schedule that counts from a start. They lie back to back: each ends where the next begins.
// Boundaries go on before the start as well, so that a clock that was wrong when the job was enabled does no harm.
type Intervals struct {
	schedule Schedule
	start    time.Time
	first    date // on which days are counted from
}

// From are the intervals that count from the time at which the job was first enabled.
func (s Schedule) From(start time.Time) Intervals {
	first := dateOf(start, s.zone())
	if s.Every.Days > 0 && first.clock(s.At, s.zone()).Before(start) {
		first = first.add(1)
	}
	return Intervals{s, start, first}
}

// Periodic is true if there are boundaries at all.
func (i Intervals) Periodic() bool {
	s := i.schedule
	return s.Mode == Periodic && (s.Every != (Every{}) || len(s.On) > 0)
}

// Next is the first boundary after an instant; the zero time if the schedule is not periodic.
//
//   - Minutes and hours: start, start + every, start + 2 × every …, whatever clocks do.
//   - Days: the clock time on the first day on which it comes at or after the start, and on every n-th day from there.
//   - Days of a week or month: the clock time on each.
func (i Intervals) Next(after time.Time) time.Time {
	switch every := i.schedule.Every.Elapsed; {
	case !i.Periodic():
		return time.Time{}
	case every > 0:
		n := floorDiv(int64(after.Sub(i.start)), int64(every)) + 1
		return i.start.Add(time.Duration(n) * every).UTC()
	}
	zone := i.schedule.zone()
	// A day earlier: its clock time may come later, where a zone leaves out a day.
	for day := i.dayFrom(dateOf(after, zone).add(-1)); ; day = i.dayFrom(day.add(1)) {
		if at := day.clock(i.schedule.At, zone); at.After(after) {
			return at
		}
	}
}

// Current is the last boundary at or before an instant, where its interval begins; the zero time if the schedule is not
// periodic.
func (i Intervals) Current(at time.Time) time.Time {
	if !i.Periodic() {
		return time.Time{}
	}
	if every := i.schedule.Every.Elapsed; every > 0 {
		return i.Next(at).Add(-every)
	}
	// Boundaries are at most a month, or every days, apart, and a day that a clock change leaves out.
	back := 33
	if i.schedule.Every.Days > 0 {
		back = i.schedule.Every.Days + 2
	}
	current := i.Next(at.AddDate(0, 0, -back))
	for next := i.Next(current); !next.After(at); next = i.Next(current) {
		current = next
	}
	return current
}

// dayFrom is the first day with a boundary, from a day on.
func (i Intervals) dayFrom(day date) date {
	s := i.schedule
	if s.Every.Days > 0 {
		every := int64(s.Every.Days)
		past := day.number() - i.first.number()
		return i.first.add(int(-floorDiv(-past, every) * every))
	}
	for !slices.ContainsFunc(s.On, func(on On) bool { return on.on(day) }) {
		day = day.add(1)
	}
	return day
}

// on is true if the day is meant; of a day that a month does not have, its last.
func (o On) on(day date) bool {
	if o.day > 0 {
		return o.in(date{day.year, day.month, 1}) == day
	}
	return o.weekday == day.weekday()
}

// number counts days.
func (d date) number() int64 { return floorDiv(d.utc().Unix(), int64(dayLength/time.Second)) }

// floorDiv divides and rounds down, also below zero.
func floorDiv(a, b int64) int64 {
	n := a / b
	if a%b < 0 {
		n--
	}
	return n
}

// Missed are boundaries that passed without an interval of their own.
type Missed struct {
	First, Last time.Time
	Count       int
}

// between counts the boundaries after one instant and before another.
func (i Intervals) between(after, before time.Time) Missed {
	var m Missed
	if every := i.schedule.Every.Elapsed; every > 0 {
		m.First = i.Next(after)
		m.Last = i.Next(before.Add(-every - 1))
		if m.Last.Before(m.First) {
			return Missed{}
		}
		m.Count = int(m.Last.Sub(m.First)/every) + 1
		return m
	}
	for at := i.Next(after); at.Before(before); at = i.Next(at) {
		if m.Count == 0 {
			m.First = at
		}
		m.Last = at
		m.Count++
	}
	return m
}

// History is what counts of a job's past for when its next interval begins. It is stored with the job.
type History struct {
	// Start is when the job was first enabled.
	Start time.Time
	// Last is where the last interval begins by the schedule, whether it is over or not; zero if there was none.
	Last time.Time
	// Running is true while a session of the job is in progress.
	Running bool
	// Asked is when something other than the schedule asked for an interval that has not begun yet: a new point in the
	// source (Immediate), a session of the other job that stored a point (After), a person (any mode). Zero if nothing has.
	Asked time.Time
}

// Action is what a job is to do.
type Action string

// The actions.
const (
	// Wait until Decision.Look, or until something asks for an interval.
	Wait Action = "wait"
	// Begin an interval.
	Begin Action = "begin"
	// End the session that is in progress: its interval is over. Transfers in progress end after a checkpoint, go on in the next, and
	// count for the interval in which they began; machines that wait for a point wait no longer. Then decide again.
	End Action = "end"
)

// Decision says what a job is to do now.
type Decision struct {
	Action Action
	// Begins is where the interval to begin begins by the schedule, or when it was asked for.
	Begins time.Time
	// Missed are the boundaries since the last interval that get none of their own; they are recorded as not run.
	Missed Missed
	// Look is when to decide again at the latest; zero if only something that asks leads on.
	Look time.Time
	// Reason in words for a person.
	Reason string
	// History is to be stored in place of the one that was given.
	History History
}

// clockSlack is how far ahead of the clock a boundary may lie that was acted upon: clocks are set back by so much without
// a word. It is never more than half an interval.
const clockSlack = time.Hour

// Due decides what a job does now. There is one session of a job at a time.
//
//  1. A past that lies in the future was written by a clock that has since been set back: it counts as now.
//  2. A session in progress ends at the next boundary.
//  3. Boundaries that passed since the last interval: the last of them begins one, the others get none.
//  4. What asked for an interval begins one, when none is in progress.
func (s Schedule) Due(h History, now time.Time) Decision {
	h, note := s.believable(h, now)
	in := s.From(h.Start)
	d := Decision{Action: Wait, History: h}
	if !in.Periodic() {
		return s.dueWhenAsked(d, note)
	}
	after := h.Last
	if after.IsZero() {
		after = h.Start.Add(-1)
	}
	due := in.Next(after)
	d.Look = due
	switch {
	case !due.After(now) && h.Running:
		d.Action, d.Look = End, time.Time{}
		d.Reason = "its interval ended " + s.show(due)
	case !due.After(now):
		d.Action, d.Begins, d.Reason = Begin, in.Current(now), "its interval begins "+s.show(due)
		if d.Missed = in.between(after, d.Begins); d.Missed.Count > 0 {
			d.Reason = fmt.Sprintf("catches up from %s; not run: %s", s.show(d.Begins), s.showMissed(d.Missed))
		}
		d.History.Last, d.History.Running, d.History.Asked, d.Look = d.Begins, true, time.Time{}, in.Next(d.Begins)
	case h.Running:
		d.Reason = "in progress; its interval ends " + s.show(due)
	case !h.Asked.IsZero():
		// It is that in which the clock is: the boundary to come stands.
		d.Action, d.Begins, d.Reason = Begin, in.Current(now), "asked for "+s.show(h.Asked)
		d.History.Last, d.History.Running, d.History.Asked = d.Begins, true, time.Time{}
	default:
		d.Reason = "the next interval begins " + s.show(due)
	}
	d.Reason += note
	return d
}

// dueWhenAsked decides for the modes without boundaries.
func (s Schedule) dueWhenAsked(d Decision, note string) Decision {
	asks := map[Mode]string{Immediate: "a new point in the source", After: "a point stored by job " + s.After, Manual: "a person", Periodic: "a person"}[s.Mode]
	switch h := d.History; {
	case h.Running && !h.Asked.IsZero():
		d.Reason = "in progress; the next interval begins when it is done"
	case h.Running:
		d.Reason = "in progress"
	case !h.Asked.IsZero():
		d.Action, d.Begins = Begin, h.Asked
		d.Reason = "asked for " + s.show(h.Asked) + " by " + asks
		d.History.Last, d.History.Running, d.History.Asked = h.Asked, true, time.Time{}
	default:
		d.Reason = "waits for " + asks
	}
	d.Reason += note
	return d
}

// believable brings times that lie in the future back to now, and says so.
func (s Schedule) believable(h History, now time.Time) (History, string) {
	in := s.From(h.Start)
	latest := now
	if in.Periodic() {
		latest = now.Add(min(clockSlack, in.Next(now).Sub(in.Current(now))/2))
	}
	ahead := slices.MaxFunc([]time.Time{h.Start, h.Last, h.Asked}, time.Time.Compare)
	if !ahead.After(latest) {
		return h, ""
	}
	believed := func(at, instead time.Time) time.Time {
		if at.After(latest) {
			return instead
		}
		return at
	}
	current := now
	if in.Periodic() {
		current = in.Current(now) // the boundaries stay where they are
	}
	h.Start, h.Last, h.Asked = believed(h.Start, current), believed(h.Last, current), believed(h.Asked, now)
	return h, fmt.Sprintf(" (the clock was set back: it has been %s)", s.show(ahead))
}

// show is an instant by the schedule's clock.
func (s Schedule) show(at time.Time) string { return ShowTime(at, s.Zone) }

func (s Schedule) showMissed(m Missed) string {
	if m.Count == 1 {
		return "the interval of " + s.show(m.First)
	}
	return fmt.Sprintf("%d intervals from %s to %s", m.Count, s.show(m.First), s.show(m.Last))
}
