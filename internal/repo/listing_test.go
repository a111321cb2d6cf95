package repo

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// A listing has every file with its size and exact time, whatever the order it was listed in, once if it was listed twice, and also what
// the storage did not list.
func TestListing(t *testing.T) {
	when := time.Unix(1_700_000_000, 123_456_789)
	var files []storage.Info
	for i := range 200 {
		files = append(files, storage.Info{Name: pack.ObjectName(format.RandomName()), Size: int64(i), Modified: when.Add(time.Duration(i))})
	}
	packNames := len(files)
	files = append(files,
		storage.Info{Name: "points/1", Size: 7, Modified: when},
		storage.Info{Name: "packs/00/not-a-pack", Size: 8},                                        // without a time
		storage.Info{Name: "packs/zz" + pack.ObjectName(format.RandomName())[8:], Modified: when}, // in a folder where no pack lies
	)
	unlisted := storage.Info{Name: pack.ObjectName(format.RandomName()), Size: 9, Modified: when}
	l := newListing(3)
	for _, info := range files {
		l.add(info)
	}
	l.add(files[0])
	l.done()
	l.addUnlisted(unlisted)
	files = append(files, unlisted)

	same := func(a, b storage.Info) bool {
		return a.Name == b.Name && a.Size == b.Size && a.Modified.Equal(b.Modified) && a.Modified.IsZero() == b.Modified.IsZero()
	}
	byName := func(a, b storage.Info) int { return strings.Compare(a.Name, b.Name) }
	if got, want := slices.SortedFunc(l.all(), byName), slices.SortedFunc(slices.Values(files), byName); !slices.EqualFunc(got, want, same) {
		t.Errorf("all files are\n%v, want\n%v", got, want)
	}
	for i, want := range files {
		if got := l.file(want.Name); !same(got, want) {
			t.Errorf("%s is %v, want %v", want.Name, got, want)
		}
		if id, isPack := packOf(want.Name); isPack != (i < packNames || i == len(files)-1) {
			t.Errorf("%s is a pack: %v", want.Name, isPack)
		} else if got, there := l.pack(id); isPack && (!there || !same(got, want)) {
			t.Errorf("pack %s is %v, %v", want.Name, got, there)
		}
	}
	if info, there := l.pack(format.RandomName()); there || l.file("points/2") != (storage.Info{}) || info != (storage.Info{}) {
		t.Error("a file that is not there was found")
	}
}
