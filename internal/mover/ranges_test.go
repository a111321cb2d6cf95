package mover

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

var letters = map[backup.ExtentKind]string{backup.ExtentData: "d", backup.ExtentZero: "z", backup.ExtentUnchanged: "u"}

// extentsOf reads "d100 z50": kinds with lengths, from offset 0.
func extentsOf(text string) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		at := int64(0)
		for word := range strings.FieldsSeq(text) {
			if word == "!" {
				yield(backup.Extent{}, errOfTest)
				return
			}
			var length int64
			_, _ = fmt.Sscan(word[1:], &length)
			kind := backup.ExtentData
			for k, letter := range letters {
				if letter == word[:1] {
					kind = k
				}
			}
			if !yield(backup.Extent{Offset: at, Length: length, Kind: kind}, nil) {
				return
			}
			at += length
		}
	}
}

var errOfTest = errors.New("of the test")

func diskObject(size, baseSize int64) *object {
	o := &object{blockSize: 4096}
	o.Size = size
	if baseSize >= 0 {
		o.base = &repo.Root{Kind: 1, BlockSize: 4096, Size: baseSize}
	}
	return o
}

func TestBlockRanges(t *testing.T) {
	for _, c := range []struct {
		what           string
		size, base     int64
		extents, wants string
	}{
		{"empty", 0, -1, "", ""},
		{"one block", 4096, -1, "d4096", "d1"},
		{"joined", 3 * 4096, -1, "d100 d4000 d8188", "d3"},
		{"less than a block", 100, -1, "z100", "z1"},
		{"zeros of pieces", 4096, -1, "z100 z3996", "z1"},
		{"mixed in one", 4096, -1, "z100 z3000 d996", "d1"},
		{"mixed at borders", 4 * 4096, -1, "z5000 d3192 z8192", "z1 d1 z2"},
		{"unchanged and zeros in one", 4096, 4096, "u100 z3996", "d1"},
		{"unchanged in pieces", 2 * 4096, 2 * 4096, "u100 u5000 u3092", "u2"},
		{"partial last, unchanged", 4096 + 9, 4096 + 9, "u4105", "u2"},
		{"partial last, in pieces", 4096 + 9, 4096 + 9, "u4100 u5", "u2"},
		{"grown: the last block is longer", 2 * 4096, 4096 + 9, "u4105 d4087", "u1 d1"},
		{"grown: the last block is whole", 3 * 4096, 2 * 4096, "u8192 z4096", "u2 z1"},
		{"grown, the source is wrong", 3 * 4096, 4096 + 9, "u12288", "u1 d2"},
		{"shrunk into a block", 4096 + 9, 4 * 4096, "u4105", "u1 d1"},
		{"shrunk to a border", 4096, 4096 + 9, "u4096", "u1"},
		{"unchanged without a base", 2*4096 + 5, -1, "u8197", "d3"},
		{"gap", 2 * 4096, -1, "d4096", "!"},
		{"too long", 4096, -1, "d4097", "!"},
		{"negative", 4096, -1, "d8192 d-4096", "!"},
		{"error", 4096, -1, "d100 !", "!"},
		{"lengths of none", 4096, -1, "d0 z0 z4096 d0", "z1"},
	} {
		var got []string
		next := int64(0)
		for r, err := range blockRanges(diskObject(c.size, c.base), extentsOf(c.extents)) {
			if err != nil {
				got = append(got, "!")
				continue
			}
			if r.first != next {
				t.Errorf("%s: range from block %d, want %d", c.what, r.first, next)
			}
			next += r.count
			got = append(got, fmt.Sprint(letters[r.kind], r.count))
		}
		if text := strings.Join(got, " "); !strings.HasSuffix(text, c.wants) || (c.wants != "!" && text != c.wants) {
			t.Errorf("%s: got %q, want %q", c.what, text, c.wants)
		}
	}
}

// Every block is covered once, and is called zeros or unchanged only if all its bytes are.
func TestBlockRangesCoverAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 40*4096).Draw(t, "size")
		base := rapid.Int64Range(-1, 40*4096).Draw(t, "base")
		if rapid.Bool().Draw(t, "same size") {
			base = size
		}
		kinds := make([]backup.ExtentKind, size)
		var text strings.Builder
		for at := int64(0); at < size; {
			n := min(size-at, rapid.SampledFrom([]int64{1, 100, 4095, 4096, 8192, 30000}).Draw(t, "length"))
			kind := rapid.SampledFrom([]backup.ExtentKind{backup.ExtentData, backup.ExtentZero, backup.ExtentUnchanged}).Draw(t, "kind")
			for i := at; i < at+n; i++ {
				kinds[i] = kind
			}
			fmt.Fprintf(&text, "%s%d ", letters[kind], n)
			at += n
		}
		o := diskObject(size, base)
		next := int64(0)
		for r, err := range blockRanges(o, extentsOf(text.String())) {
			if err != nil || r.first != next || r.count <= 0 {
				t.Fatalf("range %+v after block %d: %v", r, next, err)
			}
			next += r.count
			for n := r.first; n < r.first+r.count; n++ {
				start, end := n*4096, min((n+1)*4096, size)
				want := kinds[start]
				for _, kind := range kinds[start:end] {
					if kind != want {
						want = backup.ExtentData
					}
				}
				if want == backup.ExtentUnchanged && (base < end || (end-start < 4096 && base != size)) {
					want = backup.ExtentData
				}
				if want == backup.ExtentUnchanged && end-start < 4096 && base != size {
					want = backup.ExtentData
				}
				wantParts(t, r, kinds[start:end], base >= end && (end-start == 4096 || base == size))
				if r.kind != want {
					t.Fatalf("block %d is called %s, is %s", n, letters[r.kind], letters[want])
				}
			}
		}
		if next != (size+4095)/4096 {
			t.Fatalf("%d blocks of %d bytes", next, size)
		}
	})
}

