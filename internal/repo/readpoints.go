package repo

import (
	"context"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"ferry/internal/processors"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// PointRead is a point of the log, and its file or why that cannot be read.
type PointRead struct {
	Entry Entry
	Point *Point
	Err   error
}

// ReadPoints reads the files of points, several at once where that pays off, and returns them in the order given. The error
// is ctx's.
func (r *Repository) ReadPoints(ctx context.Context, entries []Entry) ([]PointRead, error) {
	read := make([]PointRead, len(entries))
	var group errgroup.Group
	group.SetLimit(r.readsAtOnce())
	for i, entry := range entries {
		group.Go(func() error {
			point, err := r.ReadPoint(ctx, entry.ID)
			read[i] = PointRead{Entry: entry, Point: point, Err: err}
			return ctx.Err()
		})
	}
	return read, group.Wait()
}

// mostDecoded is how many points' files are read at once at most for the sake of decoding them.
const mostDecoded = 8

// readsAtOnce is how many points' files are read at once: as many as pay off on the storage, or as there are processors, since a file
// takes longer to open, prove and decode than to read.
func (r *Repository) readsAtOnce() int {
	return max(storage.ParallelReads(r.store), min(processors.Number(), mostDecoded))
}

// HeaderRead is a point of the log, and the clear header of its file or why that cannot be read.
type HeaderRead struct {
	Entry  Entry
	Header *Header
	Err    error
}

// ReadHeaders reads the clear headers of points from the very files that the entries name, several at once where that pays off, and
// returns them in the order given. The error is ctx's.
func (r *Repository) ReadHeaders(ctx context.Context, entries []Entry) ([]HeaderRead, error) {
	read := make([]HeaderRead, len(entries))
	var group errgroup.Group
	group.SetLimit(r.readsAtOnce())
	for i, entry := range entries {
		group.Go(func() error {
			header, err := r.readHeader(ctx, entry)
			read[i] = HeaderRead{Entry: entry, Header: header, Err: err}
			return ctx.Err()
		})
	}
	return read, group.Wait()
}

// ReadNewest reads the newest point of each machine whose file can be read: enough to find a machine by its name, with one
// read for each. Points that cannot be read on the way are returned as well. The error is ctx's.
func (r *Repository) ReadNewest(ctx context.Context) ([]PointRead, error) {
	entries := r.Entries()
	byMachine := map[format.Name][]int{} // their numbers
	var machines []format.Name           // in the order of their oldest points
	for i := range entries {
		machine := entries[i].Machine
		if byMachine[machine] == nil {
			machines = append(machines, machine)
		}
		byMachine[machine] = append(byMachine[machine], i)
	}
	var all []PointRead
	for len(machines) > 0 {
		newest := make([]Entry, len(machines))
		for i, machine := range machines {
			own := byMachine[machine]
			newest[i] = entries[own[len(own)-1]]
			byMachine[machine] = own[:len(own)-1]
		}
		read, err := r.ReadPoints(ctx, newest)
		if err != nil {
			return nil, err
		}
		all = append(all, read...)
		var again []format.Name
		for i, machine := range machines {
			if read[i].Err != nil && len(byMachine[machine]) > 0 {
				again = append(again, machine)
			}
		}
		machines = again
	}
	return all, nil
}

// pointFile reads a point's file, from this machine's cache where the storage is far away: the file never changes, and the
// caller compares it with the log.
func (r *Repository) pointFile(ctx context.Context, entry commitlog.Point, check func([]byte) error) error {
	if r.keepsPointFiles() {
		if cached := r.cache.point(entry.Checksum); cached != nil && check(cached) == nil {
			return nil
		}
	}
	var content []byte
	err := storage.ReadIntact(ctx, r.store, entry.File(), pointLimit, func(raw []byte) error {
		content = raw
		return check(raw)
	})
	if err == nil {
		r.keepPointFile(entry, content)
	}
	return err
}

func (r *Repository) keepsPointFiles() bool {
	return r.cache.dir != "" && storage.ParallelReads(r.store) > 1
}

func (r *Repository) keepPointFile(entry commitlog.Point, content []byte) {
	if r.keepsPointFiles() {
		r.cache.keepPoint(entry.Checksum, content)
	}
}

func pointPath(checksum format.ID) string { return filepath.Join("points", checksum.String()) }

// Requests that were made of the storage's server; zero for a storage without one.
func (r *Repository) Requests() storage.Requests {
	if counting, ok := storage.As[storage.Requester](r.store); ok {
		return counting.Requests()
	}
	return storage.Requests{}
}
