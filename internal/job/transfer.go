package job

import (
	"context"
	"errors"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// copyAll copies points, those of several machines at once as far as there are slots, and says whether there was trouble that
// trying again may help with. The error is one of the target. Points of awaited machines may end the copies by cut, as the end of the interval
// does.
func (r *runner) copyAll(
	ctx context.Context, cut context.CancelCauseFunc, opened []*registry.Source, todo []plan.IntervalStep, awaited map[backup.MachineKey]bool,
) (retry bool, err error) {
	c := newCopier(r.target, r.Copy)
	c.gate = gate{slots: r.Host.Slots, of: r.Job.Name, limits: r.limits, waits: r.waits}
	points := make([]map[backup.PointID]source.Point, len(opened))
	lanes, laneOf := [][]int(nil), map[backup.MachineKey]int{}
	for i, step := range todo {
		if points[step.Source] == nil {
			points[step.Source] = byID(opened[step.Source])
		}
		r.attempts[step.Point.ID]++
		c.add(plan.Step{Point: step.Point.AsPoint(), Action: plan.ActionCopy}, work{
			from: opened[step.Source], source: step.Source, point: points[step.Source][step.Point.ID], whole: r.isWhole(step),
		})
		machine := r.backupOf(step.Point.Machine.Key)
		lane, begun := laneOf[machine]
		if !begun {
			lane = len(lanes)
			laneOf[machine], lanes = lane, append(lanes, nil)
		}
		lanes[lane] = append(lanes[lane], i)
	}
	end := r.untilOthersAreDue(ctx, c, awaited, cut)
	report, err := c.copy(ctx, lanes)
	end()
	cause := context.Cause(ctx)
	r.noteSkipped(todo, report.Steps, c, errors.Is(cause, errListed) || errors.Is(cause, errAppeared))
	for _, text := range report.Warnings {
		r.warnOnce(text)
	}
	for i, done := range report.Steps {
		retry = r.copied(todo[i], done) || retry
	}
	return retry, err
}

// limits are those of the target and of a source.
func (r *runner) limits(number int) limits {
	from := r.Sources[number].Origin.Repository
	return limits{from.Name: from.Slots, r.Target.Name: r.Target.Slots}
}

// copied notes what became of one copy, and says whether there was trouble that trying again may help with.
func (r *runner) copied(step plan.IntervalStep, done StepReport) (retry bool) {
	switch done.Outcome {
	case OutcomeNotReached:
		r.attempts[step.Point.ID]--
		return false
	case OutcomeNothing:
		return false
	case OutcomeFailed, OutcomeCopied:
	}
	p := r.note(step, done.Outcome, step.Reasons)
	p.Attempts = r.attempts[step.Point.ID]
	p.ReadBytes, p.NewBytes, p.StoredBytes, p.Seconds = done.Result.Read, done.Result.NewBytes, done.Result.Stored, done.Result.Took.Seconds()
	if done.Err == nil {
		r.copiedNow[step.Point.ID] = true
		if r.isWhole(step) {
			r.memory.Owed = slices.DeleteFunc(r.memory.Owed, func(id string) bool { return id == step.Point.Machine.Key.String() })
		}
		fill, filled := r.earlierFill[step.Point.Machine.Key.String()]
		if earlier := r.earlier[step.Point.ID] || filled && fill.has(step.Point.Created); !step.Again && (!earlier || r.sinceBegan(step.Point.Created)) { // what an earlier interval began, or took, does not use this one up
			r.stored[step.Point.Machine.Key] = true
			r.noteTurn(step)
		}
		r.done(step)
		if !r.isWhole(step) {
			r.memory.note(step.Point.Machine.Key, done.Result.Stored)
		}
		return false
	}
	p.Error, p.Hint = backup.SafeText(done.Err.Error()), backup.SafeText(backup.Hint(done.Err))
	found := troubleOf(done.Err)
	switch {
	case found == troubleStays:
		r.attempts[step.Point.ID] = maxAttempts
	case found == troubleGone && p.Attempts < maxAttempts:
		p.Outcome = OutcomeGone
	}
	return found == troubleRetry && p.Attempts < maxAttempts // after the last attempt nothing is left to pause for
}

// flags are the slots that a point fills as it is stored, by what the job holds and what this session has stored before it.
// Without rules for slots nothing is decided. Copies at once ask for theirs in turn.
func (r *runner) flags(p backup.Point) []string {
	r.flagging.Lock()
	defer r.flagging.Unlock()
	if there, mine := r.claim(p.ID); mine {
		return there.Flags
	}
	rules := r.rules(p.Machine)
	if !rules.HasTiers() {
		return nil
	}
	key := r.backupOf(p.Machine.Key)
	candidates := r.given[key]
	for _, c := range candidates {
		if c.ID == p.ID { // handed over before: its commit did not come about
			return FlagsOf(c.Flags)
		}
	}
	if candidates == nil {
		for _, entry := range r.entriesOf(key) {
			if claim, mine := r.claim(entry.ID); mine {
				_, damaged := r.damageOf(entry)
				candidates = append(candidates, policy.Candidate{ID: entry.ID, Created: entry.Created, Good: !damaged, Flags: claim.Flags, Flagged: claim.Flagged})
			}
		}
	}
	before, _ := r.forgotten(p.ID) // what was decided then never moves
	own := policy.Candidate{ID: p.ID, Created: p.Created, Good: true, Flags: before.Claim.Flags, Flagged: before.Claim.Flagged}
	verdicts := rules.Decide(append(candidates, own), r.Now())
	own.Flags, own.Flagged = verdicts[len(candidates)].Slots, true
	r.given[key] = append(candidates, own)
	return FlagsOf(own.Flags)
}

// entriesOf are what the target had, as the transfer began, of a machine and of those that target.map links with it.
func (r *runner) entriesOf(key backup.MachineKey) []repo.Entry {
	entries := slices.Clone(r.entries[r.target.Pseudonym(key).String()])
	for linked, of := range r.links {
		if of == key {
			entries = append(entries, r.entries[r.target.Pseudonym(linked).String()]...)
		}
	}
	return entries
}

// slotsNone is the flag of a claim of which it was decided that it fills no slot.
const slotsNone = "none"

// FlagsOf are the flags of a claim whose point fills the slots named.
func FlagsOf(slots []string) []string {
	if len(slots) == 0 {
		return []string{slotsNone}
	}
	return slots
}
