//go:build integration

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ferry/internal/vma"
)

// site is a small source and a repository with all of it.
type site struct {
	*user
	from, vault string
	disk        vma.DeviceContent
}

func newSite(t *testing.T) site {
	t.Helper()
	s := site{user: newUser(t), from: filepath.Join(t.TempDir(), "dump"), vault: filepath.Join(t.TempDir(), "vault"), disk: device(t, "drive-scsi0", 81, 2*mib)}
	if err := os.Mkdir(s.from, 0o755); err != nil {
		t.Fatal(err)
	}
	s.backup(0)
	s.backup(1)
	return s
}

// backup adds a backup of the site's machine.
func (s site) backup(day int) string {
	return dump{vmid: 100, uuid: uuidOne, name: "web", day: day, disks: []vma.DeviceContent{s.disk}}.write(s.t, s.from)
}

// The table of exit codes, command by command. What is printed names the thing and says what to do.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	out := func() string { return filepath.Join(t.TempDir(), "out") }
	nowhere, unmade := filepath.Join(t.TempDir(), "not mounted"), filepath.Join(t.TempDir(), "not made")
	empty, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.copied(s.from, s.vault, "--all", "--create")
	for _, c := range []struct {
		name string
		code int
		args []string
		says []string
	}{
		{"help", 0, []string{"--help"}, []string{"Exit codes"}},
		{"no arguments", 0, nil, []string{"copy", "restore", "verify"}},
		{"version", 0, []string{"--version"}, []string{"ferry"}},
		{"unknown command", 2, []string{"frobnicate"}, []string{"frobnicate"}},
		{"unknown flag", 2, []string{"copy", "--frobnicate"}, []string{"frobnicate", "--help"}},
		{"too few arguments", 2, []string{"copy", s.from}, []string{"usage", "SOURCE REPOSITORY"}},
		{"restore without --to", 2, []string{"restore", s.vault, "web"}, []string{"--to"}},
		{"unknown codec", 2, []string{"copy", s.from, s.vault, "--codec", "gzip"}, []string{"gzip", "zstd"}},
		{"impossible block size", 2, []string{"repo", "init", unmade, "--block-size", "1000"}, []string{"1000"}},
		{"source that is not there", 2, []string{"points", nowhere}, []string{nowhere, "mounted"}},
		{"copy from nowhere", 2, []string{"copy", nowhere, s.vault}, []string{nowhere, "mounted"}},
		{"copy without a repository", 2, []string{"copy", s.from, nowhere}, []string{"no Ferry repository", nowhere, "is the disk mounted?", "--create"}},
		{"copy into a folder that is empty", 2, []string{"copy", s.from, empty}, []string{"no Ferry repository", empty, "is the disk mounted?", "--create"}},
		{"verify without a repository", 2, []string{"verify", empty}, []string{"no Ferry repository", empty}},
		{"restore without a repository", 2, []string{"restore", empty, "web", "--to", out()}, []string{"no Ferry repository", empty}},
		{"info without a repository", 2, []string{"repo", "info", nowhere}, []string{"no Ferry repository", nowhere}},
		{"init over a repository", 2, []string{"repo", "init", s.vault}, []string{s.vault, "already"}},
		{"nothing in the source", 3, []string{"copy", empty, s.vault}, []string{"no restore points", empty}},
		{"no such machine to copy", 3, []string{"copy", s.from, s.vault, "--machine", "db*"}, []string{"db*", "proxmox/100"}},
		{"no such machine to restore", 3, []string{"restore", s.vault, "db", "--to", out()}, []string{"db", "web"}},
		{"no such point", 3, []string{"restore", s.vault, "web", "--point", "ffffffffff", "--to", out()}, []string{"ffffffffff"}},
		{"point id too short", 2, []string{"restore", s.vault, "web", "--point", "ff", "--to", out()}, []string{"characters", "latest"}},
		{"no point so old", 3, []string{"restore", s.vault, "web", "--point", "2020-01-01", "--to", out()}, []string{"2020-01-01", "2026-11-20"}},
		{"nothing to do", 0, []string{"copy", s.from, s.vault, "--all"}, []string{"0 copied, 2 already there"}},
		{"dry run", 0, []string{"copy", s.from, nowhere, "--create", "--dry-run"}, []string{"nothing was copied", "older"}},
		{"points of a folder that is empty", 0, []string{"points", empty}, []string{"no restore points"}},
		{"by native id", 0, []string{"restore", s.vault, "100", "--to", out()}, []string{"qm create"}},
		{"by a day", 0, []string{"restore", s.vault, "web", "--point", "2026-11-20T12:00:00Z", "--to", out()}, []string{"2026-11-20 01:00:00"}},
		{"prove", 0, []string{"points", s.from, "--check"}, []string{"proven"}},
		{"adopt without need", 0, []string{"adopt", s.vault}, []string{"nothing to do"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.run(c.args...)
			if r.code != c.code {
				t.Errorf("exit %d, not %d: %v", r.code, c.code, r)
			}
			mentions(t, r.out+r.err, c.says...)
			if c.code != 0 && r.err == "" {
				t.Error("not a word on standard error")
			}
		})
	}
	for _, path := range []string{nowhere, unmade} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
	if left := treeOf(t, empty); len(left) > 0 {
		t.Errorf("made in the empty folder: %v", left)
	}
}

