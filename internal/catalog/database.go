package catalog

import (
	"context"
	"database/sql"
	"time"
)

// database is how the rooms of the catalog reach SQLite or PostgreSQL. The SQL text is the same on both: what differs is how
// they are opened and how a section is locked.
type database struct {
	// writer is for transactions that write: on SQLite a single connection, whose transactions hold the write lock from their
	// beginning, so none fails for having read first.
	writer *sql.DB
	// reader is for single statements that only read, several at once.
	reader *sql.DB
	// lockSection makes other transactions that lock the same section wait until this one has ended.
	lockSection func(ctx context.Context, tx *sql.Tx, section section) error
	now         func() time.Time
	// asked, if not nil, is told of each call of read.
	asked func(doing string)
}

// section is a part of the catalog in which one transaction at a time decides.
type section int64

const (
	// sectionTake: who chooses a session to take over.
	sectionTake section = 1 + iota
	// sectionMirror: who changes which edition a mirror follows.
	sectionMirror
)

// attempts is how often a transaction is tried that the database undoes because of another.
const attempts = 5

// write runs one transaction. It may run more than once: what it leaves behind outside the database it must set anew each
// time. When write returns without an error the change is durable; with one, nothing of it has happened. Only a
// connection that breaks during the commit leaves that open; whoever has a lease then finds out by using it.
func (d *database) write(ctx context.Context, doing string, change func(tx *sql.Tx) error) error {
	var err error
	for range attempts {
		if err = d.writeOnce(ctx, change); !again(err) {
			break
		}
	}
	if err == nil || isOurs(err) {
		return err
	}
	if ctx.Err() != nil { // the driver may say that it was interrupted
		return ctx.Err()
	}
	return explain(doing, err)
}

func (d *database) writeOnce(ctx context.Context, change func(tx *sql.Tx) error) error {
	tx, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := change(tx); err != nil {
		_ = tx.Rollback() // the first error is the one to tell
		return err
	}
	return tx.Commit()
}

// read reads all rows of a query.
func (d *database) read(ctx context.Context, doing string, row func(rows *sql.Rows) error, query string, args ...any) error {
	if d.asked != nil {
		d.asked(doing)
	}
	err := each(ctx, d.reader, row, query, args...)
	if err == nil || isOurs(err) {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return explain(doing, err)
}

// queryer is a transaction or a pool of connections.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls row for every row of a query.
func each(ctx context.Context, q queryer, row func(rows *sql.Rows) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// execute runs a statement and says how many rows it changed.
func execute(ctx context.Context, tx *sql.Tx, statement string, args ...any) (int64, error) {
	result, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// number takes n new numbers of a counter and returns the first.
func number(ctx context.Context, tx *sql.Tx, counter string, n int) (int64, error) {
	var last int64
	err := tx.QueryRowContext(ctx, `UPDATE counters SET value = value + $1 WHERE name = $2 RETURNING value`, n, counter).Scan(&last)
	return last - int64(n) + 1, err
}
