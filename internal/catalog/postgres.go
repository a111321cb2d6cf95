package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

const (
	// postgresConnections is how many connections one server opens.
	postgresConnections = 8
	// postgresLock is the first number of Ferry's advisory locks; the second says what is locked.
	postgresLock = 0x46727279
	// migrationPatience is for how many seconds a server waits for another one that changes the schema.
	migrationPatience = 300

	postgresTables = `SELECT COUNT(*), COALESCE(SUM(CASE WHEN table_name = $1 THEN 1 ELSE 0 END), 0) FROM information_schema.tables WHERE table_schema = current_schema()`
)

// isPostgres is true for locations of PostgreSQL databases.
func isPostgres(location string) bool {
	return strings.HasPrefix(location, "postgres://") || strings.HasPrefix(location, "postgresql://")
}

func openPostgres(ctx context.Context, location string) (*database, error) {
	config, err := pgx.ParseConfig(location)
	if err != nil {
		// The error's text has the location, which may have a password.
		return nil, fmt.Errorf("%w: the location of the PostgreSQL database cannot be read", ErrInvalid)
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "ferry"
	}
	// Durable when acknowledged, whatever the database's default is.
	config.RuntimeParams["synchronous_commit"] = "on"
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(postgresConnections)
	db.SetMaxIdleConns(postgresConnections)
	d := &database{writer: db, reader: db, lockSection: lockPostgres}
	if err := preparePostgres(ctx, db); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func preparePostgres(ctx context.Context, db *sql.DB) error {
	latest, err := latestSchema(goose.DialectPostgres, db)
	if err != nil {
		return err
	}
	state, err := readSchema(ctx, db, postgresTables)
	if err != nil {
		return err
	}
	if err := state.check(latest); err != nil {
		return err
	}
	if state.version == latest {
		return nil
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, migrationPatience))
	if err != nil {
		return err
	}
	return migrate(ctx, goose.DialectPostgres, db, goose.WithSessionLocker(locker))
}

func lockPostgres(ctx context.Context, tx *sql.Tx, what section) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1, $2)`, postgresLock, int64(what))
	return err
}
