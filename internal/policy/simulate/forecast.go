package simulate

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Known is what is known today of a machine whose future is asked for.
type Known struct {
	// Name of the machine, unlike all others.
	Name string
	// Points of its sources and of its backup in the target, in any order.
	Points []KnownPoint
	// Whole is what a first copy adds to the target, Changed what a point differs from the one before it, in bytes.
	Whole, Changed int64
	// Retention replaces the job's, if not nil.
	Retention *policy.Retention
	// Retired is true for a machine that has gone for good, and Purge from when all that the job has of it is removed; zero is never.
	Retired bool
	Purge   time.Time
}

// KnownPoint is a point that there is today.
type KnownPoint struct {
	ID      backup.PointID
	Created time.Time
	State   backup.State
	// Source is true if a source shows it, Held if the job holds it, and Forgotten if it has given it up; Again if it has, and takes
	// it again.
	Source, Held, Forgotten, Again bool
	// Flags are the slots that were decided when it was stored; Flagged says that they were.
	Flags   []string
	Flagged bool
}

// Rhythm is how a source makes a machine's points.
type Rhythm struct {
	// Week repeats the points of the last seven days, by the clock of a zone. Otherwise there is one every Gap of elapsed
	// time, or every Days days at the clock time of the newest.
	Week []time.Time
	Gap  time.Duration
	Days int
}

const (
	// rhythmPoints is of how many of the newest points a gap is the middle one.
	rhythmPoints = 15
	// nearlyDays is how far a gap may be from whole days and still be meant as such.
	nearlyDays = 2 * time.Hour
)

// FindRhythm says how points that were created at these times go on. ok is false for fewer than two.
//
//  1. Two weeks with the same number of points: the last one is repeated, so that free weekends stay free.
//  2. Else the middle one of the newest gaps counts. If it is nearly whole days, it is days by the clock.
func FindRhythm(created []time.Time, zone *time.Location) (r Rhythm, ok bool) {
	if len(created) < 2 {
		return Rhythm{}, false
	}
	created = slices.SortedFunc(slices.Values(created), time.Time.Compare)
	newest := created[len(created)-1].In(zone)
	week := func(n int) []time.Time {
		from, to := newest.AddDate(0, 0, -7*(n+1)), newest.AddDate(0, 0, -7*n)
		return slices.DeleteFunc(slices.Clone(created), func(t time.Time) bool { return !t.After(from) || t.After(to) })
	}
	if last, before := week(0), week(1); len(last) > 1 && len(last) == len(before) && !created[0].After(newest.AddDate(0, 0, -13)) {
		return Rhythm{Week: last}, true
	}
	var gaps []time.Duration
	for i := max(1, len(created)-rhythmPoints); i < len(created); i++ {
		gaps = append(gaps, created[i].Sub(created[i-1]))
	}
	slices.Sort(gaps)
	r.Gap = max(gaps[len(gaps)/2], time.Minute)
	if days := (r.Gap + 12*time.Hour) / (24 * time.Hour); days > 0 && (r.Gap-days*24*time.Hour).Abs() <= nearlyDays {
		r.Days = int(days)
	}
	return r, true
}

// Next are the points that follow the newest, until a time.
func (r Rhythm) Next(newest, until time.Time, zone *time.Location) []time.Time {
	var next []time.Time
	newest = newest.In(zone)
	for n := 1; ; n++ {
		var coming []time.Time
		switch {
		case len(r.Week) > 0:
			for _, t := range r.Week {
				coming = append(coming, t.In(zone).AddDate(0, 0, 7*n))
			}
		case r.Days > 0:
			coming = []time.Time{newest.AddDate(0, 0, r.Days*n)}
		default:
			coming = []time.Time{newest.Add(time.Duration(n) * r.Gap)}
		}
		for _, t := range coming {
			if t.After(until) {
				return next
			}
			next = append(next, t.UTC())
		}
	}
}

// String is the rhythm in words.
func (r Rhythm) String() string {
	switch {
	case len(r.Week) > 0:
		return fmt.Sprintf("%d a week, as in the last", len(r.Week))
	case r.Days == 1:
		return "one a day"
	case r.Days > 0:
		return fmt.Sprintf("one every %d days", r.Days)
	}
	return "one every " + policy.FormatDuration(r.Gap.Round(time.Minute))
}

// longSilence is for how many gaps a source may be silent before nothing more is expected of it.
const longSilence = 4

// fewPoints are too few in a source to tell its rhythm, if the target has more.
const fewPoints = 4

// silent is true if a source that made points in a rhythm has stopped.
func (r Rhythm) silent(newest, now time.Time) bool {
	return now.Sub(newest) > max(8*24*time.Hour, longSilence*r.Gap)
}

