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
	for _, found := range c.placing {
		for id, use := range found.use {
			if _, there := c.listing[pack.ObjectName(id)]; !there || len(use.rescued) == 0 {
				continue
			}
			if err := errors.Join(ctx.Err(), c.rescueFrom(ctx, c.state.Packs[id], use.rescued)); err != nil {
				return err
			}
		}
	}
	return nil
}

// rescueFrom copies the frames at the offsets to a new pack.
func (c *reclaimer) rescueFrom(ctx context.Context, p commitlog.Pack, offsets []uint32) error {
	mover := newFrameMover(c.repo, p)
	defer mover.abort()
	payload := &commitlog.Payload{}
	_, err := mover.move(ctx, p, offsets)
	if err == nil {
		err = mover.finish(ctx, payload)
	}
	if err == nil && len(mover.bad)+len(payload.Packs) > 0 {
		payload.Bad = mover.bad
		err = c.repo.commit(ctx, payload, ofNamedPacks(payload))
	}
	if refused(err) {
		mover.drop(ctx)
	}
	switch {
	case errors.Is(err, errStale), errors.Is(err, errLies), errors.Is(err, ErrCondemned), errors.Is(err, storage.ErrFull):
		c.repo.warn("pack %s is given up, and what is needed of it could not be stored again: %v", p.ID, err)
		return nil
	case err != nil:
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
