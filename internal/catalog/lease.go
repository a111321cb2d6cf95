package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// MaxLease is the longest that a lease may run without being renewed.
const MaxLease = 10 * time.Minute

// Lease is the right to work on a task or session and to write to it. It is lost when somebody else takes the work over, which
// they may once Until has passed; only then, and never by time alone, are writes under it refused.
type Lease struct {
	// ID of the task or session.
	ID int64
	// Owner names the process that holds it. A process that starts anew is another owner.
	Owner string
	// Epoch grows with every owner of the task or session.
	Epoch int64
	Until time.Time
}

// Cancel says how work is to stop.
type Cancel int64

// The ways to stop.
const (
	// CancelNone: go on.
	CancelNone Cancel = 0
	// CancelGracefully: finish what is in flight, write a checkpoint, then stop.
	CancelGracefully Cancel = 1
	// CancelNow: stop.
	CancelNow Cancel = 2
)

// checkLease refuses what no lease may be.
func checkLease(owner string, length time.Duration) error {
	if length <= 0 || length > MaxLease {
		return fmt.Errorf("%w: a lease of %v, not between 0 and %v", ErrInvalid, length, MaxLease)
	}
	return checkName("owner", owner)
}

// expired is the condition, in terms of $1 the owner who asks, $2 now and $3 the farthest end of a lease, that what has a lease
// can be taken over. A lease that ends farther away than any can was given under a clock that has since been set back. A
// process never takes over from itself: it knows what it works on, also when the clock has jumped.
const expired = `owner <> $1 AND (lease_until <= $2 OR lease_until > $3)`

// expiredArgs are the arguments of expired.
func expiredArgs(owner string, now time.Time) []any {
	return []any{owner, stamp(now), stamp(now.Add(2 * MaxLease))} // twice: clocks of servers may differ
}

// leased is what leases are given for: its table, its name in messages, and the condition that it has not ended.
type leased struct{ table, name, running string }

var (
	leasedTask    = leased{"tasks", "task", "state = 'running'"}
	leasedSession = leased{"sessions", "session", "ended_at = 0"}
)

// change updates what the lease still holds, and keeps it so until the transaction ends. The epoch is compared in the
// statement that writes, on the row that is written: no other owner can come in between. The arguments of set begin with $3.
func (l Lease) change(ctx context.Context, tx *sql.Tx, of leased, cancel *Cancel, set string, args ...any) error {
	held := false
	err := each(ctx, tx, func(rows *sql.Rows) error {
		held = true
		var now Cancel
		err := rows.Scan(&now)
		if cancel != nil {
			*cancel = now
		}
		return err
	}, `UPDATE `+of.table+` SET `+set+` WHERE id = $1 AND epoch = $2 AND `+of.running+` RETURNING cancel`, append([]any{l.ID, l.Epoch}, args...)...)
	if err == nil && !held {
		err = l.lost(ctx, tx, of)
	}
	return err
}

// lost says who has what the lease was for. It is never nil.
func (l Lease) lost(ctx context.Context, tx *sql.Tx, of leased) error {
	var epoch int64
	var state, owner string
	err := tx.QueryRowContext(ctx, `SELECT epoch, state, owner FROM `+of.table+` WHERE id = $1`, l.ID).Scan(&epoch, &state, &owner)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s %d: %w: it is gone", of.name, l.ID, ErrLostLease)
	case err != nil:
		return err
	case epoch == l.Epoch || owner == "":
		return fmt.Errorf("%s %d: %w: it is %s", of.name, l.ID, ErrLostLease, state)
	}
	return fmt.Errorf("%s %d: %w: %s has it at epoch %d, after %d", of.name, l.ID, ErrLostLease, owner, epoch, l.Epoch)
}
