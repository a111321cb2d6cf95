package virtnbdbackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/stream"
)

// layerFile is a data file in use. It is opened, and its frames are found, when something of it is first needed: an
// increment on a proven base never touches the full backup.
type layerFile struct {
	*dataFile
	content *content

	mu sync.Mutex
	// ready has the open file, and for streams the index, once load was successful.
	ready atomic.Pointer[loaded]
	// damage is what load found wrong with the file for good.
	damage error
}

type loaded struct {
	file  *source.File
	index *stream.Index
}

// ReadAt reads the file, for the decoder of its lz4 frames.
func (l *layerFile) ReadAt(p []byte, offset int64) (int, error) {
	ready := l.ready.Load()
	if ready == nil {
		return 0, errClosed
	}
	return ready.file.ReadAt(p, offset)
}

// load opens the file and walks over its frames, once.
func (l *layerFile) load(ctx context.Context) (*loaded, error) {
	if ready := l.ready.Load(); ready != nil {
		return ready, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if ready := l.ready.Load(); ready != nil {
		return ready, nil
	}
	if l.damage != nil {
		return nil, l.damage
	}
	if err := l.content.ctx.Err(); err != nil {
		return nil, errClosed
	}
	file, err := l.content.plan.root.Open(l.identity.Path)
	if err != nil {
		return nil, inFile(l.identity.Path, err)
	}
	ready := &loaded{file: file}
	switch {
	case !file.Identity().Same(l.identity):
		err = backup.ErrChanged
	case !l.raw:
		ready.index, err = stream.BuildIndex(ctx, file, file.Size(), l.meta)
	}
	if err != nil {
		file.Close()
		err = inFile(l.identity.Path, err)
		if errors.Is(err, backup.ErrBroken) || errors.Is(err, backup.ErrUnsupported) {
			l.damage = err
		}
		return nil, err
	}
	l.ready.Store(ready)
	return ready, nil
}

func (l *layerFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ready := l.ready.Swap(nil); ready != nil {
		return ready.file.Close()
	}
	return nil
}

// layer is a file of a disk's chain. Beyond limit bytes nothing of it, nor of what is below it, shows.
type layer struct {
	*layerFile
	limit int64
}

// chainDisk reads a disk through the files of its chain: what a file has no frame for shows the next older one, and
// what none has a frame for is zeros.
type chainDisk struct {
	content *content
	name    string
	size    int64
	// layers begin with the full backup.
	layers []layer
}

// Size is that of the newest file.
func (d *chainDisk) Size() int64 { return d.size }

// ReadAt reads as io.ReaderAt. Content that is not compressed goes from the file straight into p.
func (d *chainDisk) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("negative offset %d", offset)
	}
	if offset >= d.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), d.size-offset))
	if err := d.fill(len(d.layers)-1, p[:n], offset); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fill reads what layer k and those below it show.
