package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"ferry/internal/repo/format"
)

func TestHeightFor(t *testing.T) {
	for _, c := range []struct {
		blocks int64
		want   int
	}{
		{0, 0},
		{1, 1},
		{2, 1},
		{255, 1},
		{256, 1},
		{257, 2},
		{65535, 2},
		{65536, 2},
		{65537, 3},
		{1 << 24, 3},
		{1<<24 + 1, 4},
		{1 << 32, 4},
		{1<<32 + 1, 5},
		{1 << 40, 5},
		{1<<40 + 1, 6},
		{1 << 48, 6},
		{1<<48 + 1, 7},
		{1 << 56, 7},
		{1<<56 + 1, 8},
		{math.MaxInt64, 8},
	} {
		if got := HeightFor(c.blocks); got != c.want {
			t.Errorf("height of %d blocks: %d, want %d", c.blocks, got, c.want)
		}
	}
}

func TestBlocks(t *testing.T) {
	for _, c := range []struct{ size, blockSize, want int64 }{
		{0, 4096, 0},
		{1, 4096, 1},
		{4096, 4096, 1},
		{4097, 4096, 2},
		{math.MaxInt64, 4096, 1 << 51},
		{5, 0, 0},
	} {
		if got := (Root{Size: c.size, BlockSize: c.blockSize}).Blocks(); got != c.want {
			t.Errorf("%d bytes in blocks of %d: %d, want %d", c.size, c.blockSize, got, c.want)
		}
	}
}

// samples are good nodes of each type.
func samples() map[string][]byte {
	var some, all [Fanout]format.ID
	for i := range all {
		all[i] = blockID(uint64(i) + 1)
	}
	some[0], some[255] = all[0], all[1]
	stream := []Entry{{all[0], format.MaxBlock}, {all[1], 1}}
	return map[string][]byte{
		"leaf": encodeFixed(0, &some), "parent": encodeFixed(3, &some), "full": encodeFixed(0, &all),
		"stream leaf": encodeStream(0, append(stream, Entry{Length: 5})), "stream parent": encodeStream(2, append(stream, Entry{all[2], 1 << 40})),
	}
}

func parse(raw []byte) (Node, error) {
	kind := KindFixed
	if len(raw) > 0 && raw[0] > typeParent {
		kind = KindStream
	}
	level := 0
	if len(raw) > 1 {
		level = int(raw[1])
	}
	return ParseNode(raw, kind, level)
}

func encodeNode(node Node) []byte {
	if node.Children != nil {
		return encodeFixed(node.Level, node.Children)
	}
	return encodeStream(node.Level, node.Entries)
}

func TestNodesRoundTrip(t *testing.T) {
	for name, raw := range samples() {
		node, err := parse(raw)
		if err != nil || !bytes.Equal(encodeNode(node), raw) {
			t.Errorf("%s: %+v, %v", name, node, err)
		}
		for _, kind := range []Kind{KindFixed, KindStream} {
			for level := range 5 {
				_, err := ParseNode(raw, kind, level)
				fits := level == int(raw[1]) && (kind == KindStream) == (raw[0] > typeParent)
				if fits != (err == nil) || (err != nil && !errors.Is(err, format.ErrCorrupt)) {
					t.Errorf("%s as kind %d, level %d: %v", name, kind, level, err)
				}
			}
		}
	}
	if raw := encodeFixed(0, new([Fanout]format.ID)); raw != nil {
		t.Errorf("a node without children: %x", raw)
	}
}

