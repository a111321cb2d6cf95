package repo

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
)

// Forgetting is a point that a job gives up.
type Forgetting struct {
	Point backup.PointID
	// Reason is written in the tombstone.
	Reason string
	// Tombstone keeps the point from being copied again, once no job claims it any more.
	Tombstone bool
}

// Forgotten says what became of a point that a job gave up.
type Forgotten struct {
	Point backup.PointID
	// Unknown: the repository does not have the point. Removed: it is gone, and reclaim gives its space back.
	Unknown, Removed bool
	// ClaimedBy are the jobs that still claim it, Holds what else keeps it. With holds only it goes when they end: the
	// next reclaim removes it.
	ClaimedBy []string
	Holds     []HoldInfo
}

// HoldInfo is a hold on a point.
type HoldInfo struct {
	Reason string
	// Until it counts, by the storage's clock; zero: until it is released.
	Until time.Time
}

// Forget withdraws a job's claims on points, in one log entry. A point that nothing claims or holds then is removed by the
// same entry. The job's claims on other points get the flags given for them. It returns what became of each point, in the
// order given. A storage that is full lets it use the reserve.
func (r *Repository) Forget(ctx context.Context, job string, points []Forgetting, flags map[backup.PointID][]string) (done []Forgotten, err error) {
	err = r.withReserve(ctx, func() error {
		done, err = r.forget(ctx, job, points, flags)
		return err
	})
	return done, err
}

func (r *Repository) forget(ctx context.Context, job string, points []Forgetting, flags map[backup.PointID][]string) ([]Forgotten, error) {
	if err := r.Refresh(ctx); err != nil { // a point that another process has added is not unknown
		return nil, err
	}
	now, err := r.holdTime(ctx)
	if err != nil {
		return nil, err
	}
	var done []Forgotten
	payload := &commitlog.Payload{}
	err = r.commit(ctx, payload, func(state *commitlog.State) error {
		done, *payload = nil, commitlog.Payload{Time: payload.Time, Writer: payload.Writer, Program: payload.Program}
		for _, p := range points {
			done = append(done, forget(state, job, p, now, payload))
		}
		flag(state, job, flags, payload)
		if len(payload.ClaimsWithdrawn)+len(payload.PointsRemoved)+len(payload.Claims) == 0 {
			return errNothing
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNothing) {
		return nil, err
	}
	return done, nil
}

// WouldForget returns what Forget would make of the points, and changes nothing.
func (r *Repository) WouldForget(ctx context.Context, job string, points []Forgetting) ([]Forgotten, error) {
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var done []Forgotten
	for _, p := range points {
		// By this machine's clock: nothing is written to ask the storage for its own.
		done = append(done, forget(r.state, job, p, r.env.now(), &commitlog.Payload{}))
	}
	return done, nil
}

// forget adds to the payload what giving up one point takes, and says what becomes of it.
func forget(state *commitlog.State, job string, p Forgetting, now time.Time, payload *commitlog.Payload) Forgotten {
	entry, known := state.Points.Get(p.Point)
	if !known {
		return Forgotten{Point: p.Point, Unknown: true}
	}
	done := Forgotten{Point: p.Point, Holds: holding(state, p.Point, now)}
	var flags []string
	for _, claim := range state.Claims.Of(p.Point) {
		if claim.Job == job {
			flags = claim.Flags
			payload.ClaimsWithdrawn = append(payload.ClaimsWithdrawn, commitlog.Claim{Point: p.Point, Job: job})
		} else {
			done.ClaimedBy = append(done.ClaimedBy, claim.Job)
		}
	}
	if len(done.ClaimedBy) > 0 {
		return done
	}
	if p.Tombstone {
		payload.Tombstones = append(payload.Tombstones, commitlog.Tombstone{ID: entry.ID, Machine: entry.Machine, Created: entry.Created, Reason: p.Reason, Job: job, Flags: flags})
	}
	if done.Removed = len(done.Holds) == 0; done.Removed {
		payload.PointsRemoved = append(payload.PointsRemoved, p.Point)
	}
	return done
}

// flag adds to the payload the job's claims with their new flags.
func flag(state *commitlog.State, job string, flags map[backup.PointID][]string, payload *commitlog.Payload) {
	for _, point := range slices.SortedFunc(maps.Keys(flags), func(a, b backup.PointID) int { return bytes.Compare(a[:], b[:]) }) {
		for _, claim := range state.Claims.Of(point) {
			if claim.Job == job {
				claim.Flags = flags[point]
				payload.Claims = append(payload.Claims, claim)
			}
		}
	}
}

// holdTime is the storage's time, which is asked for only if there are holds to compare with it, and it may be written to.
func (r *Repository) holdTime(ctx context.Context) (time.Time, error) {
	r.mu.Lock()
	any, err := len(r.state.Holds) > 0, errors.Join(r.diverged, r.readOnly)
	r.mu.Unlock()
	if !any || err != nil {
		return time.Time{}, err
	}
	return r.storageTime(ctx)
}

// holding are the holds on a point that count at a time of the storage's clock.
func holding(state *commitlog.State, point backup.PointID, now time.Time) []HoldInfo {
	var holds []HoldInfo
	for _, hold := range state.Holds[point] {
		info := HoldInfo{Reason: hold.Reason}
		if hold.Until != nil {
			info.Until = *hold.Until
		}
		if info.Until.IsZero() || now.Before(info.Until) {
			holds = append(holds, info)
		}
	}
	return holds
}

// Claims returns who claims a point, and why.
func (r *Repository) Claims(point backup.PointID) []commitlog.Claim {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Claims.Of(point)
}
