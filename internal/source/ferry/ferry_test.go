package ferry_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/fs"
)

const block = 64 << 10

// machine has two points of one disk and an archive; the second changes one block of the disk, clears one, and puts
// something in front of the archive.
func machine() (first, second *sourcetest.Point) {
	random := rand.NewChaCha8([32]byte{1})
	disk, archive := make([]byte, 20*block+700), make([]byte, 900<<10)
	random.Read(disk)
	random.Read(archive)
	clear(disk[3*block : 9*block])
	changed := bytes.Clone(disk)
	random.Read(changed[12*block : 13*block])
	clear(changed[15*block : 16*block])
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	point := func(native string, created time.Time, disk, archive []byte) *sourcetest.Point {
		return &sourcetest.Point{Machine: sourcetest.Machine("web"), Native: native, Created: created, Objects: []sourcetest.Object{
			{Name: "sda", Data: disk, Access: source.AccessRandom},
			{Name: "files", Role: backup.RoleArchive, Data: archive, Access: source.AccessOnePass, Shifting: true, HideSize: true},
			{Name: "web.conf", Role: backup.RoleConfiguration, Data: []byte(native), Access: source.AccessInline},
		}}
	}
	return point("1", at, disk, archive), point("2", at.Add(time.Hour), changed, append([]byte("in front"), archive...))
}

