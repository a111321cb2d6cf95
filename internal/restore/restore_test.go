package restore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/restore"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stored copies a point of the objects into a repository of its own.
func stored(t *testing.T, objects ...sourcetest.Object) (*repo.Repository, *memory.Store, *repo.Point) {
	t.Helper()
	store := memory.New()
	r, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	p := &sourcetest.Point{Machine: sourcetest.Machine("web\n01"), Native: "p", Created: time.Unix(1e9, 0), Objects: objects}
	ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = mover.New(ingest, mover.Options{Job: "manual"}).Copy(t.Context(), p.Described(), func(_ mover.Result, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if err = errors.Join(err, ingest.Close(t.Context(), nil)); err != nil {
		t.Fatal(err)
	}
	point, err := r.ReadPoint(t.Context(), p.ID())
	if err != nil {
		t.Fatal(err)
	}
	return r, store, point
}

func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
	return data
}

func disk(name string, data []byte) sourcetest.Object {
	return sourcetest.Object{Name: name, Data: data, Access: source.AccessRandom}
}

// filesBelow are all files below a folder.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestHostileNamesStayInside(t *testing.T) {
	names := []string{
		"../x", "../../etc/passwd", "/absolute", "a/b", "a\\b", "new\nline", "\xff\xfe", "", ".", "..", "...", ".hidden", "%2E", "twin", "twin",
		"twin~2", strings.Repeat("n", 300), strings.Repeat("n", 299) + "m", strings.Repeat("\xff", 120), strings.Repeat("ü", 150),
		"restore.json", "config", "-rf", "con\x00", "restore", ".ferry-restore-1",
	}
	var objects []sourcetest.Object
	for i, name := range names {
		objects = append(objects, disk(name, noise(uint64(i), 1000+i)))
		objects = append(objects, sourcetest.Object{Name: name, Role: backup.RoleConfiguration, Data: noise(uint64(i+100), 50+i)})
		objects = append(objects, sourcetest.Object{Name: name, Role: backup.RoleFirmware, Data: noise(uint64(i+200), 9)})
		objects = append(objects, sourcetest.Object{Name: name, Role: backup.RoleArchive, Data: noise(uint64(i+300), 700), Access: source.AccessOnePass, Shifting: true})
		objects = append(objects, sourcetest.Object{Name: name, Role: backup.RoleTPM, Data: noise(uint64(i+400), 5)})
	}
	r, _, point := stored(t, objects...)
	outer := t.TempDir()
	dir := filepath.Join(outer, "deep", "down")
	result, err := restore.Restore(t.Context(), r, point, dir, restore.Options{SHA256: true})
	if err != nil {
		t.Fatal(err)
	}
	if all := filesBelow(t, outer); len(all) != len(objects)+1 {
		t.Fatalf("%d files for %d objects and their description", len(all), len(objects))
	}
	for _, name := range filesBelow(t, outer) {
		if !strings.HasPrefix(name, "deep/down/") {
			t.Errorf("%q is outside", name)
		}
	}
	var described struct {
		Files []struct{ Path, Name, SHA256 string }
	}
	content, err := os.ReadFile(filepath.Join(dir, "restore.json"))
	if err = errors.Join(err, json.Unmarshal(content, &described)); err != nil {
		t.Fatal(err)
	}
	if len(described.Files) != len(objects) {
		t.Fatalf("%d files are described", len(described.Files))
	}
	for i, f := range described.Files {
		name, err := backup.DecodeName(f.Name)
		if err != nil || name != objects[i].Name {
			t.Errorf("%q is described as %q, %v", objects[i].Name, f.Name, err)
		}
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
		sum := sha256.Sum256(objects[i].Data)
		if err != nil || !bytes.Equal(data, objects[i].Data) || f.SHA256 != hex.EncodeToString(sum[:]) || result.Files[i].SHA256 != f.SHA256 {
			t.Errorf("%q in %s: %v", objects[i].Name, f.Path, err)
		}
	}
}

