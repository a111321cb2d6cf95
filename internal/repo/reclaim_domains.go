package repo

import (
	"context"
	"errors"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// What a point needs is in its own domain, and goes with the last point of that. But where something is damaged there, the copy that
// another domain has of it may be the only one that is left: verification says then that the damage does no harm. Such a copy is
// kept until healing has stored it again where it belongs (docs/format.md section 14).
//
// What points of the default domain lack is found when its live ids are placed (placing.go). Sealed domains are not marked: of
// them the log says what is damaged.

// keepForSealed finds what other domains have of what is damaged in sealed ones that are needed.
func (c *reclaimer) keepForSealed(ctx context.Context) error {
	set, err := c.repo.lookup(ctx)
	if err != nil {
		return err
	}
	damaged := damagedFrames(c.state)
	whole := map[format.Name]bool{}
	for bad := range c.state.Bad {
		p := c.state.Packs.Of(bad.Pack)
		d := c.marker.domains[p.Domain]
		switch {
		case d == nil || !d.sealed || d.roots == 0:
		case bad.ID.IsZero():
			whole[bad.Pack] = true
		default:
			if err := c.keepFor(ctx, set, damaged, bad.ID, p.Domain); err != nil {
				return err
			}
		}
	}
	if len(whole) == 0 {
		return nil
	}
	var keepErr error
	err = set.Of(ctx, whole, func(e index.Entry) bool {
		keepErr = c.keepFor(ctx, set, damaged, e.ID, c.state.Packs.Of(e.Pack).Domain)
		return keepErr == nil
	})
	return errors.Join(err, keepErr)
}

// keepFor keeps the good copies that other domains have of an id, unless the domain that needs it has one.
func (c *reclaimer) keepFor(ctx context.Context, set *index.Set, damaged map[index.Frame]bool, id format.ID, domain format.Name) error {
	places, err := set.FindAll(ctx, id)
	if err != nil {
		return err
	}
	var packs []format.Name
	for _, place := range places {
		p, named := c.state.Packs.Get(place.Pack)
		switch {
		case !named || isDamaged(damaged, place):
		case p.Domain == domain && !c.state.Condemned[p.ID]:
			return nil
		default:
			packs = append(packs, p.ID)
		}
	}
	for _, pack := range packs {
		c.others[pack] = true
		if d := c.marker.domains[c.state.Packs.Of(pack).Domain]; d != nil && !d.sealed {
			if err := c.marker.live(d, needed{id: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// forOthers is true if points of another domain need what a pack holds, and have no good copy of it there.
func (c *reclaimer) forOthers(pack format.Name) bool {
	if c.others[pack] {
		return true
	}
	for _, found := range c.placing {
		if found.others[pack] {
			return true
		}
	}
	return false
}
