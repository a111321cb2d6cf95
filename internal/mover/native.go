package mover

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
)

// native is content that a Ferry repository holds. Where equal content has equal ids in both repositories the ids need not
// be computed from the content: the source's trees have them.
type native interface {
	// Stored is the repository and the point in it. The point's objects are the content's, in their order.
	Stored() (*repo.Repository, *repo.Point)
}

// takers of one object at a time. More than processors, because they wait for the source.
const takers = 4

// takenAtOnce is how many blocks are asked for at once: they are read in the order in which they lie in packs.
const takenAtOnce = 256

// transfer begins to take over from the repository that the task's content lies in, if that can be.
func (t *task) transfer() (*repo.Transfer, *repo.Point) {
	from, ok := t.native()
	if !ok {
		return nil, nil
	}
	repository, point := from.Stored()
	codec := repo.CodecS2
	if t.codec != nil {
		codec = *t.codec
	}
	return t.mover.ingest.NewTransfer(repository, codec, t.mover.options.Codec == CodecAuto, t.mover.gather), point
}

// native is the content as a Ferry repository has it, if it is of one.
func (t *task) native() (native, bool) {
	from, ok := source.Opened(t.content).(native)
	return from, ok
}

// batch is some blocks of an object, ascending. In a stream they are numbered from first.
type batch struct {
	first  int64
	blocks []repo.Block
}

// taking is an object on its way from one repository to another.
//
//	source's tree, where it differs from the base's  -> blocks with their ids
//	  -> takers, in parallel: known here? else its frame, proven -> open pack
type taking struct {
	task     *task
	from     *repo.Repository
	transfer *repo.Transfer
	object   *object
	root     repo.Root
	batches  chan batch
	// reached is the end of what was planned.
	reached int64
}

// takes is true if an object can be taken over block by block: it is cut as the repository cuts.
func (t *task) takes(root *repo.Root) bool {
	return root != nil && (root.BlockSize == 0 || t.mover.ingest.Repository().FixedBlocks(root))
}

// takeOver takes an object over from another repository.
func (t *task) takeOver(ctx context.Context, transfer *repo.Transfer, o *object, root repo.Root) error {
	o.Size = root.Size
	if o.base != nil && o.base.Size != root.Size {
		o.base = nil // what is equal is known by its ids all the same
	}
	content, _ := t.native()
	from, _ := content.Stored()
	k := &taking{task: t, from: from, transfer: transfer, object: o, root: root, batches: make(chan batch)}
	workers := takers
	if t.sealed() {
		workers = 1
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error { return k.take(ctx) })
	}
	group.Go(func() error {
		defer close(k.batches)
		return k.plan(ctx)
	})
	return group.Wait()
}

// plan sends what may have to be read.
func (k *taking) plan(ctx context.Context) error {
	var err error
	switch {
	case k.object.Shifting:
		err = k.planStream(ctx)
	case k.object.base != nil:
		err = k.planChanged(ctx)
	default:
		err = k.planAll(ctx)
	}
	if err == nil {
		k.reach(repo.Block{Offset: k.root.Size})
	}
	return err
}

func (k *taking) planAll(ctx context.Context) error {
	for blocks, err := range k.from.Leaves(ctx, k.root) {
		if err != nil {
			return k.place(err)
		}
		k.reach(blocks...)
		if err := k.send(ctx, batch{blocks: blocks}); err != nil {
			return err
		}
	}
	return nil
}

func (k *taking) planChanged(ctx context.Context) error {
	var next batch
	for block, err := range k.transfer.Changed(ctx, *k.object.base, k.root) {
		if err != nil {
			return k.place(err)
		}
		k.reach(block)
		if block.ID.IsZero() {
			k.task.progress.Done.Add(block.Length)
			if err := k.zeros(block); err != nil {
				return err
			}
			continue
		}
		if next.blocks = append(next.blocks, block); len(next.blocks) == takenAtOnce {
			if err := k.send(ctx, next); err != nil {
				return err
			}
			next.blocks = nil
		}
	}
	return k.send(ctx, next)
}

// planStream numbers the pieces of a stream as they follow each other.
func (k *taking) planStream(ctx context.Context) error {
	number := int64(0)
	for pieces, err := range k.transfer.Cuts(ctx, k.root) {
		if err != nil {
			return k.place(err)
		}
		k.reach(pieces...)
		if err := k.send(ctx, batch{first: number, blocks: pieces}); err != nil {
			return err
		}
		number += int64(len(pieces))
	}
	return nil
}

// zeros notes a range that is zeros now, and was not in the base.
func (k *taking) zeros(r repo.Block) error {
	size := k.object.blockSize
	for at := r.Offset; at < r.Offset+r.Length; at += size {
		if err := k.object.put(at/size, repo.ID{}, 0); err != nil {
			return err
		}
	}
	return nil
}

// reach counts what lies before blocks that are planned now and need not be dealt with: holes, or what is as in the base.
func (k *taking) reach(blocks ...repo.Block) {
	for _, block := range blocks {
		gap := block.Offset - k.reached
		k.task.progress.Done.Add(gap)
		if k.object.base != nil {
			k.task.unchanged.Add(gap)
		}
		k.reached = block.Offset + block.Length
	}
}

func (k *taking) send(ctx context.Context, next batch) error {
	select {
	case k.batches <- next:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take takes batches over until there are no more.
func (k *taking) take(ctx context.Context) error {
	taker := k.transfer.NewTaker()
	var wanted []repo.Block
	for next := range k.batches {
		wanted = wanted[:0]
		for _, block := range next.blocks {
			if !block.ID.IsZero() {
				wanted = append(wanted, block)
			} else if err := k.done(next, block, repo.Taken{}); err != nil {
				return err
			}
		}
		err := taker.Take(ctx, wanted, func(block repo.Block, taken repo.Taken) error { return k.done(next, block, taken) },
			func(block repo.Block, err error) error { return k.place(&backup.Error{Offset: block.Offset, Err: err}) })
		if err != nil {
			return err
		}
	}
	return nil
}

// done notes a block that the target has now.
func (k *taking) done(of batch, block repo.Block, taken repo.Taken) error {
	number := block.Offset / max(k.object.blockSize, 1)
	if k.object.Shifting {
		i, _ := slices.BinarySearchFunc(of.blocks, block.Offset, func(b repo.Block, offset int64) int { return cmp.Compare(b.Offset, offset) })
		number = of.first + int64(i)
	}
	k.task.progress.Done.Add(block.Length)
	if taken.Read {
		k.task.read.Add(block.Length)
	}
	if taken.Whole {
		k.task.whole.Add(1)
	}
	k.task.count(block.Length, taken.Took)
	return k.task.noted(k.object, number, block.ID, block.Length)
}

func (k *taking) place(err error) error {
	offset := backup.NoOffset
	if at, ok := err.(*backup.Error); ok { //nolint:errorlint // made right here
		offset, err = at.Offset, at.Err
	}
	return place(k.task.point, k.object.Name, offset, &backup.Error{Offset: offset, Err: err, Hint: "run ferry verify on " + k.from.Location()})
}
