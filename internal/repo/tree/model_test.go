package tree

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"

	"ferry/internal/repo/format"
)

const blockSize = format.MinBlockSize

var testHasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

// blockID is an id for a test's block; 0 is the id of zeros.
func blockID(seed uint64) format.ID {
	if seed == 0 {
		return format.ID{}
	}
	return testHasher.Sum(format.ContextBlock, binary.LittleEndian.AppendUint64(nil, seed))
}

// memory keeps nodes and notes which are loaded and stored.
type memory struct {
	nodes  map[format.ID][]byte
	loaded []format.ID
	stored []format.ID
}

func newMemory() *memory { return &memory{nodes: map[format.ID][]byte{}} }

func (m *memory) Load(_ context.Context, id format.ID) ([]byte, error) {
	m.loaded = append(m.loaded, id)
	node, ok := m.nodes[id]
	if !ok {
		return nil, fmt.Errorf("%w: no node %s", format.ErrCorrupt, id)
	}
	return node, nil
}

func (m *memory) Store(_ context.Context, node []byte) (format.ID, error) {
	id := NodeID(testHasher, node)
	m.nodes[id] = slices.Clone(node)
	m.stored = append(m.stored, id)
	return id, nil
}

func (m *memory) forget() { m.loaded, m.stored = nil, nil }

// disk is the model of an object of fixed blocks: its blocks that are not zeros.
type disk struct {
	size   int64
	blocks map[int64]format.ID
}

func (d disk) count() int64 { return (d.size + blockSize - 1) / blockSize }

// length of a block in bytes; 0 behind the end.
func (d disk) length(block int64) int64 { return max(0, min(blockSize, d.size-block*blockSize)) }

type place struct {
	level int
	index int64
}

// naive is the tree as section 6 describes it, built from the bottom in one go.
func (d disk) naive() (Root, map[place]format.ID) {
	root, nodes := Root{Kind: KindFixed, BlockSize: blockSize, Size: d.size}, map[place]format.ID{}
	if d.size == 0 {
		return root, nodes
	}
	below, reach := d.blocks, int64(1)
	for level := 0; level == 0 || reach < d.count(); level++ {
		parents := map[int64]*[Fanout]format.ID{}
		for i, id := range below {
			if parents[i/Fanout] == nil {
				parents[i/Fanout] = new([Fanout]format.ID)
			}
			parents[i/Fanout][i%Fanout] = id
		}
		below = map[int64]format.ID{}
		for i, children := range parents {
			raw := []byte{2, byte(level), 0, 0}
			context := format.ContextParent
			if level == 0 {
				raw[0], context = 1, format.ContextLeaf
			}
			raw = append(raw, make([]byte, 32)...)
			for child, id := range children {
				if id != (format.ID{}) {
					raw[4+child/8] |= 1 << (child % 8)
					raw = append(raw, id[:]...)
				}
			}
			below[i] = testHasher.Sum(context, raw)
			nodes[place{level, i}] = below[i]
		}
		reach *= Fanout
		root.Height = level + 1
	}
	root.Top = below[0]
	return root, nodes
}

// wanted are the object's blocks as a walk must yield them.
func (d disk) wanted() []Block {
	var blocks []Block
	for _, i := range slices.Sorted(maps.Keys(d.blocks)) {
		blocks = append(blocks, Block{Offset: i * blockSize, Length: d.length(i), ID: d.blocks[i]})
	}
	return blocks
}

func changesOf(blocks map[int64]format.ID) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for _, i := range slices.Sorted(maps.Keys(blocks)) {
			if !yield(Change{Block: i, ID: blocks[i]}, nil) {
				return
			}
		}
	}
}

func build(nodes Nodes, base *Root, d disk, changes map[int64]format.ID) (Root, error) {
	return BuildFixed(context.Background(), nodes, base, d.size, blockSize, changesOf(changes))
}

func collect(load Loader, root Root) (blocks []Block, err error) {
	for leaf, leafErr := range Leaves(context.Background(), load, root) {
		if leafErr != nil {
			return blocks, leafErr
		}
		blocks = append(blocks, leaf...)
	}
	return blocks, nil
}

func fixedLoader(raw []byte) Loader {
	return func(context.Context, format.ID) ([]byte, error) { return raw, nil }
}
