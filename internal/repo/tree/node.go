// Package tree builds and reads the canonical trees of block ids that objects are (docs/format.md section 6).
//
// A tree of fixed blocks (leaf kind 1) is like a radix tree over block numbers with 256 children a node; what is all
// zeros is absent. A stream (leaf kind 2) is a list of (id, length) whose nodes end where the ids say, so that an
// insertion changes the nodes around it and no others.
package tree

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"ferry/internal/repo/format"
)

// Fanout is the number of children a node can have.
const Fanout = 256

// maxHeight allows 2^64 blocks.
const maxHeight = 8

// Kind is the leaf kind of a tree.
type Kind uint8

// The leaf kinds.
const (
	KindFixed  Kind = 1
	KindStream Kind = 2
)

// The node types of section 6.2.
const (
	typeLeaf         = 1
	typeParent       = 2
	typeStreamLeaf   = 3
	typeStreamParent = 4
)

// RootSize is the size of a root record in bytes.
const RootSize = 48

// Root is the root record of an object.
type Root struct {
	Kind Kind
	// Height counts the levels of nodes.
	Height int
	// BlockSize in bytes; 0 for streams.
	BlockSize int64
	// Size of the object in bytes.
	Size int64
	// Top is the top node's id; zero if there is none.
	Top format.ID
}

// Bytes returns the root record.
func (r Root) Bytes() []byte {
	raw := make([]byte, RootSize)
	raw[0], raw[1] = byte(r.Kind), byte(r.Height)
	binary.LittleEndian.PutUint32(raw[4:], uint32(r.BlockSize))
	binary.LittleEndian.PutUint64(raw[8:], uint64(r.Size))
	copy(raw[16:], r.Top[:])
	return raw
}

// ID returns the root id, which proves size, cut and every byte of the object.
func (r Root) ID(hasher *format.Hasher) format.ID { return hasher.Sum(format.ContextRoot, r.Bytes()) }

// Blocks is the number of blocks of a fixed tree.
func (r Root) Blocks() int64 {
	if r.BlockSize == 0 {
		return 0
	}
	return int64((uint64(r.Size) + uint64(r.BlockSize) - 1) / uint64(r.BlockSize))
}

// Check returns an error wrapping format.ErrCorrupt unless the record is one that a canonical tree can have.
func (r Root) Check() error {
	bad := func(what string) error { return fmt.Errorf("%w: tree root with %s", format.ErrCorrupt, what) }
	switch {
	case r.Size < 0 || r.Height < 0 || r.Height > maxHeight:
		return bad("impossible size or height")
	case r.Kind == KindFixed:
		if r.BlockSize < format.MinBlockSize || r.BlockSize > format.MaxBlockSize || bits.OnesCount64(uint64(r.BlockSize)) != 1 {
			return bad("impossible block size")
		}
		if r.Height != HeightFor(r.Blocks()) {
			return bad("a height that its size does not have")
		}
	case r.Kind == KindStream:
		if r.BlockSize != 0 || (r.Size == 0) != (r.Height == 0) || (r.Size == 0) != r.Top.IsZero() {
			return bad("impossible stream")
		}
	default:
		return fmt.Errorf("%w: leaf kind %d", format.ErrNewer, r.Kind)
	}
	if r.Height == 0 && !r.Top.IsZero() {
		return bad("a node below nothing")
	}
	return nil
}

// HeightFor is the height of a fixed tree of that many blocks.
func HeightFor(blocks int64) int {
	height := 0
	for reach := int64(1); blocks > 0; reach <<= 8 {
		if height > 0 && reach >= blocks {
			break
		}
		height++
		if height == maxHeight {
			break
		}
	}
	return height
}

// Entry is one child in a node of a stream.
type Entry struct {
	ID     format.ID
	Length int64
}

// Node is a parsed node. Fixed nodes have Children, stream nodes Entries.
type Node struct {
	Level    int
	Children *[Fanout]format.ID
	Entries  []Entry
}

const fixedHeader = 4 + Fanout/8

