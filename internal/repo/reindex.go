package repo

import (
	"context"
	"errors"
	"slices"
	"sync"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

// Reindexed says what Reindex did.
type Reindexed struct {
	// Packs whose tables were read, and the segments that were written of them.
	Packs, Segments int
	// Bytes of the new segments.
	Bytes int64
}

// Reindex writes index segments for the packs that none covers, or only one whose file is not there, from the packs' own tables; with
// all set, for every pack, and the segments that were there go. Memory does not depend on how many packs there are: what was read of them lies in
// temporary files until it is merged. progress, if not nil, is told how many of how many tables are read, by one goroutine
// at a time. Nothing else may use the repository meanwhile.
func (r *Repository) Reindex(ctx context.Context, all bool, progress func(done, total int)) (Reindexed, error) {
	var report Reindexed
	if err := errors.Join(r.locked, r.Writable()); err != nil { // the log entry that names segments takes the key
		return report, err
	}
	if err := r.Refresh(ctx); err != nil {
		return report, err
	}
	if all {
		r.forgetIndex()
	} else if err := r.forgetLost(ctx); err != nil {
		return report, err
	}
	if err := r.readUncovered(ctx, &report, progress); err != nil {
		return report, err
	}
	for {
		entries, _ := r.index.Uncovered()
		written, err := r.writeSegment(ctx, entries)
		if err != nil || written == nil {
			return report, err
		}
		payload := &commitlog.Payload{Index: []commitlog.Segment{written.record}, IndexRemoved: written.removed}
		if err := r.commit(ctx, payload, nil); err != nil {
			_ = written.opened.Close() // the first error is the one to tell
			return report, err
		}
		r.adoptSegment(written)
		for _, id := range payload.IndexRemoved {
			_ = r.store.Delete(ctx, segmentName(id)) // what the log no longer names costs space only
		}
		report.Segments++
		report.Bytes += written.record.Size
	}
}

// forgetIndex makes the index begin anew, without any of the repository's segments, which are to be replaced.
func (r *Repository) forgetIndex() {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index.Close()
	r.index = index.NewSet(r.description.ID, r.packEntries)
	r.index.Prefer(r.byNaming)
	r.unindexed, r.indexedTo = unindexed{everything: true}, commitlog.Head{}
	clear(r.packs)
	clear(r.local)
	clear(r.replaced)
	for id := range r.state.Index {
		r.segments[id], r.unusable[id] = true, true
	}
}

// forgetLost takes segments out of the index whose files are not there, or are not as long as they were. This machine may have them in its
// cache, others have not.
func (r *Repository) forgetLost(ctx context.Context) error {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	for id, segment := range r.snapshot().Index {
		switch info, err := r.store.Stat(ctx, segmentName(id)); {
		case err == nil && info.Size == segment.Size:
			continue
		case err != nil && !storage.Missing(err):
			return err
		}
		r.cache.drop(id)
		r.index.RemoveSegment(id)
		for _, name := range segment.Packs {
			delete(r.packs, name)
		}
		r.segments[id], r.unusable[id] = true, true
	}
	return nil
}

// readUncovered reads the tables of the packs that no segment covers, and brings the index up to the log.
func (r *Repository) readUncovered(ctx context.Context, report *Reindexed, progress func(done, total int)) error {
	r.mu.Lock()
	covered := map[format.Name]bool{}
	for id, segment := range r.state.Index {
		for _, name := range segment.Packs {
			covered[name] = covered[name] || !r.unusable[id]
		}
	}
	names := r.state.Packs.Names()
	slices.SortFunc(names, compareNames)
	r.mu.Unlock()
	names = slices.DeleteFunc(names, func(name format.Name) bool { return covered[name] })
	var mu sync.Mutex
	read := func() {
		mu.Lock()
		defer mu.Unlock()
		report.Packs++
		if progress != nil {
			progress(report.Packs, len(names))
		}
	}
	r.indexing.Lock()
	err := r.addPacks(ctx, names, read)
	r.indexing.Unlock()
	if err != nil {
		return err
	}
	_, err = r.lookup(ctx)
	return err
}
