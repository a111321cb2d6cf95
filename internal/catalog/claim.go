package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Slots say how much may run at once.
type Slots struct {
	// All is how many tasks run at once in all; 0: no limit.
	All int
	// Repositories is how many run at once that read from or write to a repository. One that is not named has no limit.
	Repositories map[string]int
}

// Claimed is a task with the right to work on it, and what its last owner left.
type Claimed struct {
	Task
	Lease TaskLease
	// Checkpoint is the last that was written; empty: there is none.
	Checkpoint []byte
	// TakenOver is true if the last owner's lease had expired.
	TakenOver bool
}

// Claim gives an owner the next task to work on: first one whose owner's lease has expired, then, if there is a slot, the
// first in order that waits and whose time has come. It returns nil if there is none.
func (t *Tasks) Claim(ctx context.Context, owner string, length time.Duration, slots Slots) (claimed *Claimed, err error) {
	if err := checkLease(owner, length); err != nil {
		return nil, err
	}
	now := t.db.now().UTC()
	err = t.db.write(ctx, "claiming a task", func(tx *sql.Tx) error {
		claimed = nil
		// One at a time: two owners who count at once would both see the last slot free.
		if err := t.db.lockSection(ctx, tx, sectionClaim); err != nil {
			return err
		}
		for {
			id, takeOver, err := nextTask(ctx, tx, owner, now, slots)
			if err != nil || id == 0 {
				return err
			}
			if claimed, err = takeTask(ctx, tx, id, takeOver, owner, now, length); err != nil || claimed != nil {
				return err
			}
			// It was renewed or cancelled between the two statements: look again.
		}
	})
	return claimed, err
}

// nextTask chooses what to claim, or 0.
func nextTask(ctx context.Context, tx *sql.Tx, owner string, now time.Time, slots Slots) (id int64, takeOver bool, err error) {
	id, err = firstNumber(ctx, tx, `SELECT id FROM tasks WHERE state = 'running' AND `+expired+` ORDER BY ordinal, id LIMIT 1`, expiredArgs(owner, now)...)
	if err != nil || id != 0 {
		return id, true, err // it has its slots already
	}
	full, all, err := fullRepositories(ctx, tx, slots)
	if err != nil || all {
		return 0, false, err
	}
	query := `SELECT id FROM tasks WHERE state = 'waiting' AND next_at <= $1`
	args := []any{stamp(now)}
	for _, name := range full {
		args = append(args, name)
		query += fmt.Sprintf(` AND source <> $%d AND target <> $%d`, len(args), len(args))
	}
	id, err = firstNumber(ctx, tx, query+` ORDER BY ordinal, id LIMIT 1`, args...)
	return id, false, err
}

// firstNumber reads one number, 0 if there is none.
func firstNumber(ctx context.Context, tx *sql.Tx, query string, args ...any) (n int64, err error) {
	err = each(ctx, tx, func(rows *sql.Rows) error { return rows.Scan(&n) }, query, args...)
	return n, err
}

// fullRepositories counts what runs, and returns the repositories that have no slot left, or that there is none at all.
func fullRepositories(ctx context.Context, tx *sql.Tx, slots Slots) (full []string, all bool, err error) {
	running := 0
	used := map[string]int{}
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var source, target string
		var n int
		if err := rows.Scan(&source, &target, &n); err != nil {
			return err
		}
		running += n
		used[source] += n
		if target != source {
			used[target] += n
		}
		return nil
	}, `SELECT source, target, COUNT(*) FROM tasks WHERE state = 'running' GROUP BY source, target`)
	for name, limit := range slots.Repositories {
		if used[name] >= limit {
			full = append(full, name)
		}
	}
	return full, slots.All > 0 && running >= slots.All, err
}

// takeTask gives a task to an owner, or returns nil if it is no longer what it was when it was chosen.
func takeTask(ctx context.Context, tx *sql.Tx, id int64, takeOver bool, owner string, now time.Time, length time.Duration) (*Claimed, error) {
	until := now.Add(length)
	args := append(expiredArgs(owner, now), id, stamp(until), flag(takeOver))
	changed, err := execute(ctx, tx, `
		UPDATE tasks SET state = 'running', owner = $1, lease_until = $5, epoch = epoch + 1, attempts = attempts + $6, reason = '', next_at = 0,
			began_at = CASE WHEN began_at = 0 THEN $2 ELSE began_at END
		WHERE id = $4 AND (state = 'waiting' AND $6 = 0 OR state = 'running' AND $6 = 1 AND `+expired+`)`, args...)
	if err != nil || changed == 0 {
		return nil, err
	}
	claimed := &Claimed{Lease: TaskLease{Lease{ID: id, Owner: owner, Until: until}}, TakenOver: takeOver}
	return claimed, each(ctx, tx, func(rows *sql.Rows) (err error) {
		claimed.Task, err = scanTask(rows, &claimed.Checkpoint, &claimed.Lease.Epoch)
		return err
	}, `SELECT `+taskColumns+`, t.checkpoint, t.epoch FROM tasks t JOIN sessions s ON s.id = t.session JOIN machines m ON m.id = t.machine WHERE t.id = $1`, id)
}

// Take gives an owner a certain task, if it waits or its owner's lease has expired. It returns nil if the task has ended, or
// somebody works on it. Slots are the business of whoever calls it.
func (t *Tasks) Take(ctx context.Context, id int64, owner string, length time.Duration) (claimed *Claimed, err error) {
	if err := checkLease(owner, length); err != nil {
		return nil, err
	}
	now := t.db.now().UTC()
	err = t.db.write(ctx, fmt.Sprintf("taking task %d", id), func(tx *sql.Tx) (err error) {
		for _, takeOver := range []bool{false, true} {
			if claimed, err = takeTask(ctx, tx, id, takeOver, owner, now, length); err != nil || claimed != nil {
				return err
			}
		}
		return nil
	})
	return claimed, err
}
