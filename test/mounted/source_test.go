//go:build integration

package mounted

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// The kernel shows for a while what a share said of its files before. A file that another machine writes to while it is copied
// must be noticed all the same, also through a link.
func TestChangesBehindAShareAreNoticed(t *testing.T) {
	below := t.TempDir()
	const size = 1 << 20
	where := filepath.Join(below, "vm.raw")
	if err := os.WriteFile(where, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("vm.raw", filepath.Join(below, "link.raw")); err != nil {
		t.Fatal(err)
	}
	root, err := source.OpenRoot(mountFolder(t, below, "-o", "attr_timeout=3600,entry_timeout=3600"), "share")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	for k, name := range []string{"vm.raw", "link.raw"} {
		file, err := root.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		files := []source.FileIdentity{file.Identity()}
		if err := root.Revalidate(files); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// A longer file: its time alone may stay within a tick of the clock.
		if err := os.Truncate(where, int64(size+1+k)); err != nil {
			t.Fatal(err)
		}
		if err := root.Revalidate(files); !errors.Is(err, backup.ErrChanged) {
			t.Errorf("%s was written to: %v", name, err)
		}
	}
}
