package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ferry/internal/backup"
)

// Head is a state of a repository's log: which repository it is, the number of its last entry and that entry's checksum. For a
// source without a log the number is 0 and the checksum whatever tells its states apart.
type Head struct {
	RepositoryID string
	Number       uint64
	Checksum     string
}

// MirrorPoint is a point of a repository, as far as deciding needs it.
type MirrorPoint struct {
	ID backup.PointID
	// Machine that it is of; nil where only its pseudonym can be read, without the repository's key.
	Machine   *backup.Machine
	Pseudonym string
	Created   time.Time
	State     backup.State
	Reason    string
	// Damaged: it was stored whole, and some of it can no longer be read.
	Damaged bool
	// Size of its objects in bytes.
	Size int64
	// Claims are those of all jobs, sorted by job.
	Claims []MirrorClaim
}

// MirrorClaim is a job's wish to keep a point.
type MirrorClaim struct {
	Job, Reason string
	Flags       []string
}

// Changes are what lies between two heads.
type Changes struct {
	// Put are points that are new or changed, each whole with all of its claims.
	Put     []MirrorPoint
	Removed []backup.PointID
}

// Mirror has the points of repositories, each bound to the head of its log. What it says may be older than the log, never
// different from what the log said at that head.
type Mirror struct{ db *database }

// Head returns the head that a repository's mirror is at, else ErrNotFound.
func (m *Mirror) Head(ctx context.Context, repository string) (head Head, err error) {
	there := false
	err = m.db.read(ctx, "reading the mirror of "+repository, func(rows *sql.Rows) error {
		there = true
		var number int64
		err := rows.Scan(&head.RepositoryID, &number, &head.Checksum)
		head.Number = uint64(number)
		return err
	}, `SELECT repository_id, head_number, head_checksum FROM mirrors WHERE repository = $1`, repository)
	if err == nil && !there {
		err = fmt.Errorf("the mirror of %s: %w", repository, ErrNotFound)
	}
	return head, err
}

// ChangesLimit is how many points and claims Apply takes: one transaction must stay short. Beyond that Replace serves.
const ChangesLimit = 10000

func (c Changes) size() int {
	n := len(c.Put) + len(c.Removed)
	for _, point := range c.Put {
		n += len(point.Claims)
	}
	return n
}