// Which broken points fail a copy (decisions, section 3): the one that is newer than what is taken, or that was asked for.
func TestBrokenPoints(t *testing.T) {
	t.Parallel()
	truncate := func(t *testing.T, path string, keep int64) {
		t.Helper()
		before, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, keep)
		}
		if err == nil {
			err = os.Chtimes(path, before.ModTime(), before.ModTime())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		broken  int // which of the days 0 and 1
		keep    int64
		options []string
		code    int
		says    string
		copied  int
	}{
		{"newer than the one taken", 1, 100, nil, 4, "FAILED", 1},
		{"older than the one taken", 0, 100, nil, 0, "broken", 1},
		{"older, all asked for", 0, 100, []string{"--all"}, 4, "FAILED", 1},
		{"older, its machine asked for", 0, 100, []string{"--machine", "100"}, 4, "FAILED", 1},
		// Broken deeper than a listing looks: known only when read.
		{"newer, by reading", 1, -1000, nil, 4, "FAILED", 1},
		{"all, by reading", 0, -1000, []string{"--all"}, 4, "FAILED", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			path := filepath.Join(s.from, dump{vmid: 100, day: c.broken}.fileName())
			keep := c.keep
			if keep < 0 {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				keep += info.Size()
			}
			truncate(t, path, keep)
			r := s.run(append([]string{"copy", s.from, s.vault, "--create"}, c.options...)...)
			if c.name == "newer, by reading" {
				// The point taken turned out broken: what to take instead is the next run's to decide, which knows.
				if r.code == 0 {
					t.Errorf("exit 0 though nothing good was taken: %v", r)
				}
				mentions(t, r.out+r.err, "FAILED", "cut off")
				r = s.run("copy", s.from, s.vault, "--create")
			}
			if r.code != c.code {
				t.Errorf("exit %d, not %d: %v", r.code, c.code, r)
			}
			mentions(t, r.out+r.err, c.says)
			if got := len(s.points(s.vault)); got != c.copied {
				t.Errorf("%d points, not %d: %v", got, c.copied, r)
			}
			s.verified(s.vault)
		})
	}
	t.Run("nothing else there", func(t *testing.T) {
		s := newSite(t)
		for day := range 2 {
			truncate(t, filepath.Join(s.from, dump{vmid: 100, day: day}.fileName()), 100)
		}
		r := s.want(1, "copy", s.from, s.vault, "--create")
		mentions(t, r.out+r.err, "FAILED", "broken")
	})
	// One good machine beside the broken one: some failed.
	t.Run("another machine", func(t *testing.T) {
		s := newSite(t)
		for day := range 2 {
			truncate(t, filepath.Join(s.from, dump{vmid: 100, day: day}.fileName()), 100)
		}
		dump{vmid: 101, uuid: uuidTwo, name: "db", disks: []vma.DeviceContent{s.disk}}.write(t, s.from)
		r := s.want(4, "copy", s.from, s.vault, "--create")
		mentions(t, r.out+r.err, "FAILED", "copied  db")
		// The good one is there now, and the broken one still fails.
		s.want(4, "copy", s.from, s.vault)
		s.want(0, "copy", s.from, s.vault, "--machine", "db")
	})
}

