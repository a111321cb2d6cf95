package repo

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/processors"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// anyLength of a tree node is right.
const anyLength = -1

// verifyPoints reads the points' files, and follows their trees if that is asked for or anything is damaged. Machines are
// looked at side by side, a machine's points one after the other, because they share most of their trees.
func (v *verifier) verifyPoints(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	known := len(r.state.Damaged)
	v.report.DamagedPoints = known
	r.mu.Unlock()
	harmed := len(v.places)+known > 0
	if v.report.Cut && !harmed {
		return ctx.Err() // another time
	}
	w := &pointsWalk{
		verifier: v, follow: harmed || v.options.Level == LevelPoints, good: newGoodNodes(r.nodeFrames()), damaged: map[backup.PointID]PointDamage{},
		looked: map[format.Name]bool{},
	}
	machines := machinesOf(r.Entries())
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(processors.Number())
	for _, points := range machines {
		machine := points[0].Machine
		if !harmed && bytes.Compare(machine[:], v.proofs.machine[:]) <= 0 {
			continue // followed before the verification was cut short
		}
		if !harmed && v.outOfTime() && len(w.looked) > 0 {
			v.report.Cut = true
			break
		}
		w.looked[machine] = true
		group.Go(func() error { return w.machine(groupCtx, points) })
	}
	err := group.Wait()
	if err != nil {
		return err
	}
	if v.report.Cut && !harmed {
		v.proofs.machine = lastOf(w.looked, v.proofs.machine)
	}
	if !w.follow && len(w.damaged) == 0 {
		return ctx.Err()
	}
	byPoint := map[backup.PointID]format.Name{}
	for _, e := range r.Entries() {
		byPoint[e.ID] = e.Machine
	}
	if err := v.notePoints(ctx, w.damaged, func(id backup.PointID) bool { return w.looked[byPoint[id]] }); err != nil {
		return err
	}
	v.tellApart(w.follow && !w.lost && !v.unplaced)
	return ctx.Err()
}

func lastOf(machines map[format.Name]bool, last format.Name) format.Name {
	for machine := range machines {
		if machine.Compare(last) > 0 {
			last = machine
		}
	}
	return last
}

// machinesOf groups points by machine, in the order of their pseudonyms; each machine's are by time.
func machinesOf(entries []commitlog.Point) [][]commitlog.Point {
	slices.SortStableFunc(entries, func(a, b commitlog.Point) int { return a.Machine.Compare(b.Machine) })
	var machines [][]commitlog.Point
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && entries[n].Machine == entries[0].Machine {
			n++
		}
		machines = append(machines, entries[:n])
		entries = entries[n:]
	}
	return machines
}

// nodeFrames counts the frames of all node packs.
func (r *Repository) nodeFrames() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, p := range r.state.Packs.All() {
		if p.Kind == pack.KindNode.String() {
			n += p.Frames
		}
	}
	return n
}

// pointsWalk follows points.
type pointsWalk struct {
	*verifier
	follow bool
	good   *goodNodes
	// looked are the machines whose points are looked at.
	looked map[format.Name]bool

	found   sync.Mutex // guards damaged and lost
	damaged map[backup.PointID]PointDamage
	// lost is true if something is in no pack at all, or a point's file is damaged: any damaged place may be to blame.
	lost bool
}

func (w *pointsWalk) machine(ctx context.Context, points []commitlog.Point) error {
	for _, entry := range points {
		point, err := w.readPoint(ctx, entry.ID)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		gone, logErr := w.gone(ctx, err, func(now *commitlog.State) bool { return now.Points.Of(entry.ID) == entry })
		if logErr != nil {
			return logErr
		}
		if gone || err != nil && !w.repo.Has(entry.ID) { // another look at the log may have told already that it was removed
			continue
		}
		if err != nil && !permanent(err) && !isLost(err) && !w.repo.answersFor(ctx, entry.File()) {
			return err // the storage's, which says nothing of the point
		}
		w.mu.Lock()
		w.report.Points++
		w.mu.Unlock()
		if err != nil {
			w.damage(Damage{Machine: entry.Machine.String(), Point: entry.ID.String(), File: entry.File(), Reason: err.Error()})
			w.found.Lock()
			w.lost = true
			if isLost(err) {
				w.damaged[entry.ID] = PointDamage{Point: entry.ID, File: true}
			}
			w.found.Unlock()
			continue
		}
		if err := w.point(ctx, point); err != nil {
			return err
		}
	}
	return nil
}

// readPoint reads a point, or of a locked repository's point what can be told of it.
func (v *verifier) readPoint(ctx context.Context, id backup.PointID) (*Point, error) {
	if !v.repo.hasher.Locked() {
		return v.repo.ReadPoint(ctx, id)
	}
	header, err := v.repo.ReadHeader(ctx, id)
	if err != nil {
		return nil, err
	}
	point := &Point{Domain: header.Domain, Sealed: header.Sealed, Point: backup.Point{ID: id, Machine: backup.Machine{Name: header.Machine.String()}}}
	for i := range header.Roots {
		point.Roots = append(point.Roots, &header.Roots[i])
		point.Objects = append(point.Objects, backup.Object{Name: fmt.Sprintf("object %d", i+1)})
	}
	return point, nil
}

