// Package index finds blocks: sorted segments that map ids to places in packs (docs/format.md section 8).
//
// Segments are derived from packs. A damaged one costs time, never data: its packs' tables are read instead.
package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"ferry/internal/repo/format"
)

const (
	headerSize    = 64
	packSize      = 16
	entrySize     = 48
	fenceInterval = 128
	fenceSize     = 8
	filterBloom   = 1
	filterProbes  = 6
	// filterBits per entry give about one wrong "maybe" in a hundred with six probes.
	filterBits   = 10
	checksumSize = 32
)

// Place is where a frame is.
type Place struct {
	Pack   format.Name
	Offset uint32
	// Stored and Plain are lengths in bytes; the frame takes a header more than Stored.
	Stored, Plain uint32
}

// Entry is one line of a segment.
type Entry struct {
	ID format.ID
	Place
}

// Build makes a segment of the entries, which it sorts.
func Build(hasher *format.Hasher, entries []Entry) []byte {
	packs := packsOf(entries)
	number := make(map[format.Name]uint32, len(packs))
	for i, pack := range packs {
		number[pack] = uint32(i)
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := bytes.Compare(a.ID[:], b.ID[:]); c != 0 {
			return c
		}
		if a.Pack != b.Pack {
			return int(number[a.Pack]) - int(number[b.Pack])
		}
		return int(int64(a.Offset) - int64(b.Offset))
	})
	filter := make([]byte, (len(entries)*filterBits+63)/64*8)
	fences := (len(entries) + fenceInterval - 1) / fenceInterval
	size := headerSize + len(packs)*packSize + len(entries)*entrySize + fences*fenceSize + len(filter) + checksumSize
	out := format.AppendPrelude(make([]byte, 0, size), format.MagicIndex)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(packs)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(entries)))
	out = binary.LittleEndian.AppendUint32(out, fenceInterval)
	if len(filter) > 0 {
		out = append(out, filterBloom, filterProbes, 0, 0)
	} else {
		out = append(out, 0, 0, 0, 0)
	}
	out = binary.LittleEndian.AppendUint64(out, uint64(len(filter)))
	out = append(out, make([]byte, 16)...)
	for _, pack := range packs {
		out = append(out, pack[:]...)
	}
	for i := range entries {
		e := &entries[i]
		out = append(out, e.ID[:]...)
		out = binary.LittleEndian.AppendUint32(out, number[e.Pack])
		out = binary.LittleEndian.AppendUint32(out, e.Offset)
		out = binary.LittleEndian.AppendUint32(out, e.Stored)
		out = binary.LittleEndian.AppendUint32(out, e.Plain)
		setFilter(filter, &e.ID)
	}
	for i := 0; i < len(entries); i += fenceInterval {
		out = append(out, entries[i].ID[:fenceSize]...)
	}
	out = append(out, filter...)
	sum := hasher.Sum(format.ContextIndex, out)
	return append(out, sum[:]...)
}

func packsOf(entries []Entry) []format.Name {
	seen := map[format.Name]bool{}
	var packs []format.Name
	for i := range entries {
		if !seen[entries[i].Pack] {
			seen[entries[i].Pack] = true
			packs = append(packs, entries[i].Pack)
		}
	}
	slices.SortFunc(packs, func(a, b format.Name) int { return bytes.Compare(a[:], b[:]) })
	return packs
}

// Ids are hashes, so the filter takes its bits from them directly, by double hashing.
func filterSteps(id *format.ID) (a, b uint64) {
	return binary.LittleEndian.Uint64(id[8:]), binary.LittleEndian.Uint64(id[16:]) | 1
}

func setFilter(filter []byte, id *format.ID) {
	bits := uint64(len(filter)) * 8
	a, b := filterSteps(id)
	for i := range uint64(filterProbes) {
		bit := (a + i*b) % bits
		filter[bit/8] |= 1 << (bit % 8)
	}
}

// Segment is an open segment. It is safe for parallel use; its bytes must not change or go away meanwhile.
type Segment struct {
	packs   []format.Name
	entries []byte
	count   int
	filter  []byte
	probes  int
}