// copyAll copies all points of a source into the repository in dir, which it makes if it is not there.
func copyAll(t *testing.T, from *registry.Source, dir string, options repo.Options) job.Report {
	t.Helper()
	store, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r, err := repo.Open(t.Context(), store, repo.Environment{})
	if err != nil {
		r, err = repo.Init(t.Context(), store, repo.Environment{}, options)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	report, err := job.Copy(t.Context(), from, r, plan.Make(points, r.Has, plan.Request{All: true}), job.Options{})
	if err != nil || report.Failed() > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	return report
}

func open(t *testing.T, dir string) *registry.Source {
	t.Helper()
	s, err := registry.Open(t.Context(), dir, registry.Options{Formats: []source.Format{ferry.Format{}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func contents(t *testing.T, p source.Point) [][]byte {
	t.Helper()
	content, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var read [][]byte
	for i, o := range content.Objects() {
		if o.Access == source.AccessInline {
			read = append(read, o.Inline)
			continue
		}
		disk, err := content.Disk(i)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, disk.Size())
		for at := 0; at < len(data); at += 100_000 { // of no block size
			if _, err := disk.ReadAt(data[at:min(at+100_000, len(data))], int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		read = append(read, data)
	}
	return read
}

// origin is where an opened point says that it is from.
func origin(t *testing.T, p source.Point) backup.Origin {
	t.Helper()
	content, err := p.Opener.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	_, stored := content.(interface {
		Stored() (*repo.Repository, *repo.Point)
	}).Stored()
	return stored.Origin
}

func TestACopyOfACopyIsEqualAndKeepsItsIDs(t *testing.T) {
	first, second := machine()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyAll(t, sourcetest.Open(t, first, second), a, repo.Options{BlockSize: block})
	// b cuts in other blocks and has other ids: only the content travels.
	copyAll(t, open(t, a), b, repo.Options{BlockSize: 128 << 10, SHA256: true})
	found := open(t, b)
	for i, want := range []*sourcetest.Point{first, second} {
		p := found.Points[i]
		if p.ID != want.ID() || p.Origin.Format != "fake" || string(origin(t, p).Validator) != "validator of "+want.Native || len(p.Hops) != 1 {
			t.Fatalf("point %d: %+v", i, p.Point)
		}
		for k, data := range contents(t, p) {
			if !bytes.Equal(data, want.Objects[k].Data) {
				t.Errorf("point %d: %s differs", i, want.Objects[k].Name)
			}
		}
	}
	for _, to := range []string{a, b} { // onward again, and back
		if report := copyAll(t, found, to, repo.Options{}); report.Copied() != 0 || report.There() != 2 || report.Stored != 0 {
			t.Errorf("copying on to %s: %+v", to, report)
		}
	}
}

func TestOnlyDifferencesAreRead(t *testing.T) {
	first, second := machine()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyAll(t, sourcetest.Open(t, first, second), a, repo.Options{BlockSize: block})
	disk, archive := int64(len(second.Objects[0].Data)), int64(len(second.Objects[1].Data))
	// Equal ids: also of the archive only what is new is read. Other ids prove nothing.
	for _, c := range []struct {
		to        string
		options   repo.Options
		archive   int64
		unchanged int64
	}{
		{b, repo.Options{BlockSize: block}, archive / 2, disk - 2*block},
		{filepath.Join(dir, "c"), repo.Options{BlockSize: block, SHA256: true}, disk + archive, 0},
	} {
		report := copyAll(t, open(t, a), c.to, c.options)
		increment := report.Steps[1].Result
		if (increment.Base == first.ID()) != (c.unchanged > 0) || increment.Read < block || increment.Read > block+c.archive || increment.Unchanged != c.unchanged {
			t.Errorf("%s: the increment read %d and took over %d of %d", c.to, increment.Read, increment.Unchanged, disk)
		}
	}
}

func TestABaseWithOtherContentProvesNothing(t *testing.T) {
	first, second := machine()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	copyAll(t, sourcetest.Open(t, first, second), a, repo.Options{BlockSize: block})
	// The same point id with another content, as an image changed in place with its time kept would give.
	other, _ := machine()
	other.Objects[0].Data[0] ^= 1
	copyAll(t, sourcetest.Open(t, other), b, repo.Options{BlockSize: block, SHA256: true})
	report := copyAll(t, open(t, a), b, repo.Options{})
	if report.Steps[1].Result.Unchanged != 0 {
		t.Fatalf("%d bytes were taken over from a base that differs", report.Steps[1].Result.Unchanged)
	}
	if got := contents(t, open(t, b).Points[1]); !bytes.Equal(got[0], second.Objects[0].Data) {
		t.Fatal("the copy differs from its source")
	}
	// Where ids are equal it is the base's own tree that is compared with: what differs there is read too.
	c := filepath.Join(dir, "c")
	copyAll(t, sourcetest.Open(t, other), c, repo.Options{BlockSize: block})
	increment := copyAll(t, open(t, a), c, repo.Options{}).Steps[1].Result
	if want := int64(len(second.Objects[0].Data)) - 3*block; increment.Unchanged != want {
		t.Errorf("%d bytes were taken over from a base that differs in %d more than the increment, want %d", increment.Unchanged, block, want)
	}
	if got := contents(t, open(t, c).Points[1]); !bytes.Equal(got[0], second.Objects[0].Data) {
		t.Fatal("the copy differs from its source")
	}
}

func TestADamagedPointIsListedAsBroken(t *testing.T) {
	first, second := machine()
	dir := filepath.Join(t.TempDir(), "a")
	copyAll(t, sourcetest.Open(t, first, second), dir, repo.Options{BlockSize: block})
	files, err := filepath.Glob(filepath.Join(dir, "points", "*", "*"+first.ID().String()+"-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(files[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	states := map[backup.PointID]backup.State{}
	for _, p := range s.Points {
		states[p.ID] = p.State
	}
	if states[first.ID()] != backup.StateBroken || states[second.ID()] != backup.StateComplete {
		t.Fatalf("states %v", states)
	}
}

func TestAncestorsAreTheOlderPoints(t *testing.T) {
	first, second := machine()
	dir := filepath.Join(t.TempDir(), "a")
	copyAll(t, sourcetest.Open(t, first, second), dir, repo.Options{})
	s := open(t, dir)
	for i, want := range [][]backup.PointID{nil, {first.ID()}} {
		content, err := s.Points[i].Opener.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got := content.Ancestors(); !slices.Equal(got, want) {
			t.Errorf("ancestors of point %d: %v", i, got)
		}
		content.Close()
	}
}
