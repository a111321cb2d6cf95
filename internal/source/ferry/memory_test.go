package ferry_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

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
