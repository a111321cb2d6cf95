package tree

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

// The numbers of blocks at which something changes, and one far behind them.
var edges = []int64{0, 1, 2, 255, 256, 257, 511, 512, 65535, 65536, 65537, 3*65536 + 300, 1<<24 - 1, 1 << 24, 1<<24 + 1, 5 << 32}

// drawDisk draws what comes after a disk: another size perhaps, and changed blocks. It returns the changes that a
// caller of BuildFixed has to give.
func drawDisk(t *rapid.T, old disk) (disk, map[int64]format.ID) {
	next := disk{size: old.size, blocks: map[int64]format.ID{}}
	if rapid.Bool().Draw(t, "resize") {
		blocks := rapid.OneOf(rapid.SampledFrom(edges), rapid.Int64Range(0, 70000)).Draw(t, "blocks")
		next.size = max(0, blocks*blockSize-rapid.Int64Range(0, blockSize-1).Draw(t, "short"))
	}
	for i, id := range old.blocks {
		if i < next.count() {
			next.blocks[i] = id
		}
	}
	changes := map[int64]format.ID{}
	if next.size == 0 {
		return next, changes
	}
	if next.size != old.size {
		for _, last := range []int64{old.count() - 1, next.count() - 1} {
			if last >= 0 && last < next.count() && old.length(last) != next.length(last) {
				changes[last] = blockID(rapid.Uint64Range(0, 3).Draw(t, "last"))
			}
		}
	}
	for range rapid.IntRange(0, 8).Draw(t, "changes") {
		block := rapid.OneOf(rapid.SampledFrom(edges), rapid.Int64Range(0, next.count())).Draw(t, "block") % next.count()
		changes[block] = blockID(rapid.Uint64Range(0, 5).Draw(t, "content"))
	}
	for i, id := range changes {
		next.blocks[i] = id
		if id.IsZero() {
			delete(next.blocks, i)
		}
	}
	return next, changes
}

func TestBuildFixedIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := newMemory()
		var base *Root
		old := disk{}
		for range rapid.IntRange(1, 4).Draw(t, "versions") {
			next, changes := drawDisk(t, old)
			nodes.forget()
			root, err := build(nodes, base, next, changes)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := next.naive()
			if root != want {
				t.Fatalf("built on %+v: %+v, want %+v", base, root, want)
			}
			if err := root.Check(); err != nil {
				t.Fatal(err)
			}
			if base != nil {
				checkLoads(t, nodes.loaded, old, next, root, changes)
			}
			if full, err := build(newMemory(), nil, next, next.blocks); err != nil || full != root {
				t.Fatalf("built from nothing: %+v, %v; want %+v", full, err, root)
			}
			got, err := collect(nodes.Load, root)
			if err != nil || !slices.Equal(got, next.wanted()) {
				t.Fatalf("leaves %v, %v; want %v", got, err, next.wanted())
			}
			base, old = &root, next
		}
	})
}

// checkLoads fails if a node of the base was loaded that neither has a change below it, nor lies at the new end, nor is
// on the way down to the new height; or if one was loaded twice.
func checkLoads(t *rapid.T, loaded []format.ID, old, next disk, root Root, changes map[int64]format.ID) {
	_, nodes := old.naive()
	may := map[format.ID]int{}
	for at, id := range nodes {
		first := at.index << (8 * (at.level + 1))
		end := (at.index + 1) << (8 * (at.level + 1))
		reason := at.level >= root.Height || (first < next.count() && end > next.count())
		for block := range changes {
			reason = reason || (first <= block && block < end)
		}
		if reason {
			may[id]++
		}
	}
	for _, id := range loaded {
		if may[id]--; may[id] < 0 {
			t.Fatalf("node %s was loaded without a reason, or once more than it stands in the base", id)
		}
	}
}

// What an incremental copy of a large disk costs: the paths to its changes, nothing else.
func TestBuildFixedLoadsPathsOnly(t *testing.T) {
	nodes, d := newMemory(), disk{size: blockSize << 24, blocks: map[int64]format.ID{}}
	for i := range int64(1000) {
		d.blocks[i*16000] = blockID(uint64(i) + 1)
	}
	base, err := build(nodes, nil, d, d.blocks)
	if err != nil || base.Height != 3 || len(nodes.loaded) != 0 {
		t.Fatalf("base %+v, %d loads, %v", base, len(nodes.loaded), err)
	}
	for _, c := range []struct {
		changes       []int64
		loads, stores int
	}{
		{nil, 0, 0},
		{[]int64{16000}, 3, 3},
		{[]int64{16000, 16001, 16002}, 3, 3},
		{[]int64{0, 160000}, 5, 5},
		{[]int64{1}, 3, 3},
	} {
		changes := map[int64]format.ID{}
		for _, block := range c.changes {
			changes[block] = blockID(1 << 40)
		}
		nodes.forget()
		if _, err := build(nodes, &base, d, changes); err != nil {
			t.Fatal(err)
		}
		if len(nodes.loaded) != c.loads || len(nodes.stored) != c.stores {
			t.Errorf("changes of %v: %d loads, %d stores; want %d and %d", c.changes, len(nodes.loaded), len(nodes.stored), c.loads, c.stores)
		}
	}
}

