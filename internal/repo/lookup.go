package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

const (
	// spillEntries is how many entries of packs that no segment covers are kept in memory, about 150 bytes each. Of more
	// packs segments are made, for this process alone; the next index that is written takes them up.
	spillEntries = 256 << 10
	// tableReaders is how many pack tables are read at once.
	tableReaders = 8
)

// unindexed is what the log has said since the index was last brought up to it.
type unindexed struct {
	// everything: nothing was indexed yet, all of the state is new. The rest is empty then.
	everything         bool
	packs              []format.Name
	condemned, deleted []format.Name
	segments           []commitlog.Segment
	removed            []commitlog.Segment // as the log had them until then
	bad                bool                // the known damage has changed
}

// note adds what an entry says that follows a state.
func (u *unindexed) note(p *commitlog.Payload, state *commitlog.State) {
	if u.everything {
		return
	}
	for i := range p.Packs {
		u.packs = append(u.packs, p.Packs[i].ID)
	}
	u.condemned = append(u.condemned, p.Condemned...)
	u.deleted = append(u.deleted, p.Deleted...)
	u.segments = append(u.segments, p.Index...)
	for _, id := range p.IndexRemoved {
		if segment, live := state.Index[id]; live {
			u.removed = append(u.removed, segment)
		}
	}
	u.bad = u.bad || len(p.Bad)+len(p.BadHealed)+len(p.Deleted) > 0
}

// in returns what of it still holds in a state.
func (u unindexed) in(state *commitlog.State) unindexed {
	if u.everything {
		return unindexed{
			packs: state.Packs.Names(), condemned: slices.Collect(maps.Keys(state.Condemned)),
			segments: slices.Collect(maps.Values(state.Index)), bad: true,
		}
	}
	u.packs = keep(u.packs, func(name format.Name) bool { live := state.Packs.Has(name); return live })
	u.segments = keep(u.segments, func(s commitlog.Segment) bool { _, live := state.Index[s.ID]; return live })
	return u
}

// before puts what was said earlier in front.
func (u *unindexed) before(earlier unindexed) {
	earlier.packs = append(earlier.packs, u.packs...)
	earlier.condemned = append(earlier.condemned, u.condemned...)
	earlier.deleted = append(earlier.deleted, u.deleted...)
	earlier.segments = append(earlier.segments, u.segments...)
	earlier.removed = append(earlier.removed, u.removed...)
	earlier.bad = earlier.bad || u.bad
	if earlier.everything {
		earlier = unindexed{everything: true}
	}
	*u = earlier
}

// lookup brings the index up to the log's state and returns it. What the log has gained since the last time is all
// that is looked at: new segments, and the tables of packs that no segment covers.
func (r *Repository) lookup(ctx context.Context) (*index.Set, error) {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	r.mu.Lock()
	if r.state.Head == r.indexedTo {
		r.mu.Unlock()
		return r.index, nil
	}
	head, news := r.state.Head, r.unindexed
	r.unindexed = unindexed{}
	live := news.in(r.state)
	for _, segment := range live.segments { // it may name packs that are deleted since
		for _, name := range segment.Packs {
			if there := r.state.Packs.Has(name); !there {
				live.deleted = append(live.deleted, name)
			}
		}
	}
	for _, name := range live.packs {
		if domain := r.state.Packs.Of(name).Domain; domain != r.defaultDomain() {
			r.index.Assign(name, domain)
		}
	}
	var damaged map[index.Frame]bool
	if live.bad {
		damaged = damagedFrames(r.state)
	}
	r.mu.Unlock()

	if err := r.learn(ctx, live); err != nil {
		r.mu.Lock()
		r.unindexed.before(news)
		r.mu.Unlock()
		return nil, err
	}
	if live.bad {
		r.index.Avoid(damaged)
	}
	r.indexedTo = head
	return r.index, nil
}

