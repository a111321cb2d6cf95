package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

func drawBuilt(t *rapid.T, nodes *memory) (disk, Root) {
	d, _ := drawDisk(t, disk{})
	for range rapid.IntRange(0, 2).Draw(t, "more") {
		d, _ = drawDisk(t, d)
	}
	root, err := build(nodes, nil, d, d.blocks)
	if err != nil {
		t.Fatal(err)
	}
	return d, root
}

func TestCursorFindsBlocksAndHoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := newMemory()
		d, root := drawBuilt(t, nodes)
		cursor := NewCursor(nodes.Load, root)
		for _, outside := range []int64{-1, d.size, d.size + 1} {
			if _, err := cursor.At(context.Background(), outside); err == nil {
				t.Fatalf("offset %d of %d gave no error", outside, d.size)
			}
		}
		if d.size == 0 {
			return
		}
		for range 20 {
			offset := rapid.Int64Range(0, d.size-1).Draw(t, "offset")
			if rapid.Bool().Draw(t, "near") && len(d.blocks) > 0 {
				at := rapid.SampledFrom(d.wanted()).Draw(t, "block")
				offset = min(d.size-1, max(0, at.Offset+rapid.Int64Range(-1, blockSize).Draw(t, "off")))
			}
			got, err := cursor.At(context.Background(), offset)
			if err != nil {
				t.Fatal(err)
			}
			checkAt(t, d, offset, got)
		}
	})
}

func checkAt(t *rapid.T, d disk, offset int64, got Block) {
	end := got.Offset + got.Length
	if got.Offset > offset || end <= offset || got.Offset < 0 || end > d.size {
		t.Fatalf("at %d of %d: %+v does not cover it", offset, d.size, got)
	}
	block := offset / blockSize
	if id, ok := d.blocks[block]; ok || !got.ID.IsZero() {
		if want := (Block{Offset: block * blockSize, Length: d.length(block), ID: id}); got != want {
			t.Fatalf("at %d: %+v, want %+v", offset, got, want)
		}
		return
	}
	for _, other := range d.wanted() {
		if other.Offset < end && got.Offset < other.Offset+other.Length {
			t.Fatalf("at %d: the hole %+v has the block %+v in it", offset, got, other)
		}
	}
}

func TestCursorLoadsEachNodeOnce(t *testing.T) {
	nodes, d := newMemory(), disk{size: 70000 * blockSize, blocks: map[int64]format.ID{}}
	for i := int64(0); i < d.count(); i += 100 {
		d.blocks[i] = blockID(uint64(i) + 1)
	}
	root, err := build(nodes, nil, d, d.blocks)
	if err != nil {
		t.Fatal(err)
	}
	cursor, found := NewCursor(nodes.Load, root), 0
	for offset := int64(0); offset < d.size; {
		at, err := cursor.At(context.Background(), offset)
		if err != nil {
			t.Fatal(err)
		}
		if !at.ID.IsZero() {
			found++
		}
		offset = at.Offset + at.Length
	}
	if found != len(d.blocks) || len(nodes.loaded) != len(nodes.stored) {
		t.Errorf("found %d blocks of %d with %d loads of %d nodes", found, len(d.blocks), len(nodes.loaded), len(nodes.stored))
	}
}

func TestChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := newMemory()
		a, rootA := drawBuilt(t, nodes)
		b := a
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			b, _ = drawDisk(t, b)
		}
		rootB, err := build(nodes, nil, b, b.blocks)
		if err != nil {
			t.Fatal(err)
		}
		if a.size != b.size {
			return
		}
		var ranges []Block
		end := int64(0)
		for at, err := range Changed(context.Background(), nodes.Load, nodes.Load, rootA, rootB) {
			if err != nil || at.Offset < end || at.Offset+at.Length > a.size {
				t.Fatalf("range %+v behind %d, %v", at, end, err)
			}
			if !at.ID.IsZero() && (at.Length > blockSize || at.ID != b.blocks[at.Offset/blockSize]) {
				t.Fatalf("%+v is no block of what is compared", at)
			}
			end = at.Offset + at.Length
			ranges = append(ranges, at)
		}
		differ := map[int64]bool{}
		for _, d := range []disk{a, b} {
			for i := range d.blocks {
				if a.blocks[i] != b.blocks[i] {
					differ[i] = true
				}
			}
		}
		covered := 0
		for _, at := range ranges {
			inside := 0
			for i := range differ {
				if offset := i * blockSize; offset >= at.Offset && offset < at.Offset+at.Length {
					inside++
				}
			}
			if inside == 0 {
				t.Fatalf("nothing differs in %+v", at)
			}
			covered += inside
		}
		if covered != len(differ) {
			t.Fatalf("%d of %d differing blocks are in %v", covered, len(differ), ranges)
		}
	})
}

