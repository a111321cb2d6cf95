package vzdump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/vma"
)

type opener struct {
	dump *dump
	// uuid of the VMA archive that was listed.
	uuid [16]byte
}

// content is an opened archive.
type content struct {
	root    *source.Root
	name    string // the archive's object name
	file    *source.File
	in      *input
	stream  *stream
	archive *vma.Reader // nil for containers
	// below is what archive reads from: the stream itself until Stream puts read-ahead between.
	below *redirect
	// tarStart is the first header of a tar archive, read at opening.
	tarStart []byte
	// objects that are streamed come first, so that device i of a VMA archive is object i.
	objects []source.Object
	// large has the files of objects beside the archive that do not fit inline, by index of object.
	large     map[int]*source.File
	validator []byte

	closing context.Context
	cancel  context.CancelFunc
	// reading is held while Stream runs; Close waits for it.
	reading sync.Mutex
	used    bool
	closed  bool
	// state guards verify: the compression's checksums cover everything, as far as is known.
	state  sync.Mutex
	verify bool
}

// redirect is a reader that can be exchanged between two reads.
type redirect struct{ io.Reader }

// Open reads the archive's header again and the small files beside it.
func (o *opener) Open(ctx context.Context) (source.Content, error) {
	d := o.dump
	file, err := d.root.Open(d.file.Path)
	if err != nil {
		return nil, err
	}
	c := &content{root: d.root, name: d.name.base, file: file, large: map[int]*source.File{}}
	c.closing, c.cancel = context.WithCancel(context.Background())
	if err := c.open(ctx, o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *content) open(ctx context.Context, o *opener) error {
	d := o.dump
	if !c.file.Identity().Same(d.file.FileIdentity) {
		return fmt.Errorf("%s: %w since it was listed", backup.EncodeName(d.file.Path), backup.ErrChanged)
	}
	c.in = &input{ctx: ctx, file: c.file, limit: -1}
	var err error
	if c.stream, err = decompress(c.in, d.name.compression); err != nil {
		return c.fault(err)
	}
	var header *vma.Header
	if d.name.container == containerVMA {
		c.below = &redirect{c.stream}
		if c.archive, err = vma.NewReader(c.below); err != nil {
			return c.fault(err)
		}
		c.archive.Admit = c.in.admit
		header = c.archive.Header()
		if header.UUID != o.uuid {
			return fmt.Errorf("%s: %w since it was listed", backup.EncodeName(d.file.Path), backup.ErrChanged)
		}
	} else if c.tarStart, err = readTarStart(c.stream); err != nil {
		return c.fault(err)
	}
	c.verify = c.stream.checked()
	for _, object := range d.streamed(header) {
		c.objects = append(c.objects, source.Object{Object: object, Access: source.AccessOnePass})
	}
	for _, object := range configurations(header) {
		c.objects = append(c.objects, source.Object{Object: object, Access: source.AccessInline})
	}
	files := []source.FileIdentity{c.file.Identity()}
	for _, s := range d.sidecars {
		identity, err := c.openSidecar(s)
		if errors.Is(err, backup.ErrVanished) {
			// Someone removed a note or a protection; that is no reason to leave out the backup.
			continue
		}
		if err != nil {
			return err
		}
		files = append(files, identity)
	}
	c.validator, err = validator(files)
	return err
}

// openSidecar keeps a small file in the object, and a large one open.
func (c *content) openSidecar(s sidecar) (source.FileIdentity, error) {
	object := s.object()
	file, err := c.root.Open(s.file.Path)
	if err != nil {
		return source.FileIdentity{}, err
	}
	object.Size = file.Size()
	if object.Size > backup.InlineLimit {
		c.large[len(c.objects)] = file
		c.objects = append(c.objects, source.Object{Object: object, Access: source.AccessRandom})
		return file.Identity(), nil
	}
	defer file.Close()
	object.Inline = make([]byte, object.Size)
	if n, err := file.ReadAt(object.Inline, 0); n < len(object.Inline) {
		if err == io.EOF {
			err = fmt.Errorf("%s: %w", backup.EncodeName(s.file.Path), backup.ErrChanged)
		}
		return source.FileIdentity{}, err
	}
	c.objects = append(c.objects, source.Object{Object: object, Access: source.AccessInline})
	return file.Identity(), nil
}

// fault prefers "the file changed" over what its content looks like because of that.
func (c *content) fault(err error) error {
	if errors.Is(err, backup.ErrBroken) {
		if changed := c.root.Revalidate([]source.FileIdentity{c.file.Identity()}); changed != nil {
			return changed
		}
	}
	return err
}

// validator lists the files, without the device number: that of a network folder changes when it is mounted again.
func validator(files []source.FileIdentity) ([]byte, error) {
	type identity struct {
		Path    string `json:"path"`
		Size    int64  `json:"size"`
		ModTime string `json:"modTime"`
		// ChangeTime tells of a write in place after which the ModTime was set back.
		ChangeTime string `json:"changeTime"`
		Inode      uint64 `json:"inode"`
	}
	const nanoseconds = "2006-01-02T15:04:05.000000000Z"
	identities := make([]identity, 0, len(files))
	for _, file := range files {
		identities = append(identities, identity{backup.EncodeName(file.Path), file.Size,
			file.ModTime.UTC().Format(nanoseconds), file.ChangeTime.UTC().Format(nanoseconds), file.Inode})
	}
	return json.Marshal(identities)
}

func (c *content) Objects() []source.Object { return c.objects }

func (c *content) Validator() []byte { return c.validator }

// SourceVerified is about the compression's checksums: VMA and tar have none over data. What the compressed stream's
// later parts have shows when they are read, so the answer is final after Stream.
func (c *content) SourceVerified() bool {
	c.state.Lock()
	defer c.state.Unlock()
	return c.verify
}

// Ancestors is nil: vzdump always writes full backups.
func (c *content) Ancestors() []backup.PointID { return nil }

// Disk gives access to a log too large to be inline. All else is inline or in the stream.
func (c *content) Disk(i int) (source.Disk, error) {
	file := c.large[i]
	if file == nil {
		return nil, fmt.Errorf("vzdump: object %d is not read at random", i)
	}
	return sidecarDisk{file}, nil
}

// Revalidate looks whether the archive is still the file that was read. The files beside it were read at opening.
func (c *content) Revalidate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.root.Revalidate([]source.FileIdentity{c.file.Identity()})
}

// Close ends a Stream that is running and waits for it.
func (c *content) Close() error {
	c.cancel()
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.stream != nil {
		c.stream.close()
	}
	errs := []error{c.file.Close()}
	for _, file := range c.large {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// sidecarDisk is a large log as an object to be read at random.
type sidecarDisk struct{ file *source.File }

func (d sidecarDisk) ReadAt(p []byte, offset int64) (int, error) { return d.file.ReadAt(p, offset) }

func (d sidecarDisk) Size() int64 { return d.file.Size() }

func (d sidecarDisk) Extents(context.Context, *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		yield(backup.Extent{Length: d.Size(), Kind: backup.ExtentData}, nil)
	}
}
