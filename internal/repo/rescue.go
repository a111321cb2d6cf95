package repo

import (
	"context"
	"errors"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/storage"
)

// rescue stores again what points need and only packs still have that are given up: of their other copies it turned out
// since that they are damaged. Such packs are kept until then (retire.go). Without the key nobody may say that blocks are here.
func (c *reclaimer) rescue(ctx context.Context) error {
	if c.repo.Locked() {
		return nil
	}
	for name, found := range c.placing {
		stored := false
		for _, group := range groups(c.toRescue(found), c.repo.fullPack) {
			live := liveBytes(group)
			if !c.mayMove(live) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			err := c.repo.moveWithReserve(ctx, func() error { return c.rescueFrom(ctx, group, found) })
			switch {
			case errors.Is(err, ErrCondemned), errors.Is(err, storage.ErrFull):
				c.repo.warn("what is needed of %d packs that are given up could not be stored again: %v", len(group), err)
				continue
			case err != nil:
				return err
			}
			stored = true
			c.moved += 2 * live
		}
		if !stored {
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

// toRescue are the packs of a domain that something is to be copied from, as steps: many may have a little each.
func (c *reclaimer) toRescue(found placing) []ReclaimStep {
	var steps []ReclaimStep
	for id, rescued := range found.rescued {
		if _, there := c.listing.pack(id); there {
			p := c.state.Packs.Of(id)
			steps = append(steps, ReclaimStep{Action: ReclaimRepack, Pack: id, Kind: p.Kind, LiveBytes: rescued.bytes, domain: p.Domain})
		}
	}
	slices.SortFunc(steps, func(a, b ReclaimStep) int { return compareNames(a.Pack, b.Pack) })
	return steps
}

// rescueFrom copies what is to be rescued from a group of packs to a new one.
func (c *reclaimer) rescueFrom(ctx context.Context, group []ReclaimStep, found placing) error {
	mover := newFrameMover(c.repo, c.state.Packs.Of(group[0].Pack))
	defer mover.abort()
	for _, step := range group {
		_, err := mover.move(ctx, c.state.Packs.Of(step.Pack), found.rescued[step.Pack].offsets)
		switch {
		case errors.Is(err, errStale), errors.Is(err, errLies): // the others need not suffer for it
			c.repo.warn("pack %s is given up, and not all that is needed of it could be stored again: %v", step.Pack, err)
		case err != nil:
			return err
		}
	}
	payload := &commitlog.Payload{}
	if err := mover.finish(ctx, payload); err != nil || len(mover.bad)+len(payload.Packs) == 0 {
		return err
	}
	payload.Bad = mover.bad
	err := c.commit(ctx, payload, ofNamedPacks(payload))
	mover.dropUnnamed(ctx, err)
	if err != nil {
		return err
	}
	for _, step := range group {
		c.rescued[step.Pack] = true
	}
	for _, bad := range mover.bad {
		c.state.Bad[bad] = true
	}
	for _, written := range payload.Packs {
		c.repo.warn("%d blocks or nodes that points need had no good copy but in packs that are given up: they are stored again", written.Frames)
		c.report.Written.add(true, written.Size)
	}
	return nil
}
