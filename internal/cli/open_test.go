package cli

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/repo"
)

// A repository that was closed does not hold its folder: its disk can be unmounted, and a server opens many.
func TestClosedRepositoryHoldsNoFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "vault")
	a := &app{out: io.Discard, errOut: io.Discard, cacheDir: t.TempDir()}
	held := func() bool {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range open {
			if to, err := os.Readlink("/proc/self/fd/" + one.Name()); err == nil && to == folder {
				return true
			}
		}
		return false
	}
	closed := func(what string, opened *repo.Repository, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if !held() {
			t.Errorf("%s: its folder is not open: the test shows nothing", what)
		}
		if err := opened.Close(); err != nil || held() {
			t.Errorf("%s and closed: %v, holds its folder: %v", what, err, held())
		}
	}
	made, err := a.createRepository(t.Context(), folder, repo.Options{})
	closed("made", made, err)
	opened, err := a.openRepository(t.Context(), folder)
	closed("opened", opened, err)
}
