package catalog

import (
	"context"
	"database/sql"
	"time"

	"ferry/internal/backup"
)

// BrokenFile is a file of a source that was found broken when it was read. It counts as broken until its size or time of
// modification is another.
type BrokenFile struct {
	// Identity tells the file from others of its source: its path in the source, or what its format knows it by.
	Identity string
	// Size in bytes.
	Size     int64
	Modified time.Time
	Reason   string
}

// BrokenFiles are remembered so that they are not read again for nothing. Losing them costs reading them once more.
type BrokenFiles struct{ db *database }

// brokenLimit is how many files are remembered of one source repository; the ones found first go first.
const brokenLimit = 10000

// Remember notes a file as broken.
func (b *BrokenFiles) Remember(ctx context.Context, repository string, file BrokenFile) error {
	if err := checkName("repository", repository); err != nil {
		return err
	}
	now := b.db.now()
	return b.db.write(ctx, "remembering a broken file", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `
			INSERT INTO broken_files (repository, identity, size, modified_at, reason, found_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (repository, identity) DO UPDATE SET size = excluded.size, modified_at = excluded.modified_at, reason = excluded.reason,
				found_at = excluded.found_at`,
			repository, backup.EncodeName(file.Identity), file.Size, stamp(file.Modified), safeReason(file.Reason), stamp(now)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `
			DELETE FROM broken_files WHERE repository = $1 AND identity IN
				(SELECT identity FROM broken_files WHERE repository = $1 ORDER BY found_at DESC, identity LIMIT $2 OFFSET $3)`,
			repository, brokenLimit, brokenLimit)
		return err
	})
}

// Reason returns why a file is known as broken. It is false for a file that is not, or has changed since.
func (b *BrokenFiles) Reason(ctx context.Context, repository string, file BrokenFile) (reason string, broken bool, err error) {
	err = b.db.read(ctx, "looking for a broken file", func(rows *sql.Rows) error {
		broken = true
		return rows.Scan(&reason)
	}, `SELECT reason FROM broken_files WHERE repository = $1 AND identity = $2 AND size = $3 AND modified_at = $4`,
		repository, backup.EncodeName(file.Identity), file.Size, stamp(file.Modified))
	return reason, broken, err
}

// Forget has all files of a source repository read again.
func (b *BrokenFiles) Forget(ctx context.Context, repository string) error {
	return b.db.write(ctx, "forgetting broken files", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM broken_files WHERE repository = $1`, repository)
		return err
	})
}