// Apply brings a mirror from one head to a later one, whole or not at all. If the mirror is not at from the error is
// ErrMirrorMoved; if it is at to already, nothing is done. More changes than ChangesLimit give ErrTooLarge.
func (m *Mirror) Apply(ctx context.Context, repository string, from, to Head, changes Changes) error {
	if n := changes.size(); n > ChangesLimit {
		return fmt.Errorf("%w: %d changes at once, more than %d", ErrTooLarge, n, ChangesLimit)
	}
	if err := to.check(repository); err != nil {
		return err
	}
	if to.RepositoryID != from.RepositoryID {
		return fmt.Errorf("%w: the heads of %s are of two repositories, %s and %s", ErrInvalid, repository, from.RepositoryID, to.RepositoryID)
	}
	now := m.db.now()
	return m.db.write(ctx, "changing the mirror of "+repository, func(tx *sql.Tx) error {
		if err := m.db.lockSection(ctx, tx, sectionMirror); err != nil {
			return err
		}
		edition, at, err := currentEdition(ctx, tx, repository)
		switch {
		case err != nil:
			return err
		case edition != 0 && at == to:
			return nil
		case edition == 0 || at != from:
			return movedError(repository, edition, at)
		}
		w := &mirrorWriter{edition: edition, now: now}
		if err := w.remove(ctx, tx, changes.Removed); err != nil {
			return err
		}
		if err := w.put(ctx, tx, changes.Put); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE mirrors SET repository_id = $2, head_number = $3, head_checksum = $4, refreshed_at = $5 WHERE repository = $1`,
			repository, to.RepositoryID, int64(to.Number), to.Checksum, stamp(now))
		return err
	})
}

func (h Head) check(repository string) error {
	if h.Number > math.MaxInt64 {
		return fmt.Errorf("%w: head %d", ErrInvalid, h.Number)
	}
	return errors.Join(checkName("repository", repository), checkName("repository id", h.RepositoryID), checkName("head", h.Checksum))
}

// currentEdition is the edition that a mirror follows, 0 for none, and the head it is at.
func currentEdition(ctx context.Context, tx *sql.Tx, repository string) (edition int64, head Head, err error) {
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var number int64
		err := rows.Scan(&edition, &head.RepositoryID, &number, &head.Checksum)
		head.Number = uint64(number)
		return err
	}, `SELECT edition, repository_id, head_number, head_checksum FROM mirrors WHERE repository = $1`, repository)
	return edition, head, err
}

func movedError(repository string, edition int64, at Head) error {
	if edition == 0 {
		return fmt.Errorf("%s: %w: there is none", repository, ErrMirrorMoved)
	}
	return fmt.Errorf("%s: %w: it is at entry %d, %s", repository, ErrMirrorMoved, at.Number, at.Checksum)
}

// pointQuery gives one row for each claim of a point, and one for a point without claims. Rows of a point follow each other.
const pointQuery = `
	SELECT p.id, p.machine, p.pseudonym, p.created_at, p.state, p.reason, p.damaged, p.size,
		COALESCE(m.platform, ''), COALESCE(m.instance, ''), COALESCE(m.uuid, ''), COALESCE(m.source_name, ''), COALESCE(m.native_id, ''),
		COALESCE(m.name, ''), COALESCE(m.labels, '[]'), COALESCE(m.retired_at, 0), COALESCE(m.retired_decided_at, 0), COALESCE(c.job, ''), COALESCE(c.reason, ''), COALESCE(c.flags, '[]')
	FROM mirrors r JOIN points p ON p.edition = r.edition LEFT JOIN machines m ON m.id = p.machine
		LEFT JOIN claims c ON c.edition = p.edition AND c.point = p.id
	WHERE r.repository = $1 `

// Points returns the points that a repository has of a machine, oldest first.
func (m *Mirror) Points(ctx context.Context, repository string, machine backup.MachineKey) ([]MirrorPoint, error) {
	return m.points(ctx, pointQuery+`AND p.machine = $2 ORDER BY p.created_at, p.id`, repository, machineID(machine))
}

// Point returns a point of a repository, else ErrNotFound.
func (m *Mirror) Point(ctx context.Context, repository string, id backup.PointID) (MirrorPoint, error) {
	list, err := m.points(ctx, pointQuery+`AND p.id = $2`, repository, id.String())
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("point %s in the mirror of %s: %w", id.Short(), repository, ErrNotFound)
	}
	if err != nil {
		return MirrorPoint{}, err
	}
	return list[0], nil
}

// All returns all points that a repository has, by id.
func (m *Mirror) All(ctx context.Context, repository string) ([]MirrorPoint, error) {
	return m.points(ctx, pointQuery+`ORDER BY p.id`, repository)
}

// Totals returns how many points a repository has, of how many machines, and the sum of their sizes in bytes.
func (m *Mirror) Totals(ctx context.Context, repository string) (points, machines, size int64, err error) {
	err = m.db.read(ctx, "adding up points", func(rows *sql.Rows) error { return rows.Scan(&points, &machines, &size) }, `
		SELECT COUNT(*), COUNT(DISTINCT p.pseudonym), CAST(COALESCE(SUM(p.size), 0) AS BIGINT) FROM mirrors r JOIN points p ON p.edition = r.edition
		WHERE r.repository = $1`, repository)
	return points, machines, size, err
}

// Claimers returns how many points of a repository each job claims, by the job's name.
func (m *Mirror) Claimers(ctx context.Context, repository string) (map[string]int64, error) {
	return m.claims(ctx, "counting claims", claimsOf, repository)
}

const claimsOf = `SELECT c.job, COUNT(*) FROM mirrors r JOIN claims c ON c.edition = r.edition WHERE r.repository = $1 GROUP BY c.job`

// Damaged returns how many points of a repository that are known to be damaged each job claims, by the job's name.
func (m *Mirror) Damaged(ctx context.Context, repository string) (map[string]int64, error) {
	return m.claims(ctx, "counting damaged points", damagedOf, repository)
}

const damagedOf = `
	SELECT c.job, COUNT(*) FROM mirrors r JOIN points p ON p.edition = r.edition AND p.damaged = 1 JOIN claims c ON c.edition = p.edition AND c.point = p.id
	WHERE r.repository = $1 GROUP BY c.job`

func (m *Mirror) claims(ctx context.Context, doing, query, repository string) (map[string]int64, error) {
	claims := map[string]int64{}
	err := m.db.read(ctx, doing, func(rows *sql.Rows) error {
		var name string
		var points int64
		if err := rows.Scan(&name, &points); err != nil {
			return err
		}
		job, err := backup.DecodeName(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		claims[job] = points
		return nil
	}, query, repository)
	return claims, err
}

// Where returns the repositories that have a point, by name.
func (m *Mirror) Where(ctx context.Context, id backup.PointID) (repositories []string, err error) {
	err = m.db.read(ctx, "looking for a point", func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		repositories = append(repositories, name)
		return err
	}, `SELECT r.repository FROM points p JOIN mirrors r ON r.edition = p.edition WHERE p.id = $1`, id.String())
	slices.Sort(repositories)
	return repositories, err
}

func (m *Mirror) points(ctx context.Context, query string, args ...any) (list []MirrorPoint, err error) {
	err = m.db.read(ctx, "reading points", func(rows *sql.Rows) error {
		point, claim, err := scanPoint(rows)
		if err != nil {
			return err
		}
		if len(list) == 0 || list[len(list)-1].ID != point.ID {
			list = append(list, point)
		}
		if claim.Job != "" {
			last := &list[len(list)-1]
			last.Claims = append(last.Claims, claim)
		}
		return nil
	}, query, args...)
	for _, point := range list {
		slices.SortFunc(point.Claims, compareClaims)
	}
	return list, err
}

func scanPoint(rows *sql.Rows) (p MirrorPoint, claim MirrorClaim, err error) {
	var id, machine, claimFlags string
	var created, damaged int64
	var known machineScan
	fields := append([]any{&id, &machine, &p.Pseudonym, &created, &p.State, &p.Reason, &damaged, &p.Size}, known.fields()...)
	if err := rows.Scan(append(fields, &claim.Job, &claim.Reason, &claimFlags)...); err != nil {
		return p, claim, err
	}
	if p.ID, err = backup.ParsePointID(id); err != nil {
		return p, claim, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	p.Created, p.Damaged = moment(created), damaged != 0
	if machine != "" {
		full, err := known.machine()
		if err != nil {
			return p, claim, err
		}
		p.Machine = &full.Machine
	}
	for _, name := range []*string{&p.Pseudonym, &claim.Job} {
		if *name, err = backup.DecodeName(*name); err != nil {
			return p, claim, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	claim.Flags, err = decoded(claimFlags)
	return p, claim, err
}
