package repo

import (
	"bytes"
	"context"
	"iter"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
)

// packUse says what of a pack is live: the places that are kept of live ids. An id that is in several packs of its domain
// is kept in one: a good place before a damaged one, then the pack that was named last, which compaction wrote.
//
// There is one for each pack of the repository, so it is small.
type packUse struct {
	bytes int64
	// plain is what the live frames hold before compression, in bytes.
	plain  int64
	frames uint32
	// listed counts the pack's frames that the index has.
	listed uint32
	// only counts frames known to be damaged of ids that points need and that have no good place: the pack stays, perhaps
	// they can be healed.
	only uint32
	// needed counts frames of a condemned pack that points need and that are in no pack that stays. It must not be deleted.
	needed uint32
}

// toRescue are the offsets of those needed frames of a condemned pack that are to be copied from it, and what they take in bytes.
type toRescue struct {
	offsets []uint32
	bytes   int64
}

// placing is what a merge of live ids and index found in a domain.
type placing struct {
	// numbers says where in use each pack of the domain is that the log has.
	numbers map[format.Name]uint32
	use     []packUse
	rescued map[format.Name]toRescue
	// others are packs of other domains that hold a good copy of what points need and the domain has no good copy of.
	others map[format.Name]bool
	// lost counts ids that points need of which no good place is known, missing those of them of which no place is.
	lost, missing int
}

// frameSize is what a frame takes in its pack, in bytes.
func frameSize(p index.Place) int64 { return pack.FrameHeaderSize + int64(p.Stored) }

// placeProven places a domain's live ids for a decision. If the index does not have all of them, or not all of a pack, its
// segments are compared with the packs first. Ids that stay missing make the mark incomplete: perhaps it is the index that
// is wrong, and what it takes for dead is what is missed.
func (m *marker) placeProven(ctx context.Context, name format.Name, state *commitlog.State) (placing, error) {
	d := m.domains[name]
	found, err := m.place(ctx, name, state, nil)
	if err != nil || len(d.incomplete) > 0 || found.missing == 0 && found.agrees(state, name) {
		return found, err
	}
	if _, err := m.repo.settleByTables(ctx); err != nil {
		return found, err
	}
	if found, err = m.place(ctx, name, state, nil); err == nil && found.missing > 0 {
		d.miss("%d blocks or nodes that points need are in no pack: nothing is given up beside them; forget the points that ferry verify says are damaged, or heal them", found.missing)
	}
	return found, err
}

// agrees is true if the index has as many frames of each pack as the log says, but for those that are known to be damaged.
func (f *placing) agrees(state *commitlog.State, domain format.Name) bool {
	damaged := map[format.Name]bool{}
	for bad := range state.Bad {
		damaged[bad.Pack] = true
	}
	for id, p := range state.Packs.All() {
		if p.Domain != domain || damaged[id] {
			continue
		}
		if int(f.of(id).listed) != p.Frames {
			return false
		}
	}
	return true
}

// place merges a domain's live ids with the index, both ascending, in one pass. keep, if not nil, is called with each place
// that is kept.
func (m *marker) place(ctx context.Context, name format.Name, state *commitlog.State, keepPlace func(index.Place)) (placing, error) {
	found := newPlacing(state, name)
	set, err := m.repo.lookup(ctx)
	if err != nil {
		return found, err
	}
	damaged := damagedFrames(state)
	live, stop := iter.Pull2(m.domains[name].sorted())
	defer stop()
	want, err, more := live()
	var places, elsewhere []index.Place // of want, in the domain and in others
	settle := func() {
		if !found.settle(state, damaged, want, places, keepPlace) {
			found.keepElsewhere(state, damaged, elsewhere)
		}
		places, elsewhere = places[:0], elsewhere[:0]
		want, err, more = live()
	}
	for entry, entryErr := range set.All(ctx) {
		if entryErr != nil {
			return found, entryErr
		}
		for more && err == nil && bytes.Compare(want.id[:], entry.ID[:]) < 0 {
			settle()
		}
		if err != nil {
			return found, err
		}
		use, wanted := found.of(entry.Pack), more && want.id == entry.ID
		if use != nil {
			use.listed++
		}
		switch {
		case !wanted:
		case use != nil:
			places = append(places, entry.Place)
		default:
			elsewhere = append(elsewhere, entry.Place)
		}
	}
	for more && err == nil {
		settle()
	}
	return found, err
}

// newPlacing is that of a domain of which nothing was found yet.
func newPlacing(state *commitlog.State, domain format.Name) placing {
	count := 0
	for _, p := range state.Packs.All() {
		if p.Domain == domain {
			count++
		}
	}
	f := placing{numbers: make(map[format.Name]uint32, count), use: make([]packUse, count), rescued: map[format.Name]toRescue{}, others: map[format.Name]bool{}}
	for id, p := range state.Packs.All() {
		if p.Domain == domain {
			f.numbers[id] = uint32(len(f.numbers))
		}
	}
	return f
}

// of returns what is live of a pack; nil if it is not one of the domain's.
func (f *placing) of(name format.Name) *packUse {
	if number, known := f.numbers[name]; known {
		return &f.use[number]
	}
	return nil
}

// settle decides which of the places of a live id is kept. It is false if a point needs the id and none of them is good and stays.
func (f *placing) settle(state *commitlog.State, damaged map[index.Frame]bool, want needed, places []index.Place, keepPlace func(index.Place)) bool {
	var best *index.Place
	for i := range places {
		p := &places[i]
		if state.Condemned[p.Pack] || isDamaged(damaged, *p) {
			continue
		}
		if best == nil || newer(state.Packs.Of(p.Pack), state.Packs.Of(best.Pack)) {
			best = p
		}
	}
	if best != nil {
		use := f.of(best.Pack)
		use.frames++
		use.bytes += frameSize(*best)
		use.plain += int64(best.Plain)
		if keepPlace != nil {
			keepPlace(*best)
		}
		return true
	}
	if !want.point {
		return true
	}
	f.lost++
	if len(places) == 0 {
		f.missing++
	}
	rescued := false
	for _, p := range places {
		use := f.of(p.Pack)
		if !state.Condemned[p.Pack] {
			use.only++
			continue
		}
		use.needed++
		if !rescued && !isDamaged(damaged, p) {
			r := f.rescued[p.Pack]
			f.rescued[p.Pack], rescued = toRescue{append(r.offsets, p.Offset), r.bytes + frameSize(p)}, true
		}
	}
	return false
}

// keepElsewhere notes the packs of other domains that hold a good copy of what this one lacks.
func (f *placing) keepElsewhere(state *commitlog.State, damaged map[index.Frame]bool, places []index.Place) {
	for _, p := range places {
		if named := state.Packs.Has(p.Pack); named && !isDamaged(damaged, p) {
			f.others[p.Pack] = true
		}
	}
}

// newer is true if a was named after b; of packs named together the one with the greater id counts.
func newer(a, b commitlog.Pack) bool {
	return inOrderOfNaming(a, b) > 0
}
