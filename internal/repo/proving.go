package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

// The index is derived, and a page of it can be wrong: a cached segment rots like any file, and one that was merged of
// rotted ones has a good checksum. Opening does not read what is cached, so whoever acts on an id that was not found has it
// proven first, each step only if the one before was not enough:
//
//  1. settle: the log is followed, and each segment compared with its checksum. A bad one is fetched anew.
//  2. settleByTables: each segment is compared with the tables of the packs that it covers. One that lies is not used.
//
// A reader then says that a block is missing; reclaim gives nothing up in the domain. So a wrong page costs time, never data.

// settle is what is done before an id counts as missing: the log is followed, segments that were read in parts are read
// whole, and those that are here are compared with their checksums once more, each once for a process. What cannot be used
// any more is replaced by the repository's own file, or by the tables of its packs.
func (r *Repository) settle(ctx context.Context) (*index.Set, error) {
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	set, err := r.lookup(ctx)
	if err != nil {
		return nil, err
	}
	r.indexing.Lock()
	defer r.indexing.Unlock()
	open, done := set.Segments()
	defer done()
	for id, segment := range open {
		if r.settled[id] {
			continue
		}
		whole, err := r.prove(ctx, id, segment)
		if err != nil {
			return nil, err
		}
		r.settled[id] = r.settled[id] || whole
	}
	return set, nil
}

// settleAnew settles whatever was settled before: what has rotted since is found.
func (r *Repository) settleAnew(ctx context.Context) error {
	r.indexing.Lock()
	clear(r.settled)
	r.indexing.Unlock()
	_, err := r.settle(ctx)
	return err
}

// prove reads all of a segment and compares its checksum, and replaces it if that does not hold: whole is false then. An
// error is trouble that may pass. The caller holds r.indexing.
func (r *Repository) prove(ctx context.Context, id format.Name, segment *index.Segment) (whole bool, err error) {
	wasWhole := segment.IsWhole()
	err = segment.Complete(ctx)
	if err == nil && wasWhole {
		err = segment.Check(r.hasher)
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err == nil:
		return true, nil
	case !storage.Missing(err) && !unreadable(err) && !wasWhole:
		return false, fmt.Errorf("index segment %s: %w", id, err)
	}
	return false, r.replace(ctx, id, err)
}

// replace takes a segment out that cannot be used: it is fetched anew if it can, else its packs' tables are read. The
// caller holds r.indexing.
func (r *Repository) replace(ctx context.Context, id format.Name, why error) error {
	r.mu.Lock()
	record, live := r.state.Index[id]
	r.mu.Unlock()
	r.cache.drop(id)
	if live {
		opened, err := r.openParts(record)
		if err == nil {
			if err = opened.Complete(ctx); err == nil {
				r.index.RemoveSegment(id)
				r.index.AddSegment(id, opened, record.Packs)
				r.settled[id] = true
				return nil
			}
			opened.Close()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return r.readInstead(ctx, id, why)
}

// readInstead takes a segment out, and reads the tables of the packs that it covers. The caller holds r.indexing.
func (r *Repository) readInstead(ctx context.Context, id format.Name, why error) error {
	r.mu.Lock()
	record, live := r.state.Index[id]
	r.mu.Unlock()
	packs, local := r.local[id]
	if !local && !live {
		record = r.replaced[id] // none if what replaced it is used
	}
	if !local {
		packs = record.Packs
	}
	if len(packs) > 0 {
		r.warn("index segment %s is not used, its packs are read instead: %v", id, why)
	}
	for _, name := range packs {
		delete(r.packs, name)
	}
	if err := r.addPacks(ctx, packs, nil); err != nil { // the segment stays, and is found bad again
		return err
	}
	r.index.RemoveSegment(id)
	delete(r.local, id)
	delete(r.replaced, id)
	if live {
		r.unusable[id] = true
	}
	return nil
}

var errLies = errors.New("it has other frames of a pack than the pack's own table")

// settleByTables compares segments with the tables of the packs that they cover, each once for a process, and replaces those
// that lie. It reads every table, so it comes after settle, which finds nearly everything that can be wrong.
func (r *Repository) settleByTables(ctx context.Context) (*index.Set, error) {
	set, err := r.settle(ctx)
	if err != nil {
		return nil, err
	}
	r.indexing.Lock()
	defer r.indexing.Unlock()
	open, done := set.Segments()
	defer done()
	for id, segment := range open {
		r.mu.Lock()
		record, named := r.state.Index[id]
		r.mu.Unlock()
		if !named || r.tabled[id] {
			continue // one of this process alone is made of tables
		}
		honest, err := r.matchTables(ctx, segment, record.Packs)
		if err != nil {
			return nil, err
		}
		if !honest {
			if err := r.readInstead(ctx, id, errLies); err != nil {
				return nil, err
			}
			continue
		}
		r.tabled[id] = true
	}
	return set, nil
}

// tablesAtOnce is how many packs' tables are held in memory while a segment is compared with them.
const tablesAtOnce = 4 * tableReaders

// matchTables is true if a segment has every frame that the packs' tables have. Packs without a whole table are passed over.
func (r *Repository) matchTables(ctx context.Context, segment *index.Segment, names []format.Name) (bool, error) {
	for some := range slices.Chunk(names, tablesAtOnce) {
		var packs []commitlog.Pack
		r.mu.Lock()
		for _, name := range some {
			if p, live := r.state.Packs.Get(name); live {
				packs = append(packs, p)
			}
		}
		r.mu.Unlock()
		tables, err := r.readTables(ctx, packs, nil)
		if err != nil {
			return false, err
		}
		for _, table := range tables {
			if table.err != nil || !table.whole {
				continue
			}
			for i := range table.entries {
				e := &table.entries[i]
				if has, err := segment.Lookup(ctx, &e.ID, func(place index.Place) bool { return place == e.Place }); err != nil || !has {
					return false, err
				}
			}
		}
	}
	return true, nil
}

// unfounded is true if the index has no place of an id, or a misplaced one: then the packs' tables know better.
func (r *Repository) unfounded(ctx context.Context, set *index.Set, id format.ID) bool {
	_, found, err := set.Find(ctx, id)
	return err == nil && !found || r.misplaced(ctx, set, id)
}

// misplaced is true if the index has a place of an id that its pack's own table does not have.
func (r *Repository) misplaced(ctx context.Context, set *index.Set, id format.ID) bool {
	places, err := set.FindAll(ctx, id)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(places, func(place index.Place) bool {
		held, err := set.Proven(ctx, id, place)
		return err == nil && !held
	})
}
