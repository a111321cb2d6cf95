package catalog

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// schemaTable is where goose notes which migrations were done.
const schemaTable = "ferry_schema"

// schemaState is what is in a database before anything is done to it.
type schemaState struct {
	tables int64
	// version of the schema; 0: there is none, or its making was interrupted before anything else was made.
	version int64
	// noted is true if there is a note of the version.
	noted bool
}

// readSchema looks at a database without changing it. count is a query for the numbers of all tables and of those named $1.
func readSchema(ctx context.Context, db *sql.DB, count string) (state schemaState, err error) {
	var noting int64
	if err := db.QueryRowContext(ctx, count, schemaTable).Scan(&state.tables, &noting); err != nil {
		return state, err
	}
	if state.noted = noting > 0; !state.noted {
		return state, nil
	}
	err = db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM `+schemaTable).Scan(&state.version)
	return state, err
}

// check refuses what is not ours and what is of a later version than this program's.
func (s schemaState) check(latest int64) error {
	switch {
	case s.tables > 0 && !s.noted:
		return hinted(fmt.Errorf("%w: it has tables of another program", ErrForeign), hintForeign)
	case s.version > latest:
		return hinted(fmt.Errorf("%w: it has schema %d, and this version knows %d", ErrNewer, s.version, latest), hintNewer)
	}
	return nil
}

// migrate brings the schema to this program's version. Nobody else must be doing so: options or the caller see to that.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, options ...goose.ProviderOption) (err error) {
	provider, err := newProvider(dialect, db, options...)
	if err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			return partial.Err
		}
		return err
	}
	return nil
}

func newProvider(dialect goose.Dialect, db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, files, append(options, goose.WithTableName(schemaTable), goose.WithDisableGlobalRegistry(true))...)
}

// latestSchema is the version of this program's schema.
func latestSchema(dialect goose.Dialect, db *sql.DB) (int64, error) {
	provider, err := newProvider(dialect, db)
	if err != nil {
		return 0, err
	}
	sources := provider.ListSources()
	return sources[len(sources)-1].Version, nil
}