// inOrderOfNaming compares packs by when they were named, as newer does.
func inOrderOfNaming(a, b commitlog.Pack) int {
	return cmp.Or(cmp.Compare(a.Entry, b.Entry), compareNames(a.ID, b.ID))
}

// byNaming is inOrderOfNaming of packs by their ids.
func (r *Repository) byNaming(a, b format.Name) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return inOrderOfNaming(r.state.Packs.Of(a), r.state.Packs.Of(b))
}

// learn adds to the index what the log has gained. After an error it can be called again with the same.
func (r *Repository) learn(ctx context.Context, news unindexed) error {
	if len(r.packs) == 0 {
		r.packs = make(map[format.Name]bool, len(news.packs)) // growing to that would take twice the memory
	}
	for _, segment := range news.segments {
		if err := r.addSegment(ctx, segment); err != nil {
			return err
		}
	}
	if err := r.addPacks(ctx, news.packs, nil); err != nil {
		return err
	}
	for _, name := range news.condemned {
		r.index.Hide(name)
	}
	for _, name := range news.deleted {
		r.index.Forget(name)
		delete(r.packs, name)
	}
	removed := keep(news.removed, func(s commitlog.Segment) bool { // the index does not have one that cannot be used, but its packs
		_, unusable := r.unusable[s.ID]
		delete(r.unusable, s.ID)
		return !unusable
	})
	if len(r.unusable)+len(r.replaced) > 0 {
		removed, news.segments = r.replaceable(removed)
	}
	return r.removeSegments(ctx, removed, news.segments)
}

// replaceable are those of the segments that the log names no more, the ones kept until now among them, which the index can do without,
// and the segments of the log that it has. The others are kept: they have a pack that the log has in nothing else than segments that
// cannot be used, such as the one that replaced them. The caller holds r.indexing.
func (r *Repository) replaceable(removed []commitlog.Segment) (without, usable []commitlog.Segment) {
	r.mu.Lock()
	live := slices.Collect(maps.Values(r.state.Index))
	r.mu.Unlock()
	needed := map[format.Name]bool{}
	for _, segment := range live {
		if _, unusable := r.unusable[segment.ID]; unusable {
			for _, name := range segment.Packs {
				needed[name] = true
			}
		} else {
			usable = append(usable, segment)
		}
	}
	for _, segment := range usable {
		for _, name := range segment.Packs {
			delete(needed, name)
		}
	}
	for _, segment := range removed {
		r.replaced[segment.ID] = segment
	}
	for _, segment := range r.replaced {
		if !slices.ContainsFunc(segment.Packs, func(name format.Name) bool { return needed[name] }) {
			without = append(without, segment)
		}
	}
	return without, usable
}

// removeSegments takes segments out of the index that the log names no more. Healing gives damaged ones up without others in their
// place: the tables of the packs that are in none of these are read.
func (r *Repository) removeSegments(ctx context.Context, removed, added []commitlog.Segment) error {
	in := make([][]format.Name, len(added))
	for i, segment := range added {
		in[i] = sortedNames(segment.Packs)
	}
	var uncovered []format.Name
	for _, segment := range removed {
		for _, name := range segment.Packs {
			if !slices.ContainsFunc(in, func(names []format.Name) bool {
				_, covers := slices.BinarySearchFunc(names, name, compareNames)
				return covers
			}) {
				uncovered = append(uncovered, name)
			}
		}
	}
	uncovered = sortedNames(uncovered)
	for _, name := range uncovered {
		delete(r.packs, name)
	}
	if err := r.addPacks(ctx, uncovered, nil); err != nil { // the segments stay until it is done again
		return err
	}
	for _, segment := range removed {
		r.index.RemoveSegment(segment.ID)
		delete(r.replaced, segment.ID)
	}
	return nil
}

