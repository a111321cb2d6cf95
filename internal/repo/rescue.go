package repo

import (
	"context"
	"errors"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// rescue stores again what points need and only packs still have that are given up: of their other copies it turned out
// since that they are damaged. Such packs are kept until then (retire.go). Without the key nobody may say that blocks are here.
func (c *reclaimer) rescue(ctx context.Context) error {
	if c.repo.Locked() {
		return nil
	}
	for name, found := range c.placing {
		written := false
		for id, use := range found.use {
			if _, there := c.listing[pack.ObjectName(id)]; !there || len(use.rescued) == 0 || !c.mayMove(use.rescuedBytes) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			err := c.repo.moveWithReserve(ctx, func() error { return c.rescueFrom(ctx, c.state.Packs[id], use.rescued) })
			switch {
			case errors.Is(err, errStale), errors.Is(err, errLies), errors.Is(err, ErrCondemned), errors.Is(err, storage.ErrFull):
				c.repo.warn("pack %s is given up, and what is needed of it could not be stored again: %v", id, err)
				continue
			case err != nil:
				return err
			}
			written = true
			c.moved += 2 * use.rescuedBytes
		}
		if !written {
			continue
		}
		// What was rescued from one pack is needed of no other any more.
		again, err := c.marker.place(ctx, name, c.repo.snapshot(), nil)
		if err != nil {
			return err
		}
		c.placing[name] = again
	}
	return nil
}

// rescueFrom copies the frames at the offsets to a new pack.
func (c *reclaimer) rescueFrom(ctx context.Context, p commitlog.Pack, offsets []uint32) error {
	mover := newFrameMover(c.repo, p)
	defer mover.abort()
	payload := &commitlog.Payload{}
	if _, err := mover.move(ctx, p, offsets); err != nil {
		return err
	}
	if err := mover.finish(ctx, payload); err != nil || len(mover.bad)+len(payload.Packs) == 0 {
		return err
	}
	payload.Bad = mover.bad
	err := c.commit(ctx, payload, ofNamedPacks(payload))
	mover.dropUnnamed(ctx, err)
	if err != nil {
		return err
	}
	for _, bad := range mover.bad {
		c.state.Bad[bad] = true
	}
	for _, written := range payload.Packs {
		c.repo.warn("pack %s was given up, and %d blocks or nodes that points need had no other good copy: they are stored again", p.ID, written.Frames)
		c.report.Written.add(true, written.Size)
	}
	return nil
}