func TestNothingIsOverwrittenWithoutForce(t *testing.T) {
	data := noise(1, 200_000)
	r, _, point := stored(t, disk("vda", data), sourcetest.Object{Name: "vm.xml", Role: backup.RoleConfiguration, Data: []byte("<domain/>")})
	for _, taken := range []string{"vda.raw", "config/vm.xml", "restore.json", "vda.raw as a link"} {
		dir := t.TempDir()
		path := filepath.Join(dir, strings.TrimSuffix(taken, " as a link"))
		precious := filepath.Join(t.TempDir(), "precious")
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err = errors.Join(err, os.WriteFile(precious, []byte("precious"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(taken, "link") {
			err = os.Symlink(precious, path)
		} else {
			err = os.WriteFile(path, []byte("precious"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = restore.Restore(t.Context(), r, point, dir, restore.Options{})
		if kept, readErr := os.ReadFile(path); !errors.Is(err, restore.ErrExists) || readErr != nil || string(kept) != "precious" {
			t.Errorf("%s: %v, then %q", taken, err, kept)
		}
		if files := filesBelow(t, dir); len(files) != 1 {
			t.Errorf("%s: %v are there", taken, files)
		}
		if _, err := restore.Restore(t.Context(), r, point, dir, restore.Options{Force: true}); err != nil {
			t.Errorf("%s, with force: %v", taken, err)
		}
		restored, err := os.ReadFile(filepath.Join(dir, "vda.raw"))
		if kept, _ := os.ReadFile(precious); err != nil || !bytes.Equal(restored, data) || string(kept) != "precious" {
			t.Errorf("%s, with force: %d bytes, %v; behind the link %q", taken, len(restored), err, kept)
		}
	}
}

func TestDamageIsNamedAndLeavesNothing(t *testing.T) {
	data := noise(2, 40*64<<10)
	r, store, point := stored(t, disk("first", noise(3, 100_000)), disk("vda", data))
	// The frames of a disk without zeros lie in its order, more or less: the middle of the pack is the middle of the disk.
	for _, name := range store.Names("packs/") {
		err := store.Tamper(name, func(b []byte) []byte {
			if len(b) > 1<<20 {
				b[len(b)/2] ^= 1
			}
			return b
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	report, err := r.Verify(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(-1)
	for _, d := range report.Damage {
		if d.Object == "vda" {
			want = d.Offset
		}
	}
	dir := t.TempDir()
	_, err = restore.Restore(t.Context(), r, point, dir, restore.Options{})
	var at *backup.Error
	if !errors.Is(err, backup.ErrDamaged) || !errors.As(err, &at) {
		t.Fatalf("restored from a damaged pack: %v", err)
	}
	if at.Machine != "web\n01" || at.Point != point.ID.Short() || at.Object != "vda" || at.Offset != want {
		t.Errorf("%v; verify says offset %d", err, want)
	}
	if files := filesBelow(t, dir); len(files) != 1 || files[0] != "first.raw" {
		t.Errorf("%v are left", files)
	}
}

func TestRestoredDisksAreSparse(t *testing.T) {
	const size = 256 << 20
	data := make([]byte, size)
	for at := 0; at < size; at += 16 << 20 {
		copy(data[at+5000:], noise(uint64(at>>20), 3000))
	}
	r, _, point := stored(t, disk("vda", data), disk("empty", nil), disk("zeros", make([]byte, 1<<20+1)))
	dir := t.TempDir()
	if _, err := restore.Restore(t.Context(), r, point, dir, restore.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"vda": data, "empty": nil, "zeros": make([]byte, 1<<20+1)} {
		path := filepath.Join(dir, name+".raw")
		var stat unix.Stat_t
		err := unix.Stat(path, &stat)
		content, readErr := os.ReadFile(path)
		if err = errors.Join(err, readErr); err != nil || !bytes.Equal(content, want) {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		if used := stat.Blocks * 512; used > 16*(64<<10) {
			t.Errorf("%s takes %d bytes of its %d", name, used, len(want))
		}
	}
}

func TestTargetFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	r, _, point := stored(t, disk("small", noise(4, 9000)), disk("vda", noise(5, 2<<20)))
	_, err := restore.Restore(t.Context(), r, point, dir, restore.Options{})
	if !errors.Is(err, unix.ENOSPC) || backup.Hint(err) == "" || !strings.Contains(err.Error(), "vda") {
		t.Errorf("%v (%s)", err, backup.Hint(err))
	}
	if files := filesBelow(t, dir); fmt.Sprint(files) != "[small.raw]" {
		t.Errorf("%v are left", files)
	}
}

func TestCancelledRestore(t *testing.T) {
	r, store, point := stored(t, disk("vda", noise(6, 8<<20)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	store.SetFault(func(op memory.Op, _ string) error {
		if op == memory.OpRead {
			cancel()
		}
		return nil
	})
	dir := t.TempDir()
	if _, err := restore.Restore(ctx, r, point, dir, restore.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if files := filesBelow(t, dir); len(files) != 0 {
		t.Errorf("%v are left", files)
	}
}
