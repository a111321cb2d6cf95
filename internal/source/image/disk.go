package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"ferry/internal/backup"
	"ferry/internal/qcow2"
)

// namedLayer puts the file's name before a layer's errors.
type namedLayer struct {
	layer
	path string
}

// fileError is an error that names its file already.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string { return backup.EncodeName(e.path) + ": " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

func (l *namedLayer) name(err error) error {
	var named *fileError
	if err == nil || err == io.EOF || errors.As(err, &named) {
		return err
	}
	return &fileError{path: l.path, err: err}
}

func (l *namedLayer) ReadAt(p []byte, offset int64) (int, error) {
	n, err := l.layer.ReadAt(p, offset)
	return n, l.name(err)
}

func (l *namedLayer) ExtentsIn(ctx context.Context, from, to int64, yield func(qcow2.Run) bool) error {
	return l.name(l.layer.ExtentsIn(ctx, from, to, yield))
}

// chainDisk is a disk made of layers, the top first. It implements source.Disk.
type chainDisk struct {
	layers []layer
	record diskRecord
}

// ReadAt reads the disk through its top layer, which asks those below.
func (d *chainDisk) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("offset %d is negative", offset)
	}
	return d.layers[0].ReadAt(p, offset)
}

// Size is the top layer's.
func (d *chainDisk) Size() int64 { return d.layers[0].Size() }

// Extents merges what the layers know. What no layer above the base's top has is unchanged.
func (d *chainDisk) Extents(ctx context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		w := &walker{ctx: ctx, layers: d.layers, base: d.baseLevel(base), yield: yield}
		err := w.walk(0, 0, d.Size())
		if err == nil {
			w.flush()
		} else if !errors.Is(err, errStopped) {
			yield(backup.Extent{}, err)
		}
	}
}

// baseLevel is the number of the layer that is the base's top, or -1 if the base proves nothing about this disk.
func (d *chainDisk) baseLevel(base *backup.Base) int {
	if base == nil {
		return -1
	}
	then, ok := parseRecord(base.Validator)
	if !ok {
		return -1
	}
	for _, disk := range then.Disks {
		level := len(d.record.Files) - len(disk.Files)
		if disk.Name != d.record.Name || level < 0 || len(disk.Files) == 0 {
			continue
		}
		for k, before := range disk.Files {
			if !before.proves(d.record.Files[level+k]) {
				return -1
			}
		}
		return level
	}
	return -1
}

// errStopped ends a walk whose consumer has enough.
var errStopped = errors.New("stopped")

// walker merges the runs of layers into extents.
type walker struct {
	ctx     context.Context
	layers  []layer
	base    int
	yield   func(backup.Extent, error) bool
	pending backup.Extent
}

// walk covers [from, to) as the layer at level shows it. Beyond a layer's own end it shows zeros.
func (w *walker) walk(level int, from, to int64) error {
	if level == len(w.layers) {
		return w.add(from, to, backup.ExtentZero)
	}
	end := max(from, min(to, w.layers[level].Size()))
	if level == w.base {
		if err := w.add(from, end, backup.ExtentUnchanged); err != nil {
			return err
		}
		return w.add(end, to, backup.ExtentZero)
	}
	var inner error
	err := w.layers[level].ExtentsIn(w.ctx, from, end, func(run qcow2.Run) bool {
		switch run.Kind {
		case qcow2.Data:
			inner = w.add(run.Offset, run.End(), backup.ExtentData)
		case qcow2.Zero:
			inner = w.add(run.Offset, run.End(), backup.ExtentZero)
		default:
			inner = w.walk(level+1, run.Offset, run.End())
		}
		return inner == nil
	})
	if inner != nil {
		return inner
	}
	if err != nil {
		return err
	}
	return w.add(end, to, backup.ExtentZero)
}

// add appends a range, joining it with its neighbour.
func (w *walker) add(from, to int64, kind backup.ExtentKind) error {
	if from >= to {
		return nil
	}
	if w.pending.Length > 0 && w.pending.Kind == kind {
		w.pending.Length += to - from
		return nil
	}
	if !w.flush() {
		return errStopped
	}
	w.pending = backup.Extent{Offset: from, Length: to - from, Kind: kind}
	return nil
}

func (w *walker) flush() bool { return w.pending.Length == 0 || w.yield(w.pending, nil) }
