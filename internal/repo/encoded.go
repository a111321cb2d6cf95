package repo

import (
	"context"
	"errors"
	"math"

	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
)

// Encoded are blocks that were encoded and are not stored yet, to be stored one behind the other. It may be used again after Reset. The zero
// value has room for none yet.
type Encoded struct {
	blocks []EncodedBlock
	// frames of those that were not known, one behind the other; room is for how many bytes there is to be room when the first comes.
	frames []byte
	room   int
	// absent is what reserve is told of them.
	absent int
}

// EncodedBlock is one of them.
type EncodedBlock struct {
	Number int64     // the caller's
	ID     format.ID // zero: it is zeros
	Length int64     // before it was encoded
	known  bool
	end    int // of its frame
}

// NewEncoded has room for so many blocks, of so many bytes together. It takes memory for these when the first is not known.
func NewEncoded(blocks, bytes int) *Encoded {
	room := bytes + bytes/blocks/4 + blocks*(pack.FrameHeaderSize+64) // a codec wants more than what it makes
	return &Encoded{blocks: make([]EncodedBlock, 0, blocks), room: room, absent: math.MaxInt}
}

// Reset forgets the blocks.
func (e *Encoded) Reset() { e.blocks, e.frames, e.absent = e.blocks[:0], e.frames[:0], math.MaxInt }

// Bytes is how many bytes the frames have.
func (e *Encoded) Bytes() int { return len(e.frames) }

// Blocks is how many there are.
func (e *Encoded) Blocks() int { return len(e.blocks) }

// Append adds the blocks of another.
func (e *Encoded) Append(other *Encoded) {
	e.absent = min(e.absent, other.absent)
	for _, b := range other.blocks {
		b.end += len(e.frames)
		e.blocks = append(e.blocks, b)
	}
	e.frames = append(e.frames, other.frames...)
}

// AddZeros adds a block of zeros, of which nothing is stored.
func (e *Encoded) AddZeros(number, length int64) {
	e.blocks = append(e.blocks, EncodedBlock{Number: number, Length: length, known: true, end: len(e.frames)})
}

// addFrame adds a block that is not known to be there, as the frame that was made of it.
func (e *Encoded) addFrame(number int64, id format.ID, length int64, frame []byte) {
	e.frames = append(e.frames, frame...)
	e.blocks = append(e.blocks, EncodedBlock{Number: number, ID: id, Length: length, end: len(e.frames)})
	e.absent = notLooked
}

// Encode adds a block, for StoreEncoded. It is encoded unless it is there already.
func (in *Ingest) Encode(ctx context.Context, e *Encoded, number int64, plain []byte, codec Codec) error {
	return in.encode(ctx, e, number, in.BlockID(plain), plain, codec)
}

// encode is Encode with the block's id.
func (in *Ingest) encode(ctx context.Context, e *Encoded, number int64, id format.ID, plain []byte, codec Codec) error {
	known, absent, err := in.known(ctx, id)
	if err != nil {
		return err
	}
	e.absent = min(e.absent, absent)
	if !known {
		if e.frames == nil {
			e.frames = make([]byte, 0, e.room)
		}
		e.frames = pack.AppendFrame(e.frames, in.repo.hasher, in.sealer, pack.KindBlock, codec, id, plain)
	}
	e.blocks = append(e.blocks, EncodedBlock{Number: number, ID: id, Length: int64(len(plain)), known: known, end: len(e.frames)})
	return nil
}

// StoreEncoded makes sure that blocks are stored that were encoded, those that are new one behind the other: what several callers store
// at once does not lie mixed. It is to be called once for them. It calls stored with each block, in order, when it is: took is how many bytes it takes, 0
// if it was there already. An error of stored ends it.
func (in *Ingest) StoreEncoded(ctx context.Context, e *Encoded, stored func(b EncodedBlock, took int) error) error {
	if err := errors.Join(ctx.Err(), in.Failed()); err != nil {
		return err
	}
	if len(e.frames) > 0 {
		select {
		case in.storing <- struct{}{}:
			defer func() { <-in.storing }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	begin := 0
	for _, b := range e.blocks {
		frame, took := e.frames[begin:b.end], 0
		begin = b.end
		switch {
		case b.ID.IsZero():
		case b.known:
			in.count(b.Length, 0)
		default:
			var err error
			if took, err = in.storeFrame(ctx, b.ID, b.Length, frame, e.absent); err != nil {
				return err
			}
		}
		if err := stored(b, took); err != nil {
			return err
		}
	}
	return nil
}
