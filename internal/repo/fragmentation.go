package repo

import (
	"context"
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
	// Blocks that are not zeros, and their bytes before compression. Runs are the reads that it takes to read them in
	// order: a run ends where the next block is in another pack, before this one, or more than 64 KiB behind it.
	Blocks, Runs int
	Bytes        int64
}

// PerGiB is the number of runs for each GiB of content. Packs that were written in order have about twenty.
func (f Fragmentation) PerGiB() float64 {
	if f.Bytes == 0 {
		return 0
	}
	return float64(f.Runs) / (float64(f.Bytes) / (1 << 30))
}

func (f *Fragmentation) add(other Fragmentation) {
	f.Blocks += other.Blocks
	f.Runs += other.Runs
	f.Bytes += other.Bytes
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
			places := make([]index.Place, 0, len(blocks))
			for _, block := range blocks {
				place, _, err := set.Find(ctx, block.ID)
				if err != nil {
					return f, err
				}
				places = append(places, place)
			}
			f.add(lie(blocks, places))
		}
	}
	return f, ctx.Err()
}

// lie counts the runs of blocks that follow each other.
func lie(blocks []Block, places []index.Place) Fragmentation {
	f := Fragmentation{Blocks: len(blocks)}
	for i, place := range places {
		f.Bytes += blocks[i].Length
		if i == 0 || place.Pack != places[i-1].Pack || place.Offset < places[i-1].Offset || int64(place.Offset) > frameEnd(places[i-1])+readGap {
			f.Runs++
		}
	}
	return f
}
