// Package lzop reads the file format of the lzop program, one of those in which Proxmox's vzdump compresses backups.
//
// An lzop file is a header and blocks, each with its lengths and checksums; the blocks are LZO1X data. The container
// is read here, the blocks are decoded by github.com/anchore/go-lzo. There is no writer.
//
// Files are hostile input: memory is bounded by [MaxBlockSize] whatever a file says, and grows only with what it has.
package lzop

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"io"
	"slices"

	"github.com/anchore/go-lzo"

	"ferry/internal/backup"
)

// MaxBlockSize in bytes of one block, before and after decompression. The program itself writes 256 KiB and allows 64 MiB.
const MaxBlockSize = 64 << 20

// UsualBlockSize is more than the blocks of any lzop have, 256 KiB, in bytes.
const UsualBlockSize = 4 << 20

const magic = "\x89LZO\x00\r\n\x1a\n"

// Flags of the header.
const (
	flagAdlerData   = 0x1
	flagAdlerStored = 0x2
	flagExtraField  = 0x40
	flagCRCData     = 0x100
	flagCRCStored   = 0x200
	flagMultipart   = 0x400
	flagFilter      = 0x800
	flagHeaderCRC   = 0x1000
)

const (
	// extendedVersion is the first version with a level, a version needed and a second half of the time.
	extendedVersion = 0x0940
	// Methods 1 to 3 are made by different compressors and all read as LZO1X.
	lastLZO1X = 3
	// expansion is more than one byte of LZO1X can make: a length byte of zero adds 255.
	expansion = 256
	// chunk is how much memory is taken at a time for data that a length only promises.
	chunk = 1 << 20
)

// Reader decompresses one lzop file. It is used by one goroutine.
//
// Errors wrap backup.ErrBroken if the file is cut short, damaged or goes on after its end, and
// backup.ErrUnsupported if it uses features that are not read; errors of the underlying reader are passed on.
type Reader struct {
	in       *bufio.Reader
	position int64 // of the next byte of the file
	flags    uint32
	stored   []byte // a block as the file has it
	block    []byte // a block's data
	rest     []byte // what of block was not handed out yet
	failed   error
	// Admit, if set, is called once before a block larger than UsualBlockSize is read. Its error ends reading.
	Admit func() error
}

// NewReader reads the header.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10)}
	if err := r.readHeader(); err != nil {
		return nil, err
	}
	return r, nil
}

// Checked is true if the file has checksums of all its uncompressed data. They are always checked.
func (r *Reader) Checked() bool { return r.flags&(flagAdlerData|flagCRCData) != 0 }

// Read hands out decompressed data. io.EOF comes after the end mark, if that is the end of the file.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.failed == nil {
			r.failed = r.nextBlock()
		}
		if r.failed != nil {
			return 0, r.failed
		}
		r.rest = r.block
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// headerFields reads numbers and remembers their bytes, which the header's checksum covers.
type headerFields struct {
	r    *Reader
	read []byte
	err  error
}

func (h *headerFields) next(n int) []byte {
	start := len(h.read)
	h.read = append(h.read, make([]byte, n)...)
	if h.err == nil {
		h.err = h.r.fill(h.read[start:])
	}
	return h.read[start:]
}

func (h *headerFields) u8() uint8   { return h.next(1)[0] }
func (h *headerFields) u16() uint16 { return binary.BigEndian.Uint16(h.next(2)) }
func (h *headerFields) u32() uint32 { return binary.BigEndian.Uint32(h.next(4)) }

func (r *Reader) readHeader() error {
	var start [len(magic)]byte
	if err := r.fill(start[:]); err != nil {
		return err
	}
	if string(start[:]) != magic {
		return r.broken("the file does not begin with the lzop magic")
	}
	h := &headerFields{r: r}
	version := h.u16()
	h.u16() // version of the library
	extended := version >= extendedVersion
	if extended {
		h.u16() // version needed to read the file
	}
	method := h.u8()
	if extended {
		h.u8() // level
	}
	r.flags = h.u32()
	if r.flags&flagFilter != 0 {
		h.u32()
	}
	h.next(4) // mode
	h.next(4) // time of change, low half
	if extended {
		h.next(4)
	}
	h.next(int(h.u8())) // name of the file
	covered := h.read
	stored := h.u32()
	if h.err != nil {
		return h.err
	}
	computed := adler32.Checksum(covered)
	if r.flags&flagHeaderCRC != 0 {
		computed = crc32.ChecksumIEEE(covered)
	}
	switch {
	case stored != computed:
		return r.broken("the header's checksum is wrong")
	case method == 0 || method > lastLZO1X:
		return unsupported("compression method %d", method)
	case r.flags&(flagFilter|flagExtraField|flagMultipart) != 0:
		return unsupported("header flags %#x", r.flags)
	}
	return nil
}

