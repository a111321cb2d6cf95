package repo

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
)

// Claim claims points that the repository has, in one log entry. It returns how many it claimed: points that are gone
// meanwhile are left out.
func (r *Repository) Claim(ctx context.Context, claims []Claim) (int, error) {
	if len(claims) == 0 {
		return 0, nil
	}
	payload := &commitlog.Payload{}
	err := r.commit(ctx, payload, func(state *commitlog.State) error {
		payload.Claims = nil
		for _, claim := range claims {
			if state.Points.Has(claim.Point) {
				payload.Claims = append(payload.Claims, claim)
			}
		}
		if len(payload.Claims) == 0 {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return 0, nil
	}
	return len(payload.Claims), err
}

// HoldsOn are the holds on a point that count now by this machine's clock.
func (r *Repository) HoldsOn(point backup.PointID) []HoldInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return holding(r.state, point, r.env.now())
}

// Tombstone says of a point that the repository had and gave up when it was made, why it went, which job gave it up last, and with
// which flags; false if it did not.
func (r *Repository) Tombstone(point backup.PointID) (stone commitlog.Tombstone, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stone, ok = r.state.Tombstones[point]
	return stone, ok
}

// Unfinished are the points whose copy was interrupted and can go on.
func (r *Repository) Unfinished() []backup.PointID {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[backup.PointID]bool{}
	var points []backup.PointID
	for _, partials := range r.state.Partials {
		for _, partial := range partials {
			if !seen[partial.Point] {
				seen[partial.Point] = true
				points = append(points, partial.Point)
			}
		}
	}
	slices.SortFunc(points, func(a, b backup.PointID) int { return bytes.Compare(a[:], b[:]) })
	return points
}
