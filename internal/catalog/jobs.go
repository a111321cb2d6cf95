package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"ferry/internal/backup"
)

// JobState is where a job stands in its schedule. Times are in UTC, and zero where there is none.
type JobState struct {
	Job     string
	Enabled bool
	// Start is when the job was first enabled, or disabled before that: minutes and hours are counted from it. Only Correct changes it.
	Start time.Time
	// Last is the nominal boundary of the last interval that began, Next of the one that begins next.
	Last, Next time.Time
	// Asked is when something other than the schedule asked for an interval that has not begun yet.
	Asked time.Time
}

// Jobs are where jobs stand, and which machines they selected.
type Jobs struct{ db *database }

const jobColumns = `name, enabled, start_at, last_at, next_at, asked_at`

func scanJob(rows *sql.Rows) (s JobState, err error) {
	var enabled, start, last, next, asked int64
	err = rows.Scan(&s.Job, &enabled, &start, &last, &next, &asked)
	s.Enabled, s.Start, s.Last, s.Next, s.Asked = enabled != 0, maybe(start), maybe(last), maybe(next), maybe(asked)
	return s, err
}

// Enable switches a job on.
func (j *Jobs) Enable(ctx context.Context, job string) error {
	return j.turn(ctx, "enabling", job, `ON CONFLICT (name) DO UPDATE SET enabled = 1, `+firstStart, true)
}

// EnableNew switches a job on that was neither enabled nor disabled before.
func (j *Jobs) EnableNew(ctx context.Context, job string) error {
	return j.turn(ctx, "enabling new", job, `ON CONFLICT (name) DO UPDATE SET enabled = 1, `+firstStart+` WHERE jobs.start_at = 0`, true)
}

// Disable switches a job off: nothing of it begins by itself. A running session goes on.
func (j *Jobs) Disable(ctx context.Context, job string) error {
	return j.turn(ctx, "disabling", job, `ON CONFLICT (name) DO UPDATE SET enabled = 0, next_at = 0, `+firstStart, false)
}

const firstStart = `start_at = CASE WHEN jobs.start_at = 0 THEN excluded.start_at ELSE jobs.start_at END`

// turn switches a job on or off, the way that conflict says if it is known already.
func (j *Jobs) turn(ctx context.Context, doing, job, conflict string, on bool) error {
	if err := checkName("job", job); err != nil {
		return err
	}
	now := j.db.now()
	return j.db.write(ctx, doing+" job "+job, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO jobs (`+jobColumns+`) VALUES ($1, $2, $3, 0, 0, 0) `+conflict, job, flag(on), stamp(now))
		return err
	})
}

// SetNext notes when a job's next interval begins; the zero time: not by itself. A job that is not enabled gets none.
func (j *Jobs) SetNext(ctx context.Context, job string, next time.Time) error {
	return j.db.write(ctx, "scheduling job "+job, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE jobs SET next_at = $2 WHERE name = $1 AND enabled = 1`, job, stamp(next))
		return err
	})
}

// Ask notes that something other than the schedule asks for an interval of a job. What asked first stands. A job that is not
// enabled is not asked.
func (j *Jobs) Ask(ctx context.Context, job string) error {
	now := j.db.now()
	return j.db.write(ctx, "asking for an interval of job "+job, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE jobs SET asked_at = $2 WHERE name = $1 AND enabled = 1 AND asked_at = 0`, job, stamp(now))
		return err
	})
}

// Correct puts other times in place of those that a clock noted which was wrong. Zero times stand for themselves.
func (j *Jobs) Correct(ctx context.Context, job string, start, last, asked time.Time) error {
	return j.db.write(ctx, "correcting the times of job "+job, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE jobs SET start_at = $2, last_at = $3, asked_at = $4 WHERE name = $1`, job, stamp(start), stamp(last), stamp(asked))
		return err
	})
}

