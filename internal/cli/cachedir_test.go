package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/backup"
)

// Without a home a server keeps its state where nobody else can have put it, and nobody else's is asked.
func TestStateWithoutAHome(t *testing.T) {
	temporary := t.TempDir()
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "FERRY_SOCKET"} {
		t.Setenv(name, "")
	}
	t.Setenv("TMPDIR", temporary)
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534 // root has folders of the system
	}
	own := filepath.Join(temporary, fmt.Sprintf("ferry-state-%d", uid))
	places := func() (string, string, error) { return serveFlags{}.places(uid) }
	if err := errors.Join(os.Mkdir(own, 0o700), os.Lchown(own, uid, -1), os.WriteFile(filepath.Join(own, socketName), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if state, socket, err := places(); state != own || socket != filepath.Join(own, socketName) || err != nil {
		t.Errorf("the state is in %s, the socket %s: %v", state, socket, err)
	}
	if asked := socketToAsk(uid); asked != filepath.Join(own, socketName) {
		t.Errorf("asked at %s", asked)
	}
	refused := func(what string, err error) {
		t.Helper()
		var exit *exitError
		if !errors.As(err, &exit) || exit.code != ExitUsage || backup.Hint(err) != "say where the server's state may lie: --state DIR, and --socket PATH" {
			t.Errorf("%s: %v", what, err)
		}
		if asked := socketToAsk(uid); asked != systemSocket {
			t.Errorf("%s: asked at %s", what, asked)
		}
	}
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := places()
	refused("open to others", err)
	_, _, err = serveFlags{state: temporary}.places(uid)
	refused("the socket beside another state", err)
	if _, _, err = (serveFlags{state: own, socket: filepath.Join(own, socketName)}).places(uid); err != nil {
		t.Errorf("said to lie there: %v", err)
	}
	if err := errors.Join(os.Chmod(own, 0o700), os.Rename(own, filepath.Join(temporary, "other")), os.Symlink("other", own)); err != nil {
		t.Fatal(err)
	}
	_, _, err = places()
	refused("a link", err)
	t.Setenv("HOME", temporary)
	if state, _, err := places(); state != filepath.Join(temporary, ".local/state/ferry") || err != nil {
		t.Errorf("with a home the state is in %s: %v", state, err)
	}
}

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
	refused("another user's", mustBePrivate(own, uid+1, "cache", "--cache-dir DIR"))
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
