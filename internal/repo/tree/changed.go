package tree

import (
	"context"
	"iter"

	"ferry/internal/repo/format"
)

// Changed yields, ascending, the blocks of b that are not as in a, for two fixed trees of equal block size and size that
// may lie in different repositories of equal id keys. Ranges that are zeros in b and not in a come with the zero id, of any
// length. Of equal subtrees nothing is loaded.
func Changed(ctx context.Context, loadA, loadB Loader, a, b Root) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		c := &comparer{ctx: ctx, loadA: loadA, loadB: loadB, root: b, yield: yield}
		c.walk(a.Top, b.Top, b.Height-1, Block{Length: b.Size})
	}
}

type comparer struct {
	ctx          context.Context
	loadA, loadB Loader
	root         Root
	yield        func(Block, error) bool
}

// walk compares what covers a range; false ends the iteration.
func (c *comparer) walk(a, b format.ID, level int, at Block) bool {
	if a == b {
		return true
	}
	if level < 0 || b.IsZero() {
		return c.yield(Block{Offset: at.Offset, Length: at.Length, ID: b}, nil)
	}
	old, err := c.children(c.loadA, a, level, at)
	if err == nil {
		var fresh []Block
		if fresh, err = c.children(c.loadB, b, level, at); err == nil {
			return c.merge(old, fresh, level)
		}
	}
	c.yield(Block{}, &Damage{Offset: at.Offset, Length: at.Length, Err: err})
	return false
}

func (c *comparer) children(load Loader, id format.ID, level int, at Block) ([]Block, error) {
	if id.IsZero() {
		return nil, nil
	}
	return Children(c.ctx, load, c.root, id, level, at.Offset, at.Length)
}

// merge compares two nodes' children, which lie at the same offsets or are missing in one.
func (c *comparer) merge(old, fresh []Block, level int) bool {
	for len(old) > 0 || len(fresh) > 0 {
		var a, b format.ID
		var at Block
		if len(fresh) == 0 || len(old) > 0 && old[0].Offset < fresh[0].Offset {
			a, at, old = old[0].ID, old[0], old[1:]
		} else {
			if len(old) > 0 && old[0].Offset == fresh[0].Offset {
				a, old = old[0].ID, old[1:]
			}
			b, at, fresh = fresh[0].ID, fresh[0], fresh[1:]
		}
		if !c.walk(a, b, level-1, at) {
			return false
		}
	}
	return true
}
