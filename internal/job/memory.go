package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// memory is what a session goes by of those before it. It lies in the target, with the job's description. Without it a job
// does more than it must: it checks and compacts again, and takes longer to believe that a machine has gone.
type memory struct {
	// Started is when the job first ran: its intervals count from there. While the clock is before that, one of the two is
	// wrong, and they count from Instead, when that was first so.
	Started time.Time `json:"started"`
	Instead time.Time `json:"instead,omitzero"`
	// Checked, Compacted and Full are when that was last begun by its schedule, and CheckCut is true if the last check used its
	// budget up and goes on with the next session. Owed are the ids of machines that the last turn of reading whole has not
	// read yet.
	Checked   time.Time `json:"checked,omitzero"`
	CheckCut  bool      `json:"checkCut,omitempty"`
	Compacted time.Time `json:"compacted,omitzero"`
	Full      time.Time `json:"full,omitzero"`
	Owed      []string  `json:"owed,omitempty"`
	Reclaimed time.Time `json:"reclaimed,omitzero"`
	// Unreclaimed is true if points were removed since, and giving their space back did not come to its end, or if the next run deletes
	// what was given up.
	Unreclaimed bool `json:"unreclaimed,omitempty"`
	// Missing says by the machine's id since when no source has it. Listed are where the sources lay that were listed last; none: not all
	// that they have was.
	Missing map[string]time.Time `json:"missing,omitempty"`
	Listed  []string             `json:"listed,omitempty"`
	// Retired says by the machine's id what a person has said last of whether it has gone for good.
	Retired map[string]backup.Retirement `json:"retired,omitempty"`
	// Took says by the machine's id what its last copy that was not read whole took in the target, in bytes.
	Took map[string]int64 `json:"took,omitempty"`
	// Backfill says by the machine's id of when the points are that a session chose together and that are not all held yet;
	// Begun are those that it chose alone, as far as the job does not hold them.
	Backfill map[string]span  `json:"backfill,omitempty"`
	Begun    []backup.PointID `json:"begun,omitempty"`
	// Selected are as it was last selected each machine of which the job has no point.
	Selected []backup.Machine `json:"selected,omitempty"`
	// Skipped are the ids of machines of which the last copies were to be some and came to nothing, in the order in which they begin first
	// the next time.
	Skipped []string `json:"skipped,omitempty"`
	// Locked are the locked points of the sources, and since when they have not grown.
	Locked map[string]sighting `json:"locked,omitempty"`
	// Turns are by the machine's id the last intervals that took points of it.
	Turns map[string][]policy.Turn `json:"turns,omitempty"`
}

// recall reads the memory from the target.
func (r *runner) recall(ctx context.Context) error {
	records, unreadable, err := r.target.Jobs(ctx, r.Job.Name)
	if err != nil {
		return err
	}
	for _, problem := range unreadable {
		r.warnOnce(fmt.Sprintf("what the last session left in the target cannot be read: %v", problem))
	}
	if len(records) == 1 && json.Unmarshal(records[0].Memory, &r.memory) != nil {
		r.memory = memory{}
	}
	for _, id := range r.memory.Begun {
		r.earlier[id] = true
	}
	r.earlierFill = maps.Clone(r.memory.Backfill)
	r.Host.Locks.recall(r.memory.Locked)
	now := r.Now()
	switch {
	case r.memory.Started.IsZero():
		r.memory.Started = now.UTC()
	case !r.memory.Started.After(now):
		r.memory.Instead = time.Time{}
	case r.memory.Instead.IsZero() || r.memory.Instead.After(now):
		r.memory.Instead = now.UTC()
	}
	return nil
}

// note notes what a machine's copy took.
func (m *memory) note(machine backup.MachineKey, stored int64) {
	if m.Took == nil {
		m.Took = map[string]int64{}
	}
	m.Took[machine.String()] = stored
}

// started is when the job's intervals count from.
func (m memory) started() time.Time {
	if m.Instead.IsZero() {
		return m.Started
	}
	return m.Instead
}

// remember leaves the job's description and memory in the target.
func (r *runner) remember(ctx context.Context) error {
	r.memory.Begun = r.unfinished(r.memory.Begun)
	r.memory.Locked = r.Host.Locks.all()
	r.rememberRetired(ctx)
	record := repo.JobRecord{Job: r.Job.Name, Document: r.Document, Needed: r.Needed}
	left := r.memory
	// What is missed least goes first: nothing is told of machines that are always behind, or drop out before they were copied; who had
	// no turn is not the first; a lock that was left is waited for anew; a copy that was killed begins anew; it takes longer to believe
	// that a machine has gone. What a person has said goes last.
	for _, shorten := range []func(){
		func() {}, func() { left.Turns, left.Skipped = nil, nil }, func() { left.Selected = nil }, func() { left.Locked = nil }, func() { left.Took = nil }, func() { left.Begun = nil }, func() { left.Missing, left.Listed = nil, nil }, func() { left.Owed = nil },
		func() { left = memory{Started: left.Started, Instead: left.Instead, Retired: left.Retired} },
		func() { left.Retired = nil },
		func() { record.Needed = nil },
		func() { record.Document = "" },
	} {
		shorten()
		var err error
		if record.Memory, err = json.Marshal(left); err != nil {
			return err
		}
		if err = r.target.WriteJob(ctx, record); !errors.Is(err, repo.ErrRecordTooLarge) {
			return err
		}
		r.warnOnce("what the job leaves in the target is too large, and only a part of it is there: the next session does more than it must")
	}
	return nil
}

