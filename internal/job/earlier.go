package job

import (
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
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
