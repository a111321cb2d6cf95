package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/qcow2"
	"ferry/internal/source"
)

// layer is one file of a disk's chain. qcow2.Image is one, and so is rawLayer.
type layer interface {
	io.ReaderAt
	// Size of the disk as this layer has it, in bytes.
	Size() int64
	// ExtentsIn yields what the layer itself knows of [from, to), without the layers below.
	ExtentsIn(ctx context.Context, from, to int64, yield func(qcow2.Run) bool) error
}

// sparseFile is a file that can tell its holes. It implements qcow2.HoleFinder.
type sparseFile struct{ *source.File }

// NextData asks the kernel for the first data in [from, to). A file system that cannot tell has data everywhere.
func (f sparseFile) NextData(from, to int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return to, to, nil
	case err != nil:
		return from, to, nil
	case start >= to:
		return to, to, nil
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil || end > to {
		end = to
	}
	return start, end, nil
}

// rawLayer is a file whose bytes are the disk's.
type rawLayer struct {
	file sparseFile
	size int64
}

// Size in bytes, any number of them.
func (l *rawLayer) Size() int64 { return l.size }

// ReadAt reads the file. One that became shorter has changed.
func (l *rawLayer) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= l.size {
		return 0, io.EOF
	}
	short := int64(len(p)) > l.size-offset
	if short {
		p = p[:l.size-offset]
	}
	n, err := l.file.ReadAt(p, offset)
	switch {
	case n == len(p) && short:
		return n, io.EOF
	case n == len(p):
		return n, nil
	case err == nil || errors.Is(err, io.EOF):
		return n, fmt.Errorf("file ends at %d, before its %d bytes: %w", offset+int64(n), l.size, backup.ErrChanged)
	}
	return n, err
}

// ExtentsIn yields data and holes.
func (l *rawLayer) ExtentsIn(ctx context.Context, from, to int64, yield func(qcow2.Run) bool) error {
	to = min(to, l.size)
	for from < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, end, err := l.file.NextData(from, math.MaxInt64)
		if err != nil {
			return err
		}
		start, end = min(start, to), min(end, to)
		if start > from && !yield(qcow2.Run{Offset: from, Length: start - from, Kind: qcow2.Zero}) {
			return nil
		}
		if end > start && !yield(qcow2.Run{Offset: start, Length: end - start, Kind: qcow2.Data}) {
			return nil
		}
		from = end
	}
	return nil
}
