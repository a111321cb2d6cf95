package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"ferry/internal/repo/format"
)

const (
	headerSize  = 64
	entrySize   = 64
	trailerSize = 64
	endMagic    = "FerryEnd"
	// maxSize keeps offsets in 32 bits.
	maxSize = math.MaxUint32
)

// FirstFrame is the offset of a pack's first frame, in bytes.
const FirstFrame = headerSize

// TableSize is what the table of so many frames and the trailer behind it take, in bytes.
func TableSize(frames int) int64 { return entrySize*int64(frames) + trailerSize }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is a pack's header.
type Header struct {
	Kind   Kind
	Hash   format.Hash
	ID     format.Name
	Domain format.Name
	// Generation of the key that new frames are encrypted with; 0: none of the pack's frames is encrypted.
	Generation uint32
}

// Entry is one line of a pack's table.
type Entry struct {
	ID format.ID
	// Offset of the frame's header in the pack, in bytes.
	Offset uint32
	Stored uint32
	Plain  uint32
	Kind   Kind
	Codec  Codec
	Sum    Checksum
}

// FrameSize is the size of the entry's frame with its header, in bytes.
func (e Entry) FrameSize() int { return FrameHeaderSize + int(e.Stored) }

// Overhead is what a pack of so many frames takes besides them, in bytes.
func Overhead(frames int) int64 { return headerSize + trailerSize + int64(frames)*entrySize }

// ObjectName returns the name of a pack in its repository.
func ObjectName(id format.Name) string {
	text := id.String()
	return "packs/" + text[:2] + "/" + text
}

// Writer writes one pack. It belongs to one goroutine.
type Writer struct {
	out    io.Writer
	hasher *format.Hasher
	// encrypted is true if frames may be.
	encrypted bool
	header    []byte
	table     []byte
	offset    int64
	frames    int
	plain     int64
}

// NewWriter writes a pack's header to out.
func NewWriter(out io.Writer, hasher *format.Hasher, header Header) (*Writer, error) {
	bytes := format.AppendPrelude(make([]byte, 0, headerSize), format.MagicPack)
	if header.Generation != 0 {
		format.MarkEncrypted(bytes)
	}
	bytes = append(bytes, byte(header.Kind), byte(header.Hash), 0, 0)
	bytes = append(bytes, header.ID[:]...)
	bytes = append(bytes, header.Domain[:]...)
	bytes = binary.LittleEndian.AppendUint32(bytes, header.Generation)
	bytes = binary.LittleEndian.AppendUint32(bytes, crc32.Checksum(bytes, castagnoli))
	if _, err := out.Write(bytes); err != nil {
		return nil, err
	}
	return &Writer{out: out, hasher: hasher, encrypted: header.Generation != 0, header: bytes, offset: headerSize}, nil
}

// Append writes a frame that AppendFrame made and returns its entry.
func (w *Writer) Append(frame []byte) (Entry, error) {
	f, err := ParseFrame(frame)
	if err != nil {
		return Entry{}, err
	}
	if f.Generation != 0 && !w.encrypted {
		return Entry{}, errors.New("an encrypted frame for a pack that is not encrypted")
	}
	entry := Entry{ID: f.ID, Offset: uint32(w.offset), Stored: f.Stored, Plain: f.Plain, Kind: f.Kind, Codec: f.Codec, Sum: f.Sum}
	after := w.offset + int64(len(frame))
	if after+int64(len(w.table))+entrySize+trailerSize > maxSize {
		return Entry{}, fmt.Errorf("pack would exceed %d bytes", int64(maxSize))
	}
	if _, err := w.out.Write(frame); err != nil {
		return Entry{}, err
	}
	w.table = appendEntry(w.table, entry)
	w.offset = after
	w.frames++
	w.plain += int64(f.Plain)
	return entry, nil
}

// Size is what has been written so far, in bytes.
func (w *Writer) Size() int64 { return w.offset }

// Plain is the length of all frames' content before compression, in bytes.
func (w *Writer) Plain() int64 { return w.plain }

// Frames counts the frames written so far.
func (w *Writer) Frames() int { return w.frames }

