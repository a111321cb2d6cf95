package repo

import (
	"sync"

	"ferry/internal/repo/format"
)

// nodeCache keeps tree nodes that were read, within a bound.
type nodeCache struct {
	mu    sync.Mutex
	nodes map[format.ID][]byte
	size  int
}

const nodeCacheSize = 32 << 20

func newNodeCache() *nodeCache { return &nodeCache{nodes: map[format.ID][]byte{}} }

func (c *nodeCache) get(id format.ID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

func (c *nodeCache) put(id format.ID, node []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, old := range c.nodes { // in no order: as good as any for a walk
		if c.size+len(node) <= nodeCacheSize {
			break
		}
		delete(c.nodes, key)
		c.size -= len(old)
	}
	if c.nodes[id] == nil {
		c.nodes[id] = node
		c.size += len(node)
	}
}
