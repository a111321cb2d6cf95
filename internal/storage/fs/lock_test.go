package fs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/storage"
)

// lockingStore opens a store on a file system where files can be made immutable; the test is skipped where this process may
// not. What is still locked in the end is unlocked.
func lockingStore(t *testing.T, how method) *Store {
	t.Helper()
	folder := mountSmall(t)
	store := openStore(t, folder, how)
	switch err := store.CheckLock(t.Context(), storage.Host); {
	case errors.Is(err, unix.EPERM):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				if file, err := os.Open(path); err == nil {
					_ = setImmutable(file, false)
					file.Close()
				}
			}
			return nil
		})
	})
	return store
}

func TestLock(t *testing.T) {
	for _, how := range methods {
		t.Run(how.String(), func(t *testing.T) {
			store := lockingStore(t, how)
			ctx := t.Context()
			soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
			store.LockNew(storage.Host, func(name string) time.Time {
				if name == "index/a" {
					return time.Time{}
				}
				return soon
			})
			for _, name := range []string{"packs/aa/one", "index/a"} {
				if err := store.Put(ctx, name, []byte("content")); err != nil {
					t.Fatal(err)
				}
			}
			if got := drafts(t, store.path); len(got) != 0 {
				t.Errorf("drafts %q are left", got)
			}
			wantUntil := func(name string, want time.Time) {
				t.Helper()
				if until, err := store.LockedUntil(ctx, name); err != nil || !until.Equal(want) {
					t.Errorf("%s is locked until %v, %v, want %v", name, until, err, want)
				}
			}
			wantUntil("packs/aa/one", soon)
			wantUntil("index/a", time.Time{})
			if err := store.Delete(ctx, "index/a"); err != nil {
				t.Error(err)
			}
			// Not by us, and not by anyone else either.
			var locked *storage.LockedError
			if err := store.Delete(ctx, "packs/aa/one"); !errors.As(err, &locked) || !locked.Until.Equal(soon) {
				t.Errorf("deleting what is locked: %v", err)
			}
			path := store.pathOf("packs/aa/one")
			for what, err := range map[string]error{
				"remove": os.Remove(path), "rename": os.Rename(path, path+"x"), "truncate": os.Truncate(path, 0), "link": os.Link(path, path+"y"),
				"write": os.WriteFile(path, []byte("other"), 0o600),
			} {
				if !errors.Is(err, fs.ErrPermission) {
					t.Errorf("%s of a locked file: %v", what, err)
				}
			}
			// It becomes longer, never shorter.
			for _, c := range []struct{ ask, want time.Time }{{soon.Add(-time.Minute), soon}, {soon.Add(time.Hour), soon.Add(time.Hour)}, {soon, soon.Add(time.Hour)}} {
				if err := store.Lock(ctx, "packs/aa/one", storage.Host, c.ask); err != nil {
					t.Fatal(err)
				}
				wantUntil("packs/aa/one", c.want)
			}
			// When its time has come it goes.
			store.LockNew(storage.Host, func(string) time.Time { return time.Now().Add(-time.Second) })
			if err := store.Put(ctx, "packs/aa/two", nil); err != nil {
				t.Fatal(err)
			}
			if err := store.Delete(ctx, "packs/aa/two"); err != nil {
				t.Error(err)
			}
			if err := store.Lock(ctx, "packs/aa/none", storage.Host, soon); !errors.Is(err, storage.ErrNotExist) {
				t.Errorf("locking what is not there: %v", err)
			}
		})
	}
}

// TestCannotLock: a way that file systems do not have is refused, with what to do.
func TestCannotLock(t *testing.T) {
	store := newStore(t, unnamed)
	for what, err := range map[string]error{
		"making a repository": store.CheckLock(t.Context(), storage.Compliance),
		"opening one":         store.LockNew(storage.Governance, func(string) time.Time { return time.Now().Add(time.Hour) }),
	} {
		if !errors.Is(err, storage.ErrUnsuitable) || backup.Hint(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := store.Put(t.Context(), "packs/aa/one", nil); err != nil {
		t.Fatal(err)
	}
	if until, err := store.LockedUntil(t.Context(), "packs/aa/one"); err != nil || !until.IsZero() {
		t.Errorf("locked until %v, %v", until, err)
	}
}
