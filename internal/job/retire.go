package job

import (
	"context"
	"encoding/json"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
)

// That a machine has gone for good is known in three places: a server's catalog, where a person says so; the session, which is
// given it; and the target, where each session leaves what it knows of the machines that it has points of. So a server that knows
// nothing but the target learns it from there. Where they differ, what was decided last holds.

// Retired is what a person has said last of whether a machine has gone for good.
type Retired struct {
	Machine backup.Machine
	backup.Retirement
}

// retire takes over what is known of a machine, unless something later is.
func (m *memory) retire(id string, known backup.Retirement) {
	if !known.After(m.Retired[id]) {
		return
	}
	if m.Retired == nil {
		m.Retired = map[string]backup.Retirement{}
	}
	m.Retired[id] = known
}

// retirement is what is known of a machine of the job: what the host knows goes to the target with it.
func (r *runner) retirement(key backup.MachineKey) backup.Retirement {
	id := key.String()
	if known, is := r.told[key]; is {
		r.memory.retire(id, known)
	}
	return r.memory.Retired[id]
}

// noteRetired adds a machine of the job to those that have gone for good, if it has.
func (r *runner) noteRetired(since map[backup.MachineKey]time.Time, key backup.MachineKey) {
	if len(r.told)+len(r.memory.Retired) == 0 {
		return
	}
	if known := r.retirement(key); !known.Since.IsZero() {
		since[key] = known.Since
	}
}

// rememberRetired takes over what was left in the target since the memory was read: by a person who retired a machine there.
func (r *runner) rememberRetired(ctx context.Context) {
	records, _, err := r.target.Jobs(ctx, r.Job.Name)
	var left memory
	if err != nil || len(records) != 1 || json.Unmarshal(records[0].Memory, &left) != nil {
		return // recall tells what cannot be read
	}
	for id, known := range left.Retired {
		if _, is := r.memory.Retired[id]; is || !known.Since.IsZero() {
			r.memory.retire(id, known)
		}
	}
}

// retired are the machines of the session of which a person has said whether they have gone.
func (r *runner) retired() []Retired {
	var list []Retired
	for key, machine := range r.machines {
		if known := r.retirement(key); !known.Decided.IsZero() {
			list = append(list, Retired{Machine: machine, Retirement: known})
		}
	}
	return list
}

// Retire leaves in the target of a job that a machine has gone for good, or with gone false that it is back, for whoever has no
// server that knows. The machine is named as in plan.FindMachine, and is one of which the job has points; else plan.ErrNotFound or
// plan.ErrAmbiguous. Another error is that the target is not ready, as the state says, or what it gave.
func Retire(ctx context.Context, setup Setup, machine string, gone bool) (Retired, TargetState, error) {
	r := newRunner(setup)
	defer r.close()
	found, err := r.retireFound(ctx, machine, gone)
	return found, r.session.Target, err
}

func (r *runner) retireFound(ctx context.Context, machine string, gone bool) (found Retired, err error) {
	if err := r.openTarget(ctx); err != nil {
		return found, err
	}
	if err := r.target.Refresh(ctx); err != nil {
		return found, err
	}
	situation, err := r.situation(ctx)
	if err != nil {
		return found, err
	}
	var machines []backup.Machine
	seen := map[backup.MachineKey]bool{}
	for _, h := range situation.Held {
		if key := r.backupOf(h.Machine.Key); h.Claimed && !seen[key] {
			seen[key] = true
			machines = append(machines, backup.Machine{Key: key, Name: h.Machine.Name, Labels: h.Machine.Labels})
		}
	}
	if found.Machine, err = plan.AmongMachines(machines, machine); err != nil {
		return found, err
	}
	id := found.Machine.Key.String()
	found.Retirement = r.memory.Retired[id].Decide(gone, r.Now())
	r.memory.retire(id, found.Retirement)
	return found, r.remember(ctx)
}
