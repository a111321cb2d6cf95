package commitlog

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
)

// State is what the entries up to a head say, added up.
type State struct {
	Head Head
	// Generation of the key of the last MAC; 0 where nothing is encrypted.
	Generation uint32
	// Rotated is the generation that the last rotation which ended made; 0: none did. Generation may be further already.
	Rotated    uint32
	Repository Repository
	Domains    map[format.Name]Domain
	// Packs are shared with clones: Apply copies them before it changes them.
	Packs       Packs
	packsShared bool
	Condemned   map[format.Name]bool
	// CondemnedFiles are files that no entry names and none may name.
	CondemnedFiles map[string]bool
	// CondemnedIn is the number of the entry that condemned a pack, by its id in hex, or a file, by its name.
	CondemnedIn map[string]uint64
	Index       map[format.Name]Segment
	// Points and Claims are shared with clones in the same way.
	Points       Points
	Claims       Claims
	pointsShared bool
	Holds        map[backup.PointID][]Hold
	Tombstones   map[backup.PointID]Tombstone
	Bad          map[Bad]bool
	Damaged      map[backup.PointID]Damaged
	Partials     map[format.Name][]Partial
	// Locked is until when everything is locked at least; zero: nothing is.
	Locked time.Time
}

// NewState is the state before the first entry.
func NewState() *State {
	return &State{
		Domains: map[format.Name]Domain{}, Condemned: map[format.Name]bool{},
		Index: map[format.Name]Segment{}, Holds: map[backup.PointID][]Hold{}, Tombstones: map[backup.PointID]Tombstone{}, Bad: map[Bad]bool{}, Damaged: map[backup.PointID]Damaged{},
		Partials: map[format.Name][]Partial{}, CondemnedFiles: map[string]bool{}, CondemnedIn: map[string]uint64{},
	}
}

// Begin is the state that a checkpoint says. It takes over the payload's packs, of which there may be many.
func Begin(checkpoint *Payload, head Head) *State {
	s := NewState()
	packs := checkpoint.Packs
	checkpoint.Packs = nil
	s.Apply(checkpoint, head)
	for i := range packs {
		packs[i].Entry = s.entryOf(packs[i])
	}
	s.Packs = packsOf(packs)
	return s
}

// Clone returns a copy that does not change with the state. The lists in it are shared, and nobody changes those; packs, points and claims
// are, because there are many, until one of the two changes.
func (s *State) Clone() *State {
	s.packsShared, s.pointsShared = true, true
	c := *s
	c.Domains, c.Condemned = maps.Clone(s.Domains), maps.Clone(s.Condemned)
	c.CondemnedFiles, c.CondemnedIn, c.Index = maps.Clone(s.CondemnedFiles), maps.Clone(s.CondemnedIn), maps.Clone(s.Index)
	c.Holds, c.Tombstones, c.Bad, c.Damaged, c.Partials = maps.Clone(s.Holds), maps.Clone(s.Tombstones), maps.Clone(s.Bad), maps.Clone(s.Damaged), maps.Clone(s.Partials)
	return &c
}

// Apply adds an entry to the state: first what it removes, then what it adds.
func (s *State) Apply(p *Payload, head Head) {
	s.Head = head
	if p.Generation != 0 {
		s.Generation = p.Generation
	}
	if p.Rotated != 0 {
		s.Rotated = p.Rotated
	}
	if p.Repository != nil {
		s.Repository = *p.Repository
	}
	for _, d := range p.Domains {
		s.Domains[d.ID] = d
	}
	s.applyPacks(p)
	for _, id := range p.IndexRemoved {
		delete(s.Index, id)
	}
	for _, segment := range p.Index {
		s.Index[segment.ID] = segment
	}
	s.applyPoints(p)
	for _, bad := range p.BadHealed {
		delete(s.Bad, bad)
	}
	for _, bad := range p.Bad {
		s.Bad[bad] = true
	}
	for _, task := range p.PartialsEnded {
		delete(s.Partials, task)
	}
	if p.Locked != nil && p.Locked.After(s.Locked) {
		s.Locked = *p.Locked
	}
	for _, partial := range p.Partials {
		s.Partials[partial.Task] = append(s.Partials[partial.Task], partial)
	}
}

