package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

// fileOf writes content to a file that a segment can have.
func fileOf(t testing.TB, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("segment", unix.MFD_CLOEXEC)
	file := os.NewFile(uintptr(fd), "segment")
	if err == nil {
		_, err = file.Write(content)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// framesOf counts entries by pack, each place once.
func framesOf(entries []Entry) map[format.Name]int64 {
	frames := map[format.Name]int64{}
	seen := map[Entry]bool{}
	for _, e := range entries {
		if !seen[e] {
			seen[e] = true
			frames[e.Pack]++
		}
	}
	return frames
}

// A merged segment is, byte for byte, the one that is built of the entries that should be in it.
func TestMergeIsBuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawEntries(t)
		// Two places of one pack at one offset there are none.
		seen := map[Place]bool{}
		entries = slices.DeleteFunc(entries, func(e Entry) bool { had := seen[e.Place]; seen[e.Place] = true; return had })
		packs := slices.Collect(func(yield func(format.Name) bool) {
			for name := range framesOf(entries) {
				if !yield(name) {
					return
				}
			}
		})
		slices.SortFunc(packs, func(a, b format.Name) int { return bytes.Compare(a[:], b[:]) })
		// Each pack is in one segment or two, or dropped.
		parts := make([][]Entry, 3)
		var want []Entry
		var covered []Covered
		for _, name := range packs {
			first, second := rapid.IntRange(0, 2).Draw(t, "segment"), rapid.IntRange(0, 5).Draw(t, "another")
			dropped := rapid.IntRange(0, 3).Draw(t, "dropped") == 0
			for _, e := range entries {
				if e.Pack != name {
					continue
				}
				parts[first] = append(parts[first], e)
				if second < 3 && second != first {
					parts[second] = append(parts[second], e)
				}
				if !dropped {
					want = append(want, e)
				}
			}
			if !dropped {
				covered = append(covered, Covered{name, framesOf(entries)[name]})
			}
		}
		var segments []*Segment
		for _, part := range parts {
			segments = append(segments, segmentOf(t, part...))
		}
		var merged bytes.Buffer
		done, err := Merge(t.Context(), &merged, testHasher, segments, covered)
		if err != nil {
			t.Fatal(err)
		}
		built := Build(testHasher, want)
		if !bytes.Equal(merged.Bytes(), built) {
			t.Fatal("the merged segment differs from the one that is built")
		}
		if done.Size != int64(len(built)) || done.Entries != int64(len(want)) || done.Checksum != format.ID(built[len(built)-checksumSize:]) {
			t.Fatalf("%+v of a segment of %d bytes and %d entries", done, len(built), len(want))
		}
	})
}

func TestMergeRefusesWhatContradictsTheLog(t *testing.T) {
	segment := segmentOf(t, entry(1, 1, 64), entry(2, 1, 300))
	for _, frames := range []int64{1, 3, -1} {
		var out bytes.Buffer
		_, err := Merge(t.Context(), &out, testHasher, []*Segment{segment}, []Covered{{format.Name{1}, frames}})
		if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d frames by the log: %v", frames, err)
		}
	}
	if _, err := Merge(t.Context(), &bytes.Buffer{}, testHasher, nil, []Covered{{format.Name{1}, MaxEntries + 1}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many entries: %v", err)
	}
	// Entries out of order, with the right checksum.
	raw := Build(testHasher, []Entry{entry(1, 1, 64), entry(2, 1, 300)})
	at := headerSize + packSize
	first := bytes.Clone(raw[at : at+entrySize])
	copy(raw[at:], raw[at+entrySize:at+2*entrySize])
	copy(raw[at+entrySize:], first)
	disordered, err := Open(reseal(raw), testHasher)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(t.Context(), &bytes.Buffer{}, testHasher, []*Segment{disordered}, []Covered{{format.Name{1}, 2}}); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("entries out of order: %v", err)
	}
	// Packs out of order are refused when it is opened.
	raw = smallSegment(testHasher)
	raw[headerSize], raw[headerSize+packSize] = raw[headerSize+packSize], raw[headerSize]
	if _, err := Open(reseal(raw), testHasher); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("packs out of order: %v", err)
	}
}

