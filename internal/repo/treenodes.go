package repo

import (
	"context"
	"slices"

	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// treeNodes reads the nodes of one tree for a walk that needs all of them in order, from a storage where each read is a round
// trip. A machine's nodes lie in as many packs as it has points, among those of the machines that were copied with it: what lies
// beside a node is seldom what the walk needs next. So nodes are read in the order in which they lie, not in the walk's.
//
//  1. A node says which nodes are below it. They are noted, by level, in the order in which the walk comes to them.
//  2. When it comes to one that was not read, this one and those of its level behind it, up to a limit, are read as blocks are:
//     sorted by where they lie, neighbours with one read, several reads at once. They replace those of that level that were read
//     before.
//  3. Whatever goes wrong with a node, it is read as any reader does it, who knows of other copies and of damage.
//
// It belongs to one goroutine.
type treeNodes struct {
	repo *Repository
	root tree.Root
	// coming are, by level, nodes that were not read.
	coming [][]format.ID
	// read are, by level, nodes that were read ahead; nil for one that could not be.
	read []map[format.ID][]byte
}

const (
	// leavesAhead is how many leaves are read ahead: they take 32 MiB, and cover 128 GiB of blocks of 128 KiB.
	leavesAhead = 4 << 10
	// parentsAhead is how many nodes of a level above are: what is below them is noted, 32 bytes for each of up to 65,536.
	parentsAhead = 256
	// nodeGap is the gap between nodes that are read together: sixteen nodes, which cost less than another request.
	nodeGap = 128 << 10
	// largestNode bounds what is kept of a node; Ferry makes none that is larger, in bytes.
	largestNode = 16 << 10
)

// treeLoader loads the nodes of a tree for one walk through all of it.
func (r *Repository) treeLoader(root tree.Root) tree.Loader {
	if storage.ParallelReads(r.store) < 2 || root.Check() != nil || root.Height < 2 {
		return r.LoadNode
	}
	t := &treeNodes{repo: r, root: root, coming: make([][]format.ID, root.Height), read: make([]map[format.ID][]byte, root.Height)}
	return t.load
}

// load returns a node. It is a tree.Loader.
func (t *treeNodes) load(ctx context.Context, id format.ID) ([]byte, error) {
	level := t.level(id)
	if level < 0 {
		return t.repo.LoadNode(ctx, id)
	}
	if _, tried := t.read[level][id]; !tried {
		if at := slices.Index(t.coming[level], id); at >= 0 {
			t.coming[level] = t.coming[level][at:]
			t.readAhead(ctx, level)
		}
	}
	if node := t.read[level][id]; node != nil {
		t.repo.nodes.put(id, node)
		return node, nil
	}
	node, err := t.repo.LoadNode(ctx, id)
	if err == nil && level > 0 {
		t.coming[level-1] = append(t.below(node, level), t.coming[level-1]...)
	}
	return node, err
}

// level of a node that is the top, was read ahead, or comes; -1 for others.
func (t *treeNodes) level(id format.ID) int {
	if id == t.root.Top {
		return t.root.Height - 1
	}
	for level, read := range t.read {
		if _, ok := read[id]; ok {
			return level
		}
	}
	return slices.IndexFunc(t.coming, func(ids []format.ID) bool { return slices.Contains(ids, id) })
}

// below returns the ids of the nodes below a node.
func (t *treeNodes) below(raw []byte, level int) []format.ID {
	node, err := tree.ParseNode(raw, t.root.Kind, level)
	if err != nil {
		return nil // the walk says so
	}
	var ids []format.ID
	if node.Children != nil {
		ids = node.Children[:]
	}
	for _, entry := range node.Entries {
		ids = append(ids, entry.ID)
	}
	return slices.DeleteFunc(ids, format.ID.IsZero)
}

// readAhead reads what comes next of a level.
func (t *treeNodes) readAhead(ctx context.Context, level int) {
	next := t.coming[level]
	limit := t.repo.leavesAhead
	if level > 0 {
		limit = min(limit, parentsAhead)
	}
	next = next[:min(limit, len(next))]
	t.coming[level] = t.coming[level][len(next):]
	read := make(map[format.ID][]byte, len(next))
	var missing []tree.Block
	for _, id := range next {
		if _, twice := read[id]; twice {
			continue
		}
		if read[id] = t.repo.nodes.get(id); read[id] == nil {
			missing = append(missing, tree.Block{ID: id})
		}
	}
	t.repo.readNodes(ctx, missing, read)
	t.read[level] = read
	if level == 0 {
		return
	}
	for _, id := range next {
		if node := read[id]; node != nil {
			t.coming[level-1] = append(t.coming[level-1], t.below(node, level)...)
		}
	}
}

// readNodes reads nodes with few reads, and puts those that it can read and prove in a map.
func (r *Repository) readNodes(ctx context.Context, nodes []tree.Block, read map[format.ID][]byte) {
	set, err := r.lookup(ctx)
	if err != nil {
		return
	}
	var places []placed
	for _, node := range nodes {
		if place, ok, err := set.Find(ctx, node.ID); err == nil && ok {
			places = append(places, placed{node, place})
		}
	}
	sortPlaces(places)
	reader := r.NewBlockReader()
	reader.alone, reader.gap = true, nodeGap
	// It ends early only with the context: then the walk does.
	_ = reader.runs(ctx, places, func(run *run) error {
		for _, p := range run.places {
			at, end := int64(p.place.Offset)-run.start, frameEnd(p.place)-run.start
			if run.err != nil && end > int64(run.read) {
				continue
			}
			node, err := r.decodeFrame(nil, run.raw[at:end], pack.KindNode, p.block.ID)
			if err == nil && len(node) <= largestNode {
				read[p.block.ID] = node
			}
		}
		return nil
	})
}
