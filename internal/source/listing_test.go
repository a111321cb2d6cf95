package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/source"
)

// A folder that may not be looked into may have points: the listing says that it is not whole. Links that lead nowhere, and what
// file systems keep for themselves, hide none.
func TestIncompleteListing(t *testing.T) {
	folder := t.TempDir()
	hidden, spared := filepath.Join(folder, "node2"), filepath.Join(folder, "lost+found")
	err := errors.Join(os.Mkdir(hidden, 0o755), os.Mkdir(spared, 0),
		os.Mkdir(filepath.Join(folder, "System Volume Information"), 0), os.Mkdir(filepath.Join(folder, "$RECYCLE.BIN"), 0), os.Symlink("nowhere", filepath.Join(folder, "link")),
		os.WriteFile(filepath.Join(folder, "file"), nil, 0o644), os.Chmod(folder, 0o755), os.Chmod(filepath.Dir(folder), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // who may read everything: for a moment we are somebody else
		const nobody, asItIs = 65534, -1
		if err := errors.Join(os.Chown(hidden, nobody, asItIs), syscall.Setresuid(asItIs, nobody, asItIs)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setresuid(asItIs, 0, asItIs); err != nil {
				t.Fatal(err)
			}
		}()
	}
	list := func() *source.Listing {
		root, err := source.OpenRoot(folder, "")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		listing, err := source.List(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		return listing
	}
	if listing := list(); listing.Incomplete != nil || len(listing.Problems) != 1 {
		t.Errorf("whole: %v, problems %v", listing.Incomplete, listing.Problems)
	}
	if err := os.Chmod(hidden, 0); err != nil {
		t.Fatal(err)
	}
	if listing := list(); listing.Incomplete == nil || !strings.HasPrefix(listing.Incomplete.Error(), "node2: ") || len(listing.Problems) != 2 {
		t.Errorf("not whole: %v, problems %v", listing.Incomplete, listing.Problems)
	}
}