// Open reads a segment's structure and checks its checksum. Errors wrap format.ErrCorrupt.
func Open(raw []byte, hasher *format.Hasher) (*Segment, error) {
	if err := format.CheckPrelude(raw, format.MagicIndex); err != nil {
		return nil, err
	}
	bad := fmt.Errorf("%w: index segment with impossible counts", format.ErrCorrupt)
	if len(raw) < headerSize+checksumSize {
		return nil, bad
	}
	body := raw[:len(raw)-checksumSize]
	if hasher.Sum(format.ContextIndex, body) != format.ID(raw[len(body):]) {
		return nil, fmt.Errorf("%w: index segment checksum differs", format.ErrCorrupt)
	}
	if raw[38] != 0 || raw[39] != 0 || [16]byte(raw[48:64]) != [16]byte{} {
		return nil, fmt.Errorf("%w: index segment has reserved bytes set", format.ErrCorrupt)
	}
	packs := uint64(binary.LittleEndian.Uint32(raw[20:]))
	count := binary.LittleEndian.Uint64(raw[24:])
	interval := uint64(binary.LittleEndian.Uint32(raw[32:]))
	filter := binary.LittleEndian.Uint64(raw[40:])
	limit := uint64(len(body))
	if interval == 0 || count > limit/entrySize || filter > limit || packs > limit/packSize {
		return nil, bad
	}
	fences := (count + interval - 1) / interval
	if uint64(headerSize)+packs*packSize+count*entrySize+fences*fenceSize+filter != limit {
		return nil, bad
	}
	s := &Segment{count: int(count), packs: make([]format.Name, packs)}
	rest := body[headerSize:]
	for i := range s.packs {
		s.packs[i] = format.Name(rest[:packSize])
		rest = rest[packSize:]
	}
	s.entries = rest[:count*entrySize]
	if raw[36] == filterBloom && filter > 0 {
		s.filter, s.probes = rest[count*entrySize+fences*fenceSize:], int(raw[37])
	}
	return s, nil
}

// Packs are the packs whose frames the segment has, all of each.
func (s *Segment) Packs() []format.Name { return s.packs }

// Len is the number of entries.
func (s *Segment) Len() int { return s.count }

// At returns entry i.
func (s *Segment) At(i int) (Entry, error) {
	raw := s.entries[i*entrySize : (i+1)*entrySize]
	number := binary.LittleEndian.Uint32(raw[32:])
	if number >= uint32(len(s.packs)) {
		return Entry{}, fmt.Errorf("%w: index entry of pack number %d", format.ErrCorrupt, number)
	}
	return Entry{ID: format.ID(raw[:32]), Place: Place{
		Pack: s.packs[number], Offset: binary.LittleEndian.Uint32(raw[36:]),
		Stored: binary.LittleEndian.Uint32(raw[40:]), Plain: binary.LittleEndian.Uint32(raw[44:]),
	}}, nil
}

// Lookup yields the places of an id to visit until visit returns true. It reports whether visit did.
func (s *Segment) Lookup(id *format.ID, visit func(Place) bool) bool {
	if !s.maybe(id) {
		return false
	}
	for i := s.search(id); i < s.count; i++ {
		if !bytes.Equal(s.entries[i*entrySize:i*entrySize+32], id[:]) {
			return false
		}
		if entry, err := s.At(i); err == nil && visit(entry.Place) {
			return true
		}
	}
	return false
}

func (s *Segment) maybe(id *format.ID) bool {
	if s.filter == nil {
		return true
	}
	bits := uint64(len(s.filter)) * 8
	a, b := filterSteps(id)
	for i := range uint64(s.probes) {
		bit := (a + i*b) % bits
		if s.filter[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
	}
	return true
}

// search finds the first entry not below id. Ids are uniform, so interpolating on their first eight bytes lands within
// a page or two; after a few steps it falls back to halving, which hostile ids cannot slow down.
func (s *Segment) search(id *format.ID) int {
	key := binary.BigEndian.Uint64(id[:])
	low, high := 0, s.count // the answer is in [low, high]
	lowKey, highKey := uint64(0), uint64(math.MaxUint64)
	for step := 0; low < high; step++ {
		middle := low + (high-low)/2
		if step < 4 && highKey > lowKey && key >= lowKey && key <= highKey {
			share := float64(key-lowKey) / float64(highKey-lowKey)
			middle = min(low+int(share*float64(high-low)), high-1)
		}
		at := s.entries[middle*entrySize : middle*entrySize+32]
		if bytes.Compare(at, id[:]) < 0 {
			low, lowKey = middle+1, binary.BigEndian.Uint64(at)
		} else {
			high, highKey = middle, binary.BigEndian.Uint64(at)
		}
	}
	return low
}
