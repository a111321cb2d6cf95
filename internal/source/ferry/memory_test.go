package ferry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/fs"
)

// opening counts how often points' files are opened.
type opening struct {
	storage.Store
	points *atomic.Int64
}

func (o opening) Open(ctx context.Context, name string) (storage.Reader, error) {
	if strings.HasPrefix(name, "points/") {
		o.points.Add(1)
	}
	return o.Store.Open(ctx, name)
}

// relist lists the repository in dir with a memory, and returns how many points' files that opened.
func relist(t *testing.T, dir string, environment repo.Environment, memory *ferry.Memory) (*registry.Source, int) {
	t.Helper()
	store, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files atomic.Int64
	s, err := registry.Open(t.Context(), dir, registry.Options{
		Elsewhere: true, Formats: []source.Format{ferry.Stored{Store: opening{store, &files}, Environment: environment, Memory: memory}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, int(files.Load())
}

// What never changes is read once: the second listing opens no point's file, and is the same; a third reads what is new.
func TestPointsAreReadOnce(t *testing.T) {
	first, second := machine()
	dir := filepath.Join(t.TempDir(), "a")
	copyAll(t, sourcetest.Open(t, first), dir, repo.Options{BlockSize: block})
	var memory ferry.Memory
	before, files := relist(t, dir, repo.Environment{}, &memory)
	if files != 1 {
		t.Fatalf("the first listing opened %d files of one point", files)
	}
	again, files := relist(t, dir, repo.Environment{}, &memory)
	if files != 0 || !reflect.DeepEqual(again.Points[0].Point, before.Points[0].Point) {
		t.Errorf("the second opened %d files; %+v, which was %+v", files, again.Points[0].Point, before.Points[0].Point)
	}
	for k, data := range contents(t, again.Points[0]) {
		if !bytes.Equal(data, first.Objects[k].Data) {
			t.Errorf("%s differs", first.Objects[k].Name)
		}
	}
	copyAll(t, sourcetest.Open(t, first, second), dir, repo.Options{})
	more, files := relist(t, dir, repo.Environment{}, &memory)
	if files != 1 || len(more.Points) != 2 || more.Points[0].ID != first.ID() || more.Points[1].ID != second.ID() || more.Points[1].Origin.NativePointID != "2" {
		t.Errorf("with another point %d files were opened, of %d points", files, len(more.Points))
	}
	if _, files := relist(t, dir, repo.Environment{}, nil); files != 2 {
		t.Errorf("without a memory %d files were opened", files)
	}
}

// A file that is lost after it was listed is found out when the point is opened, and not offered again.
func TestWhatIsRememberedAndLostIsListedAsBroken(t *testing.T) {
	first, second := machine()
	dir := filepath.Join(t.TempDir(), "a")
	copyAll(t, sourcetest.Open(t, first, second), dir, repo.Options{BlockSize: block})
	var memory ferry.Memory
	relist(t, dir, repo.Environment{}, &memory)
	files, err := filepath.Glob(filepath.Join(dir, "points", "*", "*"+first.ID().String()+"-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("lost"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := relist(t, dir, repo.Environment{}, &memory)
	if _, err := s.Points[0].Opener.Open(t.Context()); !errors.Is(err, backup.ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
	s, opened := relist(t, dir, repo.Environment{}, &memory)
	if s.Points[0].State != backup.StateBroken || s.Points[1].State != backup.StateComplete || opened != 1 {
		t.Errorf("%s and %s, %d files opened", s.Points[0].State, s.Points[1].State, opened)
	}
}

// Whoever has no key learns nothing from what was listed with it.
func TestMemoryTellsNothingWithoutTheKey(t *testing.T) {
	first, _ := squeezable()
	dir := filepath.Join(t.TempDir(), "a")
	opened(t, dir, repo.Options{BlockSize: block, Encrypt: []repo.KeyRecipient{{To: identity().Recipient(), PublicKey: identity().Recipient().String()}}})
	copyWith(t, sourcetest.Open(t, first), dir, mover.CodecAuto, repo.Options{})
	var memory ferry.Memory
	if s, _ := relist(t, dir, withKeys, &memory); s.Points[0].Machine.Key != first.Machine.Key {
		t.Fatalf("with the key: %+v", s.Points[0].Point)
	}
	if s, _ := relist(t, dir, repo.Environment{}, &memory); s.Points[0].State != backup.StateEncrypted || s.Points[0].Machine.Key == first.Machine.Key {
		t.Errorf("without it: %+v", s.Points[0].Point)
	}
}

// What a process has listed the next one needs not read: it lists the same, reads what is new, and what is kept goes when it turns out
// wrong. A file that is not as it was written is not used.
func TestPointsAreReadOnceByAllProcesses(t *testing.T) {
	first, second := machine()
	dir, cache := filepath.Join(t.TempDir(), "a"), t.TempDir()
	copyAll(t, sourcetest.Open(t, first), filepath.Join(filepath.Dir(dir), "before"), repo.Options{BlockSize: block})
	copyAll(t, open(t, filepath.Join(filepath.Dir(dir), "before")), dir, repo.Options{BlockSize: block}) // with a hop
	process := func() *ferry.Memory {
		var memory ferry.Memory
		memory.Keep()
		return &memory
	}
	before, files := relist(t, dir, repo.Environment{CacheDir: cache}, process())
	if files != 1 || len(before.Points[0].Hops) != 1 {
		t.Fatalf("the first listing opened %d files of one point, with hops %v", files, before.Points[0].Hops)
	}
	again, files := relist(t, dir, repo.Environment{CacheDir: cache}, process())
	if files != 0 || !reflect.DeepEqual(again.Points[0].Point, before.Points[0].Point) {
		t.Errorf("the second opened %d files; %+v, which was %+v", files, again.Points[0].Point, before.Points[0].Point)
	}
	copyAll(t, sourcetest.Open(t, first, second), dir, repo.Options{})
	if more, files := relist(t, dir, repo.Environment{CacheDir: cache}, process()); files != 1 || len(more.Points) != 2 {
		t.Errorf("with another point %d files were opened, of %d points", files, len(more.Points))
	}
	kept, err := filepath.Glob(filepath.Join(cache, "*", "listing"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	content := readFile(t, kept[0])
	for at := 0; at < len(content); at += 1 + at%31 {
		content[at] ^= 1
		writeFile(t, kept[0], content)
		content[at] ^= 1
		if _, files := relist(t, dir, repo.Environment{CacheDir: cache}, process()); files != 2 {
			t.Fatalf("with byte %d of what was kept damaged %d files were opened", at, files)
		}
		if at%2 != 0 {
			continue
		}
		writeFile(t, kept[0], content[:at])
		if _, files := relist(t, dir, repo.Environment{CacheDir: cache}, process()); files != 2 {
			t.Fatalf("with %d bytes of what was kept %d files were opened", at, files)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "points", "*", "*"+first.ID().String()+"-*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	writeFile(t, names[0], []byte("lost"))
	memory := process()
	s, _ := relist(t, dir, repo.Environment{CacheDir: cache}, memory)
	if _, err := s.Points[0].Opener.Open(t.Context()); !errors.Is(err, backup.ErrDamaged) {
		t.Fatalf("opened: %v", err)
	}
	relist(t, dir, repo.Environment{CacheDir: cache}, memory)
	if _, err := os.Stat(kept[0]); err != nil {
		t.Errorf("what is left is not kept: %v", err)
	}
	if s, _ := relist(t, dir, repo.Environment{CacheDir: cache}, process()); s.Points[0].State != backup.StateBroken {
		t.Errorf("another process lists it as %s", s.Points[0].State)
	}
}

// What one process reads bit by bit is kept for the next one, too, once it is a sixteenth of all.
func TestPointsReadOneByOneAreKept(t *testing.T) {
	dir, cache := filepath.Join(t.TempDir(), "a"), t.TempDir()
	var points []*sourcetest.Point
	add := func() {
		n := len(points)
		points = append(points, &sourcetest.Point{
			Machine: sourcetest.Machine("web"), Native: fmt.Sprint(n), Created: time.Date(2026, 11, 1, n, 0, 0, 0, time.UTC),
			Objects: []sourcetest.Object{{Name: "web.conf", Role: backup.RoleConfiguration, Data: []byte{byte(n)}, Access: source.AccessInline}},
		})
	}
	var server ferry.Memory
	server.Keep()
	for range 33 {
		add()
	}
	for _, want := range []int{0, 1, 2, 0} { // three points of 36 are more than a sixteenth
		copyAll(t, sourcetest.Open(t, points...), dir, repo.Options{BlockSize: block})
		relist(t, dir, repo.Environment{CacheDir: cache}, &server)
		var next ferry.Memory
		next.Keep()
		if _, files := relist(t, dir, repo.Environment{CacheDir: cache}, &next); files != want {
			t.Errorf("of %d points the next process opened %d files, not %d", len(points), files, want)
		}
		add()
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Of an encrypted repository nothing is kept.
func TestNothingIsKeptOfWhatIsEncrypted(t *testing.T) {
	first, _ := squeezable()
	dir, cache := filepath.Join(t.TempDir(), "a"), t.TempDir()
	opened(t, dir, repo.Options{BlockSize: block, Encrypt: []repo.KeyRecipient{{To: identity().Recipient(), PublicKey: identity().Recipient().String()}}})
	copyWith(t, sourcetest.Open(t, first), dir, mover.CodecAuto, repo.Options{})
	environment := withKeys
	environment.CacheDir = cache
	for range 2 {
		var memory ferry.Memory
		memory.Keep()
		if s, files := relist(t, dir, environment, &memory); files != 1 || s.Points[0].Machine.Key != first.Machine.Key {
			t.Errorf("%d files were opened: %+v", files, s.Points[0].Point)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(cache, "*", "listing")); err != nil || len(kept) != 0 {
		t.Errorf("kept: %v, %v", kept, err)
	}
}