// Files that are not known, not supported or encrypted are named or counted, and never change the exit code.
func TestUnknownFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, content := range map[string]string{
		"notes.txt": "hello", "vzdump-qemu-100-2026_11_23-01_00_00.vma.xz": "\xfd7zXZ\x00", "vzdump-qemu-100-2026_11_24-01_00_00.vma.zst.gpg": "secret",
		"disk.vmdk": "KDMV", "old.vdi": strings.Repeat("<<< Oracle VM VirtualBox Disk Image >>>\n", 20), "vzdump-something": "?",
	} {
		if err := os.WriteFile(filepath.Join(s.from, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := s.copied(s.from, s.vault, "--create", "--all")
	if first.Copied != 2 || first.Failed != 0 || first.UnknownFiles != 2 {
		t.Errorf("%+v", first)
	}
	r := s.want(0, "copy", s.from, s.vault, "--all")
	mentions(t, r.out, "unsupported", "encrypted", "VMDK")
	s.want(0, "copy", s.from, s.vault)
	states := map[string]int{}
	for _, p := range s.points(s.from) {
		states[p.State]++
		if p.State != "complete" && p.Reason == "" {
			t.Errorf("no reason: %+v", p)
		}
	}
	if states["complete"] != 2 || states["encrypted"] != 1 || states["unsupported"] != 3 {
		t.Errorf("%v", states)
	}
}

// Restore overwrites nothing that it was not told to, and leaves nothing half behind.
func TestRestoreOverwrites(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.copied(s.from, s.vault, "--create")
	out := filepath.Join(t.TempDir(), "deep", "out")
	s.want(0, "restore", s.vault, "web", "--to", out)
	before := sumTree(t, out)
	for _, name := range []string{"drive-scsi0.raw", "config/qemu-server.conf", "restore.json"} {
		only := filepath.Join(t.TempDir(), "only")
		if err := os.MkdirAll(filepath.Dir(filepath.Join(only, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(only, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := s.want(1, "restore", s.vault, "web", "--to", only)
		mentions(t, r.err, name, "exists already", "--force")
		if left := treeOf(t, only); len(left) != 1 {
			t.Errorf("%s was in the way, and there is %v", name, left)
		}
		if content, err := os.ReadFile(filepath.Join(only, name)); err != nil || string(content) != "mine" {
			t.Errorf("%s: %q, %v", name, content, err)
		}
		s.want(0, "restore", s.vault, "web", "--to", only, "--force")
		if got := sumTree(t, only)["drive-scsi0.raw"]; got != sumOf(t, s.disk) {
			t.Errorf("after --force: %s", got)
		}
	}
	s.want(1, "restore", s.vault, "web", "--to", out)
	after := sumTree(t, out)
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s was changed without --force", name)
		}
	}
	// A link in the way is not followed, with --force neither.
	victim := filepath.Join(t.TempDir(), "victim")
	linked := t.TempDir()
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(linked, "drive-scsi0.raw")); err != nil {
		t.Fatal(err)
	}
	s.want(1, "restore", s.vault, "web", "--to", linked)
	s.want(0, "restore", s.vault, "web", "--to", linked, "--force")
	if content, err := os.ReadFile(victim); err != nil || string(content) != "mine" {
		t.Errorf("the link's target: %q, %v", content, err)
	}
}

// A restore that is killed or interrupted leaves no file under a final name that is not whole.
func TestRestoreInterrupted(t *testing.T) {
	t.Parallel()
	v := victims(t, 150*mib)[1]
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.want(0, v.args(to)...)
	for i, at := range []int64{40, 110, 170, 200} {
		signal := []syscall.Signal{syscall.SIGKILL, syscall.SIGINT}[i%2]
		out := filepath.Join(t.TempDir(), "out")
		r, _ := u.signalAt(at*mib, signal, "restore", to, "killed", "--to", out)
		if signal == syscall.SIGINT && r.code != 130 && r.code != 0 {
			t.Errorf("exit %d: %v", r.code, r)
		}
		left := sumTree(t, out)
		for path, sum := range left {
			name := strings.TrimSuffix(path, ".raw")
			if hidden := strings.HasPrefix(filepath.Base(path), "."); hidden && signal == syscall.SIGINT {
				t.Errorf("%s is left after an interruption", path)
			}
			if name != path && sum != v.want[name] {
				t.Errorf("%s is there and not whole", name)
			}
		}
		u.want(0, "restore", to, "killed", "--to", out, "--force")
		if got := disks(sumTree(t, out)); got["drive-scsi0"] != v.want["drive-scsi0"] || got["drive-scsi1"] != v.want["drive-scsi1"] {
			t.Errorf("%v, not %v", got, v.want)
		}
	}
}

// A repository that went back in time is read, not written, until the person says so.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.copied(s.from, s.vault, "--create", "--machine", "100")
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, s.vault, old)
	s.backup(2)
	s.copied(s.from, s.vault)
	if err := os.RemoveAll(s.vault); err != nil {
		t.Fatal(err)
	}
	copyTree(t, old, s.vault)
	r := s.run("copy", s.from, s.vault)
	if r.code == 0 {
		t.Errorf("written to: %v", r)
	}
	mentions(t, r.out+r.err, "history", "adopt")
	s.want(0, "points", s.vault)
	s.want(0, "restore", s.vault, "web", "--to", filepath.Join(t.TempDir(), "out"))
	mentions(t, s.want(0, "adopt", s.vault).out, "adopted")
	if report := s.copied(s.from, s.vault); report.Copied != 1 {
		t.Errorf("%+v", report)
	}
	s.verified(s.vault)
}

// The cache is only that: lost, or in a place that cannot be written to, everything works.
func TestCacheLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.copied(s.from, s.vault, "--create", "--all")
	if err := os.RemoveAll(s.cache); err != nil {
		t.Fatal(err)
	}
	for i, options := range [][]string{nil, {"--cache-dir", filepath.Join(string(filepath.Separator), "proc", "nowhere")}} {
		s.backup(5 + i)
		if report := s.copied(s.from, s.vault, append([]string{"--all"}, options...)...); report.Copied != 1 || report.AlreadyThere != 2+i {
			t.Errorf("%+v", report)
		}
		s.want(0, append([]string{"verify", s.vault}, options...)...)
	}
}

