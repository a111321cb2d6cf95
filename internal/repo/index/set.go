package index

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"ferry/internal/repo/format"
)

// Set finds ids in all segments of a repository and in packs that no segment covers yet. It is safe for parallel use.
//
// The path of a lookup, the cheapest first:
//
//	packs in no segment (a map) -> packs whose table was read lately (a map) -> segments that are all here
//	-> segments read in parts: the pack that one names is looked at, and its table has the next ids, too
type Set struct {
	mu sync.RWMutex
	// segments by name; order is that in which they came. It is replaced, not changed.
	segments map[format.Name]*Segment
	order    []*Segment
	users    map[*Segment]int // of those that are in use outside the lock
	recent   map[format.ID]Place
	// others are further places of ids in recent, of packs that hold the same block.
	others map[format.ID][]Place
	byPack map[format.Name][]Entry
	// givenUp are packs that nothing is found in: condemned ones, which can be read while they exist, and those that are gone.
	givenUp map[format.Name]loss
	// avoided are frames known to be damaged.
	avoided map[Frame]bool
	// partly are packs of which only some frames are known: a segment must not say that it covers them.
	partly map[format.Name]bool
	// home is the domain of every pack that is not in elsewhere, which has the domains of the others.
	home      format.Name
	elsewhere map[format.Name]format.Name

	tables nearby
	// last is the segment in parts that an id was found in last: the next is likely there.
	last atomic.Pointer[Segment]

	resident resident
}

// loss says how a pack is given up.
type loss uint8

const (
	condemned loss = iota + 1
	gone
)

// Table reads the entries of a pack from the pack itself, proven by the log.
type Table func(ctx context.Context, pack format.Name) ([]Entry, error)

// NewSet makes an empty set, in which every pack is of the domain home unless Assign says otherwise. Table proves what
// segments say that are not all here.
func NewSet(home format.Name, table Table) *Set {
	return &Set{
		home: home, elsewhere: map[format.Name]format.Name{}, tables: nearby{read: table, byNaming: func(_, _ format.Name) int { return 0 }},
		segments: map[format.Name]*Segment{}, users: map[*Segment]int{}, recent: map[format.ID]Place{}, others: map[format.ID][]Place{},
		byPack: map[format.Name][]Entry{}, givenUp: map[format.Name]loss{}, partly: map[format.Name]bool{},
	}
}

// Prefer makes Find choose the pack that was named last, of several that hold an id: compaction has written that one. Segments that are read
// in parts are asked only if nothing else has it, and no further than one has. byNaming compares packs by when they were named. It comes
// before anything is looked up, and is not asked with the set's lock held.
func (s *Set) Prefer(byNaming func(a, b format.Name) int) { s.tables.byNaming = byNaming }

// lastFirst compares places: that in the pack that was named last comes first.
func (s *Set) lastFirst(a, b Place) int { return s.tables.byNaming(b.Pack, a.Pack) }

// AddSegment adds a segment, which belongs to the set from then on, and forgets what was kept in memory for its packs.
func (s *Set) AddSegment(name format.Name, segment *Segment, packs []format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[name] = segment
	s.order = append(slices.Clone(s.order), segment)
	for _, pack := range packs {
		s.dropRecent(pack)
	}
}

// RemoveSegment removes a segment that others replace, and closes it once nobody uses it.
func (s *Set) RemoveSegment(name format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	segment := s.segments[name]
	if segment == nil {
		return
	}
	delete(s.segments, name)
	s.order = slices.DeleteFunc(slices.Clone(s.order), func(other *Segment) bool { return other == segment })
	s.last.CompareAndSwap(segment, nil)
	if s.users[segment] == 0 {
		_ = segment.Close() // what was only read loses nothing
	}
}

// Close closes all segments. Nothing may use the set afterwards.
func (s *Set) Close() {
	for _, name := range slices.Collect(maps.Keys(s.segments)) {
		s.RemoveSegment(name)
	}
}

