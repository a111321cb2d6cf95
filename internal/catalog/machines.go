package catalog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
)

// KnownMachine is a machine that the catalog has heard of.
type KnownMachine struct {
	backup.Machine
	// Retired says whether the machine has gone for good, as a person said.
	Retired backup.Retirement
}

// Sighting is what a source repository showed of a machine. Times are by this catalog's clock, in UTC.
type Sighting struct {
	Repository string
	Machine    backup.Machine
	// First and Last are when a listing had the machine.
	First, Last time.Time
	// Missing is when a complete listing first lacked it; zero: the last listing had it.
	Missing time.Time
}

// Machines are all that were ever heard of, and where they were seen.
type Machines struct{ db *database }

// machineID is under what a machine is kept: its key as 64 hex digits, which sort alike on every database.
func machineID(key backup.MachineKey) string {
	sum := sha256.Sum256(key.Canonical())
	return hex.EncodeToString(sum[:])
}

// machineColumns are those of table machines under the name m.
const machineColumns = `m.platform, m.instance, m.uuid, m.source_name, m.native_id, m.name, m.labels, m.retired_at, m.retired_decided_at`

// machineScan takes the machineColumns of a row.
type machineScan struct {
	platform, instance, uuid, source, native, name, labels string
	retired, decided                                       int64
}

func (s *machineScan) fields() []any {
	return []any{&s.platform, &s.instance, &s.uuid, &s.source, &s.native, &s.name, &s.labels, &s.retired, &s.decided}
}

func (s *machineScan) machine() (m KnownMachine, err error) {
	parts := []string{s.platform, s.instance, s.uuid, s.source, s.native, s.name}
	for i := range parts {
		if parts[i], err = backup.DecodeName(parts[i]); err != nil {
			return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	m.Key = backup.MachineKey{Platform: backup.Platform(parts[0]), Instance: parts[1], UUID: parts[2], SourceName: parts[3], NativeID: parts[4]}
	m.Name, m.Retired = parts[5], backup.Retirement{Since: maybe(s.retired), Decided: maybe(s.decided)}
	if m.Labels, err = decoded(s.labels); len(m.Labels) == 0 {
		m.Labels = nil
	}
	return m, err
}

func scanMachine(rows *sql.Rows) (KnownMachine, error) {
	var s machineScan
	if err := rows.Scan(s.fields()...); err != nil {
		return KnownMachine{}, err
	}
	return s.machine()
}

// upsertMachines sees to it that machines are known, with the name and labels that they had at a time. It goes by id, so that
// two transactions cannot wait for each other.
func upsertMachines(ctx context.Context, tx *sql.Tx, machines []backup.Machine, at time.Time) error {
	type keyed struct {
		id      string
		machine backup.Machine
	}
	sorted := make([]keyed, len(machines))
	for i, machine := range machines {
		sorted[i] = keyed{machineID(machine.Key), machine}
	}
	slices.SortStableFunc(sorted, func(a, b keyed) int { return strings.Compare(a.id, b.id) })
	for _, m := range sorted {
		key := m.machine.Key
		_, err := tx.ExecContext(ctx, `
			INSERT INTO machines (id, platform, instance, uuid, source_name, native_id, name, labels, named_at, retired_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels, named_at = excluded.named_at
			WHERE excluded.named_at > machines.named_at AND (excluded.name <> machines.name OR excluded.labels <> machines.labels)`,
			m.id, backup.EncodeName(string(key.Platform)), backup.EncodeName(key.Instance), backup.EncodeName(key.UUID), backup.EncodeName(key.SourceName),
			backup.EncodeName(key.NativeID), backup.EncodeName(m.machine.Name), encoded(m.machine.Labels), stamp(at))
		if err != nil {
			return err
		}
	}
	return nil
}

// Saw notes a complete listing of a source repository: its machines were seen now, the others that it had are missing since
// now, if not for longer. Only call it when the whole repository could be listed: a source that is offline misses nothing.
func (m *Machines) Saw(ctx context.Context, repository string, machines []backup.Machine) error {
	if err := checkName("repository", repository); err != nil {
		return err
	}
	now := m.db.now()
	return m.db.write(ctx, "noting the machines of "+repository, func(tx *sql.Tx) error {
		if err := upsertMachines(ctx, tx, machines, now); err != nil {
			return err
		}
		missing := map[string]bool{}
		if err := each(ctx, tx, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			missing[id] = true
			return err
		}, `SELECT machine FROM sightings WHERE repository = $1 AND missing_at = 0`, repository); err != nil {
			return err
		}
		for _, machine := range machines {
			id := machineID(machine.Key)
			delete(missing, id)
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO sightings (repository, machine, first_at, last_at, missing_at) VALUES ($1, $2, $3, $3, 0)
				ON CONFLICT (repository, machine) DO UPDATE SET last_at = excluded.last_at, missing_at = 0`, repository, id, stamp(now)); err != nil {
				return err
			}
		}
		for id := range missing {
			if _, err := tx.ExecContext(ctx, `UPDATE sightings SET missing_at = $3 WHERE repository = $1 AND machine = $2`, repository, id, stamp(now)); err != nil {
				return err
			}
		}
		return nil
	})
}

const sightingQuery = `SELECT s.repository, s.first_at, s.last_at, s.missing_at, ` + machineColumns + ` FROM sightings s JOIN machines m ON m.id = s.machine`

// Sightings returns what a source repository showed, the machines first seen first.
func (m *Machines) Sightings(ctx context.Context, repository string) ([]Sighting, error) {
	return m.sightings(ctx, sightingQuery+` WHERE s.repository = $1 ORDER BY s.first_at, s.machine`, repository)
}

// LastSeen is when each source repository was last listed whole, as long as it has had machines.
func (m *Machines) LastSeen(ctx context.Context) (map[string]time.Time, error) {
	seen := map[string]time.Time{}
	err := m.db.read(ctx, "reading when sources were seen", func(rows *sql.Rows) error {
		var repository string
		var last int64
		err := rows.Scan(&repository, &last)
		seen[repository] = moment(last)
		return err
	}, `SELECT repository, MAX(last_at) FROM sightings GROUP BY repository`)
	return seen, err
}

func (m *Machines) sightings(ctx context.Context, query string, args ...any) (list []Sighting, err error) {
	err = m.db.read(ctx, "reading where machines were seen", func(rows *sql.Rows) error {
		var s Sighting
		var first, last, missing int64
		var machine machineScan
		if err := rows.Scan(append([]any{&s.Repository, &first, &last, &missing}, machine.fields()...)...); err != nil {
			return err
		}
		known, err := machine.machine()
		s.Machine, s.First, s.Last, s.Missing = known.Machine, moment(first), moment(last), maybe(missing)
		list = append(list, s)
		return err
	}, query, args...)
	return list, err
}

// Get returns what is known of a machine, else ErrNotFound.
func (m *Machines) Get(ctx context.Context, key backup.MachineKey) (found KnownMachine, err error) {
	there := false
	err = m.db.read(ctx, "reading a machine", func(rows *sql.Rows) (err error) {
		found, err = scanMachine(rows)
		there = true
		return err
	}, `SELECT `+machineColumns+` FROM machines m WHERE m.id = $1`, machineID(key))
	if err == nil && !there {
		err = fmt.Errorf("machine %s: %w", key, ErrNotFound)
	}
	return found, err
}
