package virtnbdbackup

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/stream"
)

// plan is what a scan found out about a complete point: enough to open it without reading.
type plan struct {
	root   *source.Root
	disks  []plannedDisk
	extras []plannedExtra
	// files are all files that the point is read from.
	files []source.FileIdentity
	// absent are files that virtnbdbackup writes after the vmconfig: if they are there later, the scan was too early.
	absent []string
	id     backup.PointID
	// parent is the plan of the point that this one is an increment of; nil if there is none.
	parent *plan
}

// plannedDisk is a disk with the files it is read from, the full backup first.
type plannedDisk struct {
	name   string
	layers []*dataFile
}

// size is that of the newest file: disks can be resized between backups.
func (d plannedDisk) size() int64 { return d.layers[len(d.layers)-1].size }

// plannedExtra is a file that is kept as it is.
type plannedExtra struct {
	role     backup.Role
	name     string
	identity source.FileIdentity
}

// use notes files that the point is read from.
func (p *plan) use(files ...source.FileIdentity) {
	for _, file := range files {
		if file.Path != "" {
			p.files = append(p.files, file)
		}
	}
}

// objects lists the disks, then everything else, without the content of small files.
func (p *plan) objects() []source.Object {
	var objects []source.Object
	for _, disk := range p.disks {
		format := "virtnbdbackup stream"
		if disk.layers[len(disk.layers)-1].raw {
			format = "raw"
		}
		objects = append(objects, source.Object{Access: source.AccessRandom, Object: backup.Object{
			Role: backup.RoleDisk, Name: disk.name, Size: disk.size(), Format: format,
		}})
	}
	for _, extra := range p.extras {
		object := source.Object{Object: backup.Object{Role: extra.role, Name: extra.name, Size: extra.identity.Size}}
		if extra.identity.Size > backup.InlineLimit {
			object.Access = source.AccessRandom
		}
		objects = append(objects, object)
	}
	return objects
}

// cacheSize is how many bytes of decoded lz4 content one opened point keeps.
const cacheSize = 64 << 20

// Open reads the small files. Of the disks nothing is read before it is asked for.
func (p *plan) Open(ctx context.Context) (source.Content, error) {
	if err := p.root.Revalidate(p.files); err != nil {
		return nil, err
	}
	c := &content{plan: p, objects: p.objects(), cache: stream.NewCache(cacheSize), open: map[string]*layerFile{}}
	for i := range p.extras {
		object := &c.objects[len(p.disks)+i]
		if object.Access != source.AccessInline {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		text, _, err := p.root.ReadFile(p.extras[i].identity.Path, backup.InlineLimit)
		if err != nil {
			return nil, err
		}
		object.Inline = text
		if text == nil {
			object.Inline = []byte{}
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.validator = p.validator()
	return c, nil
}

// content is an opened point.
type content struct {
	plan      *plan
	objects   []source.Object
	validator []byte
	cache     *stream.Cache
	// ctx ends when the content is closed.
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// open are the files in use by path: disks and repeated calls share them.
	open   map[string]*layerFile
	closed bool
}

// Objects lists disks, configuration, firmware and the log.
func (c *content) Objects() []source.Object { return c.objects }

// Validator describes the files of each disk's chain.
func (c *content) Validator() []byte { return c.validator }

// SourceVerified is true if all data of all disks is in lz4 frames with checksums, which are checked when they are
// read. Plain streams have no checksums.
func (c *content) SourceVerified() bool {
	for _, disk := range c.plan.disks {
		for _, file := range disk.layers {
			if !file.meta.Compressed {
				return false
			}
		}
	}
	return !c.cache.Unchecked()
}

// Ancestors are the points of the chain's older files.
func (c *content) Ancestors() []backup.PointID {
	var ids []backup.PointID
	for at := c.plan.parent; at != nil && len(ids) < chainLimit; at = at.parent {
		ids = append(ids, at.id)
	}
	return ids
}

// Disk opens a disk, or a file that is too large for the point itself.
func (c *content) Disk(i int) (source.Disk, error) {
	if i < 0 || i >= len(c.objects) || c.objects[i].Access != source.AccessRandom {
		return nil, fmt.Errorf("object %d cannot be read at random", i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if i >= len(c.plan.disks) {
		extra := c.plan.extras[i-len(c.plan.disks)]
		file := c.file(&dataFile{identity: extra.identity, raw: true, size: extra.identity.Size})
		return &chainDisk{content: c, layers: []layer{{file, extra.identity.Size}}, size: extra.identity.Size}, nil
	}
	planned := c.plan.disks[i]
	d := &chainDisk{content: c, name: planned.name, size: planned.size(), layers: make([]layer, len(planned.layers))}
	limit := d.size
	for k := len(planned.layers) - 1; k >= 0; k-- {
		// What a disk lost when it shrank does not come back when it grows.
		limit = min(limit, planned.layers[k].size)
		d.layers[k] = layer{c.file(planned.layers[k]), limit}
	}
	return d, nil
}

var errClosed = errors.New("the point is closed")

// file returns the shared state of a data file. The lock is held.
func (c *content) file(d *dataFile) *layerFile {
	file := c.open[d.identity.Path]
	if file == nil {
		file = &layerFile{content: c, dataFile: d}
		c.open[d.identity.Path] = file
	}
	return file
}

// Stream has nothing to do: every object can be read at random.
func (c *content) Stream(ctx context.Context, _ source.Sink) error { return ctx.Err() }

// Revalidate checks that no file changed, and that none has come that belongs to the point.
func (c *content) Revalidate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.plan.root.Revalidate(c.plan.files); err != nil {
		return err
	}
	for _, path := range c.plan.absent {
		if _, err := c.plan.root.Identify(path); err == nil {
			return fmt.Errorf("%s appeared: %w", backup.EncodeName(path), backup.ErrChanged)
		} else if !errors.Is(err, backup.ErrVanished) {
			return err
		}
	}
	return nil
}

// Close closes all files and gives the memory back.
func (c *content) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.cancel()
	var err error
	for _, file := range c.open {
		err = errors.Join(err, file.close())
	}
	c.cache.Close()
	return err
}
