// Package simulate lives jobs through time: a small world of sources that make points, of links, and of a server with a clock
// in which the rules of package policy decide what happens. It does no I/O and asks no clock; the same world always comes to
// the same end. It shows what a job will keep, and is how the rules are tested over a year.
//
// Left out of the world are failures of transfers, scripts, health checks, and limits other than those of each job itself.
package simulate

import (
	"cmp"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// World is what happens to jobs, whatever they do.
type World struct {
	From, To time.Time
	Jobs     []Job
	// Down are the times in which the server does not run.
	Down []Span
	// Clock are the times in which the server's clock is wrong.
	Clock []Skew
}

// Span is a time from one instant until another.
type Span struct{ From, To time.Time }

func (s Span) has(t time.Time) bool { return !t.Before(s.From) && t.Before(s.To) }

// Skew is how far a clock is ahead for a time; less than nothing is behind.
type Skew struct {
	Span
	Ahead time.Duration
}

// Job is a job and what lies between its sources and its target.
type Job struct {
	Name string
	// Enabled is when it was first enabled.
	Enabled   time.Time
	Schedule  policy.Schedule
	Lookup    policy.Lookup
	Window    policy.Window
	Bandwidth policy.Bandwidth
	// Retention of machines that have none of their own.
	Retention policy.Retention
	// Link is what the way to the target carries. Transfers of the job share it equally.
	Link policy.Rate
	// Slow are times in which it carries less.
	Slow []Slow
	// Offline are the times in which the sources cannot be reached.
	Offline  []Span
	Machines []Machine
}

// Slow is a time in which a link carries less.
type Slow struct {
	Span
	Rate policy.Rate
}

// Machine is a machine and all the points of it that there will ever be, by their time of creation.
type Machine struct {
	Name string
	// Whole is what the first copy moves, in bytes. No copy moves more.
	Whole  int64
	Points []Point
	// Retention replaces the job's, if not nil.
	Retention *policy.Retention
	// Purge is from when the job removes all that it has of the machine, once it has a point of another machine that is as new;
	// zero is never.
	Purge time.Time
}

// Point is a point, and what becomes of it in its source.
type Point struct {
	ID      backup.PointID
	Created time.Time
	// Complete is when its maker has let go of it; zero if never. Until then it is locked.
	Complete time.Time
	// Grew is when it last grew, if never complete.
	Grew time.Time
	// Gone is when the source loses it; zero if never.
	Gone time.Time
	// Broken: it can never be read.
	Broken bool
	// Changed is how many bytes differ from the point before it.
	Changed int64
	// Held: the job holds it when the world begins; Forgotten: it has given it up before; Again: it has, and its rules would keep it now.
	Held, Forgotten, Again bool
	// Flags are the slots that a held point was given when it was stored; Flagged says that this was decided then.
	Flags   []string
	Flagged bool
}

// Kind is what kind of event it is.
type Kind string

// The kinds of events.
const (
	// Interval: one begins. Begins is the nominal start, Missed what got none.
	Interval Kind = "interval"
	// Copies: the copy of a point begins.
	Copies Kind = "copies"
	// WaitsForWindow: something is to be copied, and the window is closed.
	WaitsForWindow Kind = "waits for the window"
	// GoesOn: a copy that waited for the window goes on.
	GoesOn Kind = "goes on"
	// Stored: a point is in the target.
	Stored Kind = "stored"
	// Removed: the job has given a point up.
	Removed Kind = "removed"
	// Skipped: a point is not copied, because retention would remove it at once.
	Skipped Kind = "skipped"
	// GotNothing: an interval ended without a point of the machine.
	GotNothing Kind = "got nothing"
	// Warned: a person should know; Reason says what.
	Warned Kind = "warned"
)

// Event is something that happens to a job.
type Event struct {
	At           time.Time
	Job, Machine string
	Kind         Kind
	// Point is that of the event, by its place in the machine's list; -1 if it is about none.
	Point int
	// Begins and Missed of an Interval.
	Begins time.Time
	Missed policy.Missed
	Reason string
	// Size is what the machine's points need in the target from now on, in bytes (Stored, Removed).
	Size int64
}

// rules are what decides. Tests put wrong ones in their place, to see that it is noticed.
type rules struct {
	due    func(policy.Schedule, policy.History, time.Time) policy.Decision
	choose func(policy.Lookup, policy.Mode, policy.Machine, policy.Interval, time.Time) policy.Choice
	open   func(policy.Window, time.Time) bool
	limit  func(policy.Bandwidth, time.Time) policy.Rate
	admit  func(r policy.Retention, held, coming []policy.Candidate, now time.Time) []policy.Verdict
	keep   func(policy.Retention, []policy.Candidate, time.Time) []policy.Verdict
}

func decided() rules {
	return rules{
		due: policy.Schedule.Due, choose: policy.Lookup.Choose, open: policy.Window.Open, limit: policy.Bandwidth.LimitAt,
		admit: policy.Retention.Admit, keep: policy.Retention.Decide,
	}
}

// edges are the instants at which the world changes by itself.
func (w World) edges() []time.Time {
	var edges []time.Time
	add := func(times ...time.Time) {
		for _, t := range times {
			if t.After(w.From) && t.Before(w.To) {
				edges = append(edges, t)
			}
		}
	}
	for _, s := range w.Down {
		add(s.From, s.To)
	}
	for _, s := range w.Clock {
		add(s.From, s.To)
	}
	for _, j := range w.Jobs {
		add(j.Enabled)
		for _, s := range j.Slow {
			add(s.From, s.To)
		}
		for _, s := range j.Offline {
			add(s.From, s.To)
		}
		for _, m := range j.Machines {
			for _, p := range m.Points {
				add(p.Created, p.Complete, p.Grew, p.Gone)
			}
		}
	}
	slices.SortFunc(edges, time.Time.Compare)
	return slices.CompactFunc(edges, time.Time.Equal)
}

// ahead is how far the server's clock is ahead at a time.
func (w World) ahead(t time.Time) time.Duration {
	for _, s := range w.Clock {
		if s.has(t) {
			return s.Ahead
		}
	}
	return 0
}

func (w World) down(t time.Time) bool {
	return slices.ContainsFunc(w.Down, func(s Span) bool { return s.has(t) })
}

func (j Job) retentionOf(m Machine) policy.Retention {
	if m.Retention != nil {
		return *m.Retention
	}
	return j.Retention
}

func (j Job) offline(t time.Time) bool {
	return slices.ContainsFunc(j.Offline, func(s Span) bool { return s.has(t) })
}

// carries is what the job's link carries at a time.
func (j Job) carries(t time.Time) policy.Rate {
	rate := j.Link
	for _, s := range j.Slow {
		if s.has(t) {
			rate = min(rate, s.Rate)
		}
	}
	return rate
}

// at is the point as its source shows it at a time; of a locked one, when it had grown by then. ok is false if it does not show it.
func (p Point) at(t time.Time) (shown policy.SourcePoint, ok bool) {
	if p.Created.After(t) || !p.Gone.IsZero() && !t.Before(p.Gone) {
		return policy.SourcePoint{}, false
	}
	shown = policy.SourcePoint{ID: p.ID, Created: p.Created, State: backup.StateComplete}
	switch {
	case p.Broken:
		shown.State = backup.StateBroken
	case p.Complete.IsZero() || t.Before(p.Complete):
		shown.State, shown.Grew = backup.StateLocked, t
		if p.Complete.IsZero() && p.Grew.Before(t) {
			shown.Grew = p.Grew
		}
	}
	return shown, true
}

// size is what points need in the target: the newest whole, and of each older one what the next held has changed.
func (m Machine) size(held []int, sums []int64) int64 {
	if len(held) == 0 {
		return 0
	}
	size := m.Whole
	for n := 1; n < len(held); n++ {
		size += min(sums[held[n]]-sums[held[n-1]], m.Whole)
	}
	return size
}

// moves is what a copy of a point moves, given those that are held: what differs from the closest.
func (m Machine) moves(point int, held []int, sums []int64) int64 {
	least := m.Whole
	for _, h := range held {
		least = min(least, max(sums[point]-sums[h], sums[h]-sums[point]))
	}
	return least
}

// byTime sorts candidates' places by their time of creation.
func byTime(points []Point) func(a, b int) int {
	return func(a, b int) int { return cmp.Or(points[a].Created.Compare(points[b].Created), cmp.Compare(a, b)) }
}
