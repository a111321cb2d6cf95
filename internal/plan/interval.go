package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// The actions of an interval's plan, beside those of a copy by hand. Only ActionCopy moves data.
const (
	// ActionClaim: the target has the point for another job, and this one claims it too.
	ActionClaim Action = "claim"
	// ActionKeep and ActionRemove are for points that the job claims in the target.
	ActionKeep   Action = "keep"
	ActionRemove Action = "remove"
	// ActionWait: the point is locked by its writer, and waited for.
	ActionWait Action = "wait"
	// ActionNotKept: the rules would remove the point as soon as it were copied.
	ActionNotKept Action = "not kept"
	// ActionNotBack: the point has been in the target's repository before it came to the source.
	ActionNotBack Action = "not copied back"
	// ActionPassed: the interval takes another point, or none.
	ActionPassed Action = "passed over"
	// ActionRefused: target.map cannot be followed for the machine, so nothing of it is copied.
	ActionRefused Action = "refused"
	// ActionNotSelected: the job does not copy the machine, or the target's point is none of the job's.
	ActionNotSelected Action = "not selected"
)

// Offer is a point that a source offers.
type Offer struct {
	*backup.Brief
	// Source is the number of the source in the job's order, from 0.
	Source int
	// Via is the id of the Ferry repository that it would be read from; empty for sources made by others.
	Via string
	// Grew is when the point's files were last written, by its source's clock; of a locked one, when it was last seen to grow, or first
	// seen, by the job's.
	Grew time.Time
}

// Held is a point of the target. Its state is broken if it is not known to be whole.
type Held struct {
	*backup.Brief
	// Claimed is true if the job claims it, and Claim is what was decided then.
	Claimed bool
	Claim   Claim
	// Others are the other jobs that claim it, Holds what else keeps it, in words.
	Others, Holds []string
}

// Tombstone is what is known of a point that the target has given up: why, and, if it is this job that gave it up, its claim.
type Tombstone struct {
	Reason string
	Own    bool
	Claim  Claim
}

// Situation is what an interval of a job is planned from.
type Situation struct {
	Mode     policy.Mode
	Lookup   policy.Lookup
	Interval policy.Interval
	// Intervals are those of the job's schedule, and Turns the last of them that took points of a machine.
	Intervals policy.Intervals
	Turns     map[backup.MachineKey][]policy.Turn
	Now       time.Time
	// Zone is for times in reasons; nil is UTC.
	Zone *time.Location
	// Full reads the newest complete point of each machine whole from its source, also if the target has it.
	// Whole does so for single machines. Of a machine of which nothing can be read whole the lookup chooses.
	Full  bool
	Whole map[backup.MachineKey]bool
	// WholeBegun are points of which a part was read whole before an interruption: they go before newer ones.
	WholeBegun map[backup.PointID]bool
	// Offers of all sources: those of one machine in the order of the sources.
	Offers []Offer
	Held   []Held
	// Job is the name of the job, and Map says which backups in the target are its own too.
	Job string
	Map []policy.Mapping
	// Selected are the machines to copy, in the order of processing.
	Selected []backup.MachineKey
	// Retention of a machine.
	Retention func(backup.Machine) policy.Retention
	// Forgotten tells of points that the target had and gave up; nil: none.
	Forgotten func(backup.PointID) (Tombstone, bool)
	// Pinned are points whose copy has begun and is to be finished, Stored the machines of which this interval has stored a
	// point already.
	Pinned map[backup.PointID]bool
	Stored map[backup.MachineKey]bool
	// TargetID is the id of the target's repository.
	TargetID string
	// Doubt says why sources may have more than their listings say, so that these are no evidence that anything has gone; empty:
	// they were listed whole. AllRules are all retentions that a machine of the job may have, whatever its points say of it.
	Doubt    string
	AllRules []policy.Retention
	// Unread is true if, with Doubt, nothing was listed because the sources may not be read now, and all was the last time: machines
	// are where they were then.
	Unread bool
	// Hidden: a source has points that cannot be listed, so that a machine which a person says has gone may have some there.
	Hidden bool
	// Missing says since when machines are in no source, as earlier intervals found.
	Missing map[backup.MachineKey]time.Time
	// Retired says since when machines have gone for good, as a person said. PurgeAfter is how long after that their copies
	// are removed; 0 is never.
	Retired    map[backup.MachineKey]time.Time
	PurgeAfter time.Duration
	// newest is when the newest good point was created, of any machine.
	newest time.Time
}

