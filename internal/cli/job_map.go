package cli

import (
	"context"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
)

// mappedJSON is a backup in the target that is a machine's by target.map.
type mappedJSON struct {
	Backup  string `json:"backup"`
	Machine string `json:"machine"`
	Points  int    `json:"points"`
}

// text says what a machine has by it.
func (m mappedJSON) text(machine string) string {
	text := "target.map: " + m.Backup
	if m.Machine != machine {
		text += ", machine " + m.Machine + " there,"
	}
	return text + " has " + counted(m.Points, "point") + " for it"
}

func describeMapped(all []plan.Mapped) []mappedJSON {
	described := []mappedJSON{}
	for _, mapped := range all {
		described = append(described, describeMapping(mapped))
	}
	return described
}

func describeMapping(mapped plan.Mapped) mappedJSON {
	return mappedJSON{printable(mapped.Backup), mapped.Machine.Key.String(), mapped.Points}
}

// mappingSeen is what target.map comes to for a machine, or why it comes to nothing for it; without a machine, why an entry
// does.
type mappingSeen struct {
	machine *backup.Machine
	mapped  plan.Mapped
	problem string
}

// mappingsOf follows target.map, which takes a look into the target. That it cannot be followed is one of the things to show.
func (a *app) mappingsOf(ctx context.Context, c chosenJob) []mappingSeen {
	if len(c.Target.Map) == 0 {
		return nil
	}
	setup, err := a.setup(c)
	if err != nil {
		return []mappingSeen{{problem: err.Error()}}
	}
	e, err := job.Explain(ctx, setup)
	if err != nil {
		return []mappingSeen{{problem: fmt.Sprintf("target.map cannot be followed: %v", targetError(e.Target, err))}}
	}
	var all []mappingSeen
	for _, m := range e.Plan.Machines {
		for _, mapped := range m.Mapped {
			all = append(all, mappingSeen{machine: &m.Machine, mapped: mapped})
		}
		if m.Refused != "" {
			all = append(all, mappingSeen{machine: &m.Machine, problem: m.Refused})
		}
	}
	for _, warning := range e.Plan.Warnings {
		all = append(all, mappingSeen{problem: warning})
	}
	return all
}

func (a *app) printMappings(all []mappingSeen) {
	for _, m := range all {
		switch {
		case m.problem == "":
			a.line("%s: %s", machineTitle(*m.machine), readable(describeMapping(m.mapped).text(m.machine.Key.String())))
		case m.machine == nil:
			a.line("%s", readable(m.problem))
		default:
			a.line("REFUSED  %s: %s", machineTitle(*m.machine), readable(m.problem))
		}
	}
}

// mappingJSON is what target.map comes to for a machine, or the problem with it. The machine is empty where an entry is for
// none; what is mapped is empty where there is a problem.
type mappingJSON struct {
	Machine string     `json:"machine"`
	Mapped  mappedJSON `json:"mapped"`
	Problem string     `json:"problem"`
}

func describeMappings(all []mappingSeen) []mappingJSON {
	described := []mappingJSON{}
	for _, m := range all {
		row := mappingJSON{Problem: readable(m.problem)}
		if m.machine != nil {
			row.Machine = m.machine.Key.String()
		}
		if m.problem == "" {
			row.Mapped = describeMapped([]plan.Mapped{m.mapped})[0]
		}
		described = append(described, row)
	}
	return described
}
