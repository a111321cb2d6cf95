package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// segmentLimit bounds an index segment, in bytes.
const segmentLimit = 1 << 31

// lookup brings the index up to the log's state and returns it. What the log has gained since the last time is all
// that is read: new segments, and the tables of packs that no segment covers.
func (r *Repository) lookup(ctx context.Context) (*index.Set, error) {
	r.indexing.Lock()
	defer r.indexing.Unlock()
	r.mu.Lock()
	if r.state.Head == r.indexedTo {
		r.mu.Unlock()
		return r.index, nil
	}
	head := r.state.Head
	segments := slices.Collect(maps.Values(r.state.Index))
	packs := slices.Collect(maps.Values(r.state.Packs))
	live := make(map[format.Name]bool, len(packs))
	for _, p := range packs {
		live[p.ID] = true
		if p.Domain != r.defaultDomain() {
			r.index.Assign(p.ID, p.Domain)
		}
	}
	condemned := slices.Collect(maps.Keys(r.state.Condemned))
	bad := slices.Collect(maps.Keys(r.state.Bad))
	r.mu.Unlock()

	for _, segment := range segments {
		if r.segments[segment.ID] {
			continue
		}
		opened, err := r.openSegment(ctx, segment)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.segments[segment.ID] = true
		if err != nil {
			r.warn("index segment %s is not used, its packs are read instead: %v", segment.ID, err)
			continue
		}
		r.index.AddSegment(segment.ID, opened)
		for _, name := range opened.Packs() {
			r.packs[name] = true
		}
	}
	for _, p := range packs {
		if r.packs[p.ID] {
			continue
		}
		entries, whole, err := r.readPackTable(ctx, p)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil && !errors.Is(err, storage.ErrNotExist) && !unreadable(err) {
			return nil, fmt.Errorf("pack %s: %w", p.ID, err) // the storage's trouble, which may pass: it says nothing of the pack
		}
		r.packs[p.ID] = true
		if err != nil {
			r.warn("pack %s cannot be used: %v", p.ID, err)
			continue
		}
		if whole {
			r.index.AddPack(p.ID, entries)
		} else {
			r.index.AddPart(p.ID, entries)
		}
	}
	for _, name := range condemned {
		r.index.Hide(name)
	}
	damaged := make(map[index.Frame]bool, len(bad))
	for _, b := range bad {
		frame := index.Frame{Pack: b.Pack, Offset: b.Offset}
		if b.ID.IsZero() {
			frame.Offset = index.WholePack
		}
		damaged[frame] = true
	}
	r.index.Avoid(damaged)
	// A segment may name packs that are deleted since.
	for name := range r.packs {
		if !live[name] {
			r.index.Hide(name)
		}
	}
	r.indexedTo = head
	return r.index, nil
}

// unreadable is true for errors that say something of a file itself, and not only of reading it now.
func unreadable(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNewer) || errors.Is(err, ErrNeedsKey)
}

// openSegment opens a segment from the cache, or from the repository and then caches it.
func (r *Repository) openSegment(ctx context.Context, segment commitlog.Segment) (*index.Segment, error) {
	if cached := r.cache.segment(segment.ID); cached != nil {
		if opened, err := openSegmentBytes(cached, r.hasher, segment); err == nil {
			return opened, nil
		}
	}
	content, err := storage.ReadAll(ctx, r.store, segmentName(segment.ID), segmentLimit)
	if err != nil {
		return nil, err
	}
	opened, err := openSegmentBytes(content, r.hasher, segment)
	if err != nil {
		return nil, err
	}
	kept := r.cache.keepSegment(segment.ID, content)
	if &kept[0] == &content[0] {
		return opened, nil
	}
	return openSegmentBytes(kept, r.hasher, segment)
}

func openSegmentBytes(content []byte, hasher *format.Hasher, segment commitlog.Segment) (*index.Segment, error) {
	if int64(len(content)) != segment.Size || len(content) < 32 || format.ID(content[len(content)-32:]) != segment.Checksum {
		return nil, fmt.Errorf("%w: it is not the segment that the log names", ErrCorrupt)
	}
	return index.Open(content, hasher)
}

