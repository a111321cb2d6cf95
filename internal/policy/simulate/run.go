package simulate

import (
	"math"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// life is a world at one time.
type life struct {
	World
	rules
	tell  func(Event)
	t     time.Time
	jobs  []*job
	edges []time.Time
}

// job is a job at one time.
type job struct {
	Job
	history policy.History
	// turn counts intervals, stored the points of the session in progress.
	turn, stored int
	machines     []*machine
	// look is when to decide again at the latest, by the server's clock; zero is never.
	look time.Time
}

// machine is a machine at one time.
type machine struct {
	Machine
	sums           []int64 // of what changed, up to each point
	places         map[backup.PointID]int
	from, to       int   // the points that the source may show: those before are gone, those behind not made yet
	held           []int // places of the points that the job holds, by time
	flags          map[int][]string
	had            map[backup.PointID]bool // held, given up or skipped
	again          map[backup.PointID]bool // given up, and to be taken again
	oldest, newest time.Time

	pinned []int // to be copied, in this order
	turn   int   // in which they were chosen
	left   float64
	spare  float64 // bytes in the target of copies that were not finished
	begun  bool    // the first pinned point is on its way
	waits  bool    // for the window
	locked bool    // a lock is waited for
	done   bool    // this interval has stored a point of it
	warned map[string]bool
	look   time.Time
	locks  map[backup.PointID]sighting
	listed []policy.SourcePoint // what shown has returned, to be used again
}

// sighting is when a locked point was first seen as it is, by the server's clock.
type sighting struct{ grew, since time.Time }

func run(w World, r rules, tell func(Event)) *life {
	l := &life{World: w, rules: r, tell: tell, t: w.From, edges: w.edges()}
	for _, j := range w.Jobs {
		l.jobs = append(l.jobs, newJob(j))
	}
	for {
		l.settle()
		next := l.next()
		if !next.Before(l.To) {
			return l
		}
		l.advance(next)
	}
}

func newJob(j Job) *job {
	state := &job{Job: j, history: policy.History{Start: j.Enabled}}
	for _, m := range j.Machines {
		s := &machine{Machine: m, places: map[backup.PointID]int{}, flags: map[int][]string{}, had: map[backup.PointID]bool{}, again: map[backup.PointID]bool{}, locks: map[backup.PointID]sighting{}, warned: map[string]bool{}}
		var sum int64
		for place, p := range m.Points {
			sum += p.Changed
			s.sums = append(s.sums, sum)
			s.places[p.ID] = place
			if s.had[p.ID] = p.Held || p.Forgotten; p.Held {
				s.hold(place)
			}
			if p.Held && p.Flagged {
				s.flags[place] = p.Flags
			}
			if p.Again {
				s.again[p.ID] = true
			}
		}
		state.machines = append(state.machines, s)
	}
	return state
}

func (m *machine) hold(place int) {
	created := m.Points[place].Created
	m.held = append(m.held, place)
	slices.SortFunc(m.held, byTime(m.Points))
	m.had[m.Points[place].ID] = true
	if m.oldest.IsZero() || created.Before(m.oldest) {
		m.oldest = created
	}
	if created.After(m.newest) {
		m.newest = created
	}
}

// now is the time by the server's clock.
func (l *life) now() time.Time { return l.t.Add(l.ahead(l.t)) }

// settle lets everything happen that happens now.
func (l *life) settle() {
	if l.down(l.t) {
		return
	}
	for changed := true; changed; {
		changed = false
		for _, j := range l.jobs {
			if j.Enabled.After(l.t) {
				continue
			}
			changed = l.decide(j) || changed
			changed = l.work(j) || changed
		}
	}
}

// decide begins and ends intervals.
func (l *life) decide(j *job) (changed bool) {
	for {
		d := l.due(j.Schedule, j.history, l.now())
		j.history, j.look = d.History, d.Look
		switch d.Action {
		case policy.Wait:
			return changed
		case policy.End:
			for _, m := range j.machines {
				if !m.done && len(m.pinned) == 0 {
					l.say(j, m, Event{Kind: GotNothing, Point: -1})
				}
			}
			l.finish(j)
		case policy.Begin:
			j.turn++
			j.stored = 0
			if j.Schedule.Mode != policy.Immediate {
				l.tell(Event{At: l.t, Job: j.Name, Kind: Interval, Point: -1, Begins: d.Begins, Missed: d.Missed, Reason: d.Reason})
			}
			for _, m := range j.machines {
				m.done, m.waits = false, m.waits && len(m.pinned) > 0
				l.retain(j, m)
			}
		}
		changed = true
	}
}

// finish ends a session: retention, and other jobs that begin after it.
func (l *life) finish(j *job) {
	for _, m := range j.machines {
		l.retain(j, m)
	}
	j.history.Running = false
	for _, other := range l.jobs {
		if other.Schedule.Mode == policy.After && other.Schedule.After == j.Name && j.stored > 0 {
			other.history.Asked = l.now()
		}
	}
}

// work does for each machine what is to be done now, and ends the session if nothing is left to do.
func (l *life) work(j *job) (changed bool) {
	if j.offline(l.t) {
		return false
	}
	immediate := j.Schedule.Mode == policy.Immediate
	if !j.history.Running && !immediate {
		return false
	}
	rest := true
	for _, m := range j.machines {
		changed = l.store(j, m) || changed
		changed = l.lookAt(j, m) || changed
		if j.Schedule.Mode == policy.Periodic {
			rest = rest && m.done && len(m.pinned) == 0
		} else {
			rest = rest && len(m.pinned) == 0 && !m.waits && (immediate || !m.locked)
		}
	}
	if rest && j.history.Running {
		l.finish(j)
		return true
	}
	return changed
}

// lookAt chooses what is copied of a machine, and begins it.
func (l *life) lookAt(j *job, m *machine) (changed bool) {
	m.look = time.Time{}
	choice := l.choose(j.Lookup, j.Schedule.Mode, m.shown(l), policy.Interval{Begins: j.history.Last, Ends: j.Schedule.From(j.history.Start).Next(j.history.Last)}, l.now())
	m.look, m.locked = choice.Look, choice.Lock != (backup.PointID{})
	for _, warning := range choice.Warnings {
		if !m.warned[warning] {
			m.warned[warning] = true
			l.say(j, m, Event{Kind: Warned, Point: -1, Reason: warning})
		}
	}
	take := make([]int, len(choice.Take))
	for i, id := range choice.Take {
		take[i] = m.places[id]
	}
	fresh := len(take) > 0 && !slices.Contains(m.pinned, take[0])
	if fresh {
		take = l.admitted(j, m, take)
	}
	if len(take) == 0 || fresh || m.begun && take[0] != m.pinned[0] {
		m.drop()
	}
	if len(take) == 0 {
		m.waits = false
		return false
	}
	if !j.history.Running {
		j.history.Asked = l.now()
		if l.decide(j); !j.history.Running {
			return false
		}
	}
	if !l.open(j.Window, l.now()) {
		if !m.waits {
			m.waits = true
			l.say(j, m, Event{Kind: WaitsForWindow, Point: -1})
		}
		return false
	}
	if m.pinned = take; fresh {
		m.turn = j.turn
	}
	return l.begin(j, m, choice.Reason)
}

// drop gives up what was to be copied. What has been moved of it is in the target.
func (m *machine) drop() {
	if m.begun {
		m.spare = max(m.spare, float64(m.moves(m.pinned[0], m.held, m.sums))-m.left)
	}
	m.pinned, m.begun = nil, false
}

// begin sends the first of the pinned points, or goes on with it.
func (l *life) begin(j *job, m *machine, reason string) (changed bool) {
	first := m.pinned[0]
	switch {
	case !m.begun:
		m.begun = true
		m.left = max(0, float64(m.moves(first, m.held, m.sums))-m.spare)
		l.say(j, m, Event{Kind: Copies, Point: first, Reason: reason})
		changed = true
	case m.waits:
		l.say(j, m, Event{Kind: GoesOn, Point: first})
		changed = true
	}
	m.waits = false
	return changed
}

// shown is what a lookup knows of the machine.
func (m *machine) shown(l *life) policy.Machine {
	for m.to < len(m.Points) && !m.Points[m.to].Created.After(l.t) {
		m.to++
	}
	for m.from < m.to && !m.Points[m.from].Gone.IsZero() && !l.t.Before(m.Points[m.from].Gone) {
		m.from++
	}
	shown := policy.Machine{Has: func(id backup.PointID) bool { return m.had[id] }, Oldest: m.oldest, Newest: m.newest, Stored: m.done}
	if len(m.again) > 0 {
		shown.GaveUp = func(id backup.PointID) bool { return m.again[id] }
	}
	m.listed = m.listed[:0]
	for _, p := range m.Points[m.from:m.to] {
		if one, ok := p.at(l.t); ok {
			if one.State == backup.StateLocked {
				one.Grew = m.sighted(one, l.now())
			}
			m.listed = append(m.listed, one)
		}
	}
	shown.Points = m.listed
	for _, place := range m.pinned {
		shown.Pinned = append(shown.Pinned, m.Points[place].ID)
	}
	return shown
}

// sighted is since when a locked point was seen as it is.
func (m *machine) sighted(p policy.SourcePoint, now time.Time) time.Time {
	seen, known := m.locks[p.ID]
	if !known || !seen.grew.Equal(p.Grew) || seen.since.After(now) {
		seen = sighting{p.Grew, now}
		m.locks[p.ID] = seen
	}
	return seen.since
}

func (l *life) say(j *job, m *machine, e Event) {
	e.At, e.Job, e.Machine = l.t, j.Name, m.Name
	l.tell(e)
}

// active are the machines whose points are on their way, and how many bytes of each move in a second.
func (l *life) active(j *job) (moving []*machine, each float64) {
	if l.down(l.t) || j.offline(l.t) {
		return nil, 0
	}
	for _, m := range j.machines {
		if m.begun && !m.waits {
			moving = append(moving, m)
		}
	}
	rate := j.carries(l.t)
	if limit := l.limit(j.Bandwidth, l.now()); limit > 0 {
		rate = min(rate, limit)
	}
	return moving, float64(rate) / float64(max(1, len(moving)))
}

// next is the next instant at which something may happen.
func (l *life) next() time.Time {
	next := l.To
	consider := func(t time.Time) {
		if t.After(l.t) && t.Before(next) {
			next = t
		}
	}
	for len(l.edges) > 0 && !l.edges[0].After(l.t) {
		l.edges = l.edges[1:]
	}
	if len(l.edges) > 0 {
		consider(l.edges[0])
	}
	if l.down(l.t) {
		return next
	}
	ahead := l.ahead(l.t)
	for _, j := range l.jobs {
		consider(j.look.Add(-ahead))
		moving, each := l.active(j)
		for _, m := range moving {
			if each <= 0 {
				continue // the link carries nothing
			}
			consider(l.t.Add(time.Duration(max(1, math.Ceil(m.left/each-1e-6))) * time.Second))
		}
		busy := len(moving) > 0
		for _, m := range j.machines {
			busy = busy || m.waits
			consider(m.look.Add(-ahead))
		}
		if !busy {
			continue
		}
		for _, change := range []func(time.Time) (time.Time, bool){j.Window.Change, j.Bandwidth.Change} {
			if at, ok := change(l.now()); ok {
				consider(at.Add(-ahead))
			}
		}
	}
	return next
}

// advance moves on to an instant, and bytes with it.
func (l *life) advance(to time.Time) {
	for _, j := range l.jobs {
		moving, each := l.active(j)
		for _, m := range moving {
			if m.left -= each * to.Sub(l.t).Seconds(); m.left < 1 {
				m.left = 0
			}
		}
	}
	l.t = to
}