// wantParts fails the test unless a range's block has parts exactly if enough of it is as in the base, and they say what
// the source says.
func wantParts(t *rapid.T, r blockRange, kinds []backup.ExtentKind, hasBase bool) {
	unchanged, pieces := 0, 0
	for i, kind := range kinds {
		if kind == backup.ExtentUnchanged {
			unchanged++
		}
		if i == 0 || kinds[i-1] != kind {
			pieces++
		}
	}
	want := hasBase && pieces > 1 && pieces <= maxParts && unchanged*4 >= len(kinds)
	if want != (len(r.parts) > 0) || want && r.count != 1 {
		t.Fatalf("block %d has parts %v; %d of %d bytes are unchanged, base %v", r.first, r.parts, unchanged, len(kinds), hasBase)
	}
	if !want {
		return
	}
	at := r.first * 4096
	for _, e := range r.parts {
		if e.Offset != at || e.Length <= 0 {
			t.Fatalf("part %+v at %d", e, at)
		}
		for ; at < e.End(); at++ {
			if kinds[at-r.first*4096] != e.Kind {
				t.Fatalf("byte %d is called %s", at, letters[e.Kind])
			}
		}
	}
	if at != r.first*4096+int64(len(kinds)) {
		t.Fatalf("parts end at %d", at)
	}
}

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bitmap
		want := map[int64]bool{}
		numbers := rapid.OneOf(rapid.Int64Range(0, 200), rapid.Int64Range(32760, 32780), rapid.Int64Range(0, 1<<40))
		for range rapid.IntRange(0, 60).Draw(t, "members") {
			n := numbers.Draw(t, "set")
			b.set(n)
			want[n] = true
		}
		for range 60 {
			if n := numbers.Draw(t, "get"); b.get(n) != want[n] {
				t.Fatalf("%d: %v, want %v", n, b.get(n), want[n])
			}
		}
		for n := range want {
			if !b.get(n) {
				t.Fatalf("%d is lost", n)
			}
		}
	})
}

// A page that has all takes no room any more: a disk that comes in about its order needs one or two, whatever its size. Without room
// nothing is noted.
func TestFullPagesOfABitmapAreGivenBack(t *testing.T) {
	room := 1
	b := bitmap{room: &room}
	const page = bitmapWords * 64
	for n := range int64(3 * page) {
		b.set(n)
	}
	b.set(5 * page)
	b.set(9 * page)
	if !b.get(0) || !b.get(3*page-1) || b.get(3*page) || !b.get(5*page) || b.get(9*page) || room != 0 {
		t.Errorf("room for %d", room)
	}
	if fullBitmapPage.count != page || len(b.pages) != 4 {
		t.Errorf("%d pages", len(b.pages))
	}
}

// Increments over several generations, with sizes going up and down, are what the source has.
func TestIncrements(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	r, _ := newRepository(t, 4096)
	var before *sourcetest.Point
	for i, size := range []int{300*4096 + 5, 300*4096 + 5, 256 * 4096, 256*4096 + 1, 70000, 70001, 4096, 4095, 1, 0, 5000, 300 * 4096} {
		data := make([]byte, size)
		if before != nil {
			copy(data, before.Objects[0].Data)
		}
		for range 3 {
			if size > 0 {
				from := random.IntN(size)
				copy(data[from:], noise(uint64(i), 1+random.IntN(9000)))
				clear(data[size/2 : size/2+min(size-size/2, 9000)])
			}
		}
		p := point(fmt.Sprint("p", i), randomDisk("vda", data))
		p.Base = before
		results, err := copyPoints(t.Context(), r, p)
		if err != nil {
			t.Fatal(err)
		}
		wantStored(t, r, p)
		if i == 1 && (results[0].Unchanged == 0 || results[0].Base != before.ID() || p.Read.Load() > int64(size)/4) {
			t.Errorf("%d bytes read of an increment: %+v", p.Read.Load(), results[0])
		}
		before = p
	}
	report, err := r.Verify(t.Context(), nil)
	if err != nil || len(report.Damage) > 0 {
		t.Fatal(err, report.Damage)
	}
	// A source that calls more unchanged than the base has is wrong, not believed.
	liar := point("liar", randomDisk("vda", noise(9, 310*4096)))
	liar.Base = before
	liar.Objects[0].Extents = func(*backup.Base) []backup.Extent {
		return []backup.Extent{{Length: 300 * 4096}, {Offset: 300 * 4096, Length: 10 * 4096, Kind: backup.ExtentUnchanged}}
	}
	if _, err := copyPoints(t.Context(), r, liar); err != nil {
		t.Fatal(err)
	}
	wantStored(t, r, liar)
}