func TestAllGoesThroughEverythingInOrder(t *testing.T) {
	s := NewSet(format.Name{}, nil)
	var want []Entry
	for pack := byte(1); pack <= 6; pack++ {
		var some []Entry
		for i := range uint64(200) {
			some = append(some, entry(i*uint64(pack)%211, pack, uint32(64+i*100)))
		}
		switch {
		case pack <= 3:
			add(t, s, pack, slices.Clone(some)...)
			if pack == 2 {
				add(t, s, 20, slices.Clone(some)...) // two writers covered it
			}
		default:
			s.AddPack(format.Name{pack}, some)
		}
		if pack != 3 && pack != 5 {
			want = append(want, some...)
		}
	}
	s.Hide(format.Name{1}) // condemned: still there
	s.Forget(format.Name{3})
	s.Forget(format.Name{5})
	slices.SortFunc(want, order)
	var got []Entry
	for e, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d entries, want %d, or in another order", len(got), len(want))
	}
	for range s.All(t.Context()) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range s.All(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("a cancelled pass: %v", err)
		}
	}
	visited := 0
	if err := s.Of(t.Context(), map[format.Name]bool{{2}: true, {4}: true}, func(e Entry) bool { visited++; return e.Pack[0] == 2 || e.Pack[0] == 4 }); err != nil || visited < 400 {
		t.Errorf("two packs of 200 entries: %d, %v", visited, err)
	}
}

// A segment in a file stays usable while something goes through it, also when the set has given it up.
func TestRemovedSegmentStaysOpenWhileUsed(t *testing.T) {
	s := NewSet(format.Name{}, nil)
	entries := []Entry{entry(1, 1, 64), entry(2, 1, 300)}
	segment, err := OpenFile(fileOf(t, Build(testHasher, entries)), testHasher, false)
	if err != nil {
		t.Fatal(err)
	}
	s.AddSegment(format.Name{10}, segment, segment.Packs())
	for _, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		s.RemoveSegment(format.Name{10})
		if _, err := segment.At(1); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.users) != 0 || len(s.order) != 0 {
		t.Errorf("%d users, %d segments are left", len(s.users), len(s.order))
	}
	if err := segment.content.file.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("the file is still open")
	}
}

// partsOf opens a segment in parts, over bytes that may differ from what the checksum says.
func partsOf(t testing.TB, raw []byte, sum format.ID, fetched func(offset, length int64)) *Segment {
	t.Helper()
	s, err := OpenParts(Parts{
		Size: int64(len(raw)), Checksum: sum, File: fileOf(t, nil),
		Fetch: func(_ context.Context, p []byte, offset int64) error {
			if fetched != nil {
				fetched(offset, int64(len(p)))
			}
			copy(p, raw[offset:])
			return nil
		},
		Whole: func(*Segment) error { return nil },
	}, testHasher)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func manyEntries(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = entry(uint64(i), byte(i/500), uint32(64+i%500*100))
	}
	return entries
}

// Looking up one id reads a few pages, whatever the segment's size; what was read once is not read again.
func TestPartsReadLittle(t *testing.T) {
	entries := manyEntries(60_000)
	raw := Build(testHasher, slices.Clone(entries))
	requests, bytesRead := 0, int64(0)
	s := partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), func(_, n int64) { requests++; bytesRead += n })
	find := func(e Entry) {
		t.Helper()
		var found []Place
		if _, err := s.Lookup(t.Context(), &e.ID, func(p Place) bool { found = append(found, p); return false }); err != nil || !slices.Equal(found, []Place{e.Place}) {
			t.Fatalf("%v, %v; want %v", found, err, e.Place)
		}
	}
	find(entries[777])
	if requests > 4 || bytesRead > 4*2*partSize {
		t.Errorf("the first lookup took %d requests and %d bytes", requests, bytesRead)
	}
	requests = 0
	find(entries[777])
	if requests != 0 {
		t.Errorf("the same lookup again took %d requests", requests)
	}
	for i := range 200 {
		find(entries[i*300])
	}
	if s.IsWhole() != true && bytesRead+int64(requests)*requestCost > 3*int64(len(raw)) {
		t.Errorf("%d requests for %d bytes of %d, and it was not read whole", requests, bytesRead, len(raw))
	}
	for i := range entries {
		find(entries[i])
	}
	if !s.IsWhole() {
		t.Error("after all of its ids were looked up it is not there whole")
	}
}

