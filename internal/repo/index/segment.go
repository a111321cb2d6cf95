// Package index finds blocks: sorted segments that map ids to places in packs (docs/format.md section 8).
//
// Segments are derived from packs. A damaged one costs time, never data: its packs' tables are read instead.
//
// Nothing here holds a segment's entries in memory. They lie in a file that is mapped ([OpenFile]), whole, or only the pages
// that were asked for ([OpenParts]); a new segment is merged from sorted ones into a stream ([Merge]).
package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"

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

// MaxEntries is how many entries a segment that is written may have: what is needed to make it, its filter, stays
// below 100 MiB of memory. Reading has no such limit.
const MaxEntries = 64 << 20

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

// layout says where in a segment's file its parts are, in bytes.
type layout struct {
	packs    int64 // number of packs
	count    int64 // number of entries
	interval int64
	entries  int64 // offset of the entries; the packs begin behind the header
	fences   int64
	filter   int64
	checksum int64
	// probes of the filter; 0: there is none that this program knows.
	probes int
}

// parseLayout reads a segment's header. What it says fits the size.
func parseLayout(header []byte, size int64) (layout, error) {
	var l layout
	if err := format.CheckPrelude(header, format.MagicIndex); err != nil {
		return l, err
	}
	bad := fmt.Errorf("%w: index segment with impossible counts", format.ErrCorrupt)
	if len(header) < headerSize || size < headerSize+checksumSize {
		return l, bad
	}
	if header[38] != 0 || header[39] != 0 || [16]byte(header[48:64]) != [16]byte{} {
		return l, fmt.Errorf("%w: index segment has reserved bytes set", format.ErrCorrupt)
	}
	packs := uint64(binary.LittleEndian.Uint32(header[20:]))
	count := binary.LittleEndian.Uint64(header[24:])
	interval := uint64(binary.LittleEndian.Uint32(header[32:]))
	filter := binary.LittleEndian.Uint64(header[40:])
	limit := uint64(size - checksumSize)
	if interval == 0 || count > limit/entrySize || filter > limit || packs > limit/packSize {
		return l, bad
	}
	fences := (count + interval - 1) / interval
	if headerSize+packs*packSize+count*entrySize+fences*fenceSize+filter != limit {
		return l, bad
	}
	l = layout{packs: int64(packs), count: int64(count), interval: int64(interval), checksum: int64(limit)}
	l.entries = headerSize + l.packs*packSize
	l.fences = l.entries + l.count*entrySize
	l.filter = l.fences + int64(fences)*fenceSize
	if header[36] == filterBloom && filter > 0 {
		l.probes = int(header[37])
	}
	return l, nil
}

// Segment is an open segment. It is safe for parallel use.
type Segment struct {
	layout
	content content
	parts   *parts // nil: all of the content is there
}

// Open opens a segment that lies in memory, and checks its checksum. The bytes must not change. Errors wrap
// format.ErrCorrupt.
func Open(raw []byte, hasher *format.Hasher) (*Segment, error) {
	l, err := parseLayout(raw, int64(len(raw)))
	if err != nil {
		return nil, err
	}
	s := &Segment{layout: l, content: content{bytes: raw}}
	if err := s.check(hasher); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenFile opens a segment that lies in a file, which belongs to the segment from then on. Its checksum is checked
// unless the caller knows that this was done: that reads all of it. Errors that say something of the bytes wrap
// format.ErrCorrupt.
func OpenFile(file *os.File, hasher *format.Hasher, checked bool) (*Segment, error) {
	mapped, err := mapFile(file)
	if err != nil {
		return nil, err
	}
	l, err := parseLayout(mapped.bytes, int64(len(mapped.bytes)))
	s := &Segment{layout: l, content: mapped}
	if err == nil {
		err = s.checkOrder()
	}
	if err == nil && !checked {
		err = s.check(hasher)
	}
	if err != nil {
		_ = mapped.close() // the first error is the one to tell
		return nil, err
	}
	return s, nil
}

// check reads all of the segment and compares its checksum.
func (s *Segment) check(hasher *format.Hasher) error {
	sum := hasher.Stream(format.ContextIndex)
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(s.content, 0, s.layout.checksum), make([]byte, 1<<20)); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), s.content.bytes[s.layout.checksum:]) {
		return fmt.Errorf("%w: index segment checksum differs", format.ErrCorrupt)
	}
	return s.checkOrder()
}

// checkOrder returns an error unless the packs are in ascending order.
func (s *Segment) checkOrder() error {
	names := s.content.bytes[headerSize:s.entries]
	for at := packSize; at < len(names); at += packSize {
		if bytes.Compare(names[at-packSize:at], names[at:at+packSize]) >= 0 {
			return fmt.Errorf("%w: the packs of an index segment are out of order", format.ErrCorrupt)
		}
	}
	return nil
}

// Close releases what the segment holds. Nothing may use it afterwards.
func (s *Segment) Close() error {
	return s.content.close()
}

// Checksum is what the segment says at its end; the log says the same.
func (s *Segment) Checksum() format.ID { return format.ID(s.content.bytes[s.layout.checksum:]) }

// Size of the segment, in bytes.
func (s *Segment) Size() int64 { return int64(len(s.content.bytes)) }

// Packs are the packs whose frames the segment has, all of each, in ascending order.
func (s *Segment) Packs() []format.Name {
	packs := make([]format.Name, s.packs)
	for i := range packs {
		packs[i] = format.Name(s.content.bytes[headerSize+i*packSize:])
	}
	return packs
}

// IsOf is true if these, in ascending order, are the packs whose frames the segment has.
func (s *Segment) IsOf(packs []format.Name) bool {
	if len(packs) != int(s.packs) {
		return false
	}
	for i := range packs {
		if packs[i] != format.Name(s.content.bytes[headerSize+i*packSize:]) {
			return false
		}
	}
	return true
}

