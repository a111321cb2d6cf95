package repo

import (
	"context"
	"slices"
	"sync"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/spill"
	"ferry/internal/storage"
)

// nodePacks reads packs of tree nodes whole and keeps the last of them: for a walk that needs most of the nodes that there
// are, from a storage where each read is a round trip. Elsewhere it reads nodes one by one, as any reader does.
//
//  1. The walk says which nodes it needs next, in its order. The packs that have them are read, several at once, as long as
//     no more than half of the memory is taken by packs that the walk has not reached.
//  2. A node is taken from its pack, and proven by its id like any other. The pack that was not used for longest makes room:
//     the other half of the memory is for the packs that the walk is in, in the tree and in the one beside it.
//  3. A pack is read whole once. One that makes room is moved to a temporary file, and its nodes are taken from there: a long history
//     lies in more packs than there is memory for, and each would be read again for every few nodes. If that file cannot be written, nodes
//     of such packs are read as any reader does it.
//  4. Whatever goes wrong, the node is read as any reader does it, who knows of other copies and of damage.
//
// It belongs to one goroutine. The reads that it begins end with close.
type nodePacks struct {
	repo *Repository
	// atOnce is how many reads may be under way; below 2 nothing is read whole.
	atOnce int
	limit  int64

	packs map[format.Name]*nodePack
	// moved are packs that made room, and where they begin in the file; notMoved if they could not be read or moved.
	moved map[format.Name]int64
	file  *spill.Pieces
	// next are packs that the walk comes to, in that order, of which no read has begun.
	next []format.Name
	// size is what all packs take, ahead what those of them take that the walk has not reached, in bytes.
	size, ahead int64
	clock       uint64
	reads       sync.WaitGroup
}

// nodePack is a pack that is read, or being read until done is closed.
type nodePack struct {
	raw     []byte
	err     error
	done    chan struct{}
	reached bool
	used    uint64
}

const (
	// notMoved is where a pack begins that is not in the file.
	notMoved = -1
	// nodePacksLimit bounds the memory for packs of nodes, in bytes.
	nodePacksLimit = 128 << 20
	// largestWhole is the largest pack of nodes that is read whole. Ferry makes none that is larger than 16 MiB.
	largestWhole = 16 << 20
	// mostNext bounds how far ahead a walk is known, in packs.
	mostNext = 1024
)

// newNodePacks keeps what does not fit in memory in a file in the folder temp; empty: the system's.
func newNodePacks(r *Repository, temp string) *nodePacks {
	return &nodePacks{
		repo: r, atOnce: storage.ParallelReads(r.store), limit: r.nodePacksLimit,
		packs: map[format.Name]*nodePack{}, moved: map[format.Name]int64{}, file: spill.NewPieces(temp),
	}
}

// close waits for the reads that are under way, and removes the file.
func (n *nodePacks) close() {
	n.reads.Wait()
	_ = n.file.Close() // nobody needs it any more
	n.packs, n.moved, n.next, n.size, n.ahead = map[format.Name]*nodePack{}, map[format.Name]int64{}, nil, 0, 0
}

// load returns a node. It is a tree.Loader.
func (n *nodePacks) load(ctx context.Context, id format.ID) ([]byte, error) {
	if node := n.find(ctx, id); node != nil {
		return node, nil
	}
	return n.repo.LoadNode(ctx, id)
}

// expect says that these nodes are loaded next, in this order, before those that were expected so far.
func (n *nodePacks) expect(ctx context.Context, ids []format.ID) {
	if n.atOnce < 2 {
		return
	}
	var packs []format.Name
	for _, id := range ids {
		place, ok := n.place(ctx, id)
		if ok && !n.begun(place.Pack) && !slices.Contains(packs, place.Pack) {
			packs = append(packs, place.Pack)
		}
	}
	later := slices.DeleteFunc(n.next, func(name format.Name) bool { return slices.Contains(packs, name) })
	n.next = slices.Concat(packs, later)
	n.next = n.next[:min(len(n.next), mostNext)]
	n.readAhead(ctx)
}

// begun is true if the read of a pack was: it is not read whole again.
func (n *nodePacks) begun(name format.Name) bool {
	_, moved := n.moved[name]
	return moved || n.packs[name] != nil
}

