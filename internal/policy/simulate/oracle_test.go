package simulate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/policy"
)

// The oracle lives the same year once more, minute by minute and in the plainest way. It uses nothing of package policy: what
// the jobs' settings mean is written down here a second time.

// oracleJob is a job in the oracle's own terms.
type oracleJob struct {
	Job
	immediate, forward      bool
	boundaries              []time.Time // by the right clock
	open                    func(local time.Time) bool
	limit                   func(local time.Time) int64 // bytes in a second; 0 is none
	points, days            int
	weeks, months, quarters int
	years                   int
	running                 bool
	last                    int // boundary of the last interval
	turn                    int
	machines                []*oracleMachine
}

type oracleMachine struct {
	Machine
	low    int // points before it are no candidates any more
	had    map[int]bool
	held   []int // by time
	slots  map[int][]string
	oldest int // -1: never held any
	newest int
	queue  []int
	turn   int
	begun  bool
	left   int64 // in sixtieths of a byte, as is spare: so a second of up to six machines at once comes out even
	spare  int64
	waits  bool
	done   bool
	still  map[int]time.Time // since when locked points are seen that do not grow any more, by the server's clock
}

func oracle(w World) []Event {
	var events []Event
	var jobs []*oracleJob
	for _, j := range w.Jobs {
		jobs = append(jobs, oracleOf(j))
	}
	say := func(e Event) { events = append(events, e) }
	for t := w.From; t.Before(w.To); t = t.Add(time.Minute) {
		oracleLook(t, w, jobs, say)
		for second := 1; second <= 60 && oracleMove(t.Add(time.Duration(second-1)*time.Second), w, jobs); second++ {
			// All but the end of a transfer happens on the minute.
			if second < 60 && slices.ContainsFunc(jobs, (*oracleJob).arrived) {
				oracleLook(t.Add(time.Duration(second)*time.Second), w, jobs, say)
			}
		}
	}
	return events
}

// oracleClock is what the server's clock says.
func oracleClock(t time.Time, w World) time.Time {
	for _, s := range w.Clock {
		if !t.Before(s.From) && t.Before(s.To) {
			return t.Add(s.Ahead)
		}
	}
	return t
}

func within(t time.Time, spans []Span) bool {
	for _, s := range spans {
		if !t.Before(s.From) && t.Before(s.To) {
			return true
		}
	}
	return false
}

// oracleLook does what is to be done at an instant.
func oracleLook(t time.Time, w World, jobs []*oracleJob, tell func(Event)) {
	if within(t, w.Down) {
		return
	}
	clock := oracleClock(t, w)
	for _, j := range jobs {
		if t.Before(j.Enabled) {
			continue
		}
		say := func(m *oracleMachine, kind Kind, point int) {
			e := Event{At: t, Job: j.Name, Kind: kind, Point: point}
			if m != nil {
				e.Machine = m.Name
			}
			tell(e)
		}
		if !j.immediate {
			if begins, missed := j.interval(clock, say); begins {
				tell(Event{At: t, Job: j.Name, Kind: Interval, Point: -1, Begins: j.boundaries[j.last], Missed: policy.Missed{Count: missed}})
			}
		}
		if !within(t, j.Offline) && (j.immediate || j.running) {
			j.look(t, clock, say)
		}
	}
}

// oracleMove moves the bytes of a second. It returns false if there are none to move.
func oracleMove(t time.Time, w World, jobs []*oracleJob) (moved bool) {
	if within(t, w.Down) {
		return false
	}
	for _, j := range jobs {
		if !within(t, j.Offline) {
			moved = j.move(t, oracleClock(t, w)) || moved
		}
	}
	return moved
}

func (j *oracleJob) arrived() bool {
	return slices.ContainsFunc(j.machines, func(m *oracleMachine) bool { return m.begun && m.left == 0 })
}

