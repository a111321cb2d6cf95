package mover

import (
	"context"
	"fmt"
	"math"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/spill"
)

// waitingBytes is how much of incomplete blocks stays in memory, of all that is copied at once; more lies in temporary files.
const waitingBytes = 64 << 20

// givenPages is how many pages the grains given take, of all that is copied at once: 16 MiB, which is clusters all over 8 TiB. Where
// there is no more room, blocks whose parts come apart wait for the end of the object in temporary files, whole or not.
const givenPages = 4096

// assembler is the sink of one-pass sources. It puts blocks together from pieces that come in any order, and hands each
// to the workers as soon as it is whole. What a block still lacks is known by a bit for each grain given.
type assembler struct {
	ctx     context.Context
	pipe    *pipeline
	waiting *spill.Blocks
	given   []bitmap // by object: grains that were given
	// held is, for objects of unknown size, the highest block that is whole: it may be the last, and shorter. -1 is none.
	held    []int64
	streams []*chunker
	ended   []bool
}

func newAssembler(ctx context.Context, p *pipeline) *assembler {
	size, options := p.task.mover.ingest.Repository().BlockSize(), p.task.mover.options
	a := &assembler{
		ctx: ctx, pipe: p, waiting: spill.NewBlocks(options.TempDir, size, int(waitingBytes/size)/options.AtOnce),
		given: make([]bitmap, len(p.task.objects)), held: make([]int64, len(p.task.objects)), streams: make([]*chunker, len(p.task.objects)),
		ended: make([]bool, len(p.task.objects)),
	}
	room := max(givenPages/options.AtOnce, 1)
	for i, o := range p.task.objects {
		a.given[i].room = &room
		a.held[i] = -1
		if o.Shifting {
			a.streams[i] = newChunker(p, o)
		}
	}
	return a
}

func (a *assembler) close() error { return a.waiting.Close() }

func (a *assembler) object(i int) (*object, error) {
	if i < 0 || i >= len(a.pipe.task.objects) || a.pipe.task.objects[i].Access != source.AccessOnePass {
		return nil, fmt.Errorf("the source gave data of object %d, which it did not announce", i)
	}
	if a.ended[i] {
		return nil, fmt.Errorf("%w: %s goes on behind its end", backup.ErrBroken, backup.EncodeName(a.pipe.task.objects[i].Name))
	}
	return a.pipe.task.objects[i], nil
}

// whole returns an error unless the source ended every object: what still waits for its other parts would be lost.
func (a *assembler) whole() error {
	for i, o := range a.pipe.task.objects {
		if o.Access == source.AccessOnePass && !a.ended[i] {
			return fmt.Errorf("%w: the source did not end %s", backup.ErrBroken, backup.EncodeName(o.Name))
		}
	}
	return nil
}

// within returns an error unless the range may be given of the object: aligned, and inside it.
func (o *object) within(offset, length int64) error {
	switch {
	case offset < 0 || length < 0 || offset%source.SinkGrain != 0:
		return fmt.Errorf("%w: the source gave %s at offset %d, which is not aligned", backup.ErrBroken, backup.EncodeName(o.Name), offset)
	case length > math.MaxInt64-offset, o.Size >= 0 && offset+length > o.Size:
		return fmt.Errorf("%w: %s has content behind its end of %d bytes", backup.ErrBroken, backup.EncodeName(o.Name), o.Size)
	}
	return nil
}

// Data takes a piece of an object.
func (a *assembler) Data(i int, offset int64, p []byte) error {
	o, err := a.object(i)
	if err != nil {
		return err
	}
	a.pipe.task.read.Add(int64(len(p)))
	a.pipe.task.progress.Done.Add(int64(len(p)))
	if o.Shifting {
		return a.streams[i].write(a.ctx, p)
	}
	if err := o.within(offset, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		number, within := offset/o.blockSize, offset%o.blockSize
		piece := p[:min(int64(len(p)), o.blockSize-within)]
		if err := a.piece(o, number, within, piece); err != nil {
			return err
		}
		offset, p = offset+int64(len(piece)), p[len(piece):]
	}
	return nil
}

