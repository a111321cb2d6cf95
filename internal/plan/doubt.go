package plan

import (
	"slices"

	"ferry/internal/policy"
)

// Retention while sources may have more than was listed: a folder could not be looked into, or a source did not answer. What was
// listed is true; what else there is nobody knows. So a point goes only if it would also go were the rest known, whatever it is:
//
//  1. The rules look at what the job holds. What a source has beside that can only come to be held too, and a good point more never
//     keeps another one that goes without it: numbers are reached sooner, days count back from a newer point, and slots are taken.
//     It may be dated in the future, and would stop all removal then, because everything else is too old by it. Nothing is
//     measured from it as long as it is not held.
//  2. Which rules a machine has depends on its newest point, by labels and names. So a point goes only if all rules that the job
//     has give it up.
//  3. A damaged point may be had whole from what is not listed. It stays.
//  4. With which machine's points target.map puts others depends on which machines the sources have. Of a machine that has points
//     of another one by it nothing goes.
//  5. Of a machine that is not listed at all nothing goes, nor is it missing, or purged.
//  6. If more than half of the machines are not listed nothing goes at all. Were all seen it might be so too, and then the
//     listing is not believed.
//
// While a window is closed nothing is listed, and that says nothing of the sources. Rules 5 and 6 go by the last listing then, if that
// was whole, as they would if it had been made just now: a machine that it had is there. What needs more than that is not done: of a
// machine that is retired nothing goes, nor with target.map anything, since which machines that links is not known.

// freeze notes that nothing of the machine is removed, if nothing is at all, or nothing is known of it for sure.
func (m *machinePlanner) freeze(all string) {
	switch {
	case all != "":
		m.frozen = "nothing is removed: " + all
	case m.s.Doubt != "" && (len(m.offers) == 0 && !m.wasListed() || m.isLinked()):
		m.frozen = "nothing of it is removed: " + m.s.Doubt
	}
}

// wasListed is true if the last listing says as much of the machine as the rules need while sources may not be read.
func (m *machinePlanner) wasListed() bool {
	_, retired := m.s.Retired[m.plan.Machine.Key]
	return m.s.Unread && !retired && len(m.s.Map) == 0
}

// isLinked is true for a machine that the target has points of another one for, by target.map.
func (m *machinePlanner) isLinked() bool {
	return slices.ContainsFunc(m.held, func(h *Held) bool { return h.Machine.Key != m.plan.Machine.Key })
}

// spare keeps what the rules give up, and might not if all was known that sources have.
func (m *machinePlanner) spare(candidates []policy.Candidate) {
	if m.s.Doubt == "" || m.frozen != "" {
		return
	}
	keep := func(c policy.Candidate, reason string) {
		verdict := m.verdicts[c.ID]
		if h, there := m.heldAs(c.ID); there && h.Claimed && !verdict.Keep {
			verdict.Keep, verdict.Reasons = true, []string{reason + ": " + m.s.Doubt}
			m.verdicts[c.ID] = verdict
		}
	}
	for _, c := range candidates {
		if !c.Good {
			keep(c, "it is damaged, and may be whole in what is not listed")
		}
	}
	for _, rules := range m.s.AllRules {
		for i, verdict := range rules.Decide(candidates, m.s.Now) {
			if verdict.Keep {
				keep(candidates[i], "other rules of the job keep it, and the machine has those if what is not listed gives it another name or label")
			}
		}
	}
}
