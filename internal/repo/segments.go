package repo

import (
	"context"
	"fmt"
	"os"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/storage"
)

// segmentLimit bounds an index segment, in bytes.
const segmentLimit = 1 << 40

// smallSegment is the size up to which a segment is read whole when it is opened, in bytes.
const smallSegment = 1 << 20

func segmentName(id format.Name) string { return "index/" + id.String() }

// openSegment opens a segment from the cache, or from the repository: then only what is looked up is read of it, until it
// pays to read it whole.
func (r *Repository) openSegment(ctx context.Context, segment commitlog.Segment) (*index.Segment, error) {
	if segment.Size > segmentLimit {
		return nil, fmt.Errorf("%w: a segment of %d bytes", ErrCorrupt, segment.Size)
	}
	if cached := r.cache.segment(segment, r.hasher); cached != nil {
		if matchPacks(cached, segment) == nil {
			return cached, nil
		}
		cached.Close()
	}
	opened, err := r.openParts(segment)
	if err == nil && segment.Size <= r.smallSegment {
		if err = opened.Complete(ctx); err != nil {
			opened.Close()
		}
	}
	return opened, err
}

// openParts opens a segment of which nothing is read yet.
func (r *Repository) openParts(segment commitlog.Segment) (*index.Segment, error) {
	file, err := r.cache.file()
	if err != nil {
		return nil, err
	}
	source := &segmentSource{store: r.store, name: segmentName(segment.ID), size: segment.Size}
	return index.OpenParts(index.Parts{
		Size: segment.Size, Checksum: segment.Checksum, File: file, Fetch: source.fetch,
		Whole: func(opened *index.Segment) error {
			if err := matchPacks(opened, segment); err != nil {
				return err
			}
			if err := r.cache.keep(file, segment.ID, segment.Checksum); err != nil {
				r.warn("index segment %s could not be kept: %v", segment.ID, err)
			}
			return nil
		},
	}, r.hasher)
}

// matchPacks returns an error unless a segment covers the packs that the log says.
func matchPacks(opened *index.Segment, segment commitlog.Segment) error {
	if !opened.IsOf(sortedNames(segment.Packs)) {
		return fmt.Errorf("%w: it covers other packs than the log says", ErrCorrupt)
	}
	return nil
}

// segmentSource reads a segment's bytes from the repository.
type segmentSource struct {
	store storage.Store
	name  string
	size  int64 // by the log
}

func (s *segmentSource) fetch(ctx context.Context, p []byte, offset int64) error {
	reader, err := storage.OpenSized(ctx, s.store, s.name, s.size)
	if err != nil {
		return err
	}
	defer reader.Close()
	if reader.Size() != s.size {
		return fmt.Errorf("%w: it has %d bytes, the log says %d", ErrCorrupt, reader.Size(), s.size)
	}
	return readFull(ctx, reader, p, offset)
}

// sortedNames are the names in ascending order, each once: the list itself, where it is so.
func sortedNames(names []format.Name) []format.Name {
	if isAscending(names) {
		return names
	}
	return slices.Compact(slices.SortedFunc(slices.Values(names), compareNames))
}

func isAscending(names []format.Name) bool {
	for i := 1; i < len(names); i++ {
		if compareNames(names[i-1], names[i]) >= 0 {
			return false
		}
	}
	return true
}

// packEntries reads a pack's own table, as index.Table.
func (r *Repository) packEntries(ctx context.Context, name format.Name) ([]index.Entry, error) {
	r.mu.Lock()
	p, live := r.state.Packs.Get(name)
	r.mu.Unlock()
	if !live {
		return nil, fmt.Errorf("%w: the log names no pack %s", ErrCorrupt, name)
	}
	entries, whole, err := r.readPackTable(ctx, p)
	if err == nil && !whole {
		err = fmt.Errorf("%w: the table of pack %s is damaged", ErrCorrupt, name)
	}
	return entries, err
}

// buildIn makes a segment of entries in a file, which belongs to the segment then.
func (r *Repository) buildIn(file *os.File, entries []index.Entry) (*index.Segment, error) {
	if _, err := file.Write(index.Build(r.hasher, entries)); err != nil {
		file.Close()
		return nil, err
	}
	return index.OpenFile(file, r.hasher, true)
}
