package qcow2

import (
	"fmt"
	"io"

	"ferry/internal/backup"
)

// ReadAt reads as io.ReaderAt: beyond the disk's end it returns io.EOF. Errors wrap backup.ErrBroken and name the
// offset on the disk, or are those of the file or of the backing. Ranges that lie next to each other in the file are
// read in one call.
func (i *Image) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("qcow2: offset %d is negative", offset)
	}
	if offset >= i.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > i.size-offset
	if short {
		p = p[:i.size-offset]
	}
	for done := 0; done < len(p); {
		n, err := i.readOne(p[done:], offset+int64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readOne fills a first part of p, as long as can be had in one piece, and returns its length.
func (i *Image) readOne(p []byte, offset int64) (int, error) {
	m, err := i.locate(offset, int64(len(p)))
	if err != nil {
		return 0, err
	}
	switch m.kind {
	case mappedZero:
		clear(p[:m.length])
	case mappedNothing:
		err = i.readBacking(p[:m.length], offset)
	case mappedCompressed:
		err = i.file.readCompressed(p[:m.length], offset, m)
	case mappedData:
		// Slices of small tables map little; the file may go on contiguously behind them.
		for m.length < int64(len(p)) {
			next, err := i.locate(offset+m.length, int64(len(p))-m.length)
			if err != nil || next.kind != mappedData || next.host != m.host+m.length {
				break
			}
			m.length += next.length
		}
		err = i.file.readFull(p[:m.length], m.host)
	}
	return int(m.length), err
}

// readBacking fills p from the backing, and with zeros behind the backing's end.
func (i *Image) readBacking(p []byte, offset int64) error {
	if i.backing == nil {
		if i.file.header.BackingName != "" {
			return brokenAt(offset, "the backing file %s is not there", backup.EncodeName(i.file.header.BackingName))
		}
		clear(p)
		return nil
	}
	have := min(max(i.backing.Size()-offset, 0), int64(len(p)))
	clear(p[have:])
	if have == 0 {
		return nil
	}
	n, err := i.backing.ReadAt(p[:have], offset)
	if int64(n) == have {
		return nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("qcow2: backing file ends at %d: %w", offset+int64(n), backup.ErrChanged)
	}
	return err
}