// An object that ends earlier at the border of a block has no change to give, and still loses what lay behind.
func TestBuildFixedShrinksWithoutChanges(t *testing.T) {
	old := disk{size: 70000 * blockSize, blocks: map[int64]format.ID{}}
	for _, i := range []int64{0, 1, 99, 100, 255, 256, 300, 511, 512, 65535, 65536, 69999} {
		old.blocks[i] = blockID(uint64(i) + 1)
	}
	for _, blocks := range []int64{69999, 65537, 65536, 65535, 600, 512, 511, 301, 300, 257, 256, 255, 100, 99, 1} {
		nodes := newMemory()
		base, err := build(nodes, nil, old, old.blocks)
		if err != nil {
			t.Fatal(err)
		}
		next := disk{size: blocks * blockSize, blocks: maps.Clone(old.blocks)}
		maps.DeleteFunc(next.blocks, func(i int64, _ format.ID) bool { return i >= blocks })
		want, _ := next.naive()
		if root, err := build(nodes, &base, next, nil); err != nil || root != want {
			t.Errorf("from %d blocks to %d: %+v, %v; want %+v", old.count(), blocks, root, err, want)
		}
		// And back: what was cut off does not come again.
		grown := disk{size: old.size, blocks: next.blocks}
		wantGrown, _ := grown.naive()
		if root, err := build(nodes, &want, grown, nil); err != nil || root != wantGrown {
			t.Errorf("from %d blocks back to %d: %+v, %v; want %+v", blocks, old.count(), root, err, wantGrown)
		}
	}
}

func TestBuildFixedRefusesLostChanges(t *testing.T) {
	id := blockID(1)
	for _, c := range []struct {
		what    string
		size    int64
		changes []Change
	}{
		{"behind the end", 2 * blockSize, []Change{{0, id}, {2, id}}},
		{"of an empty object", 0, []Change{{0, id}}},
		{"out of order", 4 * blockSize, []Change{{3, id}, {1, id}, {2, id}}},
		{"negative", blockSize, []Change{{-1, id}}},
	} {
		_, err := BuildFixed(context.Background(), newMemory(), nil, c.size, blockSize, func(yield func(Change, error) bool) {
			for _, change := range c.changes {
				if !yield(change, nil) {
					return
				}
			}
		})
		if err == nil {
			t.Errorf("a change %s was dropped without a word", c.what)
		}
	}
	twice := []Change{{0, blockID(2)}, {0, id}}
	root, err := BuildFixed(context.Background(), newMemory(), nil, blockSize, blockSize, func(yield func(Change, error) bool) {
		_ = yield(twice[0], nil) && yield(twice[1], nil)
	})
	if want, _ := (disk{size: blockSize, blocks: map[int64]format.ID{0: id}}).naive(); err != nil || root != want {
		t.Errorf("of two changes of one block the later counts: %+v, %v", root, err)
	}
}

var errStop = errors.New("stop")

func TestBuildFixedStopsOnErrors(t *testing.T) {
	d := disk{size: 1000 * blockSize, blocks: map[int64]format.ID{1: blockID(1), 999: blockID(2)}}
	nodes := newMemory()
	base, err := build(nodes, nil, d, d.blocks)
	if err != nil {
		t.Fatal(err)
	}
	failing := func(after int64) func(func(Change, error) bool) {
		return func(yield func(Change, error) bool) {
			if after == 0 || yield(Change{Block: 1, ID: blockID(9)}, nil) {
				yield(Change{}, errStop)
			}
		}
	}
	for after := range int64(2) {
		if _, err := BuildFixed(context.Background(), nodes, &base, d.size, blockSize, failing(after)); !errors.Is(err, errStop) {
			t.Errorf("changes that fail after %d: %v", after, err)
		}
	}
	whole := maps.Clone(nodes.nodes)
	for id := range whole {
		nodes.nodes = maps.Clone(whole)
		delete(nodes.nodes, id)
		if _, err := build(nodes, &base, d, d.blocks); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("without node %s of the base: %v", id, err)
		}
	}
	nodes.nodes = map[format.ID][]byte{}
	small := disk{size: blockSize}
	if _, err := build(nodes, &base, small, map[int64]format.ID{0: blockID(1)}); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("shrinking without the base's nodes: %v", err)
	}
}
