package simulate

import (
	"slices"

	"ferry/internal/policy"
)

// admitted are those of the points that retention would not remove at once.
func (l *life) admitted(j *job, m *machine, take []int) []int {
	if len(take) == 0 {
		return nil
	}
	coming := make([]policy.Candidate, len(take))
	for i, place := range take {
		coming[i] = policy.Candidate{ID: m.Points[place].ID, Created: m.Points[place].Created, Good: true}
	}
	var admitted []int
	for i, v := range l.admit(j.retentionOf(m.Machine), m.candidates(), coming, l.now()) {
		if v.Keep {
			admitted = append(admitted, take[i])
			continue
		}
		m.had[coming[i].ID] = true
		l.say(j, m, Event{Kind: Skipped, Point: take[i]})
	}
	return admitted
}

// candidates are the points that the job holds.
func (m *machine) candidates() []policy.Candidate {
	held := make([]policy.Candidate, len(m.held))
	for i, place := range m.held {
		p := m.Points[place]
		flags, flagged := m.flags[place]
		held[i] = policy.Candidate{ID: p.ID, Created: p.Created, Good: true, Flags: flags, Flagged: flagged}
	}
	return held
}

// purged is true if all goes that the job has of the machine.
func (l *life) purged(j *job, m *machine) bool {
	if m.Purge.IsZero() || l.now().Before(m.Purge) {
		return false
	}
	return slices.ContainsFunc(j.machines, func(other *machine) bool { return !other.newest.Before(m.Purge) })
}

// retain removes what no rule keeps.
func (l *life) retain(j *job, m *machine) {
	verdicts := l.keep(j.retentionOf(m.Machine), m.candidates(), l.now())
	if l.purged(j, m) {
		clear(verdicts)
	}
	var kept, removed []int
	for i, place := range m.held {
		if m.flags[place] = verdicts[i].Slots; verdicts[i].Keep {
			kept = append(kept, place)
		} else {
			removed = append(removed, place)
		}
	}
	m.held = kept
	for _, place := range removed {
		delete(m.flags, place)
		l.say(j, m, Event{Kind: Removed, Point: place, Size: m.size(m.held, m.sums)})
	}
}

// store takes what has arrived into the target.
func (l *life) store(j *job, m *machine) bool {
	if !m.begun || m.left > 0 {
		return false
	}
	place := m.pinned[0]
	m.pinned, m.begun, m.spare = m.pinned[1:], false, 0
	m.hold(place)
	m.done = m.done || m.turn == j.turn && !m.again[m.Points[place].ID]
	j.stored++
	l.say(j, m, Event{Kind: Stored, Point: place, Size: m.size(m.held, m.sums)})
	if len(m.pinned) == 0 && j.Schedule.Mode == policy.Immediate {
		l.retain(j, m)
	}
	return true
}