// oracleOf translates a job of the year, and insists that it knows it.
func oracleOf(j Job) *oracleJob {
	o := &oracleJob{Job: j, open: func(time.Time) bool { return true }, limit: func(time.Time) int64 { return 0 }, last: -1}
	hour, minute, weekday := 0, 0, -1
	work := func(local time.Time) bool { return local.Weekday() >= time.Monday && local.Weekday() <= time.Friday }
	switch j.Name {
	case "mirror":
		o.immediate, o.points, o.weeks = true, 24, 4
		o.limit = func(local time.Time) int64 {
			if work(local) && local.Hour() >= 8 && local.Hour() < 18 {
				return 5_000_000
			}
			return 0
		}
	case "nightly":
		o.forward, o.days, hour = true, 14, 22
		o.open = func(local time.Time) bool {
			switch local.Weekday() {
			case time.Saturday, time.Sunday:
				return true
			case time.Monday:
				return local.Hour() >= 20
			}
			return local.Hour() >= 20 || local.Hour() < 6
		}
	case "archive":
		o.points, o.weeks, o.months, o.quarters, o.years = 2, 4, 12, 4, 3
		hour, minute = 2, 30
		for _, at := range oracleBoundaries(clockTime{hour, minute, -1}) {
			if !at.Before(j.Enabled) { // the first of the weeks
				weekday = int(at.In(berlin).Weekday())
				break
			}
		}
	default:
		panic("the oracle knows nothing of " + j.Name)
	}
	if !o.immediate {
		o.boundaries = oracleBoundaries(clockTime{hour, minute, weekday})
		for n, at := range o.boundaries {
			if at.Before(j.Enabled) {
				o.last = n
			}
		}
	}
	for _, m := range j.Machines {
		o.machines = append(o.machines, &oracleMachine{Machine: m, had: map[int]bool{}, slots: map[int][]string{}, oldest: -1, still: map[int]time.Time{}})
	}
	return o
}

// clockTime is a time of day, on one weekday or (-1) on all.
type clockTime struct{ hour, minute, weekday int }

var oracleKnown = map[clockTime][]time.Time{}

// oracleBoundaries are the minutes at which a clock in Berlin comes to a time of day in 2028, and a little around it.
func oracleBoundaries(c clockTime) []time.Time {
	if known, ok := oracleKnown[c]; ok {
		return known
	}
	today, came := 0, false
	var all []time.Time
	for t := wall("01-01 00:00").AddDate(0, -2, 0); t.Before(wall("12-31 23:00").AddDate(0, 1, 0)); t = t.Add(time.Minute) {
		local := t.In(berlin)
		if local.YearDay() != today {
			today, came = local.YearDay(), c.weekday >= 0 && int(local.Weekday()) != c.weekday
		}
		if !came && (local.Hour() > c.hour || local.Hour() == c.hour && local.Minute() >= c.minute) {
			came = true
			all = append(all, t)
		}
	}
	oracleKnown[c] = all
	return all
}

// interval begins one if the clock has passed a boundary since the last.
func (j *oracleJob) interval(clock time.Time, say func(*oracleMachine, Kind, int)) (begins bool, missed int) {
	current := -1
	for current+1 < len(j.boundaries) && !j.boundaries[current+1].After(clock) {
		current++
	}
	if j.last >= 0 && j.boundaries[j.last].After(clock.Add(time.Hour)) {
		j.last = current
	}
	if current <= j.last {
		return false, 0
	}
	if j.running {
		for _, m := range j.machines {
			if !m.done && len(m.queue) == 0 {
				say(m, GotNothing, -1)
			}
		}
		j.retain(clock, say)
	}
	missed = current - j.last - 1
	j.last, j.running = current, true
	j.turn++
	for _, m := range j.machines {
		m.done = false
		m.waits = m.waits && len(m.queue) > 0
	}
	j.retain(clock, say)
	return true, missed
}

// look does for each machine what is to be done.
func (j *oracleJob) look(t, clock time.Time, say func(*oracleMachine, Kind, int)) {
	open := j.open(clock.In(berlin))
	all := true
	for _, m := range j.machines {
		m.see(t, clock)
		for {
			if m.begun && m.left == 0 {
				p := m.queue[0]
				m.queue, m.begun, m.spare = m.queue[1:], false, 0
				m.take(j, p)
				m.done = m.done || m.turn == j.turn
				say(m, Stored, p)
				if j.immediate && len(m.queue) == 0 {
					j.retain(clock, say)
				}
			}
			for len(m.queue) > 0 && !m.Points[m.queue[0]].Gone.After(t) {
				if m.begun {
					m.spare = max(m.spare, 60*m.needs(m.queue[0])-m.left)
				}
				m.queue, m.begun = m.queue[1:], false
			}
			if len(m.queue) == 0 {
				chosen := m.choose(j, t, clock, say)
				if len(chosen) > 0 && !open {
					if !m.waits {
						say(m, WaitsForWindow, -1)
					}
					m.waits = true
					break
				}
				if len(chosen) == 0 {
					m.waits = false
					break
				}
				if !j.running { // only an immediate job comes here without
					j.running = true
					j.retain(clock, say)
				}
				m.queue, m.turn = chosen, j.turn
			}
			if !open {
				if !m.waits {
					say(m, WaitsForWindow, -1)
				}
				m.waits = true
				break
			}
			switch {
			case !m.begun:
				m.begun = true
				m.left = max(0, 60*m.needs(m.queue[0])-m.spare)
				say(m, Copies, m.queue[0])
			case m.waits:
				say(m, GoesOn, m.queue[0])
			}
			m.waits = false
			if m.left > 0 {
				break
			}
		}
		all = all && (m.done || j.immediate) && len(m.queue) == 0
	}
	if all && j.running {
		j.retain(clock, say)
		j.running = false
	}
}

