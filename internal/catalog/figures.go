package catalog

import (
	"context"
	"database/sql"
	"time"
)

// Unknown is a figure that could not be had.
const Unknown int64 = -1

// Figure is how full a repository was at a time.
type Figure struct {
	At               time.Time
	Points, Machines int64
	// LogicalBytes is what all points would take whole, StoredBytes what the repository takes, FreeBytes what is left on its
	// storage. Unknown where it is.
	LogicalBytes, StoredBytes, FreeBytes int64
}

// Figures are kept over time, to say when a repository will be full.
type Figures struct{ db *database }

// Record notes a repository's figures. A second note of the same time replaces the first.
func (f *Figures) Record(ctx context.Context, repository string, figure Figure) error {
	if err := checkName("repository", repository); err != nil {
		return err
	}
	return f.db.write(ctx, "recording the figures of "+repository, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO figures (repository, at, points, machines, logical_bytes, stored_bytes, free_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (repository, at) DO UPDATE SET points = excluded.points, machines = excluded.machines,
				logical_bytes = excluded.logical_bytes, stored_bytes = excluded.stored_bytes, free_bytes = excluded.free_bytes`,
			repository, stamp(figure.At), figure.Points, figure.Machines, figure.LogicalBytes, figure.StoredBytes, figure.FreeBytes)
		return err
	})
}

// Since returns a repository's figures from a time on, oldest first.
func (f *Figures) Since(ctx context.Context, repository string, from time.Time) (list []Figure, err error) {
	err = f.db.read(ctx, "reading the figures of "+repository, func(rows *sql.Rows) error {
		var figure Figure
		var at int64
		err := rows.Scan(&at, &figure.Points, &figure.Machines, &figure.LogicalBytes, &figure.StoredBytes, &figure.FreeBytes)
		figure.At = moment(at)
		list = append(list, figure)
		return err
	}, `SELECT at, points, machines, logical_bytes, stored_bytes, free_bytes FROM figures WHERE repository = $1 AND at >= $2 ORDER BY at`,
		repository, stamp(from))
	return list, err
}
