package tree

import (
	"context"
	"fmt"
	"iter"

	"ferry/internal/repo/format"
)

// Nodes reads and stores nodes. Load returns a node's bytes, proven to have that id; Store returns the node's id.
type Nodes interface {
	Load(ctx context.Context, id format.ID) ([]byte, error)
	Store(ctx context.Context, node []byte) (format.ID, error)
}

// Change says that a block has this id; the zero id means zeros.
type Change struct {
	Block int64
	ID    format.ID
}

// BuildFixed builds the tree of an object of size bytes, given its changes in ascending order of blocks. Blocks that
// are not among the changes are as in base; without a base they are zeros.
//
// The base must have the same block size, and the caller gives as a change every block whose length differs from the
// base's (the last block of either, where the sizes differ). Subtrees without changes are taken over unread.
//
//	level 1:        P                       the recursion descends only where a change lies, or where the
//	              / | \                     object ends inside a subtree of the base; everything
//	level 0:     L  L  L'  <- changes       else is one id taken over.
func BuildFixed(ctx context.Context, nodes Nodes, base *Root, size, blockSize int64, changes iter.Seq2[Change, error]) (Root, error) {
	root := Root{Kind: KindFixed, BlockSize: blockSize, Size: size}
	root.Height = HeightFor(root.Blocks())
	next, stop := iter.Pull2(changes)
	defer stop()
	b := &builder{ctx: ctx, nodes: nodes, blocks: root.Blocks(), next: next}
	if err := b.advance(); err != nil {
		return root, err
	}
	if root.Height == 0 {
		return root, b.finished()
	}
	from := baseRef{}
	if base != nil && !base.Top.IsZero() {
		from = baseRef{id: base.Top, level: base.Height - 1}
		for from.level > root.Height-1 && !from.id.IsZero() {
			node, err := b.load(from)
			if err != nil {
				return root, err
			}
			from = baseRef{id: node.Children[0], level: from.level - 1}
		}
	}
	var err error
	if root.Top, err = b.build(root.Height-1, 0, from); err != nil {
		return root, err
	}
	return root, b.finished()
}

// baseRef is a node of the base. Its level may be below the one asked for: then it stands for a chain of parents that
// have only a first child.
type baseRef struct {
	id    format.ID
	level int
}

type builder struct {
	ctx     context.Context
	nodes   Nodes
	blocks  int64
	next    func() (Change, error, bool)
	change  Change
	pending bool
}

func (b *builder) advance() error {
	change, err, ok := b.next()
	b.change, b.pending = change, ok && err == nil
	return err
}

// finished returns an error if a change is left over: it would be lost without a word.
func (b *builder) finished() error {
	if b.pending {
		return fmt.Errorf("tree: change of block %d is out of order, or behind the object's %d blocks", b.change.Block, b.blocks)
	}
	return nil
}

func (b *builder) load(ref baseRef) (Node, error) {
	raw, err := b.nodes.Load(b.ctx, ref.id)
	if err != nil {
		return Node{}, err
	}
	return ParseNode(raw, KindFixed, ref.level)
}

// build returns the id of node number index at a level, consuming the changes below it.
func (b *builder) build(level int, index int64, base baseRef) (format.ID, error) {
	span := int64(1) << (8 * level) // blocks below one child
	first := index * span * Fanout
	end := first + span*Fanout
	touched := b.pending && b.change.Block < end
	if !touched && (base.id.IsZero() || (base.level == level && end <= b.blocks)) {
		return base.id, nil
	}
	var old Node
	if !base.id.IsZero() && base.level == level {
		var err error
		if old, err = b.load(base); err != nil {
			return format.ID{}, err
		}
	}
	var children [Fanout]format.ID
	for i := range int64(Fanout) {
		if first+i*span >= b.blocks {
			break
		}
		child := baseRef{}
		switch {
		case old.Children != nil:
			child = baseRef{id: old.Children[i], level: level - 1}
		case i == 0 && !base.id.IsZero():
			child = base
		}
		var err error
		if children[i], err = b.child(level, index*Fanout+i, child); err != nil {
			return format.ID{}, err
		}
	}
	node := encodeFixed(level, &children)
	if node == nil {
		return format.ID{}, nil
	}
	return b.nodes.Store(b.ctx, node)
}

// child returns the id of a node below level, or at level 0 of a block.
func (b *builder) child(level int, index int64, base baseRef) (format.ID, error) {
	if level > 0 {
		return b.build(level-1, index, base)
	}
	id := base.id
	for b.pending && b.change.Block == index {
		id = b.change.ID
		if err := b.advance(); err != nil {
			return id, err
		}
	}
	return id, nil
}

// StreamBuilder builds the tree of a stream from its blocks in order.
type StreamBuilder struct {
	nodes  Nodes
	levels [][]Entry
	size   int64
}

// NewStreamBuilder begins a stream.
func NewStreamBuilder(nodes Nodes) *StreamBuilder { return &StreamBuilder{nodes: nodes} }

// Add appends a block of at most format.MaxBlock bytes; the zero id means zeros.
func (s *StreamBuilder) Add(ctx context.Context, id format.ID, length int64) error {
	if length < 1 || length > format.MaxBlock {
		return fmt.Errorf("tree: stream block of %d bytes", length)
	}
	s.size += length
	return s.add(ctx, 0, Entry{ID: id, Length: length})
}

// A node of a stream ends after an entry whose id says so, but has at least minEntries: each level is at most a
// sixteenth of the one below, so the height is bounded whatever the ids are.
const (
	minEntries   = 16
	endThreshold = 2
)

func (s *StreamBuilder) add(ctx context.Context, level int, entry Entry) error {
	if level == len(s.levels) {
		s.levels = append(s.levels, nil)
	}
	s.levels[level] = append(s.levels[level], entry)
	n := len(s.levels[level])
	if n == Fanout || (n >= minEntries && entry.ID[31] < endThreshold) {
		return s.close(ctx, level)
	}
	return nil
}

// close writes the level's node and hands its entry to the level above.
func (s *StreamBuilder) close(ctx context.Context, level int) error {
	entries := s.levels[level]
	if len(entries) == 0 {
		return nil
	}
	length := int64(0)
	for _, e := range entries {
		length += e.Length
	}
	id, err := s.nodes.Store(ctx, encodeStream(level, entries))
	if err != nil {
		return err
	}
	s.levels[level] = entries[:0]
	return s.add(ctx, level+1, Entry{ID: id, Length: length})
}

// Finish returns the stream's root.
func (s *StreamBuilder) Finish(ctx context.Context) (Root, error) {
	root := Root{Kind: KindStream, Size: s.size}
	if s.size == 0 {
		return root, nil
	}
	for level := 0; ; level++ {
		top := level > 0 && level == len(s.levels)-1 && len(s.levels[level]) == 1
		if top {
			root.Height, root.Top = level, s.levels[level][0].ID
			return root, nil
		}
		if err := s.close(ctx, level); err != nil {
			return root, err
		}
	}
}
