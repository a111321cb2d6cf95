package repo

import (
	"context"
	"encoding/binary"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// Fragmentation says how a machine's newest point lies in packs.
type Fragmentation struct {
	// Machine is its pseudonym, Point the newest point.
	Machine format.Name
	Point   backup.PointID
	// Blocks that are not zeros, and their bytes before compression.
	Blocks int
	Bytes  int64
	// Runs are the reads of packs that a restore makes for them, and InOrder how many it would make if each leaf's blocks lay one behind
	// the other, for themselves. A restore reads leaf by leaf, each one's blocks in the order in which they lie: a read ends where the next
	// block is in another pack, or more than 64 KiB behind this one, and at 4 MiB.
	Runs, InOrder int
}

// PerGiB is the number of runs for each GiB of content.
func (f Fragmentation) PerGiB() float64 { return f.perGiB(f.Runs) }

// InOrderPerGiB is what PerGiB would be if all lay in order. With blocks of 128 KiB it is 32, one for each leaf, where content compresses
// well, and 288 where it does not.
func (f Fragmentation) InOrderPerGiB() float64 { return f.perGiB(f.InOrder) }

func (f Fragmentation) perGiB(reads int) float64 {
	if f.Bytes == 0 {
		return 0
	}
	return float64(reads) / (float64(f.Bytes) / (1 << 30))
}

func (f *Fragmentation) add(other Fragmentation) {
	f.Blocks += other.Blocks
	f.Bytes += other.Bytes
	f.Runs += other.Runs
	f.InOrder += other.InOrder
}

// InAll says how the machines' newest points lie together, read one after the other. What several of them need counts for each:
// who restores them all reads it so often. It names no machine and no point.
func (a *Analysis) InAll() Fragmentation {
	var all Fragmentation
	for _, f := range a.Fragmentation {
		all.add(f)
	}
	return all
}

// newestPoints are each machine's newest points, by machine.
func (r *Repository) newestPoints() []commitlog.Point {
	newest := map[format.Name]commitlog.Point{}
	for _, entry := range r.Entries() { // oldest first
		newest[entry.Machine] = entry
	}
	var points []commitlog.Point
	for _, entry := range newest {
		points = append(points, entry)
	}
	slices.SortFunc(points, func(a, b commitlog.Point) int { return compareNames(a.Machine, b.Machine) })
	return points
}

// fragmentation measures how a point lies in packs, where a reader would look for its blocks. It reads tree nodes only.
func (r *Repository) fragmentation(ctx context.Context, entry commitlog.Point) (Fragmentation, error) {
	f := Fragmentation{Machine: entry.Machine, Point: entry.ID}
	_, roots, err := r.pointRoots(ctx, entry)
	if err != nil {
		return f, err
	}
	set, err := r.lookup(ctx)
	if err != nil {
		return f, err
	}
	for _, root := range roots {
		for blocks, err := range r.Leaves(ctx, root) {
			if err != nil {
				return f, err
			}
			places := make([]placed, 0, len(blocks))
			for _, block := range blocks {
				f.Blocks++
				f.Bytes += block.Length
				place, found, err := set.Find(ctx, block.ID)
				if err != nil {
					return f, err
				}
				if found {
					places = append(places, placed{block, place})
				}
			}
			again := rewriting{moved: map[format.ID]index.Place{}}
			f.InOrder += reads(again.places(places))
			f.Runs += reads(places)
		}
	}
	return f, ctx.Err()
}

// reads is how many reads a BlockReader makes for blocks that it is given at once. It sorts the places as the reader does.
func reads(places []placed) int {
	sortPlaces(places)
	n := 0
	for len(places) > 0 {
		places = places[runLength(places, readGap):]
		n++
	}
	return n
}

// rewriting is where blocks would lie if they were written again, in the order in which it is told of them.
type rewriting struct {
	// settled are blocks that stay where they are, by their settledKey.
	settled map[uint64]struct{}
	// movable are those that would be written, each once, where they lie now. moved is where they would be: in a pack with no name, as
	// there is none, one behind the other. end is its end.
	movable []placed
	moved   map[format.ID]index.Place
	end     uint32
}

// places are where blocks would lie, in the order given, of which each has the place where it lies now.
func (w *rewriting) places(now []placed) []placed {
	after := slices.Clone(now)
	for i := range after {
		p := &after[i]
		place, again := w.moved[p.block.ID]
		if _, stays := w.settled[settledKey(p.block.ID)]; !again && !stays {
			w.movable = append(w.movable, *p)
			place = p.place
			place.Pack, place.Offset = format.Name{}, w.end
			w.moved[p.block.ID], w.end, again = place, uint32(frameEnd(place)), true
		}
		if again {
			p.place = place
		}
	}
	return after
}

// settledKey is what blocks that are settled are remembered by. Two that have the same cost no more than that one of them stays where it is.
func settledKey(id format.ID) uint64 { return binary.BigEndian.Uint64(id[:]) }
