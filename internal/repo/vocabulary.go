package repo

import (
	"context"
	"iter"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
)

// What the rooms behind this package call their things, for those outside it.
type (
	// ID is a block id, a node id or a root id. The zero id stands for zeros.
	ID = format.ID
	// Root is the tree of an object: its size, how it is cut, and the top of its nodes.
	Root = tree.Root
	// Block is a block at its place in an object.
	Block = tree.Block
	// Change says that a block of a disk has this id.
	Change = tree.Change
	// StreamBuilder builds the tree of a stream that shifts.
	StreamBuilder = tree.StreamBuilder
	// Pseudonym is the name that a machine has in the log.
	Pseudonym = format.Name
	// Entry is a point as the log has it.
	Entry = commitlog.Point
	// Claim is a job's wish to keep a point.
	Claim = commitlog.Claim
	// Cursor finds blocks of one object by offset.
	Cursor = tree.Cursor
)

// BuildDisk builds the tree of a disk of size bytes from its changes, in ascending order of blocks. Blocks that are not
// among them are as in base, which has the repository's block size; without a base they are zeros. A block whose length
// differs from the base's is among the changes.
func (in *Ingest) BuildDisk(ctx context.Context, base *Root, size int64, changes iter.Seq2[Change, error]) (Root, error) {
	return tree.BuildFixed(ctx, in, base, size, in.repo.BlockSize(), changes)
}

// NewStream begins the tree of a stream.
func (in *Ingest) NewStream() *StreamBuilder { return tree.NewStreamBuilder(in) }

// FixedBlocks is true if the object is cut in blocks of the repository's own size: only then can its tree be a base.
func (r *Repository) FixedBlocks(root *Root) bool {
	return root != nil && root.Kind == tree.KindFixed && root.BlockSize == r.BlockSize()
}

// Leaves yields an object's blocks that are not zeros, in order, some hundred at a time. A part that cannot be read is
// yielded as an error, and the walk goes on behind it.
func (r *Repository) Leaves(ctx context.Context, root Root) iter.Seq2[[]Block, error] {
	return tree.Leaves(ctx, r.treeLoader(root), root)
}

// NewCursor makes a cursor for an object.
func (r *Repository) NewCursor(root Root) *Cursor { return tree.NewCursor(r.LoadNode, root) }
