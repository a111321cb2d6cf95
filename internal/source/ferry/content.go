package ferry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
)

type opener struct {
	repository *repo.Repository
	point      *repo.Point
}

// Open holds the point until the content is closed. It needs no reading: the point's file has been read.
func (o opener) Open(ctx context.Context) (source.Content, error) {
	release, err := o.repository.KeepHeld(ctx, o.point.ID, "copied to another repository")
	if err != nil {
		return nil, err
	}
	return &content{opener: o, release: sync.OnceFunc(release)}, nil
}

type content struct {
	opener
	release func()
}

func (c *content) Objects() []source.Object {
	objects := make([]source.Object, len(c.point.Objects))
	for i, object := range c.point.Objects {
		objects[i] = source.Object{Object: object, Access: source.AccessRandom}
		if c.point.Roots[i] == nil {
			objects[i].Access = source.AccessInline
		}
	}
	return objects
}

// Validator names the content itself: it never changes.
func (c *content) Validator() []byte {
	var validator []byte
	for _, root := range c.repository.ContentRoots(c.point) {
		validator = fmt.Appendf(validator, "%s %s\n", root.Scheme, root.ID)
	}
	return validator
}

func (c *content) SourceVerified() bool { return true }

// Ancestors are the machine's older points: any two points of a repository can be compared by their trees.
func (c *content) Ancestors() []backup.PointID {
	machine := c.repository.Pseudonym(c.point.Machine.Key)
	var older []backup.PointID
	for _, entry := range c.repository.Entries() { // oldest first
		if entry.ID == c.point.ID {
			break
		}
		if entry.Machine == machine {
			older = append(older, entry.ID)
		}
	}
	slices.Reverse(older)
	return older
}

func (c *content) Stream(context.Context, source.Sink) error {
	return errors.New("a Ferry repository has no one-pass objects")
}

func (c *content) Revalidate(context.Context) error { return nil }

func (c *content) Close() error {
	c.release()
	return nil
}

func (c *content) Disk(i int) (source.Disk, error) {
	if i < 0 || i >= len(c.point.Roots) || c.point.Roots[i] == nil {
		return nil, fmt.Errorf("object %d is not a disk", i)
	}
	return &disk{content: c, object: c.point.Objects[i], root: *c.point.Roots[i]}, nil
}

// disk reads one object through its tree. Readers are kept for reuse: each remembers its way down the tree.
type disk struct {
	content *content
	object  backup.Object
	root    repo.Root
	readers sync.Pool
}

type diskReader struct {
	cursor *repo.Cursor
	blocks *repo.BlockReader
	wanted []repo.Block
}

func (d *disk) Size() int64 { return d.root.Size }

func (d *disk) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset > d.root.Size {
		return 0, fmt.Errorf("offset %d in an object of %d bytes", offset, d.root.Size)
	}
	length := min(int64(len(p)), d.root.Size-offset)
	clear(p[:length])
	repository := d.content.repository
	r, ok := d.readers.Get().(*diskReader)
	if !ok {
		r = &diskReader{cursor: repository.NewCursor(d.root), blocks: repository.NewBlockReader()}
	}
	defer d.readers.Put(r)
	ctx := context.Background() // io.ReaderAt has none; what is read at once is small
	r.wanted = r.wanted[:0]
	for at := offset; at < offset+length; {
		block, err := r.cursor.At(ctx, at)
		if err != nil {
			return 0, err
		}
		if !block.ID.IsZero() {
			r.wanted = append(r.wanted, block)
		}
		at = block.Offset + block.Length
	}
	err := r.blocks.Read(ctx, r.wanted, func(block repo.Block, plain []byte) error {
		from := max(block.Offset, offset)
		copy(p[from-offset:length], plain[from-block.Offset:])
		return nil
	}, func(block repo.Block, err error) error {
		return &backup.Error{Object: d.object.Name, Offset: block.Offset, Err: err, Hint: "run ferry verify on " + repository.Location()}
	})
	if err != nil {
		return 0, err
	}
	if length < int64(len(p)) {
		return int(length), io.EOF
	}
	return int(length), nil
}

// Extents are the blocks that exist; with a base whose content is proven to be the same point's here, those that differ.
func (d *disk) Extents(ctx context.Context, base *backup.Base) iter.Seq2[backup.Extent, error] {
	if root := d.provenBase(ctx, base); root != nil {
		return d.differences(ctx, *root)
	}
	return func(yield func(backup.Extent, error) bool) {
		fill := filler{kind: backup.ExtentZero, yield: yield}
		for blocks, err := range d.content.repository.Leaves(ctx, d.root) {
			if err != nil {
				yield(backup.Extent{}, err)
				return
			}
			for _, block := range blocks {
				if !fill.put(backup.Extent{Offset: block.Offset, Length: block.Length, Kind: backup.ExtentData}) {
					return
				}
			}
		}
		fill.finish(d.root.Size)
	}
}

// provenBase finds the base's object here, if it has the very content that the target has.
func (d *disk) provenBase(ctx context.Context, base *backup.Base) *repo.Root {
	if base == nil || !d.content.repository.Has(base.ID) {
		return nil
	}
	point, err := d.content.repository.ReadPoint(ctx, base.ID)
	if err != nil {
		return nil
	}
	for _, mine := range d.content.repository.ContentRoots(point) {
		if mine.Role == d.object.Role && mine.Name == d.object.Name && slices.Contains(base.Roots, mine) {
			for i, o := range point.Objects {
				if root := point.Roots[i]; root != nil && o.Role == mine.Role && o.Name == mine.Name && root.Size == d.root.Size && root.BlockSize == d.root.BlockSize {
					return root
				}
			}
		}
	}
	return nil
}

func (d *disk) differences(ctx context.Context, base repo.Root) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		fill := filler{kind: backup.ExtentUnchanged, yield: yield}
		for block, err := range d.content.repository.Differences(ctx, base, d.root) {
			kind := backup.ExtentData
			if block.ID.IsZero() {
				kind = backup.ExtentZero
			}
			if err != nil {
				yield(backup.Extent{}, err)
				return
			}
			if !fill.put(backup.Extent{Offset: block.Offset, Length: block.Length, Kind: kind}) {
				return
			}
		}
		fill.finish(d.root.Size)
	}
}

// filler yields extents and, between them, what the gaps are.
type filler struct {
	kind  backup.ExtentKind
	at    int64
	yield func(backup.Extent, error) bool
	ended bool
}

func (f *filler) put(e backup.Extent) bool {
	if !f.gap(e.Offset) || !f.yield(e, nil) {
		f.ended = true
		return false
	}
	f.at = e.End()
	return true
}

func (f *filler) gap(to int64) bool {
	return to <= f.at || f.yield(backup.Extent{Offset: f.at, Length: to - f.at, Kind: f.kind}, nil)
}

func (f *filler) finish(size int64) {
	if !f.ended {
		f.gap(size)
	}
}
