package plan

import (
	"fmt"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Machines that have gone for good. That no source has a machine is no evidence of it: a person says so, and can take it back.
// Then, with purgeAfter, all that the job has of it goes at once:
//
//  1. purgeAfter after the machine was retired, or after its newest point if that is younger: who was retired by a clock that
//     was wrong, or is not gone after all, loses nothing early.
//  2. Only while no source has any point of it, or hides some, and nothing else keeps the interval from removing.
//  3. Only once a good point of another machine is of that time too. So a clock that jumps ahead removes nothing, and nor
//     does a job that no longer copies anything.

// retired notes since when the machine has gone, and from when what the job has of it goes.
func (m *machinePlanner) retired() {
	since, retired := m.s.Retired[m.plan.Machine.Key]
	if !retired {
		return
	}
	m.plan.Retired = since
	var offered, newest time.Time
	for _, o := range m.offers {
		if !m.isFuture(o.Brief) && o.Created.After(offered) {
			offered = o.Created
		}
	}
	if offered.After(since) {
		m.plan.Warnings = append(m.plan.Warnings, fmt.Sprintf("it is retired since %s, and a source has a point of %s: say that it is back, if it is", m.s.show(since), m.s.show(offered)))
	}
	for _, h := range m.held {
		if !m.isFuture(h.Brief) && h.Created.After(newest) {
			newest = h.Created
		}
	}
	if m.s.PurgeAfter > 0 && len(m.offers) == 0 && len(m.own) > 0 && !m.s.Hidden {
		m.plan.Purge = policy.PurgeTime(since, newest, m.s.PurgeAfter)
	}
	if !m.plan.Missing.IsZero() {
		m.plan.Reason = fmt.Sprintf("retired %s, and in no source since %s; its copies stay", m.s.show(since), m.s.show(m.plan.Missing))
	}
}

// purge removes what the job has of a machine that was retired so long ago, or says from when it is removed.
func (m *machinePlanner) purge(suspended bool) {
	from := m.plan.Purge
	if from.IsZero() || suspended {
		return
	}
	clear(m.outlooks) // no point of it comes by which the rules would remove another
	retired := "retired " + m.s.show(m.plan.Retired)
	if m.frozen != "" || m.s.Now.Before(from) || m.s.newest.Before(from) {
		when := "removed " + m.s.show(from)
		switch {
		case m.frozen != "":
			when += ", but now " + m.frozen
		case !m.s.Now.Before(from):
			when += ", once a point of another machine is as new"
		}
		m.plan.Reason = retired + "; its points are " + when
		for id, verdict := range m.verdicts {
			if verdict.Keep {
				verdict.Reasons = append([]string{"the machine is " + retired + ": " + when}, verdict.Reasons...)
				m.verdicts[id] = verdict
			}
		}
		return
	}
	m.plan.Reason = retired + "; its points are removed"
	for id := range m.verdicts {
		m.verdicts[id] = policy.Verdict{Reasons: []string{policy.Purged, retired + ", purgeAfter " + policy.FormatDuration(m.s.PurgeAfter)}}
	}
}

// newestGood is when the newest good point was created of all that sources and target have. One that is dated ahead of the clock
// does not count.
func (s Situation) newestGood() time.Time {
	var newest time.Time
	consider := func(p *backup.Brief) {
		if p.State == backup.StateComplete && !p.Created.After(s.Now.Add(future)) && p.Created.After(newest) {
			newest = p.Created
		}
	}
	for _, o := range s.Offers {
		consider(o.Brief)
	}
	for _, h := range s.Held {
		consider(h.Brief)
	}
	return newest
}
