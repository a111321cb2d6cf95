package image

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/qcow2"
	"ferry/internal/source"
)

// opener opens one point. It implements source.Opener.
type opener struct {
	root      *source.Root
	disks     []diskState
	beside    []source.Entry
	ancestors []backup.PointID
}

// Open opens every file of the point and compares it with what the scan saw: other files are another point.
func (o *opener) Open(ctx context.Context) (source.Content, error) {
	c := &content{root: o.root, ancestors: o.ancestors, opened: map[string]*openFile{}}
	err := o.openAll(ctx, c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (o *opener) openAll(ctx context.Context, c *content) error {
	record := pointRecord{Version: validatorVersion}
	for _, disk := range o.disks {
		opened, err := c.openDisk(ctx, disk)
		if err != nil {
			return err
		}
		object := disk.object()
		object.Size = opened.Size()
		c.add(source.Object{Object: object, Access: source.AccessRandom}, opened)
		record.Disks = append(record.Disks, opened.record)
	}
	for _, entry := range o.beside {
		identity, err := c.openBeside(entry)
		if errors.Is(err, backup.ErrVanished) {
			continue
		}
		if err != nil {
			return err
		}
		record.Beside = append(record.Beside, recordIdentity(identity))
	}
	c.validator = record.encode()
	return nil
}

// content is an opened point. It implements source.Content.
type content struct {
	root      *source.Root
	objects   []source.Object
	disks     []*chainDisk
	validator []byte
	ancestors []backup.PointID
	// opened are the point's files by path. A file may serve several disks.
	opened map[string]*openFile
}

// openFile is an open file, and its image if it is a qcow2 file.
type openFile struct {
	*source.File
	image  *qcow2.Image
	record fileRecord
}

// add appends an object; disk is nil for inline ones.
func (c *content) add(object source.Object, disk *chainDisk) {
	c.objects = append(c.objects, object)
	c.disks = append(c.disks, disk)
}

// openDisk opens a chain from its lowest file up.
func (c *content) openDisk(ctx context.Context, d diskState) (*chainDisk, error) {
	files := d.top.layers()
	made := &chainDisk{layers: make([]layer, len(files)), record: diskRecord{Name: backup.EncodeName(d.name), Files: make([]fileRecord, len(files))}}
	var below qcow2.Backing
	for k := len(files) - 1; k >= 0; k-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := files[k]
		opened, err := c.open(f)
		if err != nil {
			return nil, err
		}
		made.record.Files[k] = opened.record
		var l layer = &rawLayer{file: sparseFile{opened.File}, size: opened.Size()}
		if opened.image != nil {
			opened.image.SetBacking(below)
			state := opened.image
			if k == 0 && d.snapshot != active {
				if state, err = state.Snapshot(d.snapshot); err != nil {
					return nil, &fileError{path: f.Path, err: err}
				}
				snapshot := f.snapshots[d.snapshot]
				made.record.Files[k].Snapshot = backup.EncodeName(snapshot.ID) + "@" + nanoseconds(snapshot.Created)
			}
			l = state
		}
		named := &namedLayer{layer: l, path: f.Path}
		made.layers[k], below = named, named
	}
	return made, nil
}

// open opens one file of a chain, once.
func (c *content) open(f *file) (*openFile, error) {
	if opened := c.opened[f.Path]; opened != nil {
		return opened, nil
	}
	handle, err := c.root.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", backup.EncodeName(f.Path), err)
	}
	opened := &openFile{File: handle}
	c.opened[f.Path] = opened
	if !handle.Identity().Same(f.FileIdentity) {
		return nil, &fileError{path: f.Path, err: backup.ErrChanged}
	}
	if locked, err := writeLocked(handle); err == nil && locked {
		return nil, &fileError{path: f.Path, err: fmt.Errorf("a running QEMU has it open for writing: %w", backup.ErrLocked)}
	}
	if f.format == formatQcow2 {
		if opened.image, err = qcow2.Open(sparseFile{handle}, handle.Size()); err != nil {
			return nil, &fileError{path: f.Path, err: err}
		}
	}
	opened.record, err = recordFile(handle, f.format)
	return opened, err
}

// openBeside adds a file beside the disks: inline if it is small, else as a disk-like object.
func (c *content) openBeside(entry source.Entry) (source.FileIdentity, error) {
	object := source.Object{Object: backup.Object{Role: configurationRole(entry), Name: entry.Name, Format: "file"}}
	if entry.Size <= backup.InlineLimit {
		inline, identity, err := c.root.ReadFile(entry.Path, backup.InlineLimit)
		if err != nil {
			return identity, err
		}
		object.Inline, object.Size = inline, int64(len(inline))
		c.add(object, nil)
		return identity, nil
	}
	handle, err := c.root.Open(entry.Path)
	if err != nil {
		return source.FileIdentity{}, err
	}
	c.opened[entry.Path] = &openFile{File: handle}
	object.Access, object.Size = source.AccessRandom, handle.Size()
	c.add(object, &chainDisk{layers: []layer{&namedLayer{layer: &rawLayer{file: sparseFile{handle}, size: handle.Size()}, path: entry.Path}}})
	return handle.Identity(), nil
}

// Objects are the disks, then configuration and firmware.
func (c *content) Objects() []source.Object { return c.objects }

// Validator identifies every file that objects are read from, see pointRecord.
func (c *content) Validator() []byte { return c.validator }

// SourceVerified is false: images have no checksums.
func (c *content) SourceVerified() bool { return false }

// Ancestors are the points below in the chain, nearest first.
func (c *content) Ancestors() []backup.PointID { return c.ancestors }

// Disk returns object i for reading.
func (c *content) Disk(i int) (source.Disk, error) {
	if i < 0 || i >= len(c.disks) || c.disks[i] == nil {
		return nil, fmt.Errorf("object %d is not read at random", i)
	}
	return c.disks[i], nil
}

// Stream has nothing to give: all objects are inline or read at random.
func (c *content) Stream(context.Context, source.Sink) error { return nil }

// Revalidate checks that all files are as they were when they were opened.
func (c *content) Revalidate(ctx context.Context) error {
	for _, opened := range c.opened {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.root.Revalidate([]source.FileIdentity{opened.Identity()}); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files.
func (c *content) Close() error {
	var failed []error
	for _, opened := range c.opened {
		if opened.image != nil {
			opened.image.Close()
		}
		failed = append(failed, opened.Close())
	}
	c.opened = nil
	return errors.Join(failed...)
}