// point follows a point's trees.
func (w *pointsWalk) point(ctx context.Context, point *Point) error {
	if !w.follow {
		return nil
	}
	damage := PointDamage{Point: point.ID}
	var list []Damage
	for i, root := range point.Roots {
		if root == nil || root.Top.IsZero() {
			continue
		}
		ranges := objectDamage{}
		follower := &treeWalk{
			load: w.repo.LoadNode, root: *root, good: w.good,
			readable: w.readable, answers: w.repo.answers,
			lost: func(b tree.Block, _ pack.Kind, reason string) error { ranges.add(b, reason); return nil },
		}
		if _, err := follower.walk(ctx, root.Top, root.Height-1, 0, root.Size); err != nil {
			return err
		}
		for _, d := range ranges.list {
			d.Machine, d.Point, d.Object = point.Machine.Name, point.ID.String(), point.Objects[i].Name
			if d.Machine == "" {
				d.Machine = point.Machine.Key.String()
			}
			damage.Places++
			list = append(list, d)
		}
		damage.Bytes += ranges.bytes
	}
	if damage.Places == 0 {
		return nil
	}
	if w.repo.Refresh(ctx) == nil && !w.repo.Has(point.ID) {
		return ctx.Err() // it was removed meanwhile, and what it alone needed is given up
	}
	for _, d := range list {
		w.damage(d)
	}
	w.found.Lock()
	w.damaged[point.ID] = damage
	w.found.Unlock()
	return nil
}

// treeWalk follows a tree.
type treeWalk struct {
	load   tree.Loader
	root   tree.Root
	domain format.Name // if copies elsewhere do not count
	good   *goodNodes
	// readable is true if there is a good copy of an id, of that length; else the reason why not.
	readable func(ctx context.Context, kind pack.Kind, id format.ID, length int64) (bool, string, error)
	// answers is true if the storage does, when it is asked for the pack of a node that it did not give.
	answers func(ctx context.Context, id format.ID) bool
	// lost is told of each node and block that there is no good copy of, with what it covers of the object.
	lost func(b tree.Block, kind pack.Kind, reason string) error
}

// walk follows a node and returns true if all below it is good.
func (w *treeWalk) walk(ctx context.Context, id format.ID, level int, offset, length int64) (bool, error) {
	key := goodNode{id, length, w.root.BlockSize, w.domain}
	if w.good.has(key) {
		return true, nil
	}
	whole, reason, err := w.readable(ctx, pack.KindNode, id, anyLength)
	if err != nil {
		return false, err
	}
	var children []tree.Block
	if whole {
		children, err = tree.Children(ctx, w.load, w.root, id, level, offset, length)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil && !permanent(err) && !isLost(err) && !w.answers(ctx, id) {
			return false, err // the storage's, which says nothing of the node
		}
		if err != nil {
			whole, reason = false, err.Error()
		}
	}
	if !whole {
		return false, w.lost(tree.Block{Offset: offset, Length: length, ID: id}, pack.KindNode, "tree node: "+reason)
	}
	for _, child := range children {
		good := false
		if level > 0 {
			good, err = w.walk(ctx, child.ID, level-1, child.Offset, child.Length)
		} else if good, reason, err = w.readable(ctx, pack.KindBlock, child.ID, child.Length); !good && err == nil {
			err = w.lost(child, pack.KindBlock, reason)
		}
		if err != nil {
			return false, err
		}
		whole = whole && good
	}
	if whole {
		w.good.add(key)
	}
	return whole, nil
}

// answers is true if the storage does when it is asked for the pack in which an id is.
func (r *Repository) answers(ctx context.Context, id format.ID) bool {
	set, err := r.lookup(ctx)
	if err != nil {
		return false
	}
	place, found, err := set.Find(ctx, id)
	if err != nil || !found {
		return err == nil || storage.Missing(err)
	}
	return r.answersFor(ctx, pack.ObjectName(place.Pack))
}

// answersFor is true if the storage says how large a file is, or that it is not there: then a read of it that failed is no failure of the
// whole storage.
func (r *Repository) answersFor(ctx context.Context, name string) bool {
	_, err := r.store.Stat(ctx, name)
	return err == nil || storage.Missing(err)
}

// objectDamage collects the damaged ranges of an object, in ascending order. Neighbours become one range.
type objectDamage struct {
	list  []Damage
	bytes int64
}

// mostRanges of one object are listed one by one.
const mostRanges = 1000

func (o *objectDamage) add(b tree.Block, reason string) {
	o.bytes += b.Length
	if n := len(o.list); n > 0 {
		last := &o.list[n-1]
		if end := last.Offset + last.Length; b.Offset <= end || n >= mostRanges {
			if b.Offset > end {
				last.Reason = "many places in this range"
			}
			last.Length = max(end, b.Offset+b.Length) - last.Offset
			return
		}
	}
	o.list = append(o.list, Damage{Offset: b.Offset, Length: b.Length, Reason: reason})
}
