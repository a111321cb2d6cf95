package mover

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/source/sourcetest"
)

// Of blocks that are partly as in the base only what changed is read.
func TestOnlyTheChangedPartOfABlockIsRead(t *testing.T) {
	const block, grain = 128 << 10, 64 << 10
	r, _ := newRepository(t, block)
	base := point("base", randomDisk("vda", noise(1, 64*block+grain+5)))
	clear(base.Objects[0].Data[20*block : 22*block]) // a hole
	data := slices.Clone(base.Objects[0].Data)
	changed, zeros := int64(0), int64(0)
	for _, n := range []int{0, 3, 5, 20, 40, 41, 42, 43, 44, 60, 62, 63} { // the second and the first half
		at := n*block + n%2*grain
		copy(data[at:], noise(uint64(n+2), grain))
		changed += grain
	}
	clear(data[50*block : 50*block+grain])
	zeros += grain
	changed += int64(copy(data[64*block+grain:], "12345")) // at the end
	next := point("next", randomDisk("vda", data))
	next.Base, next.Grain = base, grain
	results, err := copyPoints(t.Context(), r, base, next)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, r, next)
	got := results[1]
	if read := next.Read.Load(); read != changed || got.Read != read {
		t.Errorf("%d bytes read, counted as %d; %d changed", read, got.Read, changed)
	}
	if want := int64(len(data)) - changed - zeros; got.Unchanged != want {
		t.Errorf("%d bytes unchanged, want %d", got.Unchanged, want)
	}
}

// A block of the base that is damaged is not needed: the source has all of it.
func TestDamagedBaseBlockIsReadOfTheSource(t *testing.T) {
	const block = 128 << 10
	r, store := newRepository(t, block)
	base := point("base", randomDisk("vda", noise(1, block)))
	if _, err := copyPoints(t.Context(), r, base); err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, name := range store.Names("packs/") {
		err := store.Tamper(name, func(content []byte) []byte {
			if len(content) > block {
				content[block/2] ^= 1
				damaged++
			}
			return content
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if damaged != 1 {
		t.Fatalf("%d packs damaged", damaged)
	}
	data := slices.Clone(base.Objects[0].Data)
	copy(data[block/2:], noise(2, block/2))
	next := point("next", randomDisk("vda", data))
	next.Base, next.Grain = base, block/2
	results, err := copyPoints(t.Context(), reopened(t, store), next)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, reopened(t, store), next)
	if results[0].Read != block || results[0].Unchanged != 0 {
		t.Errorf("%+v", results[0])
	}
}

// Whatever changes, and whether the base is smaller or larger: what is stored is what the source has.
func TestPartlyUnchangedIsEqual(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, _ := newRepository(t, 4096)
		sizes := rapid.OneOf(rapid.IntRange(1, 20*4096), rapid.Just(20*4096), rapid.Just(20*4096-7))
		var points []*sourcetest.Point
		for i := range 3 {
			data := make([]byte, sizes.Draw(rt, "size"))
			var before *sourcetest.Point
			if i > 0 {
				before = points[i-1]
				copy(data, before.Objects[0].Data)
			}
			for k := range rapid.IntRange(0, 12).Draw(rt, "changes") {
				from := rapid.IntRange(0, len(data)-1).Draw(rt, "from")
				part := data[from:min(len(data), from+rapid.IntRange(1, 6000).Draw(rt, "length"))]
				if clear(part); rapid.Bool().Draw(rt, "data") {
					copy(part, noise(uint64(100*i+k), len(part)))
				}
			}
			p := point(fmt.Sprint("p", i), randomDisk("vda", data))
			p.Base, p.Grain = before, rapid.SampledFrom([]int64{100, 512, 1000, 2048, 3000}).Draw(rt, "grain")
			points = append(points, p)
		}
		if _, err := copyPoints(t.Context(), r, points...); err != nil {
			rt.Fatal(err)
		}
		for _, p := range points {
			wantStored(t, r, p)
		}
	})
}
