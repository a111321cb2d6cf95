package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/storage"
	"ferry/internal/storage/storagetest"

	"golang.org/x/sys/unix"
)

func TestContract(t *testing.T) {
	for _, how := range methods {
		t.Run(how.String(), func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store { return newStore(t, how) })
		})
	}
}

// newStore makes a store that publishes by the given method.
func newStore(t *testing.T, how method) *Store {
	t.Helper()
	return openStore(t, t.TempDir(), how)
}

// openStore opens a folder, and makes sure that the method works there.
func openStore(t *testing.T, folder string, how method) *Store {
	t.Helper()
	store, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if _, err := store.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	tmp, err := store.folder(tmpFolder)
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if err := store.try(tmp, how); err != nil {
		t.Skipf("the file system of %s does not support %v: %v", folder, how, err)
	}
	store.how = how
	return store
}

// drafts returns the names below tmp/.
func drafts(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(folder, tmpFolder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// listed counts the objects of a store.
func listed(t *testing.T, store *Store) int {
	t.Helper()
	count := 0
	for _, err := range store.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	return count
}

func TestCreateAndOpen(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "made", "with", "parents")
	if _, err := Open(folder); !errors.Is(err, storage.ErrNotExist) {
		t.Fatalf("open of a missing folder: %v, want ErrNotExist", err)
	}
	for range 2 {
		store, err := Create(folder)
		if err != nil {
			t.Fatal(err)
		}
		if got := drafts(t, folder); len(got) != 0 {
			t.Errorf("the probe left %q", got)
		}
		if listed(t, store) != 0 || store.Location() != folder {
			t.Errorf("%d objects in %s", listed(t, store), store.Location())
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if _, err := store.Stat(t.Context(), "a"); err == nil {
			t.Error("a closed store answers")
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a store")
	}
	if _, err := Create(filepath.Join(file, "below")); err == nil {
		t.Error("a store was made below a file")
	}
}

// The space left is that for any user, and never more than the file system has. One that has no size does not say that it is full.
func TestFree(t *testing.T) {
	folder := t.TempDir()
	store, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	free, known, err := storage.Free(t.Context(), store)
	var status unix.Statfs_t
	if err := unix.Statfs(folder, &status); err != nil {
		t.Fatal(err)
	}
	if size := int64(status.Blocks) * status.Frsize; err != nil || !known || free <= 0 || free >= size {
		t.Errorf("%d bytes free of %d, known %v, %v", free, size, known, err)
	}
	without, err := Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	if free, known, err := storage.Free(t.Context(), without); err != nil || known {
		t.Errorf("%d bytes free in a file system that has no size, known %v, %v", free, known, err)
	}
}

// TestWithdraw: of the folders that were made for a store those go again that nothing lies in, and no others.
func TestWithdraw(t *testing.T) {
	root := t.TempDir()
	made := func(put string) string {
		store, err := Create(filepath.Join(root, "usb", "vault"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if err := os.MkdirAll(store.pathOf(put), 0o700); err != nil {
			t.Fatal(err)
		}
		store.Withdraw()
		var left []string
		if err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			left = append(left, strings.TrimPrefix(path, root))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return strings.Join(left, " ")
	}
	for _, c := range []struct{ put, want string }{
		{"", ""}, {"log", " /usb /usb/vault /usb/vault/log"}, {"", " /usb /usb/vault /usb/vault/log"},
	} {
		if got := made(c.put); got != c.want {
			t.Errorf("with %q: %q are left, want %q", c.put, got, c.want)
		}
	}
}

// TestReadingWritesNothing: a store on a read-only medium can be read.
func TestReadingWritesNothing(t *testing.T) {
	folder := t.TempDir()
	store, err := Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	listed(t, store)
	if _, err := store.Stat(t.Context(), "a/b"); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	if err := store.Delete(t.Context(), "a/b"); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 0 {
		t.Errorf("reading left %d entries, %v", len(entries), err)
	}
}

func TestModes(t *testing.T) {
	for _, how := range methods {
		store := newStore(t, how)
		if err := store.Put(t.Context(), "packs/ab/object", []byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := store.Overwrite(t.Context(), "marks/hint", []byte("content")); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{
			"packs": 0o700, "packs/ab": 0o700, "packs/ab/object": 0o600, "marks/hint": 0o600, "tmp": 0o700,
		} {
			info, err := os.Stat(store.pathOf(name))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%v: %s: %v, %v, want %v", how, name, info.Mode(), err, want)
			}
		}
	}
}

// TestModifiedIsPublication: an object whose writer waited before the commit is not taken for an old one.
func TestModifiedIsPublication(t *testing.T) {
	for _, how := range methods {
		store := newStore(t, how)
		w, err := store.Create(t.Context(), "object")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		old := time.Unix(1_000_000_000, 0)
		if err := os.Chtimes(procPath(int(w.(*writer).draft.file.Fd())), old, old); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := store.Stat(t.Context(), "object")
		if err != nil || info.Modified.Equal(old) {
			t.Errorf("%v: modified %v, %v", how, info.Modified, err)
		}
	}
}

// TestOrphans: drafts whose writers are gone are removed at the first write, those of living writers are not.
func TestOrphans(t *testing.T) {
	for _, how := range []method{linked, renamed} {
		folder := t.TempDir()
		first := openStore(t, folder, how)
		w, err := first.Create(t.Context(), "object")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		if _, err := w.Write([]byte("content")); err != nil {
			t.Fatal(err)
		}
		orphan := filepath.Join(folder, tmpFolder, "draft-orphan")
		if err := os.WriteFile(orphan, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		second, err := Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if listed(t, second) != 0 || len(drafts(t, folder)) != 2 {
			t.Fatalf("%v: drafts %q before the first write", how, drafts(t, folder))
		}
		if err := second.Put(t.Context(), "other", nil); err != nil {
			t.Fatal(err)
		}
		left := drafts(t, folder)
		if len(left) != 1 || left[0] == filepath.Base(orphan) {
			t.Fatalf("%v: drafts %q, want the living writer's", how, left)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := drafts(t, folder); len(got) != 0 || listed(t, second) != 2 {
			t.Errorf("%v: drafts %q and %d objects after the commit", how, got, listed(t, second))
		}
	}
}

// TestUnsuitable: a medium that cannot publish is refused, and the message says what was tried.
func TestUnsuitable(t *testing.T) {
	store := newStore(t, unnamed)
	tmp, err := store.folder(tmpFolder)
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	if _, err := store.choose(t.Context(), tmp, nil); !errors.Is(err, storage.ErrUnsuitable) {
		t.Errorf("without any way to publish: %v, want ErrUnsuitable", err)
	}
	err = store.unsuitable("links are missing", unix.EPERM)
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), store.path) {
		t.Error(err)
	}
	if err := store.Probe(t.Context()); err != nil {
		t.Errorf("the file system of the tests: %v", err)
	}
}

// TestLinksAreNotFollowed: a medium with links in it leads nowhere else.
func TestLinksAreNotFollowed(t *testing.T) {
	for _, how := range methods {
		store, outside := newStore(t, how), t.TempDir()
		secret := filepath.Join(outside, "secret")
		if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		links := map[string]string{"packs": outside, "log": secret, "dangling": filepath.Join(outside, "new")}
		for name, target := range links {
			if err := os.Symlink(target, store.pathOf(name)); err != nil {
				t.Fatal(err)
			}
		}
		ctx := t.Context()
		for _, name := range []string{"packs/secret", "log", "packs/new"} {
			if _, err := store.Open(ctx, name); err == nil || errors.Is(err, storage.ErrNotExist) {
				t.Errorf("%v: open %s: %v, want a refusal", how, name, err)
			}
			if _, err := store.Stat(ctx, name); err == nil || errors.Is(err, storage.ErrNotExist) {
				t.Errorf("%v: stat %s: %v, want a refusal", how, name, err)
			}
			if err := store.Put(ctx, name, []byte("changed")); err == nil {
				t.Errorf("%v: put %s succeeded", how, name)
			}
		}
		if err := store.Put(ctx, "dangling", nil); !errors.Is(err, storage.ErrExists) {
			t.Errorf("%v: put on a dangling link: %v, want ErrExists", how, err)
		}
		if _, err := store.Open(ctx, "log"); !errors.Is(err, storage.ErrNotFile) {
			t.Errorf("%v: open a link: %v, want ErrNotFile", how, err)
		}
		if _, err := store.Open(ctx, "packs/secret"); errors.Is(err, storage.ErrNotFile) {
			t.Errorf("%v: a link in place of a folder hides what lies there, and it is said that it is no file: %v", how, err)
		}
		var found []string
		for info, err := range store.List(ctx, "") {
			if found = append(found, info.Name); err != nil || !info.NotFile || info.Size != 0 {
				t.Errorf("%v: list: %+v, %v", how, info, err)
			}
		}
		if slices.Sort(found); !slices.Equal(found, []string{"dangling", "log", "packs"}) {
			t.Errorf("%v: list: %q, so something is hidden", how, found)
		}
		var last error
		for info, err := range store.List(ctx, "packs/") {
			if last = err; err == nil {
				t.Errorf("%v: list below a link: %s", how, info.Name)
			}
		}
		if last == nil {
			t.Errorf("%v: list below a link hides that something cannot be listed", how)
		}
		if err := store.Delete(ctx, "packs/secret"); err == nil {
			t.Errorf("%v: delete below a link succeeded", how)
		}
		// Replacing and deleting are about the link itself.
		if err := store.Overwrite(ctx, "log", []byte("hint")); err != nil {
			t.Error(err)
		}
		if err := store.Delete(ctx, "dangling"); err != nil {
			t.Error(err)
		}
		content, err := os.ReadFile(secret)
		entries, _ := os.ReadDir(outside)
		if err != nil || string(content) != "secret" || len(entries) != 1 {
			t.Errorf("%v: outside: %q, %v, %d entries", how, content, err, len(entries))
		}
	}
}

// TestOddFiles: pipes and folders under the names of objects do not block or confuse.
func TestOddFiles(t *testing.T) {
	store := newStore(t, unnamed)
	if err := unix.Mkfifo(store.pathOf("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(store.pathOf("lost+found/below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store.pathOf("not ours"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), "pipe"); !errors.Is(err, storage.ErrNotFile) || errors.Is(err, storage.ErrNotExist) {
		t.Errorf("open a pipe: %v, want ErrNotFile", err)
	}
	if err := os.Mkdir(store.pathOf("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), "folder"); !errors.Is(err, storage.ErrNotFile) || !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("open a folder: %v, want ErrNotFile and ErrNotExist", err)
	}
	for info, err := range store.List(t.Context(), "") {
		if err != nil || info.Name != "pipe" || !info.NotFile {
			t.Errorf("%+v, %v, want the pipe, which is no file", info, err)
		}
	}
	if err := store.Put(t.Context(), "file", nil); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), "file/below", nil); err == nil || errors.Is(err, storage.ErrExists) {
		t.Errorf("put below a file: %v", err)
	}
}

// Syncing what was deleted works in a folder that is there, that is not, and in the store's own, and not through a link.
func TestSyncDeletes(t *testing.T) {
	root, ctx := t.TempDir(), t.Context()
	store, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := errors.Join(store.Put(ctx, "keys/one", nil), store.Delete(ctx, "keys/one"), os.Symlink("keys", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"", "keys/", "packs/ab/"} {
		if err := store.SyncDeletes(ctx, folder); err != nil {
			t.Errorf("%q: %v", folder, err)
		}
	}
	for _, folder := range []string{"keys", "../", "link/"} {
		if err := store.SyncDeletes(ctx, folder); err == nil {
			t.Errorf("%q was synced", folder)
		}
	}
}