// use returns all segments, which stay open until done is called.
func (s *Set) use() (segments []*Segment, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	segments = s.order
	for _, segment := range segments {
		s.users[segment]++
	}
	return segments, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, segment := range segments {
			if s.users[segment]--; s.users[segment] > 0 {
				continue
			}
			delete(s.users, segment)
			if !slices.Contains(s.order, segment) {
				_ = segment.Close() // what was only read loses nothing
			}
		}
	}
}

// Segments returns the segments by name. They stay open until done is called.
func (s *Set) Segments() (byName map[format.Name]*Segment, done func()) {
	_, done = s.use()
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.segments), done
}

// AddPack adds the entries of a pack that no segment covers yet.
func (s *Set) AddPack(pack format.Name, entries []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.byPack[pack]; known || s.givenUp[pack] == gone {
		return
	}
	for _, e := range entries {
		if other, known := s.recent[e.ID]; known {
			s.others[e.ID] = append(s.others[e.ID], other)
		}
		s.recent[e.ID] = e.Place
	}
	s.byPack[pack] = entries
}

// AddPart adds what could be found of a pack that is damaged.
func (s *Set) AddPart(pack format.Name, entries []Entry) {
	s.AddPack(pack, entries)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partly[pack] = true
}

// Hide makes Find never find anything in a pack again: it is condemned. While it exists it can be read.
func (s *Set) Hide(pack format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.givenUp[pack] = max(s.givenUp[pack], condemned)
}

// Forget takes a pack out that is gone.
func (s *Set) Forget(pack format.Name) {
	s.tables.forget(pack)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.givenUp[pack] = gone
	s.dropRecent(pack)
	delete(s.partly, pack)
}

func (s *Set) dropRecent(pack format.Name) {
	for _, e := range s.byPack[pack] {
		others := slices.DeleteFunc(s.others[e.ID], func(place Place) bool { return place.Pack == pack })
		if s.recent[e.ID].Pack == pack {
			delete(s.recent, e.ID)
			if last := len(others) - 1; last >= 0 {
				s.recent[e.ID] = others[last]
				others = others[:last]
			}
		}
		if len(others) > 0 {
			s.others[e.ID] = others
		} else {
			delete(s.others, e.ID)
		}
	}
	delete(s.byPack, pack)
}

// Uncovered returns the entries of all whole packs that no segment covers and that are not given up, and how many packs
// that are.
func (s *Set) Uncovered() (entries []Entry, packs int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for pack, some := range s.byPack {
		if !s.partly[pack] && s.givenUp[pack] == 0 {
			entries = append(entries, some...)
			packs++
		}
	}
	return entries, packs
}

// Frame is a place that can be avoided: the frame at an offset of a pack, or with WholePack all of it.
type Frame struct {
	Pack   format.Name
	Offset int64
}

// WholePack as the offset of a Frame stands for the whole pack.
const WholePack = -1

// Avoid makes Find pass over what is known to be damaged, from now on these frames and no others.
func (s *Set) Avoid(damaged map[Frame]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avoided = damaged
}

// usable is true unless the place is given up or known to be damaged.
func (s *Set) usable(place Place) bool {
	if s.givenUp[place.Pack] != 0 {
		return false
	}
	return len(s.avoided) == 0 || !s.avoided[Frame{place.Pack, int64(place.Offset)}] && !s.avoided[Frame{place.Pack, WholePack}]
}

// Assign says that a pack is of another domain than home. It comes before the pack's entries or segment.
func (s *Set) Assign(pack, domain format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elsewhere[pack] = domain
}

// domainOf a pack.
func (s *Set) domainOf(pack format.Name) format.Name {
	if domain, other := s.elsewhere[pack]; other {
		return domain
	}
	return s.home
}

// Find returns a place of an id in any domain: enough to read it, because the content proves the id. An error is of the
// storage that a segment or a pack's table is read from.
func (s *Set) Find(ctx context.Context, id format.ID) (Place, bool, error) {
	return s.find(ctx, &id, s.usable)
}