func (s *State) applyPacks(p *Payload) {
	if s.packsShared && len(p.Deleted)+len(p.Packs) > 0 {
		s.Packs, s.packsShared = s.Packs.clone(), false
	}
	for _, id := range p.Deleted {
		s.Packs.remove(id)
		delete(s.Condemned, id)
		delete(s.CondemnedIn, id.String())
		maps.DeleteFunc(s.Bad, func(bad Bad, _ bool) bool { return bad.Pack == id })
	}
	for _, file := range p.DeletedFiles {
		delete(s.CondemnedFiles, file)
		delete(s.CondemnedIn, file)
	}
	s.Packs.reserve(len(p.Packs))
	for _, pack := range p.Packs {
		pack.Entry = s.entryOf(pack)
		s.Packs.set(pack)
	}
	for _, c := range p.CondemnedIn {
		for _, id := range c.Packs {
			s.condemn(id.String(), c.Entry)
		}
		for _, file := range c.Files {
			s.condemn(file, c.Entry)
		}
	}
	for _, id := range p.Condemned {
		s.Condemned[id] = true
		s.condemn(id.String(), s.Head.N)
	}
	for _, file := range p.CondemnedFiles {
		s.CondemnedFiles[file] = true
		s.condemn(file, s.Head.N)
	}
}

// entryOf is the number of the entry that named a pack which this payload names.
func (s *State) entryOf(pack Pack) uint64 {
	if pack.Entry == 0 {
		return s.Head.N
	}
	return min(pack.Entry, s.Head.N)
}

// condemn notes the first entry that condemned something.
func (s *State) condemn(what string, entry uint64) {
	if _, already := s.CondemnedIn[what]; !already {
		s.CondemnedIn[what] = min(entry, s.Head.N)
	}
}

// condemnations groups what is condemned by the entry that did it.
func (s *State) condemnations() []Condemnation {
	byEntry := map[uint64]*Condemnation{}
	of := func(entry uint64) *Condemnation {
		if byEntry[entry] == nil {
			byEntry[entry] = &Condemnation{Entry: entry}
		}
		return byEntry[entry]
	}
	for id := range s.Condemned {
		c := of(s.CondemnedIn[id.String()])
		c.Packs = append(c.Packs, id)
	}
	for file := range s.CondemnedFiles {
		c := of(s.CondemnedIn[file])
		c.Files = append(c.Files, file)
	}
	var list []Condemnation
	for _, entry := range slices.Sorted(maps.Keys(byEntry)) {
		c := byEntry[entry]
		slices.SortFunc(c.Packs, compareNames)
		slices.Sort(c.Files)
		list = append(list, *c)
	}
	return list
}

func (s *State) applyPoints(p *Payload) {
	if s.pointsShared && len(p.PointsRemoved)+len(p.Points)+len(p.ClaimsWithdrawn)+len(p.Claims) > 0 {
		s.Points, s.Claims, s.pointsShared = s.Points.clone(), s.Claims.clone(), false
	}
	for _, id := range p.PointsRemoved {
		s.Points.table.remove(id)
		s.Claims.table.remove(id)
		delete(s.Holds, id)
		delete(s.Damaged, id)
	}
	for _, point := range p.Points {
		s.Points.set(point)
		delete(s.Tombstones, point.ID) // it is wanted again
		delete(s.Damaged, point.ID)
	}
	for _, id := range p.DamagedHealed {
		delete(s.Damaged, id)
	}
	for _, damaged := range p.Damaged {
		s.Damaged[damaged.Point] = damaged
	}
	for _, claim := range p.ClaimsWithdrawn {
		s.Claims.withdraw(claim.Point, claim.Job)
	}
	for _, claim := range p.Claims {
		s.Claims.add(claim)
	}
	for _, hold := range p.HoldsReleased {
		without(s.Holds, hold.Point, func(h Hold) bool { return h.ID == hold.ID })
	}
	for _, hold := range p.Holds {
		without(s.Holds, hold.Point, func(h Hold) bool { return h.ID == hold.ID })
		s.Holds[hold.Point] = append(s.Holds[hold.Point], hold)
	}
	for _, id := range p.TombstonesLifted {
		delete(s.Tombstones, id)
	}
	for _, tombstone := range p.Tombstones {
		s.Tombstones[tombstone.ID] = tombstone
	}
}

