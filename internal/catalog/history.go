package catalog

import (
	"context"
	"database/sql"
	"time"
)

// historyBatch is how many sessions, or figures, one transaction removes.
const historyBatch = 100

// Pruned says what was removed from the history.
type Pruned struct {
	// Sessions, with their phases and tasks, and Figures of repositories.
	Sessions, Figures int64
}

// PruneHistory removes the sessions that ended before a time, and the figures from before it, a batch at a time. The last session
// of each job stays, and so does one that has not ended.
func (c *Catalog) PruneHistory(ctx context.Context, before time.Time) (pruned Pruned, err error) {
	pruned.Sessions, err = c.db.removeAll(ctx, "removing old sessions", `
		DELETE FROM sessions WHERE id IN (SELECT s.id FROM sessions s WHERE s.ended_at <> 0 AND s.ended_at < $1
			AND EXISTS (SELECT 1 FROM sessions newer WHERE newer.job = s.job AND newer.id > s.id) ORDER BY s.ended_at, s.id LIMIT $2)`, before)
	if err != nil {
		return pruned, err
	}
	pruned.Figures, err = c.db.removeAll(ctx, "removing old figures", `
		DELETE FROM figures WHERE at IN (SELECT f.at FROM figures f WHERE f.at < $1 ORDER BY f.at LIMIT $2)`, before)
	return pruned, err
}

// removeAll runs a statement that removes up to $2 rows until it finds no more.
func (d *database) removeAll(ctx context.Context, doing, statement string, before time.Time) (removed int64, err error) {
	for {
		var n int64
		err := d.write(ctx, doing, func(tx *sql.Tx) (err error) {
			n, err = execute(ctx, tx, statement, stamp(before), historyBatch)
			return err
		})
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
	}
}