// IntervalStep is what happens to one point, and why.
type IntervalStep struct {
	Point *backup.Brief
	// Source is the number of the source that the point is taken from; -1 if none offers it. OnTarget is true if the target
	// has it now.
	Source   int
	OnTarget bool
	Action   Action
	// Reasons in words for a person, at least one.
	Reasons []string
	// Slots that the point fills by the rules, by name.
	Slots []string
	// Outlook is when a point that the job keeps, or is going to, goes at the earliest.
	Outlook policy.Outlook
	// Stays says what keeps a point that the job gives up; empty: it goes.
	Stays string
	// Failure is true if not copying the point is a failure of its machine.
	Failure bool
	// Given is true if the job has the state by target.map: as this point, or, where the target does not have it, as that of
	// another machine.
	Given bool
	// Again is true if the job has given the point up before, and takes it beside what the interval takes.
	Again bool
}

// MachinePlan is what an interval does with one machine.
type MachinePlan struct {
	Machine backup.Machine
	// Selected is false for a machine that only the target has, or that the job does not copy.
	Selected bool
	// Reason says in words what the interval does with the machine.
	Reason string
	// Waits is true if a point may still come in this interval; Look is when to look again although nothing changed.
	Waits bool
	Look  time.Time
	// Pinned is true if what is copied was chosen by an earlier interval.
	Pinned bool
	// Locked is true if what is waited for is a lock.
	Locked bool
	// Missing is since when no source has any point of the machine, though the job holds some; zero if one has.
	Missing time.Time
	// Retired is since when a person says that the machine has gone for good; zero: nobody does. Purge is from when all that the
	// job has of it is removed; zero: the rules decide.
	Retired, Purge time.Time
	// Behind says that intervals always take the point before the one they should, and what helps; empty: not that one knows.
	Behind string
	// Mapped are the backups in the target that target.map makes the machine's. Refused says why nothing of the machine is
	// copied although the job is to: an entry of target.map that cannot be followed.
	Mapped  []Mapped
	Refused string
	// Alarms need a person; warnings are worth one.
	Alarms, Warnings []string
	// Steps by time of creation, oldest first.
	Steps []IntervalStep
}

// IntervalPlan is what an interval does: for each machine, those selected first, in their order.
type IntervalPlan struct {
	Machines []MachinePlan
	// Frozen says why nothing is removed; empty: nothing keeps it from that.
	Frozen string
	// Alarms need a person, and are of no single machine; warnings are worth one.
	Alarms, Warnings []string
}

// Steps with the action, in the order of the plan.
func (p IntervalPlan) Steps(action Action) []IntervalStep {
	var steps []IntervalStep
	for _, m := range p.Machines {
		for _, step := range m.Steps {
			if step.Action == action {
				steps = append(steps, step)
			}
		}
	}
	return steps
}

// newlyMissing is how long a machine counts as just gone: a listing from which more than half of the machines have just
// gone is not believed. After that it is how things are.
const newlyMissing = 7 * 24 * time.Hour

// future is how far ahead of the clock a point may be dated before its machine raises an alarm.
const future = 24 * time.Hour

// Interval plans an interval.
//
//  1. Selected machines: the lookup chooses points; of these go those that the rules would remove at once, those that the
//     target has for other jobs are claimed, the others are copied. Where all that had begun goes so, it chooses anew.
//     With backfill, what a rule of the job removed comes back beside that, once the rules would keep it.
//  2. Every machine of which the job holds points: the rules say what stays, with what is to be copied counted in.
//  3. Nothing is removed if more than half of the machines have just gone from the sources' listings.
//  4. If sources may have more than was listed, only that goes which would also go were all of it known (doubt.go).
//  5. All goes of a machine that a person has retired, once purgeAfter has passed (retired.go).
func Interval(s Situation) IntervalPlan {
	mapped := s.mappings()
	s.newest = s.newestGood()
	offers, held := byMachine(s.Offers, mapped.offered), byMachine(s.Held, mapped.held)
	p := IntervalPlan{Warnings: mapped.idle}
	p.Frozen = s.frozen(offers, held)
	selected := map[backup.MachineKey]bool{}
	for _, key := range s.Selected {
		key = mapped.offered(key)
		if !selected[key] && (len(offers[key]) > 0 || len(held[key]) > 0) {
			selected[key] = true
			p.Machines = append(p.Machines, s.machine(key, mapped, offers[key], held[key], true, p.Frozen))
		}
	}
	for _, key := range s.others(selected, mapped) {
		p.Machines = append(p.Machines, s.machine(key, mapped, offers[key], held[key], false, p.Frozen))
	}
	if p.Frozen != "" && s.Doubt == "" {
		p.Alarms = append(p.Alarms, "nothing is removed: "+p.Frozen)
	}
	return p
}

// pointed is anything that is a point.
type pointed interface{ point() *backup.Brief }

func (o *Offer) point() *backup.Brief { return o.Brief }
func (h *Held) point() *backup.Brief  { return h.Brief }

// same is for points that are sorted by their own machine.
func same(key backup.MachineKey) backup.MachineKey { return key }