// FindIn returns a place of an id in a domain: what may be deduplicated against from there.
func (s *Set) FindIn(ctx context.Context, domain format.Name, id format.ID) (Place, bool, error) {
	s.mu.RLock()
	alone := domain == s.home && len(s.elsewhere) == 0
	s.mu.RUnlock()
	if alone {
		return s.find(ctx, &id, s.usable)
	}
	return s.find(ctx, &id, func(place Place) bool { return s.usable(place) && s.domainOf(place.Pack) == domain })
}

// find returns a place of an id that is accepted, which is asked with the lock held.
func (s *Set) find(ctx context.Context, id *format.ID, accept func(Place) bool) (Place, bool, error) {
	var room [4]Place // so that nothing is allocated
	places, inParts := s.findHere(ctx, id, accept, room[:0])
	if len(places) > 0 {
		return slices.MinFunc(places, s.lastFirst), true, nil
	}
	if !inParts {
		return Place{}, false, nil
	}
	return s.findInParts(ctx, id, func(place Place) bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return accept(place)
	})
}

// findHere looks in what needs no storage, and appends what it finds to places. inParts is true if there are segments that do need it.
func (s *Set) findHere(ctx context.Context, id *format.ID, accept func(Place) bool, places []Place) (_ []Place, inParts bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	visit := func(place Place) bool {
		if accept(place) {
			places = append(places, place)
		}
		return false
	}
	if place, known := s.recent[*id]; known {
		visit(place)
		for _, other := range s.others[*id] {
			visit(other)
		}
	}
	for _, segment := range s.order {
		if !segment.IsWhole() {
			inParts = true
			continue
		}
		_, _ = segment.Lookup(ctx, id, visit) // what is all here has no errors
		s.resident.touch(s.order)
	}
	return places, inParts
}

// FindAll returns every place of an id, packs that are given up included.
func (s *Set) FindAll(ctx context.Context, id format.ID) ([]Place, error) {
	var places []Place
	segments, done := s.use()
	defer done()
	s.mu.RLock()
	if place, known := s.recent[id]; known {
		places = append(append(places, place), s.others[id]...)
	}
	s.mu.RUnlock()
	for _, segment := range segments {
		proven := segment.IsWhole()
		var candidates []Place
		if _, err := segment.Lookup(ctx, &id, func(place Place) bool {
			candidates = append(candidates, place)
			return false
		}); err != nil && !useless(err) {
			return places, err
		}
		for _, place := range candidates {
			if !proven {
				if held, err := s.tables.holds(ctx, &id, place); err != nil || !held {
					continue
				}
			}
			places = append(places, place)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.DeleteFunc(places, func(place Place) bool { return s.givenUp[place.Pack] == gone }), nil
}

// Resident memory that mapped segments may take, in bytes, before it is given back. A fault maps a few neighbours of a
// page that are in the system's cache anyway, faultSize in all.
const (
	residentLimit = 192 << 20
	faultSize     = 64 << 10
)

// resident bounds what mapped segments take of the process's memory. What is given back stays in the system's cache.
type resident struct{ touched atomic.Int64 }

// touch counts a lookup in a segment, and gives memory back after so many that the limit could be reached.
func (r *resident) touch(segments []*Segment) {
	if r.touched.Add(2)%(residentLimit/faultSize) > 1 {
		return
	}
	var entries, filters int64
	for _, s := range segments {
		if s.content.file != nil && s.IsWhole() {
			entries += s.fences
			filters += s.layout.checksum - s.fences
		}
	}
	if entries+filters <= residentLimit {
		return
	}
	for _, s := range segments {
		if !s.IsWhole() {
			continue
		}
		s.content.release(0, s.fences)
		if filters > residentLimit/2 {
			s.content.release(s.fences, s.layout.checksum)
		}
	}
}
