package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
)

const (
	// reclaimBudget is the longest that giving space back may take in one session.
	reclaimBudget = 2 * time.Hour
	// leastReclaim is how long it may take though a window opens before.
	leastReclaim = time.Minute
	// reclaimSeldom is how often space is looked for though nothing was removed: interrupted copies leave some.
	reclaimSeldom = 7 * 24 * time.Hour
)

// healthCheck proves what is stored, if it is due, and heals what it finds damaged. It looks at all of the target, not only at what
// this job claims: jobs share blocks, and a damaged one of another job is what the next copy of this one would rely on.
func (r *runner) healthCheck(ctx context.Context) error {
	check := r.Job.HealthCheck
	if check.Schedule.Mode == "" {
		r.skip(PhaseHealthCheck, "the job has none")
		return nil
	}
	due := r.due(check.Schedule, r.memory.Checked)
	if !due && !r.memory.CheckCut {
		r.skip(PhaseHealthCheck, "it is not due")
		return nil
	}
	err := r.during(PhaseHealthCheck, func(phase *Phase) error { return r.check(ctx, phase, check) })
	if err == nil && due {
		r.memory.Checked = r.session.Began
	}
	return err
}

func (r *runner) check(ctx context.Context, phase *Phase, check policy.HealthCheck) error {
	level, err := repo.ParseLevel(check.Level)
	if err != nil {
		return err
	}
	report, err := r.target.VerifyWith(ctx, repo.VerifyOptions{Level: level, MaxTime: check.Budget, Progress: r.Checking})
	if err != nil {
		return err
	}
	r.memory.CheckCut = report.Cut
	phase.Counts["packs"], phase.Counts["points"], phase.Counts["checkedBytes"] = int64(report.Packs), int64(report.Points), report.Bytes
	phase.Counts["freshBytes"], phase.Counts["unreadBytes"] = report.FreshBytes, report.UnreadBytes
	phase.Counts["damagedPlaces"] = int64(len(report.Damage))
	if report.Cut {
		phase.Reason = r.cutText(report)
	}
	if len(report.Damage)+len(report.Healed) == 0 {
		return nil
	}
	mended, report, later, err := r.mend(ctx, report)
	if err != nil {
		return err
	}
	for _, failure := range mended.Failures {
		r.warnOnce(failure.Error())
	}
	phase.Counts["healedBlocks"], phase.Counts["healedPoints"] = mended.Blocks+mended.Nodes, int64(mended.Points)
	r.stillDamaged(phase, report)
	if later {
		phase.Reason = strings.TrimPrefix(phase.Reason+"; the window has closed: points that a source has are copied again when it opens", "; ")
	}
	return nil
}

// cutText says how far a health check came whose budget is used up.
func (r *runner) cutText(report *repo.VerifyReport) string {
	text := fmt.Sprintf("%s of %s checked", shown(report.Bytes), shown(report.FreshBytes+report.Bytes+report.UnreadBytes))
	if !report.Begun.IsZero() {
		text += fmt.Sprintf(", and %s before that since %s", shown(report.FreshBytes), policy.ShowTime(report.Begun, r.Job.Schedule.Zone))
	}
	if report.Unread == 0 {
		text += ", and not all points yet"
	}
	return text + "; its budget is used up, and the next session goes on"
}

// mend heals what was found from the target, and from the sources as long as the window is open. later is true if it closed
// meanwhile.
func (r *runner) mend(ctx context.Context, found *repo.VerifyReport) (mended MendReport, after *repo.VerifyReport, later bool, err error) {
	reading, cancel := r.whileOpen(ctx)
	defer cancel()
	v := r.openAll(ctx, reading)
	defer v.close()
	mended, after, err = Mend(reading, r.target, found, r.donors(v.opened), v.sources(), r.Copy)
	if later = ctx.Err() == nil && errors.Is(context.Cause(reading), errWindow); !later || err == nil {
		return mended, after, later, err
	}
	// What was healed by then is; the findings are those of what is left.
	rest, after, err := Mend(ctx, r.target, found, nil, (&view{}).sources(), r.Copy)
	mended.add(rest)
	return mended, after, later, err
}

// stillDamaged notes what a health check could not heal.
func (r *runner) stillDamaged(phase *Phase, report *repo.VerifyReport) {
	phase.Counts["damagedPoints"] = int64(report.DamagedPoints)
	r.found = nil
	if len(report.Damage) == 0 {
		return
	}
	r.found = report
	phase.State = PhaseWarned
	phase.Reason = fmt.Sprintf("%d places are damaged and have no good copy, %d points cannot be restored whole", len(report.Damage), report.DamagedPoints)
}

