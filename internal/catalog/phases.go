package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// PhaseState says what became of a phase.
type PhaseState string

// The states of a phase.
const (
	PhaseRunning PhaseState = "running"
	PhaseDone    PhaseState = "done"
	// PhaseSkipped: there was nothing to do, or it was not due.
	PhaseSkipped PhaseState = "skipped"
	PhaseFailed  PhaseState = "failed"
	// PhaseWarned: it was done, with something to be looked at. PhaseWaited: it ended while something was waited for.
	PhaseWarned PhaseState = "warning"
	PhaseWaited PhaseState = "waiting"
	// PhaseInterrupted: whoever ran it ended before it did.
	PhaseInterrupted PhaseState = "interrupted"
)

// Phase is the record of one phase of a session. A phase that was interrupted and entered again has two.
type Phase struct {
	// Number of the phase in its session, from 1.
	Number         int64
	Name           string
	Started, Ended time.Time
	State          PhaseState
	Reason         string
	Counts         Counts
}

// Enter begins a phase and returns its number. One that has not been left is recorded as interrupted.
func (s *Sessions) Enter(ctx context.Context, lease SessionLease, name string) (phase int64, err error) {
	if err := checkName("phase", name); err != nil {
		return 0, err
	}
	now := s.db.now()
	err = s.db.write(ctx, fmt.Sprintf("entering phase %s of session %d", name, lease.ID), func(tx *sql.Tx) error {
		if err := lease.change(ctx, tx, leasedSession, nil, `phase = $3`, name); err != nil {
			return err
		}
		if err := closePhase(ctx, tx, lease.ID, now); err != nil {
			return err
		}
		phase, err = addPhase(ctx, tx, lease.ID, Phase{Name: name, Started: now, State: PhaseRunning})
		return err
	})
	return phase, err
}

// Skip records a phase in which there is nothing to do, or that is not due, and returns its number. Nobody sees it running.
func (s *Sessions) Skip(ctx context.Context, lease SessionLease, name, reason string) (phase int64, err error) {
	if err := checkName("phase", name); err != nil {
		return 0, err
	}
	now := s.db.now()
	err = s.db.write(ctx, fmt.Sprintf("skipping phase %s of session %d", name, lease.ID), func(tx *sql.Tx) error {
		if _, err := holdSession(ctx, tx, lease); err != nil {
			return err
		}
		phase, err = addPhase(ctx, tx, lease.ID, Phase{Name: name, Started: now, Ended: now, State: PhaseSkipped, Reason: safeReason(reason)})
		return err
	})
	return phase, err
}

// addPhase adds a phase to those of a session and returns its number.
func addPhase(ctx context.Context, tx *sql.Tx, session int64, p Phase) (number int64, err error) {
	err = tx.QueryRowContext(ctx, `
		INSERT INTO phases (session, ordinal, name, started_at, ended_at, state, reason, counts)
		SELECT CAST($1 AS BIGINT), COALESCE(MAX(ordinal), 0) + 1, CAST($2 AS TEXT), CAST($3 AS BIGINT), CAST($4 AS BIGINT), CAST($5 AS TEXT), CAST($6 AS TEXT), '{}'
		FROM phases WHERE session = $1
		RETURNING ordinal`, session, p.Name, stamp(p.Started), stamp(p.Ended), p.State, p.Reason).Scan(&number)
	return number, err
}

// closePhase records the phase that was not left as interrupted.
func closePhase(ctx context.Context, tx *sql.Tx, session int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE phases SET state = $2, ended_at = $3 WHERE session = $1 AND ended_at = 0`, session, PhaseInterrupted, stamp(now))
	return err
}

// Leave ends a phase. Leaving one that has ended does nothing.
func (s *Sessions) Leave(ctx context.Context, lease SessionLease, phase int64, state PhaseState, reason string, counts Counts) error {
	text, err := counts.text()
	if err != nil {
		return err
	}
	now := s.db.now()
	return s.db.write(ctx, fmt.Sprintf("leaving phase %d of session %d", phase, lease.ID), func(tx *sql.Tx) error {
		if _, err := holdSession(ctx, tx, lease); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE phases SET state = $3, reason = $4, counts = $5, ended_at = $6 WHERE session = $1 AND ordinal = $2 AND ended_at = 0`,
			lease.ID, phase, state, safeReason(reason), text, stamp(now))
		return err
	})
}

// Phases returns the phases of a session in their order.
func (s *Sessions) Phases(ctx context.Context, session int64) (list []Phase, err error) {
	err = s.db.read(ctx, fmt.Sprintf("reading the phases of session %d", session), func(rows *sql.Rows) error {
		var p Phase
		var started, ended int64
		var counts string
		if err := rows.Scan(&p.Number, &p.Name, &started, &ended, &p.State, &p.Reason, &counts); err != nil {
			return err
		}
		p.Started, p.Ended = moment(started), maybe(ended)
		list = append(list, p)
		return fromJSON(counts, &list[len(list)-1].Counts)
	}, `SELECT ordinal, name, started_at, ended_at, state, reason, counts FROM phases WHERE session = $1 ORDER BY ordinal`, session)
	return list, err
}
