package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"ferry/internal/processors"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// How packs are read through a network: few reads that bring much, several at once. On a local disk the neighbours of a
// node cost more than they save, and the kernel reads ahead.

// nodeWindow is how much of a node pack is read at once where each read is a round trip, in bytes. A pack of up to
// wholeNodePack is read whole.
const (
	nodeWindow    = 1 << 20
	wholeNodePack = 4 << 20
)

// packSize is the size of a pack that the log names; 0 for others.
func (r *Repository) packSize(name format.Name) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Packs.Of(name).Size
}

// loadNeighbours reads a node and those that lie behind it, or all of a small pack, into the cache of nodes: a walk needs
// them next, because they were written in its order. It returns nil where that brings nothing, or did not work.
func (r *Repository) loadNeighbours(ctx context.Context, id format.ID, place index.Place) []byte {
	size := r.packSize(place.Pack)
	if storage.ParallelReads(r.store) < 2 || int64(place.Offset) >= size {
		return nil
	}
	start, length := int64(place.Offset), int64(max(nodeWindow, pack.FrameHeaderSize+int(place.Stored)))
	if size <= wholeNodePack {
		start, length = pack.FirstFrame, size
	}
	raw := make([]byte, min(length, size-start))
	file, err := r.files.acquire(ctx, place.Pack)
	if err != nil {
		return nil
	}
	defer r.files.release(file)
	if err := readFull(ctx, file.Reader, raw, start); err != nil {
		return nil
	}
	var wanted []byte
	for len(raw) >= pack.FrameHeaderSize {
		f, err := pack.ParseFrame(raw)
		if err != nil || f.Size() > len(raw) {
			break // the table, or the end of what was read
		}
		if f.Kind == pack.KindNode {
			if node, err := r.decodeFrame(nil, raw[:f.Size()], f.Kind, f.ID); err == nil {
				r.nodes.put(f.ID, node)
				if f.ID == id {
					wanted = node
				}
			}
		}
		raw = raw[f.Size():]
	}
	return wanted
}

// tail is a pack whose end has been read.
type tail struct {
	storage.Reader
	start int64
	end   []byte
}

func (t tail) ReadAt(p []byte, off int64) (int, error) {
	if off < t.start || off+int64(len(p)) > t.start+int64(len(t.end)) {
		return t.Reader.ReadAt(p, off)
	}
	return copy(p, t.end[off-t.start:]), nil
}

// withTail reads the table and the trailer of a pack with one read, where each is a round trip.
func (r *Repository) withTail(ctx context.Context, reader storage.Reader, p commitlog.Pack) io.ReaderAt {
	length := pack.TableSize(p.Frames)
	if storage.ParallelReads(r.store) < 2 || length > p.Size {
		return reader
	}
	t := tail{Reader: reader, start: p.Size - length, end: make([]byte, length)}
	if readFull(ctx, reader, t.end, t.start) != nil {
		return reader // reading it piece by piece says what is wrong
	}
	return t
}

// findOriginal makes the storage read a file as it was at first from now on, where it keeps that. It is true if there is such
// a file.
func (r *Repository) findOriginal(ctx context.Context, name string) bool {
	versions, ok := storage.As[storage.OlderVersions](r.store)
	if !ok {
		return false
	}
	file, err := versions.Oldest(ctx, name)
	if err != nil {
		return false
	}
	file.Close()
	return true
}

// readOriginal reads a frame as it was before somebody replaced or removed its pack, where the storage keeps that. From then
// on the whole pack is read so.
func (r *Repository) readOriginal(ctx context.Context, kind pack.Kind, id format.ID, place index.Place) []byte {
	versions, ok := storage.As[storage.OlderVersions](r.store)
	if !ok {
		return nil
	}
	file, err := versions.Oldest(ctx, pack.ObjectName(place.Pack))
	if err != nil {
		return nil
	}
	defer file.Close()
	raw := make([]byte, pack.FrameHeaderSize+min(int(place.Stored), pack.MaxStored))
	if err := readFull(ctx, file, raw, int64(place.Offset)); err != nil {
		return nil
	}
	plain, err := r.decodeFrame(nil, raw, kind, id)
	if err != nil {
		return nil
	}
	r.files.forget(place.Pack)
	return plain
}

// run is one read of a BlockReader: places that lie together in a pack, and what was read of them.
type run struct {
	places []placed
	start  int64
	raw    []byte
	// err is of what lies behind the bytes in raw that were read.
	err  error
	read int
	done chan struct{}
}

// fetch reads a run.
func (b *BlockReader) fetch(ctx context.Context, r *run) {
	file, err := b.repo.files.acquire(ctx, r.places[0].place.Pack)
	if err != nil {
		r.err = err
		return
	}
	defer b.repo.files.release(file)
	r.read, r.err = storage.ReadAt(ctx, file.Reader, r.raw, r.start)
	if r.read == len(r.raw) {
		r.err = nil
	} else if r.err == nil || errors.Is(r.err, io.EOF) {
		r.err = fmt.Errorf("%w: pack ends at byte %d", ErrCorrupt, r.start+int64(r.read))
	}
}

// runs reads the places in runs, and calls each with every one in order. Where reads are round trips, those that come next
// are under way meanwhile.
func (b *BlockReader) runs(ctx context.Context, places []placed, each func(*run) error) error {
	ahead := b.ahead()
	var waiting []*run
	// What was begun is waited for: it writes to buffers that are used again.
	defer func() {
		for _, r := range waiting {
			<-r.done
			b.spare = append(b.spare, r.raw)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for len(places) > 0 || len(waiting) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		for len(places) > 0 && len(waiting) < ahead {
			n := runLength(places, b.gap)
			r := b.newRun(places[:n])
			places = places[n:]
			if waiting = append(waiting, r); ahead == 1 {
				b.fetch(ctx, r)
				close(r.done)
				continue
			}
			go func() {
				defer close(r.done)
				b.fetch(ctx, r)
			}()
		}
		next := waiting[0]
		<-next.done
		if err := each(next); err != nil {
			return err
		}
		b.spare = append(b.spare, next.raw)
		waiting = waiting[1:]
	}
	return nil
}

func (b *BlockReader) newRun(places []placed) *run {
	r := &run{places: places, start: int64(places[0].place.Offset), done: make(chan struct{})}
	end := r.start
	for _, p := range places {
		end = max(end, frameEnd(p.place))
	}
	if n := len(b.spare); n > 0 {
		r.raw, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	r.raw = slices.Grow(r.raw[:0], int(end-r.start))[:end-r.start]
	return r
}

// ahead is how many reads of this reader may be under way at once: as many as pay off, shared among those that read beside
// it.
func (b *BlockReader) ahead() int {
	parallel := storage.ParallelReads(b.repo.store)
	if parallel == 1 || b.alone {
		return parallel
	}
	return max(2, (parallel+processors.Number()-1)/processors.Number())
}