func TestChangedLoadsOnlyWhatDiffers(t *testing.T) {
	nodes, d := newMemory(), disk{size: 70000 * blockSize, blocks: map[int64]format.ID{}}
	for i := int64(0); i < d.count(); i += 100 {
		d.blocks[i] = blockID(uint64(i) + 1)
	}
	a, err := build(nodes, nil, d, d.blocks)
	if err != nil {
		t.Fatal(err)
	}
	b, err := build(nodes, &a, d, map[int64]format.ID{100: blockID(1 << 40), 600: {}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		other Root
		want  []Block
		loads int
	}{
		{a, nil, 0},
		{b, []Block{{100 * blockSize, blockSize, blockID(1 << 40)}, {600 * blockSize, blockSize, format.ID{}}}, 2 * (2 + 2)},
		{Root{Kind: KindFixed, Height: 3, BlockSize: blockSize, Size: d.size}, []Block{{0, d.size, format.ID{}}}, 0},
	} {
		nodes.forget()
		var got []Block
		for at, err := range Changed(context.Background(), nodes.Load, nodes.Load, a, c.other) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, at)
		}
		if !slices.Equal(got, c.want) || len(nodes.loaded) != c.loads {
			t.Errorf("differences %v with %d loads, want %v with %d", got, len(nodes.loaded), c.want, c.loads)
		}
	}
	delete(nodes.nodes, b.Top)
	for _, err := range Changed(context.Background(), nodes.Load, nodes.Load, a, b) {
		var damage *Damage
		if !errors.As(err, &damage) || damage.Length != d.size || !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("without the top node: %v", err)
		}
	}
	for range Changed(context.Background(), nodes.Load, nodes.Load, a, Root{}) {
		break // leaving a walk early must not hang or panic
	}
}

// A lost node costs the range below it, and the walk goes on behind it.
func TestLeavesGoOnBehindDamage(t *testing.T) {
	nodes, d := newMemory(), disk{size: 600*blockSize + 1, blocks: map[int64]format.ID{}}
	for i := range d.count() {
		d.blocks[i] = blockID(uint64(i) + 1)
	}
	root, err := build(nodes, nil, d, d.blocks)
	if err != nil {
		t.Fatal(err)
	}
	whole := nodes.nodes
	for _, c := range []struct {
		lost   place
		offset int64
		length int64
	}{
		{place{0, 0}, 0, 256 * blockSize},
		{place{0, 1}, 256 * blockSize, 256 * blockSize},
		{place{0, 2}, 512 * blockSize, 88*blockSize + 1},
		{place{1, 0}, 0, d.size},
	} {
		_, places := d.naive()
		nodes.nodes = map[format.ID][]byte{}
		for id, node := range whole {
			if id != places[c.lost] {
				nodes.nodes[id] = node
			}
		}
		covered, damages := int64(0), 0
		for leaf, err := range Leaves(context.Background(), nodes.Load, root) {
			var damage *Damage
			if errors.As(err, &damage) {
				damages++
				if damage.Offset != c.offset || damage.Length != c.length || !errors.Is(err, format.ErrCorrupt) {
					t.Errorf("without %+v: %v", c.lost, damage)
				}
			}
			for _, block := range leaf {
				covered += block.Length
			}
		}
		if damages != 1 || covered != d.size-c.length {
			t.Errorf("without %+v: %d damages, %d bytes covered", c.lost, damages, covered)
		}
		cursor := NewCursor(nodes.Load, root)
		if _, err := cursor.At(context.Background(), c.offset); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("without %+v: the cursor says %v", c.lost, err)
		}
	}
	nodes.nodes = whole
	for range Leaves(context.Background(), nodes.Load, root) {
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	yielded := 0
	for range Leaves(ctx, func(ctx context.Context, _ format.ID) ([]byte, error) { return nil, ctx.Err() }, root) {
		yielded++
	}
	if yielded != 1 {
		t.Errorf("a cancelled walk yielded %d times", yielded)
	}
}

