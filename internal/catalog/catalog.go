// Package catalog is what a Ferry server knows, in SQL: SQLite in a file of its own, or PostgreSQL where several servers
// share it. The SQL text is the same on both.
//
// Two kinds of things are in it. What people configured, and what happened, is kept here and nowhere else: [Resources],
// [Jobs], [Sessions], [Tasks], [Machines], [Figures]. The points of repositories are a mirror, [Mirror]: it is bound to the
// head of each repository's log and can be thrown away and made anew. docs/catalog.md says what that means for backups.
//
// Work is handed out by leases. Whoever claims a task gets a lease with an epoch; whoever takes the task over when the lease
// has expired gets the next epoch, and from then on nothing that the former owner writes is taken: it gets [ErrLostLease].
// That is certain, since task and epoch are one row. Clocks only decide how soon a task is taken over: owners whose clocks
// differ lose time, and never work on what another one's checkpoint says.
//
// Each operation is one short transaction. When it returns without an error it is durable.
package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Catalog is an open catalog. It may be used by several goroutines.
type Catalog struct {
	Resources *Resources
	Jobs      *Jobs
	Sessions  *Sessions
	Tasks     *Tasks
	Machines  *Machines
	Mirror    *Mirror
	Figures   *Figures
	Status    *Status
	db        *database
}

// Options of opening a catalog.
type Options struct {
	// Now is the clock; nil is the machine's.
	Now func() time.Time
	// Asked, if not nil, is told of each query that only reads, and what it is for.
	Asked func(doing string)
}

// Open opens the catalog at location, a path or a URL that begins with postgres://, and makes it if there is none. Errors wrap
// ErrForeign, ErrCorrupt or ErrNewer where they mean one of these, with a hint.
func Open(ctx context.Context, location string, options Options) (*Catalog, error) {
	open := openSQLite
	if isPostgres(location) {
		open = openPostgres
	}
	db, err := open(ctx, location)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, explain("opening", err)
	}
	db.now, db.asked = options.Now, options.Asked
	if db.now == nil {
		db.now = time.Now
	}
	return assemble(db), nil
}

func assemble(db *database) *Catalog {
	return &Catalog{
		Resources: &Resources{db}, Jobs: &Jobs{db}, Sessions: &Sessions{db}, Tasks: &Tasks{db}, Machines: &Machines{db}, Mirror: &Mirror{db},
		Figures: &Figures{db}, Status: &Status{db}, db: db,
	}
}

// Close ends all connections.
func (c *Catalog) Close() error { return c.db.close() }

// Check reads the whole of a SQLite catalog and compares what belongs together; it takes seconds for a large one. PostgreSQL
// has tools of its own for that: there only the connection is tried. An error wraps ErrCorrupt if the file is damaged.
func (c *Catalog) Check(ctx context.Context) error {
	if c.db.writer == c.db.reader {
		return explain("checking", c.db.reader.PingContext(ctx))
	}
	return c.db.read(ctx, "checking", func(rows *sql.Rows) error {
		var finding string
		if err := rows.Scan(&finding); err != nil {
			return err
		}
		if finding != "ok" {
			return hinted(fmt.Errorf("%w: %s", ErrCorrupt, finding), hintCorrupt)
		}
		return nil
	}, `PRAGMA integrity_check(1)`)
}
