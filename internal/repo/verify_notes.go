package repo

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// badPerPack is how many damaged frames of one pack are noted one by one; with more the whole pack is not relied on. It
// bounds what a verification and the log keep of damage.
const badPerPack = 64

// noteBad makes the log say which places in the packs that were read are damaged, and which are not any more. A repository
// that cannot be written to is verified all the same.
func (v *verifier) noteBad(ctx context.Context) error {
	r := v.repo
	found := map[commitlog.Bad]bool{}
	for _, p := range v.places {
		found[commitlog.Bad{Pack: p.at.pack, Offset: p.damage.Offset, Length: p.damage.Length, ID: p.id}] = true
	}
	payload := &commitlog.Payload{}
	r.mu.Lock()
	for bad := range found {
		if !r.state.Bad[bad] {
			payload.Bad = append(payload.Bad, bad)
		}
	}
	for bad := range r.state.Bad {
		switch {
		case found[bad]:
		case v.read[bad.Pack] && v.noted[bad.Pack] && v.depth(bad.Pack) >= LevelBlocks:
			payload.BadHealed = append(payload.BadHealed, bad)
		default: // not looked at this time, or not deep enough to say that it is good again
			v.recall(bad)
		}
	}
	r.mu.Unlock()
	v.report.Noted = len(v.places)
	if len(payload.Bad)+len(payload.BadHealed) > 0 {
		err := r.commit(ctx, payload, ofNamedPacks(payload))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			v.report.Noted = 0
			r.warn("the damage could not be noted in the repository, so a copy may still rely on what is damaged: %v", err)
			return nil
		}
	}
	for pack := range v.read {
		v.proofs.proven(pack, v.level, r.env.now()) // damaged ones, too: the log says so
	}
	return nil
}

// ofNamedPacks is the check of a commit that notes damage: what is said of packs that are gone meanwhile is left out.
func ofNamedPacks(payload *commitlog.Payload) func(*commitlog.State) error {
	return func(state *commitlog.State) error {
		payload.Bad = keep(payload.Bad, func(bad commitlog.Bad) bool { named := state.Packs.Has(bad.Pack); return named })
		return nil
	}
}

// recall takes over from the log what is damaged in a pack that is not read this time. The caller holds the repository's
// lock.
func (v *verifier) recall(bad commitlog.Bad) {
	p := place{at: badPlace{bad.Pack, uint32(bad.Offset)}, id: bad.ID}
	if bad.ID.IsZero() {
		p.at.offset = wholePack
	}
	p.damage = Damage{File: packName(bad.Pack), Offset: bad.Offset, Length: bad.Length, Reason: "it was found damaged earlier"}
	v.bad[p.at] = p.damage.Reason
	v.places = append(v.places, p)
}

// notePoints makes the log say which points are damaged, of those that were looked at.
func (v *verifier) notePoints(ctx context.Context, damaged map[backup.PointID]PointDamage, looked func(backup.PointID) bool) error {
	r := v.repo
	payload := &commitlog.Payload{}
	fill := func(state *commitlog.State) error {
		payload.Damaged, payload.DamagedHealed = nil, nil
		for id, d := range damaged {
			if state.Points.Has(id) && state.Damaged[id] != commitlog.Damaged(d) {
				payload.Damaged = append(payload.Damaged, commitlog.Damaged(d))
			}
		}
		for id := range state.Damaged {
			if _, still := damaged[id]; !still && looked(id) && !r.Locked() {
				payload.DamagedHealed = append(payload.DamagedHealed, id)
			}
		}
		return nil
	}
	r.mu.Lock()
	_ = fill(r.state)
	r.mu.Unlock()
	if len(payload.Damaged)+len(payload.DamagedHealed) > 0 {
		if err := r.commit(ctx, payload, fill); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.warn("which points are damaged could not be noted in the repository: %v", err)
			v.report.DamagedPoints = len(damaged)
			return nil
		}
	}
	r.mu.Lock()
	v.report.DamagedPoints = len(r.state.Damaged)
	r.mu.Unlock()
	return nil
}

// tellApart lists the damaged places in packs: those that a point needs, or may need, as damage, and the others as healed.
// all is true if every tree was followed and nothing is lost that could have been in any place.
func (v *verifier) tellApart(all bool) {
	// What the log said earlier comes in no order.
	slices.SortStableFunc(v.places, func(a, b place) int {
		return cmp.Or(strings.Compare(a.damage.File, b.damage.File), cmp.Compare(a.damage.Offset, b.damage.Offset))
	})
	var last *Damage
	var lastHealed bool
	for _, p := range v.places {
		healed := all && !v.touched[p.at]
		if last != nil && lastHealed == healed && last.File == p.damage.File && last.Offset+last.Length == p.damage.Offset {
			last.Length += p.damage.Length // next to it: one place
			continue
		}
		list := &v.report.Damage
		if healed {
			list = &v.report.Healed
		}
		*list = append(*list, p.damage)
		last, lastHealed = &(*list)[len(*list)-1], healed
	}
}

// segmentSum sums up the frames of good packs that an index segment covers, in whatever order they come, to compare the
// segment with.
type segmentSum struct {
	packs, frames int
	sum           uint64
}

var sumSeed = maphash.MakeSeed()

func (s *segmentSum) add(e index.Entry) {
	s.frames++
	s.sum += maphash.Comparable(sumSeed, e)
}

// sumTable adds a good pack's table to the sums of the segments that cover it. The caller holds the lock.
func (v *verifier) sumTable(name format.Name, entries []index.Entry) {
	for id, covers := range v.covers {
		if _, in := slices.BinarySearchFunc(covers, name, format.Name.Compare); !in {
			continue
		}
		sum := v.segments[id]
		if sum == nil {
			sum = &segmentSum{}
			v.segments[id] = sum
		}
		sum.packs++
		for _, e := range entries {
			sum.add(e)
		}
	}
}

// coverage is which packs each index segment covers, sorted. The lists are the log's own where they are sorted.
func coverage(segments map[format.Name]commitlog.Segment) map[format.Name][]format.Name {
	covers := make(map[format.Name][]format.Name, len(segments))
	for id := range maps.Keys(segments) {
		packs := segments[id].Packs
		if !slices.IsSortedFunc(packs, format.Name.Compare) {
			packs = slices.SortedFunc(slices.Values(packs), format.Name.Compare)
		}
		covers[id] = packs
	}
	return covers
}

// compare returns an error unless a segment has exactly what the tables of its packs have, where all of them were read.
func (s *segmentSum) compare(with segmentSum) error {
	if s == nil || s.packs != with.packs {
		return nil // some are damaged, or were not read
	}
	if *s != with {
		return fmt.Errorf("%w: it has %d frames of its packs, which have %d, or others", ErrCorrupt, with.frames, s.frames)
	}
	return nil
}
