// Package pagecachetest makes files for tests of what is in the page cache.
package pagecachetest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/pagecache"
)

// Folder is an empty folder on a file system whose files can leave the page cache. The test is skipped if there is none.
func Folder(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "."} {
		var status unix.Statfs_t
		if unix.Statfs(parent, &status) != nil || status.Type == unix.TMPFS_MAGIC || status.Type == unix.RAMFS_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(parent, "ferry-pagecache-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	t.Skip("there is no folder but in memory")
	return ""
}

// File makes a file of which nothing is in the page cache, but what of it is warm: from its beginning on, in bytes.
func File(t *testing.T, path string, size, warm int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(bytes.Repeat([]byte("ferry..."), int(size/8))); err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	pagecache.Drop(file, 0, 0)
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // nothing is read ahead
		t.Fatal(err)
	}
	if warm > 0 {
		if _, err := file.ReadAt(make([]byte, warm), 0); err != nil {
			t.Fatal(err)
		}
	}
	Resident(t, path, 0, warm, warm)
	Resident(t, path, warm, size-warm, 0)
}

// Resident fails the test unless so many bytes of a range of a file are in the page cache. Of 64 MiB and more a hundredth may be missing: a
// kernel that needs memory, or reclaims it ahead of need, takes some of what has lain for seconds.
func Resident(t *testing.T, path string, offset, length, want int64) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if length == 0 {
		return
	}
	pages, err := pagecache.Resident(file, offset, length)
	var taken int64
	if want >= 64<<20 {
		taken = want / 100
	}
	if got := pages * int64(os.Getpagesize()); err != nil || got > want || got < want-taken {
		t.Errorf("%d bytes of the range at %d are in the page cache, want %d: %v", got, offset, want, err)
	}
}
