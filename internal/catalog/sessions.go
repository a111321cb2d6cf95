package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// SessionState says what became of a session.
type SessionState string

// The states of a session. The first two are those of one that has not ended.
const (
	SessionRunning SessionState = "running"
	// SessionWaiting: nothing can be done now; the reason says what it waits for.
	SessionWaiting SessionState = "waiting"
	SessionDone    SessionState = "done"
	// SessionPartial: some machines failed.
	SessionPartial SessionState = "partial"
	// SessionExpired: its time ended, and machines still waited. Nothing failed.
	SessionExpired SessionState = "expired"
	SessionFailed  SessionState = "failed"
	SessionStopped SessionState = "stopped"
	// SessionNotRun: its time passed while nothing could run.
	SessionNotRun SessionState = "not run"
)

func (s SessionState) ended() bool { return s != SessionRunning && s != SessionWaiting }

// Session is the record of one interval of a job. Times are in UTC, and zero where there is none.
type Session struct {
	ID  int64
	Job string
	// Boundary is the nominal time that the interval began at; zero: it was started by hand.
	Boundary       time.Time
	Started, Ended time.Time
	State          SessionState
	// Phase is the name of the last phase that was entered.
	Phase, Reason string
	Counts        Counts
	Cancel        Cancel
	// Owner is the process that runs it, or ran it last.
	Owner string
	// Full: it reads the newest point of each machine whole from its source.
	Full bool
	// Wait is what it waits for, while it is SessionWaiting; the reason says it in words.
	Wait Blocked
}

// Blocked is what keeps a session from going on: its kind, as package job names it, and of a target what it was found to be, and why.
type Blocked struct {
	Kind   string `json:"kind"`
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Source is the one source that does not answer, by its repository; empty: none can be read, or it is no source.
	Source string `json:"source,omitempty"`
	// Until is when it goes on by itself; zero: that is not known.
	Until time.Time `json:"until,omitzero"`
}

// NewSession is a session that is to begin.
type NewSession struct {
	Job string
	// Boundary is the nominal time that the interval begins at; zero: it was asked for.
	Boundary time.Time
	// Full reads the newest point of each machine whole from its source.
	Full bool
}

// SessionLease is the right to run a session.
type SessionLease struct{ Lease }

// Sessions are the records of intervals, and who runs those that have not ended.
type Sessions struct{ db *database }

const sessionColumns = `id, job, boundary_at, started_at, ended_at, state, phase, reason, counts, cancel, owner, whole, wait`

func scanSession(row interface{ Scan(...any) error }, more ...any) (s Session, err error) {
	var boundary, started, ended, whole int64
	var counts, wait string
	fields := []any{&s.ID, &s.Job, &boundary, &started, &ended, &s.State, &s.Phase, &s.Reason, &counts, &s.Cancel, &s.Owner, &whole, &wait}
	if err := row.Scan(append(fields, more...)...); err != nil {
		return s, err
	}
	s.Boundary, s.Started, s.Ended, s.Full = maybe(boundary), moment(started), maybe(ended), whole != 0
	if wait != "" {
		if err := fromJSON(wait, &s.Wait); err != nil {
			return s, err
		}
	}
	return s, fromJSON(counts, &s.Counts)
}