func (a *assembler) piece(o *object, number, within int64, piece []byte) error {
	at := spill.Place{Object: o.index, Block: number}
	if o.Size >= 0 && within == 0 && int64(len(piece)) == o.length(number) && !a.waiting.Has(at) {
		return a.emit(o, number, piece)
	}
	buffer, err := a.waiting.Buffer(at)
	if err != nil {
		return err
	}
	copy(buffer[within:], piece)
	a.mark(o, number*o.blockSize+within, int64(len(piece)))
	return a.complete(o, number)
}

// length of a block whose object's size is known.
func (o *object) length(number int64) int64 { return min(o.blockSize, o.Size-number*o.blockSize) }

// mark notes that a range was given.
func (a *assembler) mark(o *object, offset, length int64) {
	if o.blockSize <= source.SinkGrain {
		return // pieces are whole blocks
	}
	for end := offset + length; offset < end; offset += source.SinkGrain {
		a.given[o.index].set(offset / source.SinkGrain)
	}
}

// complete hands on a waiting block if all of it was given.
func (a *assembler) complete(o *object, number int64) error {
	start, length := number*o.blockSize, o.blockSize
	if o.Size >= 0 {
		length = o.length(number)
	}
	for at := start; at < start+length && o.blockSize > source.SinkGrain; at += source.SinkGrain {
		if !a.given[o.index].get(at / source.SinkGrain) {
			return nil
		}
	}
	if o.Size < 0 {
		number = a.hold(o, number)
		if number < 0 {
			return nil
		}
	}
	return a.release(o, number, length)
}

// hold keeps the highest whole block of an object of unknown size, and returns the one that is free to go, or -1.
func (a *assembler) hold(o *object, number int64) int64 {
	if number < a.held[o.index] {
		return number
	}
	free := a.held[o.index]
	a.held[o.index] = number
	return free
}

// release hands a waiting block to the workers. One that never had data is zeros and not waiting.
func (a *assembler) release(o *object, number, length int64) error {
	at := spill.Place{Object: o.index, Block: number}
	if !a.waiting.Has(at) {
		return nil
	}
	buffer, err := a.waiting.Buffer(at)
	if err != nil {
		return err
	}
	err = a.emit(o, number, buffer[:length])
	a.waiting.Drop(at)
	return err
}

func (a *assembler) emit(o *object, number int64, block []byte) error {
	data := a.pipe.buffer()
	*data = append(*data, block...)
	return a.pipe.send(a.ctx, run{object: o, number: number, data: data})
}

// Zero takes a range of zeros.
func (a *assembler) Zero(i int, offset, length int64) error {
	o, err := a.object(i)
	if err != nil {
		return err
	}
	if o.Shifting {
		return fmt.Errorf("%w: the source gave zeros of the stream %s", backup.ErrBroken, backup.EncodeName(o.Name))
	}
	if err := o.within(offset, length); err != nil {
		return err
	}
	a.pipe.task.progress.Done.Add(length)
	a.mark(o, offset, length)
	for end := offset + length; offset < end; {
		number := offset / o.blockSize
		if a.waiting.Has(spill.Place{Object: i, Block: number}) {
			if err := a.complete(o, number); err != nil {
				return err
			}
		}
		offset = (number + 1) * o.blockSize
	}
	return nil
}

// End says that the object is whole, and its size.
func (a *assembler) End(i int, size int64) error {
	o, err := a.object(i)
	if err != nil {
		return err
	}
	a.ended[i] = true
	if o.Shifting {
		if err := a.streams[i].finish(a.ctx); err != nil {
			return err
		}
		if o.Size = a.streams[i].size; o.Size != size {
			return fmt.Errorf("%w: %s has %d bytes, the source gave %d", backup.ErrBroken, backup.EncodeName(o.Name), size, o.Size)
		}
		return nil
	}
	if o.Size >= 0 && o.Size != size {
		return fmt.Errorf("%w: %s ended with %d bytes, announced %d", backup.ErrBroken, backup.EncodeName(o.Name), size, o.Size)
	}
	o.Size = size
	for _, at := range a.waiting.Waiting() {
		if at.Object != i {
			continue
		}
		if at.Block*o.blockSize >= size {
			return fmt.Errorf("%w: %s has data behind its end", backup.ErrBroken, backup.EncodeName(o.Name))
		}
		if err := a.release(o, at.Block, o.length(at.Block)); err != nil {
			return err
		}
	}
	return nil
}
