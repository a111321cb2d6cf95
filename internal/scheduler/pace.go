package scheduler

import (
	"slices"
	"time"

	"ferry/internal/job"
)

// pace is what attempts to copy came to, and when each was under way.
type pace struct {
	bytes int64
	spans []span
}

type span struct{ from, to time.Time }

// add adds an attempt of a task that has come to its end: from when it began until all was read, or it failed. A commit that comes
// later takes no time of the source's.
func (p *pace) add(t *task, step job.StepReport, now time.Time) {
	at := span{t.row.Progress.Attempt, now}
	if step.Err == nil {
		at.to = at.from.Add(step.Result.Took)
	}
	if at.to.Before(at.from) { // the clock was set
		return
	}
	p.spans = append(p.spans, at)
	p.bytes += t.dealtWith(step.Err == nil)
}

// dealtWith is how many bytes of a point an attempt came to: all that were left when it began if it is done, else those that are kept
// for the next.
func (t *task) dealtWith(done bool) int64 {
	now := t.took()
	if done {
		return max(0, now.Total-t.row.Progress.Kept)
	}
	return max(0, now.Kept-t.row.Progress.Kept)
}

// spent is how long at least one attempt was under way: what was waited for in between, such as a window that was closed, is not in it.
func (p *pace) spent() (spent time.Duration) {
	slices.SortFunc(p.spans, func(a, b span) int { return a.from.Compare(b.from) })
	var until time.Time
	for _, s := range p.spans {
		if s.from.Before(until) {
			s.from = until
		}
		if s.to.After(s.from) {
			spent += s.to.Sub(s.from)
			until = s.to
		}
	}
	return spent
}
