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
}

// newerPoints counts for each machine of a job ($1) the good points in a source ($3) that are newer than its newest copy in the
// target ($2, whose claims name the job as $5); $4 is before all times.
const newerPoints = `
	SELECT m.platform, m.instance, m.uuid, m.source_name, m.native_id, m.name, m.labels, m.retired_at, COUNT(*), CAST(SUM(CASE WHEN p.size > 0 THEN p.size ELSE 0 END) AS BIGINT)
	FROM selected j JOIN machines m ON m.id = j.machine LEFT JOIN mirrors r ON r.repository = $2
		JOIN mirrors o ON o.repository = $3 JOIN points p ON p.edition = o.edition AND p.machine = j.machine AND p.state = 'complete' AND p.damaged = 0
			AND p.created_at > COALESCE((SELECT q.created_at ` + newestCopy + `), $4)
	WHERE j.job = $1
	GROUP BY m.id, m.platform, m.instance, m.uuid, m.source_name, m.native_id, m.name, m.labels, m.retired_at`

// Newer returns for the machines of a job what a source has that is newer than their newest copies in a target. The source must
// have a mirror; a machine of which it has nothing newer is left out.
func (s *Status) Newer(ctx context.Context, job, target, source string) (list []Lag, err error) {
	err = s.db.read(ctx, "reading what is newer than the copies of job "+job, func(rows *sql.Rows) error {
		var machine machineScan
		var lag Lag
		if err := rows.Scan(append(machine.fields(), &lag.Points, &lag.Bytes)...); err != nil {
			return err
		}
		known, err := machine.machine()
		lag.Machine = known.Key
		list = append(list, lag)
		return err
	}, newerPoints, job, target, source, int64(math.MinInt64), backup.EncodeName(job))
	return list, err
}
