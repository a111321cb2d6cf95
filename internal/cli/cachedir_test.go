package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/backup"
)

// Without a home what this machine has seen of repositories lies where nobody else can have put it.
func TestCacheWithoutAHome(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	uid := os.Getuid()
	want := homelessCacheDir(uid)
	if uid == 0 {
		want = "/var/cache/ferry"
	}
	if got := defaultCacheDir(); got != want {
		t.Errorf("the cache is %s instead of %s", got, want)
	}
	t.Setenv("HOME", temporary)
	if got := defaultCacheDir(); got != filepath.Join(temporary, ".cache/ferry") {
		t.Errorf("with a home the cache is %s", got)
	}

	own := homelessCacheDir(uid)
	for range 2 { // made, then found
		if err := checkCacheDir(own); err != nil {
			t.Errorf("this user's alone: %v", err)
		}
	}
	if info, err := os.Stat(own); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("it was made as %v, %v", info.Mode(), err)
	}
	refused := func(what string, err error) {
		t.Helper()
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != ExitUsage || backup.Hint(err) != "say where the cache may lie: --cache-dir DIR" {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("another user's", mustBePrivate(own, uid+1))
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	refused("open to others", checkCacheDir(own))
	if err := errors.Join(os.Chmod(own, 0o700), os.Rename(own, filepath.Join(temporary, "other")), os.Symlink("other", own)); err != nil {
		t.Fatal(err)
	}
	refused("a link", checkCacheDir(own))
	if err := checkCacheDir(filepath.Join(temporary, "other")); err != nil {
		t.Errorf("one that a home has: %v", err)
	}
	if os.Getuid() != 0 {
		t.Setenv("HOME", "")
		run(t, ExitUsage, "points", temporary)
	}
}