// openAll opens the sources that can be opened now: none while the window is closed.
func (r *runner) openAll(ctx, reading context.Context) *view {
	v := &view{}
	if open, _ := r.window(); open {
		_, _ = r.openSources(ctx, reading, v) // what cannot be opened heals nothing
	}
	return v
}

// donors are the repositories among the sources.
func (r *runner) donors(opened []*registry.Source) []*repo.Repository {
	var donors []*repo.Repository
	for i, source := range opened {
		if source != nil && r.Sources[i].Donors != nil {
			donors = append(donors, r.Sources[i].Donors(source)...)
		}
	}
	return donors
}

// healAgain heals what a health check found with what has been copied since: a newer point may have brought the content back.
func (r *runner) healAgain(ctx context.Context) error {
	if r.found == nil || len(r.copiedNow) == 0 {
		return nil
	}
	return r.during(PhaseHealthCheck, func(phase *Phase) error {
		phase.Reason = "again, with what was copied since"
		mended, after, err := Mend(ctx, r.target, r.found, nil, (&view{}).sources(), r.Copy)
		if err != nil {
			return err
		}
		phase.Counts["healedBlocks"], phase.Counts["healedPoints"] = mended.Blocks+mended.Nodes, int64(mended.Points)
		r.stillDamaged(phase, after)
		return nil
	})
}

// transform applies retention and gives space back. reason says why it does so before the copies; empty: it is after them.
func (r *runner) transform(ctx context.Context, reason string) error {
	if err := r.healAgain(ctx); err != nil {
		return err
	}
	return r.targetTrouble(r.during(PhaseTransform, func(phase *Phase) error {
		phase.Reason = reason
		removed, err := r.retention(ctx, phase)
		if err == nil {
			err = r.reclaim(ctx, phase, removed > 0, repo.DefaultReclaimPolicy())
			r.tellLocked(phase)
		}
		if errors.Is(err, storage.ErrFull) && !r.madeRoom {
			err = r.makeRoom(ctx)
		}
		if err == nil { // what was used of the reserve, as far as it fits, before anything else takes the space
			if err = r.target.Reserve(ctx); errors.Is(err, storage.ErrFull) {
				err = nil
			}
		}
		return err
	}))
}

// retention withdraws the job's claims that the rules no longer keep, and decides which slots the others fill.
func (r *runner) retention(ctx context.Context, phase *Phase) (removed int, err error) {
	defer func() { phase.Counts["removed"] += int64(removed) }()
	if err := r.target.Refresh(ctx); err != nil {
		return 0, err
	}
	situation, err := r.situation(ctx)
	if err != nil {
		return 0, err
	}
	situation.Selected = nil // nothing is copied any more
	p := r.planned(situation)
	r.alarmsOf(p)
	steps := p.Steps(plan.ActionRemove)
	var points []repo.Forgetting
	for _, step := range steps {
		points = append(points, repo.Forgetting{Point: step.Point.ID, Reason: step.Reasons[0], Tombstone: true})
	}
	slots := map[backup.PointID][]string{}
	for _, step := range p.Steps(plan.ActionKeep) {
		if claim, mine := r.claim(step.Point.ID); mine && !claim.Flagged && r.rules(*step.Point.Machine).HasTiers() {
			slots[step.Point.ID] = FlagsOf(step.Slots)
		}
	}
	locked, before := r.lockedUntil(), r.memory.Unreclaimed
	if err := r.mayRemove(ctx, points); err != nil {
		return 0, err
	}
	done, err := r.target.Forget(ctx, r.Job.Name, points, slots)
	if err != nil {
		return 0, err
	}
	for i, step := range steps {
		reasons := step.Reasons
		if !done[i].Removed && !done[i].Unknown && step.Stays != "" {
			reasons = append(reasons, "it stays: "+step.Stays)
		}
		if done[i].Removed {
			removed++
			if !locked.IsZero() {
				reasons = append(reasons, "its space stays locked until "+policy.ShowTime(locked, r.Job.Schedule.Zone))
			}
		}
		r.note(step, OutcomeCopied, reasons)
	}
	r.memory.Unreclaimed = before || removed > 0
	return removed, nil
}

// mayRemove notes in the target that there may be space to give back, before points are removed: a session that is killed after
// that says nothing more. On a full target that has to wait: nothing gets there before something was removed.
func (r *runner) mayRemove(ctx context.Context, points []repo.Forgetting) error {
	if len(points) == 0 || r.memory.Unreclaimed {
		return nil
	}
	r.memory.Unreclaimed = true
	err := r.remember(ctx)
	if errors.Is(err, storage.ErrFull) {
		return nil
	}
	return err
}