// place of a node in a pack that is here, or can be read whole.
func (n *nodePacks) place(ctx context.Context, id format.ID) (index.Place, bool) {
	set, err := n.repo.lookup(ctx)
	if err != nil {
		return index.Place{}, false
	}
	place, ok, err := set.Find(ctx, id)
	size := n.repo.packSize(place.Pack)
	return place, ok && err == nil && n.moved[place.Pack] != notMoved && size > 0 && size <= min(largestWhole, n.limit)
}

// readAhead begins to read what comes next.
func (n *nodePacks) readAhead(ctx context.Context) {
	for len(n.next) > 0 {
		name := n.next[0]
		size := n.repo.packSize(name)
		if !n.begun(name) && size > 0 {
			if n.underWay() >= n.atOnce || n.ahead > 0 && n.ahead+size > n.limit/2 {
				return
			}
			n.begin(ctx, name, size)
		}
		n.next = n.next[1:]
	}
}

// underWay is how many reads are.
func (n *nodePacks) underWay() int {
	count := 0
	for _, p := range n.packs {
		if !p.isDone() {
			count++
		}
	}
	return count
}

func (p *nodePack) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// begin begins to read a pack.
func (n *nodePacks) begin(ctx context.Context, name format.Name, size int64) *nodePack {
	for n.size+size > n.limit && n.evict() {
	}
	n.clock++
	p := &nodePack{raw: make([]byte, size), done: make(chan struct{}), used: n.clock}
	n.packs[name] = p
	n.size += size
	n.ahead += size
	n.reads.Go(func() {
		defer close(p.done)
		file, err := n.repo.files.acquire(ctx, name)
		if err != nil {
			p.err = err
			return
		}
		defer n.repo.files.release(file)
		p.err = readFull(ctx, file.Reader, p.raw, 0)
	})
	return p
}

// evict moves the pack that was not used for longest to the file. It is false if all are being read.
func (n *nodePacks) evict() bool {
	var oldest format.Name
	for name, p := range n.packs {
		if p.isDone() && (n.packs[oldest] == nil || p.used < n.packs[oldest].used) {
			oldest = name
		}
	}
	p := n.packs[oldest]
	if p == nil {
		return false
	}
	n.reach(p)
	n.size -= int64(len(p.raw))
	delete(n.packs, oldest)
	n.moved[oldest] = notMoved
	if p.err == nil {
		if at, err := n.file.Add(p.raw); err == nil {
			n.moved[oldest] = at
		}
	}
	return true
}

// reach notes that the walk came to a pack.
func (n *nodePacks) reach(p *nodePack) {
	if !p.reached {
		p.reached = true
		n.ahead -= int64(len(p.raw))
	}
}

// find returns a node from its pack, or nil.
func (n *nodePacks) find(ctx context.Context, id format.ID) []byte {
	if n.atOnce < 2 {
		return nil
	}
	place, ok := n.place(ctx, id)
	if !ok {
		return nil
	}
	if at, moved := n.moved[place.Pack]; moved {
		return n.findMoved(place, at, id)
	}
	p := n.packs[place.Pack]
	if p == nil {
		if passed := slices.Index(n.next, place.Pack); passed >= 0 {
			n.next = n.next[passed+1:]
		}
		p = n.begin(ctx, place.Pack, n.repo.packSize(place.Pack))
	}
	n.clock++
	p.used = n.clock
	n.reach(p)
	n.readAhead(ctx)
	<-p.done
	end := frameEnd(place)
	if p.err != nil || end > int64(len(p.raw)) {
		return nil
	}
	return n.decode(p.raw[place.Offset:end], id)
}

// findMoved returns a node of a pack that begins there in the file, or nil.
func (n *nodePacks) findMoved(place index.Place, at int64, id format.ID) []byte {
	end := frameEnd(place)
	if end > n.repo.packSize(place.Pack) {
		return nil
	}
	raw := make([]byte, end-int64(place.Offset))
	if n.file.Read(raw, at+int64(place.Offset)) != nil {
		return nil
	}
	return n.decode(raw, id)
}

// decode returns the node in a frame, or nil if it is another one.
func (n *nodePacks) decode(frame []byte, id format.ID) []byte {
	node, err := n.repo.decodeFrame(nil, frame, pack.KindNode, id)
	if err != nil {
		return nil
	}
	return node
}
