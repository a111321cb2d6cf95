package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferry/internal/backup"
)

const (
	// batchSize is how many points one transaction of Replace writes or removes: others get their turn in between.
	batchSize = 500
	// rowsAtOnce is how many rows one statement inserts.
	rowsAtOnce = 100

	editionWriting = "writing"
	editionCurrent = "current"
	editionDropped = "dropped"
)

// Replace makes the mirror of a repository anew from all of its points at a head. Readers have the former mirror until the new
// one is whole, also when Replace fails or the process ends.
//
//  1. A new edition is begun. Another that somebody is writing for the same repository is dropped: its writer will see that.
//  2. The points are written to it in batches.
//  3. The mirror follows the new edition from now on, unless it has moved since step 1 (ErrMirrorMoved).
//  4. What was dropped is removed in batches.
func (m *Mirror) Replace(ctx context.Context, repository string, head Head, points iter.Seq2[MirrorPoint, error]) error {
	if err := head.check(repository); err != nil {
		return err
	}
	edition, before, err := m.beginEdition(ctx, repository)
	if err != nil {
		return err
	}
	err = m.fillEdition(ctx, edition, repository, points)
	if err == nil {
		err = m.follow(ctx, repository, edition, before, head)
	}
	if err != nil {
		_ = m.discard(ctx, repository, edition) // if this fails too, the next one does it
		return err
	}
	return m.sweep(ctx, repository)
}

// discard removes an edition that is not to be used.
func (m *Mirror) discard(ctx context.Context, repository string, edition int64) error {
	err := m.db.write(ctx, "discarding a mirror of "+repository, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE editions SET state = $2 WHERE id = $1 AND state = $3`, edition, editionDropped, editionWriting)
		return err
	})
	if err != nil {
		return err
	}
	return m.sweep(ctx, repository)
}

// mirrorPlace is an edition and the head it is at.
type mirrorPlace struct {
	edition int64
	head    Head
}

func (m *Mirror) beginEdition(ctx context.Context, repository string) (edition int64, before mirrorPlace, err error) {
	now := m.db.now()
	err = m.db.write(ctx, "beginning a mirror of "+repository, func(tx *sql.Tx) (err error) {
		if err := m.db.lockSection(ctx, tx, sectionMirror); err != nil {
			return err
		}
		if before.edition, before.head, err = currentEdition(ctx, tx, repository); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE editions SET state = $2 WHERE repository = $1 AND state = $3`, repository, editionDropped, editionWriting); err != nil {
			return err
		}
		if edition, err = number(ctx, tx, "id", 1); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO editions (id, repository, state, written, began_at) VALUES ($1, $2, $3, 0, $4)`,
			edition, repository, editionWriting, stamp(now))
		return err
	})
	return edition, before, err
}

func (m *Mirror) fillEdition(ctx context.Context, edition int64, repository string, points iter.Seq2[MirrorPoint, error]) error {
	w := &mirrorWriter{edition: edition, now: m.db.now(), named: map[string]time.Time{}}
	batch := make([]MirrorPoint, 0, batchSize)
	flush := func() error {
		err := m.db.write(ctx, "writing a mirror of "+repository, func(tx *sql.Tx) error {
			// Also keeps others from dropping it before this batch is there.
			mine, err := execute(ctx, tx, `UPDATE editions SET written = written + $2 WHERE id = $1 AND state = $3`, edition, len(batch), editionWriting)
			if err != nil {
				return err
			}
			if mine == 0 {
				return fmt.Errorf("%s: %w: somebody else makes it anew", repository, ErrMirrorMoved)
			}
			return w.put(ctx, tx, batch)
		})
		if err == nil {
			maps.Copy(w.named, w.naming)
		}
		batch = batch[:0]
		return err
	}
	for point, err := range points {
		if err != nil {
			return err
		}
		if batch = append(batch, point); len(batch) == batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// follow has the mirror follow an edition that is whole.
func (m *Mirror) follow(ctx context.Context, repository string, edition int64, before mirrorPlace, head Head) error {
	now := m.db.now()
	return m.db.write(ctx, "changing over to the new mirror of "+repository, func(tx *sql.Tx) error {
		if err := m.db.lockSection(ctx, tx, sectionMirror); err != nil {
			return err
		}
		current, at, err := currentEdition(ctx, tx, repository)
		if err != nil {
			return err
		}
		if (mirrorPlace{current, at}) != before {
			return movedError(repository, current, at)
		}
		mine, err := execute(ctx, tx, `UPDATE editions SET state = $2 WHERE id = $1 AND state = $3`, edition, editionCurrent, editionWriting)
		if err != nil {
			return err
		}
		if mine == 0 {
			return fmt.Errorf("%s: %w: somebody else makes it anew", repository, ErrMirrorMoved)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE editions SET state = $2 WHERE id = $1`, current, editionDropped); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `
			INSERT INTO mirrors (repository, edition, repository_id, head_number, head_checksum, refreshed_at) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (repository) DO UPDATE SET edition = excluded.edition, repository_id = excluded.repository_id,
				head_number = excluded.head_number, head_checksum = excluded.head_checksum, refreshed_at = excluded.refreshed_at`,
			repository, edition, head.RepositoryID, int64(head.Number), head.Checksum, stamp(now))
		return err
	})
}