// Len is the number of entries.
func (s *Segment) Len() int { return int(s.count) }

// At returns entry i of a segment that is all there.
func (s *Segment) At(i int) (Entry, error) {
	raw := s.record(int64(i))
	place, err := s.place(context.Background(), raw)
	return Entry{ID: format.ID(raw[:32]), Place: place}, err
}

// record i's bytes.
func (s *Segment) record(i int64) []byte {
	at := s.entries + i*entrySize
	return s.content.bytes[at : at+entrySize]
}

// place reads a record's place.
func (s *Segment) place(ctx context.Context, record []byte) (Place, error) {
	number := int64(binary.LittleEndian.Uint32(record[32:]))
	if number >= s.packs {
		return Place{}, fmt.Errorf("%w: index entry of pack number %d", format.ErrCorrupt, number)
	}
	at := headerSize + number*packSize
	if err := s.need(ctx, at, at+packSize); err != nil {
		return Place{}, err
	}
	return Place{
		Pack: format.Name(s.content.bytes[at:]), Offset: binary.LittleEndian.Uint32(record[36:]),
		Stored: binary.LittleEndian.Uint32(record[40:]), Plain: binary.LittleEndian.Uint32(record[44:]),
	}, nil
}

// need waits until these bytes of the content are there.
func (s *Segment) need(ctx context.Context, from, to int64) error {
	if s.parts == nil {
		return nil
	}
	return s.parts.need(ctx, from, to)
}

// Lookup yields the places of an id to visit until visit returns true. It reports whether visit did. An error is of
// reading the parts of a segment that is not all there.
func (s *Segment) Lookup(ctx context.Context, id *format.ID, visit func(Place) bool) (bool, error) {
	if s.parts != nil {
		if err := s.parts.begin(ctx); err != nil {
			return false, err
		}
	}
	if !s.maybe(id) {
		return false, nil
	}
	first, err := s.search(ctx, id)
	i := first
	for ; err == nil && i < s.count; i++ {
		at := s.entries + i*entrySize
		if err := s.need(ctx, at, at+entrySize); err != nil {
			return false, err
		}
		record := s.record(i)
		if !bytes.Equal(record[:32], id[:]) {
			break
		}
		place, placeErr := s.place(ctx, record)
		switch {
		case placeErr == nil && visit(place):
			return true, nil
		case placeErr != nil && !useless(placeErr):
			return false, placeErr
		}
	}
	if err == nil && s.parts != nil && i == first {
		s.parts.missed()
	}
	return false, err
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

// maybe is false if the filter knows that the id is not there.
func (s *Segment) maybe(id *format.ID) bool {
	if s.probes == 0 || (s.parts != nil && !s.parts.filterThere()) {
		return true
	}
	filter := s.content.bytes[s.filter:s.layout.checksum]
	bits := uint64(len(filter)) * 8
	a, b := filterSteps(id)
	for i := range uint64(s.probes) {
		bit := (a + i*b) % bits
		if filter[bit/8]&(1<<(bit%8)) == 0 {
			return false
		}
	}
	return true
}

// search finds the first entry not below id. The fences say which interval it is in; ids are uniform, so interpolating
// finds the fence within a few steps, all close to each other. Then it halves the interval.
func (s *Segment) search(ctx context.Context, id *format.ID) (int64, error) {
	key := binary.BigEndian.Uint64(id[:])
	fences := (s.filter - s.fences) / fenceSize
	// Entries of ids that begin with the key lie from the interval before the first fence that is not below it, to the first
	// fence above it.
	first, err := s.fence(ctx, 0, fences, key, func(fence uint64) bool { return fence < key })
	if err != nil {
		return 0, err
	}
	end, err := s.fence(ctx, first, fences, key, func(fence uint64) bool { return fence <= key })
	if err != nil {
		return 0, err
	}
	low, high := max(first-1, 0)*s.interval, min(end, fences)*s.interval
	high = min(high, s.count)
	if high-low <= 2*s.interval && high-low <= 1<<16 {
		if err := s.need(ctx, s.entries+low*entrySize, s.entries+high*entrySize); err != nil {
			return 0, err
		}
	}
	for low < high { // the answer is in [low, high]
		middle := low + (high-low)/2
		at := s.entries + middle*entrySize
		if err := s.need(ctx, at, at+32); err != nil {
			return 0, err
		}
		if bytes.Compare(s.content.bytes[at:at+32], id[:]) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// fence finds the first fence from low on, below high, of which before is false. After a few steps of interpolation it
// falls back to halving, which hostile ids cannot slow down.
func (s *Segment) fence(ctx context.Context, low, high int64, key uint64, before func(fence uint64) bool) (int64, error) {
	lowKey, highKey := uint64(0), uint64(math.MaxUint64)
	if low > 0 {
		lowKey, highKey = key, key // the answer is close: look at the next one first
	}
	for step := 0; low < high; step++ {
		middle := low + (high-low)/2
		if step < 4 && highKey > lowKey && key >= lowKey && key <= highKey {
			share := float64(key-lowKey) / float64(highKey-lowKey)
			middle = min(low+int64(share*float64(high-low)), high-1)
		} else if step == 0 {
			middle = low
		}
		at := s.fences + middle*fenceSize
		if err := s.need(ctx, at, at+fenceSize); err != nil {
			return 0, err
		}
		// A fence is the beginning of an id.
		if fence := binary.BigEndian.Uint64(s.content.bytes[at:]); before(fence) {
			low, lowKey = middle+1, fence
		} else {
			high, highKey = middle, fence
		}
	}
	return low, nil
}
