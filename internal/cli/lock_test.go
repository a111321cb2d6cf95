package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo"
)

func TestPrintLocks(t *testing.T) {
	until := time.Date(2026, 12, 30, 0, 0, 0, 0, time.UTC)
	info := repo.LockInfo{Lock: &repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600}, Until: until}
	problems := []lockProblemJSON{{File: "keys/1", Missing: true}, {File: "log/1"}, {File: "packs/a", Until: "2026-12-01T00:00:00Z"}}
	for what, c := range map[string]struct {
		info      repo.LockInfo
		described locksJSON
		check     bool
		want      string
	}{
		"none": {described: locksJSON{Repository: placeJSON{Location: "/v"}}, check: true, want: "the files of /v are not locked\n"},
		"well": {info, locksJSON{}, false, "compliance: everything that points need is locked until " + when(until) + " at least\neach copy keeps its points for 30d\n"},
		"some are lost": {
			repo.LockInfo{Lock: info.Lock, Until: until, Lost: 1}, locksJSON{}, false,
			"compliance: everything that points need is locked until " + when(until) + " at least, but for what is missing of 1 file known to be lost or damaged\neach copy keeps its points for 30d\n",
		},
		"checked": {
			info, locksJSON{Files: 12, First: "2026-12-30T00:00:00Z"}, true,
			"compliance: everything that points need is locked until " + when(until) + " at least\neach copy keeps its points for 30d\n" +
				"asked about 12 files; the first lock ends at 2026-12-30T00:00:00Z\n",
		},
		"problems": {
			info, locksJSON{Files: 12, Problems: problems}, true,
			"compliance: by the log everything that points need is locked until " + when(until) + " at least, but it is not\neach copy keeps its points for 30d\n" +
				"MISSING  keys/1\nNOT LOCKED  log/1: no lock\nNOT LOCKED  packs/a: 2026-12-01T00:00:00Z\nasked about 12 files, not all of which are locked\n",
		},
	} {
		var out bytes.Buffer
		(&app{out: &out}).printLocks(c.info, c.described, c.check)
		if out.String() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", what, out.String(), c.want)
		}
	}
	if row := lockRow(info); row[1] != "compliance, everything until "+when(until)+" at least; what is copied, for 30d" {
		t.Errorf("%q", row)
	}
	info.Lost = 2
	if row := lockRow(info); row[1] != "compliance, everything until "+when(until)+" at least, but for what is missing of 2 files known to be lost or damaged; what is copied, for 30d" {
		t.Errorf("%q", row)
	}
	if row := lockRow(repo.LockInfo{}); row[1] != "no" {
		t.Errorf("%q", row)
	}
}

// On a file system: what somebody with root's rights unlocked or deleted is told, and what to do about it.
func TestLocksOfAFolder(t *testing.T) {
	vault, passphrase := filepath.Join(t.TempDir(), "vault"), filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(passphrase, []byte("a test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	repo.SetPassphraseWork(10)
	t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-i", vault).Run() })
	var out, errOut bytes.Buffer
	if code := Main([]string{"repo", "init", vault, "--encrypt", "--new-passphrase-file", passphrase, "--lock", "host", "--lock-for", "1h"}, &out, &errOut); code != ExitDone {
		if os.Getenv("CI") == "" && strings.Contains(errOut.String(), "immutable") { // where all that is needed must be, it fails
			t.Skip("needs root, and a file system with the immutable attribute: ", errOut.String())
		}
		t.Fatal(errOut.String())
	}
	said, _ := run(t, ExitDone, "repo", "info", vault, "--passphrase-file", passphrase)
	if !strings.Contains(said, "host, everything until ") {
		t.Error(said)
	}
	said, _ = run(t, ExitDone, "repo", "locks", vault, "--check")
	if !strings.Contains(said, "host: everything that points need is locked until ") || !strings.Contains(said, "asked about 4 files; the first lock ends at ") {
		t.Error(said)
	}
	entry := filepath.Join(vault, "log", "000000000001")
	if err := exec.Command("chattr", "-i", entry).Run(); err != nil {
		t.Fatal(err)
	}
	said, hint := run(t, ExitDamaged, "repo", "locks", vault, "--check")
	if !strings.Contains(said, "NOT LOCKED  log/000000000001: no lock") || strings.Contains(said, "MISSING") || !strings.Contains(hint, "--extend") {
		t.Error(said, hint)
	}
	said, _ = run(t, ExitDone, "repo", "locks", vault, "--extend", "--passphrase-file", passphrase)
	if !strings.Contains(said, "host: everything that points need is locked until ") {
		t.Error(said)
	}
	if out, err := exec.Command("lsattr", entry).Output(); err != nil || !strings.Contains(strings.Fields(string(out))[0], "i") {
		t.Errorf("not locked again: %s, %v", out, err)
	}
	run(t, ExitDone, "repo", "locks", vault, "--check")
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "web.raw"), bytes.Repeat([]byte("disk"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ExitDone, "copy", source, vault, "--passphrase-file", passphrase)
	points, err := filepath.Glob(filepath.Join(vault, "points", "*", "*"))
	if err != nil || len(points) != 1 {
		t.Fatal(points, err)
	}
	if err := exec.Command("chattr", "-i", points[0]).Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(points[0]); err != nil {
		t.Fatal(err)
	}
	said, hint = run(t, ExitDamaged, "repo", "locks", vault, "--extend", "--passphrase-file", passphrase)
	if strings.Count(said, "MISSING  ") != 1 || !strings.Contains(said, "MISSING  points/") || !strings.Contains(hint, "1 of them missing") || !strings.Contains(hint, "ferry verify") {
		t.Error(said, hint)
	}
	keys, err := filepath.Glob(filepath.Join(vault, "keys", "*"))
	if err != nil || len(keys) != 2 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		if err := exec.Command("chattr", "-i", key).Run(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	said, hint = run(t, ExitDamaged, "repo", "locks", vault, "--check")
	if strings.Count(said, "MISSING  keys/000001-") != 2 || !strings.Contains(hint, "3 of them missing") || !strings.Contains(hint, "ferry verify") {
		t.Error(said, hint)
	}
}
