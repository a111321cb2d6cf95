package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ferry/internal/backup"
)

// Retire notes that a machine has gone for good, or with gone false that it is back, and returns what holds now. To say again what
// holds changes nothing. The error is ErrNotFound if the machine was never heard of.
func (m *Machines) Retire(ctx context.Context, key backup.MachineKey, gone bool) (held backup.Retirement, err error) {
	now := m.db.now()
	err = m.db.write(ctx, "noting whether a machine has gone", func(tx *sql.Tx) error {
		known, err := retirement(ctx, tx, key)
		if err != nil {
			return err
		}
		held = known.Decide(gone, now)
		return setRetirement(ctx, tx, key, held)
	})
	return held, err
}

// NoteRetired notes what a target knows of a machine, unless something later is known.
func (m *Machines) NoteRetired(ctx context.Context, machine backup.Machine, held backup.Retirement) error {
	now := m.db.now()
	return m.db.write(ctx, "noting whether a machine has gone", func(tx *sql.Tx) error {
		if err := upsertMachines(ctx, tx, []backup.Machine{machine}, now); err != nil {
			return err
		}
		known, err := retirement(ctx, tx, machine.Key)
		if err != nil || !held.After(known) {
			return err
		}
		return setRetirement(ctx, tx, machine.Key, held)
	})
}

// Retired are the machines of which a person has said whether they have gone for good.
func (m *Machines) Retired(ctx context.Context) (map[backup.MachineKey]backup.Retirement, error) {
	list := map[backup.MachineKey]backup.Retirement{}
	err := m.db.read(ctx, "reading which machines have gone", func(rows *sql.Rows) error {
		known, err := scanMachine(rows)
		list[known.Key] = known.Retired
		return err
	}, `SELECT `+machineColumns+` FROM machines m WHERE m.retired_decided_at <> 0`)
	return list, err
}

// All returns every machine that was ever heard of, by id.
func (m *Machines) All(ctx context.Context) (list []KnownMachine, err error) {
	err = m.db.read(ctx, "reading the machines", func(rows *sql.Rows) error {
		known, err := scanMachine(rows)
		list = append(list, known)
		return err
	}, `SELECT `+machineColumns+` FROM machines m ORDER BY m.id`)
	return list, err
}

func retirement(ctx context.Context, tx *sql.Tx, key backup.MachineKey) (backup.Retirement, error) {
	var since, decided int64
	err := tx.QueryRowContext(ctx, `SELECT retired_at, retired_decided_at FROM machines WHERE id = $1`, machineID(key)).Scan(&since, &decided)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("machine %s: %w", key, ErrNotFound)
	}
	return backup.Retirement{Since: maybe(since), Decided: maybe(decided)}, err
}

func setRetirement(ctx context.Context, tx *sql.Tx, key backup.MachineKey, held backup.Retirement) error {
	_, err := execute(ctx, tx, `UPDATE machines SET retired_at = $2, retired_decided_at = $3 WHERE id = $1 AND retired_decided_at <= $3`, machineID(key), stamp(held.Since), stamp(held.Decided))
	return err
}
