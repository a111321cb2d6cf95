package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Taken is a task with the right to work on it, and what its last owner left.
type Taken struct {
	Task
	Lease TaskLease
}

// Take gives an owner a task, if it waits or its owner's lease has expired. It returns nil if the task has ended, or somebody
// works on it. Slots are the business of whoever calls it.
func (t *Tasks) Take(ctx context.Context, id int64, owner string, length time.Duration) (taken *Taken, err error) {
	if err := checkLease(owner, length); err != nil {
		return nil, err
	}
	now := t.db.now().UTC()
	err = t.db.write(ctx, fmt.Sprintf("taking task %d", id), func(tx *sql.Tx) (err error) {
		for _, takeOver := range []bool{false, true} {
			if taken, err = takeTask(ctx, tx, id, takeOver, owner, now, length); err != nil || taken != nil {
				return err
			}
		}
		return nil
	})
	return taken, err
}

// takeTask gives a task to an owner that waits, or with takeOver one whose owner's lease has expired; else it returns nil.
func takeTask(ctx context.Context, tx *sql.Tx, id int64, takeOver bool, owner string, now time.Time, length time.Duration) (*Taken, error) {
	until := now.Add(length)
	args := append(expiredArgs(owner, now), id, stamp(until), flag(takeOver))
	changed, err := execute(ctx, tx, `
		UPDATE tasks SET state = 'running', owner = $1, lease_until = $5, epoch = epoch + 1, reason = '', next_at = 0,
			began_at = CASE WHEN began_at = 0 THEN $2 ELSE began_at END
		WHERE id = $4 AND (state = 'waiting' AND $6 = 0 OR state = 'running' AND $6 = 1 AND `+expired+`)`, args...)
	if err != nil || changed == 0 {
		return nil, err
	}
	taken := &Taken{Lease: TaskLease{Lease{ID: id, Owner: owner, Until: until}}}
	return taken, each(ctx, tx, func(rows *sql.Rows) (err error) {
		taken.Task, err = scanTask(rows, &taken.Lease.Epoch)
		return err
	}, `SELECT `+taskColumns+`, t.epoch FROM tasks t JOIN sessions s ON s.id = t.session JOIN machines m ON m.id = t.machine WHERE t.id = $1`, id)
}

// firstNumber reads one number, 0 if there is none.
func firstNumber(ctx context.Context, tx *sql.Tx, query string, args ...any) (n int64, err error) {
	err = each(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&n) }, query, args...)
	return n, err
}
