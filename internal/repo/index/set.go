package index

import (
	"slices"
	"sync"

	"ferry/internal/repo/format"
)

// Set finds ids in all segments of a repository and in packs that no segment covers yet. It is safe for parallel use.
type Set struct {
	mu       sync.RWMutex
	segments map[format.Name]*Segment
	order    []*Segment
	recent   map[format.ID]Place
	// others are further places of ids in recent, of packs that hold the same block.
	others map[format.ID][]Place
	byPack map[format.Name][]Entry
	hidden map[format.Name]bool
	// givenUp are the entries of hidden packs that no segment covers: while the pack exists it can be read.
	givenUp map[format.Name][]Entry
	// avoided are frames known to be damaged.
	avoided map[Frame]bool
	// partly are packs of which only some frames are known: a segment must not say that it covers them.
	partly map[format.Name]bool
	// home is the domain of every pack that is not in elsewhere, which has the domains of the others.
	home      format.Name
	elsewhere map[format.Name]format.Name
}

// NewSet makes an empty set, in which every pack is of the domain home unless Assign says otherwise.
func NewSet(home format.Name) *Set {
	return &Set{
		home: home, elsewhere: map[format.Name]format.Name{},
		segments: map[format.Name]*Segment{}, recent: map[format.ID]Place{}, others: map[format.ID][]Place{},
		byPack: map[format.Name][]Entry{}, hidden: map[format.Name]bool{}, givenUp: map[format.Name][]Entry{}, partly: map[format.Name]bool{},
	}
}

// AddSegment adds a segment and forgets what was kept in memory for its packs.
func (s *Set) AddSegment(name format.Name, segment *Segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments[name] = segment
	s.order = append(s.order, segment)
	for _, pack := range segment.Packs() {
		s.dropRecent(pack)
		delete(s.givenUp, pack)
	}
}

// RemoveSegment removes a segment that others replace.
func (s *Set) RemoveSegment(name format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.segments[name]
	delete(s.segments, name)
	for i, segment := range s.order {
		if segment == gone {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			return
		}
	}
}

// AddPack adds the entries of a pack that no segment covers yet.
func (s *Set) AddPack(pack format.Name, entries []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hidden[pack] {
		s.givenUp[pack] = entries
		return
	}
	if _, known := s.byPack[pack]; known {
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

// Hide makes Find never find anything in a pack again: it is condemned or gone.
func (s *Set) Hide(pack format.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden[pack] = true
	if entries, held := s.byPack[pack]; held {
		s.givenUp[pack] = entries
	}
	s.dropRecent(pack)
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

// Uncovered returns the entries of all whole packs that no segment covers, and how many packs that are.
func (s *Set) Uncovered() (entries []Entry, packs int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for pack, some := range s.byPack {
		if !s.partly[pack] {
			entries = append(entries, some...)
			packs++
		}
	}
	return entries, packs
}

// Of visits the entries of a pack until visit returns false. It looks at every entry of every segment.
func (s *Set) Of(pack format.Name, visit func(Entry) bool) {
	s.mu.RLock()
	entries := slices.Concat(s.byPack[pack], s.givenUp[pack])
	segments := slices.Clone(s.order)
	s.mu.RUnlock()
	for _, e := range entries {
		if !visit(e) {
			return
		}
	}
	for _, segment := range segments {
		if !slices.Contains(segment.Packs(), pack) {
			continue
		}
		for i := range segment.Len() {
			if e, err := segment.At(i); err == nil && e.Pack == pack && !visit(e) {
				return
			}
		}
	}
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
	if s.hidden[place.Pack] {
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

// Find returns a place of an id in any domain: enough to read it, because the content proves the id.
func (s *Set) Find(id format.ID) (Place, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.find(id, s.usable)
}

// FindIn returns a place of an id in a domain: what may be deduplicated against from there.
func (s *Set) FindIn(domain format.Name, id format.ID) (Place, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if domain == s.home && len(s.elsewhere) == 0 {
		return s.find(id, s.usable)
	}
	return s.find(id, func(place Place) bool { return s.usable(place) && s.domainOf(place.Pack) == domain })
}

// find returns a place of an id that is accepted. The caller holds the lock.
func (s *Set) find(id format.ID, accept func(Place) bool) (Place, bool) {
	if place, ok := s.recent[id]; ok {
		if accept(place) {
			return place, true
		}
		for _, other := range s.others[id] {
			if accept(other) {
				return other, true
			}
		}
	}
	var found Place
	for i := len(s.order) - 1; i >= 0; i-- {
		ok := s.order[i].Lookup(&id, func(place Place) bool {
			found = place
			return accept(place)
		})
		if ok {
			return found, true
		}
	}
	return Place{}, false
}

// FindAll returns every place of an id, packs that are given up included.
func (s *Set) FindAll(id format.ID) []Place {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var places []Place
	for _, packs := range []map[format.Name][]Entry{s.byPack, s.givenUp} {
		for _, entries := range packs {
			for i := range entries {
				if entries[i].ID == id {
					places = append(places, entries[i].Place)
				}
			}
		}
	}
	for _, segment := range s.order {
		segment.Lookup(&id, func(place Place) bool {
			places = append(places, place)
			return false
		})
	}
	return places
}

// Segment returns a segment that was added, or nil.
func (s *Set) Segment(name format.Name) *Segment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.segments[name]
}
