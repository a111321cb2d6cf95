package catalog

import (
	"context"
	"database/sql"
	"math"

	"ferry/internal/backup"
)

// Lag is what a repository has of a machine that is newer than its newest copy: complete points, and what they hold in bytes.
type Lag struct {
	Machine       backup.MachineKey
	Points, Bytes int64
	// Newest is what the newest of them holds.
	Newest int64
}

// newerPoints counts for each machine of a job ($1) the good points in a source ($3) that are newer than its newest copy in the
// target ($2, whose claims name the job as $5); $4 is before all times.
//
// The newest copies are looked up first, once for each machine: as a condition on points they would be for each of these. What is
// newer is counted by questions of a machine's own, which enter an index; a join with all points would read them all.
const newerPoints = `
	WITH a AS MATERIALIZED (
		SELECT j.machine AS id, COALESCE((SELECT q.created_at ` + newestCopy + `), $4) AS newest
		FROM selected j LEFT JOIN mirrors r ON r.repository = $2 WHERE j.job = $1
	)
	SELECT m.platform, m.instance, m.uuid, m.source_name, m.native_id, m.name, m.labels, m.retired_at, m.retired_decided_at,
		(SELECT COUNT(*) ` + newer + `), (SELECT CAST(COALESCE(SUM(CASE WHEN p.size > 0 THEN p.size ELSE 0 END), 0) AS BIGINT) ` + newer + `),
		COALESCE((SELECT CASE WHEN p.size > 0 THEN p.size ELSE 0 END ` + newer + ` ORDER BY p.created_at DESC LIMIT 1), 0)
	FROM a JOIN machines m ON m.id = a.id JOIN mirrors o ON o.repository = $3`

// newer are the good points of a machine that are newer than its newest copy.
const newer = `FROM points p WHERE p.edition = o.edition AND p.machine = a.id AND p.state = 'complete' AND p.damaged = 0 AND p.created_at > a.newest`

// Newer returns for the machines of a job what a source has that is newer than their newest copies in a target. The source must
// have a mirror; a machine of which it has nothing newer is left out.
func (s *Status) Newer(ctx context.Context, job, target, source string) (list []Lag, err error) {
	err = s.db.read(ctx, "reading what is newer than the copies of job "+job, func(rows *sql.Rows) error {
		var machine machineScan
		var lag Lag
		if err := rows.Scan(append(machine.fields(), &lag.Points, &lag.Bytes, &lag.Newest)...); err != nil || lag.Points == 0 {
			return err
		}
		known, err := machine.machine()
		lag.Machine = known.Key
		list = append(list, lag)
		return err
	}, newerPoints, job, target, source, int64(math.MinInt64), backup.EncodeName(job))
	return list, err
}
