package index

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"ferry/internal/repo/format"
)

// mergeBuffer is how much is read of a segment at a time while it is gone through, in bytes.
const mergeBuffer = 512 << 10

// cursor goes through a segment's entries in order.
type cursor struct {
	segment *Segment
	names   []byte // of its packs
	in      *bufio.Reader
	left    int64
	record  [entrySize]byte
	before  [entrySize]byte
	started bool
}

func newCursor(segment *Segment) (*cursor, error) {
	names := make([]byte, segment.packs*packSize)
	if _, err := segment.content.ReadAt(names, headerSize); err != nil {
		return nil, err
	}
	size := min(mergeBuffer, max(int(segment.count)*entrySize, entrySize))
	in := bufio.NewReaderSize(io.NewSectionReader(segment.content, segment.entries, segment.count*entrySize), size)
	return &cursor{segment: segment, names: names, in: in, left: segment.count}, nil
}

// next goes to the next entry. False without error is the end.
func (c *cursor) next() (bool, error) {
	if c.left == 0 {
		return false, nil
	}
	c.left--
	c.before = c.record
	if _, err := io.ReadFull(c.in, c.record[:]); err != nil {
		return false, err
	}
	number := int64(binary.LittleEndian.Uint32(c.record[32:]))
	if number >= c.segment.packs {
		return false, fmt.Errorf("%w: index entry of pack number %d", format.ErrCorrupt, number)
	}
	if c.started && compareRecords(c.before[:], c.record[:]) > 0 {
		return false, fmt.Errorf("%w: the entries of an index segment are out of order", format.ErrCorrupt)
	}
	c.started = true
	return true, nil
}

func (c *cursor) number() uint32 { return binary.LittleEndian.Uint32(c.record[32:]) }

func (c *cursor) pack() []byte {
	at := int(c.number()) * packSize
	return c.names[at : at+packSize]
}

func (c *cursor) entry() Entry {
	return Entry{ID: format.ID(c.record[:32]), Place: Place{
		Pack: format.Name(c.pack()), Offset: binary.LittleEndian.Uint32(c.record[36:]),
		Stored: binary.LittleEndian.Uint32(c.record[40:]), Plain: binary.LittleEndian.Uint32(c.record[44:]),
	}}
}

// Entries goes through the entries of a segment that is all there, in its order. An error is the last item; it wraps
// format.ErrCorrupt where they are out of order.
func (s *Segment) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		c, err := newCursor(s)
		for err == nil {
			var more bool
			if more, err = c.next(); err == nil && (!more || !yield(c.entry(), nil)) {
				return
			}
		}
		yield(Entry{}, err)
	}
}

// compareRecords of one segment, by id, pack number and offset.
func compareRecords(a, b []byte) int {
	if c := bytes.Compare(a[:32], b[:32]); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(binary.LittleEndian.Uint32(a[32:]), binary.LittleEndian.Uint32(b[32:])),
		cmp.Compare(binary.LittleEndian.Uint32(a[36:]), binary.LittleEndian.Uint32(b[36:])),
	)
}

// compare entries of two segments, by id, pack and offset. Packs are numbered in ascending order in each.
func (c *cursor) compare(other *cursor) int {
	if by := bytes.Compare(c.record[:32], other.record[:32]); by != 0 {
		return by
	}
	return cmp.Or(
		bytes.Compare(c.pack(), other.pack()),
		cmp.Compare(binary.LittleEndian.Uint32(c.record[36:]), binary.LittleEndian.Uint32(other.record[36:])),
	)
}

// cursors is a heap of segments, the one with the lowest entry first.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(any)          { panic("index: a merge gains no segments") }

// Pop removes the last, for container/heap.
func (h *cursors) Pop() any {
	last := len(*h) - 1
	gone := (*h)[last]
	*h = (*h)[:last]
	return gone
}

