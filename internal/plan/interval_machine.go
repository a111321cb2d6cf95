package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// machinePlanner plans one machine of an interval.
type machinePlanner struct {
	s      Situation
	mapped mappings
	offers []*Offer
	held   []*Held
	rules  policy.Retention
	// frozen says that nothing of the machine is removed, and why; empty: the rules decide.
	frozen string
	// offeredAs and heldAt are the places of points in offers and held, heldOf those of the points created at an instant, in ns.
	offeredAs, heldAt map[backup.PointID]int
	heldOf            map[int64][]int
	// own are the points that the job holds, or is given by target.map.
	own []policy.Candidate

	choice policy.Choice
	// newest is when the newest point was created that the job has held.
	newest time.Time
	// take are the points that the job is to hold from now on, by copying or claiming, again those of them that it has given up
	// before, and notKept those of the choice that the rules would remove at once.
	take, again, notKept map[backup.PointID]bool
	// lifted are points that a rule has removed, and whether the rules would keep them now.
	lifted   map[backup.PointID]bool
	verdicts map[backup.PointID]policy.Verdict
	outlooks map[backup.PointID]policy.Outlook
	plan     MachinePlan
}

// index notes where points are. There are thousands where a machine is copied every hour.
func (m *machinePlanner) index() {
	m.offeredAs, m.heldAt, m.heldOf = map[backup.PointID]int{}, map[backup.PointID]int{}, map[int64][]int{}
	for i, o := range m.offers {
		m.offeredAs[o.ID] = i
	}
	for i, h := range m.held {
		m.heldAt[h.ID] = i
		at := h.Created.UnixNano()
		m.heldOf[at] = append(m.heldOf[at], i)
	}
	m.own = m.candidates()
}

// offer is the offer of a point.
func (m *machinePlanner) offer(id backup.PointID) (*Offer, bool) {
	i, there := m.offeredAs[id]
	if !there {
		return nil, false
	}
	return m.offers[i], true
}

// heldAs is what the target has of a point.
func (m *machinePlanner) heldAs(id backup.PointID) (*Held, bool) {
	i, there := m.heldAt[id]
	if !there {
		return nil, false
	}
	return m.held[i], true
}

// mine is true if the job holds the point whole, or is given it.
func (m *machinePlanner) mine(id backup.PointID) bool {
	h, there := m.heldAs(id)
	return there && m.holds(h) && h.State == backup.StateComplete
}

// damaged is true if the job holds the point, and it cannot be read whole.
func (m *machinePlanner) damaged(id backup.PointID) bool {
	h, there := m.heldAs(id)
	return there && h.Claimed && h.State != backup.StateComplete
}

// forgotten is true if the target has given the point up. What a rule removed is not, where the rules would keep it now, nor is
// what was removed of a machine that was retired, and is back.
func (m *machinePlanner) forgotten(p *backup.Brief) (string, bool) {
	stone, gone := m.tombstone(p.ID)
	reason := stone.Reason
	_, retired := m.s.Retired[m.plan.Machine.Key]
	if !gone || reason != policy.NoRuleKeeps && (reason != policy.Purged || retired) {
		return reason, gone
	}
	lifted, known := m.lifted[p.ID]
	if !known {
		lifted = m.wouldKeep(p)
		m.lifted[p.ID] = lifted
	}
	return reason, !lifted
}

// gaveUp is the claim that the job had on a point which it has given up; false if it has not.
func (m *machinePlanner) gaveUp(id backup.PointID) (Claim, bool) {
	stone, gone := m.tombstone(id)
	return stone.Claim, gone && stone.Own
}

func (m *machinePlanner) tombstone(id backup.PointID) (Tombstone, bool) {
	if m.s.Forgotten == nil {
		return Tombstone{}, false
	}
	return m.s.Forgotten(id)
}

// coming is a point that the job is to hold. Which slots one fills that it has held before was decided then: else it could come back for
// one that it did not fill, though it went by the same rules.
func (m *machinePlanner) coming(p *backup.Brief) policy.Candidate {
	claim, _ := m.gaveUp(p.ID)
	return policy.Candidate{ID: p.ID, Created: p.Created, Good: true, Flags: claim.Flags, Flagged: claim.Flagged}
}

// wouldKeep is true if the rules keep the point beside those that the job holds.
func (m *machinePlanner) wouldKeep(p *backup.Brief) bool {
	candidates := append(slices.Clip(m.own), m.coming(p))
	verdicts := m.rules.Decide(candidates, m.s.Now)
	return verdicts[len(verdicts)-1].Keep
}

// comesBack is true for a point that came to the source through the target, or lies in it.
func (m *machinePlanner) comesBack(o *Offer) bool { return policy.BeenIn(o.Brief, o.Via, m.s.TargetID) }