func segmentName(id format.Name) string { return "index/" + id.String() }

// readPackTable reads a pack's own table and checks it against the log. Of a damaged pack it finds what frames it can, by
// scanning; whole is false then.
func (r *Repository) readPackTable(ctx context.Context, p commitlog.Pack) (entries []index.Entry, whole bool, err error) {
	reader, err := r.store.Open(ctx, pack.ObjectName(p.ID))
	if err != nil {
		return nil, false, err
	}
	defer reader.Close()
	table, err := pack.ReadTable(reader, reader.Size(), r.hasher)
	if err == nil {
		err = matchLog(table, reader.Size(), p)
	}
	if err == nil {
		return indexEntries(p.ID, table.Entries), true, nil
	}
	if !errors.Is(err, ErrCorrupt) {
		return nil, false, err
	}
	found := pack.Scan(reader, reader.Size(), r.hasher)
	r.warn("pack %s is damaged, %d of its %d frames were found by scanning it: %v", p.ID, len(found), p.Frames, err)
	return indexEntries(p.ID, found), false, nil
}

// matchLog returns an error unless the pack is the one that the log names.
func matchLog(table pack.Table, size int64, p commitlog.Pack) error {
	if table.Root != p.Root || table.Header.ID != p.ID || table.Header.Domain != p.Domain || size != p.Size || len(table.Entries) != p.Frames || table.Header.Kind.String() != p.Kind {
		return fmt.Errorf("%w: it is not the pack that the log names", ErrCorrupt)
	}
	return nil
}

func indexEntries(name format.Name, entries []pack.Entry) []index.Entry {
	found := make([]index.Entry, len(entries))
	for i, e := range entries {
		found[i] = index.Entry{ID: e.ID, Place: index.Place{Pack: name, Offset: e.Offset, Stored: e.Stored, Plain: e.Plain}}
	}
	return found
}

// packFiles keeps a bounded number of packs open for reading.
type packFiles struct {
	store storage.Store
	mu    sync.Mutex
	open  map[format.Name]*packFile
	clock uint64
}

type packFile struct {
	storage.Reader
	users int
	used  uint64
}

const maxOpenPacks = 64

func newPackFiles(store storage.Store) *packFiles {
	return &packFiles{store: store, open: map[format.Name]*packFile{}}
}

// acquire opens a pack or returns the open one. The caller releases it.
func (f *packFiles) acquire(ctx context.Context, name format.Name) (*packFile, error) {
	f.mu.Lock()
	if file := f.open[name]; file != nil {
		f.take(file)
		f.mu.Unlock()
		return file, nil
	}
	f.mu.Unlock()
	reader, err := f.store.Open(ctx, pack.ObjectName(name))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if file := f.open[name]; file != nil {
		reader.Close()
		f.take(file)
		return file, nil
	}
	file := &packFile{Reader: reader}
	f.open[name] = file
	f.take(file)
	f.evict()
	return file, nil
}

func (f *packFiles) take(file *packFile) {
	f.clock++
	file.used = f.clock
	file.users++
}

// evict closes the files unused for longest until few enough are open. The caller holds the lock.
func (f *packFiles) evict() {
	for len(f.open) > maxOpenPacks {
		var oldest format.Name
		var victim *packFile
		for name, file := range f.open {
			if file.users == 0 && (victim == nil || file.used < victim.used) {
				oldest, victim = name, file
			}
		}
		if victim == nil {
			return
		}
		delete(f.open, oldest)
		victim.Close()
	}
}

func (f *packFiles) release(file *packFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file.users--
	f.evict()
}

func (f *packFiles) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, file := range f.open {
		file.Close()
		delete(f.open, name)
	}
}

// readFull reads exactly len(p) bytes; a shorter object is corrupt.
func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: pack ends at byte %d", ErrCorrupt, offset+int64(n))
	}
	return err
}
