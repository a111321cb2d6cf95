package repo

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// Unhealed is true if something known to be damaged in a domain has no good copy there: a point that takes anything over from
// others could take over damage. Copies in other domains do not count, because they go when their own points do.
func (r *Repository) Unhealed(ctx context.Context, domain format.Name) (bool, error) {
	set, err := r.lookup(ctx)
	if err != nil {
		return false, err
	}
	whole := map[format.Name]bool{} // packs of which nobody can say any more what was in them, until it is found
	var ids []format.ID
	r.mu.Lock()
	for bad := range r.state.Bad {
		switch {
		case r.state.Packs.Of(bad.Pack).Domain != domain:
		case bad.ID.IsZero():
			whole[bad.Pack] = true
		default:
			ids = append(ids, bad.ID)
		}
	}
	r.mu.Unlock()
	for _, id := range ids {
		if _, found, err := set.FindIn(ctx, domain, id); err != nil || !found {
			return err == nil, err
		}
	}
	if len(whole) == 0 {
		return false, nil
	}
	unhealed := false
	var findErr error
	err = set.Of(ctx, whole, func(e index.Entry) bool {
		delete(whole, e.Pack)
		var found bool
		_, found, findErr = set.FindIn(ctx, domain, e.ID)
		unhealed = unhealed || !found
		return !unhealed && findErr == nil
	})
	if err = errors.Join(err, findErr); err != nil {
		return false, err
	}
	return unhealed || len(whole) > 0, nil
}

// DamageOf says what of a point cannot be read, as it was found last; false if nothing is known to be damaged.
func (r *Repository) DamageOf(id backup.PointID) (PointDamage, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	damage, damaged := r.state.Damaged[id]
	return PointDamage(damage), damaged
}

// Lost is true of a point whose file is not there, or is another than the log names; else what kept it from being read may pass.
func (p PointRead) Lost() bool { return isLost(p.Err) }

func isLost(err error) bool { return errors.Is(err, backup.ErrDamaged) || errors.Is(err, ErrForged) }

// NoteLost makes the log say, as verification does, that the files of points are lost.
func (r *Repository) NoteLost(ctx context.Context, lost []Entry) error {
	if len(lost) == 0 {
		return nil
	}
	payload := &commitlog.Payload{}
	err := r.commit(ctx, payload, func(state *commitlog.State) error {
		payload.Damaged = nil
		for _, entry := range lost {
			if state.Points.Of(entry.ID) == entry && !state.Damaged[entry.ID].File { // else it was copied again, or removed, since
				payload.Damaged = append(payload.Damaged, commitlog.Damaged{Point: entry.ID, File: true})
			}
		}
		if len(payload.Damaged) == 0 {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// AsFound is a point as it was found last: one of which something is known to be damaged is broken, and says what.
func (r *Repository) AsFound(point backup.Point) backup.Point {
	if damage, damaged := r.DamageOf(point.ID); damaged {
		point.State, point.Reason, point.Proven = backup.StateBroken, damage.String(), false
	}
	return point
}

// HasWhole is true if the repository has the point and nothing of it is known to be damaged.
func (r *Repository) HasWhole(id backup.PointID) bool {
	_, damaged := r.DamageOf(id)
	return r.Has(id) && !damaged
}

// PointDamage says in how many places, of how many bytes, a point is damaged.
type PointDamage commitlog.Damaged

// String says it in words.
func (d PointDamage) String() string {
	switch {
	case d.File:
		return "damaged: its own file cannot be read"
	case d.Places == 1:
		return fmt.Sprintf("damaged: %d bytes cannot be read", d.Bytes)
	}
	return fmt.Sprintf("damaged: %d bytes in %d places cannot be read", d.Bytes, d.Places)
}

// damagedFrames are the places that the log knows to be damaged.
func damagedFrames(state *commitlog.State) map[index.Frame]bool {
	damaged := make(map[index.Frame]bool, len(state.Bad))
	for bad := range state.Bad {
		frame := index.Frame{Pack: bad.Pack, Offset: bad.Offset}
		if bad.ID.IsZero() {
			frame.Offset = index.WholePack
		}
		damaged[frame] = true
	}
	return damaged
}

func isDamaged(damaged map[index.Frame]bool, p index.Place) bool {
	return damaged[index.Frame{Pack: p.Pack, Offset: int64(p.Offset)}] || damaged[index.Frame{Pack: p.Pack, Offset: index.WholePack}]
}
