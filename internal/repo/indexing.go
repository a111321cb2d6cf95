package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

const (
	// indexEvery is how many packs may be in no segment: opening reads their tables one by one.
	indexEvery = 16
	// mergeAt is how many segments of about one size are merged into one.
	mergeAt = 4
	// fetchToMerge is how much of segments may be read from the repository in order to merge them, in bytes, before
	// twice as many have come together as are merged elsewhere. A machine that has them in its cache may come by.
	fetchToMerge = 64 << 20
	// putLimit is the size up to which a segment is written in one call, in bytes.
	putLimit = 8 << 20
)

// newSegment is a segment that is written and not in the log yet.
type newSegment struct {
	record  commitlog.Segment
	opened  *index.Segment
	removed []format.Name // that it replaces
	local   []format.Name // of this process alone, that it takes up
}

// writeIndex writes a segment when enough packs are in none, those of the seal included.
func (in *Ingest) writeIndex(ctx context.Context, s *seal, payload *commitlog.Payload) (*newSegment, error) {
	entries, packs := in.index.Uncovered()
	for _, open := range s.packs {
		entries = append(entries, indexEntries(open.id, open.entries)...)
		packs++
	}
	if packs < indexEvery && !(s.last && packs >= indexEvery/4) && !in.repo.hasLocal() {
		return nil, nil
	}
	written, err := in.repo.writeSegment(ctx, entries)
	if err != nil || written == nil {
		return nil, err
	}
	payload.Index = append(payload.Index, written.record)
	payload.IndexRemoved = written.removed
	return written, nil
}

// hasLocal is true if this process has segments of its own, made of packs that the repository's segments do not cover.
func (r *Repository) hasLocal() bool {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	return len(r.local) > 0
}

// merging is what goes into a new segment.
type merging struct {
	inputs  []*index.Segment
	ids     []format.Name         // of the inputs; zero for what is in no segment yet
	frames  map[format.Name]int64 // of the packs that it will cover
	entries int64
	removed []format.Name
	local   []format.Name
}

// writeSegment writes a segment of entries, of what this process has of its own, and of segments of about the same size
// where there are many: sizes grow by powers of four, so every entry is written again a few times, and about twelve segments
// remain of 50 million blocks. Packs that are deleted are left out. It returns nil if there is nothing to write.
//
// In words: packs abc in no segment, segments of level 0: 3, level 1: 3.
// abc -> new level 0 segment; now 4 of level 0 -> one of level 1; now 4 of level 1 -> one of level 2.
//
// What is merged has a new checksum, and the segments that it was made of go: so each is proven before it is merged. One
// that was bad is replaced, and the choice made anew.
func (r *Repository) writeSegment(ctx context.Context, entries []index.Entry) (*newSegment, error) {
	for {
		written, err := r.writeProven(ctx, entries)
		if !errors.Is(err, errReplaced) {
			return written, err
		}
		entries = r.withUncovered(entries)
	}
}

// errReplaced: a segment that was to be merged was bad, and is replaced.
var errReplaced = errors.New("a segment was replaced")

// withUncovered adds to the entries those of packs that no segment covers any more.
func (r *Repository) withUncovered(entries []index.Entry) []index.Entry {
	have := map[format.Name]bool{}
	for i := range entries {
		have[entries[i].Pack] = true
	}
	uncovered, _ := r.index.Uncovered()
	for _, e := range uncovered {
		if !have[e.Pack] {
			entries = append(entries, e)
		}
	}
	return entries
}

func (r *Repository) writeProven(ctx context.Context, entries []index.Entry) (*newSegment, error) {
	fresh, err := index.Open(index.Build(r.hasher, entries), r.hasher)
	if err != nil {
		return nil, err
	}
	open, done := r.index.Segments()
	defer done()
	m := &merging{inputs: []*index.Segment{fresh}, ids: []format.Name{{}}, frames: map[format.Name]int64{}}
	for i := range entries {
		m.frames[entries[i].Pack]++
	}
	m.entries = int64(len(entries))
	r.takeLocal(m, open)
	if m.entries == 0 {
		return nil, nil
	}
	small := *m
	small.frames = maps.Clone(m.frames)
	r.takeLevels(m, open)
	written, err := r.merge(ctx, m)
	if errors.Is(err, ErrCorrupt) && len(m.inputs) > len(small.inputs) {
		r.warn("index segments could not be merged: %v", err)
		written, err = r.merge(ctx, &small)
	}
	return written, err
}

// takeLocal adds the segments of this process alone, and ends those that turned out damaged: their packs are in these.
func (r *Repository) takeLocal(m *merging, open map[format.Name]*index.Segment) {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := true
	for _, id := range slices.SortedFunc(maps.Keys(r.local), compareNames) {
		if open[id] == nil || m.entries+int64(open[id].Len()) > index.MaxEntries {
			all = false // another time
			continue
		}
		m.take(r.state, id, open[id], r.local[id])
		m.local = append(m.local, id)
	}
	for id, removable := range r.unusable {
		if _, live := r.state.Index[id]; live && removable && all {
			m.removed = append(m.removed, id)
		}
	}
}

// take adds a segment's packs that are not deleted.
func (m *merging) take(state *commitlog.State, id format.Name, segment *index.Segment, packs []format.Name) {
	m.inputs, m.ids = append(m.inputs, segment), append(m.ids, id)
	for _, name := range packs {
		p, live := state.Packs.Get(name)
		if _, already := m.frames[name]; live && !already {
			m.frames[name] = int64(p.Frames)
			m.entries += int64(p.Frames)
		}
	}
}

