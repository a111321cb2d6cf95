package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"time"

	"ferry/internal/backup"
)

// Status answers what people look at first. Each question costs in proportion to the machines and tasks that the answer is
// about, not to the points that there are.
type Status struct{ db *database }

// CopyAge is how old a machine's newest copy is.
type CopyAge struct {
	Machine KnownMachine
	// Since is since when the job has had the machine.
	Since time.Time
	// Point is the newest good point that the job has of the machine in the repository, and Created its time at the source.
	// Nil: there is none.
	Point   *backup.PointID
	Created time.Time
}

// newestCopy chooses, for a machine j of a job's selection, the newest good point that the job claims: an index is entered at the
// machine's newest point; points that are damaged, or another job's ($5 as claims name it), are passed over.
const newestCopy = `
	FROM points q WHERE q.edition = r.edition AND q.machine = j.machine AND q.damaged = 0 AND q.state = 'complete'
		AND EXISTS (SELECT 1 FROM claims c WHERE c.edition = q.edition AND c.point = q.id AND c.job = $5)
	ORDER BY q.created_at DESC LIMIT 1`

// newestCopies is the newest copy that a job ($1) has in a repository ($2) of each machine of its selection: those without a copy
// first ($3 is before all times), then the oldest. The choice is made twice, for the point and for its time, since a join with
// all points, which PostgreSQL would make of one, costs far more.
const newestCopies = `
	SELECT a.platform, a.instance, a.uuid, a.source_name, a.native_id, a.name, a.labels, a.retired_at, a.retired_decided_at, a.since_at, COALESCE(a.point, ''),
		COALESCE(a.created_at, 0)
	FROM (SELECT m.id, ` + machineColumns + `, j.since_at, (SELECT q.id ` + newestCopy + `) AS point, (SELECT q.created_at ` + newestCopy + `) AS created_at
		FROM selected j JOIN machines m ON m.id = j.machine LEFT JOIN mirrors r ON r.repository = $2 WHERE j.job = $1) a
	ORDER BY COALESCE(a.created_at, $3), a.id LIMIT $4`

// OldestCopies returns for the machines of a job how old their newest copy in a repository is, at most limit of them: first
// those that have none, then the oldest. Whoever asks which are older than allowed stops at the first that is not.
func (s *Status) OldestCopies(ctx context.Context, job, repository string, limit int) (list []CopyAge, err error) {
	err = s.db.read(ctx, "reading the ages of the copies of job "+job, func(rows *sql.Rows) error {
		var machine machineScan
		var age CopyAge
		var since, created int64
		var point string
		if err := rows.Scan(append(machine.fields(), &since, &point, &created)...); err != nil {
			return err
		}
		known, err := machine.machine()
		if err != nil {
			return err
		}
		age.Machine, age.Since = known, moment(since)
		if point != "" {
			id, err := backup.ParsePointID(point)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			age.Point, age.Created = &id, moment(created)
		}
		list = append(list, age)
		return nil
	}, newestCopies, job, repository, int64(math.MinInt64), limit, backup.EncodeName(job))
	return list, err
}

const runningTasks = taskQuery + ` WHERE t.state = 'running' ORDER BY t.ordinal, t.id LIMIT $1`

// Running returns the tasks that somebody works on, at most limit.
func (s *Status) Running(ctx context.Context, limit int) ([]Task, error) {
	return (&Tasks{s.db}).list(ctx, runningTasks, limit)
}

// Wait is how many tasks of a job wait for the same.
type Wait struct {
	Job, Reason string
	// Failed: they were tried, and the reason says what went wrong. Else they wait for what their session waits for, or for their turn.
	Failed bool
	Tasks  int64
	// Until is when they go on; zero: that is not known.
	Until time.Time
}

const waitReasons = `
	SELECT s.job, t.reason, CASE WHEN t.attempts > 0 THEN 1 ELSE 0 END AS failed, COUNT(*), MIN(t.next_at) FROM tasks t JOIN sessions s ON s.id = t.session WHERE t.state = 'waiting'
	GROUP BY s.job, t.reason, failed ORDER BY COUNT(*) DESC, MIN(t.id) LIMIT $1`

// Waits returns what tasks wait for, what most wait for first, at most limit.
func (s *Status) Waits(ctx context.Context, limit int) (list []Wait, err error) {
	err = s.db.read(ctx, "reading what tasks wait for", func(rows *sql.Rows) error {
		var w Wait
		var until, failed int64
		err := rows.Scan(&w.Job, &w.Reason, &failed, &w.Tasks, &until)
		w.Failed, w.Until = failed != 0, maybe(until)
		list = append(list, w)
		return err
	}, waitReasons, limit)
	return list, err
}

// Left is what a session has not copied yet of what it is to copy.
type Left struct {
	// Points, and the Bytes of them that were not dealt with yet.
	Points, Bytes int64
	// Planned is true once there are tasks at all.
	Planned bool
	// Begun are the copies that have begun, by when they did.
	Begun []Begun
}

// Begun is a copy that has begun: when it first did, when it ended (zero: it has not), and what was dealt with of it in bytes.
type Begun struct {
	From, Ended time.Time
	State       TaskState
	Done        int64
}

const leftOfSession = `SELECT state, progress, began_at, ended_at FROM tasks WHERE session = $1`

// Left adds up the tasks of a session.
func (s *Status) Left(ctx context.Context, session int64) (left Left, err error) {
	err = s.db.read(ctx, fmt.Sprintf("reading what is left of session %d", session), func(rows *sql.Rows) error {
		var state TaskState
		var text string
		var began, ended int64
		var progress Progress
		if err := rows.Scan(&state, &text, &began, &ended); err != nil {
			return err
		}
		if err := fromJSON(text, &progress); err != nil {
			return err
		}
		left.Planned = true
		if from := maybe(began); !from.IsZero() {
			left.Begun = append(left.Begun, Begun{From: from, Ended: maybe(ended), State: state, Done: progress.Done})
		}
		if state == TaskWaiting || state == TaskRunning {
			left.Points++
			left.Bytes += max(0, progress.Total-progress.Done)
		}
		return nil
	}, leftOfSession, session)
	slices.SortFunc(left.Begun, func(a, b Begun) int { return a.From.Compare(b.From) })
	return left, err
}