// State returns where a job stands. One that was neither enabled nor disabled yet has the zero state.
func (j *Jobs) State(ctx context.Context, job string) (JobState, error) {
	state := JobState{Job: job}
	err := j.db.read(ctx, "reading the state of job "+job, func(rows *sql.Rows) (err error) {
		state, err = scanJob(rows)
		return err
	}, `SELECT `+jobColumns+` FROM jobs WHERE name = $1`, job)
	return state, err
}

// Due returns the enabled jobs whose next interval has begun by now, the longest due first.
func (j *Jobs) Due(ctx context.Context) ([]JobState, error) {
	return j.list(ctx, `SELECT `+jobColumns+` FROM jobs WHERE next_at <> 0 AND next_at <= $1`, stamp(j.db.now()))
}

// List returns all jobs that were ever enabled: first those whose turn comes next, then those without a turn.
func (j *Jobs) List(ctx context.Context) ([]JobState, error) {
	return j.list(ctx, `SELECT `+jobColumns+` FROM jobs`)
}

func (j *Jobs) list(ctx context.Context, query string, args ...any) (list []JobState, err error) {
	err = j.db.read(ctx, "listing jobs", func(rows *sql.Rows) error {
		state, err := scanJob(rows)
		list = append(list, state)
		return err
	}, query, args...)
	slices.SortFunc(list, func(a, b JobState) int {
		if a.Next.IsZero() != b.Next.IsZero() {
			return cmp.Compare(flag(a.Next.IsZero()), flag(b.Next.IsZero()))
		}
		return cmp.Or(a.Next.Compare(b.Next), cmp.Compare(a.Job, b.Job))
	})
	return list, err
}

// Forget removes what is kept of a job's place in its schedule and of its selection. Sessions stay.
func (j *Jobs) Forget(ctx context.Context, job string) error {
	return j.db.write(ctx, "forgetting job "+job, func(tx *sql.Tx) error {
		for _, statement := range []string{`DELETE FROM selected WHERE job = $1`, `DELETE FROM jobs WHERE name = $1`} {
			if _, err := tx.ExecContext(ctx, statement, job); err != nil {
				return err
			}
		}
		return nil
	})
}

// selectionLimit bounds the machines of one job.
const selectionLimit = 20000

// Select notes which machines a job's selection came to, in the order of processing. A machine that was there before keeps
// the time since when it is. The ages of a job's copies are those of these machines: one without a copy is among them.
func (j *Jobs) Select(ctx context.Context, job string, machines []backup.Machine) error {
	if err := checkName("job", job); err != nil {
		return err
	}
	if len(machines) > selectionLimit {
		return fmt.Errorf("%w: job %s selects %d machines, more than %d", ErrTooLarge, job, len(machines), selectionLimit)
	}
	now := j.db.now()
	return j.db.write(ctx, "noting the machines of job "+job, func(tx *sql.Tx) error {
		if err := upsertMachines(ctx, tx, machines, now); err != nil {
			return err
		}
		// Each is marked by the place it is to have; what is left with another mark was not selected.
		if _, err := tx.ExecContext(ctx, `UPDATE selected SET ordinal = -1 WHERE job = $1`, job); err != nil {
			return err
		}
		for i, machine := range machines {
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO selected (job, machine, ordinal, since_at) VALUES ($1, $2, $3, $4)
				ON CONFLICT (job, machine) DO UPDATE SET ordinal = excluded.ordinal WHERE selected.ordinal = -1`,
				job, machineID(machine.Key), i, stamp(now)); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM selected WHERE job = $1 AND ordinal = -1`, job)
		return err
	})
}

// Selected returns the machines of a job in the order of processing.
func (j *Jobs) Selected(ctx context.Context, job string) (list []backup.Machine, err error) {
	err = j.db.read(ctx, "reading the machines of job "+job, func(rows *sql.Rows) error {
		known, err := scanMachine(rows)
		list = append(list, known.Machine)
		return err
	}, `SELECT `+machineColumns+` FROM selected s JOIN machines m ON m.id = s.machine WHERE s.job = $1 ORDER BY s.ordinal`, job)
	return list, err
}
