package repo

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/tree"
	"ferry/internal/spill"
	"ferry/internal/storage"
)

// Marking finds what is live: every node and block that a point of a domain, or an unfinished copy, needs.
//
//  1. Machine by machine, oldest point first, each tree is walked beside the same tree of the point before. What is the
//     same there is marked already; what differs is read (nodepacks.go). Nodes that were seen are not walked again.
//  2. The ids found go to a sorter, which keeps a bounded number in memory and the rest in temporary files.
//  3. The sorted ids are merged with the index, which is sorted too (placing.go): each pack learns what of it is live.
//
// Only point files and node packs are read. What cannot be read makes the mark of its domain incomplete; then nothing of
// that domain may be given up.
type marker struct {
	repo  *Repository
	temp  string
	nodes *nodePacks
	// domains that are marked block by block. Sealed ones are not: they live as long as a root is in them.
	domains map[format.Name]*domainMark
	// points and partials that are marked: the files of those of the state.
	points, partials map[string]bool
	// logical is the size of the points that are marked, but for those of sealed domains.
	logical int64
	// late, if set, takes the ids instead of the domain's sorter: those of roots that came after the mark.
	late func(*domainMark, needed) error
}

// needed is a live id. What only an unfinished copy needs is kept for it as long as it is good. If it is lost it is no loss:
// whoever goes on with the copy stores it again.
type needed struct {
	id format.ID
	// point is true if a point needs it.
	point bool
}

// domainMark is what is live in a domain.
type domainMark struct {
	ids *spill.Sorter
	// seen are nodes that were walked, at most seenLimit of them: others may be walked twice.
	seen map[format.ID]struct{}
	// incomplete says why something live may be missing from ids.
	incomplete []string
	// newest are the roots of each machine's newest point so far, which the next one is walked beside.
	newest map[format.Name][]tree.Root
	sealed bool
	// roots counts points and partials of the domain.
	roots int
}

// seenLimit bounds the memory for nodes that were walked: about 100 MiB.
const seenLimit = 2 << 20

// pointsAtOnce is how many points' headers are read at once.
const pointsAtOnce = 256

// maxIncomplete is how many reasons are kept of why a mark is incomplete.
const maxIncomplete = 20

func newMarker(r *Repository, temp string) *marker {
	return &marker{repo: r, temp: temp, nodes: newNodePacks(r, temp), domains: map[format.Name]*domainMark{}, points: map[string]bool{}, partials: map[string]bool{}}
}

func (m *marker) close() error {
	var errs []error
	for _, d := range m.domains {
		errs = append(errs, d.ids.Close())
	}
	return errors.Join(errs...)
}

// domain returns the mark of a domain.
func (m *marker) domain(name format.Name, state *commitlog.State) *domainMark {
	d := m.domains[name]
	if d == nil {
		d = &domainMark{
			ids: spill.NewSorter(m.temp), seen: map[format.ID]struct{}{}, newest: map[format.Name][]tree.Root{}, sealed: state.Domains[name].Sealed,
		}
		m.domains[name] = d
	}
	return d
}

func (d *domainMark) miss(reason string, args ...any) {
	if len(d.incomplete) < maxIncomplete {
		d.incomplete = append(d.incomplete, fmt.Sprintf(reason, args...))
	}
}

// mark walks all roots of a state that are not marked yet. Trouble of the storage that may pass is an error; damage makes
// the mark incomplete.
func (m *marker) mark(ctx context.Context, state *commitlog.State) error {
	for id := range state.Domains {
		m.domain(id, state)
	}
	defer m.nodes.close()
	points := slices.DeleteFunc(state.Points.Sorted(), func(entry commitlog.Point) bool { return m.points[entry.File()] })
	for some := range slices.Chunk(points, pointsAtOnce) {
		read, err := m.repo.ReadHeaders(ctx, some)
		if err != nil {
			return err
		}
		m.expectTops(ctx, read)
		for _, p := range read {
			if err := m.markPoint(ctx, state, p); err != nil {
				return err
			}
			m.points[p.Entry.File()] = true
		}
	}
	for _, partials := range state.Partials {
		unmarked := slices.DeleteFunc(slices.Clone(partials), func(p commitlog.Partial) bool { return m.partials[p.File] })
		for partial := range m.repo.readPartials(ctx, unmarked) {
			if err := m.markPartial(ctx, state, partial); err != nil {
				return err
			}
			m.partials[partial.File] = true
		}
	}
	return nil
}

// expectTops says that these points' trees are walked next, from their tops.
func (m *marker) expectTops(ctx context.Context, points []HeaderRead) {
	var tops []format.ID
	for _, p := range points {
		if p.Err != nil {
			continue
		}
		for _, root := range p.Header.Roots {
			if !root.Top.IsZero() {
				tops = append(tops, root.Top)
			}
		}
	}
	m.nodes.expect(ctx, tops)
}

func (m *marker) markPoint(ctx context.Context, state *commitlog.State, p HeaderRead) error {
	entry := p.Entry
	if p.Err != nil && m.repo.gone(ctx, entry) {
		return nil // removed since the state was read
	}
	if p.Err != nil {
		if !permanent(p.Err) {
			return p.Err
		}
		for _, d := range m.domains { // nobody knows which it is in
			d.miss("point %s cannot be read: %v", entry.ID.Short(), p.Err)
		}
		return nil
	}
	d := m.domain(p.Header.Domain, state)
	d.roots++
	if d.sealed {
		return nil
	}
	m.logical += p.Header.Size()
	return m.markRoots(ctx, d, entry, p.Header.Roots)
}

