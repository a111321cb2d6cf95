//go:build integration

// Package mounted runs the contract of storages on a file system by FUSE, as most that lie across a network are: one without files
// that have no name, and without renames that replace nothing.
package mounted

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ferry/internal/storage"
	"ferry/internal/storage/fs"
	"ferry/internal/storage/storagetest"
)

// envMounted names a folder on another file system to try, such as a mounted share; without it bindfs serves one.
const envMounted = "FERRY_TEST_MOUNTED"

// notKept is the part of the contract of which docs/offsite.md says that such file systems do not keep it.
const notKept = "OverwriteUnderReaders"

func TestContract(t *testing.T) {
	below, whole := os.LookupEnv(envMounted)
	if !whole {
		below = mountBindfs(t)
		if !fs.IsRemote(below) {
			t.Error("what FUSE serves counts as a disk of this machine")
		}
	}
	storagetest.Run(t, func(t *testing.T) storage.Store {
		if filepath.Base(t.Name()) == notKept && !whole {
			t.Skip("a reader may find nothing while a file is replaced")
		}
		return open(t, below)
	})
}

// open opens a store in a fresh folder, after what a first write tries out: several first writes at once are another thing that
// docs/offsite.md says bindfs does not keep.
func open(t *testing.T, below string) storage.Store {
	t.Helper()
	folder, err := os.MkdirTemp(below, "contract-")
	if err != nil {
		t.Fatal(err)
	}
	store, err := fs.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(store.Close(), os.RemoveAll(folder)); err != nil {
			t.Error(err)
		}
	})
	if err := store.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

// mountBindfs serves a folder with bindfs until the test ends.
func mountBindfs(t *testing.T) string {
	t.Helper()
	return mountFolder(t, t.TempDir())
}

// mountFolder serves that folder with bindfs and these options until the test ends.
func mountFolder(t *testing.T, from string, options ...string) string {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lacking := t.Skipf
		if os.Getenv("CI") != "" {
			lacking = t.Fatalf // where all that is needed must be
		}
		lacking("nothing can be mounted by FUSE here: %v", err)
	}
	fuse.Close()
	to := t.TempDir()
	if out, err := exec.Command("bindfs", append(options, from, to)...).CombinedOutput(); err != nil {
		t.Fatalf("bindfs: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("fusermount", "-u", to).CombinedOutput(); err != nil {
			t.Errorf("fusermount: %v\n%s", err, out)
		}
	})
	return to
}
