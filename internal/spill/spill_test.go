package spill

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func record(key, serial uint64) Record {
	r := Record{Key: key}
	binary.LittleEndian.PutUint64(r.Value[:], serial)
	return r
}

func collect(t interface{ Fatal(...any) }, s *Sorter) []Record {
	var got []Record
	for r, err := range s.Sorted() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	return got
}

func TestSorterIsASort(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := NewSorter(dir)
		s.limit, s.width = rapid.IntRange(1, 9).Draw(t, "limit"), rapid.IntRange(2, 5).Draw(t, "width")
		defer s.Close()
		var want []Record
		for i, key := range rapid.SliceOfN(rapid.Uint64Range(0, 20), 0, 200).Draw(t, "keys") {
			want = append(want, record(key, uint64(i)))
			if err := s.Add(want[i]); err != nil {
				t.Fatal(err)
			}
			if len(s.records) > s.limit || len(s.runs()) >= s.width*max(len(s.levels), 1) {
				t.Fatalf("%d records in memory, %d runs", len(s.records), len(s.runs()))
			}
		}
		slices.SortStableFunc(want, func(a, b Record) int { return cmp.Compare(a.Key, b.Key) })
		for range 2 { // it may be asked again
			if got := collect(t, s); !slices.Equal(got, want) {
				t.Fatalf("sorted otherwise: %v, want %v", got, want)
			}
		}
		for range s.Sorted() { // and left early
			break
		}
	})
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
}

