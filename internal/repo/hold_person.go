package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
)

// MaxHoldReason is the length of the longest reason of a person's hold, in bytes: every checkpoint has it.
const MaxHoldReason = 1000

// ErrNoPoint: the repository does not have a point.
var ErrNoPoint = errors.New("the point is not there")

// HoldForPerson holds points because a person says so, all of them or none: until a time, by the storage's clock, or with the zero
// time until ReleaseForPerson. It takes the place of what a person said of them before. The error wraps ErrNoPoint if one is not there.
func (r *Repository) HoldForPerson(ctx context.Context, points []backup.PointID, reason string, until time.Time) error {
	if reason == "" || len(reason) > MaxHoldReason || !utf8.ValidString(reason) {
		return fmt.Errorf("the reason of a hold is a text of 1 to %d bytes", MaxHoldReason)
	}
	payload := &commitlog.Payload{}
	for _, id := range points {
		hold := commitlog.Hold{Point: id, ID: commitlog.PersonHold, Reason: reason}
		if !until.IsZero() {
			at := until.UTC()
			hold.Until = &at
		}
		payload.Holds = append(payload.Holds, hold)
	}
	if err := r.Refresh(ctx); err != nil {
		return err
	}
	return r.commit(ctx, payload, func(state *commitlog.State) error {
		for _, id := range points {
			if !state.Points.Has(id) {
				return fmt.Errorf("point %s in %s: %w", id.Short(), r.store.Location(), ErrNoPoint)
			}
		}
		return nil
	})
}

// ReleaseForPerson ends what HoldForPerson began, and returns of which points that was. Holds of running restores stay. What nothing
// claims or holds any more goes with the next Reclaim. A storage that is full lets it use the reserve.
func (r *Repository) ReleaseForPerson(ctx context.Context, points []backup.PointID) (released []backup.PointID, err error) {
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	err = r.withReserve(ctx, func() error {
		payload := &commitlog.Payload{}
		return r.commit(ctx, payload, func(state *commitlog.State) error {
			released, payload.HoldsReleased = nil, nil
			for _, id := range points {
				if slices.ContainsFunc(state.Holds[id], func(h commitlog.Hold) bool { return h.ID == commitlog.PersonHold }) {
					released = append(released, id)
					payload.HoldsReleased = append(payload.HoldsReleased, commitlog.Hold{Point: id, ID: commitlog.PersonHold})
				}
			}
			if len(released) == 0 {
				return errNothing
			}
			return nil
		})
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	return released, err
}
