package index

import (
	"context"
	"slices"
	"sync"

	"ferry/internal/repo/format"
)

// nearbyEntries is how many entries of pack tables are kept, about 80 bytes each.
const nearbyEntries = 256 << 10

// nearby keeps the tables of packs that were read lately. What lies together was stored together: of a machine that is
// read from a cold repository, one lookup in a segment finds the pack, and its table the hundreds of blocks beside it.
type nearby struct {
	read Table
	// byNaming compares packs by when they were named. It takes a lock of the repository's, and may be asked with this one held.
	byNaming func(a, b format.Name) int

	mu     sync.Mutex
	places map[format.ID]Place
	packs  map[format.Name][]Entry
	order  []format.Name // oldest first
	count  int
	busy   map[format.Name]chan struct{}
}

// find returns a place of an id in the tables that are kept.
func (n *nearby) find(id *format.ID) (Place, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	place, ok := n.places[*id]
	return place, ok
}

// holds is true if the table of the place's pack has the id there. The table is kept.
func (n *nearby) holds(ctx context.Context, id *format.ID, place Place) (bool, error) {
	entries, err := n.table(ctx, place.Pack)
	return slices.Contains(entries, Entry{*id, place}), err
}

// Proven is true if the table of the place's pack, read from the pack itself, has the id there.
func (s *Set) Proven(ctx context.Context, id format.ID, place Place) (bool, error) {
	return s.tables.holds(ctx, &id, place)
}

// table returns a pack's entries. Of several callers one reads them.
func (n *nearby) table(ctx context.Context, pack format.Name) ([]Entry, error) {
	n.mu.Lock()
	for {
		if entries, ok := n.packs[pack]; ok {
			n.mu.Unlock()
			return entries, nil
		}
		other := n.busy[pack]
		if other == nil {
			break
		}
		n.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		n.mu.Lock()
	}
	if n.busy == nil {
		n.busy, n.places, n.packs = map[format.Name]chan struct{}{}, map[format.ID]Place{}, map[format.Name][]Entry{}
	}
	done := make(chan struct{})
	n.busy[pack] = done
	n.mu.Unlock()
	entries, err := n.read(ctx, pack)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, pack)
	close(done)
	if err == nil {
		n.keep(pack, entries)
	}
	return entries, err
}

func (n *nearby) keep(pack format.Name, entries []Entry) {
	for _, e := range entries {
		if other, known := n.places[e.ID]; !known || n.byNaming(other.Pack, pack) <= 0 {
			n.places[e.ID] = e.Place
		}
	}
	n.packs[pack] = entries
	n.order = append(n.order, pack)
	n.count += len(entries)
	for n.count > nearbyEntries && len(n.order) > 1 {
		n.drop(n.order[0])
	}
}

func (n *nearby) drop(pack format.Name) {
	for _, e := range n.packs[pack] {
		if n.places[e.ID].Pack == pack {
			delete(n.places, e.ID)
		}
	}
	n.count -= len(n.packs[pack])
	delete(n.packs, pack)
	n.order = slices.DeleteFunc(n.order, func(other format.Name) bool { return other == pack })
}

func (n *nearby) forget(pack format.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(pack)
}

// findInParts looks in segments that are not all here. They are tried in the order of where the last id was found, then
// the largest first, which has most ids.
func (s *Set) findInParts(ctx context.Context, id *format.ID, accept func(Place) bool) (Place, bool, error) {
	if place, ok := s.tables.find(id); ok && accept(place) {
		return place, true, nil
	}
	segments, done := s.use()
	defer done()
	segments = slices.DeleteFunc(slices.Clone(segments), (*Segment).IsWhole)
	last := s.last.Load()
	slices.SortFunc(segments, func(a, b *Segment) int {
		switch {
		case a == last:
			return -1
		case b == last:
			return 1
		}
		return int(b.Size() - a.Size())
	})
	for _, segment := range segments {
		place, found, err := s.findInPart(ctx, segment, id, accept)
		if err != nil {
			return Place{}, false, err
		}
		if found {
			s.last.Store(segment)
			return place, true, nil
		}
	}
	return Place{}, false, nil
}

// findInPart looks in one segment that is read in parts. What it says counts if the pack's own table says so.
func (s *Set) findInPart(ctx context.Context, segment *Segment, id *format.ID, accept func(Place) bool) (found Place, ok bool, err error) {
	var candidates []Place
	if _, err := segment.Lookup(ctx, id, func(place Place) bool {
		if accept(place) {
			candidates = append(candidates, place)
		}
		return false
	}); err != nil && !useless(err) {
		return Place{}, false, err
	}
	slices.SortStableFunc(candidates, s.lastFirst)
	for _, place := range candidates {
		held, err := s.tables.holds(ctx, id, place)
		if ctx.Err() != nil {
			return Place{}, false, ctx.Err()
		}
		if err == nil && held {
			return place, true, nil
		}
	}
	return Place{}, false, nil
}
