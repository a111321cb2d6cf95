package repo

import (
	"context"
	"fmt"
	"iter"
	"time"

	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
)

// Transfer takes blocks over from another repository in which equal content has equal ids: what the target's domain has is
// not read, and a frame that is proven goes over as it is, neither decompressed nor compressed again.
//
//	same data key, both open:  the frame's tag proves that a holder of the key sealed this content under this id
//	else:                      decode, compute the id again; the frame goes over if neither repository encrypts,
//	                           else the content is encoded and encrypted anew
//
// In both cases the frame's checksum must hold: it is what proves the frame to those without a key.
type Transfer struct {
	from   *Repository
	to     *Ingest
	codec  Codec
	keep   bool
	gather int
}

// NewTransfer begins to take over from a repository. Blocks that have another codec than this one are encoded anew. With keep
// they keep what they have, encrypted anew or not: somebody chose it for them, and it may have cost more time than there is
// now. Then the codec is for those of which it is not known. Each taker stores so many bytes of new frames at least one behind the other, if
// they come soon. It is nil if equal content has not equal ids in both.
func (in *Ingest) NewTransfer(from *Repository, codec Codec, keep bool, gather int) *Transfer {
	if !in.repo.hasher.SameIDs(from.hasher) {
		return nil
	}
	return &Transfer{from: from, to: in, codec: codec, keep: keep, gather: gather}
}

// Changed yields the blocks of a disk of the source that are not as in base, a disk of the target of the same size and
// block size, ascending. Ranges that are zeros now come with the zero id, of any length.
func (t *Transfer) Changed(ctx context.Context, base, root Root) iter.Seq2[Block, error] {
	load := func(ctx context.Context, id ID) ([]byte, error) { return t.to.repo.LoadNode(ctx, id) }
	return tree.Changed(ctx, load, t.from.LoadNode, base, root)
}

// Cuts yields the pieces of a stream of the source in order, zeros included, some at a time.
func (t *Transfer) Cuts(ctx context.Context, root Root) iter.Seq2[[]Block, error] {
	return tree.Cuts(ctx, t.from.treeLoader(root), root)
}

// trusts is true if a frame of a generation proves itself to the target: both repositories are open, and have the same
// data key for it.
func (t *Transfer) trusts(generation uint32) bool {
	theirs, ours := t.from.keys, t.to.repo.keys
	return theirs != nil && ours != nil && ours.ring.Load().SameDataKey(theirs.ring.Load(), generation)
}

// Taker takes blocks over. It belongs to one goroutine; make one for each.
type Taker struct {
	transfer *Transfer
	reader   *BlockReader
	wanted   []Block
	// whole is the frame that was read last, if it can go over as it is.
	whole []byte
	// codec that the block that was read last is to have, if its frame cannot go over. The transfer's is for a block that came
	// from elsewhere than the index says, because what lies there is damaged: of that the frame is not seen here.
	codec Codec
	// gathered are blocks that were read and are not stored yet, since when the first is.
	gathered Encoded
	blocks   []taken
	since    time.Time
}

// taken is a block that was read, and whether its frame goes over as it was.
type taken struct {
	block Block
	whole bool
}

// gatherTime is how long a block waits at most for others that are stored with it, unless the storage or the source is slow.
const gatherTime = 5 * time.Second

// NewTaker makes a taker.
func (t *Transfer) NewTaker() *Taker {
	taker := &Taker{transfer: t, reader: t.from.NewBlockReader(), codec: t.codec}
	taker.reader.take = taker.take
	return taker
}

// Taken says how the target has a block.
type Taken struct {
	// Read is true if it was read from the source, and Whole if its frame went over as it was.
	Read, Whole bool
	// Took is how many bytes it takes in the target; 0 if it was there already.
	Took int
}

// Take makes sure that the target has the blocks, none of which is zeros, and calls done with each, in no order. For a block
// that the source cannot give it calls failed and goes on. An error of either ends it.
func (t *Taker) Take(ctx context.Context, blocks []Block, done func(Block, Taken) error, failed func(Block, error) error) error {
	t.wanted = t.wanted[:0]
	for _, block := range blocks {
		known, err := t.transfer.to.has(ctx, block)
		if err != nil {
			return err
		}
		if !known {
			t.wanted = append(t.wanted, block)
			continue
		}
		if err := done(block, Taken{}); err != nil {
			return err
		}
	}
	err := t.reader.Read(ctx, t.wanted, func(block Block, plain []byte) error {
		if err := t.gather(ctx, block, plain); err != nil {
			return err
		}
		if t.gathered.Bytes() < t.transfer.gather && time.Since(t.since) < gatherTime {
			return nil
		}
		return t.store(ctx, done)
	}, failed)
	if storeErr := t.store(ctx, done); err == nil { // what was read is kept, also if the next cannot be
		err = storeErr
	}
	return err
}

// take proves a frame. Unless it can go over as it is, its content is in the reader then.
func (t *Taker) take(p placed, frame []byte) error {
	t.whole = nil
	from, to := t.transfer.from, t.transfer.to
	f, err := pack.CheckFrame(frame, from.hasher)
	if err != nil {
		return err
	}
	if f.ID != p.block.ID || f.Kind != pack.KindBlock || int64(f.Plain) != p.block.Length {
		return fmt.Errorf("%w: another frame than the index says", ErrCorrupt)
	}
	fits := t.transfer.keep || t.transfer.codec == f.Codec
	if fits && to.encrypts() && t.transfer.trusts(f.Generation) {
		err = from.opener.Prove(frame)
	} else {
		err = t.reader.decode(p, frame)
		fits = fits && f.Generation == 0 && !to.encrypts()
	}
	if err != nil {
		return err
	}
	if fits {
		t.whole = frame
	}
	if t.transfer.keep {
		t.codec = f.Codec
	}
	return nil
}

// gather keeps the block that was read last until it is stored: its frame, or its content encoded anew.
func (t *Taker) gather(ctx context.Context, block Block, plain []byte) error {
	whole, codec := t.whole, t.codec
	t.whole, t.codec = nil, t.transfer.codec
	if len(t.blocks) == 0 {
		t.since = time.Now()
	}
	number := int64(len(t.blocks))
	t.blocks = append(t.blocks, taken{block, whole != nil})
	if whole != nil {
		t.gathered.addFrame(number, block.ID, block.Length, whole)
		return nil
	}
	return t.transfer.to.encode(ctx, &t.gathered, number, block.ID, plain, codec)
}

// store stores what was gathered, and calls done with it.
func (t *Taker) store(ctx context.Context, done func(Block, Taken) error) error {
	defer t.gathered.Reset()
	defer func() { t.blocks = t.blocks[:0] }()
	return t.transfer.to.StoreEncoded(ctx, &t.gathered, func(b EncodedBlock, took int) error {
		of := t.blocks[b.Number]
		return done(of.block, Taken{Read: true, Whole: of.whole && took > 0, Took: took})
	})
}

// has is true if the domain has a block, or it is on its way there: a point may refer to it.
func (in *Ingest) has(ctx context.Context, block Block) (known bool, err error) {
	known, _, err = in.known(ctx, block.ID)
	if known {
		in.count(block.Length, 0)
	}
	return known, err
}

// encrypts is true if new blocks are encrypted.
func (in *Ingest) encrypts() bool { return in.sealer != nil }
