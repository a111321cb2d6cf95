package index

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

var testHasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

func blockID(seed uint64) format.ID {
	return testHasher.Sum(format.ContextBlock, binary.LittleEndian.AppendUint64(nil, seed))
}

func entry(seed uint64, pack byte, offset uint32) Entry {
	return Entry{ID: blockID(seed), Place: Place{Pack: format.Name{pack}, Offset: offset, Stored: offset + 1, Plain: offset + 2}}
}

// drawEntries draws entries: many with an id of their own, some of one id in several places, and some whose ids are no
// hashes but chosen to lie together.
func drawEntries(t *rapid.T) []Entry {
	count := rapid.SampledFrom([]int{0, 1, 2, 127, 128, 129, 300}).Draw(t, "count")
	ids := rapid.Uint64Range(1, rapid.SampledFrom([]uint64{1, 5, 1 << 40}).Draw(t, "ids"))
	packs := byte(rapid.IntRange(1, 5).Draw(t, "packs"))
	alike := rapid.SampledFrom([]int{0, 8, 31}).Draw(t, "alike")
	entries := make([]Entry, count)
	for i := range entries {
		entries[i] = entry(ids.Draw(t, "id"), byte(i)%packs, uint32(i/int(packs))*100)
		for at := range alike {
			entries[i].ID[at] = 0xff
		}
	}
	return entries
}

// order is how section 8 sorts: by id, then pack number, then offset. Packs are numbered in the order of their names.
func order(a, b Entry) int {
	return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Offset, b.Offset))
}

func placesOf(entries []Entry, id format.ID) []Place {
	var places []Place
	for _, e := range entries {
		if e.ID == id {
			places = append(places, e.Place)
		}
	}
	return places
}

func lookup(s *Segment, id format.ID) []Place {
	var places []Place
	_, _ = s.Lookup(context.Background(), &id, func(p Place) bool {
		places = append(places, p)
		return false
	})
	return places
}

func TestSegmentFindsWhatItHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hasher := format.NewHasher(rapid.SampledFrom([]format.Hash{format.HashBLAKE3, format.HashHMACSHA256}).Draw(t, "hash"), [32]byte{})
		entries := drawEntries(t)
		sorted := slices.SortedFunc(slices.Values(entries), order)
		raw := Build(hasher, slices.Clone(entries))
		s, err := Open(raw, hasher)
		if err != nil || s.Len() != len(entries) {
			t.Fatalf("%d entries, %v; want %d", s.Len(), err, len(entries))
		}
		packs := map[format.Name]bool{}
		for i, want := range sorted {
			packs[want.Pack] = true
			if got, err := s.At(i); err != nil || got != want {
				t.Fatalf("entry %d: %+v, %v; want %+v", i, got, err, want)
			}
			if got := lookup(s, want.ID); !slices.Equal(got, placesOf(sorted, want.ID)) {
				t.Fatalf("id %s: %v, want %v", want.ID, got, placesOf(sorted, want.ID))
			}
			stopped := 0
			if ok, err := s.Lookup(t.Context(), &want.ID, func(Place) bool { stopped++; return true }); !ok || err != nil || stopped != 1 {
				t.Fatalf("a lookup that was content with the first went on: %d", stopped)
			}
		}
		if len(s.Packs()) != len(packs) || !slices.IsSortedFunc(s.Packs(), func(a, b format.Name) int { return bytes.Compare(a[:], b[:]) }) {
			t.Fatalf("packs %v, want %d", s.Packs(), len(packs))
		}
		for range 30 {
			checkMiss(t, s, sorted)
		}
		if again := Build(hasher, sorted); !bytes.Equal(again, raw) {
			t.Fatal("the order of the entries shows in the segment")
		}
	})
}

// checkMiss looks for an id that is random, or next to one that is there.
func checkMiss(t *rapid.T, s *Segment, sorted []Entry) {
	id := blockID(rapid.Uint64Min(1<<41).Draw(t, "miss"))
	if len(sorted) > 0 && rapid.Bool().Draw(t, "near") {
		id = rapid.SampledFrom(sorted).Draw(t, "neighbour").ID
		id[rapid.SampledFrom([]int{0, 7, 8, 31}).Draw(t, "at")]++
	}
	if want := placesOf(sorted, id); !slices.Equal(lookup(s, id), want) {
		t.Fatalf("id %s: %v, want %v", id, lookup(s, id), want)
	}
	if found, err := s.search(t.Context(), &id); err != nil {
		t.Fatal(err)
	} else if at := int(found); at < 0 || at > s.Len() ||
		(at > 0 && bytes.Compare(sorted[at-1].ID[:], id[:]) >= 0) || (at < s.Len() && bytes.Compare(sorted[at].ID[:], id[:]) < 0) {
		t.Fatalf("search for %s ends at %d of %d", id, at, s.Len())
	}
}

// The filter spares the search for nearly all ids that are not there.
func TestFilterKnowsMisses(t *testing.T) {
	var entries []Entry
	for i := range uint64(2000) {
		entries = append(entries, entry(i, byte(i%3), uint32(i)))
	}
	s, err := Open(Build(testHasher, entries), testHasher)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for i := range uint64(2000) {
		if id := blockID(1<<40 + i); s.maybe(&id) {
			wrong++
		}
	}
	if wrong > 60 {
		t.Errorf("%d of 2000 misses pass the filter, want about 20", wrong)
	}
	id, missing, ctx := blockID(7), blockID(1<<41), t.Context()
	allocated := testing.AllocsPerRun(20, func() {
		_, _ = s.Lookup(ctx, &id, func(Place) bool { return true })
		_, _ = s.Lookup(ctx, &missing, func(Place) bool { return true })
	})
	if allocated != 0 {
		t.Errorf("%v allocations for two lookups", allocated)
	}
}

