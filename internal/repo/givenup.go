package repo

import (
	"fmt"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
)

// What reclaim gave up while a writer was not looking (docs/format.md section 14). A writer may be paused for longer than
// any grace; when it wakes, a pack that it has written and not named yet may have been taken for garbage, condemned and
// deleted, and of a deleted pack the log's state says nothing any more. So what the entries said is collected.

// apply adds an entry to the state, and notes what it gives up and what the index has to learn. The caller holds r.mu.
func (r *Repository) apply(payload *commitlog.Payload, head commitlog.Head) {
	for _, names := range [][]format.Name{payload.Condemned, payload.Deleted} {
		for _, name := range names {
			r.givenUp[pack.ObjectName(name)] = true
		}
	}
	for _, files := range [][]string{payload.CondemnedFiles, payload.DeletedFiles} {
		for _, file := range files {
			r.givenUp[file] = true
		}
	}
	r.unindexed.note(payload, r.state)
	if !payload.IsPassing() || payload.Generation != r.state.Generation { // that the log has a MAC of another key must not get lost
		r.lasting = head
	}
	r.state.Apply(payload, head)
	r.reached()
}

// refuseGivenUp returns an error wrapping ErrCondemned if the payload names a file that was given up. The caller holds r.mu.
func (r *Repository) refuseGivenUp(payload *commitlog.Payload) error {
	for _, name := range namedFiles(payload) {
		if r.givenUp[name] {
			return fmt.Errorf("%s was taken for garbage: %w", name, ErrCondemned)
		}
	}
	return nil
}

// namedFiles are the files that a payload adds.
func namedFiles(payload *commitlog.Payload) []string {
	var names []string
	for _, p := range payload.Packs {
		names = append(names, pack.ObjectName(p.ID))
	}
	for _, segment := range payload.Index {
		names = append(names, segmentName(segment.ID))
	}
	for _, point := range payload.Points {
		names = append(names, point.File())
	}
	for _, partial := range payload.Partials {
		names = append(names, partial.File)
	}
	return names
}

// withoutGivenUp takes from the payload what names files that were given up, and segments that cover such packs. It
// returns the packs.
func (r *Repository) withoutGivenUp(payload *commitlog.Payload) (lost map[format.Name]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost = map[format.Name]bool{}
	payload.Packs = keep(payload.Packs, func(p commitlog.Pack) bool {
		if r.givenUp[pack.ObjectName(p.ID)] {
			lost[p.ID] = true
		}
		return !lost[p.ID]
	})
	index := keep(payload.Index, func(segment commitlog.Segment) bool {
		covers := false
		for _, name := range segment.Packs {
			covers = covers || lost[name]
		}
		return !covers && !r.givenUp[segmentName(segment.ID)]
	})
	if len(index) < len(payload.Index) {
		payload.IndexRemoved = nil // what a lost segment would have replaced stays
	}
	payload.Index = index
	payload.Points = keep(payload.Points, func(p commitlog.Point) bool { return !r.givenUp[p.File()] })
	payload.Partials = keep(payload.Partials, func(p commitlog.Partial) bool { return !r.givenUp[p.File] })
	return lost
}

// keep returns those for which good is true, in a list of its own.
func keep[T any](list []T, good func(T) bool) []T {
	var kept []T
	for _, v := range list {
		if good(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
