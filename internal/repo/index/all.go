package index

import (
	"context"
	"iter"
	"maps"
	"slices"

	"ferry/internal/repo/format"
)

// All goes through every entry once, in the order of id, pack and offset: a block that several packs hold comes once for
// each. Packs that are condemned are in it, packs that are gone are not. Segments are read from their files in large
// pieces, so that its memory is a buffer for each; those that are not all here are read whole first. What is added meanwhile
// is not in it. An error is yielded once, as the last item.
func (s *Set) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		segments, done := s.use()
		defer done()
		for _, segment := range segments {
			if err := segment.Complete(ctx); err != nil {
				yield(Entry{}, err)
				return
			}
		}
		recent, err := s.recentSegment()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		absent := s.absent()
		stopped := false
		err = merged(ctx, append(slices.Clone(segments), recent), func(c *cursor) (bool, error) {
			entry := c.entry()
			stopped = !absent[entry.Pack] && !yield(entry, nil)
			return !stopped, nil
		})
		if err != nil && !stopped {
			yield(Entry{}, err)
		}
	}
}

// Of visits the entries of some packs until visit returns false. It goes through all of each segment that covers one.
func (s *Set) Of(ctx context.Context, packs map[format.Name]bool, visit func(Entry) bool) error {
	s.mu.RLock()
	var entries []Entry
	for pack := range packs {
		entries = append(entries, s.byPack[pack]...)
	}
	s.mu.RUnlock()
	wanted := maps.Clone(packs)
	for _, e := range entries {
		delete(wanted, e.Pack)
		if !visit(e) {
			return nil
		}
	}
	segments, done := s.use()
	defer done()
	for _, segment := range segments {
		if err := segment.Complete(ctx); err != nil {
			return err
		}
		if !slices.ContainsFunc(segment.Packs(), func(pack format.Name) bool { return wanted[pack] }) {
			continue
		}
		stopped := false
		err := merged(ctx, []*Segment{segment}, func(c *cursor) (bool, error) {
			e := c.entry()
			stopped = wanted[e.Pack] && !visit(e)
			return !stopped, nil
		})
		if err != nil || stopped {
			return err
		}
	}
	return nil
}

// recentSegment makes a segment of what no segment covers.
func (s *Set) recentSegment() (*Segment, error) {
	s.mu.RLock()
	var entries []Entry
	for _, some := range s.byPack {
		entries = append(entries, some...)
	}
	s.mu.RUnlock()
	raw := Build(listHasher, entries)
	l, err := parseLayout(raw, int64(len(raw)))
	return &Segment{layout: l, content: content{bytes: raw}}, err
}

// listHasher makes checksums that nobody looks at.
var listHasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

// absent returns the packs that are gone.
func (s *Set) absent() map[format.Name]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	packs := map[format.Name]bool{}
	for pack, how := range s.givenUp {
		if how == gone {
			packs[pack] = true
		}
	}
	return packs
}
