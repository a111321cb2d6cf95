package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"ferry/internal/backup"
)

// ExtentLimit is how many extents of one file are kept in memory, with 24 bytes each (32 in compressed files).
const ExtentLimit = 4 << 20

// Extent is a range of the disk that a stream file has the content of.
type Extent struct {
	// Offset and Length on the disk, in bytes. Length is above zero.
	Offset, Length int64
	// Position of the content in the file, in bytes. Negative if the range is zeros.
	Position int64
	// Stored is the size in bytes of the lz4 frames at Position; 0 if the content is there as it is.
	Stored int64
}

// End is the offset on the disk behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// IsZero is true if the extent reads as zeros.
func (e Extent) IsZero() bool { return e.Position < 0 }

// Index lists the extents of a stream file, ascending and without overlap. It does not change once it is built.
type Index struct {
	extents []compactExtent
	// stored belongs to extents; nil in files that are not compressed.
	stored []int64
}

type compactExtent struct{ offset, length, position int64 }

// zeroPosition marks extents of zeros.
const zeroPosition = -1

var errTooManyExtents = fmt.Errorf("%w: more than %d extents in one file", backup.ErrUnsupported, ExtentLimit)

// Len is the number of extents.
func (x *Index) Len() int { return len(x.extents) }

// At returns extent i.
func (x *Index) At(i int) Extent {
	c := x.extents[i]
	extent := Extent{Offset: c.offset, Length: c.length, Position: c.position}
	if x.stored != nil {
		extent.Stored = x.stored[i]
	}
	return extent
}

// Find returns the index of the first extent that ends behind offset; Len if there is none.
func (x *Index) Find(offset int64) int {
	return sort.Search(len(x.extents), func(i int) bool { return x.extents[i].offset+x.extents[i].length > offset })
}

func (x *Index) add(extent Extent) error {
	if last := len(x.extents) - 1; extent.IsZero() && last >= 0 && x.extents[last].position == zeroPosition &&
		x.extents[last].offset+x.extents[last].length == extent.Offset {
		x.extents[last].length += extent.Length
		return nil
	}
	if len(x.extents) >= ExtentLimit {
		return errTooManyExtents
	}
	x.extents = append(x.extents, compactExtent{extent.Offset, extent.Length, extent.Position})
	if x.stored != nil {
		x.stored = append(x.stored, extent.Stored)
	}
	return nil
}

// BuildIndex walks the headers of a file with size bytes from the meta frame to the end, skipping the payloads. It
// proves that the file is whole: every frame leads to the next, offsets ascend without overlap within the disk, the
// lengths of the data frames sum up to what the meta frame says, and nothing is missing or left over at the end.
func BuildIndex(ctx context.Context, r io.ReaderAt, size int64, meta Meta) (*Index, error) {
	w := &walker{r: r, size: size, end: size, meta: meta, index: &Index{}}
	if err := w.checkEnd(); err != nil {
		return nil, err
	}
	for pos, count := meta.First, 0; pos >= 0; count++ {
		if count%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var err error
		if pos, err = w.frame(pos); err != nil {
			return nil, err
		}
	}
	if w.data != meta.DataSize {
		return nil, broken(w.end, "its data frames have %d bytes, not the %d announced", w.data, meta.DataSize)
	}
	return w.index, nil
}

// windowSize is how much is read at once while walking. Payloads between two headers are mostly far longer.
const windowSize = 4 << 10

type walker struct {
	r    io.ReaderAt
	size int64
	// end is the offset at which the stop frame ends.
	end     int64
	meta    Meta
	index   *Index
	trailer *trailer

	window []byte
	at     int64
	buffer [windowSize]byte

	// disk is the offset on the disk behind the last frame, data the sum of the lengths of data frames.
	disk, data int64
}

// checkEnd looks at the file's last frame, which shows most truncations at once.
func (w *walker) checkEnd() error {
	if w.size < w.meta.First+HeaderSize {
		return broken(w.size, "the file ends without a stop frame")
	}
	at := w.size - HeaderSize
	b, err := w.bytes(at, HeaderSize)
	if err != nil {
		return err
	}
	last, ok := parseHeader(b)
	switch {
	case w.meta.Compressed && ok && last.kind == kindComp:
		if w.trailer, err = openTrailer(w.r, w.size, last); err != nil {
			return err
		}
		if w.end = w.trailer.start; w.end < w.meta.First+HeaderSize {
			return broken(at, "its list of compressed sizes leaves no room for frames")
		}
		w.index.stored = []int64{}
	case w.meta.Compressed:
		return broken(at, "the file ends without its list of compressed sizes")
	case !ok || last.kind != kindStop:
		return broken(at, "the file ends without a stop frame")
	}
	return nil
}