// Nodes that parse but do not fit the object: what they say lies behind its end, even where offsets overflow.
func TestWalksRefuseNodesThatDoNotFit(t *testing.T) {
	fixed := func(level int, children ...int) []byte {
		var ids [Fanout]format.ID
		for _, i := range children {
			ids[i] = blockID(uint64(i) + 1)
		}
		return encodeFixed(level, &ids)
	}
	root := func(kind Kind, size, block int64) Root {
		r := Root{Kind: kind, Size: size, BlockSize: block, Height: 2}
		if kind == KindFixed {
			r.Height = HeightFor(r.Blocks())
		}
		return r
	}
	const half = 1 << 62
	for _, c := range []struct {
		what string
		root Root
		top  []byte
	}{
		{"block behind the end", root(KindFixed, 2*blockSize, blockSize), fixed(0, 0, 2)},
		{"leaf behind the end", root(KindFixed, 300*blockSize, blockSize), fixed(1, 2)},
		{"offset that overflows to negative", root(KindFixed, math.MaxInt64, blockSize), fixed(6, 0, 8)},
		{"offset that overflows to 0", root(KindFixed, math.MaxInt64, blockSize), fixed(6, 0, 16)},
		{"offset that overflows with large blocks", root(KindFixed, math.MaxInt64, format.MaxBlockSize), fixed(5, 4)},
		{"stream that is short", root(KindStream, 10, 0), encodeStream(1, []Entry{{blockID(1), 9}})},
		{"stream that is long", root(KindStream, 10, 0), encodeStream(1, []Entry{{blockID(1), 9}, {blockID(2), 2}})},
		{"stream whose sum overflows", root(KindStream, 10, 0), encodeStream(1, []Entry{
			{blockID(1), half}, {blockID(2), half}, {blockID(3), half}, {blockID(4), half}, {blockID(5), 10},
		})},
	} {
		nodes := newMemory()
		c.root.Top, _ = nodes.Store(context.Background(), c.top)
		if err := c.root.Check(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		// The node itself, not what lies below it: that its children are not there would be an error too.
		if blocks, err := Children(t.Context(), nodes.Load, c.root, c.root.Top, c.root.Height-1, 0, c.root.Size); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: children %v, %v", c.what, blocks, err)
		}
		nodes.forget()
		if blocks, err := collect(nodes.Load, c.root); !errors.Is(err, format.ErrCorrupt) || len(nodes.loaded) != 1 {
			t.Errorf("%s: leaves %v after %d loads, %v", c.what, blocks, len(nodes.loaded), err)
		}
		if _, err := NewCursor(nodes.Load, c.root).At(context.Background(), 0); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: the cursor says %v", c.what, err)
		}
	}
}

func TestLeavesRefuseBadRoots(t *testing.T) {
	for _, root := range badRoots() {
		_, err := collect(newMemory().Load, root)
		if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) {
			t.Errorf("root %+v: %v", root, err)
		}
	}
	if blocks, err := collect(newMemory().Load, Root{Kind: KindFixed, Height: 2, BlockSize: blockSize, Size: 300 * blockSize}); err != nil || blocks != nil {
		t.Errorf("an object of zeros: %v, %v", blocks, err)
	}
}

func badRoots() []Root {
	top := blockID(1)
	return []Root{
		{},
		{Kind: 3},
		{Kind: KindFixed},
		{Kind: KindFixed, BlockSize: blockSize, Size: -1},
		{Kind: KindFixed, BlockSize: blockSize, Top: top},
		{Kind: KindFixed, BlockSize: blockSize, Height: 1},
		{Kind: KindFixed, BlockSize: blockSize, Height: -1, Size: 1},
		{Kind: KindFixed, BlockSize: blockSize, Height: 2, Size: 256 * blockSize},
		{Kind: KindFixed, BlockSize: blockSize, Height: 1, Size: 256*blockSize + 1},
		{Kind: KindFixed, BlockSize: blockSize / 2, Height: 1, Size: 1},
		{Kind: KindFixed, BlockSize: blockSize + 1, Height: 1, Size: 1},
		{Kind: KindFixed, BlockSize: 2 * format.MaxBlockSize, Height: 1, Size: 1},
		{Kind: KindStream, BlockSize: blockSize, Height: 1, Size: 1, Top: top},
		{Kind: KindStream, Height: 1},
		{Kind: KindStream, Height: 9, Size: 1, Top: top},
		{Kind: KindStream, Height: 0, Size: 1, Top: top},
		{Kind: KindStream, Height: 1, Size: 1},
		{Kind: KindStream, Top: top},
	}
}

func TestRootRecord(t *testing.T) {
	root := Root{Kind: KindFixed, Height: 3, BlockSize: format.MaxBlockSize, Size: math.MaxInt64, Top: blockID(1)}
	raw := root.Bytes()
	if len(raw) != RootSize || raw[0] != 1 || raw[1] != 3 || raw[2] != 0 || raw[3] != 0 ||
		binary.LittleEndian.Uint32(raw[4:]) != format.MaxBlockSize || binary.LittleEndian.Uint64(raw[8:]) != math.MaxInt64 || format.ID(raw[16:]) != root.Top {
		t.Errorf("root record %x", raw)
	}
	seen := map[format.ID]bool{root.ID(testHasher): true}
	for _, change := range []func(*Root){
		func(r *Root) { r.Kind++ }, func(r *Root) { r.Height++ }, func(r *Root) { r.BlockSize /= 2 },
		func(r *Root) { r.Size-- }, func(r *Root) { r.Top[31] ^= 1 },
	} {
		other := root
		change(&other)
		if id := other.ID(testHasher); seen[id] {
			t.Errorf("%+v has the id of another root", other)
		} else {
			seen[id] = true
		}
	}
}
