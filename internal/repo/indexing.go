package repo

import (
	"context"
	"math/bits"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

const (
	// indexEvery is how many packs may be in no segment: opening reads their tables one by one.
	indexEvery = 16
	// mergeLimit is how many entries a merged segment has at most: about 200 MiB, in memory while it is made.
	mergeLimit = 4 << 20
	// mergeAt is how many segments of about one size are merged into one.
	mergeAt = 8
)

// newSegment is a segment that is written and not in the log yet.
type newSegment struct {
	id      format.Name
	opened  *index.Segment
	removed []format.Name // that it replaces
}

// writeIndex writes a segment when enough packs are in none, those of the seal included. Segments of about the same size are merged when there are
// many: sizes grow by powers of eight, so every entry is written again a few times at most.
//
// In words: packs abc in no segment, segments of level 0: 7, level 1: 7.
// abc -> new level 0 segment; now 8 of level 0 -> one of level 1; now 8 of level 1 -> one of level 2.
func (in *Ingest) writeIndex(ctx context.Context, s *seal, payload *commitlog.Payload) (*newSegment, error) {
	r := in.repo
	entries, packs := in.index.Uncovered()
	for _, open := range s.packs {
		entries = append(entries, indexEntries(open.id, open.entries)...)
		packs++
	}
	if packs == 0 || (packs < indexEvery && !(s.last && packs >= indexEvery/4)) {
		return nil, nil
	}
	r.mu.Lock()
	segments := make(map[format.Name]commitlog.Segment, len(r.state.Index))
	for id, segment := range r.state.Index {
		segments[id] = segment
	}
	r.mu.Unlock()
	var removed []format.Name
	for {
		same := in.sameLevel(segments, level(len(entries)))
		if len(same)+1 < mergeAt || mergedLen(same)+len(entries) > mergeLimit {
			break
		}
		for id, segment := range same {
			for i := range segment.Len() {
				entry, err := segment.At(i)
				if err != nil {
					return nil, err
				}
				entries = append(entries, entry)
			}
			delete(segments, id)
			removed = append(removed, id)
		}
	}
	id := format.RandomName()
	content := index.Build(r.hasher, entries)
	if err := r.store.Put(ctx, segmentName(id), content); err != nil {
		return nil, err
	}
	opened, err := index.Open(r.cache.keepSegment(id, content), r.hasher)
	if err != nil {
		return nil, err
	}
	payload.Index = append(payload.Index, commitlog.Segment{
		ID: id, Size: int64(len(content)), Checksum: format.ID(content[len(content)-32:]), Packs: opened.Packs(),
	})
	payload.IndexRemoved = removed
	return &newSegment{id: id, opened: opened, removed: removed}, nil
}

// level of a segment by its number of entries: up to 32,768 is level 0, then each level is eight times the one before.
func level(entries int) int { return max(0, bits.Len(uint(entries)>>15)+2) / 3 }

// sameLevel returns the segments of a level that the index has open.
func (in *Ingest) sameLevel(segments map[format.Name]commitlog.Segment, want int) map[format.Name]*index.Segment {
	same := map[format.Name]*index.Segment{}
	for id := range segments {
		if segment := in.index.Segment(id); segment != nil && level(segment.Len()) == want {
			same[id] = segment
		}
	}
	return same
}

func mergedLen(segments map[format.Name]*index.Segment) int {
	n := 0
	for _, segment := range segments {
		n += segment.Len()
	}
	return n
}