// isFuture is true for a point dated so far ahead that its date cannot be right. Nothing is compared with it.
func (m *machinePlanner) isFuture(p *backup.Brief) bool { return p.Created.After(m.s.Now.Add(future)) }

// candidates are the points that the job holds, or is given by target.map.
func (m *machinePlanner) candidates() []policy.Candidate {
	var candidates []policy.Candidate
	for _, h := range m.held {
		if m.holds(h) {
			candidates = append(candidates, policy.Candidate{
				ID: h.ID, Created: h.Created, Good: h.State == backup.StateComplete || m.mends(h.ID), Flags: h.Claim.Flags, Flagged: h.Claim.Flagged,
			})
		}
	}
	return candidates
}

// mends is true for a point that the job holds damaged, and that is copied again in this interval.
func (m *machinePlanner) mends(id backup.PointID) bool {
	o, offered := m.offer(id)
	return offered && m.plan.Selected && m.damaged(id) && o.State == backup.StateComplete && !m.comesBack(o)
}

// decide applies the rules to what the job holds and takes.
func (m *machinePlanner) decide() ([]policy.Candidate, []policy.Verdict) {
	candidates := slices.Clip(m.own)
	for _, o := range m.offers {
		if h, there := m.heldAs(o.ID); m.take[o.ID] && (!there || !m.holds(h)) {
			candidates = append(candidates, m.coming(o.Brief))
		}
	}
	return candidates, m.rules.Decide(candidates, m.s.Now)
}

// missing notes since when no source has the machine.
func (m *machinePlanner) missing() {
	claimed := slices.ContainsFunc(m.held, func(h *Held) bool { return h.Claimed })
	if len(m.offers) > 0 || !claimed || m.s.Doubt != "" {
		return
	}
	key := m.plan.Machine.Key
	m.plan.Missing = m.s.Now
	if since, known := m.s.Missing[key]; known && since.Before(m.s.Now) {
		m.plan.Missing = since
	}
	m.plan.Reason = "it is in no source since " + m.s.show(m.plan.Missing) + "; its copies stay"
	m.plan.Waits, m.plan.Look = false, time.Time{}
}

// judge applies the rules.
func (m *machinePlanner) judge() {
	candidates, verdicts := m.decide()
	outlooks := m.rules.Outlook(candidates, verdicts)
	m.verdicts, m.outlooks = map[backup.PointID]policy.Verdict{}, map[backup.PointID]policy.Outlook{}
	for i, c := range candidates {
		m.verdicts[c.ID], m.outlooks[c.ID] = verdicts[i], outlooks[i]
	}
	m.spare(candidates)
	suspended := false
	for _, h := range m.held {
		suspended = suspended || m.holds(h) && m.isFuture(h.Brief)
	}
	for _, o := range m.offers {
		suspended = suspended || m.take[o.ID] && m.isFuture(o.Brief)
	}
	if suspended {
		clear(m.outlooks) // nobody knows
		m.plan.Alarms = append(m.plan.Alarms, "a point of it is dated more than a day ahead of the clock: nothing of it is removed")
	}
	m.purge(suspended)
}

// describe makes a step of every point.
func (m *machinePlanner) describe() {
	offered := map[backup.PointID]bool{}
	newest := m.newestHeld()
	for _, o := range m.offers {
		offered[o.ID] = true
		step := IntervalStep{Point: m.ours(o.Brief), Source: o.Source}
		h, there := m.heldAs(o.ID)
		step.OnTarget = there
		switch {
		case m.take[o.ID]:
			m.taken(&step, h, there)
		case there && h.Claimed && m.mends(o.ID):
			step.Action, step.Reasons = ActionCopy, []string{"the target's copy of it is damaged"}
			m.decided(&step)
		case there && h.Claimed:
			m.kept(&step, h)
		default:
			if there && m.isGiven(h) {
				m.taking(&step, h)
			} else {
				m.notTaken(&step, o, newest)
			}
		}
		m.plan.Steps = append(m.plan.Steps, step)
	}
	for _, h := range m.held {
		if offered[h.ID] {
			continue
		}
		step := IntervalStep{Point: m.ours(h.Brief), Source: -1, OnTarget: true}
		switch {
		case h.Claimed:
			m.kept(&step, h)
		case m.isGiven(h):
			m.taking(&step, h)
		default:
			step.Action, step.Reasons = ActionNotSelected, []string{ownerText(h)}
		}
		m.plan.Steps = append(m.plan.Steps, step)
	}
}

func ownerText(h *Held) string {
	if keeps := keepersText(h); keeps != "" {
		return "none of this job's: " + keeps
	}
	return "none of this job's: no job claims it"
}

// keepersText says what keeps a point beside this job; empty: nothing does.
func keepersText(h *Held) string {
	var by []string
	if len(h.Others) > 0 {
		by = append(by, "claimed by "+strings.Join(h.Others, ", "))
	}
	for _, hold := range h.Holds {
		by = append(by, "held: "+hold)
	}
	return strings.Join(by, "; ")
}