// Finish writes table and trailer, and returns the pack's root and size. Publishing the file is the caller's.
func (w *Writer) Finish() (root format.ID, size int64, err error) {
	root = w.hasher.Sum(format.ContextPack, w.header, w.table)
	tail := append(make([]byte, 0, len(w.table)+trailerSize), w.table...)
	tail = append(tail, endMagic...)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(w.frames))
	tail = append(tail, 0, 0, 0, 0)
	tail = binary.LittleEndian.AppendUint64(tail, uint64(w.offset))
	tail = append(tail, 0, 0, 0, 0, 0, 0, 0, 0)
	tail = append(tail, root[:]...)
	_, err = w.out.Write(tail)
	return root, w.offset + int64(len(tail)), err
}

func appendEntry(dst []byte, e Entry) []byte {
	dst = append(dst, e.ID[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, e.Offset)
	dst = binary.LittleEndian.AppendUint32(dst, e.Stored)
	dst = binary.LittleEndian.AppendUint32(dst, e.Plain)
	dst = append(dst, byte(e.Kind), byte(e.Codec), 0, 0)
	return append(dst, e.Sum[:]...)
}

func parseEntry(raw []byte) Entry {
	e := Entry{
		ID: format.ID(raw[:32]), Offset: binary.LittleEndian.Uint32(raw[32:]), Stored: binary.LittleEndian.Uint32(raw[36:]),
		Plain: binary.LittleEndian.Uint32(raw[40:]), Kind: Kind(raw[44]), Codec: Codec(raw[45]),
	}
	copy(e.Sum[:], raw[48:])
	return e
}

// Table is what a pack says about itself, proven by its root.
type Table struct {
	Header  Header
	Entries []Entry
	Root    format.ID
}

// ReadTable reads a pack's header, table and trailer and checks that the root covers them and that the frames lie back
// to back. Comparing the root with the log is the caller's. Errors wrap format.ErrCorrupt.
func ReadTable(r io.ReaderAt, size int64, hasher *format.Hasher) (Table, error) {
	var t Table
	if size < headerSize+trailerSize || size > maxSize {
		return t, fmt.Errorf("%w: a pack of %d bytes", format.ErrCorrupt, size)
	}
	header := make([]byte, headerSize)
	if err := readFull(r, header, 0); err != nil {
		return t, err
	}
	var err error
	if t.Header, err = parseHeader(header, hasher); err != nil {
		return t, err
	}
	trailer := make([]byte, trailerSize)
	if err := readFull(r, trailer, size-trailerSize); err != nil {
		return t, err
	}
	frames := int64(binary.LittleEndian.Uint32(trailer[8:]))
	tableOffset := binary.LittleEndian.Uint64(trailer[16:])
	if anySet(trailer[12:16]) || anySet(trailer[24:32]) {
		return t, fmt.Errorf("%w: pack trailer has reserved bytes set", format.ErrCorrupt)
	}
	if string(trailer[:8]) != endMagic || frames > (size-headerSize-trailerSize)/entrySize || tableOffset != uint64(size-trailerSize-frames*entrySize) {
		return t, fmt.Errorf("%w: pack has no trailer", format.ErrCorrupt)
	}
	table := make([]byte, frames*entrySize)
	if err := readFull(r, table, int64(tableOffset)); err != nil {
		return t, err
	}
	t.Root = hasher.Sum(format.ContextPack, header, table)
	if t.Root != format.ID(trailer[32:]) {
		return t, fmt.Errorf("%w: pack root differs from header and table", format.ErrCorrupt)
	}
	t.Entries = make([]Entry, frames)
	next := int64(headerSize)
	for i := range t.Entries {
		raw := table[i*entrySize:]
		e := parseEntry(raw)
		if int64(e.Offset) != next || e.Kind != t.Header.Kind || anySet(raw[46:48]) {
			return t, fmt.Errorf("%w: pack table entry %d is out of place", format.ErrCorrupt, i)
		}
		next += int64(e.FrameSize())
		t.Entries[i] = e
	}
	if next != int64(tableOffset) {
		return t, fmt.Errorf("%w: pack has bytes that no frame covers", format.ErrCorrupt)
	}
	return t, nil
}

func parseHeader(raw []byte, hasher *format.Hasher) (Header, error) {
	if err := format.CheckPrelude(raw, format.MagicPack); err != nil {
		return Header{}, err
	}
	h := Header{Kind: Kind(raw[20]), Hash: format.Hash(raw[21]), ID: format.Name(raw[24:40]), Domain: format.Name(raw[40:56]), Generation: binary.LittleEndian.Uint32(raw[56:])}
	switch {
	case crc32.Checksum(raw[:60], castagnoli) != binary.LittleEndian.Uint32(raw[60:]):
		return h, fmt.Errorf("%w: pack header checksum differs", format.ErrCorrupt)
	case format.IsEncrypted(raw) != (h.Generation != 0) || (h.Generation != 0 && h.Kind == KindNode):
		return h, fmt.Errorf("%w: pack of %s encrypted with key generation %d", format.ErrCorrupt, h.Kind, h.Generation)
	case anySet(raw[22:24]):
		return h, fmt.Errorf("%w: pack header has reserved bytes set", format.ErrCorrupt)
	case h.Kind != KindBlock && h.Kind != KindNode:
		return h, fmt.Errorf("%w: pack of %s", format.ErrNewer, h.Kind)
	case h.Hash != hasher.Algorithm():
		return h, fmt.Errorf("%w: pack made with %s in a repository of %s", format.ErrCorrupt, h.Hash, hasher.Algorithm())
	}
	return h, nil
}

func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("%w: ends at byte %d", format.ErrCorrupt, offset+int64(n))
	}
	return err
}