// Begin starts the session of a job's interval for an owner. A job has one session at a time (else ErrSessionRunning), and an
// interval one (else ErrBoundaryTaken); one that was asked for has no boundary. What asked for an interval is answered by it. An
// interval that was recorded as not run, by a clock that was ahead, can still begin.
func (s *Sessions) Begin(ctx context.Context, begun NewSession, owner string, length time.Duration) (session Session, lease SessionLease, err error) {
	if err := checkName("job", begun.Job); err != nil {
		return session, lease, err
	}
	if err := checkLease(owner, length); err != nil {
		return session, lease, err
	}
	now := s.db.now().UTC()
	err = s.db.write(ctx, "beginning a session of job "+begun.Job, func(tx *sql.Tx) error {
		id, err := number(ctx, tx, "id", 1)
		if err != nil {
			return err
		}
		boundary := stamp(begun.Boundary)
		session = Session{
			ID: id, Job: begun.Job, Boundary: maybe(boundary), Started: now, State: SessionRunning, Counts: Counts{}, Owner: owner, Full: begun.Full,
		}
		lease = SessionLease{Lease{ID: id, Owner: owner, Epoch: 1, Until: now.Add(length)}}
		if boundary != 0 {
			if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE job = $1 AND boundary_at = $2 AND state = $3`, begun.Job, boundary, SessionNotRun); err != nil {
				return err
			}
		}
		inserted, err := execute(ctx, tx, `
			INSERT INTO sessions (`+sessionColumns+`, lease_until, epoch) VALUES ($1, $2, $3, $4, 0, $5, '', '', '{}', 0, $6, $7, '', $8, 1)
			ON CONFLICT DO NOTHING`,
			id, begun.Job, boundary, stamp(now), SessionRunning, owner, flag(begun.Full), stamp(lease.Until))
		if err != nil {
			return err
		}
		if inserted == 0 {
			return whyNoSession(ctx, tx, begun.Job)
		}
		_, err = tx.ExecContext(ctx, `
			INSERT INTO jobs (`+jobColumns+`) VALUES ($1, 0, 0, $2, 0, 0)
			ON CONFLICT (name) DO UPDATE SET asked_at = 0, last_at = CASE WHEN excluded.last_at = 0 THEN jobs.last_at ELSE excluded.last_at END`,
			begun.Job, boundary)
		return err
	})
	return session, lease, err
}

func whyNoSession(ctx context.Context, tx *sql.Tx, job string) error {
	var running int64
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM sessions WHERE job = $1 AND ended_at = 0`, job).Scan(&running); err != nil {
		return err
	}
	if running > 0 {
		return fmt.Errorf("job %s: %w", job, ErrSessionRunning)
	}
	return fmt.Errorf("job %s: %w", job, ErrBoundaryTaken)
}

// boundaryLimit is how many intervals can be recorded as not run at once.
const boundaryLimit = 10000

// RecordNotRun records intervals of a job whose time passed while nothing could run. Those that have a session are left alone.
func (s *Sessions) RecordNotRun(ctx context.Context, job string, boundaries []time.Time, reason string) error {
	if err := checkName("job", job); err != nil {
		return err
	}
	if len(boundaries) > boundaryLimit {
		return fmt.Errorf("%w: %d intervals at once, more than %d", ErrTooLarge, len(boundaries), boundaryLimit)
	}
	now := s.db.now()
	return s.db.write(ctx, "recording intervals that were not run", func(tx *sql.Tx) error {
		first, err := number(ctx, tx, "id", len(boundaries))
		if err != nil {
			return err
		}
		for i, boundary := range boundaries {
			if _, err := tx.ExecContext(ctx, `
				INSERT INTO sessions (`+sessionColumns+`, lease_until, epoch) VALUES ($1, $2, $3, $4, $4, $5, '', $6, '{}', 0, '', 0, '', 0, 0)
				ON CONFLICT DO NOTHING`,
				first+int64(i), job, stamp(boundary), stamp(now), SessionNotRun, safeReason(reason)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Take takes over a session whose owner's lease has expired. What that waited for, it waits for no longer. It is false if there is none.
func (s *Sessions) Take(ctx context.Context, owner string, length time.Duration) (session Session, lease SessionLease, found bool, err error) {
	if err := checkLease(owner, length); err != nil {
		return session, lease, false, err
	}
	const doing, left = "taking a session over", `SELECT id FROM sessions WHERE ended_at = 0 AND ` + expired + ` ORDER BY id LIMIT 1`
	now := s.db.now().UTC()
	// This is asked for all the time, and nearly always there is none: then nothing is locked.
	there := false
	err = s.db.read(ctx, doing, func(*sql.Rows) error { there = true; return nil }, left, expiredArgs(owner, now)...)
	if err != nil || !there {
		return session, lease, false, err
	}
	err = s.db.write(ctx, doing, func(tx *sql.Tx) error {
		found = false
		if err := s.db.lockSection(ctx, tx, sectionTake); err != nil {
			return err
		}
		id, err := firstNumber(ctx, tx, left, expiredArgs(owner, now)...)
		if err != nil || id == 0 {
			return err
		}
		lease = SessionLease{Lease{ID: id, Owner: owner, Until: now.Add(length)}}
		// The owner may have ended or renewed it between the two statements.
		args := append(expiredArgs(owner, now), id, stamp(lease.Until))
		return each(ctx, tx, func(rows *sql.Rows) (err error) {
			session, err = scanSession(rows, &lease.Epoch)
			found = err == nil
			return err
		}, `UPDATE sessions SET owner = $1, lease_until = $5, epoch = epoch + 1, state = 'running', reason = '', wait = '' WHERE id = $4 AND ended_at = 0 AND `+expired+` RETURNING `+sessionColumns+`, epoch`,
			args...)
	})
	return session, lease, found, err
}

// Renew makes a session's lease run for length from now, and says whether the session is to stop.
func (s *Sessions) Renew(ctx context.Context, lease *SessionLease, length time.Duration) (cancel Cancel, err error) {
	if err := checkLease(lease.Owner, length); err != nil {
		return cancel, err
	}
	until := s.db.now().UTC().Add(length)
	err = s.change(ctx, *lease, "renewing the lease of", &cancel, `lease_until = $3`, stamp(until))
	if err == nil {
		lease.Until = until
	}
	return cancel, err
}

// Wait notes that a session waits, and for what and why, and so do its tasks that nobody works on; the zero value: it no longer does.
func (s *Sessions) Wait(ctx context.Context, lease SessionLease, wait Blocked, reason string) error {
	state, kept := SessionRunning, ""
	if wait != (Blocked{}) {
		wait.Reason = safeReason(wait.Reason)
		state, kept = SessionWaiting, toJSON(wait)
	}
	reason = safeReason(reason)
	return s.db.write(ctx, fmt.Sprintf("noting what keeps session %d", lease.ID), func(tx *sql.Tx) error {
		if err := lease.change(ctx, tx, leasedSession, nil, `state = $3, reason = $4, wait = $5`, state, reason, kept); err != nil {
			return err
		}
		// One that failed keeps saying why.
		_, err := tx.ExecContext(ctx, `UPDATE tasks SET next_at = $3, reason = CASE WHEN attempts = 0 THEN $2 ELSE reason END WHERE session = $1 AND state = 'waiting'`,
			lease.ID, reason, stamp(wait.Until))
		return err
	})
}

// reportLimit is the largest report, in bytes: one of 20,000 machines fits.
const reportLimit = 64 << 20

// SetReport keeps what a session came to, as JSON. It is for whoever holds the session, before it ends.
func (s *Sessions) SetReport(ctx context.Context, lease SessionLease, report []byte) error {
	switch {
	case len(report) > reportLimit:
		return fmt.Errorf("%w: the report of session %d has %d bytes, more than %d", ErrTooLarge, lease.ID, len(report), reportLimit)
	case !json.Valid(report):
		return fmt.Errorf("%w: the report of session %d is not JSON", ErrInvalid, lease.ID)
	}
	return s.change(ctx, lease, "keeping the report of", nil, `report = $3`, string(report))
}

// Report returns what a session came to, as JSON; nil if it has no report. A session that is not there gives ErrNotFound.
func (s *Sessions) Report(ctx context.Context, id int64) (report []byte, err error) {
	there := false
	err = s.db.read(ctx, "reading a report", func(rows *sql.Rows) error {
		there = true
		return rows.Scan(&report)
	}, `SELECT report FROM sessions WHERE id = $1`, id)
	switch {
	case err == nil && !there:
		err = fmt.Errorf("session %d: %w", id, ErrNotFound)
	case len(report) == 0:
		report = nil
	}
	return report, err
}

// change updates a session that its lease still holds.
func (s *Sessions) change(ctx context.Context, lease SessionLease, doing string, cancel *Cancel, set string, args ...any) error {
	return s.db.write(ctx, fmt.Sprintf("%s session %d", doing, lease.ID), func(tx *sql.Tx) error {
		return lease.change(ctx, tx, leasedSession, cancel, set, args...)
	})
}

// holdSession sees to it that a session is held by its lease until the transaction ends, and says whether it is to stop.
func holdSession(ctx context.Context, tx *sql.Tx, lease SessionLease) (cancel Cancel, err error) {
	err = lease.change(ctx, tx, leasedSession, &cancel, `epoch = epoch`)
	return cancel, err
}

// End ends a session. Its tasks that wait are stopped; while some run the error is ErrTasksRunning. Ending it again in the same
// way does nothing. How many sources it looked at and could read, whether it could read the target, and what it copied and claimed, are among
// the counts: Standing goes by them.
func (s *Sessions) End(ctx context.Context, lease SessionLease, state SessionState, reason string, counts Counts) error {
	if !state.ended() {
		return fmt.Errorf("%w: a session does not end as %s", ErrInvalid, state)
	}
	text, err := counts.text()
	if err != nil {
		return err
	}
	sources, target, outcome := standsBy(state, counts)
	now := s.db.now()
	return s.db.write(ctx, fmt.Sprintf("ending session %d", lease.ID), func(tx *sql.Tx) error {
		var ended int64
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM sessions WHERE id = $1 AND epoch = $2 AND ended_at <> 0 AND state = $3`,
			lease.ID, lease.Epoch, state).Scan(&ended); err != nil || ended > 0 {
			return err
		}
		if err := lease.change(ctx, tx, leasedSession, nil, `state = $3, reason = $4, counts = $5, ended_at = $6, lease_until = 0, wait = '', sources = $7, target = $8, outcome = $9`,
			state, safeReason(reason), text, stamp(now), sources, target, outcome); err != nil {
			return err
		}
		if err := closePhase(ctx, tx, lease.ID, now); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE tasks SET state = $2, reason = $3, ended_at = $4 WHERE session = $1 AND state = 'waiting'`,
			lease.ID, TaskStopped, "the session has ended", stamp(now)); err != nil {
			return err
		}
		var running int64
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM tasks WHERE session = $1 AND state = 'running'`, lease.ID).Scan(&running); err != nil {
			return err
		}
		if running > 0 {
			return fmt.Errorf("session %d: %d %w", lease.ID, running, ErrTasksRunning)
		}
		return nil
	})
}

// Cancel asks a session and its tasks to stop. A stronger request stays. Tasks that wait are stopped at once.
func (s *Sessions) Cancel(ctx context.Context, id int64, how Cancel) error {
	now := s.db.now()
	return s.db.write(ctx, fmt.Sprintf("cancelling session %d", id), func(tx *sql.Tx) error {
		changed, err := execute(ctx, tx, `UPDATE sessions SET cancel = CASE WHEN cancel < $2 THEN $2 ELSE cancel END WHERE id = $1 AND ended_at = 0`, id, how)
		if err != nil {
			return err
		}
		if changed == 0 {
			return fmt.Errorf("running session %d: %w", id, ErrNotFound)
		}
		_, err = tx.ExecContext(ctx, cancelTasks, id, how, stamp(now))
		return err
	})
}

// Get returns a session, else ErrNotFound.
func (s *Sessions) Get(ctx context.Context, id int64) (Session, error) {
	list, err := s.list(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE id = $1`, id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("session %d: %w", id, ErrNotFound)
	}
	if err != nil {
		return Session{}, err
	}
	return list[0], nil
}

// Live returns the sessions that have not ended, oldest first.
func (s *Sessions) Live(ctx context.Context) ([]Session, error) {
	return s.list(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE ended_at = 0 ORDER BY id`)
}

const allSessions = `SELECT ` + sessionColumns + ` FROM sessions WHERE id < $1 ORDER BY id DESC LIMIT $2`

// Of returns the sessions of a job, or of all jobs without one, before another (0: from the last on), newest first, at most limit.
func (s *Sessions) Of(ctx context.Context, job string, before int64, limit int) ([]Session, error) {
	if job == "" {
		if before == 0 {
			before = math.MaxInt64
		}
		return s.list(ctx, allSessions, before, limit)
	}
	return s.list(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE job = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, job, before, limit)
}

// copiedWithin is how many of a job's sessions are looked at for those that copied something.
const copiedWithin = 1000

const copiedSessions = `
	SELECT ` + sessionColumns + ` FROM sessions
	WHERE job = $1 AND id > COALESCE((SELECT id FROM sessions WHERE job = $1 ORDER BY id DESC LIMIT 1 OFFSET $2), 0)
		AND counts LIKE '%"copyMilliseconds":%' AND counts NOT LIKE '%"copyMilliseconds":0%' ORDER BY id DESC LIMIT $3`

// Copied returns the last sessions of a job in which copies were under way, newest first, at most limit. Those before its last
// thousand are not looked at.
func (s *Sessions) Copied(ctx context.Context, job string, limit int) ([]Session, error) {
	return s.list(ctx, copiedSessions, job, copiedWithin, limit)
}

func (s *Sessions) list(ctx context.Context, query string, args ...any) (list []Session, err error) {
	err = s.db.read(ctx, "reading sessions", func(rows *sql.Rows) error {
		session, err := scanSession(rows)
		list = append(list, session)
		return err
	}, query, args...)
	return list, err
}
