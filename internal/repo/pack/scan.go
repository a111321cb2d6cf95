package pack

import (
	"bytes"
	"io"
	"slices"

	"ferry/internal/repo/format"
)

// Scan rebuilds a pack's entries from its frames alone, for a pack whose table is lost. It goes on behind what is no good
// frame: where that frame says it ends, or at the next place that looks like a frame and is one.
func Scan(r io.ReaderAt, size int64, hasher *format.Hasher) []Entry {
	s := &scanner{in: r, size: min(size, maxSize), hasher: hasher, budget: scanFactor*size + 1<<20}
	var entries []Entry
	for offset := int64(headerSize); offset >= 0 && s.budget > 0; {
		f, length, ok := s.frame(offset)
		if !ok {
			offset = s.next(offset, length)
			continue
		}
		entries = append(entries, Entry{ID: f.ID, Offset: uint32(offset), Stored: f.Stored, Plain: f.Plain, Kind: f.Kind, Codec: f.Codec, Sum: f.Sum})
		offset += length
	}
	return entries
}

// scanFactor is how many times its size a pack is read at most: in one made to be scanned, everything looks like a frame.
const scanFactor = 8

type scanner struct {
	in     io.ReaderAt
	size   int64
	hasher *format.Hasher
	buffer []byte
	// budget is how many bytes may still be read.
	budget int64
}

// read returns n bytes from offset, or fewer at the end.
func (s *scanner) read(offset, n int64) []byte {
	n = min(n, s.size-offset)
	if n <= 0 {
		return nil
	}
	s.buffer = slices.Grow(s.buffer[:0], int(n))[:n]
	got, _ := s.in.ReadAt(s.buffer, offset) // what cannot be read is not found
	s.budget -= n
	return s.buffer[:got]
}

// frame checks the frame at an offset. length is what its header says, 0 if it is no header.
func (s *scanner) frame(offset int64) (f Frame, length int64, ok bool) {
	f, err := ParseFrame(s.read(offset, FrameHeaderSize))
	if err != nil {
		return f, 0, false
	}
	length = int64(f.Size())
	_, err = CheckFrame(s.read(offset, length), s.hasher)
	return f, length, err == nil
}

// next finds the next good frame behind an offset, or returns -1. A header that could be read is trusted first.
func (s *scanner) next(offset, length int64) int64 {
	if length > 0 {
		if _, _, ok := s.frame(offset + length); ok {
			return offset + length
		}
	}
	const window = 64 << 10
	for at := offset + 1; at < s.size && s.budget > 0; {
		piece := s.read(at, window)
		i := bytes.Index(piece, []byte(frameMagic))
		if i < 0 {
			at += max(int64(len(piece))-int64(len(frameMagic))+1, 1)
			continue
		}
		at += int64(i)
		if _, _, ok := s.frame(at); ok {
			return at
		}
		at++
	}
	return -1
}