// However many runs wait, a sorter has one file open for each level.
func TestSorterOpensOneFileForALevel(t *testing.T) {
	open := func() int {
		t.Helper()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	s := NewSorter(t.TempDir())
	s.limit = 1
	for n := range uint64(3*mergeWidth - 10) {
		if err := s.Add(Record{Key: n}); err != nil {
			t.Fatal(err)
		}
		if now := open(); now > before+len(s.levels) || len(s.levels) > 2 {
			t.Fatalf("%d runs have %d files open", len(s.runs()), now-before)
		}
	}
	if len(s.runs()) < mergeWidth/2 {
		t.Fatalf("%d runs", len(s.runs()))
	}
	if err := s.Close(); err != nil || open() != before {
		t.Errorf("%v, %d files stay open", err, open()-before)
	}
}

// More runs than are read at once, with the sizes that are built in.
func TestSorterWithManyRuns(t *testing.T) {
	s := NewSorter(t.TempDir())
	defer s.Close()
	s.limit = 64
	n := uint64(64 * (2*mergeWidth + 7))
	for i := range n {
		if err := s.Add(record(i*7919%n/2, i)); err != nil { // two of each key
			t.Fatal(err)
		}
	}
	if len(s.runs()) >= 2*mergeWidth {
		t.Errorf("%d runs wait", len(s.runs()))
	}
	last := Record{}
	for i, r := range collect(t, s) {
		if r.Key != uint64(i)/2 {
			t.Fatalf("record %d has key %d", i, r.Key)
		}
		if i%2 == 1 && binary.LittleEndian.Uint64(r.Value[:]) < binary.LittleEndian.Uint64(last.Value[:]) {
			t.Fatalf("key %d: the younger came first", r.Key)
		}
		last = r
	}
}

// A record is written once for each level, however many there are: a run of a level has as many as were merged to it, and no run is
// merged with one of another level.
func TestSorterWritesARecordOnceForALevel(t *testing.T) {
	s := NewSorter(t.TempDir())
	defer s.Close()
	const spills = 2*4*4*4 + 3*4*4 + 4 + 2
	s.limit, s.width = 3, 4
	for i := range uint64(3 * spills) {
		if err := s.Add(record(i%100, i)); err != nil {
			t.Fatal(err)
		}
	}
	size := int64(3 * recordBytes)
	for n, want := range []int{2, 1, 3, 2} {
		if got := len(s.levels[n].runs); got != want {
			t.Errorf("level %d has %d runs, want %d", n, got, want)
		}
		for _, r := range s.levels[n].runs {
			if r.size != size {
				t.Errorf("a run of level %d has %d bytes, want %d", n, r.size, size)
			}
		}
		if info, err := s.levels[n].file.Stat(); err != nil || info.Size() != int64(want)*size {
			t.Errorf("level %d takes %d bytes, %v", n, info.Size(), err)
		}
		size *= 4
	}
}

func TestSorterWithoutAFolder(t *testing.T) {
	s := NewSorter(filepath.Join(t.TempDir(), "missing"))
	s.limit = 2
	if err := s.Add(record(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(record(2, 2)); err == nil {
		t.Error("nothing is said of a folder that is missing")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestBlocksAreAMap(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		b := NewBlocks(dir, 32, rapid.IntRange(0, 4).Draw(t, "limit"))
		defer b.Close()
		want := map[Place][]byte{}
		place := rapid.Custom(func(t *rapid.T) Place {
			return Place{Object: rapid.IntRange(0, 1).Draw(t, "object"), Block: rapid.Int64Range(0, 6).Draw(t, "block")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				at, offset, value := place.Draw(t, "at"), rapid.IntRange(0, 31).Draw(t, "offset"), rapid.Byte().Draw(t, "value")
				buffer, err := b.Buffer(at)
				if err != nil {
					t.Fatal(err)
				}
				if want[at] == nil {
					want[at] = make([]byte, 32)
				}
				if !bytes.Equal(buffer, want[at]) {
					t.Fatalf("%v holds %x, want %x", at, buffer, want[at])
				}
				buffer[offset], want[at][offset] = value, value
			},
			"drop": func(t *rapid.T) {
				at := place.Draw(t, "at")
				if want[at] == nil {
					return
				}
				if _, err := b.Buffer(at); err != nil { // it must be in memory
					t.Fatal(err)
				}
				b.Drop(at)
				delete(want, at)
			},
			"": func(t *rapid.T) {
				if len(b.memory) > max(b.limit, 1) {
					t.Fatalf("%d blocks in memory, %d allowed", len(b.memory), b.limit)
				}
				waiting := b.Waiting()
				if len(waiting) != len(want) {
					t.Fatalf("%d wait, want %d", len(waiting), len(want))
				}
				for _, at := range waiting {
					if want[at] == nil || !b.Has(at) {
						t.Fatalf("%v waits", at)
					}
				}
			},
		})
	})
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
}

// Space in the file is used again: it does not grow with the blocks that pass through.
func TestBlocksUseSpaceAgain(t *testing.T) {
	b := NewBlocks(t.TempDir(), 32, 2)
	defer b.Close()
	for n := range int64(5000) {
		if _, err := b.Buffer(Place{Block: n}); err != nil {
			t.Fatal(err)
		}
		if old := (Place{Block: n - 6}); b.Has(old) {
			if _, err := b.Buffer(old); err != nil {
				t.Fatal(err)
			}
			b.Drop(old)
		}
	}
	if b.next > 10 || len(b.order) > 2*b.limit+1100 {
		t.Errorf("%d slots for 6 blocks, %d remembered", b.next, len(b.order))
	}
}

func TestAllZero(t *testing.T) {
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 200_000} {
		p := make([]byte, size)
		if !AllZero(p) {
			t.Errorf("%d zeros are not zeros", size)
		}
		for _, at := range []int{0, size / 2, size - 1} {
			if at >= 0 && at < size {
				p[at] = 1
				if AllZero(p) {
					t.Errorf("a byte at %d of %d is not seen", at, size)
				}
				p[at] = 0
			}
		}
	}
}

// Pieces come back as they were added, at any offset; what was not added is an error, and after Close nothing is left, in the folder
// neither.
func TestPieces(t *testing.T) {
	dir := t.TempDir()
	p := NewPieces(dir)
	for range 2 {
		if err := p.Read(make([]byte, 1), 0); !errors.Is(err, ErrTemporary) {
			t.Errorf("reading where nothing is: %v", err)
		}
		for i, piece := range []string{"first", "", "the second"} {
			at, err := p.Add([]byte(piece))
			if err != nil || at != int64([]int{0, 5, 5}[i]) {
				t.Fatalf("%q begins at %d: %v", piece, at, err)
			}
		}
		got := make([]byte, 6)
		if err := p.Read(got, 9); err != nil || string(got) != "second" {
			t.Errorf("read %q: %v", got, err)
		}
		if err := p.Read(got, 10); !errors.Is(err, ErrTemporary) || !errors.Is(err, io.EOF) {
			t.Errorf("reading behind the end: %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the folder has %v: %v", left, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := NewPieces(filepath.Join(dir, "none")).Add(nil); !errors.Is(err, ErrTemporary) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