// Check reads a whole pack and checks every byte of it: table, root and each frame's checksum. For each frame that is
// good, visit is called with its entry and bytes, valid until it returns; for each that is not, damaged. Errors are
// of the pack as a whole. It needs no key.
func Check(r io.ReaderAt, size int64, hasher *format.Hasher, visit func(Entry, []byte) error, damaged func(Entry, error)) (Table, error) {
	return eachFrame(r, size, hasher, func(entry Entry, frame []byte) error {
		if err := CheckEntry(frame, entry, hasher); err != nil {
			damaged(entry, err)
			return nil
		}
		return visit(entry, frame)
	}, damaged)
}

// CheckEntry checks that a frame's stored bytes are what the entry of a table says. It needs no key.
func CheckEntry(frame []byte, entry Entry, hasher *format.Hasher) error {
	f, err := CheckFrame(frame, hasher)
	if err == nil {
		err = matchEntry(f, entry)
	}
	return err
}

// CheckContent is Check for a holder of the key, which hands over each good frame's plain content, valid until visit
// returns. Where a frame is encrypted its seal proves it, and its checksum is not computed.
func CheckContent(r io.ReaderAt, size int64, hasher *format.Hasher, opener *Opener, visit func(Entry, []byte) error, damaged func(Entry, error)) (Table, error) {
	var plain []byte
	return eachFrame(r, size, hasher, func(entry Entry, frame []byte) error {
		var err error
		if plain, err = ProveFrame(plain[:0], frame, entry, hasher, opener); err != nil {
			damaged(entry, err)
			return nil
		}
		return visit(entry, plain)
	}, damaged)
}

// ProveFrame appends the plain content of the frame of a table's entry to dst. An encrypted frame is proven by its seal,
// any other by its checksum, and both by the entry. Comparing the content with its id is the caller's.
func ProveFrame(dst, frame []byte, entry Entry, hasher *format.Hasher, opener *Opener) ([]byte, error) {
	f, err := ParseFrame(frame)
	if err == nil {
		err = matchEntry(f, entry)
	}
	if err == nil && f.Generation == 0 {
		_, err = CheckFrame(frame, hasher)
	}
	if err != nil {
		return dst, err
	}
	_, dst, err = DecodeFrame(dst, frame, opener)
	return dst, err
}

// eachFrame reads a whole pack and hands over the frames of its table, unchecked, valid until visit returns. Those that
// cannot be read are damaged.
func eachFrame(r io.ReaderAt, size int64, hasher *format.Hasher, visit func(Entry, []byte) error, damaged func(Entry, error)) (Table, error) {
	table, err := ReadTable(r, size, hasher)
	if err != nil {
		return table, err
	}
	var buffer []byte
	for _, entry := range table.Entries {
		length := min(entry.FrameSize(), MaxFrame)
		buffer = slices.Grow(buffer[:0], length)
		frame := buffer[:length]
		if err := readFull(r, frame, int64(entry.Offset)); err != nil {
			damaged(entry, err)
			continue
		}
		if err := visit(entry, frame); err != nil {
			return table, err
		}
	}
	return table, nil
}

// matchEntry checks that a frame's header says what the table says.
func matchEntry(f Frame, entry Entry) error {
	if f.ID != entry.ID || f.Sum != entry.Sum || f.Plain != entry.Plain || f.Stored != entry.Stored || f.Kind != entry.Kind || f.Codec != entry.Codec {
		return fmt.Errorf("%w: frame differs from the pack's table", format.ErrCorrupt)
	}
	return nil
}