// take stores a point, and gives it the slots that are free.
func (m *oracleMachine) take(j *oracleJob, p int) {
	m.had[p] = true
	m.held = append(m.held, p)
	slices.Sort(m.held)
	if m.oldest < 0 {
		m.oldest = p
	}
	m.oldest, m.newest = min(m.oldest, p), max(m.newest, p)
	m.slots[p] = j.free(m.Points[p].Created, m.slots)
}

// free are the slots of a time that no point has.
func (j *oracleJob) free(created time.Time, slots map[int][]string) []string {
	var free []string
	for _, slot := range j.slotsOf(created) {
		taken := false
		for _, names := range slots {
			taken = taken || slices.Contains(names, slot)
		}
		if !taken {
			free = append(free, slot)
		}
	}
	return free
}

// slotsOf are the periods that a time lies in: weeks from Sunday; months, quarters and years from their first Sunday.
func (j *oracleJob) slotsOf(created time.Time) []string {
	var slots []string
	day := time.Date(created.In(berlin).Year(), created.In(berlin).Month(), created.In(berlin).Day(), 12, 0, 0, 0, time.UTC)
	sunday := day
	for sunday.Weekday() != time.Sunday {
		sunday = sunday.AddDate(0, 0, -1)
	}
	if j.weeks > 0 {
		slots = append(slots, "w"+sunday.Format(time.DateOnly))
	}
	for _, tier := range []struct {
		name   string
		keep   int
		months []int
	}{{"m", j.months, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, {"q", j.quarters, []int{1, 4, 7, 10}}, {"y", j.years, []int{1}}} {
		if tier.keep == 0 {
			continue
		}
		// Back, day by day, to a Sunday that is the first of a month of the tier.
		for at := sunday; ; at = at.AddDate(0, 0, -7) {
			if at.Day() <= 7 && slices.Contains(tier.months, int(at.Month())) {
				slots = append(slots, tier.name+at.Format(time.DateOnly))
				break
			}
		}
	}
	return slots
}

// needs is what a copy of a point moves: what changed between it and the closest that is held.
func (m *oracleMachine) needs(p int) int64 {
	least := m.Whole
	for _, h := range m.held {
		var changed int64
		for i := min(p, h) + 1; i <= max(p, h) && changed < m.Whole; i++ {
			changed += m.Points[i].Changed
		}
		least = min(least, changed)
	}
	return least
}

// choose says what is to be copied.
func (m *oracleMachine) choose(j *oracleJob, t, clock time.Time, say func(*oracleMachine, Kind, int)) []int {
	if m.done && !j.immediate {
		return nil
	}
	var fresh []int // oldest first
	for m.low < len(m.Points) && (m.had[m.low] || m.Points[m.low].Gone.Before(t)) && !m.Points[m.low].Created.After(t) {
		m.low++
	}
	for p := m.low; p < len(m.Points) && !m.Points[p].Created.After(t); p++ {
		point := m.Points[p]
		switch {
		case m.had[p], point.Broken, !point.Gone.After(t):
		case m.oldest >= 0 && (j.immediate && p < m.oldest || !j.immediate && p < m.newest):
		case j.forward && point.Created.Before(j.boundaries[j.last]):
		case point.Complete.IsZero() && m.leftLocked(p, clock):
		default:
			fresh = append(fresh, p)
		}
	}
	complete := func(p int) bool { return !m.Points[p].Complete.IsZero() && !m.Points[p].Complete.After(t) }
	var take []int
	switch {
	case len(fresh) == 0:
	case j.immediate && m.oldest >= 0:
		for _, p := range fresh {
			if !complete(p) {
				break
			}
			take = append(take, p)
		}
	case j.forward:
		for _, p := range fresh {
			if complete(p) {
				take = []int{p}
			}
		}
	case complete(fresh[len(fresh)-1]):
		take = fresh[len(fresh)-1:]
	}
	if len(take) == 0 {
		return nil
	}
	// Nothing that would be removed at once.
	all := slices.Concat(m.held, take)
	slices.Sort(all)
	slots := map[int][]string{}
	for p, names := range m.slots {
		slots[p] = names
	}
	for _, p := range take {
		slots[p] = j.free(m.Points[p].Created, slots)
	}
	kept := m.kept(j, all, slots, clock)
	return slices.DeleteFunc(slices.Clone(take), func(p int) bool {
		if !kept[p] {
			m.had[p] = true
			say(m, Skipped, p)
		}
		return !kept[p]
	})
}

// see notes since when locked points are seen that do not grow any more. What a clock says that was set back since counts as now.
func (m *oracleMachine) see(t, clock time.Time) {
	for p := m.low; p < len(m.Points) && !m.Points[p].Created.After(t); p++ {
		if point := m.Points[p]; !point.Complete.IsZero() || t.Before(point.Grew) {
			continue
		}
		if at, seen := m.still[p]; !seen || at.After(clock) {
			m.still[p] = clock
		}
	}
}

// leftLocked is true for a point that was not seen to grow for two hours.
func (m *oracleMachine) leftLocked(p int, clock time.Time) bool {
	at, seen := m.still[p]
	return seen && !clock.Before(at.Add(2*time.Hour))
}

// kept are those of the points that the job's rules keep.
func (m *oracleMachine) kept(j *oracleJob, points []int, slots map[int][]string, clock time.Time) map[int]bool {
	kept := map[int]bool{}
	if len(points) == 0 {
		return kept
	}
	date := func(p int) time.Time {
		y, mo, d := m.Points[p].Created.In(berlin).Date()
		return time.Date(y, mo, d, 0, 0, 0, 0, time.UTC)
	}
	newest := points[len(points)-1]
	for rank, p := range slices.Backward(points) {
		rank = len(points) - 1 - rank // 0 is the newest
		kept[p] = rank == 0 || rank < j.points || j.days > 0 && (rank < 3 || date(newest).Sub(date(p)) <= time.Duration(j.days)*24*time.Hour) ||
			m.Points[newest].Created.After(clock.Add(24*time.Hour))
	}
	for tier, keep := range map[byte]int{'w': j.weeks, 'm': j.months, 'q': j.quarters, 'y': j.years} {
		var filled []string
		for _, p := range points {
			for _, slot := range slots[p] {
				if slot[0] == tier {
					filled = append(filled, slot)
				}
			}
		}
		slices.Sort(filled)
		for _, p := range points {
			for _, slot := range slots[p] {
				if slices.Contains(filled[max(0, len(filled)-keep):], slot) {
					kept[p] = true
				}
			}
		}
	}
	return kept
}

func (j *oracleJob) retain(clock time.Time, say func(*oracleMachine, Kind, int)) {
	for _, m := range j.machines {
		kept := m.kept(j, m.held, m.slots, clock)
		m.held = slices.DeleteFunc(m.held, func(p int) bool {
			if !kept[p] {
				delete(m.slots, p)
				say(m, Removed, p)
			}
			return !kept[p]
		})
	}
}

// move moves the bytes of a second, if there are any.
func (j *oracleJob) move(t, clock time.Time) bool {
	var moving []*oracleMachine
	for _, m := range j.machines {
		if m.begun && !m.waits {
			moving = append(moving, m)
		}
	}
	if len(moving) == 0 {
		return false
	}
	rate := int64(10_000_000)
	for _, s := range j.Slow {
		if !t.Before(s.From) && t.Before(s.To) {
			rate = min(rate, int64(s.Rate))
		}
	}
	if limit := j.limit(clock.In(berlin)); limit > 0 {
		rate = min(rate, limit)
	}
	for _, m := range moving {
		if m.left -= 60 * rate / int64(len(moving)); m.left < 60 {
			m.left = 0 // a part of a byte is none
		}
	}
	return true
}

// said is an event without what the oracle does not tell of, for comparison.
func said(e Event) string {
	return fmt.Sprintf("%s %s %s %s %d %s %d", e.At.UTC().Format(time.RFC3339Nano), e.Job, e.Machine, e.Kind, e.Point, e.Begins.UTC().Format(time.RFC3339), e.Missed.Count)
}

// sorted are the events but warnings, in an order that does not depend on which machine is looked at first.
func sorted(events []Event) []string {
	var all []string
	for _, e := range events {
		if e.Kind != Warned {
			all = append(all, said(e))
		}
	}
	slices.Sort(all)
	return all
}

// firstDifference is where two lives part; empty if they do not.
func firstDifference(a, b []Event) string {
	one, other := sorted(a), sorted(b)
	for i := range max(len(one), len(other)) {
		switch {
		case i >= len(one):
			return "only the oracle: " + other[i]
		case i >= len(other):
			return "only the simulation: " + one[i]
		case one[i] != other[i]:
			return fmt.Sprintf("simulation %s, oracle %s", one[i], other[i])
		}
	}
	return ""
}

func TestOracleAgrees(t *testing.T) {
	w := theYear()
	truth := oracle(w)
	for _, wrong := range mismatches(t, w, truth) {
		if !strings.HasSuffix(wrong, "want warned") { // the oracle does not warn
			t.Error("the oracle: " + wrong)
		}
	}
	if difference := firstDifference(lived(), truth); difference != "" {
		t.Error(difference)
	}
}