// without takes what gone says from a point's list. A list that others may hold does not change.
func without[T any](lists map[backup.PointID][]T, point backup.PointID, gone func(T) bool) {
	kept := slices.DeleteFunc(slices.Clone(lists[point]), gone)
	if len(kept) == 0 {
		delete(lists, point)
		return
	}
	lists[point] = kept
}

// Payload returns the state as a checkpoint says it, in a fixed order.
func (s *State) Payload() *Payload {
	p := s.without()
	if s.Points.Len() > 0 {
		p.Points = slices.AppendSeq(make([]Point, 0, s.Points.Len()), s.Points.All())
		slices.SortFunc(p.Points, func(a, b Point) int { return comparePoints(a.ID, b.ID) })
	}
	p.Claims = s.Claims.all()
	return p
}

// without is the state as a checkpoint says it, without points and claims.
func (s *State) without() *Payload {
	p := &Payload{Repository: &s.Repository, Rotated: s.Rotated}
	p.Domains = sorted(s.Domains, func(d Domain) format.Name { return d.ID })
	if s.Packs.Len() > 0 { // nil rather than none: that is how JSON reads back
		p.Packs = slices.Clone(s.Packs.list)
	}
	slices.SortFunc(p.Packs, func(a, b Pack) int { return compareNames(a.ID, b.ID) })
	p.Index = sorted(s.Index, func(segment Segment) format.Name { return segment.ID })
	for id := range s.Condemned {
		p.Condemned = append(p.Condemned, id)
	}
	slices.SortFunc(p.Condemned, compareNames)
	p.CondemnedFiles = slices.Sorted(maps.Keys(s.CondemnedFiles))
	p.CondemnedIn = s.condemnations()
	for _, point := range slices.SortedFunc(maps.Keys(s.Holds), comparePoints) {
		p.Holds = append(p.Holds, s.Holds[point]...)
	}
	p.Tombstones = slices.SortedFunc(maps.Values(s.Tombstones), func(a, b Tombstone) int { return comparePoints(a.ID, b.ID) })
	p.Bad = slices.SortedFunc(maps.Keys(s.Bad), func(a, b Bad) int {
		return cmp.Or(compareNames(a.Pack, b.Pack), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length), bytes.Compare(a.ID[:], b.ID[:]))
	})
	p.Damaged = slices.SortedFunc(maps.Values(s.Damaged), func(a, b Damaged) int { return comparePoints(a.Point, b.Point) })
	if !s.Locked.IsZero() {
		p.Locked = &s.Locked
	}
	for _, task := range slices.SortedFunc(maps.Keys(s.Partials), compareNames) {
		p.Partials = append(p.Partials, s.Partials[task]...)
	}
	return p
}

func sorted[T any](m map[format.Name]T, id func(T) format.Name) []T {
	return slices.SortedFunc(maps.Values(m), func(a, b T) int { return compareNames(id(a), id(b)) })
}

func comparePoints(a, b backup.PointID) int { return bytes.Compare(a[:], b[:]) }

func compareNames(a, b format.Name) int { return bytes.Compare(a[:], b[:]) }

// Live returns the packs that may be deduplicated against: those that are not condemned.
func (s *State) Live(pack format.Name) bool {
	return s.Packs.Has(pack) && !s.Condemned[pack]
}

// SortPoints sorts by time, then by id.
func SortPoints(points []Point) {
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(a.Created.Compare(b.Created), bytes.Compare(a.ID[:], b.ID[:]))
	})
}
