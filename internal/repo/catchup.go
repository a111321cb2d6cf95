package repo

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// catchUp applies the entries after the head and calls each behind every one. A log with a hole is damaged, not short: what
// lies behind the end that was found is looked for. The caller holds r.mu.
//
// Where the storage lists from a name on, one listing says which entries there are, and these are read several at once:
// asking for one after the other would take a round trip each, and the last one in vain.
func (r *Repository) catchUp(ctx context.Context, each func()) error {
	if _, ok := storage.As[storage.AfterLister](r.store); !ok {
		if err := r.follow(ctx, each); err != nil {
			return err
		}
		return r.checkGap(ctx, r.state.Head.N+1)
	}
	last := r.state.Head.N
	for info, err := range storage.ListAfter(ctx, r.store, "log/", commitlog.EntryName(last)) {
		if err != nil {
			return err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			last = max(last, n)
		}
	}
	parallel := storage.ParallelReads(r.store)
	for first := r.state.Head.N + 1; first <= last; first = r.state.Head.N + 1 {
		raws := make([][]byte, min(uint64(parallel), last-first+1))
		var group errgroup.Group
		for i := range raws {
			group.Go(func() (err error) {
				raws[i], err = storage.ReadAll(ctx, r.store, commitlog.EntryName(first+uint64(i)), commitlog.MaxSize)
				if storage.Absent(err) {
					return r.gap(first+uint64(i), last)
				}
				return notFile(err)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i, raw := range raws {
			if err := r.append(ctx, first+uint64(i), raw); err != nil {
				return err
			}
			raws[i] = nil // the others may be large, too
			each()
		}
	}
	return nil
}

// checkGap looks for entries behind a missing one. What lies there and is no file has the name of an entry, and says nothing of those before.
func (r *Repository) checkGap(ctx context.Context, missing uint64) error {
	for info, err := range storage.ListAfter(ctx, r.store, "log/", commitlog.EntryName(missing)) {
		if err != nil {
			return err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok && n > missing {
			if info.NotFile {
				if _, err := storage.ReadAll(ctx, r.store, info.Name, commitlog.MaxSize); errors.Is(err, storage.ErrNotFile) {
					return notFile(err)
				}
				continue // it is gone meanwhile
			}
			if _, err := r.store.Stat(ctx, commitlog.EntryName(missing)); err == nil {
				return nil // another writer is just going on
			}
			return r.gap(missing, n)
		}
	}
	return nil
}

func (r *Repository) gap(missing, behind uint64) error {
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s in %s: %w: it is missing, but entry %d exists", commitlog.EntryName(missing), r.store.Location(), ErrCorrupt, behind),
		Hint: r.putBack(),
	}
}

// putBack is what to do about a log entry that is missing or damaged.
func (r *Repository) putBack() string {
	return fmt.Sprintf("ferry verify %s --heal-from PLACE puts it back from a mirror of the repository's files; its packs and points are not touched by this", r.store.Location())
}

// notFile is the error of reading repository.json or a log entry, with what to do where something else lies in its place.
func notFile(err error) error {
	if !errors.Is(err, storage.ErrNotFile) {
		return err
	}
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%w: %w", ErrCorrupt, err),
		Hint: "look where the file has gone and put it there, or restore it from another copy of the repository; its packs and points are not touched by this",
	}
}

// rememberShare is how many packs in the state put writing it to the cache off by one entry.
const rememberShare = 1024

// loadRemembered begins with the state that this machine remembers, if the log still has the entry that it is the state
// after. That takes one read, where a checkpoint takes a listing, three reads, and the entries since. The caller holds r.mu.
func (r *Repository) loadRemembered(ctx context.Context) (bool, error) {
	var state *commitlog.State
	err := r.cache.withState(func(raw []byte) (err error) {
		state, err = commitlog.DecodeRemembered(r.hasher, raw)
		return err
	})
	if err != nil {
		return false, nil // a cache: what cannot be used is not used
	}
	n := state.Head.N
	entry, err := storage.ReadAll(ctx, r.store, commitlog.EntryName(n), commitlog.MaxSize)
	if errors.Is(err, storage.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, notFile(err)
	}
	_, _, head, err := commitlog.Decode(r.hasher, n, entry)
	if err != nil || head != state.Head {
		return false, nil
	}
	if !r.keys.believes(state.Generation) {
		return false, nil // as of a checkpoint
	}
	r.heed(entry)
	r.state, r.rememberedAt, r.checkpointGeneration = state, n, state.Generation
	r.reached()
	return true, nil
}

// rememberState keeps the state in this machine's cache, if enough has happened since the last time. Not being able to costs
// time at the next opening.
func (r *Repository) rememberState() {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := uint64(1 + r.state.Packs.Len()/rememberShare)
	if r.cache.dir == "" || r.diverged != nil || r.readOnly != nil || r.locked != nil || r.state.Head.N < r.rememberedAt+since {
		return
	}
	live := make(map[format.ID]bool, r.state.Points.Len())
	for point := range r.state.Points.All() {
		live[point.Checksum] = true
	}
	r.cache.dropPoints(live)
	raw, generation, err := commitlog.EncodeRemembered(r.hasher, r.state)
	if err == nil && generation == r.state.Generation && r.cache.setState(raw) == nil { // as of a checkpoint
		r.rememberedAt = r.state.Head.N
	}
}
