package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

const (
	// partSize is the least that is read of a segment that is not all here, in bytes.
	partSize = 16 << 10
	// requestCost is what a request to the storage costs, in bytes that could be read in its stead.
	requestCost = 256 << 10
	// pieceSize is what is read at once of a segment that is read whole; pieces of them at a time.
	pieceSize = 8 << 20
	pieces    = 4
)

// Parts says where a segment comes from of which only what is looked up is read.
type Parts struct {
	// Size and Checksum by the log.
	Size     int64
	Checksum format.ID
	// Fetch reads exactly len(p) bytes at an offset.
	Fetch func(ctx context.Context, p []byte, offset int64) error
	// File that takes what is read; an empty one, which belongs to the segment from then on.
	File *os.File
	// Whole is called once all of the segment is in the file, with the right checksum. Its error is Complete's.
	Whole func(*Segment) error
}

// parts are the pages that are there of a segment.
type parts struct {
	Parts
	hasher  *format.Hasher
	segment *Segment

	begun  atomic.Bool // the layout is known
	whole  atomic.Bool
	filter atomic.Bool // the filter is there
	misses atomic.Int64

	mu      sync.Mutex
	present []uint64 // a bit for each page
	spent   int64    // what was read, and requestCost for each request

	completing sync.Mutex
}

// OpenParts opens a segment that is read in parts: nothing at first. What is read in parts is not checked: a place that
// it gives must be proven by its pack's table, and that it has an id not only by [Segment.Complete].
func OpenParts(from Parts, hasher *format.Hasher) (*Segment, error) {
	err := fmt.Errorf("%w: index segment of %d bytes", format.ErrCorrupt, from.Size)
	if from.Size >= headerSize+checksumSize {
		err = from.File.Truncate(from.Size)
	}
	if err != nil {
		from.File.Close()
		return nil, err
	}
	c, err := mapFile(from.File)
	if err != nil {
		return nil, err
	}
	s := &Segment{content: c}
	s.parts = &parts{Parts: from, hasher: hasher, segment: s, present: make([]uint64, (from.Size/partSize+64)/64)}
	return s, nil
}

// begin makes the segment's layout known, and reads more of it at once where that pays.
func (p *parts) begin(ctx context.Context) error {
	if p.whole.Load() {
		return nil
	}
	if !p.begun.Load() {
		if err := p.readLayout(ctx); err != nil {
			return err
		}
	}
	s := p.segment
	if size := s.layout.checksum - s.filter; s.probes > 0 && !p.filter.Load() && p.misses.Load()*2*requestCost > size+requestCost {
		if err := p.read(ctx, s.filter, s.layout.checksum); err != nil {
			return err
		}
		p.filter.Store(true)
	}
	return nil
}

func (p *parts) readLayout(ctx context.Context) error {
	if err := p.read(ctx, 0, headerSize); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun.Load() {
		return nil
	}
	l, err := parseLayout(p.segment.content.bytes[:headerSize], p.Size)
	if err == nil {
		p.segment.layout = l
		p.begun.Store(true)
	}
	return err
}

// filterThere is true if all of the filter can be used.
func (p *parts) filterThere() bool { return p.filter.Load() || p.whole.Load() }

// missed counts a lookup that found nothing.
func (p *parts) missed() { p.misses.Add(1) }

// need waits until the bytes are there. Once more was read than the whole segment would have cost, it is read whole.
func (p *parts) need(ctx context.Context, from, to int64) error {
	if p.whole.Load() {
		return nil
	}
	p.mu.Lock()
	dear := p.spent > p.Size
	p.mu.Unlock()
	if dear {
		return p.complete(ctx)
	}
	return p.read(ctx, from, to)
}

// read reads the pages of a range that are not there, in one request for each piece of the segment.
func (p *parts) read(ctx context.Context, from, to int64) error {
	for from < to {
		piece := min(to, (from/pieceSize+1)*pieceSize)
		if err := p.readPiece(ctx, from, piece); err != nil {
			return err
		}
		from = piece
	}
	return nil
}

func (p *parts) readPiece(ctx context.Context, from, to int64) error {
	first, end := from/partSize, (to+partSize-1)/partSize
	p.mu.Lock()
	for first < end && p.has(first) {
		first++
	}
	for first < end && p.has(end-1) {
		end--
	}
	p.mu.Unlock()
	if first == end {
		return nil
	}
	start := first * partSize
	buffer := make([]byte, min(end*partSize, p.Size)-start)
	if err := p.Fetch(ctx, buffer, start); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent += requestCost + int64(len(buffer))
	for page := first; page < end; page++ {
		if p.has(page) {
			continue // somebody may be looking at it
		}
		at := (page - first) * partSize
		if err := p.segment.content.write(buffer[at:min(at+partSize, int64(len(buffer)))], page*partSize); err != nil {
			return err
		}
		p.present[page/64] |= 1 << (page % 64)
	}
	return nil
}

func (p *parts) has(page int64) bool { return p.present[page/64]&(1<<(page%64)) != 0 }

// complete reads all that is missing, and checks the whole. An error that wraps format.ErrCorrupt says that what was read
// is not the segment; it is of no use then.
func (p *parts) complete(ctx context.Context) error {
	p.completing.Lock()
	defer p.completing.Unlock()
	if p.whole.Load() {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	var next atomic.Int64
	for range pieces {
		readers.Go(func() {
			for {
				from := (next.Add(1) - 1) * pieceSize
				if from >= p.Size || ctx.Err() != nil {
					return
				}
				if err := p.readPiece(ctx, from, min(from+pieceSize, p.Size)); err != nil {
					cancel(err)
				}
			}
		})
	}
	readers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !p.begun.Load() {
		if err := p.readLayout(ctx); err != nil {
			return err
		}
	}
	if err := p.segment.check(p.hasher); err != nil {
		return err
	}
	if p.segment.Checksum() != p.Checksum {
		return fmt.Errorf("%w: it is not the index segment that the log names", format.ErrCorrupt)
	}
	if err := p.Whole(p.segment); err != nil {
		return err
	}
	p.whole.Store(true)
	return nil
}

// Complete makes sure that all of the segment is there and is what the log names. It may read all of it.
func (s *Segment) Complete(ctx context.Context) error {
	if s.parts == nil {
		return nil
	}
	return s.parts.complete(ctx)
}

// Check reads all of a segment that is all there, and compares its checksum once more.
func (s *Segment) Check(hasher *format.Hasher) error { return s.check(hasher) }

// IsWhole is true if all of the segment is there, and checked.
func (s *Segment) IsWhole() bool { return s.parts == nil || s.parts.whole.Load() }

// useless is true for errors that say that a segment's bytes are not what they should be, or not there any more: others may
// have merged it. Then it finds nothing.
func useless(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrNewer) || storage.Missing(err)
}