func smallSegment(hasher *format.Hasher) []byte {
	return Build(hasher, []Entry{entry(1, 1, 64), entry(2, 1, 300), entry(2, 2, 64)})
}

func classified(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrNewer) || errors.Is(err, format.ErrNeedsKey)
}

func TestEveryBitFlipIsFound(t *testing.T) {
	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		hasher := format.NewHasher(algorithm, [32]byte{})
		raw := smallSegment(hasher)
		for bit := range len(raw) * 8 {
			raw[bit/8] ^= 1 << (bit % 8)
			if _, err := Open(raw, hasher); !classified(err) {
				t.Errorf("%s, bit %d: %v", algorithm, bit, err)
			}
			raw[bit/8] ^= 1 << (bit % 8)
		}
		for size := range raw {
			if _, err := Open(raw[:size], hasher); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%s, %d of %d bytes: %v", algorithm, size, len(raw), err)
			}
		}
		if _, err := Open(raw, hasher); err != nil {
			t.Errorf("%s, unchanged: %v", algorithm, err)
		}
	}
}

// reseal makes the checksum right again after a change.
func reseal(raw []byte) []byte {
	sum := testHasher.Sum(format.ContextIndex, raw[:len(raw)-checksumSize])
	copy(raw[len(raw)-checksumSize:], sum[:])
	return raw
}

// Segments whose checksum is right but whose counts do not fit, by a little or by so much that sums overflow.
func TestOpenRefusesHostileCounts(t *testing.T) {
	put32 := func(at int, value uint32) []byte {
		raw := smallSegment(testHasher)
		binary.LittleEndian.PutUint32(raw[at:], value)
		return reseal(raw)
	}
	put64 := func(at int, value uint64) []byte {
		raw := smallSegment(testHasher)
		binary.LittleEndian.PutUint64(raw[at:], value)
		return reseal(raw)
	}
	cases := map[string][]byte{"fence interval 0": put32(32, 0), "fence interval 1": put32(32, 1)}
	for _, n := range []uint32{0, 1, 3, 5, 1 << 28, math.MaxUint32} {
		cases[fmt.Sprint("packs ", n)] = put32(20, n)
	}
	for _, n := range []uint64{0, 2, 4, 1 << 32, 1 << 60, math.MaxUint64/48 + 1, math.MaxUint64 - 127, math.MaxUint64} {
		cases[fmt.Sprint("entries ", n)] = put64(24, n)
		cases[fmt.Sprint("filter ", n)] = put64(40, n)
	}
	for _, at := range []int{38, 39, 48, 63} {
		raw := smallSegment(testHasher)
		raw[at] = 1
		cases[fmt.Sprint("reserved byte ", at)] = reseal(raw)
	}
	for what, raw := range cases {
		if s, err := Open(raw, testHasher); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("%s: %+v, %v; want ErrCorrupt", what, s, err)
		}
	}
}

// An entry may name a pack that is not there, entries may be out of order, the filter may be of a kind of the future:
// nothing is found then, or everything, but nothing breaks.
func TestLookupInStrangeSegments(t *testing.T) {
	id := blockID(2)
	raw := smallSegment(testHasher)
	entries := headerSize + 2*packSize
	for i := range 3 {
		binary.LittleEndian.PutUint32(raw[entries+i*entrySize+32:], 2)
	}
	s, err := Open(reseal(raw), testHasher)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.At(0); !errors.Is(err, format.ErrCorrupt) || len(lookup(s, id)) != 0 {
		t.Errorf("entry of a pack that is not named: %v, lookup %v", err, lookup(s, id))
	}
	for _, filterType := range []byte{0, 2} {
		raw = smallSegment(testHasher)
		raw[36] = filterType
		if s, err = Open(reseal(raw), testHasher); err != nil || len(lookup(s, id)) != 2 {
			t.Errorf("filter type %d: %v", filterType, err)
		}
	}
}

func FuzzOpenSegment(f *testing.F) {
	f.Add(smallSegment(testHasher), uint64(2))
	f.Add(Build(testHasher, nil), uint64(0))
	f.Add(smallSegment(testHasher)[:headerSize], uint64(1))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) >= checksumSize {
			raw = reseal(bytes.Clone(raw)) // else nothing gets behind the checksum
		}
		s, err := Open(raw, testHasher)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if s.Len()*entrySize+len(s.Packs())*packSize > len(raw) {
			t.Fatalf("%d entries of %d packs in %d bytes", s.Len(), len(s.Packs()), len(raw))
		}
		id := blockID(seed)
		for _, place := range lookup(s, id) {
			if !slices.Contains(s.Packs(), place.Pack) {
				t.Fatalf("found in pack %s, which the segment does not name", place.Pack)
			}
		}
		for i := range s.Len() {
			if e, err := s.At(i); err != nil && !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("entry %d: an error of no class: %v", i, err)
			} else if err == nil {
				lookup(s, e.ID)
			}
		}
	})
}
