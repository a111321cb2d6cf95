package policy

import (
	"fmt"
	"slices"
	"strings"

	"ferry/internal/backup"
)

// Offer is a point that one of a job's sources offers, with the labels of its machine.
type Offer struct {
	Point *backup.Brief
	// Source is the name of the repository.
	Source string
	// Via is the id of the Ferry repository that it is read from; empty for sources made by others.
	Via string
}

// Selection is what a job makes of the machines that its sources offer.
type Selection struct {
	// Machines: first those that are in, in the order of processing; then those that are out, as they were offered.
	Machines []Selected
	// NotFound are machines that are named, and that no source has.
	NotFound []NotFound
	// Idle are patterns and labels that match nothing, and exclusions and overrides of machines that there are not, as
	// settings: "exclude db2". They are no mistakes: such machines may come.
	Idle []string
}

// Selected is a machine that a source offers.
type Selected struct {
	// Machine as its newest point has it.
	Machine backup.Machine
	// In is true if the job copies it; Reason says why, or why not. By is the selector that includes or excludes it; empty: none does.
	In     bool
	By     Selector
	Reason string
	// Points is how many the sources offer, a point that several have counted once.
	Points int
	// Newest is the newest complete one that may be copied, from the first source that has it; Offered is false if none is,
	// and Why says why.
	Newest  Offer
	Offered bool
	Why     string
	// Retention of the machine, and the number of the override that it is by; -1: the job's.
	Retention Retention
	Override  int
}

// NotFound is a machine that is named and not there.
type NotFound struct {
	Selector Selector
	// Hint names one that may be meant; may be empty.
	Hint string
}

// Choose says of every machine whether the job copies it, and why. Offers of one machine are in the order of the sources;
// target is the id of the target's repository, empty if that is not known.
//
//  1. A machine is as its newest complete point has it; at the same time, as the first source has it.
//  2. What exclude matches is out, whatever includes it.
//  3. Of the rest is in what include matches. The first selector that does gives the machine its place; machines of one
//     selector keep the order of the sources.
func (j Job) Choose(offers []Offer, target string) Selection {
	include := j.Select.Include
	if len(include) == 0 {
		include = []Selector{"*"}
	}
	machines := gather(offers, target)
	used := map[string]bool{}
	rank := map[backup.MachineKey]int{} // the number of the selector that includes it
	for i := range machines {
		m := &machines[i]
		names := namesOf(m.Machine)
		m.Retention, m.Override = j.retentionOf(names)
		for _, o := range j.Overrides {
			names.first(o.Match, "override ", used)
		}
		in, out := names.first(include, "include ", used), names.first(j.Select.Exclude, "exclude ", used)
		switch {
		case out >= 0:
			m.By = j.Select.Exclude[out]
			m.Reason = "excluded by " + string(m.By)
		case in < 0:
			m.Reason = "nothing includes it"
		default:
			m.In, m.By = true, include[in]
			m.Reason = "included by " + string(m.By)
		}
		if rank[m.Machine.Key] = in; !m.In {
			rank[m.Machine.Key] = len(include)
		}
	}
	slices.SortStableFunc(machines, func(a, b Selected) int { return rank[a.Machine.Key] - rank[b.Machine.Key] })
	selection := Selection{Machines: machines}
	j.unused(&selection, used)
	return selection
}

// first is the place of the first selector that matches, or -1. It notes in used all that do, each behind its list's name.
func (m machineNames) first(selectors []Selector, list string, used map[string]bool) int {
	first := -1
	for i, s := range slices.Backward(selectors) {
		if m.match(s) {
			used[list+string(s)] = true
			first = i
		}
	}
	return first
}

// unused notes the selectors that matched nothing.
func (j Job) unused(selection *Selection, used map[string]bool) {
	for _, s := range j.Select.Include {
		switch {
		case used["include "+string(s)]:
		case s.IsPattern():
			selection.Idle = append(selection.Idle, "include "+string(s))
		default:
			selection.NotFound = append(selection.NotFound, NotFound{s, resembling(s, selection.Machines)})
		}
	}
	for _, s := range j.Select.Exclude {
		if !used["exclude "+string(s)] {
			selection.Idle = append(selection.Idle, "exclude "+string(s))
		}
	}
	for _, o := range j.Overrides {
		for _, s := range o.Match {
			if !used["override "+string(s)] {
				selection.Idle = append(selection.Idle, "override "+string(s))
			}
		}
	}
}

// resembling names a machine that a selector may mean.
func resembling(s Selector, machines []Selected) string {
	var all []string
	for _, m := range machines {
		for _, name := range []string{m.Machine.Name, m.Machine.Key.NativeID, m.Machine.Key.String()} {
			if strings.EqualFold(name, string(s)) {
				return fmt.Sprintf("there is %s: upper and lower case differ", backup.EncodeName(name))
			}
		}
		if m.Machine.Name != "" {
			all = append(all, backup.EncodeName(m.Machine.Name))
		}
	}
	return nearWord(string(s), all)
}

// gather puts the offers of each machine together, in the order in which machines first occur.
func gather(offers []Offer, target string) []Selected {
	at := map[backup.MachineKey]int{}
	seen := map[backup.PointID]bool{}
	var machines []Selected
	var newest []*backup.Brief // as which the machine is shown
	for _, o := range offers {
		i, known := at[o.Point.Machine.Key]
		if !known {
			i = len(machines)
			at[o.Point.Machine.Key] = i
			machines = append(machines, Selected{Machine: *o.Point.Machine})
			newest = append(newest, o.Point)
		}
		m := &machines[i]
		if !seen[o.Point.ID] {
			seen[o.Point.ID] = true
			m.Points++
		}
		if MoreTelling(o.Point, newest[i]) {
			newest[i], m.Machine = o.Point, *o.Point.Machine
		}
		switch complete := o.Point.State == backup.StateComplete; {
		case complete && BeenIn(o.Point, o.Via, target):
			m.Why = "its points came from the target, or through it: they are not copied back"
		case complete && (!m.Offered || o.Point.Created.After(m.Newest.Point.Created)):
			m.Newest, m.Offered = o, true
		case !complete && m.Why == "":
			m.Why = fmt.Sprintf("none of its points is complete: %s is %s", o.Point.ID.Short(), o.Point.State)
		}
	}
	for i := range machines {
		if machines[i].Offered {
			machines[i].Why = ""
		}
	}
	return machines
}

// MoreTelling is true if a machine is as p has it rather than as q does: complete points count before others, newer ones
// before older ones. What a point lacks that is still being written, such as disks, its machine does not lack.
func MoreTelling(p, q *backup.Brief) bool {
	if complete := p.State == backup.StateComplete; complete != (q.State == backup.StateComplete) {
		return complete
	}
	return p.Created.After(q.Created)
}

// RetentionOf is the retention of a machine: that of the first override that matches, else the job's. override is its
// number, or -1.
func (j Job) RetentionOf(m backup.Machine) (rules Retention, override int) {
	return j.retentionOf(namesOf(m))
}

// Retentions are all that a machine of the job may have: the job's own, and those of its overrides.
func (j Job) Retentions() []Retention {
	all := []Retention{j.Retention}
	for _, o := range j.Overrides {
		all = append(all, o.Retention)
	}
	return all
}

func (j Job) retentionOf(names machineNames) (Retention, int) {
	for i, o := range j.Overrides {
		if slices.ContainsFunc(o.Match, names.match) {
			return o.Retention, i
		}
	}
	return j.Retention, -1
}
