package vzdump

import (
	"bytes"
	"fmt"
	"math"

	"ferry/internal/backup"
)

const (
	tarBlock = 512
	// tarEnd is how many blocks of zeros, where a header would be, close an archive.
	tarEnd = 2
)

// Fields of a tar header, by offset in bytes, and the flag at which a continuation of an old sparse header says that
// there is another one.
const (
	tarSize       = 124 // 12 bytes
	tarChecksum   = 148 // 8 bytes
	tarType       = 156
	tarSparseMore = 482
	tarContinued  = 504
)

// tarWalk follows a tar archive from header to header while it streams by, so that one which was cut off is found
// without compression too: zeros that happen to be at the cut are a member's data then, not the archive's end. It keeps
// a block and looks at no more than headers; the archive's content stays its own.
type tarWalk struct {
	// offset of the next byte in the archive.
	offset int64
	block  [tarBlock]byte
	filled int
	// records are the bytes of an extended header that are still to come, and after them skip those of a member's data,
	// or of padding. In both cases a header, or part of one, follows.
	records, skip int64
	// continued is true if blocks with more of an old sparse header come first.
	continued bool
	pax       paxRecords
	// zeros counts the blocks of zeros where a header was due.
	zeros int
}

// write takes the archive's next bytes, any number. Its errors wrap backup.ErrBroken.
func (w *tarWalk) write(p []byte) error {
	for len(p) > 0 {
		n := 0
		switch {
		case w.records > 0:
			n = int(min(int64(len(p)), w.records))
			w.pax.write(p[:n])
			w.records -= int64(n)
		case w.skip > 0 && !w.continued:
			n = int(min(int64(len(p)), w.skip))
			w.skip -= int64(n)
		default:
			n = copy(w.block[w.filled:], p)
			w.filled += n
			if w.filled == tarBlock {
				w.filled = 0
				if err := w.header(); err != nil {
					w.offset += int64(n - tarBlock) // where the header begins
					return err
				}
			}
		}
		w.offset += int64(n)
		p = p[n:]
	}
	return nil
}

// finish says whether the archive was whole.
func (w *tarWalk) finish() error {
	switch {
	case w.records > 0 || w.skip > 0 || w.continued:
		return fmt.Errorf("%w: the tar archive is cut off inside a member", backup.ErrBroken)
	case w.filled > 0 || w.zeros < tarEnd:
		return fmt.Errorf("%w: the tar archive is cut off: it lacks the blocks of zeros at its end", backup.ErrBroken)
	}
	return nil
}

// zeroBlock is what closes an archive.
var zeroBlock [tarBlock]byte

// header looks at a block where a header is due.
func (w *tarWalk) header() error {
	block := w.block[:]
	if w.continued {
		w.continued = block[tarContinued] != 0
		return nil
	}
	if block[0] == 0 && bytes.Equal(block, zeroBlock[:]) {
		w.zeros++
		return nil
	}
	switch {
	case w.zeros >= tarEnd:
		return fmt.Errorf("%w: something follows the end of the tar archive", backup.ErrBroken)
	case w.zeros > 0:
		return fmt.Errorf("%w: a member follows a block of zeros in the tar archive", backup.ErrBroken)
	case !isTarHeader(block):
		return fmt.Errorf("%w: there is no tar header where one is due", backup.ErrBroken)
	}
	size, ok := tarNumber(block[tarSize : tarSize+12])
	if !ok {
		return fmt.Errorf("%w: a tar header with a size that is none", backup.ErrBroken)
	}
	switch kind := block[tarType]; kind {
	case 'x', 'X':
		w.pax, w.records = paxRecords{}, size
	case 'g', 'L', 'K', 'N':
		// These describe the next member too, but not its size.
	default:
		if w.pax.seen {
			size = w.pax.size
		}
		w.pax = paxRecords{}
		if kind >= '1' && kind <= '6' {
			// Links, devices, folders and pipes have no data, whatever they state as size.
			size = 0
		}
		w.continued = kind == 'S' && block[tarSparseMore] != 0
	}
	if size > math.MaxInt64-tarBlock {
		return fmt.Errorf("%w: a tar member of %d bytes", backup.ErrBroken, size)
	}
	padding := -size & (tarBlock - 1)
	w.skip = size - w.records + padding
	return nil
}

// isTarHeader checks the sum that every tar header has: over its bytes, with the sum itself taken as spaces. Some old
// programs took bytes as signed.
func isTarHeader(header []byte) bool {
	want, ok := tarNumber(header[tarChecksum : tarChecksum+8])
	if !ok {
		return false
	}
	sum, signed := int64(8*' '), int64(8*' ')
	for i, b := range header[:tarBlock] {
		if i < tarChecksum || i >= tarChecksum+8 {
			sum += int64(b)
			signed += int64(int8(b))
		}
	}
	return sum == want || signed == want
}

// tarNumber reads a header's number: octal digits between spaces and NULs, or with its first bit set big endian.
func tarNumber(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		number := int64(field[0] & 0x7f)
		for _, b := range field[1:] {
			if number > math.MaxInt64>>8 {
				return 0, false
			}
			number = number<<8 | int64(b)
		}
		return number, true
	}
	number := int64(0)
	digits := bytes.Trim(field, " \x00")
	for _, b := range digits {
		if b < '0' || b > '7' {
			return 0, false
		}
		number = number<<3 | int64(b-'0')
	}
	return number, true
}
