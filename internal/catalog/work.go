package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Renew makes a task's lease run for length from now, notes the progress, and says whether the task is to stop. It works also
// after the lease has expired, as long as nobody has taken the task over.
func (t *Tasks) Renew(ctx context.Context, lease *TaskLease, length time.Duration, progress Progress) (cancel Cancel, err error) {
	if err := checkLease(lease.Owner, length); err != nil {
		return cancel, err
	}
	until := t.db.now().UTC().Add(length)
	err = t.change(ctx, *lease, "renewing the lease of", &cancel, `lease_until = $3, progress = $4`, stamp(until), toJSON(progress))
	if err == nil {
		lease.Until = until
	}
	return cancel, err
}

// Postpone gives a task back: it waits. failed counts it as a failed attempt. A task that is to stop is stopped instead.
func (t *Tasks) Postpone(ctx context.Context, lease TaskLease, reason string, progress Progress, failed bool) error {
	now := t.db.now()
	return t.change(ctx, lease, "postponing", nil, `
		reason = $3, progress = $4, attempts = attempts + $5, owner = '', lease_until = 0,
		ended_at = CASE WHEN cancel = 0 THEN 0 ELSE CAST($6 AS BIGINT) END, state = CASE WHEN cancel = 0 THEN 'waiting' ELSE 'stopped' END`,
		safeReason(reason), toJSON(progress), flag(failed), stamp(now))
}

// Finish ends a task as TaskDone, TaskFailed or TaskStopped. Finishing it again in the same way does nothing, so that it can be
// repeated.
func (t *Tasks) Finish(ctx context.Context, lease TaskLease, state TaskState, reason string, progress Progress) error {
	if state != TaskDone && state != TaskFailed && state != TaskStopped {
		return fmt.Errorf("%w: a task does not end as %s", ErrInvalid, state)
	}
	now := t.db.now()
	return t.db.write(ctx, fmt.Sprintf("finishing task %d", lease.ID), func(tx *sql.Tx) error {
		var finished int64
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM tasks WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = $4`,
			lease.ID, lease.Epoch, lease.Owner, state).Scan(&finished); err != nil || finished > 0 {
			return err
		}
		return lease.change(ctx, tx, leasedTask, nil, `state = $3, reason = $4, progress = $5, ended_at = $6, lease_until = 0`,
			state, safeReason(reason), toJSON(progress), stamp(now))
	})
}

func (t *Tasks) change(ctx context.Context, lease TaskLease, doing string, cancel *Cancel, set string, args ...any) error {
	return t.db.write(ctx, fmt.Sprintf("%s task %d", doing, lease.ID), func(tx *sql.Tx) error {
		return lease.change(ctx, tx, leasedTask, cancel, set, args...)
	})
}

// ExpireOthers ends at once the leases of all owners but one, on tasks and sessions, so that their work can be taken over. It is
// for a server that starts and knows that no other lives: after a crash nothing waits for a lease to run out. It returns how
// many leases there were. An owner that lives after all loses its work and does no harm.
func (t *Tasks) ExpireOthers(ctx context.Context, owner string) (leases int64, err error) {
	err = t.db.write(ctx, "ending the leases of others", func(tx *sql.Tx) error {
		leases = 0
		for _, statement := range []string{
			`UPDATE tasks SET lease_until = 0 WHERE state = 'running' AND owner <> $1`,
			`UPDATE sessions SET lease_until = 0 WHERE ended_at = 0 AND owner <> $1`,
		} {
			n, err := execute(ctx, tx, statement, owner)
			if err != nil {
				return err
			}
			leases += n
		}
		return nil
	})
	return leases, err
}
