package repo

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"ferry/internal/repo/format"
)

// goodNode is a node with the length of what is below it: the same blocks can be good at one place and too short at
// another. Where copies in other domains do not count, the domain is part of it.
type goodNode struct {
	id     format.ID
	length int64
	block  int64 // size of blocks
	domain format.Name
}

// goodNodes remembers nodes below which everything is good, so that a subtree that points share is followed once. It has
// a fixed number of places; of two nodes that meet in one the later stays, and the other may be followed again. So memory
// is bounded at any size of repository, and what is forgotten costs time only: half a million places are 128 million
// blocks, 16 TiB at 128 KiB, and above that parents still stand for 256 leaves each. It is safe for parallel use.
type goodNodes struct {
	mu    sync.Mutex
	slots []goodNode
}

const (
	leastSlots = 1 << 10
	// mostSlots take 32 MiB.
	mostSlots = 1 << 19
)

// newGoodNodes makes room for about so many nodes.
func newGoodNodes(nodes int) *goodNodes {
	slots := 1 << bits.Len(uint(max(nodes, 0)))
	return &goodNodes{slots: make([]goodNode, max(leastSlots, min(slots, mostSlots)))}
}

func (g *goodNodes) slot(n goodNode) *goodNode {
	key := binary.LittleEndian.Uint64(n.id[:]) ^ uint64(n.length)*0x9e3779b97f4a7c15
	return &g.slots[key&uint64(len(g.slots)-1)]
}

func (g *goodNodes) has(n goodNode) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return *g.slot(n) == n
}

func (g *goodNodes) add(n goodNode) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*g.slot(n) = n
}