// markRoots walks a point's trees beside those of the machine's point before it.
func (m *marker) markRoots(ctx context.Context, d *domainMark, entry commitlog.Point, roots []tree.Root) error {
	before := d.newest[entry.Machine]
	for i, root := range roots {
		w := &markWalk{marker: m, domain: d, kind: root.Kind, point: entry}
		var beside format.ID
		if i < len(before) && root.Kind == tree.KindFixed && before[i].Kind == root.Kind && before[i].BlockSize == root.BlockSize && before[i].Height == root.Height {
			beside = before[i].Top
		}
		if err := w.walk(ctx, beside, root.Top, root.Height-1); err != nil {
			return err
		}
	}
	d.newest[entry.Machine] = roots
	return nil
}

// permanent is true for errors that trying again does not mend.
func permanent(err error) bool {
	return errors.Is(err, backup.ErrDamaged) || errors.Is(err, storage.ErrNotExist) || unreadable(err)
}

// gone is true if the log does not have that point any more.
func (r *Repository) gone(ctx context.Context, entry commitlog.Point) bool {
	if r.Refresh(ctx) != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Points.Of(entry.ID).File() != entry.File()
}

type markWalk struct {
	*marker
	domain *domainMark
	kind   tree.Kind
	point  commitlog.Point
}

// walk marks a node and all below it, but for what the node beside it has at the same place.
func (w *markWalk) walk(ctx context.Context, beside, id format.ID, level int) error {
	d := w.domain
	if id.IsZero() || id == beside {
		return nil
	}
	if _, seen := d.seen[id]; seen {
		return nil
	}
	if err := w.live(d, needed{id, true}); err != nil {
		return err
	}
	children, err := w.children(ctx, id, level)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if !permanent(err) {
			return err
		}
		d.miss("a tree of point %s cannot be followed: %v", w.point.ID.Short(), err)
		return nil
	}
	var others []format.ID
	if !beside.IsZero() {
		// What cannot be read there made the mark incomplete already.
		others, _ = w.children(ctx, beside, level)
	}
	if level > 0 {
		w.expect(ctx, others, children)
	}
	for i, child := range children {
		var other format.ID
		if i < len(others) {
			other = others[i]
		}
		switch {
		case child.IsZero() || child == other:
		case level == 0:
			err = w.live(d, needed{child, true})
		default:
			err = w.walk(ctx, other, child, level-1)
		}
		if err != nil {
			return err
		}
	}
	if len(d.seen) < seenLimit && len(d.incomplete) == 0 { // so that all below it is marked
		d.seen[id] = struct{}{}
	}
	return nil
}

// expect says which nodes below a node will be loaded.
func (w *markWalk) expect(ctx context.Context, beside, children []format.ID) {
	var next []format.ID
	for i, child := range children {
		var other format.ID
		if i < len(beside) {
			other = beside[i]
		}
		if _, seen := w.domain.seen[child]; seen || child.IsZero() || child == other {
			continue
		}
		next = append(next, child)
		if !other.IsZero() {
			next = append(next, other)
		}
	}
	w.nodes.expect(ctx, next)
}

// children of a node, zeros where there is none.
func (w *markWalk) children(ctx context.Context, id format.ID, level int) ([]format.ID, error) {
	raw, err := w.nodes.load(ctx, id)
	if err != nil {
		return nil, err
	}
	node, err := tree.ParseNode(raw, w.kind, level)
	if err != nil {
		return nil, err
	}
	if w.kind == tree.KindFixed {
		return node.Children[:], nil
	}
	ids := make([]format.ID, len(node.Entries))
	for i, e := range node.Entries {
		ids[i] = e.ID
	}
	return ids, nil
}

func (m *marker) markPartial(ctx context.Context, state *commitlog.State, partial partialRead) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if partial.err != nil {
		return passing(partial.err) // else nobody can go on from it either
	}
	d := m.domain(partial.header.Domain, state)
	d.roots++
	if d.sealed {
		return nil
	}
	for records := partial.records; len(records) > 0; records = records[partialRecord:] {
		if id := format.ID(records[16:48]); !id.IsZero() {
			if err := m.live(d, needed{id: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// live notes what is needed in a domain.
func (m *marker) live(d *domainMark, want needed) error {
	if m.late != nil {
		return m.late(d, want)
	}
	kind := byte(0)
	if want.point {
		kind = 1
	}
	return d.ids.Add(idRecord(want.id, kind))
}

// sorted yields the domain's live ids, each once, ascending.
func (d *domainMark) sorted() iter.Seq2[needed, error] {
	return func(yield func(needed, error) bool) {
		var last needed
		for value, err := range distinct(d.ids) {
			if err != nil {
				yield(needed{}, err)
				return
			}
			want := needed{format.ID(value[:len(last.id)]), value[len(last.id)] == 1}
			switch {
			case want.id == last.id:
				want.point = want.point || last.point
			case !last.id.IsZero() && !yield(last, nil):
				return
			}
			last = want
		}
		if !last.id.IsZero() {
			yield(last, nil)
		}
	}
}

// pointRoots reads where a point's blocks are, and the roots of its trees. It needs no key.
func (r *Repository) pointRoots(ctx context.Context, entry commitlog.Point) (format.Name, []tree.Root, error) {
	header, err := r.ReadHeader(ctx, entry.ID)
	if err != nil {
		return format.Name{}, nil, err
	}
	return header.Domain, header.Roots, nil
}