// decided adds what the rules say of a point that the job keeps or is going to.
func (m *machinePlanner) decided(step *IntervalStep) {
	verdict := m.verdicts[step.Point.ID]
	step.Slots, step.Outlook = verdict.Slots, m.outlooks[step.Point.ID]
	for _, reason := range verdict.Reasons {
		step.Reasons = append(step.Reasons, "kept: "+reason)
	}
}

// taken describes a point that the job is to hold from now on.
func (m *machinePlanner) taken(step *IntervalStep, h *Held, there bool) {
	step.Action, step.Reasons, step.Again = ActionCopy, []string{m.choice.Reason}, m.again[step.Point.ID]
	if step.Again {
		step.Reasons = []string{"the rules have widened since it was given up"}
	}
	switch whole := there && h.State == backup.StateComplete; {
	case m.s.Full && there:
		step.Reasons = []string{"it is there, and is read whole again"}
	case whole:
		step.Action, step.Reasons = ActionClaim, []string{"the target has it: " + cmp.Or(keepersText(h), "no job claims it")}
	case there:
		step.Reasons = append(step.Reasons, "the target's copy of it is damaged")
	}
	m.decided(step)
}

// kept describes a point that the job holds.
func (m *machinePlanner) kept(step *IntervalStep, h *Held) {
	verdict := m.verdicts[h.ID]
	step.Action, step.Reasons, step.Slots, step.Outlook = ActionKeep, verdict.Reasons, verdict.Slots, m.outlooks[h.ID]
	switch {
	case verdict.Keep:
	case m.frozen != "":
		step.Reasons = append([]string{m.frozen}, verdict.Reasons...)
	default:
		step.Action, step.Stays = ActionRemove, keepersText(h)
	}
	if h.Machine.Key != m.plan.Machine.Key {
		step.Reasons = append(slices.Clone(step.Reasons), "target.map: it is of "+h.Machine.Key.String())
	}
}

// ours is a point as one of the machine that is planned: by target.map it may be of another.
func (m *machinePlanner) ours(p *backup.Brief) *backup.Brief {
	if p.Machine.Key == m.plan.Machine.Key {
		return p
	}
	own, machine := *p, m.plan.Machine
	own.Machine = &machine
	return &own
}

// newestHeld is when the newest point was created that the job has held, or takes now; zero if there is none.
func (m *machinePlanner) newestHeld() time.Time {
	newest := m.newest
	for _, o := range m.offers {
		if m.take[o.ID] && !m.isFuture(o.Brief) && o.Created.After(newest) {
			newest = o.Created
		}
	}
	return newest
}

// notTaken describes a point of a source that stays there.
func (m *machinePlanner) notTaken(step *IntervalStep, o *Offer, newest time.Time) {
	state := func(action Action) { step.Action, step.Reasons = action, []string{cmp.Or(o.Reason, string(o.State))} }
	reason, gone := m.forgotten(o.Brief)
	switch {
	case !m.plan.Selected:
		step.Action, step.Reasons = ActionNotSelected, []string{"the job does not copy this machine"}
	case m.plan.Refused != "":
		step.Action, step.Reasons = ActionRefused, []string{m.plan.Refused}
		step.Failure = !slices.ContainsFunc(m.offers, func(other *Offer) bool { return other.Created.After(o.Created) })
	case gone:
		step.Action, step.Reasons = ActionForgotten, []string{"the target has given it up: " + cmp.Or(reason, "no reason was noted")}
	case m.comesBack(o):
		step.Action, step.Reasons = ActionNotBack, []string{"it came to the source from the target's repository"}
	case m.notKept[o.ID]:
		step.Action, step.Reasons = ActionNotKept, []string{"the rules would remove it at once"}
	case m.choice.Wait && m.choice.Lock == o.ID:
		state(ActionWait)
	case o.State == backup.StateLocked:
		state(ActionLocked)
	case o.State == backup.StateBroken:
		state(ActionBroken)
		step.Failure = o.Created.After(newest)
	case o.State == backup.StateUnsupported:
		state(ActionUnsupported)
	case o.State == backup.StateEncrypted:
		state(ActionEncrypted)
	case m.s.Mode == policy.Periodic && m.s.Lookup.Direction == policy.Forward && o.Created.Before(m.s.Interval.Begins):
		step.Action, step.Reasons = ActionOlder, []string{"it was created before the interval began, at " + m.s.show(m.s.Interval.Begins)}
	case m.twin(o.Brief):
		step.Action, step.Reasons, step.Given = ActionOlder, []string{"target.map: the job has the point of this time already"}, true
	case !o.Created.After(newest):
		step.Action, step.Reasons = ActionOlder, []string{"older than the newest that the job has"}
	default:
		step.Action, step.Reasons = ActionPassed, []string{m.choice.Reason}
	}
}
