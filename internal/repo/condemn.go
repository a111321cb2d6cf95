package repo

import (
	"context"
	"errors"
	"maps"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
)

// condemnedAtOnce is how many packs or files one log entry condemns or deletes at most.
const condemnedAtOnce = 4096

// condemnDead condemns the packs of which nothing is live.
func (c *reclaimer) condemnDead(ctx context.Context) error {
	var dead []format.Name
	for _, step := range c.report.Steps {
		if step.Action == ReclaimGiveUp {
			dead = append(dead, step.Pack)
		}
	}
	for some := range slices.Chunk(dead, condemnedAtOnce) {
		if err := c.condemn(ctx, &commitlog.Payload{}, some); err != nil && !errors.Is(err, errNothing) {
			return err
		}
	}
	return nil
}

// condemn commits the payload, with packs condemned that are still to be. What came since the mark is marked first, as often
// as it takes, and spares the packs that it needs. errNothing: all of them were spared, and nothing was committed.
func (c *reclaimer) condemn(ctx context.Context, payload *commitlog.Payload, packs []format.Name) error {
	for {
		var late *commitlog.State
		err := c.commit(ctx, payload, func(state *commitlog.State) error {
			if c.stale(state) {
				return errStale
			}
			if c.marker.lacks(state) {
				late = state.Clone()
				return errLate
			}
			payload.Condemned = keep(packs, func(id format.Name) bool { return state.Live(id) && !c.spared[id] })
			if len(payload.Condemned) == 0 {
				return errNothing
			}
			return nil
		})
		if errors.Is(err, errLate) {
			if err = c.markLate(ctx, late); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		for _, id := range payload.Condemned {
			c.state.Condemned[id] = true
			c.report.GivenUp.add(true, c.state.Packs.Of(id).Size)
		}
		return nil
	}
}

// stale is true if somebody else condemned packs, or found damage, since the mark: then what it keeps may be gone or bad.
func (c *reclaimer) stale(state *commitlog.State) bool {
	for id := range state.Condemned {
		if named := c.state.Packs.Has(id); named && !c.state.Condemned[id] {
			return true
		}
	}
	for id := range c.state.Packs.All() {
		if named := state.Packs.Has(id); !named && !c.state.Condemned[id] {
			return true // condemned and deleted already
		}
	}
	return c.rotten(state)
}

// rotten is true if damage was noted since the mark.
func (c *reclaimer) rotten(state *commitlog.State) bool {
	for bad := range state.Bad {
		if !c.state.Bad[bad] {
			return true
		}
	}
	return false
}

// rottenNow is true if damage was noted between the mark and the last entry that was read.
func (c *reclaimer) rottenNow() bool {
	c.repo.mu.Lock()
	defer c.repo.mu.Unlock()
	return c.rotten(c.repo.state)
}

// lacks is true if a state has points or unfinished copies that are not marked.
func (m *marker) lacks(state *commitlog.State) bool {
	for point := range state.Points.All() {
		if !m.points[point.File()] {
			return true
		}
	}
	for _, partials := range state.Partials {
		for _, partial := range partials {
			if !m.partials[partial.File] {
				return true
			}
		}
	}
	return false
}

// markLate marks what came since the mark, and spares the doomed packs that it needs: those with an id that no other pack
// of the domain has.
func (c *reclaimer) markLate(ctx context.Context, state *commitlog.State) error {
	set, err := c.repo.lookup(ctx)
	if err != nil {
		return err
	}
	damaged := damagedFrames(state)
	c.marker.late = func(d *domainMark, want needed) error {
		var good, damagedIn []format.Name // doomed packs that have it
		places, err := set.FindAll(ctx, want.id)
		if err != nil {
			return err
		}
		if len(places) == 0 && want.point {
			d.miss("a block or node that a new point needs is in no pack")
		}
		for _, place := range places {
			p, known := state.Packs.Get(place.Pack)
			doomed := c.doomed[p.ID] && !c.spared[p.ID]
			switch {
			case !known || c.marker.domains[p.Domain] != d || state.Condemned[p.ID]:
			case isDamaged(damaged, place):
				if doomed && want.point {
					damagedIn = append(damagedIn, p.ID)
				}
			case !doomed:
				return nil
			default:
				good = append(good, p.ID)
			}
		}
		if len(good) == 0 {
			good = damagedIn // perhaps it can be healed
		}
		for _, id := range good {
			c.spared[id] = true
		}
		return nil
	}
	defer func() { c.marker.late = nil }()
	if err := c.marker.mark(ctx, state); err != nil {
		return err
	}
	for id := range c.doomed {
		d := c.marker.domains[state.Packs.Of(id).Domain]
		if d == nil || len(d.incomplete) > 0 || d.sealed && d.roots > 0 {
			c.spared[id] = true
		}
	}
	return nil
}

// condemnGarbage condemns files that the log does not name and that are older than the grace.
func (c *reclaimer) condemnGarbage(ctx context.Context) error {
	var garbage []string
	named := namedBy(c.state)
	for info := range c.listing.all() {
		if !named(info.Name) && c.now.Sub(info.Modified) >= c.options.Policy.Grace {
			garbage = append(garbage, info.Name)
		}
	}
	slices.Sort(garbage)
	for some := range slices.Chunk(garbage, condemnedAtOnce) {
		payload := &commitlog.Payload{}
		err := c.commit(ctx, payload, func(state *commitlog.State) error {
			payload.Condemned, payload.CondemnedFiles = nil, nil
			named := namedBy(state)
			for _, name := range some {
				id, isPack := packOf(name)
				switch {
				case named(name):
				case isPack:
					payload.Condemned = append(payload.Condemned, id)
				case isReclaimed(name):
					payload.CondemnedFiles = append(payload.CondemnedFiles, name)
				}
			}
			if len(payload.Condemned)+len(payload.CondemnedFiles) == 0 {
				return errNothing
			}
			return nil
		})
		if errors.Is(err, errNothing) {
			continue
		}
		if err != nil {
			return err
		}
		for _, id := range payload.Condemned {
			c.foundGarbage(true, pack.ObjectName(id))
		}
		for _, name := range payload.CondemnedFiles {
			c.foundGarbage(false, name)
		}
	}
	return nil
}

func (c *reclaimer) foundGarbage(isPack bool, name string) {
	size := c.listing.file(name).Size
	c.report.Garbage.add(isPack, size)
	c.report.GivenUp.add(isPack, size)
}

// namedBy returns what is true for the files that a state names, condemned ones included.
func namedBy(state *commitlog.State) func(name string) bool {
	others := maps.Clone(state.CondemnedFiles)
	for id := range state.Index {
		others[segmentName(id)] = true
	}
	for point := range state.Points.All() {
		others[point.File()] = true
	}
	for _, partials := range state.Partials {
		for _, partial := range partials {
			others[partial.File] = true
		}
	}
	return func(name string) bool {
		if id, isPack := packOf(name); isPack {
			named := state.Packs.Has(id)
			return named || state.Condemned[id] || others[name]
		}
		return others[name]
	}
}