// Misses pay for the filter, which answers the rest.
func TestPartsReadTheFilterWhenItPays(t *testing.T) {
	raw := Build(testHasher, manyEntries(200_000))
	requests := 0
	s := partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), func(int64, int64) { requests++ })
	miss := func(i int) {
		id := blockID(1<<40 + uint64(i))
		if ok, err := s.Lookup(t.Context(), &id, func(Place) bool { return true }); ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
	}
	for i := range 4 {
		miss(i)
	}
	before := requests
	for i := range 200 {
		miss(100 + i)
	}
	if s.IsWhole() || requests-before > 10 {
		t.Errorf("200 misses took %d requests, whole %v", requests-before, s.IsWhole())
	}
}

// What is read in parts may be anything: nothing breaks, reads stay within the segment, and the whole is refused.
func TestPartsOfForgedSegments(t *testing.T) {
	good := Build(testHasher, manyEntries(3000))
	sum := format.ID(good[len(good)-checksumSize:])
	l, err := parseLayout(good, int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	forge := func(change func(raw []byte)) []byte {
		raw := bytes.Clone(good)
		change(raw)
		return raw
	}
	for what, raw := range map[string][]byte{
		"fences of ones":      forge(func(raw []byte) { fill(raw[l.fences:l.filter], 0xff) }),
		"fences of zeros":     forge(func(raw []byte) { fill(raw[l.fences:l.filter], 0) }),
		"falling fences":      forge(func(raw []byte) { slices.Reverse(raw[l.fences:l.filter]) }),
		"entries of one id":   forge(func(raw []byte) { fill(raw[l.entries:l.fences], 7) }),
		"entries of no pack":  forge(func(raw []byte) { fillNumbers(raw[l.entries:l.fences]) }),
		"a filter of nothing": forge(func(raw []byte) { fill(raw[l.filter:l.checksum], 0) }),
		"another repository's": Build(testHasher, func() []Entry {
			others := manyEntries(3000)
			for i := range others {
				others[i].ID = blockID(uint64(1<<50 + i))
			}
			return others
		}()),
		"counts that do not fit": forge(func(raw []byte) { binary.LittleEndian.PutUint64(raw[24:], 1<<61) }),
	} {
		s := partsOf(t, raw, sum, func(offset, n int64) {
			if offset < 0 || offset+n > int64(len(raw)) {
				t.Errorf("%s: read of %d bytes at %d", what, n, offset)
			}
		})
		set := NewSet(format.Name{}, func(_ context.Context, pack format.Name) ([]Entry, error) {
			return slices.DeleteFunc(manyEntries(3000), func(e Entry) bool { return e.Pack != pack }), nil
		})
		set.AddSegment(format.Name{10}, s, nil)
		for i := range uint64(300) {
			place, ok, err := set.Find(t.Context(), blockID(i*9))
			if err != nil || (ok && place != manyEntries(3000)[i*9].Place) {
				t.Fatalf("%s: id %d: %v, %v, %v", what, i*9, place, ok, err)
			}
		}
		if err := s.Complete(t.Context()); !errors.Is(err, format.ErrCorrupt) || s.IsWhole() {
			t.Errorf("%s: read whole: %v", what, err)
		}
	}
}

func fill(p []byte, with byte) {
	for i := range p {
		p[i] = with
	}
}

func fillNumbers(entries []byte) {
	for at := 0; at < len(entries); at += entrySize {
		binary.LittleEndian.PutUint32(entries[at+32:], 1<<30)
	}
}

// One lookup in a cold segment brings the table of the pack, and with it all that was stored beside it.
func TestNeighboursCostNothing(t *testing.T) {
	entries := manyEntries(60_000)
	raw := Build(testHasher, slices.Clone(entries))
	requests, tables := 0, 0
	segment := partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), func(int64, int64) { requests++ })
	s := NewSet(format.Name{}, func(_ context.Context, pack format.Name) ([]Entry, error) {
		tables++
		return entries[int(pack[0])*500 : int(pack[0])*500+500], nil
	})
	s.AddSegment(format.Name{10}, segment, nil)
	for _, e := range entries[2000:4000] { // four packs
		if place, ok, err := s.Find(t.Context(), e.ID); !ok || err != nil || place != e.Place {
			t.Fatalf("%v, %v, %v", place, ok, err)
		}
	}
	if tables != 4 || requests > 3+3*4 {
		t.Errorf("2000 ids of four packs took %d requests and %d tables", requests, tables)
	}
	s.Hide(format.Name{5})
	if _, ok, _ := s.Find(t.Context(), entries[2600].ID); ok {
		t.Error("found in a pack that is given up")
	}
}