// machine is the machine with the points that there are, and those that its source will make until a time if it goes on as it
// has. Points that are locked now are complete at once, and a source keeps as far back as it does today.
func (k Known) machine(now, until time.Time, zone *time.Location) (m Machine, expects string, made int) {
	m = Machine{Name: k.Name, Whole: k.Whole, Retention: k.Retention, Purge: k.Purge}
	var created []time.Time
	for _, p := range k.Points {
		point := Point{ID: p.ID, Created: p.Created, Complete: p.Created, Changed: k.Changed, Held: p.Held, Forgotten: p.Forgotten, Again: p.Again, Flags: p.Flags, Flagged: p.Flagged}
		point.Broken = p.State != backup.StateComplete && p.State != backup.StateLocked
		if point.Gone = p.Created; p.Source {
			point.Gone = time.Time{}
			created = append(created, p.Created)
		}
		m.Points = append(m.Points, point)
	}
	slices.SortStableFunc(m.Points, func(a, b Point) int { return a.Created.Compare(b.Created) })
	if k.Retired && len(created) == 0 {
		return m, "none: it is retired", 0
	}
	if len(created) < fewPoints {
		// Such as an image, which is written over. The newest in the target are not thinned out yet.
		created = nil
		for _, p := range m.Points[max(0, len(m.Points)-fewPoints):] {
			created = append(created, p.Created)
		}
	}
	rhythm, ok := FindRhythm(created, zone)
	if !ok {
		return m, "none: two points at least show a rhythm", 0
	}
	oldest, newest := slices.MinFunc(created, time.Time.Compare), m.Points[len(m.Points)-1].Created
	if rhythm.silent(newest, now) {
		return m, "none: the source has made none for " + policy.FormatDuration(now.Sub(newest).Truncate(24*time.Hour)), 0
	}
	life := max(newest.Sub(oldest), 8*24*time.Hour)
	for _, at := range rhythm.Next(newest, until, zone) {
		if !at.After(now) {
			continue // it has not come: the source is behind its rhythm
		}
		made++
		p := Point{Created: at, Complete: at, Gone: at.Add(life), Changed: k.Changed}
		binary.BigEndian.PutUint64(p.ID[:], uint64(made))
		m.Points = append(m.Points, p)
	}
	return m, rhythm.String(), made
}

// Future is what a job comes to.
type Future struct {
	Machines []FutureMachine
	// Days tell how it is at the end of each day.
	Days []FutureDay
}

// FutureMachine is what becomes of a machine.
type FutureMachine struct {
	Name string
	// Expects says in words which points the source is expected to make, Made how many those are.
	Expects string
	Made    int
	// Kept are the points in the target at the end, oldest first.
	Kept []KeptPoint
}

// KeptPoint is a point that is kept, with the reasons.
type KeptPoint struct {
	Created time.Time
	Reasons []string
}

// FutureDay is a day: what happened on it, and how it is at its end.
type FutureDay struct {
	// Ends is the last instant of the day that is looked at.
	Ends            time.Time
	Stored, Removed int
	Points          int
	// Size is what the points need in the target, in bytes.
	Size int64
}

// fastLink is what a link carries of which nothing is known: a second for a gigabyte holds up nobody.
const fastLink = policy.Rate(1e9)

// Foresee lives a job for some days from now, with machines whose sources go on as they have. Of the job, Machines and Enabled
// do not count; without a Link nothing but Bandwidth slows it down. A job after another one is taken to copy each point that
// comes, and a manual one copies nothing. Its days are those of the zone (nil: UTC).
func Foresee(job Job, known []Known, now time.Time, days int, zone *time.Location) Future {
	until := now.In(cmp.Or(zone, time.UTC)).AddDate(0, 0, days)
	job.Enabled, job.Machines = now, nil
	if job.Link == 0 {
		job.Link = fastLink
	}
	if job.Schedule.Mode == policy.After {
		job.Schedule.Mode, job.Schedule.After = policy.Immediate, ""
	}
	var future Future
	for _, k := range known {
		m, expects, made := k.machine(now, until, zone)
		job.Machines = append(job.Machines, m)
		future.Machines = append(future.Machines, FutureMachine{Name: k.Name, Expects: expects, Made: made})
	}
	sizes, points := map[string]int64{}, 0
	start := World{From: now, To: now, Jobs: []Job{job}}
	for _, m := range run(start, decided(), func(Event) {}).jobs[0].machines {
		sizes[m.Name], points = m.size(m.held, m.sums), points+len(m.held)
	}
	day := FutureDay{}
	next := now.In(zone)
	endDay := func() {
		day.Ends, day.Points, day.Size = next, points, 0
		for _, size := range sizes {
			day.Size += size
		}
		future.Days = append(future.Days, day)
		day = FutureDay{}
	}
	nextDay := func() time.Time {
		y, m, d := next.Date()
		return time.Date(y, m, d+1, 0, 0, 0, 0, zone)
	}
	end := run(World{From: now, To: until, Jobs: []Job{job}}, decided(), func(e Event) {
		for following := nextDay(); !e.At.Before(following); following = nextDay() {
			next = following
			endDay()
		}
		switch e.Kind {
		case Stored:
			day.Stored++
			points++
			sizes[e.Machine] = e.Size
		case Removed:
			day.Removed++
			points--
			sizes[e.Machine] = e.Size
		}
	})
	for following := nextDay(); following.Before(until); following = nextDay() {
		next = following
		endDay()
	}
	next = until
	endDay()
	for n, m := range end.jobs[0].machines {
		for i, v := range job.retentionOf(m.Machine).Decide(m.candidates(), until) {
			future.Machines[n].Kept = append(future.Machines[n].Kept, KeptPoint{m.Points[m.held[i]].Created, v.Reasons})
		}
	}
	return future
}
