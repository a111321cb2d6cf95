package qcow2

import (
	"sync"
	"sync/atomic"
)

// cacheShards is how many independently locked parts a cache has, so that parallel readers seldom meet.
const cacheShards = 4

// allCaches counts the bytes that the caches of all images keep, and bounds them: a point may be made of thousands of files. At the
// limit a cache goes on with the blocks that it has, or without.
var allCaches = budget{limit: 1 << 30}

type budget struct {
	used  atomic.Int64
	limit int64
}

// take is true if there was room for so many bytes more.
func (b *budget) take(bytes int) bool {
	if b.used.Add(int64(bytes)) <= b.limit {
		return true
	}
	b.giveBack(bytes)
	return false
}

func (b *budget) giveBack(bytes int) { b.used.Add(-int64(bytes)) }

// cache keeps a bounded number of equally sized blocks by key, the recently used ones first. Blocks are pinned while
// they are in use and their memory is used again, so that a full cache allocates nothing.
type cache struct {
	blockSize int
	shards    [cacheShards]cacheShard
	// free holds buffers that are between two uses.
	free sync.Pool
}

type cacheShard struct {
	mutex sync.Mutex
	limit int
	slots map[uint64]*cached
	// order is swept as a clock to find the block to replace.
	order []*cached
	hand  int
}

// cached is a block in the cache, or outside it when all slots were in use.
type cached struct {
	key    uint64
	data   []byte
	pins   int
	recent bool
	inside bool
}

// newCache makes a cache of about totalBytes, at least one block a shard.
func newCache(blockSize, totalBytes int) *cache {
	c := &cache{blockSize: blockSize}
	for i := range c.shards {
		c.shards[i].limit = max(1, min(256, totalBytes/blockSize/cacheShards))
		c.shards[i].slots = map[uint64]*cached{}
	}
	return c
}

func (c *cache) shard(key uint64) *cacheShard {
	// Neighbouring blocks go to different shards whatever power of two the keys are multiples of.
	return &c.shards[(key*0x9e3779b97f4a7c15)>>62]
}

// get returns the pinned block, or nil if it is not there.
func (c *cache) get(key uint64) *cached {
	s := c.shard(key)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	block := s.slots[key]
	if block != nil {
		block.pins++
		block.recent = true
	}
	return block
}

// blank returns a block outside the cache for the caller to fill. Its content is arbitrary.
func (c *cache) blank(key uint64) *cached {
	block, _ := c.free.Get().(*cached)
	if block == nil {
		block = &cached{data: make([]byte, c.blockSize)}
	}
	block.key, block.pins, block.recent, block.inside = key, 1, false, false
	return block
}

// put offers a filled block to the cache. It stays pinned by the caller and must be released either way.
func (c *cache) put(block *cached) {
	s := c.shard(block.key)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.slots[block.key] != nil {
		return
	}
	if len(s.order) < s.limit && allCaches.take(c.blockSize) {
		s.order = append(s.order, block)
	} else {
		place := s.victim()
		if place < 0 {
			return
		}
		old := s.order[place]
		delete(s.slots, old.key)
		old.inside = false
		s.order[place] = block
		c.free.Put(old)
	}
	block.inside = true
	s.slots[block.key] = block
}

// close drops all blocks. Nothing may use the cache any more.
func (c *cache) close() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mutex.Lock()
		allCaches.giveBack(len(s.order) * c.blockSize)
		s.order, s.slots, s.limit = nil, map[uint64]*cached{}, 0
		s.mutex.Unlock()
	}
}

// victim finds a block that is neither pinned nor recently used; -1 if all are pinned, or there is none.
func (s *cacheShard) victim() int {
	for range 2 * len(s.order) {
		place := s.hand
		s.hand = (s.hand + 1) % len(s.order)
		block := s.order[place]
		if block.pins > 0 {
			continue
		}
		if !block.recent {
			return place
		}
		block.recent = false
	}
	return -1
}

// release ends the use of a block from get or blank.
func (c *cache) release(block *cached) {
	s := c.shard(block.key)
	s.mutex.Lock()
	block.pins--
	unused := !block.inside && block.pins == 0
	s.mutex.Unlock()
	if unused {
		c.free.Put(block)
	}
}