func TestParseNodeRefuses(t *testing.T) {
	good := samples()
	type change struct {
		what, name string
		make       func(raw []byte) []byte
	}
	set := func(at int, value byte) func([]byte) []byte {
		return func(raw []byte) []byte {
			raw[at] = value
			return raw
		}
	}
	put32 := func(at int, value uint32) func([]byte) []byte {
		return func(raw []byte) []byte {
			binary.LittleEndian.PutUint32(raw[at:], value)
			return raw
		}
	}
	put64 := func(at int, value uint64) func([]byte) []byte {
		return func(raw []byte) []byte {
			binary.LittleEndian.PutUint64(raw[at:], value)
			return raw
		}
	}
	clear32 := func(at int) func([]byte) []byte {
		return func(raw []byte) []byte {
			clear(raw[at : at+32])
			return raw
		}
	}
	longer := func(raw []byte) []byte { return append(raw, make([]byte, 36)...) }
	changes := []change{
		{"a parent's type", "leaf", set(0, typeParent)},
		{"a leaf's type", "parent", set(0, typeLeaf)},
		{"type 0", "leaf", set(0, 0)},
		{"type 5", "stream parent", set(0, 5)},
		{"a leaf's type", "stream parent", set(0, typeStreamLeaf)},
		{"reserved byte 2", "leaf", set(2, 1)},
		{"reserved byte 3", "parent", set(3, 1)},
		{"a child less announced", "leaf", set(4, 0)},
		{"a child more announced", "leaf", set(4, 3)},
		{"a child less announced", "full", set(35, 127)},
		{"a child of zeros", "leaf", clear32(36)},
		{"a last child of zeros", "parent", clear32(68)},
		{"no child", "leaf", func(raw []byte) []byte { clear(raw[4:36]); return raw[:36] }},
		{"no entry", "stream leaf", func(raw []byte) []byte { return append(raw[:2], 0, 0) }},
		{"an entry less announced", "stream leaf", set(2, 2)},
		{"an entry more announced", "stream parent", set(2, 4)},
		{"a block of no length", "stream leaf", put32(36, 0)},
		{"a block too long", "stream leaf", put32(36, format.MaxBlock+1)},
		{"a child of no length", "stream parent", put64(36, 0)},
		{"a child too long", "stream parent", put64(36, 1<<62+1)},
		{"a child longer than any", "stream parent", put64(36, math.MaxUint64)},
		{"a child of zeros", "stream parent", clear32(4)},
	}
	for name, raw := range good {
		for size := range raw {
			if _, err := parse(raw[:size]); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%s of %d bytes cut to %d: %v", name, len(raw), size, err)
			}
		}
		changes = append(changes, change{"bytes behind it", name, longer})
	}
	for _, c := range changes {
		raw := c.make(bytes.Clone(good[c.name]))
		kind := KindFixed
		if c.name[:2] == "st" {
			kind = KindStream
		}
		if node, err := ParseNode(raw, kind, int(good[c.name][1])); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s with %s: %+v, %v", c.name, c.what, node, err)
		}
	}
	many := encodeStream(0, make([]Entry, Fanout+1))
	if _, err := ParseNode(many, KindStream, 0); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("257 entries: %v", err)
	}
}

// One and the same bytes in two places of a tree are two ids, and no node is mistaken for a block.
func TestNodeIDsDependOnType(t *testing.T) {
	body := samples()["leaf"]
	seen := map[format.ID]bool{testHasher.Sum(format.ContextBlock, body): true}
	for kind := range byte(4) {
		raw := bytes.Clone(body)
		raw[0] = kind + 1
		want := testHasher.Sum(format.ContextLeaf+format.Context(kind), raw)
		id := NodeID(testHasher, raw)
		if id != want || seen[id] {
			t.Errorf("node of type %d has id %s, want %s", kind+1, id, want)
		}
		seen[id] = true
	}
	NodeID(testHasher, nil) // hostile frames may be empty of sense; this must not panic
}

func FuzzParseNode(f *testing.F) {
	for _, raw := range samples() {
		f.Add(raw, uint8(KindFixed), raw[1])
		f.Add(raw, uint8(KindStream), raw[1])
		f.Add(raw[:len(raw)-1], uint8(KindStream), raw[1])
	}
	f.Fuzz(func(t *testing.T, raw []byte, kind, level uint8) {
		if kind != uint8(KindStream) {
			kind = uint8(KindFixed)
		}
		node, err := ParseNode(raw, Kind(kind), int(level))
		if err != nil {
			if !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if again := encodeNode(node); !bytes.Equal(again, raw) {
			t.Fatalf("%x parses and encodes to %x", raw, again)
		}
		// A walk over any node that parses yields ascending ranges inside the object, or says that it is corrupt.
		root := Root{Kind: Kind(kind), Height: int(level) + 1, Size: 1 << 40, BlockSize: blockSize}
		blocks, err := Children(t.Context(), fixedLoader(raw), root, format.ID{}, int(level%7), 0, root.Size)
		if err != nil && !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("an error of no class: %v", err)
		}
		end := int64(0)
		for _, block := range blocks {
			if block.Offset < end || block.Length < 1 || block.Offset+block.Length > root.Size {
				t.Fatalf("block %+v behind %d", block, end)
			}
			end = block.Offset + block.Length
		}
	})
}