// Damage is found, named down to the disk and the offset, and never restored as if it were sound.
func TestDamage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.copied(s.from, s.vault, "--create", "--all")
	packs := treeOf(t, filepath.Join(s.vault, "packs"))
	largest, size := "", int64(0)
	for _, name := range packs {
		if info, err := os.Stat(filepath.Join(s.vault, "packs", name)); err == nil && info.Size() > size {
			largest, size = filepath.Join(s.vault, "packs", name), info.Size()
		}
	}
	file := flipped{path: largest, mode: 0o600}.open(t)
	defer file.Close()
	if _, err := file.WriteAt([]byte("damaged"), size/2); err != nil {
		t.Fatal(err)
	}
	r := s.want(5, "verify", s.vault)
	mentions(t, r.out, "DAMAGED", "machine web", "drive-scsi0", "bytes")
	mentions(t, r.err, "damaged")
	report := decode[verifyReport](t, s.want(5, "verify", s.vault, "--json"))
	points := map[string]bool{}
	for _, d := range report.Damage {
		if d.Machine == "web" && d.Object == "drive-scsi0" {
			points[d.Point] = true
		}
	}
	if len(points) != 2 {
		t.Errorf("both points have the damaged block: %+v", report.Damage)
	}
	out := filepath.Join(t.TempDir(), "out")
	r = s.want(5, "restore", s.vault, "web", "--to", out)
	mentions(t, r.err, "web", "drive-scsi0", "offset")
	if left := treeOf(t, out); len(left) > 0 && strings.Contains(strings.Join(left, " "), "drive-scsi0") {
		t.Errorf("there is %v", left)
	}
	// A copy of the damaged copy fails for these points and does not spread it.
	next := filepath.Join(t.TempDir(), "next")
	if r := s.run("copy", s.vault, next, "--create", "--all"); r.code == 0 {
		t.Errorf("%v", r)
	}
	s.want(0, "verify", next)
	if points := s.points(next); len(points) != 0 {
		t.Errorf("%+v", points)
	}
	// Copied again from the source, the point is there already: only heal mends it, and nothing claims otherwise.
	s.want(5, "verify", s.vault)
}