// Drop removes the mirror of a repository. Nothing but its points goes.
func (m *Mirror) Drop(ctx context.Context, repository string) error {
	err := m.db.write(ctx, "dropping the mirror of "+repository, func(tx *sql.Tx) error {
		if err := m.db.lockSection(ctx, tx, sectionMirror); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM mirrors WHERE repository = $1`, repository); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE editions SET state = $2 WHERE repository = $1`, repository, editionDropped)
		return err
	})
	if err != nil {
		return err
	}
	return m.sweep(ctx, repository)
}

// sweep removes the dropped editions of a repository, a batch at a time.
func (m *Mirror) sweep(ctx context.Context, repository string) error {
	for more := true; more; {
		err := m.db.write(ctx, "removing a former mirror of "+repository, func(tx *sql.Tx) error {
			more = false
			edition, err := firstNumber(ctx, tx, `SELECT id FROM editions WHERE repository = $1 AND state = $2 ORDER BY id LIMIT 1`, repository, editionDropped)
			if err != nil || edition == 0 {
				return err
			}
			more = true
			removed, err := execute(ctx, tx, `DELETE FROM points WHERE edition = $1 AND id IN (SELECT id FROM points WHERE edition = $1 LIMIT $2)`, edition, batchSize)
			if err == nil && removed == 0 {
				_, err = tx.ExecContext(ctx, `DELETE FROM editions WHERE id = $1`, edition)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mirrorWriter writes points of one edition.
type mirrorWriter struct {
	edition int64
	now     time.Time
	// named says when the names that were written for machines are from, by machine id; naming, those of the last put, which may
	// come to nothing yet.
	named, naming map[string]time.Time
}

func compareClaims(a, b MirrorClaim) int { return cmp.Compare(a.Job, b.Job) }

// put writes points with their claims, over what is there of them. Of points with the same id the last counts.
func (w *mirrorWriter) put(ctx context.Context, tx *sql.Tx, points []MirrorPoint) error {
	points = lastOfEach(points)
	if err := w.nameMachines(ctx, tx, points); err != nil {
		return err
	}
	pointRows := make([][]any, len(points))
	ids := make([]backup.PointID, len(points))
	var claimRows [][]any
	for i, p := range points {
		ids[i] = p.ID
		machine := ""
		if p.Machine != nil {
			machine = machineID(p.Machine.Key)
		}
		pointRows[i] = []any{
			w.edition, p.ID.String(), machine, backup.EncodeName(p.Pseudonym), stamp(p.Created), string(p.State), safeReason(p.Reason), flag(p.Damaged), p.Size,
		}
		for job, claim := range lastClaims(p.Claims) {
			claimRows = append(claimRows, []any{w.edition, p.ID.String(), backup.EncodeName(job), safeReason(claim.Reason), encoded(claim.Flags)})
		}
	}
	// Claims are replaced whole: those of the points go, then come those that count now.
	if err := inChunks(ids, func(chunk []backup.PointID) error {
		return deleteWhere(ctx, tx, `DELETE FROM claims WHERE edition = $1 AND point IN `, w.edition, chunk)
	}); err != nil {
		return err
	}
	if err := insertRows(ctx, tx, `INSERT INTO points (edition, id, machine, pseudonym, created_at, state, reason, damaged, size) VALUES `, pointRows, `
		ON CONFLICT (edition, id) DO UPDATE SET machine = excluded.machine, pseudonym = excluded.pseudonym, created_at = excluded.created_at,
			state = excluded.state, reason = excluded.reason, damaged = excluded.damaged, size = excluded.size`); err != nil {
		return err
	}
	return insertRows(ctx, tx, `INSERT INTO claims (edition, point, job, reason, flags) VALUES `, claimRows, ``)
}

// lastOfEach leaves the last of points with the same id, in order.
func lastOfEach(points []MirrorPoint) []MirrorPoint {
	at := make(map[backup.PointID]int, len(points))
	list := make([]MirrorPoint, 0, len(points))
	for _, p := range points {
		if i, twice := at[p.ID]; twice {
			list[i] = p
			continue
		}
		at[p.ID] = len(list)
		list = append(list, p)
	}
	return list
}

// lastClaims are a point's claims by job: a job has one.
func lastClaims(claims []MirrorClaim) map[string]MirrorClaim {
	byJob := make(map[string]MirrorClaim, len(claims))
	for _, claim := range claims {
		byJob[claim.Job] = claim
	}
	return byJob
}

// nameMachines sees to it that the machines of points are known, by the name of their newest point. A point dated into the
// future names no later than now.
func (w *mirrorWriter) nameMachines(ctx context.Context, tx *sql.Tx, points []MirrorPoint) error {
	newest := map[string]MirrorPoint{}
	for _, p := range points {
		if p.Machine == nil {
			continue
		}
		if p.Created.After(w.now) {
			p.Created = w.now
		}
		id := machineID(p.Machine.Key)
		if named, known := w.named[id]; known && !p.Created.After(named) {
			continue
		}
		if other, known := newest[id]; !known || p.Created.After(other.Created) {
			newest[id] = p
		}
	}
	// By id, so that two transactions cannot wait for each other.
	w.naming = map[string]time.Time{}
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		if err := upsertMachines(ctx, tx, []backup.Machine{*newest[id].Machine}, newest[id].Created); err != nil {
			return err
		}
		w.naming[id] = newest[id].Created
	}
	return nil
}

// remove removes points. Their claims go with them.
func (w *mirrorWriter) remove(ctx context.Context, tx *sql.Tx, ids []backup.PointID) error {
	return inChunks(ids, func(chunk []backup.PointID) error {
		return deleteWhere(ctx, tx, `DELETE FROM points WHERE edition = $1 AND id IN `, w.edition, chunk)
	})
}

// deleteWhere runs a statement that ends with IN.
func deleteWhere(ctx context.Context, tx *sql.Tx, statement string, edition int64, ids []backup.PointID) error {
	args := []any{edition}
	var list strings.Builder
	for _, id := range ids {
		args = append(args, id.String())
		list.WriteString(", $" + strconv.Itoa(len(args)))
	}
	_, err := tx.ExecContext(ctx, statement+"("+list.String()[2:]+")", args...)
	return err
}

// inChunks calls do for the parts of a list that one statement takes.
func inChunks[T any](list []T, do func(chunk []T) error) error {
	for chunk := range slices.Chunk(list, rowsAtOnce) {
		if err := do(chunk); err != nil {
			return err
		}
	}
	return nil
}

// insertRows inserts rows, many in one statement.
func insertRows(ctx context.Context, tx *sql.Tx, into string, rows [][]any, otherwise string) error {
	return inChunks(rows, func(chunk [][]any) error {
		var args []any
		var values strings.Builder
		for i, row := range chunk {
			if i > 0 {
				values.WriteString(", ")
			}
			for j, value := range row {
				args = append(args, value)
				values.WriteString([]string{"(", ", "}[min(j, 1)] + "$" + strconv.Itoa(len(args)))
			}
			values.WriteString(")")
		}
		_, err := tx.ExecContext(ctx, into+values.String()+otherwise, args...)
		return err
	})
}
