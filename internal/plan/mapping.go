package plan

import (
	"fmt"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// Mapped is a backup in the target that target.map makes the job's own.
type Mapped struct {
	// Backup as the job names it: JOB/MACHINE.
	Backup string
	// Machine that its points are of. Where that is another than the job's, map is the link between the two.
	Machine backup.Machine
	// Points of it that are the job's, or become so.
	Points int
}

// mappings are what target.map comes to in a situation.
type mappings struct {
	// of says of machines of the target whose backup theirs is, where that is another machine's.
	of map[backup.MachineKey]backup.MachineKey
	// apart are such machines that a source has too, and that the job does not copy: what the source has of them stays so.
	apart map[backup.MachineKey]bool
	// by is what is mapped to each machine, refused why nothing of a machine is copied.
	by      map[backup.MachineKey][]Mapped
	refused map[backup.MachineKey]string
	// given are the points that are the job's by target.map, and the backup that they are of.
	given map[backup.PointID]string
	// idle are entries that match nothing, and why.
	idle []string
}

// held is the machine whose backup a point of the target is part of.
func (m mappings) held(key backup.MachineKey) backup.MachineKey {
	for range len(m.of) { // of a machine that is mapped to one which is mapped itself
		next, linked := m.of[key]
		if !linked {
			break
		}
		key = next
	}
	return key
}

// Links are the machines of the target that target.map links, with the machine whose backup theirs is; nil if there are none.
func (s Situation) Links() map[backup.MachineKey]backup.MachineKey { return s.mappings().links() }

func (m mappings) links() map[backup.MachineKey]backup.MachineKey {
	var links map[backup.MachineKey]backup.MachineKey
	for key := range m.of {
		if links == nil {
			links = map[backup.MachineKey]backup.MachineKey{}
		}
		links[key] = m.held(key)
	}
	return links
}

// offered is the machine that a point of a source is planned with.
func (m mappings) offered(key backup.MachineKey) backup.MachineKey {
	if m.apart[key] {
		return key
	}
	return m.held(key)
}

// seen is a machine of sources and target, as target.map looks at it.
type seen struct {
	backup.Machine
	offered, isHeld bool
	// claimed is true if the job holds points of it, jobs are the others that do, points what the target has.
	claimed bool
	jobs    []string
	points  []*Held
}

// claimedBy is true if points of the machine are in a backup of such a job.
func (m *seen) claimedBy(glob, self string) bool {
	return glob == "*" || m.claimed && policy.Glob(glob, self) || slices.ContainsFunc(m.jobs, func(job string) bool { return policy.Glob(glob, job) })
}

// inBackup is true if a point of the target is in a backup of such a job.
func (h *Held) inBackup(glob, self string) bool {
	return glob == "*" || h.Claimed && policy.Glob(glob, self) || slices.ContainsFunc(h.Others, func(job string) bool { return policy.Glob(glob, job) })
}

// mappings follows target.map. Each entry names machines of the sources (A) and, by job, machines of the target (B).
//
//  1. A machine that is in A and in B is the same: what B has of it is the job's.
//  2. Else, if each side names one machine, and without a pattern, B's is A's: they are planned as one.
//  3. An entry of names that finds no machine in the target, or several, refuses its machine, unless the job holds points of
//     it already: to copy all of it would be what was not wanted. One with a pattern just matches nothing.
func (s Situation) mappings() mappings {
	m := mappings{
		of: map[backup.MachineKey]backup.MachineKey{}, apart: map[backup.MachineKey]bool{}, by: map[backup.MachineKey][]Mapped{},
		refused: map[backup.MachineKey]string{}, given: map[backup.PointID]string{},
	}
	if len(s.Map) == 0 {
		return m
	}
	machines := s.machinesSeen()
	for _, entry := range s.Map {
		s.follow(&m, machines, entry)
	}
	selected := map[backup.MachineKey]bool{}
	for _, key := range s.Selected {
		selected[key] = true
	}
	for _, is := range machines {
		switch as := m.held(is.Key); {
		case as == is.Key || selected[is.Key] == selected[as]:
		case selected[as]:
			m.apart[is.Key] = true
		default: // the job copies this one, and not the one that it is mapped to
			delete(m.of, is.Key)
			for _, h := range is.points {
				delete(m.given, h.ID)
			}
		}
	}
	return m
}

// machinesSeen are the machines of sources and target, in their order, as their newest points have them.
func (s Situation) machinesSeen() []*seen {
	var all []*seen
	at := map[backup.MachineKey]*seen{}
	of := func(m backup.Machine) *seen {
		if at[m.Key] == nil {
			at[m.Key] = &seen{Machine: m}
			all = append(all, at[m.Key])
		}
		return at[m.Key]
	}
	offers, held := byMachine(s.Offers, same), byMachine(s.Held, same)
	for i := range s.Offers {
		o := &s.Offers[i]
		if is := of(*o.Machine); !is.offered {
			is.offered, is.Machine = true, machineOf(o.Machine.Key, offers[o.Machine.Key], held[o.Machine.Key])
		}
	}
	for i := range s.Held {
		h := &s.Held[i]
		is := of(*h.Machine)
		is.isHeld, is.claimed = true, is.claimed || h.Claimed
		is.points = append(is.points, h)
		for _, job := range h.Others {
			if !slices.Contains(is.jobs, job) {
				is.jobs = append(is.jobs, job)
			}
		}
	}
	return all
}

// follow follows one entry.
func (s Situation) follow(m *mappings, machines []*seen, entry policy.Mapping) {
	ours, theirs := s.sides(m, machines, entry)
	matched := false
	var others []*seen
	for _, their := range theirs {
		if slices.Contains(ours, their) {
			s.give(m, their.Machine, their, entry)
			matched = true
		} else {
			others = append(others, their)
		}
	}
	text := fmt.Sprintf("target.map of %s to %s", entry.Machine, entry.Backup)
	if entry.Machine.IsPattern() || entry.Backup.Machine.IsPattern() {
		if !matched {
			m.idle = append(m.idle, text+": no machine of the sources has the same id as one of that backup; two that differ are linked by name or id, not by a pattern")
		}
		return
	}
	const none = "the target has no such backup"
	refuse := func(reason string) {
		refused := false
		for _, our := range ours {
			if !our.claimed && m.held(our.Key) == our.Key {
				m.refused[our.Key], refused = text+": "+reason, true
			}
		}
		if !refused && (reason != none || len(ours) == 0) { // else its points have gone since, by the rules
			m.idle = append(m.idle, text+": "+reason)
		}
	}
	switch {
	case len(ours) == 0:
		refuse("no source has such a machine")
	case len(ours) > 1 && len(others) > 0:
		refuse("the sources have several such machines: " + idsOf(ours) + "; name one by its id")
	case len(others) == 0 && !matched:
		refuse(none)
	case len(others) > 1 && slices.ContainsFunc(others, func(is *seen) bool { return !is.claimed }):
		refuse("the target has several such backups: " + idsOf(others) + "; name one by its id")
	default:
		for _, other := range others {
			switch as, linked := m.of[other.Key]; {
			case linked && as != ours[0].Key, m.held(ours[0].Key) == other.Key:
				refuse("that backup is mapped to " + m.held(other.Key).String() + " already")
			default:
				m.of[other.Key] = ours[0].Key
				s.give(m, ours[0].Machine, other, entry)
			}
		}
	}
}

// sides are the machines of the sources, and those of the target, that an entry names. Where no source has any, those that
// the job holds points of stand for it; and where the other job has given up its claims, what this one holds remains.
func (s Situation) sides(m *mappings, machines []*seen, entry policy.Mapping) (ours, theirs []*seen) {
	var holds []*seen
	for _, is := range machines {
		if is.isHeld && entry.Backup.Machine.Matches(is.Machine) {
			switch {
			case is.claimedBy(entry.Backup.Job, s.Job):
				theirs = append(theirs, is)
			case is.claimed:
				holds = append(holds, is)
			}
		}
		if is.offered && entry.Machine.Matches(is.Machine) {
			ours = append(ours, is)
		}
	}
	if len(theirs) == 0 {
		theirs = slices.DeleteFunc(holds, func(is *seen) bool { _, linked := m.of[is.Key]; return linked })
	}
	if len(ours) == 0 {
		for _, is := range machines {
			if is.claimed && entry.Machine.Matches(is.Machine) && !slices.Contains(theirs, is) {
				ours = append(ours, is)
			}
		}
	}
	return ours, theirs
}

// give gives a machine what the target has in a backup.
func (s Situation) give(m *mappings, to backup.Machine, from *seen, entry policy.Mapping) {
	mapped := Mapped{Backup: entry.Backup.String(), Machine: from.Machine}
	for _, h := range from.points {
		if h.Claimed || h.inBackup(entry.Backup.Job, s.Job) {
			mapped.Points++
		}
		if h.inBackup(entry.Backup.Job, s.Job) {
			m.given[h.ID] = mapped.Backup
		}
	}
	m.by[to.Key] = append(m.by[to.Key], mapped)
}

func idsOf(machines []*seen) string {
	var ids []string
	for _, is := range machines {
		ids = append(ids, is.Key.String())
	}
	return strings.Join(ids, ", ")
}

// twin is true if the job holds, or is given, the same state under another machine's id: one that target.map links with this
// one, created at the same time.
func (m *machinePlanner) twin(p *backup.Brief) bool {
	return len(m.mapped.of) > 0 && slices.ContainsFunc(m.heldOf[p.Created.UnixNano()], func(i int) bool {
		h := m.held[i]
		return m.holds(h) && h.State == backup.StateComplete && h.Machine.Key != p.Machine.Key && h.Created.Equal(p.Created)
	})
}

// holds is true for a point of the target that the job claims, or is given by target.map.
func (m *machinePlanner) holds(h *Held) bool { return h.Claimed || m.isGiven(h) }

func (m *machinePlanner) isGiven(h *Held) bool {
	_, given := m.given(h)
	return given
}

// given is the backup of which a point is the job's by target.map, if the job does not claim it yet.
func (m *machinePlanner) given(h *Held) (backup string, ok bool) {
	if h.Claimed || !m.plan.Selected {
		return "", false
	}
	backup, ok = m.mapped.given[h.ID]
	return backup, ok
}

// taking describes a point that is the job's by target.map from now on, or would be.
func (m *machinePlanner) taking(step *IntervalStep, h *Held) {
	of, _ := m.given(h)
	step.Given = true
	switch {
	case m.verdicts[h.ID].Keep:
		step.Action, step.Reasons = ActionClaim, []string{"target.map: it is in the backup " + of}
		m.decided(step)
	default:
		step.Action, step.Reasons = ActionNotKept, []string{"target.map: it is in the backup " + of + ", and the rules would remove it at once"}
	}
}
