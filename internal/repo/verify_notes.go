package repo

import (
	"context"
	"fmt"
	"hash/maphash"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
)

// badPerPack is how many damaged frames of one pack are noted one by one; with more the whole pack is not relied on.
const badPerPack = 64

// noteDamage makes the log say which places are damaged, and which are not any more. A repository that cannot be
// written to is verified all the same.
func (v *verifier) noteDamage(ctx context.Context) error {
	r := v.repo
	found := v.damagedPlaces()
	payload := &commitlog.Payload{}
	r.mu.Lock()
	for bad := range found {
		if !r.state.Bad[bad] {
			payload.Bad = append(payload.Bad, bad)
		}
	}
	for bad := range r.state.Bad {
		if !found[bad] {
			payload.BadHealed = append(payload.BadHealed, bad)
		}
	}
	r.mu.Unlock()
	v.report.Noted = len(found)
	if len(payload.Bad)+len(payload.BadHealed) == 0 {
		return nil
	}
	if err := r.commit(ctx, payload, nil); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.report.Noted = 0
		r.warn("the damage could not be noted in the repository, so a copy may still rely on what is damaged: %v", err)
	}
	return nil
}

// damagedPlaces is what was found, with packs that have much of it as a whole.
func (v *verifier) damagedPlaces() map[commitlog.Bad]bool {
	frames := map[format.Name]int{}
	whole := map[format.Name]bool{}
	for _, bad := range v.found {
		frames[bad.Pack]++
		whole[bad.Pack] = whole[bad.Pack] || bad.ID.IsZero()
	}
	places := map[commitlog.Bad]bool{}
	for _, bad := range v.found {
		if frames[bad.Pack] > badPerPack || whole[bad.Pack] {
			bad = commitlog.Bad{Pack: bad.Pack, Length: v.sizes[bad.Pack]}
		}
		places[bad] = true
	}
	return places
}

// tableSum tells sets of entries apart, in whatever order they come.
type tableSum struct {
	entries int
	sum     uint64
}

var sumSeed = maphash.MakeSeed()

func (t *tableSum) add(e index.Entry) {
	t.entries++
	t.sum += maphash.Comparable(sumSeed, e)
}

func sumOf(entries []index.Entry) tableSum {
	var t tableSum
	for _, e := range entries {
		t.add(e)
	}
	return t
}

// compareTables returns an error unless a segment has, of each of its packs that was read whole, exactly what the pack's
// own table has.
func (v *verifier) compareTables(segment *index.Segment) error {
	sums := map[format.Name]tableSum{}
	for _, name := range segment.Packs() {
		sums[name] = tableSum{}
	}
	for e, err := range segment.Entries() {
		if err != nil {
			return err
		}
		sum := sums[e.Pack]
		sum.add(e)
		sums[e.Pack] = sum
	}
	for name, sum := range sums {
		if table, whole := v.tables[name]; whole && table != sum {
			return fmt.Errorf("%w: it has %d frames of pack %s, which has %d, or others", ErrCorrupt, sum.entries, name, table.entries)
		}
	}
	return nil
}
