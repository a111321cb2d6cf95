package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"ferry/internal/backup"
)

// TaskState says what became of a task.
type TaskState string

// The states of a task. The first two are those of one that has not ended.
const (
	// TaskWaiting: nobody works on it; it may have a reason.
	TaskWaiting TaskState = "waiting"
	TaskRunning TaskState = "running"
	TaskDone    TaskState = "done"
	TaskFailed  TaskState = "failed"
	TaskStopped TaskState = "stopped"
)

// Progress of a task. Bytes.
type Progress struct {
	// Done of Total bytes of the point are dealt with, read or not; Total is 0 while it is not known.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Read from the source, Written to the target.
	Read    int64 `json:"read,omitempty"`
	Written int64 `json:"written,omitempty"`
	// Kept is how much of the point is written down in the target: whoever takes the task over goes on from there.
	Kept int64 `json:"kept,omitempty"`
	// Attempt is when the copy was begun last, and Resumed what was kept by then; zero: it has not begun.
	Attempt time.Time `json:"attempt,omitzero"`
	Resumed int64     `json:"resumed,omitempty"`
}

// NewTask is work on one machine in a session.
type NewTask struct {
	Machine backup.Machine
	// Point is the point to be copied, and Created its time; nil: it is not known yet.
	Point   *backup.PointID
	Created time.Time
	// Source and Target are the names of the repositories whose slots the task takes.
	Source, Target string
	// Order: tasks with less come first. Two jobs whose orders begin with the same number take turns.
	Order int64
	// Size is what the point holds in bytes, as far as known before it is read: the Total that its Progress begins with.
	Size int64
}

// Task is work on one machine in a session, and how far it is. Times are in UTC, and zero where there is none.
type Task struct {
	NewTask
	ID, Session int64
	Job         string
	State       TaskState
	Reason      string
	// Attempts is how often the task failed. That its owner went is no failure of it.
	Attempts             int64
	Cancel               Cancel
	Owner                string
	LeaseUntil           time.Time
	Progress             Progress
	Queued, Began, Ended time.Time
}

// TaskLease is the right to work on a task.
type TaskLease struct{ Lease }

// Tasks are the work of sessions, handed out by leases.
type Tasks struct{ db *database }

// taskColumns are those of tasks t, sessions s and machines m.
const (
	taskColumns = `t.id, t.session, s.job, t.point, t.point_at, t.source, t.target, t.ordinal, t.state, t.reason, t.attempts, t.cancel, t.owner,
		t.lease_until, t.progress, t.created_at, t.began_at, t.ended_at, ` + machineColumns
	taskQuery = `SELECT ` + taskColumns + ` FROM tasks t JOIN sessions s ON s.id = t.session JOIN machines m ON m.id = t.machine`
)

func scanTask(rows *sql.Rows, more ...any) (t Task, err error) {
	var point, progress string
	var created, until, queued, began, ended int64
	var machine machineScan
	fields := append([]any{
		&t.ID, &t.Session, &t.Job, &point, &created, &t.Source, &t.Target, &t.Order, &t.State, &t.Reason, &t.Attempts, &t.Cancel, &t.Owner, &until,
		&progress, &queued, &began, &ended,
	}, machine.fields()...)
	if err := rows.Scan(append(fields, more...)...); err != nil {
		return t, err
	}
	known, err := machine.machine()
	if err != nil {
		return t, err
	}
	t.Machine, t.LeaseUntil = known.Machine, maybe(until)
	t.Queued, t.Began, t.Ended = moment(queued), maybe(began), maybe(ended)
	if point != "" {
		id, err := backup.ParsePointID(point)
		if err != nil {
			return t, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		t.Point, t.Created = &id, moment(created)
	}
	return t, fromJSON(progress, &t.Progress)
}

// pointKey and pointTime are how the point of a task is kept.
func (t NewTask) pointKey() (string, int64) {
	if t.Point == nil {
		return "", 0
	}
	return t.Point.String(), stamp(t.Created)
}

// taskLimit is how many tasks can be added at once.
const taskLimit = 20000

// Enqueue adds tasks to a session, all or none. One for a machine and point that the session has a task for already is left
// out, so that it can be repeated. If the session is to stop, so are they. It returns how many were added.
func (t *Tasks) Enqueue(ctx context.Context, lease SessionLease, tasks []NewTask) (added int, err error) {
	if len(tasks) > taskLimit {
		return 0, fmt.Errorf("%w: %d tasks at once, more than %d", ErrTooLarge, len(tasks), taskLimit)
	}
	machines := make([]backup.Machine, len(tasks))
	for i, task := range tasks {
		machines[i] = task.Machine
		if err := checkName("repository", task.Source); err != nil {
			return 0, err
		}
		if err := checkName("repository", task.Target); err != nil {
			return 0, err
		}
	}
	now := t.db.now()
	err = t.db.write(ctx, fmt.Sprintf("adding tasks to session %d", lease.ID), func(tx *sql.Tx) error {
		added = 0
		cancel, err := holdSession(ctx, tx, lease)
		if err != nil {
			return err
		}
		if err := upsertMachines(ctx, tx, machines, now); err != nil {
			return err
		}
		first, err := number(ctx, tx, "id", len(tasks))
		if err != nil {
			return err
		}
		for i, task := range tasks {
			point, created := task.pointKey()
			inserted, err := execute(ctx, tx, `
				INSERT INTO tasks (id, session, machine, point, point_at, source, target, ordinal, state, reason, attempts, next_at, cancel, owner,
					lease_until, epoch, progress, created_at, began_at, ended_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', 0, 0, $11, '', 0, 0, $12, $10, 0, 0)
				ON CONFLICT (session, machine, point) DO NOTHING`,
				first+int64(i), lease.ID, machineID(task.Machine.Key), point, created, task.Source, task.Target, task.Order, TaskWaiting, stamp(now), cancel, toJSON(Progress{Total: task.Size}))
			if err != nil {
				return err
			}
			added += int(inserted)
		}
		return nil
	})
	return added, err
}

// cancelTasks asks the tasks of session $1 to stop as $2 says, at the time $3. What waits is stopped, since nobody is there to do so.
const cancelTasks = `
	UPDATE tasks SET cancel = CASE WHEN cancel < $2 THEN $2 ELSE cancel END,
		ended_at = CASE WHEN state = 'waiting' THEN CAST($3 AS BIGINT) ELSE ended_at END,
		state = CASE WHEN state = 'waiting' THEN 'stopped' ELSE state END
	WHERE session = $1 AND state IN ('waiting', 'running')`

// Get returns a task, else ErrNotFound.
func (t *Tasks) Get(ctx context.Context, id int64) (Task, error) {
	list, err := t.list(ctx, taskQuery+` WHERE t.id = $1`, id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("task %d: %w", id, ErrNotFound)
	}
	if err != nil {
		return Task{}, err
	}
	return list[0], nil
}

// Of returns the tasks of a session in the order in which they are processed.
func (t *Tasks) Of(ctx context.Context, session int64) ([]Task, error) {
	return t.list(ctx, taskQuery+` WHERE t.session = $1 ORDER BY t.ordinal, t.id`, session)
}

func (t *Tasks) list(ctx context.Context, query string, args ...any) (list []Task, err error) {
	err = t.db.read(ctx, "reading tasks", func(rows *sql.Rows) error {
		task, err := scanTask(rows)
		list = append(list, task)
		return err
	}, query, args...)
	return list, err
}
