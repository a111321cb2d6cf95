package job

import (
	"context"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/plan"
)

// Reading whole from the source by a schedule. A turn concerns the machines of which the job holds points when it comes: what
// is copied for the first time is read whole anyway. Each of them owes its turn until its whole read is committed, however
// many sessions that takes, and the others have nothing to do with that.

// noteWhole adds the machines whose newest point is to be read whole: all if a person asked for that, else those that owe a
// turn. One that was read stays among them until the session ends, so that it is not planned as another copy.
func (r *runner) noteWhole(held []plan.Held) {
	r.claimed = map[backup.MachineKey]bool{}
	due := r.due(r.Job.FullFromSource, r.memory.Full)
	owed := map[string]bool{}
	for _, id := range r.memory.Owed {
		owed[id] = true
	}
	for _, h := range held {
		if h.Claimed {
			key := r.backupOf(h.Machine.Key)
			r.claimed[key] = true
			r.whole[key] = r.whole[key] || due || owed[key.String()]
		}
	}
}

// beginTurn begins a turn that is due.
func (r *runner) beginTurn() {
	if !r.due(r.Job.FullFromSource, r.memory.Full) {
		return
	}
	r.memory.Full, r.memory.Owed = r.session.Began, nil
	for key := range r.claimed {
		r.memory.Owed = append(r.memory.Owed, key.String())
	}
	slices.Sort(r.memory.Owed)
}

// isWhole is true for a copy that reads its point whole.
func (r *runner) isWhole(step plan.IntervalStep) bool {
	return r.Full || r.whole[step.Point.Machine.Key]
}

// wholeBegun are the points whose whole read was interrupted and goes on, before newer ones. One that is finished stays among
// them until the session ends: its machine has had its turn then, and no newer point of it is read whole too.
func (r *runner) wholeBegun(ctx context.Context) (map[backup.PointID]bool, error) {
	unfinished, err := r.target.UnfinishedWhole(ctx)
	for _, id := range unfinished {
		r.begunWhole[id] = true
	}
	first := map[backup.PointID]bool{}
	for id := range r.begunWhole {
		first[id] = r.attempts[id] < maxAttempts
	}
	return first, err
}