// reclaim gives space back, if there is reason to think that there is some: something was removed, or what was given up may be deleted.
func (r *runner) reclaim(ctx context.Context, phase *Phase, needed bool, by repo.ReclaimPolicy) error {
	since, seldom := r.Now().Sub(r.memory.Reclaimed), reclaimSeldom
	if r.target.CondemnedBytes() > 0 {
		seldom = min(seldom, by.Grace)
	}
	r.memory.Unreclaimed = r.memory.Unreclaimed || needed
	if !r.memory.Unreclaimed && since >= 0 && since < seldom {
		return nil
	}
	report, err := r.target.Reclaim(ctx, repo.ReclaimOptions{MaxTime: r.reclaimTime(), Policy: by, TempDir: r.Copy.TempDir})
	var inUse *repo.InUseError
	switch {
	case errors.As(err, &inUse):
		phase.Reason = inUse.Error()
		return nil
	case errors.Is(err, backup.ErrDamaged):
		r.warnOnce("no space is given back: " + err.Error())
		phase.State = PhaseWarned
		return nil
	case err != nil:
		return err
	}
	r.memory.Reclaimed = r.session.Began
	deletable := report.NextRun && report.Waiting != repo.Amount{}
	r.memory.Unreclaimed = report.Stopped != "" || report.Frozen != "" || len(report.Incomplete) > 0 || deletable
	phase.Counts["givenUpBytes"] += report.GivenUp.Bytes
	phase.Counts["deletedBytes"] += report.Deleted.Bytes
	phase.Counts["waitingBytes"], phase.Counts["lockedBytes"] = report.Waiting.Bytes, report.Locked.Bytes
	r.filesLocked = report.LockedUntil
	for _, reason := range append(report.Incomplete, report.Frozen) {
		if reason != "" {
			r.warnOnce("no space is given back: " + reason)
		}
	}
	return nil
}

// reclaimTime is how long giving space back may take: what is left when a window opens that is waited for comes after the copies.
func (r *runner) reclaimTime() time.Duration {
	if !r.waitsForWindow() {
		return reclaimBudget
	}
	_, opens := r.window()
	return min(reclaimBudget, max(opens.Sub(r.Now()), leastReclaim))
}

// tellLocked adds to what a phase says that the storage keeps what was given up, and until when: the files that it did not let be
// deleted, or those of the points that were removed now, which wait to be.
func (r *runner) tellLocked(phase *Phase) {
	text := ""
	switch locked := r.lockedUntil(); {
	case phase.Counts["lockedBytes"] > 0:
		text = fmt.Sprintf("%s of what was given up stay locked by the storage, until %s at least", shown(phase.Counts["lockedBytes"]), policy.ShowTime(r.filesLocked, r.Job.Schedule.Zone))
	case phase.Counts["removed"] > 0 && !locked.IsZero():
		text = "the space of what was removed stays locked by the storage until " + policy.ShowTime(locked, r.Job.Schedule.Zone)
	default:
		return
	}
	phase.Reason = strings.TrimPrefix(phase.Reason+"; "+text, "; ")
}

// compact writes the newest points' blocks together, if it is due.
func (r *runner) compact(ctx context.Context) error {
	upkeep := r.Job.Compact
	if upkeep.Schedule.Mode == "" {
		r.skip(PhaseCompact, "the job has none")
		return nil
	}
	if !r.due(upkeep.Schedule, r.memory.Compacted) {
		r.skip(PhaseCompact, "it is not due")
		return nil
	}
	return r.during(PhaseCompact, func(phase *Phase) error {
		report, err := r.target.Compact(ctx, repo.CompactOptions{MaxTime: upkeep.Budget, Codec: repo.CodecZstd, Rest: r.giveWay})
		var inUse *repo.InUseError
		switch {
		case errors.As(err, &inUse):
			phase.State, phase.Reason = PhaseSkipped, inUse.Error()
			return nil
		case err != nil:
			return err
		}
		r.memory.Compacted = r.session.Began
		phase.Reason = report.Stopped
		phase.Counts["blocks"], phase.Counts["readBytes"], phase.Counts["writtenBytes"] = int64(report.Blocks), report.Read, report.Written
		return nil
	})
}

const (
	// giveWayTimes is how many times as long as it has worked compact rests while other jobs copy.
	giveWayTimes = 9
	// giveWayStep is how long it rests before it looks again whether they still do.
	giveWayStep = time.Second
)

// giveWay has compact work a tenth of the time while other jobs copy, unless the job's own next interval waits for it.
func (r *runner) giveWay(ctx context.Context, worked time.Duration) error {
	for rest := giveWayTimes * worked; rest > 0 && !r.isOver() && r.Host.Slots.usedByOthers(r.Job.Name); rest -= giveWayStep {
		if err := r.Pause(ctx, min(rest, giveWayStep)); err != nil {
			return err
		}
	}
	return nil
}
