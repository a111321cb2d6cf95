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
	id         backup.PointID
	memory     *Memory
}

// Open reads the point's file, and holds the point until the content is closed. A file that cannot be read any more is not listed as
// that of a complete point again.
func (o opener) Open(ctx context.Context) (source.Content, error) {
	release, err := o.repository.KeepHeld(ctx, o.id, "copied to another repository")
	if err != nil {
		return nil, err
	}
	point, err := o.repository.ReadPoint(ctx, o.id)
	if err != nil {
		release()
		if ctx.Err() == nil {
			o.memory.forget(o.repository, o.id)
		}
		return nil, err
	}
	return &content{repository: o.repository, point: point, release: sync.OnceFunc(release)}, nil
}

type content struct {
	repository *repo.Repository
	point      *repo.Point
	release    func()
}

// Stored is the repository that the point lies in, for one who can take it over as it is.
func (c *content) Stored() (*repo.Repository, *repo.Point) { return c.repository, c.point }

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
	for _, root := range c.point.Roots {
		if root != nil {
			validator = fmt.Appendf(validator, "%s %s\n", c.repository.Description().Hash, c.repository.RootID(*root))
		}
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

// Extents are the blocks that exist. Where the target could take over what is as in a base it does so by the ids, without
// asking here.
func (d *disk) Extents(ctx context.Context, _ *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		fill := filler{yield: yield}
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

// filler yields extents and, between them, zeros.
type filler struct {
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
	return to <= f.at || f.yield(backup.Extent{Offset: f.at, Length: to - f.at, Kind: backup.ExtentZero}, nil)
}

func (f *filler) finish(size int64) {
	if !f.ended {
		f.gap(size)
	}
}
