package job

import (
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// EarlierCopy is a copy that a process planned for a session before it went, and what is known of it.
type EarlierCopy struct {
	PlannedCopy
	// Done: it was finished. Of one that was not, the target says whether it was stored all the same.
	Done     bool
	Attempts int
	// Read from the source and Written to the target, in bytes.
	Read, Written int64
	Took          time.Duration
}

// sinceBegan is true for points that were created since the interval began: no earlier one can have chosen them.
func (r *runner) sinceBegan(created time.Time) bool { return !created.Before(r.interval().Begins) }

// countEarlier notes of which machines earlier processes have stored a point in this session.
func (r *runner) countEarlier() {
	for _, e := range r.Host.Earlier {
		if _, mine := r.claim(e.Point); (e.Done || mine) && r.sinceBegan(e.Created) {
			r.stored[e.Machine.Key] = true
		}
	}
}

// hadTurn is true if the interval has taken a point of a machine, in this session or an earlier one.
func (r *runner) hadTurn(key backup.MachineKey) bool {
	began := r.interval().Begins
	return r.stored[key] || slices.ContainsFunc(r.memory.Turns[key.String()], func(t policy.Turn) bool { return t.Began.Equal(began) })
}

// reportEarlier adds to the tasks what earlier processes copied in this session.
func (r *runner) reportEarlier() {
	for _, e := range r.Host.Earlier {
		if !e.Done {
			if r.target == nil {
				continue
			}
			if _, mine := r.claim(e.Point); !mine {
				continue
			}
		}
		task, id := r.task(e.Machine), e.Point.String()
		if slices.ContainsFunc(task.Points, func(p TaskPoint) bool { return p.Point == id && p.Action == plan.ActionCopy }) {
			continue // it was copied again
		}
		created, _ := backup.BoundTime(e.Created)
		task.Points = append(task.Points, TaskPoint{
			Point: id, Created: created, Action: plan.ActionCopy, Outcome: OutcomeCopied, Reasons: []string{"copied before the session was taken up again"},
			Attempts: e.Attempts, ReadBytes: e.Read, StoredBytes: e.Written, Seconds: e.Took.Seconds(),
		})
		task.State, task.Reason = TaskCopied, ""
	}
}
