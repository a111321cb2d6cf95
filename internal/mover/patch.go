package mover

import (
	"context"
	"errors"
	"io"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
)

// A block that is partly as in the base is put together:
//
//	source's extents:  unchanged | data | zero
//	  -> base's block, from the repository, proven by its id
//	  -> over it: data, the only part that is read of the source, and zeros
//
// Such blocks lie scattered. Some are taken at once, so that their base blocks are read with few reads.

// maxParts of a block, and the least share of it that must be unchanged: else reading all of it costs less.
const (
	maxParts   = 16
	patchShare = 4
)

// patch is some blocks that are partly as in the base, ascending, on their way through the pipeline.
type patch struct {
	numbers []int64
	parts   []part
}

// part is an extent of a patch's blocks, and where it lies in the patch's content.
type part struct {
	backup.Extent
	at int64
}

// add adds a block with its parts. Data that goes on from the block before is read with it.
func (t *patch) add(number, blockSize int64, parts []backup.Extent) {
	start := int64(len(t.numbers)) * blockSize
	t.numbers = append(t.numbers, number)
	for _, e := range parts {
		at := start + e.Offset - number*blockSize
		if n := len(t.parts); n > 0 && e.Kind == backup.ExtentData {
			last := &t.parts[n-1]
			if last.Kind == e.Kind && last.End() == e.Offset && last.at+last.Length == at {
				last.Length += e.Length
				continue
			}
		}
		t.parts = append(t.parts, part{e, at})
	}
}

// patcher puts patches together. It belongs to one goroutine.
type patcher struct {
	pipeline *pipeline
	object   *object
	disk     source.Disk
	cursor   *repo.Cursor
	blocks   *repo.BlockReader
	wanted   []repo.Block
	// at is where in the patch's content a wanted block belongs; have says that it is there.
	at   map[int64]int64
	have map[int64]bool
}

func (p *pipeline) newPatcher(o *object, disk source.Disk) *patcher {
	repository := p.task.mover.ingest.Repository()
	return &patcher{
		pipeline: p, object: o, disk: disk, cursor: repository.NewCursor(*o.base), blocks: repository.NewBlockReader(),
		at: map[int64]int64{}, have: map[int64]bool{},
	}
}

// put puts a patch together and sends it to the workers.
func (w *patcher) put(ctx context.Context, t *patch) error {
	p, o := w.pipeline, w.object
	last := t.numbers[len(t.numbers)-1]
	length := int64(len(t.numbers)-1)*o.blockSize + o.bytes(blockRange{first: last, count: 1})
	buffer := p.buffer()
	*buffer = (*buffer)[:length]
	if err := w.readBase(ctx, t, *buffer); err != nil {
		return err
	}
	for _, e := range t.parts {
		content := (*buffer)[e.at : e.at+e.Length]
		switch {
		case e.Kind == backup.ExtentZero:
			clear(content)
		case e.Kind == backup.ExtentUnchanged && w.have[e.Offset/o.blockSize]:
			p.task.unchanged.Add(e.Length)
		default:
			if err := p.readSource(o, w.disk, content, e.Offset); err != nil {
				return err
			}
		}
	}
	p.task.progress.Done.Add(length)
	return p.send(ctx, run{object: o, patch: t, data: buffer})
}

// readBase reads the base's blocks into the patch's content. What cannot be read there is not noted in have, and is read of the
// source: that a block of the base is damaged need not stop a copy that can do without it.
func (w *patcher) readBase(ctx context.Context, t *patch, content []byte) error {
	size := w.object.blockSize
	w.wanted = w.wanted[:0]
	clear(w.at)
	clear(w.have)
	for i, number := range t.numbers {
		block, err := w.cursor.At(ctx, number*size)
		at := int64(i) * size
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
		case block.ID.IsZero():
			clear(content[at:min(at+size, int64(len(content)))])
			w.have[number] = true
		case block.Offset == number*size && block.Length == min(size, int64(len(content))-at):
			w.at[number] = at
			w.wanted = append(w.wanted, block)
		}
	}
	_ = w.blocks.Read(ctx, w.wanted, func(block repo.Block, plain []byte) error {
		number := block.Offset / size
		copy(content[w.at[number]:], plain)
		w.have[number] = true
		return nil
	}, func(repo.Block, error) error { return nil })
	return ctx.Err()
}

// readSource reads a part of a disk, whole.
func (p *pipeline) readSource(o *object, disk source.Disk, content []byte, offset int64) error {
	n, err := disk.ReadAt(content, offset)
	if n < len(content) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return place(p.task.point, o.Name, offset+int64(n), err)
	}
	p.task.read.Add(int64(n))
	return nil
}
