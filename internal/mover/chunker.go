package mover

import (
	"context"
	"errors"
	"io"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// Streams that shift are cut by content, so that an insertion changes the blocks around it only: a gear hash of the last
// 64 bytes decides, harder below the target size and easier above, so that most blocks are near the target.
const (
	minChunk    = 32 << 10
	targetChunk = 128 << 10
	maxChunk    = 512 << 10
	// The masks take the hash's high bits, which depend on the most bytes.
	hardMask = uint64(1<<19-1) << 45
	easyMask = uint64(1<<15-1) << 49
)

// chunker cuts one stream and hands its blocks to the workers in order of their numbers.
type chunker struct {
	pipe   *pipeline
	object *object
	table  [256]uint64
	buffer []byte
	number int64
	size   int64
}

func newChunker(p *pipeline, o *object) *chunker {
	return &chunker{pipe: p, object: o, table: p.task.mover.ingest.ChunkerTable(), buffer: make([]byte, 0, 2*maxChunk)}
}

// cut returns the length of the first block of data, which is all of it if nothing says where to cut.
func (c *chunker) cut(data []byte) int {
	if len(data) <= minChunk {
		return len(data)
	}
	end := min(len(data), maxChunk)
	hash := uint64(0)
	for i := minChunk - 64; i < end; i++ {
		hash = hash<<1 + c.table[data[i]]
		if i < minChunk {
			continue
		}
		mask := hardMask
		if i >= targetChunk {
			mask = easyMask
		}
		if hash&mask == 0 {
			return i + 1
		}
	}
	return end
}

func (c *chunker) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), cap(c.buffer)-len(c.buffer))
		c.buffer = append(c.buffer, p[:n]...)
		p = p[n:]
		if err := c.drain(ctx, maxChunk); err != nil {
			return err
		}
	}
	return nil
}

// drain sends blocks while at least keep bytes are there: less could be cut differently when more comes.
func (c *chunker) drain(ctx context.Context, keep int) error {
	rest := c.buffer
	for len(rest) >= keep && len(rest) > 0 {
		n := c.cut(rest)
		data := c.pipe.buffer()
		*data = append(*data, rest[:n]...)
		if err := c.pipe.send(ctx, run{object: c.object, number: c.number, data: data}); err != nil {
			return err
		}
		c.number++
		c.size += int64(n)
		rest = rest[n:]
	}
	c.buffer = c.buffer[:copy(c.buffer, rest)]
	return nil
}

func (c *chunker) finish(ctx context.Context) error { return c.drain(ctx, 1) }

// readShifting reads a stream that shifts from a source with random access, in order.
func (p *pipeline) readShifting(ctx context.Context, o *object, disk source.Disk) error {
	c := newChunker(p, o)
	piece := make([]byte, runBytes)
	for offset := int64(0); offset < o.Size; {
		n := min(o.Size-offset, runBytes)
		got, err := disk.ReadAt(piece[:n], offset)
		if int64(got) < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return place(p.task.point, o.Name, offset+int64(got), err)
		}
		if err := c.write(ctx, piece[:n]); err != nil {
			return err
		}
		p.task.read.Add(n)
		p.task.progress.Done.Add(n)
		offset += n
	}
	if err := c.finish(ctx); err != nil {
		return err
	}
	if o.Size != c.size {
		return backup.ErrChanged
	}
	return nil
}
