package status

import (
	"context"
	"fmt"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

const (
	// soonest is how long a job's first session must have copied before it says how fast that goes.
	soonest = time.Minute
	// longest is the longest time that is told: whatever takes longer is never done.
	longest = 10 * 365 * 24 * time.Hour
	week    = 7 * 24 * time.Hour
)

// backlog is what a job has still to copy.
type backlog struct{ points, bytes int64 }

// add adds what the next interval takes of a machine: of mode immediate every newer point, else the newest, and at a machine's first
// time the newest, with as many before it as backfill says.
func (b *backlog) add(j policy.Job, lag catalog.Lag, first bool) {
	points := int64(1)
	switch backfill := int64(j.Lookup.Backfill); {
	case first && j.Lookup.Backfill == policy.BackfillAll, !first && j.Schedule.Mode == policy.Immediate:
		points = lag.Points
	case first:
		points += backfill
	}
	points = min(points, lag.Points)
	bytes := lag.Newest
	if older := lag.Points - 1; older > 0 { // one is as large as another
		bytes += int64(float64(lag.Bytes-lag.Newest) * float64(points-1) / float64(older))
	}
	b.points += points
	b.bytes += bytes
}

// lag says what a job has still to copy, and how long that takes. newer is what its sources were found to have; nil: that is not
// known. While a session copies, what that one has left counts: it has looked since.
func (l *looker) lag(ctx context.Context, j policy.Job, p past, newer *backlog) (*api.Lag, error) {
	lag := &api.Lag{Points: api.Unknown, Bytes: api.Unknown, Rate: p.rate(), CatchUp: api.Unknown, Limit: int64(l.allowed(j) / time.Second)}
	if newer != nil {
		lag.Points, lag.Bytes = newer.points, newer.bytes
	}
	live, runs := l.live[j.Name]
	if runs {
		left, err := l.catalog.Status.Left(ctx, live.ID)
		if err != nil {
			return nil, err
		}
		if left.Planned {
			lag.Points, lag.Bytes = left.Points, left.Bytes
		}
		if lag.Rate == api.Unknown {
			lag.Rate = l.paceSoFar(j.Window, waitKind(live.Wait), left.Begun)
		}
	}
	switch {
	case lag.Points == 0:
		lag.CatchUp = 0
	case lag.Points > 0 && lag.Rate > 0:
		from := l.now
		if next := l.states[j.Name].Next; !runs && next.After(from) {
			from = next
		}
		if opens, ever := j.Window.Change(from); ever && !j.Window.Open(from) { // it falls behind by what it copies, not by what it may not
			from = opens
		}
		took := min(float64(lag.Bytes)/float64(lag.Rate), longest.Seconds())
		lag.CatchUp = int64(through(j.Window, from, time.Duration(took*float64(time.Second))) / time.Second)
	}
	return lag, nil
}

// paceSoFar is how many bytes of points a second a session has copied while the window was open and at least one copy was under
// way; api.Unknown before it has for a minute. A copy that waits for anything but the window is left out, with what it has done:
// nothing says since when it waits.
func (l *looker) paceSoFar(w policy.Window, waits job.WaitKind, begun []catalog.Begun) int64 {
	var done int64
	var spent time.Duration
	var counted time.Time // all before it is
	for _, b := range begun {
		if b.State == catalog.TaskWaiting && waits != job.WaitWindow {
			continue
		}
		from, to := b.From, b.Ended
		if to.IsZero() {
			to = l.now
		}
		if from.Before(counted) {
			from = counted
		}
		if to.After(from) {
			spent += openIn(w, from, to.Sub(from))
			counted = to
		}
		done += b.Done
	}
	if spent < soonest || done == 0 {
		return api.Unknown
	}
	return perSecond(done, spent)
}

// through is how long it takes from a time on until a window was open for so long, and longest at most. Whole weeks are not walked
// through: each is as the first.
func through(w policy.Window, from time.Time, left time.Duration) time.Duration {
	each := openIn(w, from, week)
	if each == 0 || left/each > longest/week {
		return longest
	}
	at := from.Add(left / each * week)
	left %= each
	for {
		next, changes := w.Change(at)
		switch open := w.Open(at); {
		case open && (!changes || next.Sub(at) >= left):
			return min(longest, at.Add(left).Sub(from))
		case !changes:
			return longest
		case open:
			left -= next.Sub(at)
		}
		at = next
	}
}

// openIn is how long a window is open within a time from an instant on.
func openIn(w policy.Window, from time.Time, within time.Duration) (open time.Duration) {
	for at, end := from, from.Add(within); at.Before(end); {
		next, changes := w.Change(at)
		if !changes || next.After(end) {
			next = end
		}
		if w.Open(at) {
			open += next.Sub(at)
		}
		at = next
	}
	return open
}

// rate is how many bytes of points a second the last sessions copied, while they did; api.Unknown if none did.
func (p past) rate() int64 {
	if p.copying == 0 || p.copied == 0 {
		return api.Unknown
	}
	return perSecond(p.copied, p.copying)
}

func perSecond(bytes int64, d time.Duration) int64 {
	return max(1, int64(float64(bytes)/d.Seconds()))
}

// allowed is how long it may take to catch up: until the next interval begins, and no longer than rpo; 0: as long as it takes.
func (l *looker) allowed(j policy.Job) time.Duration {
	allowed := j.RPO
	if intervals := j.Schedule.From(l.states[j.Name].Start); intervals.Periodic() {
		next := intervals.Next(l.now)
		if length := intervals.Next(next).Sub(next); length > 0 && (allowed == 0 || length < allowed) {
			allowed = length
		}
	}
	return allowed
}

// judgeLag raises an alarm if a job that is switched on takes longer to catch up than it may. It is known since the session that
// copies looked at the sources, or since the last has ended that did.
func (l *looker) judgeLag(j policy.Job, p past, lag *api.Lag) {
	state := l.states[j.Name]
	if switchedOff := !state.Enabled && !state.Start.IsZero(); switchedOff || lag.Limit == 0 || lag.CatchUp <= lag.Limit {
		return
	}
	since := l.now
	if live, runs := l.live[j.Name]; runs {
		since = live.Started
	} else if p.listed != nil {
		since = p.listed.Ended
	}
	l.alarm(warning, api.Alarm{Kind: "lag", Job: j.Name, Since: since.UTC(), Text: fmt.Sprintf(
		"at the pace of its sessions it takes %s to copy what is still to copy, longer than %s, which its %s allows",
		inWords(lag.CatchUp), policy.FormatDuration(time.Duration(lag.Limit)*time.Second), limitedBy(j, lag),
	)})
}

// limitedBy is the setting that a job's limit is by.
func limitedBy(j policy.Job, lag *api.Lag) string {
	if time.Duration(lag.Limit)*time.Second == j.RPO {
		return "rpo"
	}
	return "schedule"
}

// inWords is a length of time as an estimate has it: to the minute, hour or day.
func inWords(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	switch {
	case d >= longest:
		return "more than ten years"
	case d < 2*time.Hour:
		return "about " + policy.FormatDuration(max(time.Minute, d.Round(time.Minute)))
	case d >= 72*time.Hour:
		return "about " + policy.FormatDuration(d.Round(24*time.Hour))
	}
	return "about " + policy.FormatDuration(d.Round(time.Hour))
}