// takeLevels adds segments of the level that the new one has, as long as there are enough of them, and those that are
// mostly of packs that are deleted.
func (r *Repository) takeLevels(m *merging, open map[format.Name]*index.Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[format.Name]bool{}
	take := func(id format.Name) {
		taken[id] = true
		m.take(r.state, id, open[id], r.state.Index[id].Packs)
		m.removed = append(m.removed, id)
	}
	for id, segment := range r.state.Index {
		dead := 0
		for _, name := range segment.Packs {
			if live := r.state.Packs.Has(name); !live {
				dead++
			}
		}
		if open[id] != nil && dead*2 > len(segment.Packs) && m.entries+lengthOf(segment) <= index.MaxEntries {
			take(id)
		}
	}
	for {
		var same []format.Name
		var entries, toFetch int64
		for id, segment := range r.state.Index {
			if open[id] == nil || taken[id] || level(lengthOf(segment)) != level(m.entries) {
				continue
			}
			same = append(same, id)
			entries += lengthOf(segment)
			if !open[id].IsWhole() {
				toFetch += segment.Size
			}
		}
		if len(same)+1 < mergeAt || m.entries+entries > index.MaxEntries || (toFetch > fetchToMerge && len(same) < 2*mergeAt) {
			return
		}
		for _, id := range same {
			take(id)
		}
	}
}

// lengthOf a segment by its size, near enough: entries, fences and filter.
func lengthOf(segment commitlog.Segment) int64 { return segment.Size / 49 }

// level of a segment by its number of entries: up to 16,384 is level 0, then each level is four times the one before.
func level(entries int64) int { return max(0, bits.Len64(uint64(entries)>>14)+1) / 2 }

// merge writes the new segment.
func (r *Repository) merge(ctx context.Context, m *merging) (*newSegment, error) {
	covered := make([]index.Covered, 0, len(m.frames))
	written := &newSegment{removed: m.removed, local: m.local}
	for name, frames := range m.frames {
		covered = append(covered, index.Covered{Pack: name, Frames: frames})
		written.record.Packs = append(written.record.Packs, name)
	}
	slices.SortFunc(written.record.Packs, compareNames)
	if err := r.proveInputs(ctx, m); err != nil {
		return nil, err
	}
	id := format.RandomName()
	file, err := r.cache.file()
	if err != nil {
		return nil, fmt.Errorf("index segment: %w", err)
	}
	done, err := r.storeSegment(ctx, id, file, m, covered)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("index segment: %w", err)
	}
	written.record.ID, written.record.Size, written.record.Checksum = id, done.Size, done.Checksum
	if err := r.cache.keep(file, id, done.Checksum); err != nil {
		r.warn("index segment %s could not be kept: %v", id, err)
	}
	written.opened, err = index.OpenFile(file, r.hasher, true)
	return written, err
}

// proveInputs returns errReplaced if a segment that is to be merged was bad.
func (r *Repository) proveInputs(ctx context.Context, m *merging) error {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	for i, segment := range m.inputs {
		if m.ids[i].IsZero() {
			continue
		}
		if whole, err := r.prove(ctx, m.ids[i], segment); err != nil || !whole {
			return cmp.Or(err, errReplaced)
		}
	}
	return nil
}

// storeSegment merges to a file of this machine and to the repository.
func (r *Repository) storeSegment(ctx context.Context, id format.Name, file io.Writer, m *merging, covered []index.Covered) (index.Merged, error) {
	if m.entries*50 < putLimit {
		var content bytes.Buffer
		done, err := index.Merge(ctx, &content, r.hasher, m.inputs, covered)
		if err == nil {
			err = r.store.Put(ctx, segmentName(id), content.Bytes())
		}
		if err == nil {
			_, err = file.Write(content.Bytes())
		}
		return done, err
	}
	var out storage.Writer
	out, err := r.store.Create(ctx, segmentName(id))
	if err != nil {
		return index.Merged{}, err
	}
	defer out.Abort()
	done, err := index.Merge(ctx, io.MultiWriter(out, file), r.hasher, m.inputs, covered)
	if err == nil {
		err = out.Commit(ctx)
	}
	return done, err
}

// adoptSegment makes a segment that the log has now part of the index, in place of those that it replaces.
func (r *Repository) adoptSegment(written *newSegment) {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	if r.segments[written.record.ID] {
		_ = written.opened.Close() // a lookup was first, and opened it by itself
	} else {
		r.segments[written.record.ID] = true
		r.index.AddSegment(written.record.ID, written.opened, written.record.Packs)
		for _, name := range written.record.Packs {
			r.packs[name] = true
		}
	}
	for _, id := range written.local {
		r.index.RemoveSegment(id)
		delete(r.local, id)
	}
	for _, id := range written.removed {
		r.index.RemoveSegment(id)
		delete(r.unusable, id)
	}
	r.mu.Lock()
	live := make(map[format.Name]bool, len(r.state.Index))
	for id := range r.state.Index {
		live[id] = true
	}
	r.mu.Unlock()
	r.cache.dropSegments(func(name format.Name) bool { return live[name] })
}

func compareNames(a, b format.Name) int { return bytes.Compare(a[:], b[:]) }
