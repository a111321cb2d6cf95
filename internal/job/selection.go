package job

import (
	"fmt"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// Which machines a job copies goes by what its sources say of them. One that is called otherwise there, or has lost a label, drops out of
// the selection without anybody having said so, and one that select.include misspells never gets into it. What the job knows of machines
// tells these from those that a person took out: who edits select.include, or excludes a machine, has.

// dropped is a machine that the job would select as it knows it, and does not select of what its sources offer.
type dropped struct {
	// known is the machine as the newest point has it, or as it was selected last, and by the selector that picks it so.
	known backup.Machine
	by    policy.Selector
	// now is the machine as a source has it; nil: none offers it. sure is true if a complete point says so.
	now  *backup.Machine
	sure bool
}

// machine is the machine as it is shown.
func (d dropped) machine() backup.Machine {
	if d.now != nil {
		return *d.now
	}
	return d.known
}

// text says what became of a machine that a source offers, and what a person can do.
func (d dropped) text() string {
	name := nameOf(describeMachine(d.known))
	if d.now.Name == d.known.Name {
		return fmt.Sprintf("%s has not got the label any more by which %s selected it: it is not copied any more; include it by its name or id, or exclude it", name, d.by)
	}
	return fmt.Sprintf("%s is now called %s, which nothing in select.include matches as %s did: it is not copied any more; include it by its new name or by its id, or exclude it",
		name, backup.EncodeName(d.now.Name), d.by)
}

// dropped are the machines that the job has points of, or selected last, and that it would select as it knows them, but does not: no
// source offers them now, or one does and nothing includes them. What is excluded, by what it was or is, is none.
func (r *runner) dropped(held []plan.Held) []dropped {
	now := map[backup.MachineKey]*policy.Selected{}
	for i := range r.selection.Machines {
		now[r.selection.Machines[i].Machine.Key] = &r.selection.Machines[i]
	}
	decided := func(key backup.MachineKey) bool { return now[key] != nil && now[key].By != "" } // included or excluded
	var points []policy.Offer
	for _, h := range held {
		key := r.backupOf(h.Machine.Key)
		if !h.Claimed || decided(key) {
			continue
		}
		point := *h.Brief
		if h.Machine.Key != key {
			machine := *h.Machine
			machine.Key, point.Machine = key, &machine
		}
		points = append(points, policy.Offer{Point: &point})
	}
	for i := range r.memory.Selected { // points of it, if there are any, are newer than the zero time
		if m := &r.memory.Selected[i]; now[m.Key] != nil && !decided(m.Key) {
			points = append(points, policy.Offer{Point: &backup.Brief{Machine: m, State: backup.StateComplete}})
		}
	}
	var list []dropped
	for _, m := range r.Job.Choose(points, r.targetID()).Machines {
		if !m.In {
			continue
		}
		d := dropped{known: m.Machine, by: m.By}
		if is := now[m.Machine.Key]; is != nil {
			d.now, d.sure = &is.Machine, is.Offered
		}
		list = append(list, d)
	}
	return list
}

// rememberedSelected is how many machines without points are remembered: in the first session of a job all are.
const rememberedSelected = 1000

// noteSelected remembers the machines that are selected now, or were and have dropped out, as far as the job has no points of them.
func (r *runner) noteSelected(held []plan.Held, out []dropped) {
	known := map[backup.MachineKey]bool{}
	for _, h := range held {
		if h.Claimed {
			known[r.backupOf(h.Machine.Key)] = true
		}
	}
	var selected []backup.Machine
	add := func(m backup.Machine) {
		if !known[m.Key] && len(selected) < rememberedSelected {
			known[m.Key] = true
			selected = append(selected, m)
		}
	}
	for _, d := range out {
		add(d.known)
	}
	for _, m := range r.selection.Machines {
		if m.In {
			add(m.Machine)
		}
	}
	for _, m := range r.memory.Selected {
		if r.doubt != "" && !slices.ContainsFunc(r.selection.Machines, func(is policy.Selected) bool { return is.Machine.Key == m.Key }) {
			add(m)
		}
	}
	r.memory.Selected = selected
}

// judgeSelection adds to a plan the alarms of machines that have dropped out of the selection, and of those that it names and that there are
// not. What a source has that could not be listed nobody knows: while there is such a source, nothing is said of machines that are there by
// another name, and only a warning of those that are not.
func (r *runner) judgeSelection(p *plan.IntervalPlan, out []dropped) {
	if len(r.offers) == 0 {
		return // the sources' states say so
	}
	known := func(s policy.Selector) bool {
		return slices.ContainsFunc(out, func(d dropped) bool { return s.Matches(d.known) })
	}
	var unlisted []string
	for _, n := range r.selection.NotFound {
		switch {
		case known(n.Selector):
		case r.doubt != "":
			unlisted = append(unlisted, string(n.Selector))
		default:
			text := fmt.Sprintf("select.include names %s, and no source has such a machine", n.Selector)
			if n.Hint != "" {
				text += ": " + n.Hint
			}
			p.Alarms = append(p.Alarms, text)
		}
	}
	if len(unlisted) > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("select.include names machines that nothing which is listed has: %s; %s", firstFew(unlisted), r.doubt))
	}
	if r.doubt != "" {
		return
	}
	for _, s := range r.Job.Select.Include {
		if slices.Contains(r.selection.Idle, "include "+string(s)) && !known(s) {
			p.Warnings = append(p.Warnings, fmt.Sprintf("select.include has %s, which matches no machine", s))
		}
	}
	for _, d := range out {
		if d.sure && r.retirement(d.known.Key).Since.IsZero() {
			p.Alarms = append(p.Alarms, d.text())
		}
	}
}
