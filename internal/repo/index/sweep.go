package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ferry/internal/repo/format"
)

// Sweep reads a segment front to back, however large it is, and visits its entries in order. It returns the checksum that
// the segment ends with, proven. What was visited before an error means nothing. Errors of content wrap format.ErrCorrupt.
func Sweep(r io.ReaderAt, size int64, hasher *format.Hasher, visit func(Entry) error) (format.ID, error) {
	var sum format.ID
	hash := hasher.Stream(format.ContextIndex)
	in := bufio.NewReaderSize(io.TeeReader(io.NewSectionReader(r, 0, size-checksumSize), hash), 1<<20)
	header := make([]byte, headerSize)
	if err := filled(in, header); err != nil {
		return sum, err
	}
	if err := format.CheckPrelude(header, format.MagicIndex); err != nil {
		return sum, err
	}
	count, packCount := binary.LittleEndian.Uint64(header[24:]), uint64(binary.LittleEndian.Uint32(header[20:]))
	if limit := uint64(size); count > limit/entrySize || packCount > limit/packSize {
		return sum, fmt.Errorf("%w: index segment with impossible counts", format.ErrCorrupt)
	}
	packs := make([]format.Name, packCount)
	for i := range packs {
		if err := filled(in, packs[i][:]); err != nil {
			return sum, err
		}
	}
	raw := make([]byte, entrySize)
	for range count {
		if err := filled(in, raw); err != nil {
			return sum, err
		}
		number := binary.LittleEndian.Uint32(raw[32:])
		if uint64(number) >= packCount {
			return sum, fmt.Errorf("%w: index entry of pack number %d", format.ErrCorrupt, number)
		}
		err := visit(Entry{ID: format.ID(raw[:32]), Place: Place{
			Pack: packs[number], Offset: binary.LittleEndian.Uint32(raw[36:]), Stored: binary.LittleEndian.Uint32(raw[40:]), Plain: binary.LittleEndian.Uint32(raw[44:]),
		}})
		if err != nil {
			return sum, err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // fences and filter
		return sum, err
	}
	if n, err := r.ReadAt(sum[:], size-checksumSize); n < len(sum) {
		return sum, short(err)
	}
	if format.ID(hash.Sum(nil)) != sum {
		return sum, fmt.Errorf("%w: index segment checksum differs", format.ErrCorrupt)
	}
	return sum, nil
}

func filled(in io.Reader, p []byte) error {
	_, err := io.ReadFull(in, p)
	return short(err)
}

// short says that a file which ends too soon is corrupt.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: index segment ends too soon", format.ErrCorrupt)
	}
	return err
}