// byMachine sorts points by the machine that they are planned with. They stay where they are.
func byMachine[T any, P interface {
	*T
	pointed
}](points []T, with func(backup.MachineKey) backup.MachineKey) map[backup.MachineKey][]P {
	of := map[backup.MachineKey][]P{}
	for i := range points {
		p := P(&points[i])
		key := with(p.point().Machine.Key)
		of[key] = append(of[key], p)
	}
	return of
}

// others are the machines that are not selected, sorted by id.
func (s Situation) others(selected map[backup.MachineKey]bool, mapped mappings) []backup.MachineKey {
	seen := map[backup.MachineKey]bool{}
	var keys []backup.MachineKey
	add := func(key backup.MachineKey) {
		if !selected[key] && !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	for i := range s.Offers {
		add(mapped.offered(s.Offers[i].Machine.Key))
	}
	for i := range s.Held {
		add(mapped.held(s.Held[i].Machine.Key))
	}
	slices.SortFunc(keys, func(a, b backup.MachineKey) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// frozen says why nothing may be removed in this interval.
func (s Situation) frozen(offers map[backup.MachineKey][]*Offer, held map[backup.MachineKey][]*Held) string {
	had, gone := 0, 0
	for key, points := range held {
		if _, retired := s.Retired[key]; retired && len(offers[key]) == 0 {
			continue // a person says that it is so
		}
		if !slices.ContainsFunc(points, func(h *Held) bool { return h.Claimed }) {
			continue
		}
		since, known := s.Missing[key]
		if len(offers[key]) > 0 || s.Unread && !known {
			had++
			continue
		}
		if !known || s.Now.Sub(since) < newlyMissing {
			had++
			gone++
		}
	}
	switch {
	case 2*gone <= had:
		return ""
	case s.Doubt != "" && !s.Unread:
		return fmt.Sprintf("%s, and %d of %d machines that the job has copied are not listed", s.Doubt, gone, had)
	}
	return fmt.Sprintf("%d of %d machines that the job has copied are in no source any more", gone, had)
}

func (s Situation) show(at time.Time) string { return policy.ShowTime(at, s.Zone) }

// machine plans one machine.
func (s Situation) machine(key backup.MachineKey, mapped mappings, offers []*Offer, held []*Held, selected bool, frozen string) MachinePlan {
	m := machinePlanner{s: s, mapped: mapped, offers: firstOffers(offers), held: held, lifted: map[backup.PointID]bool{}}
	m.plan.Machine, m.plan.Selected = machineOf(key, m.offers, held), selected
	m.plan.Mapped = mapped.by[key]
	m.s.Full = s.Full || s.Whole[m.plan.Machine.Key]
	m.rules = policy.Retention{}
	if s.Retention != nil {
		m.rules = s.Retention(m.plan.Machine)
	}
	m.index()
	m.freeze(frozen)
	switch refused := mapped.refused[key]; {
	case !selected:
		m.plan.Reason = "the job does not copy it"
	case refused != "":
		m.plan.Reason, m.plan.Refused = refused, refused
	default:
		m.choose()
		m.plan.Behind = s.Intervals.Behind(s.Lookup, s.Turns[m.plan.Machine.Key], m.arrivals(), s.Now)
	}
	m.missing()
	m.retired()
	m.judge()
	m.describe()
	slices.SortStableFunc(m.plan.Steps, func(a, b IntervalStep) int {
		return cmp.Or(a.Point.Created.Compare(b.Point.Created), slices.Compare(a.Point.ID[:], b.Point.ID[:]))
	})
	return m.plan
}

// firstOffers keeps one offer of each point: the first complete one, in the order of the sources.
func firstOffers(offers []*Offer) []*Offer {
	at := make(map[backup.PointID]int, len(offers))
	first := make([]*Offer, 0, len(offers))
	for _, o := range offers {
		i, seen := at[o.ID]
		switch {
		case !seen:
			at[o.ID] = len(first)
			first = append(first, o)
		case first[i].State != backup.StateComplete && o.State == backup.StateComplete:
			first[i] = o
		}
	}
	return first
}

// machineOf is the machine as its newest complete point has it, else as the newest that the target has, else as the newest.
// Its rules go by that. They remove nothing by what an incomplete point says: where no point is complete, everything stays.
// Points of machines that are linked with it by target.map say nothing, unless there are no others.
func machineOf(key backup.MachineKey, offers []*Offer, held []*Held) backup.Machine {
	var own, linked *backup.Brief
	add := func(p *backup.Brief) {
		telling := &own
		if p.Machine.Key != key {
			telling = &linked
		}
		if *telling == nil || p.Machine.Key == (*telling).Machine.Key && policy.MoreTelling(p, *telling) {
			*telling = p
		}
	}
	for _, o := range offers {
		if o.State == backup.StateComplete || len(held) == 0 {
			add(o.Brief)
		}
	}
	for _, h := range held {
		add(h.Brief)
	}
	telling := cmp.Or(own, linked)
	machine := *telling.Machine
	machine.Key = key
	return machine
}