// choose notes what is about to be copied, so that it is finished whatever comes between.
func (r *runner) choose(steps []plan.IntervalStep) {
	of := map[backup.MachineKey]int{}
	for _, step := range steps {
		if !step.Again {
			of[step.Point.Machine.Key]++
		}
	}
	fill := map[string]span{}
	for _, step := range steps {
		r.chosen[step.Point.ID] = true
		if step.Again { // it is chosen again until it is there, and keeps nothing newer waiting
			continue
		}
		machine := step.Point.Machine.Key
		if _, begun := r.memory.Backfill[machine.String()]; of[machine] > 1 || begun {
			fill[machine.String()] = fill[machine.String()].with(step.Point.Created)
		} else {
			r.memory.Begun = append(r.memory.Begun, step.Point.ID)
		}
	}
	if r.memory.Backfill == nil {
		r.memory.Backfill = map[string]span{}
	}
	maps.Copy(r.memory.Backfill, fill)
}

// span is a time with both its ends.
type span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

func (s span) with(at time.Time) span {
	if s.From.IsZero() || at.Before(s.From) {
		s.From = at.UTC()
	}
	if at.After(s.To) {
		s.To = at.UTC()
	}
	return s
}

func (s span) has(at time.Time) bool { return !at.Before(s.From) && !at.After(s.To) }

// endBackfills ends the backfill of machines of which nothing is to be copied any more: all of it is held, or what is not
// has gone, cannot be copied or would not be kept. It returns true if there were any, which can be looked up anew then.
func (r *runner) endBackfills(p plan.IntervalPlan, todo []plan.IntervalStep) bool {
	going := map[backup.MachineKey]bool{}
	for _, step := range todo {
		going[step.Point.Machine.Key] = true
	}
	before := len(r.memory.Backfill)
	for _, m := range p.Machines {
		if key := m.Machine.Key; m.Selected && m.Missing.IsZero() && !going[key] && r.doubt == "" {
			delete(r.memory.Backfill, key.String())
		}
	}
	return len(r.memory.Backfill) < before
}

// unfinished are those of the points that the job does not hold, each once, without those that cannot be copied.
func (r *runner) unfinished(points []backup.PointID) []backup.PointID {
	var left []backup.PointID
	seen := map[backup.PointID]bool{}
	for _, id := range points {
		if _, mine := r.claim(id); !seen[id] && !mine && r.attempts[id] < maxAttempts {
			seen[id] = true
			left = append(left, id)
		}
	}
	return left
}

// pinned are the points that are to be finished before the lookup chooses anew: those that earlier sessions chose, if part of
// them is stored or they are of several, and those that this session chose.
func (r *runner) pinned() map[backup.PointID]bool {
	pinned, stored := map[backup.PointID]bool{}, map[backup.PointID]bool{}
	for _, id := range r.target.Unfinished() {
		stored[id] = true
	}
	for _, o := range r.offers {
		if fill, begun := r.memory.Backfill[r.backupOf(o.Machine.Key).String()]; begun && fill.has(o.Created) {
			pinned[o.ID] = r.attempts[o.ID] < maxAttempts
		}
	}
	for _, id := range r.memory.Begun {
		pinned[id] = r.attempts[id] < maxAttempts && (stored[id] || r.chosen[id])
	}
	return pinned
}

// noteMissing takes over what a plan says of machines that are in no source, and forgets those that neither side has.
func (r *runner) noteMissing(p plan.IntervalPlan) {
	if r.doubt != "" { // nothing is known of what has gone, but what is there is
		for _, o := range r.offers {
			delete(r.memory.Missing, r.backupOf(o.Machine.Key).String())
		}
		return
	}
	there := map[string]bool{}
	missing := map[string]time.Time{}
	for _, m := range p.Machines {
		key := m.Machine.Key.String()
		there[key] = true
		if !m.Missing.IsZero() {
			missing[key] = m.Missing.UTC()
		}
	}
	r.memory.Missing = missing
	maps.DeleteFunc(r.memory.Turns, func(key string, _ []policy.Turn) bool { return !there[key] })
	maps.DeleteFunc(r.memory.Took, func(key string, _ int64) bool { return !there[key] })
	maps.DeleteFunc(r.memory.Retired, func(key string, known backup.Retirement) bool { return known.Since.IsZero() && !there[key] })
}

// noteTurn notes that the interval has taken a point which the lookup chose. One that is read whole was there before.
func (r *runner) noteTurn(step plan.IntervalStep) {
	if !r.Job.Schedule.From(r.memory.started()).Periodic() || r.isWhole(step) {
		return
	}
	if r.memory.Turns == nil {
		r.memory.Turns = map[string][]policy.Turn{}
	}
	key := step.Point.Machine.Key.String()
	r.memory.Turns[key] = policy.AddTurn(r.memory.Turns[key], policy.Turn{Began: r.session.Nominal, Taken: step.Point.Created.UTC()})
}

// due is true if a turn of a schedule has come since the last one, or since the job first ran.
func (r *runner) due(schedule policy.Schedule, last time.Time) bool {
	intervals := schedule.From(r.memory.started())
	if !intervals.Periodic() {
		return false
	}
	if last.IsZero() || last.After(r.Now()) { // by a clock that is wrong, or was
		last = r.memory.started()
	}
	return !intervals.Next(last).After(r.Now())
}

// claim is the job's claim on a point.
func (r *runner) claim(id backup.PointID) (plan.Claim, bool) {
	return ClaimOf(r.target, r.Job.Name, id)
}

// ClaimOf is a job's claim on a point of a repository, and false if it has none.
func ClaimOf(repository *repo.Repository, job string, id backup.PointID) (plan.Claim, bool) {
	for _, claim := range repository.Claims(id) {
		if claim.Job == job {
			return plan.Claim{Flags: claim.Flags, Flagged: len(claim.Flags) > 0}, true
		}
	}
	return plan.Claim{}, false
}
