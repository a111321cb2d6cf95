package qcow2

import (
	"context"
	"math"
)

// Kind says what an image itself knows of a range of its disk.
type Kind uint8

// The kinds of runs.
const (
	// Data is stored in the image.
	Data Kind = iota
	// Zero reads as zeros, whatever the backing has.
	Zero
	// Unallocated shows the backing file; zeros if there is none.
	Unallocated
)

// Run is a range of the disk, in bytes.
type Run struct {
	Offset, Length int64
	Kind           Kind
}

// End returns the offset behind the run.
func (r Run) End() int64 { return r.Offset + r.Length }

// HoleFinder may be implemented by the reader that an image is opened with, to tell holes of the file from data:
// clusters that were allocated in advance and never written lie in holes.
type HoleFinder interface {
	// NextData returns the first range with data in [from, to) of the file; start = end = to if there is none.
	NextData(from, to int64) (start, end int64, err error)
}

// Extents yields the whole disk as runs that ascend without gaps; neighbours differ in kind. It ends early, without
// error, when yield returns false. Nothing of the backing file is read.
func (i *Image) Extents(ctx context.Context, yield func(Run) bool) error {
	return i.ExtentsIn(ctx, 0, i.size, yield)
}

// ExtentsIn is Extents for the part [from, to) of the disk, which is cut to the disk's size.
func (i *Image) ExtentsIn(ctx context.Context, from, to int64, yield func(Run) bool) error {
	walk := runs{yield: yield}
	holes, _ := i.file.reader.(HoleFinder)
	to = min(to, i.size)
	for offset := from; offset < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := i.locate(offset, to-offset)
		if err != nil {
			return err
		}
		more := true
		switch m.kind {
		case mappedNothing:
			more = walk.add(m.length, offset, Unallocated)
		case mappedZero:
			more = walk.add(m.length, offset, Zero)
		case mappedCompressed:
			more = walk.add(m.length, offset, Data)
		case mappedData:
			more, err = walk.data(m, offset, holes)
		}
		if err != nil || !more {
			return err
		}
		offset += m.length
	}
	walk.flush()
	return nil
}

// runs joins neighbouring ranges of one kind.
type runs struct {
	yield   func(Run) bool
	pending Run
	// asked is where the file was last asked for data, which it has from dataStart to dataEnd.
	asked, dataStart, dataEnd int64
}

func (w *runs) add(length, offset int64, kind Kind) bool {
	if w.pending.Length > 0 && w.pending.Kind == kind {
		w.pending.Length += length
		return true
	}
	more := w.flush()
	w.pending = Run{Offset: offset, Length: length, Kind: kind}
	return more
}

func (w *runs) flush() bool { return w.pending.Length == 0 || w.yield(w.pending) }

// data adds a range of the file, its holes as zeros.
func (w *runs) data(m mapping, offset int64, holes HoleFinder) (bool, error) {
	if holes == nil {
		return w.add(m.length, offset, Data), nil
	}
	for at, end := m.host, m.host+m.length; at < end; {
		if at < w.asked || at >= w.dataEnd {
			start, stop, err := holes.NextData(at, math.MaxInt64)
			if err != nil {
				return false, err
			}
			w.asked, w.dataStart, w.dataEnd = at, start, stop
		}
		step, kind := min(w.dataEnd, end), Data
		if at < w.dataStart {
			step, kind = min(w.dataStart, end), Zero
		}
		if step <= at {
			step, kind = end, Zero
		}
		if !w.add(step-at, offset+at-m.host, kind) {
			return false, nil
		}
		at = step
	}
	return true, nil
}