// addSegment adds a segment to the index. One that cannot be used is passed over: its packs' tables are read instead.
func (r *Repository) addSegment(ctx context.Context, segment commitlog.Segment) error {
	if r.segments[segment.ID] {
		return nil
	}
	opened, err := r.openSegment(ctx, segment)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.segments[segment.ID] = true
	if err != nil {
		r.unusable[segment.ID] = errors.Is(err, ErrCorrupt) || storage.Missing(err)
		r.warn("index segment %s is not used, its packs are read instead: %v", segment.ID, err)
		return nil
	}
	r.index.AddSegment(segment.ID, opened, segment.Packs)
	for _, name := range segment.Packs {
		r.packs[name] = true
	}
	return nil
}

// addPacks adds packs that no segment covers to the index. read, if not nil, is called for each table that was read. The
// caller holds r.indexing.
func (r *Repository) addPacks(ctx context.Context, names []format.Name, read func()) error {
	var packs []commitlog.Pack
	frames := 0
	r.mu.Lock()
	for _, name := range names {
		if p, live := r.state.Packs.Get(name); live && !r.packs[name] {
			packs = append(packs, p)
			frames += p.Frames
		}
	}
	r.mu.Unlock()
	inMemory := frames <= r.spillEntries
	for len(packs) > 0 {
		n, frames := 0, 0
		for ; n < len(packs) && (n == 0 || frames+packs[n].Frames <= r.spillEntries); n++ {
			frames += packs[n].Frames
		}
		if err := r.addTables(ctx, packs[:n], inMemory, read); err != nil {
			return err
		}
		packs = packs[n:]
	}
	return nil
}

// addTables reads the tables of packs and keeps them in memory, or makes a segment of them for this process alone.
func (r *Repository) addTables(ctx context.Context, packs []commitlog.Pack, inMemory bool, read func()) error {
	tables, err := r.readTables(ctx, packs, read)
	if err != nil {
		return err
	}
	var entries []index.Entry
	var covered []format.Name
	for i, p := range packs {
		switch table := tables[i]; {
		case table.err != nil:
			r.warn("pack %s cannot be used: %v", p.ID, table.err)
		case !table.whole:
			r.index.AddPart(p.ID, table.entries)
		case inMemory:
			r.index.AddPack(p.ID, table.entries)
		default:
			entries = append(entries, table.entries...)
			covered = append(covered, p.ID)
		}
	}
	if len(covered) > 0 {
		file, err := r.cache.file()
		if err != nil {
			return fmt.Errorf("index of packs that no segment covers: %w", err)
		}
		opened, err := r.buildIn(file, entries)
		if err != nil {
			return fmt.Errorf("index of packs that no segment covers: %w", err)
		}
		id := format.RandomName()
		r.index.AddSegment(id, opened, covered)
		r.local[id] = covered
	}
	for _, p := range packs {
		r.packs[p.ID] = true
	}
	return nil
}

// packTable is what was read of a pack's table.
type packTable struct {
	entries []index.Entry
	whole   bool
	err     error // of the pack itself
}

// readTables reads the tables of packs, several at once. An error is the storage's trouble, which may pass: it says nothing
// of the packs.
func (r *Repository) readTables(ctx context.Context, packs []commitlog.Pack, read func()) ([]packTable, error) {
	tables := make([]packTable, len(packs))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers sync.WaitGroup
	next := make(chan int)
	for range min(tableReaders, len(packs)) {
		readers.Go(func() {
			for i := range next {
				t := &tables[i]
				t.entries, t.whole, t.err = r.readPackTable(ctx, packs[i])
				if t.err != nil && !errors.Is(t.err, storage.ErrNotExist) && !unreadable(t.err) {
					cancel(fmt.Errorf("pack %s: %w", packs[i].ID, t.err))
				}
				if read != nil {
					read()
				}
			}
		})
	}
	for i := range packs {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	readers.Wait()
	return tables, context.Cause(ctx)
}

// unreadable is true for errors that say something of a file itself, and not only of reading it now.
func unreadable(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) || errors.Is(err, ErrNeedsKey) || errors.Is(err, storage.ErrNotFile)
}