func (d *chainDisk) fill(k int, p []byte, offset int64) error {
	if k < 0 {
		clear(p)
		return nil
	}
	l := d.layers[k]
	if beyond := offset + int64(len(p)) - l.limit; beyond > 0 {
		beyond = min(beyond, int64(len(p)))
		clear(p[int64(len(p))-beyond:])
		p = p[:int64(len(p))-beyond]
	}
	if len(p) == 0 {
		return nil
	}
	ready, err := l.load(d.content.ctx)
	if err != nil {
		return err
	}
	if ready.index == nil {
		return readFull(l, ready.file, p, offset)
	}
	for i := ready.index.Find(offset); len(p) > 0; i++ {
		gap := int64(len(p))
		var extent stream.Extent
		if i < ready.index.Len() {
			extent = ready.index.At(i)
			gap = min(gap, max(0, extent.Offset-offset))
		}
		if gap > 0 {
			if err := d.fill(k-1, p[:gap], offset); err != nil {
				return err
			}
			p, offset = p[gap:], offset+gap
		}
		if len(p) == 0 {
			return nil
		}
		n := min(int64(len(p)), extent.End()-offset)
		if err := d.content.read(l, ready.file, extent, p[:n], offset-extent.Offset); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// read fills p from within an extent.
func (c *content) read(l layer, file *source.File, extent stream.Extent, p []byte, within int64) error {
	switch {
	case extent.IsZero():
		clear(p)
		return nil
	case extent.Stored > 0:
		return inFile(l.identity.Path, c.cache.ReadAt(l.layerFile, extent, p, within))
	}
	return readFull(l, file, p, extent.Position+within)
}

func readFull(l layer, file *source.File, p []byte, position int64) error {
	n, err := file.ReadAt(p, position)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("%w: the file became shorter", backup.ErrChanged)
	}
	return &backup.Error{Object: l.identity.Path, Offset: position, Err: err}
}

// Extents lists the disk's ranges. If the base proves to be an older point of the same chain, only files newer than it
// are looked at, and what they have no frame for is unchanged.
func (d *chainDisk) Extents(ctx context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		below, size := d.content.proven(base, d)
		e := &extents{ctx: ctx, disk: d, base: below, baseSize: size, yield: yield}
		err := e.emit(len(d.layers)-1, 0, d.size)
		if err == nil {
			err = e.flush()
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(backup.Extent{}, err)
		}
	}
}

// extents walks over a disk's layers.
type extents struct {
	ctx  context.Context
	disk *chainDisk
	// base is how many of the lowest layers the base is proven to have; baseSize is its disk's size in bytes.
	base     int
	baseSize int64
	yield    func(backup.Extent, error) bool
	// last is what will be yielded when something else follows.
	last backup.Extent
}

// errStopped ends the walk when the consumer wants no more.
var errStopped = errors.New("stopped")

// emit goes over [from, to) as layer k and those below it show it.
func (e *extents) emit(k int, from, to int64) error {
	if k < 0 {
		return e.add(from, to, backup.ExtentZero)
	}
	l := e.disk.layers[k]
	visible := max(from, min(to, l.limit))
	if k < e.base {
		shared := max(from, min(visible, e.baseSize))
		if err := e.add(from, shared, backup.ExtentUnchanged); err != nil {
			return err
		}
		return e.add(shared, to, backup.ExtentZero)
	}
	if visible > from {
		ready, err := l.load(e.ctx)
		if err != nil {
			return err
		}
		if ready.index == nil {
			err = e.add(from, visible, backup.ExtentData)
		} else {
			err = e.emitIndex(k, ready.index, from, visible)
		}
		if err != nil {
			return err
		}
	}
	return e.add(visible, to, backup.ExtentZero)
}

// emitIndex goes over [from, to) as the extents of layer k and, between them, the layers below show it.
func (e *extents) emitIndex(k int, index *stream.Index, from, to int64) error {
	for i := index.Find(from); from < to; i++ {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		if i == index.Len() {
			return e.emit(k-1, from, to)
		}
		extent := index.At(i)
		if gap := min(to, extent.Offset); gap > from {
			if err := e.emit(k-1, from, gap); err != nil {
				return err
			}
			from = gap
		}
		if end := min(to, extent.End()); end > from {
			kind := backup.ExtentData
			if extent.IsZero() {
				kind = backup.ExtentZero
			}
			if err := e.add(from, end, kind); err != nil {
				return err
			}
			from = end
		}
	}
	return nil
}

// add appends a range; neighbours of the same kind become one.
func (e *extents) add(from, to int64, kind backup.ExtentKind) error {
	if to <= from {
		return nil
	}
	if e.last.Length > 0 && e.last.Kind == kind {
		e.last.Length += to - from
		return nil
	}
	if err := e.flush(); err != nil {
		return err
	}
	e.last = backup.Extent{Offset: from, Length: to - from, Kind: kind}
	return nil
}

func (e *extents) flush() error {
	if e.last.Length > 0 && !e.yield(e.last, nil) {
		return errStopped
	}
	e.last = backup.Extent{}
	return nil
}