// A table that is read late does not bring back the places that its pack had before others of the same blocks were written.
func TestNeighboursAreThoseWrittenLast(t *testing.T) {
	old, moved := []Entry{entry(1<<40, 200, 64), entry(1<<40+1, 200, 300)}, []Entry{entry(1<<40+1, 201, 64), entry(1<<40+2, 201, 300)}
	raw := Build(testHasher, slices.Concat(manyEntries(60_000), old, moved)) // so many that it is not read whole
	s := NewSet(format.Name{}, func(_ context.Context, pack format.Name) ([]Entry, error) {
		return map[byte][]Entry{200: old, 201: moved}[pack[0]], nil
	})
	s.Prefer(func(a, b format.Name) int { return int(a[0]) - int(b[0]) })
	segment := partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), nil)
	s.AddSegment(format.Name{10}, segment, nil)
	for _, want := range []Entry{moved[1], old[0], moved[0]} {
		wantPack(t, s, "read in parts", want.ID, want.Pack[0])
	}
	if segment.IsWhole() {
		t.Error("it was read whole: the test shows nothing")
	}
}

func FuzzParts(f *testing.F) {
	f.Add(smallSegment(testHasher), uint64(2))
	f.Add(Build(testHasher, manyEntries(400)), uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) < headerSize+checksumSize {
			return
		}
		s := partsOf(t, raw, format.ID(raw[len(raw)-checksumSize:]), nil)
		id := blockID(seed)
		if _, err := s.Lookup(t.Context(), &id, func(Place) bool { return false }); err != nil && !classified(err) {
			t.Fatalf("an error of no class: %v", err)
		}
		if err := s.Complete(t.Context()); err != nil && !classified(err) {
			t.Fatalf("an error of no class: %v", err)
		}
	})
}

// A segment whose entries name the wrong pack has as many of them as it should. What is merged has each pack's number.
func TestMergeCountsEachPack(t *testing.T) {
	a, b := format.Name{1}, format.Name{2}
	entries := []Entry{{ID: format.ID{1}, Place: Place{Pack: a, Offset: 64}}, {ID: format.ID{2}, Place: Place{Pack: b, Offset: 64}}, {ID: format.ID{3}, Place: Place{Pack: b, Offset: 128}}}
	segment, err := Open(Build(listHasher, entries), listHasher)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		covered []Covered
		good    bool
	}{
		{[]Covered{{a, 1}, {b, 2}}, true},
		{[]Covered{{a, 2}, {b, 1}}, false},
		{[]Covered{{b, 2}}, true},
		{[]Covered{{b, 3}}, false},
	} {
		var out bytes.Buffer
		if _, err := Merge(t.Context(), &out, listHasher, []*Segment{segment}, c.covered); (err == nil) != c.good || (err != nil && !errors.Is(err, format.ErrCorrupt)) {
			t.Errorf("%v: %v", c.covered, err)
		}
	}
}