// merged goes through the entries of sorted segments in order of id, pack and offset, calls visit with the cursor that
// stands on each, and does so once for what several of them have. It ends early when visit returns false. Memory: a
// buffer for each segment, and its packs' names.
func merged(ctx context.Context, segments []*Segment, visit func(*cursor) (bool, error)) error {
	var h cursors
	for _, segment := range segments {
		c, err := newCursor(segment)
		if err != nil {
			return err
		}
		more, err := c.next()
		if err != nil {
			return err
		}
		if more {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	var last [32 + packSize + 4]byte
	for first, n := true, 0; len(h) > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		c := h[0]
		same := !first && bytes.Equal(last[:32], c.record[:32]) && bytes.Equal(last[32:32+packSize], c.pack()) && bytes.Equal(last[32+packSize:], c.record[36:40])
		if !same {
			first = false
			copy(last[:], c.record[:32])
			copy(last[32:], c.pack())
			copy(last[32+packSize:], c.record[36:40])
			if more, err := visit(c); err != nil || !more {
				return err
			}
		}
		more, err := c.next()
		switch {
		case err != nil:
			return err
		case more:
			heap.Fix(&h, 0)
		default:
			heap.Pop(&h)
		}
	}
	return nil
}

// Merged is what Merge wrote.
type Merged struct {
	Size     int64
	Checksum format.ID
	Entries  int64
}

// Covered is a pack that a segment to be written covers, and the number of its frames by the log.
type Covered struct {
	Pack   format.Name
	Frames int64
}

// ErrTooLarge: the packs have more frames than MaxEntries.
var ErrTooLarge = errors.New("more entries than an index segment may have")

// Merge writes one segment of what sorted segments have of the packs that are named, and drops the rest. The packs must
// each have as many frames in the segments as covered says, else the error wraps format.ErrCorrupt. All segments must be all
// there ([Segment.Complete]). Its memory is the filter and the fences of what it writes: 1.3 bytes for each entry.
func Merge(ctx context.Context, w io.Writer, hasher *format.Hasher, segments []*Segment, covered []Covered) (Merged, error) {
	covered = slices.SortedFunc(slices.Values(covered), func(a, b Covered) int { return bytes.Compare(a.Pack[:], b.Pack[:]) })
	covered = slices.CompactFunc(covered, func(a, b Covered) bool { return a.Pack == b.Pack })
	var entries int64
	for _, c := range covered {
		if entries += c.Frames; c.Frames < 0 || entries > MaxEntries {
			return Merged{}, fmt.Errorf("%w: %d", ErrTooLarge, entries)
		}
	}
	left := make([]int64, len(covered)) // of each pack's frames
	for i := range covered {
		left[i] = covered[i].Frames
	}
	out := newSegmentWriter(w, hasher, covered, entries)
	numbers := map[*Segment][]uint32{}
	for _, segment := range segments {
		numbers[segment] = renumber(segment, covered)
	}
	err := merged(ctx, segments, func(c *cursor) (bool, error) {
		number := numbers[c.segment][c.number()]
		if number == dropped {
			return true, nil
		}
		if left[number]--; left[number] < 0 {
			return false, errCount
		}
		return true, out.add(c.record[:], number)
	})
	if err != nil {
		return Merged{}, err
	}
	return out.finish()
}

const dropped = ^uint32(0)

// renumber returns for each pack number of a segment its number among the covered packs.
func renumber(segment *Segment, covered []Covered) []uint32 {
	numbers := make([]uint32, segment.packs)
	next := 0
	for i, name := range segment.Packs() { // both are in order
		for next < len(covered) && bytes.Compare(covered[next].Pack[:], name[:]) < 0 {
			next++
		}
		numbers[i] = dropped
		if next < len(covered) && covered[next].Pack == name {
			numbers[i] = uint32(next)
		}
	}
	return numbers
}

// segmentWriter writes a segment whose number of entries is known, as they come.
type segmentWriter struct {
	out    *bufio.Writer
	sum    interface{ Sum([]byte) []byte }
	want   int64
	count  int64
	size   int64
	fences []byte
	filter []byte
	id     format.ID
	err    error
}

func newSegmentWriter(w io.Writer, hasher *format.Hasher, covered []Covered, entries int64) *segmentWriter {
	sum := hasher.Stream(format.ContextIndex)
	o := &segmentWriter{
		out: bufio.NewWriterSize(io.MultiWriter(sum, w), mergeBuffer), sum: sum, want: entries,
		fences: make([]byte, 0, (entries+fenceInterval-1)/fenceInterval*fenceSize),
		filter: make([]byte, (entries*filterBits+63)/64*8),
	}
	header := format.AppendPrelude(make([]byte, 0, headerSize), format.MagicIndex)
	header = binary.LittleEndian.AppendUint32(header, uint32(len(covered)))
	header = binary.LittleEndian.AppendUint64(header, uint64(entries))
	header = binary.LittleEndian.AppendUint32(header, fenceInterval)
	if len(o.filter) > 0 {
		header = append(header, filterBloom, filterProbes, 0, 0)
	} else {
		header = append(header, 0, 0, 0, 0)
	}
	header = binary.LittleEndian.AppendUint64(header, uint64(len(o.filter)))
	o.write(append(header, make([]byte, 16)...))
	for i := range covered {
		o.write(covered[i].Pack[:])
	}
	return o
}

// write keeps the first error, as its buffer does.
func (o *segmentWriter) write(p []byte) {
	n, err := o.out.Write(p)
	o.size += int64(n)
	o.err = cmp.Or(o.err, err)
}

func (o *segmentWriter) add(record []byte, number uint32) error {
	if o.count == o.want {
		return errCount
	}
	if o.count%fenceInterval == 0 {
		o.fences = append(o.fences, record[:fenceSize]...)
	}
	o.count++
	o.id = format.ID(record[:32])
	setFilter(o.filter, &o.id)
	o.write(record[:32])
	var rest [entrySize - 32]byte
	copy(rest[4:], record[36:])
	binary.LittleEndian.PutUint32(rest[:], number)
	o.write(rest[:])
	return o.err
}

var errCount = fmt.Errorf("%w: index segments have other frames of their packs than the log says", format.ErrCorrupt)

func (o *segmentWriter) finish() (Merged, error) {
	if o.count != o.want {
		return Merged{}, errCount
	}
	o.write(o.fences)
	o.write(o.filter)
	if err := cmp.Or(o.err, o.out.Flush()); err != nil {
		return Merged{}, err
	}
	done := Merged{Checksum: format.ID(o.sum.Sum(nil)), Entries: o.count}
	o.write(done.Checksum[:])
	done.Size = o.size
	return done, cmp.Or(o.err, o.out.Flush())
}

// Build makes a segment of entries in memory, which it sorts.
func Build(hasher *format.Hasher, entries []Entry) []byte {
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := bytes.Compare(a.ID[:], b.ID[:]); c != 0 {
			return c
		}
		return cmp.Or(bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Offset, b.Offset))
	})
	frames := map[format.Name]int64{}
	for i := range entries {
		frames[entries[i].Pack]++
	}
	covered := make([]Covered, 0, len(frames))
	for name, n := range frames {
		covered = append(covered, Covered{name, n})
	}
	slices.SortFunc(covered, func(a, b Covered) int { return bytes.Compare(a.Pack[:], b.Pack[:]) })
	number := make(map[format.Name]uint32, len(covered))
	for i := range covered {
		number[covered[i].Pack] = uint32(i)
	}
	var raw bytes.Buffer
	out := newSegmentWriter(&raw, hasher, covered, int64(len(entries)))
	for i := range entries {
		e := &entries[i]
		var record [entrySize]byte
		copy(record[:], e.ID[:])
		binary.LittleEndian.PutUint32(record[36:], e.Offset)
		binary.LittleEndian.PutUint32(record[40:], e.Stored)
		binary.LittleEndian.PutUint32(record[44:], e.Plain)
		_ = out.add(record[:], number[e.Pack]) // memory takes all that was counted
	}
	_, _ = out.finish()
	return raw.Bytes()
}