// encodeFixed returns the node's bytes, or nil if it has no child.
func encodeFixed(level int, children *[Fanout]format.ID) []byte {
	node := make([]byte, fixedHeader, fixedHeader+Fanout*32)
	node[0], node[1] = typeParent, byte(level)
	if level == 0 {
		node[0] = typeLeaf
	}
	for i := range children {
		if !children[i].IsZero() {
			node[4+i/8] |= 1 << (i % 8)
			node = append(node, children[i][:]...)
		}
	}
	if len(node) == fixedHeader {
		return nil
	}
	return node
}

func encodeStream(level int, entries []Entry) []byte {
	node := make([]byte, 4, 4+len(entries)*40)
	node[0], node[1] = typeStreamParent, byte(level)
	if level == 0 {
		node[0] = typeStreamLeaf
	}
	binary.LittleEndian.PutUint16(node[2:], uint16(len(entries)))
	for _, e := range entries {
		node = append(node, e.ID[:]...)
		if level == 0 {
			node = binary.LittleEndian.AppendUint32(node, uint32(e.Length))
		} else {
			node = binary.LittleEndian.AppendUint64(node, uint64(e.Length))
		}
	}
	return node
}

// NodeID hashes a node in the context that its type has.
func NodeID(hasher *format.Hasher, node []byte) format.ID {
	context := format.ContextParent
	if len(node) > 0 {
		switch node[0] {
		case typeLeaf:
			context = format.ContextLeaf
		case typeStreamLeaf:
			context = format.ContextStreamLeaf
		case typeStreamParent:
			context = format.ContextStreamParent
		}
	}
	return hasher.Sum(context, node)
}

// ParseNode reads a node of the given kind and level. Errors wrap format.ErrCorrupt.
func ParseNode(raw []byte, kind Kind, level int) (Node, error) {
	bad := func(what string) (Node, error) {
		return Node{}, fmt.Errorf("%w: tree node with %s", format.ErrCorrupt, what)
	}
	want := byte(typeParent)
	switch {
	case kind == KindFixed && level == 0:
		want = typeLeaf
	case kind == KindStream && level == 0:
		want = typeStreamLeaf
	case kind == KindStream:
		want = typeStreamParent
	}
	if len(raw) < 4 || raw[0] != want || int(raw[1]) != level {
		return bad("another type or level than its place in the tree")
	}
	if kind == KindStream {
		return parseStream(raw, level)
	}
	if len(raw) < fixedHeader || raw[2] != 0 || raw[3] != 0 {
		return bad("a bad header")
	}
	node := Node{Level: level, Children: new([Fanout]format.ID)}
	at := fixedHeader
	for i := range Fanout {
		if raw[4+i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if at+32 > len(raw) {
			return bad("fewer children than it announces")
		}
		node.Children[i] = format.ID(raw[at : at+32])
		if node.Children[i].IsZero() {
			return bad("a child that is nothing")
		}
		at += 32
	}
	if at != len(raw) || at == fixedHeader {
		return bad("a length that its children do not have")
	}
	return node, nil
}

func parseStream(raw []byte, level int) (Node, error) {
	count, width := int(binary.LittleEndian.Uint16(raw[2:])), 40
	if level == 0 {
		width = 36
	}
	if count == 0 || count > Fanout || len(raw) != 4+count*width {
		return Node{}, fmt.Errorf("%w: stream node of %d bytes with %d entries", format.ErrCorrupt, len(raw), count)
	}
	node := Node{Level: level, Entries: make([]Entry, count)}
	for i := range node.Entries {
		entry := raw[4+i*width:]
		length := uint64(0)
		if level == 0 {
			length = uint64(binary.LittleEndian.Uint32(entry[32:]))
		} else {
			length = binary.LittleEndian.Uint64(entry[32:])
		}
		if length == 0 || length > 1<<62 || (level == 0 && length > format.MaxBlock) {
			return Node{}, fmt.Errorf("%w: stream node entry of %d bytes", format.ErrCorrupt, length)
		}
		if level > 0 && format.ID(entry[:32]).IsZero() {
			return Node{}, fmt.Errorf("%w: stream node with a child that is nothing", format.ErrCorrupt)
		}
		node.Entries[i] = Entry{ID: format.ID(entry[:32]), Length: int64(length)}
	}
	return node, nil
}
