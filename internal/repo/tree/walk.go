package tree

import (
	"context"
	"fmt"
	"iter"

	"ferry/internal/repo/format"
)

// Loader reads a node's bytes, proven to have that id.
type Loader func(ctx context.Context, id format.ID) ([]byte, error)

// Block is a block at its place in an object.
type Block struct {
	// Offset and Length in the object, in bytes.
	Offset, Length int64
	// ID of the block; zero for zeros.
	ID format.ID
}

// Leaves yields the object's leaves in order, each as its blocks that are not zeros. A node that cannot be read is
// yielded as an error with the range it covers (Damage), and the walk goes on behind it.
func Leaves(ctx context.Context, load Loader, root Root) iter.Seq2[[]Block, error] {
	return leaves(ctx, load, root, false)
}

// Cuts yields a stream's leaves in order as Leaves does, each with its zeros too: all that is needed to build it again.
func Cuts(ctx context.Context, load Loader, root Root) iter.Seq2[[]Block, error] {
	return leaves(ctx, load, root, true)
}

func leaves(ctx context.Context, load Loader, root Root, zeros bool) iter.Seq2[[]Block, error] {
	return func(yield func([]Block, error) bool) {
		if err := root.Check(); err != nil {
			yield(nil, &Damage{Offset: 0, Length: root.Size, Err: err})
			return
		}
		if root.Top.IsZero() {
			return
		}
		w := &walker{ctx: ctx, load: load, root: root, zeros: zeros, yield: yield}
		w.walk(root.Top, root.Height-1, 0, root.Size)
	}
}

// Damage is a range of an object that cannot be read because a tree node is missing or corrupt.
type Damage struct {
	// Offset and Length in the object, in bytes.
	Offset, Length int64
	Err            error
}

// Error says which range is unreadable.
func (d *Damage) Error() string {
	return fmt.Sprintf("tree node for bytes %d to %d: %v", d.Offset, d.Offset+d.Length, d.Err)
}

// Unwrap gives the cause.
func (d *Damage) Unwrap() error { return d.Err }

type walker struct {
	ctx   context.Context
	load  Loader
	root  Root
	zeros bool
	yield func([]Block, error) bool
}

// walk visits the node that covers length bytes from offset; false ends the iteration.
func (w *walker) walk(id format.ID, level int, offset, length int64) bool {
	below, err := children(w.ctx, w.load, w.root, id, level, offset, length, w.zeros)
	if err != nil {
		return w.yield(nil, &Damage{Offset: offset, Length: length, Err: err}) && w.ctx.Err() == nil
	}
	if level == 0 {
		return w.yield(below, nil)
	}
	for _, child := range below {
		if !w.walk(child.ID, level-1, child.Offset, child.Length) {
			return false
		}
	}
	return true
}

// Children reads a node of an object, which covers length bytes from offset, and returns its existing children as ranges
// of the object, clipped to its size. Errors of content wrap format.ErrCorrupt.
func Children(ctx context.Context, load Loader, root Root, id format.ID, level int, offset, length int64) ([]Block, error) {
	return children(ctx, load, root, id, level, offset, length, false)
}

func children(ctx context.Context, load Loader, root Root, id format.ID, level int, offset, length int64, zeros bool) ([]Block, error) {
	raw, err := load(ctx, id)
	if err != nil {
		return nil, err
	}
	node, err := ParseNode(raw, root.Kind, level)
	if err != nil {
		return nil, err
	}
	found := make([]Block, 0, Fanout)
	if root.Kind == KindStream {
		at := offset
		for _, e := range node.Entries {
			if e.Length > offset+length-at { // here and not at the end: sums of hostile lengths overflow
				return nil, fmt.Errorf("%w: stream node covers more than %d bytes", format.ErrCorrupt, length)
			}
			if !e.ID.IsZero() || level > 0 || zeros {
				found = append(found, Block{Offset: at, Length: e.Length, ID: e.ID})
			}
			at += e.Length
		}
		if at != offset+length {
			return nil, fmt.Errorf("%w: stream node covers %d bytes, not %d", format.ErrCorrupt, at-offset, length)
		}
		return found, nil
	}
	span := root.BlockSize << (8 * level)
	for i, child := range node.Children {
		if child.IsZero() {
			continue
		}
		if int64(i) > (length-1)/span { // not by its offset, which can overflow
			return nil, fmt.Errorf("%w: tree node with a child behind the object's end", format.ErrCorrupt)
		}
		at := offset + int64(i)*span
		found = append(found, Block{Offset: at, Length: min(span, root.Size-at), ID: child})
	}
	return found, nil
}

// Cursor finds blocks of one object by offset. It remembers the path to the last one, so that going forward loads each
// node once. It belongs to one goroutine.
type Cursor struct {
	load Loader
	root Root
	path []cached // by level
}

type cached struct {
	Block
	children []Block
}

// NewCursor makes a cursor for an object.
func NewCursor(load Loader, root Root) *Cursor {
	return &Cursor{load: load, root: root, path: make([]cached, root.Height)}
}

// At returns the block or the hole that covers the offset. A hole has the zero id and reaches to the next block or to
// where the cursor stopped looking; its length is at least 1.
func (c *Cursor) At(ctx context.Context, offset int64) (Block, error) {
	if offset < 0 || offset >= c.root.Size {
		return Block{}, fmt.Errorf("offset %d in an object of %d bytes", offset, c.root.Size)
	}
	at := Block{Offset: 0, Length: c.root.Size, ID: c.root.Top}
	for level := c.root.Height - 1; level >= 0; level-- {
		if at.ID.IsZero() {
			break
		}
		here := &c.path[level]
		if here.children == nil || here.Block != at {
			children, err := Children(ctx, c.load, c.root, at.ID, level, at.Offset, at.Length)
			if err != nil {
				return at, &Damage{Offset: at.Offset, Length: at.Length, Err: err}
			}
			here.Block, here.children = at, children
		}
		at = childAt(at, here.children, offset)
	}
	return at, nil
}

// childAt finds the child, or the hole between children, that covers the offset.
func childAt(parent Block, children []Block, offset int64) Block {
	low, high := 0, len(children)
	for low < high {
		middle := (low + high) / 2
		if children[middle].Offset+children[middle].Length <= offset {
			low = middle + 1
		} else {
			high = middle
		}
	}
	start, end := parent.Offset, parent.Offset+parent.Length
	if low > 0 {
		start = children[low-1].Offset + children[low-1].Length
	}
	if low < len(children) {
		if children[low].Offset <= offset {
			return children[low]
		}
		end = children[low].Offset
	}
	return Block{Offset: start, Length: end - start}
}