// nextBlock reads, checks and decodes one block into r.block; io.EOF after the end mark.
func (r *Reader) nextBlock() error {
	size, err := r.u32()
	if err != nil {
		return err
	}
	if size == 0 {
		return r.atEnd()
	}
	stored, err := r.u32()
	if err != nil {
		return err
	}
	switch {
	case size > MaxBlockSize:
		return r.broken("a block of %d bytes, more than %d", size, MaxBlockSize)
	case stored == 0 || stored > size:
		return r.broken("a block of %d bytes stored in %d", size, stored)
	case int64(size) > int64(stored)*expansion:
		return r.broken("a block of %d bytes cannot come from %d", size, stored)
	}
	if size > UsualBlockSize && r.Admit != nil {
		admit := r.Admit
		r.Admit = nil
		if err := admit(); err != nil {
			return err
		}
	}
	dataSums, err := r.readChecksums(flagAdlerData, flagCRCData)
	if err != nil {
		return err
	}
	storedSums := dataSums
	if stored < size {
		if storedSums, err = r.readChecksums(flagAdlerStored, flagCRCStored); err != nil {
			return err
		}
	}
	start := r.position
	if err := r.fillStored(int(stored)); err != nil {
		return err
	}
	if stored == size {
		// A block that compression would not make smaller is stored as it is.
		r.block, r.stored = r.stored, r.block
		return r.compare("block", start, r.block, dataSums)
	}
	if err := r.compare("compressed block", start, r.stored, storedSums); err != nil {
		return err
	}
	r.block = slices.Grow(r.block[:0], int(size))[:size]
	n, err := lzo.Decompress(r.stored, r.block)
	if err == nil && n != int(size) {
		err = fmt.Errorf("%d bytes instead of %d", n, size)
	}
	if err != nil {
		return fmt.Errorf("%w: lzop block at byte %d: %w", backup.ErrBroken, start, err)
	}
	return r.compare("block", start, r.block, dataSums)
}

// atEnd returns io.EOF if nothing follows.
func (r *Reader) atEnd() error {
	_, err := r.in.ReadByte()
	if err == nil {
		return r.broken("something follows the end mark")
	}
	return err
}

// checksums are those a block has; a nil one it has not.
type checksums struct {
	adler, crc       uint32
	hasAdler, hasCRC bool
}

func (r *Reader) readChecksums(adlerFlag, crcFlag uint32) (sums checksums, err error) {
	sums.hasAdler, sums.hasCRC = r.flags&adlerFlag != 0, r.flags&crcFlag != 0
	if sums.hasAdler {
		if sums.adler, err = r.u32(); err != nil {
			return sums, err
		}
	}
	if sums.hasCRC {
		sums.crc, err = r.u32()
	}
	return sums, err
}

func (r *Reader) compare(what string, start int64, data []byte, sums checksums) error {
	if sums.hasAdler && adler32.Checksum(data) != sums.adler {
		return fmt.Errorf("%w: lzop %s at byte %d: adler32 is wrong", backup.ErrBroken, what, start)
	}
	if sums.hasCRC && crc32.ChecksumIEEE(data) != sums.crc {
		return fmt.Errorf("%w: lzop %s at byte %d: CRC-32 is wrong", backup.ErrBroken, what, start)
	}
	return nil
}

// fillStored reads n bytes into r.stored, taking memory only as they come.
func (r *Reader) fillStored(n int) error {
	r.stored = r.stored[:0]
	for len(r.stored) < n {
		have := len(r.stored)
		step := min(chunk, n-have)
		r.stored = slices.Grow(r.stored, step)[:have+step]
		if err := r.fill(r.stored[have:]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) u32() (uint32, error) {
	b, err := r.in.Peek(4)
	if err != nil {
		return 0, r.cut(err)
	}
	value := binary.BigEndian.Uint32(b)
	n, err := r.in.Discard(4)
	r.position += int64(n)
	return value, err
}

func (r *Reader) fill(p []byte) error {
	n, err := io.ReadFull(r.in, p)
	r.position += int64(n)
	if err != nil {
		return r.cut(err)
	}
	return nil
}

func (r *Reader) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.broken("the file is cut off here")
	}
	return err
}

func (r *Reader) broken(format string, args ...any) error {
	return fmt.Errorf("%w: lzop, byte %d: %s", backup.ErrBroken, r.position, fmt.Sprintf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: lzop %s", backup.ErrUnsupported, fmt.Sprintf(format, args...))
}
