package tree

import (
	"context"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

func buildStream(nodes Nodes, entries []Entry) (Root, error) {
	s := NewStreamBuilder(nodes)
	for _, e := range entries {
		if err := s.Add(context.Background(), e.ID, e.Length); err != nil {
			return Root{}, err
		}
	}
	return s.Finish(context.Background())
}

// naiveStream is the tree as section 6 describes it: level by level until a level has exactly one node.
func naiveStream(entries []Entry) (root Root, nodes [][]Entry) {
	root.Kind = KindStream
	for level := 0; len(entries) > 0; level++ {
		var parents, batch []Entry
		for i, e := range entries {
			batch = append(batch, e)
			if len(batch) == 256 || (len(batch) >= 16 && e.ID[31] < 2) || i == len(entries)-1 {
				length := int64(0)
				for _, e := range batch {
					length += e.Length
				}
				parents = append(parents, Entry{ID: NodeID(testHasher, encodeStream(level, batch)), Length: length})
				nodes = append(nodes, batch)
				batch = nil
			}
		}
		root.Height = level + 1
		if len(parents) == 1 {
			root.Size, root.Top = parents[0].Length, parents[0].ID
			return root, nodes
		}
		entries = parents
	}
	return root, nodes
}

// drawEntries draws a stream: ordinary ids, ids that end nodes often, and runs of zeros.
func drawEntries(t *rapid.T) []Entry {
	count := rapid.SampledFrom([]int{0, 1, 2, 15, 16, 17, 255, 256, 257, 600, 5000}).Draw(t, "count")
	seed := rapid.Uint64Range(1, 1<<40).Draw(t, "seed")
	ends := rapid.SampledFrom([]uint64{0, 1, 3, 20}).Draw(t, "ends") // one id in so many ends a node; 0: as it comes
	zeros := rapid.SampledFrom([]uint64{0, 1, 2, 50}).Draw(t, "zeros")
	entries := make([]Entry, count)
	for i := range entries {
		n := seed + uint64(i)
		entries[i] = Entry{ID: blockID(n), Length: int64(n%format.MaxBlock) + 1}
		if ends > 0 {
			entries[i].ID[31] = byte(2 - min(2, uint64(i)%ends*2)) // 2 at every ends-th, else 0
		}
		if zeros > 0 && uint64(i)%zeros == 0 {
			entries[i].ID = format.ID{}
		}
	}
	return entries
}

func TestStreamIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, entries := newMemory(), drawEntries(t)
		root, err := buildStream(nodes, entries)
		if err != nil {
			t.Fatal(err)
		}
		want, batches := naiveStream(entries)
		if root != want || len(nodes.stored) != len(batches) {
			t.Fatalf("%+v of %d nodes, want %+v of %d", root, len(nodes.stored), want, len(batches))
		}
		if err := root.Check(); err != nil {
			t.Fatal(err)
		}
		var blocks []Block
		at := int64(0)
		for _, e := range entries {
			if !e.ID.IsZero() {
				blocks = append(blocks, Block{Offset: at, Length: e.Length, ID: e.ID})
			}
			at += e.Length
		}
		got, err := collect(nodes.Load, root)
		if err != nil || !slices.Equal(got, blocks) {
			t.Fatalf("%d leaves' blocks, %v; want %d", len(got), err, len(blocks))
		}
		cursor := NewCursor(nodes.Load, root)
		for range min(10, len(entries)) {
			block := rapid.SampledFrom(entries).Draw(t, "entry")
			if i := slices.IndexFunc(blocks, func(b Block) bool { return b.ID == block.ID }); i >= 0 {
				offset := blocks[i].Offset + rapid.Int64Range(0, blocks[i].Length-1).Draw(t, "in")
				if at, err := cursor.At(context.Background(), offset); err != nil || at != blocks[i] {
					t.Fatalf("at %d: %+v, %v; want %+v", offset, at, err, blocks[i])
				}
			}
		}
	})
}

func streamOf(count int) []Entry {
	entries := make([]Entry, count)
	for i := range entries {
		entries[i] = Entry{ID: blockID(uint64(i) + 1), Length: 1000}
	}
	return entries
}

func TestInsertionKeepsMostNodes(t *testing.T) {
	nodes, entries := newMemory(), streamOf(20000)
	before, err := buildStream(nodes, entries)
	if err != nil {
		t.Fatal(err)
	}
	whole := len(nodes.nodes)
	for _, at := range []int{0, 10000, 19999} {
		other := newMemory()
		changed := slices.Insert(slices.Clone(entries), at, Entry{ID: blockID(1 << 50), Length: 7})
		after, err := buildStream(other, changed)
		if err != nil || after.Size != before.Size+7 || after.Top == before.Top {
			t.Fatalf("insertion at %d: %+v, %v", at, after, err)
		}
		fresh := 0
		for id := range other.nodes {
			if nodes.nodes[id] == nil {
				fresh++
			}
		}
		if limit := 2*before.Height + 2; fresh > limit || whole < 10*limit {
			t.Errorf("insertion at %d: %d new nodes of %d, want at most %d", at, fresh, whole, limit)
		}
	}
}

// Whatever the ids are, each level has at most a sixteenth of the entries below it, and one more.
func TestStreamHeightIsBounded(t *testing.T) {
	count := 16 * 16 * 16 * 16
	if testing.Short() {
		count /= 16
	}
	for name, id := range map[string]format.ID{"zeros, which end nodes": {}, "ids that never end one": {31: 255}} {
		entries := slices.Repeat([]Entry{{ID: id, Length: format.MaxBlock}}, count)
		nodes := newMemory()
		root, err := buildStream(nodes, entries)
		bound := 1
		for n := count; n > 16; n = (n + 15) / 16 {
			bound++
		}
		if err != nil || root.Height > bound || root.Size != int64(count)*format.MaxBlock {
			t.Errorf("%s: %+v, %v; want a height of at most %d", name, root, err, bound)
		}
	}
}

func TestStreamBuilderRefuses(t *testing.T) {
	for _, length := range []int64{0, -1, format.MaxBlock + 1} {
		if err := NewStreamBuilder(newMemory()).Add(context.Background(), blockID(1), length); err == nil {
			t.Errorf("a block of %d bytes was accepted", length)
		}
	}
	s := NewStreamBuilder(failing{})
	for range Fanout - 1 {
		if err := s.Add(context.Background(), format.ID{31: 9}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Finish(context.Background()); err == nil {
		t.Error("the last node could not be stored, and Finish gave no error")
	}
	if err := s.Add(context.Background(), format.ID{31: 9}, 1); err == nil {
		t.Error("a node could not be stored, and Add gave no error")
	}
}

type failing struct{}

func (failing) Load(context.Context, format.ID) ([]byte, error)  { return nil, errStop }
func (failing) Store(context.Context, []byte) (format.ID, error) { return format.ID{}, errStop }
