package repo

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/processors"
	"ferry/internal/repo/tree"
)

// RootID returns the id of a tree's root in hex. It proves the object's size and every byte.
func (r *Repository) RootID(root tree.Root) string { return root.ID(r.hasher).String() }

// Sink takes what one goroutine reads of an object.
type Sink interface {
	// Room returns memory for a block's content, empty and with capacity for it, so that it need not be copied; nil: the
	// reader has its own.
	Room(block tree.Block) []byte
	// Use takes a block's proven content, which is valid until it returns, and lies in the room that was given last if it
	// could be put there. Blocks that were read together come in the object's order.
	Use(block tree.Block, plain []byte) error
	// End comes behind the last block, unless an error ended the reading.
	End() error
}

// ReadObject reads all blocks of an object that are not zeros, in parallel: each goroutine makes a sink, and gives it each
// block that it has read and proven. done is told how many bytes are dealt with, zeros included. The first
// block that cannot be read ends it, with an error that wraps backup.ErrDamaged and has the offset.
func (r *Repository) ReadObject(ctx context.Context, root tree.Root, sink func() Sink, done func(int64)) error {
	return r.ReadObjectPast(ctx, root, sink, done, func(offset, _ int64, err error) error {
		return &backup.Error{Offset: offset, Err: err, Hint: damagedHint(r)}
	})
}

// ReadObjectPast is ReadObject that goes on behind what cannot be read, for whatever reason: damaged is told of each such
// range, from several goroutines, and ends the reading if it returns an error.
func (r *Repository) ReadObjectPast(ctx context.Context, root tree.Root, sink func() Sink, done func(int64), damaged func(offset, length int64, err error) error) error {
	group, ctx := errgroup.WithContext(ctx)
	leaves := make(chan []tree.Block)
	for range processors.Number() {
		group.Go(func() error {
			reader, sink := r.NewBlockReader(), sink()
			reader.room = sink.Room
			for blocks := range leaves {
				err := reader.Read(ctx, blocks, func(block tree.Block, plain []byte) error {
					done(block.Length)
					return sink.Use(block, plain)
				}, func(block tree.Block, err error) error {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					done(block.Length)
					return damaged(block.Offset, block.Length, err)
				})
				if err != nil {
					return err
				}
			}
			return sink.End()
		})
	}
	group.Go(func() error {
		defer close(leaves)
		reached := int64(0)
		for blocks, err := range r.Leaves(ctx, root) {
			var damage *tree.Damage
			if errors.As(err, &damage) && ctx.Err() == nil {
				done(damage.Offset + damage.Length - reached)
				reached = damage.Offset + damage.Length
				if err := damaged(damage.Offset, damage.Length, err); err != nil {
					return err
				}
				continue
			}
			if err != nil {
				return err
			}
			for _, block := range blocks {
				done(block.Offset - reached) // the hole before it
				reached = block.Offset + block.Length
			}
			select {
			case leaves <- blocks:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		done(root.Size - reached)
		return nil
	})
	return group.Wait()
}

func damagedHint(r *Repository) string {
	return "ferry verify " + r.store.Location() + " lists all that is damaged; copying the point again from its source, or another copy of it, mends it"
}