// frame takes the frame at pos and returns where the next one is, or -1 behind the stop frame.
func (w *walker) frame(pos int64) (int64, error) {
	if w.end-pos < HeaderSize {
		return 0, broken(pos, "no room for a frame before the end")
	}
	b, err := w.bytes(pos, HeaderSize)
	if err != nil {
		return 0, err
	}
	h, ok := parseHeader(b)
	if !ok {
		return 0, broken(pos, "no frame where one should be")
	}
	switch h.kind {
	case kindStop:
		return -1, w.stop(pos)
	case kindData, kindZero:
		if h.start < w.disk || h.start+h.length > w.meta.VirtualSize {
			return 0, broken(pos, "a frame for %d bytes at %d of the disk overlaps another or leaves the disk", h.length, h.start)
		}
		w.disk = h.start + h.length
		if h.kind == kindData {
			return w.dataFrame(pos, h)
		}
		if h.length == 0 {
			return pos + HeaderSize, nil
		}
		return pos + HeaderSize, w.index.add(Extent{Offset: h.start, Length: h.length, Position: zeroPosition})
	}
	return 0, broken(pos, "a frame of a kind that does not belong here")
}

// dataFrame records the content of a data frame, and checks that its payload ends as it says.
func (w *walker) dataFrame(pos int64, h header) (int64, error) {
	payload, stored := pos+HeaderSize, h.length
	var parts []int64
	if w.trailer != nil {
		var err error
		stored, parts, err = w.trailer.next(ExtentLimit - w.index.Len())
		if errors.Is(err, io.EOF) {
			return 0, broken(pos, "more data frames than compressed sizes")
		}
		if err != nil {
			return 0, err
		}
	}
	if stored > w.end-payload-int64(len(lineEnd)) {
		return 0, broken(pos, "a data frame of %d bytes reaches beyond the end", stored)
	}
	next := payload + stored + int64(len(lineEnd))
	b, err := w.bytes(next-int64(len(lineEnd)), len(lineEnd))
	if err != nil {
		return 0, err
	}
	if string(b) != lineEnd {
		return 0, broken(next-int64(len(lineEnd)), "a data frame does not end where it says")
	}
	w.data += h.length
	switch {
	case h.length == 0:
	case len(parts) > 1:
		err = w.addParts(payload, h, parts)
	case w.trailer != nil:
		err = w.index.add(Extent{Offset: h.start, Length: h.length, Position: payload, Stored: stored})
	default:
		err = w.index.add(Extent{Offset: h.start, Length: h.length, Position: payload})
	}
	return next, err
}

// addParts records each of a payload's lz4 frames by the content size in its descriptor. Where one of them has none,
// all are taken together: they can still be decoded one after the other, only not entered in the middle.
func (w *walker) addParts(payload int64, h header, parts []int64) error {
	var sum int64
	sizes := make([]int64, 0, len(parts))
	position := payload
	for _, stored := range parts {
		var b [14]byte
		if n, err := w.r.ReadAt(b[:min(int64(len(b)), stored)], position); int64(n) < min(int64(len(b)), stored) {
			return shortRead(position, err)
		}
		position += stored
		if binary.LittleEndian.Uint32(b[:]) != lz4Magic {
			return broken(position-stored, "no lz4 frame where one should be")
		}
		if b[4]&lz4HasSize == 0 {
			return w.index.add(Extent{Offset: h.start, Length: h.length, Position: payload, Stored: sumOf(parts)})
		}
		size := binary.LittleEndian.Uint64(b[6:])
		if size > uint64(h.length-sum) {
			return broken(position-stored, "lz4 frames with more content than the %d bytes of their data frame", h.length)
		}
		sum += int64(size)
		sizes = append(sizes, int64(size))
	}
	if sum != h.length {
		return broken(payload, "lz4 frames with %d bytes of content in a data frame of %d", sum, h.length)
	}
	offset, position := h.start, payload
	for i, size := range sizes {
		if size > 0 {
			if err := w.index.add(Extent{Offset: offset, Length: size, Position: position, Stored: parts[i]}); err != nil {
				return err
			}
		}
		offset, position = offset+size, position+parts[i]
	}
	return nil
}

func sumOf(parts []int64) int64 {
	var sum int64
	for _, part := range parts {
		sum += part
	}
	return sum
}

// stop checks that the stop frame is the last, and that no compressed size is left over.
func (w *walker) stop(pos int64) error {
	if pos+HeaderSize != w.end {
		return broken(pos, "a stop frame with %d bytes behind it", w.end-pos-HeaderSize)
	}
	if w.trailer != nil {
		switch _, _, err := w.trailer.next(ExtentLimit); {
		case err == nil:
			return broken(pos, "fewer data frames than compressed sizes")
		case !errors.Is(err, io.EOF):
			return err
		}
	}
	return nil
}

// bytes returns n bytes at pos, which stay valid until the next call.
func (w *walker) bytes(pos int64, n int) ([]byte, error) {
	if pos < w.at || pos+int64(n) > w.at+int64(len(w.window)) {
		length := min(int64(windowSize), w.size-pos)
		got, err := w.r.ReadAt(w.buffer[:length], pos)
		w.at, w.window = pos, w.buffer[:got]
		if got < n {
			return nil, shortRead(pos, err)
		}
	}
	return w.window[pos-w.at:][:n], nil
}
