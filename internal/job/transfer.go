package job

import (
	"context"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// copyAll copies points, those that follow each other in one source through one ingest, and says whether there was trouble that
// trying again may help with. The error is one of the target.
func (r *runner) copyAll(ctx context.Context, opened []*registry.Source, todo []plan.IntervalStep) (retry bool, err error) {
	for len(todo) > 0 {
		n := 1
		options := r.Copy
		options.Full = r.isWhole(todo[0])
		for n < len(todo) && todo[n].Source == todo[0].Source && r.isWhole(todo[n]) == options.Full {
			n++
		}
		var steps plan.Plan
		for _, step := range todo[:n] {
			r.attempts[step.Point.ID]++
			steps.Steps = append(steps.Steps, plan.Step{Point: step.Point.AsPoint(), Action: plan.ActionCopy})
		}
		first, err := r.slot(ctx, todo[0], true)
		if err != nil {
			return retry, err
		}
		r.waits("")
		options.Enter = func(p source.Point) (leave func(), ok bool) {
			if leave = first; leave != nil {
				first = nil
				return leave, true
			}
			leave, err := r.slot(ctx, todo[slices.IndexFunc(todo, func(s plan.IntervalStep) bool { return s.Point.ID == p.ID })], false)
			return leave, err == nil && leave != nil
		}
		report, err := Copy(ctx, opened[todo[0].Source], r.target, steps, options)
		if first != nil {
			first()
		}
		for _, text := range report.Warnings {
			r.warnOnce(text)
		}
		for i, done := range report.Steps {
			retry = r.copied(todo[i], done) || retry
		}
		if err != nil {
			return retry, err
		}
		todo = todo[n-report.NoSlot:]
	}
	return retry, nil
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
		if !r.earlier[step.Point.ID] && (!filled || !fill.has(step.Point.Created)) { // what an earlier interval began does not use this one up
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
// Without rules for slots nothing is decided.
func (r *runner) flags(p backup.Point) []string {
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
				_, damaged := r.target.DamageOf(entry.ID)
				candidates = append(candidates, policy.Candidate{ID: entry.ID, Created: entry.Created, Good: !damaged, Flags: claim.Flags, Flagged: claim.Flagged})
			}
		}
	}
	own := policy.Candidate{ID: p.ID, Created: p.Created, Good: true}
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
