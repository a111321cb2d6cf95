//go:build integration

package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/vma"
)

// reader runs the reader that was written from docs/format.md alone.
func reader(t *testing.T, args ...string) string {
	t.Helper()
	needTool(t, "python3")
	script := filepath.Join(moduleRoot, "test", "independent", "reader.py")
	out, err := exec.Command("python3", append([]string{"-B", script}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("reader.py %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// agrees has the independent reader verify a repository and restore every point, and compares with what ferry restores.
// It returns the points' sums. Options are the reader's.
func agrees(t *testing.T, u *user, repository string, options ...string) []map[string]string {
	t.Helper()
	u.verified(repository)
	mentions(t, reader(t, append([]string{"verify", repository}, options...)...), "sound")
	var all []map[string]string
	for _, p := range u.points(repository) {
		mine := u.restored(repository, p)
		to := filepath.Join(t.TempDir(), "independent")
		reader(t, append([]string{"restore", repository, p.ID, "--to", to}, options...)...)
		theirs := sumTree(t, to)
		if got, want := byContent(theirs), byContent(mine); !maps.Equal(got, want) {
			t.Errorf("%s: the reader restores %v, ferry %v", p.ID, theirs, mine)
		}
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		all = append(all, mine)
	}
	return all
}

// byContent has the files by name without folder and kind, which a reader may choose.
func byContent(sums map[string]string) map[string]string {
	named := map[string]string{}
	for path, sum := range sums {
		named[strings.TrimSuffix(filepath.Base(path), ".raw")] = sum
	}
	return named
}

func TestIndependentReader(t *testing.T) {
	t.Parallel()
	needTool(t, "python3")
	for _, c := range []struct {
		golden string
		want   func(*testing.T) []map[string]string
	}{{"vzdump", vzdumpDisks}, {"virtnbdbackup", virtnbdbackupDisks}} {
		t.Run(c.golden, func(t *testing.T) {
			u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
			from, want := golden(t, c.golden), c.want(t)
			u.copied(from, to, "--all", "--create", "--sha256", "--codec", "none")
			for i, sums := range agrees(t, u, to) {
				if got := disks(sums); !maps.Equal(got, want[i]) {
					t.Errorf("point %d: %v, not %v", i, got, want[i])
				}
			}
		})
	}
}

// Trees of several levels, and a stream cut by content. Blocks of 4 KiB make two levels of parents of a small disk:
// a leaf has 256 entries.
func TestIndependentReaderTrees(t *testing.T) {
	t.Parallel()
	needTool(t, "python3")
	from := t.TempDir()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	// 300 MiB are 76,800 blocks, 300 leaves, two parents and a top. Most of it is a hole, with data in the first, a
	// middle and the very last block, which is short.
	big := filepath.Join(from, "big.raw")
	file, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, at := range []int64{0, 90*mib + 4096, 268*mib - 512, 300*mib + 1536 - 100} {
		if _, err := file.WriteAt(bytes.Repeat([]byte("ferry"), 20), at); err != nil {
			t.Fatal(err)
		}
	}
	contentFile(t, filepath.Join(from, "noise.raw"), 7, 9*mib+511)
	archive := filepath.Join(from, "vzdump-lxc-200-2026_11_20-01_00_00.tar.zst")
	tarSum := containerArchive(t, archive, 11, 5*mib, "")
	containerArchive(t, filepath.Join(from, "vzdump-lxc-200-2026_11_21-01_00_00.tar.zst"), 11, 5*mib, "inserted near the front")

	u.copied(from, to, "--all", "--create", "--sha256", "--codec", "none", "--block-size", "4096")
	sums := agrees(t, u, to)
	found := map[string]bool{}
	for _, files := range sums {
		for path, sum := range files {
			found[path+" "+sum] = true
		}
	}
	for _, want := range []string{
		"big.raw " + sumFile(t, big), "noise.raw " + sumFile(t, filepath.Join(from, "noise.raw")),
		"vzdump-lxc-200-2026_11_20-01_00_00.tar " + tarSum,
	} {
		if !found[want] {
			t.Errorf("not restored: %s", want)
		}
	}
}

// The other way round for streams: what is inserted near the front of an archive costs the blocks around it only.
func TestContainerArchive(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	first := containerArchive(t, filepath.Join(from, "vzdump-lxc-200-2026_11_20-01_00_00.tar.zst"), 11, 20*mib, "")
	second := containerArchive(t, filepath.Join(from, "vzdump-lxc-200-2026_11_21-01_00_00.tar.zst"), 11, 20*mib, "inserted near the front")
	report := u.copied(from, to, "--all", "--create")
	if report.Copied != 2 || report.Steps[1].NewBytes > 2*mib {
		t.Errorf("an insertion made %d bytes new: %+v", report.Steps[1].NewBytes, report)
	}
	u.verified(to)
	for i, p := range u.points(to) {
		want := map[string]string{fmt.Sprintf("vzdump-lxc-200-2026_11_%d-01_00_00.tar", 20+i): []string{first, second}[i]}
		if got := u.restored(to, p); !maps.Equal(got, want) {
			t.Errorf("point %d: %v, not %v", i, got, want)
		}
		if p.Machine.Name != "ct200" {
			t.Errorf("machine %+v", p.Machine)
		}
	}
}

// containerArchive makes a container's backup as vzdump does, and returns the sum of the tar inside.
func containerArchive(t *testing.T, path string, seed uint64, size int64, inserted string) string {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain.tar")
	file, err := os.Create(plain)
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewWriter(file)
	writer := tar.NewWriter(buffered)
	add := func(name string, size int64, write func(io.Writer) error) {
		t.Helper()
		if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: sourceTime}); err != nil {
			t.Fatal(err)
		}
		if err := write(writer); err != nil {
			t.Fatal(err)
		}
	}
	text := func(text string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
	}
	config := "hostname: ct200\nostype: debian\n"
	add("./etc/vzdump/pct.conf", int64(len(config)), text(config))
	if inserted != "" {
		add("./etc/motd", int64(len(inserted)), text(inserted))
	}
	add("./var/data", size, func(w io.Writer) error { return content(w, seed, size) })
	for _, step := range []func() error{writer.Close, buffered.Flush, file.Close} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	compressed(t, path, func(w io.Writer) error {
		file, err := os.Open(plain)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(w, file)
		return err
	})
	return sumFile(t, plain)
}

// With the key ring from a recovery kit the reader restores an encrypted repository, before and after a rotation; without
// it says that it cannot, and so does ferry.
func TestIndependentReaderEncrypted(t *testing.T) {
	t.Parallel()
	needTool(t, "python3")
	from := t.TempDir()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.env = []string{"FERRY_PASSPHRASE=correct horse battery staple"}
	secret := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.want(0, "repo", "init", to, "--encrypt", "--new-passphrase-file", secret)
	contentFile(t, filepath.Join(from, "one.raw"), 7, 700*kib+511)
	archive := filepath.Join(from, "vzdump-lxc-200-2026_11_20-01_00_00.tar.zst")
	tarSum := containerArchive(t, archive, 11, 300*kib, "")
	u.copied(from, to, "--all", "--codec", "none")
	u.want(0, "key", "rotate", to)
	contentFile(t, filepath.Join(from, "two.raw"), 8, 200*kib)
	u.copied(from, to, "--all", "--codec", "none")
	kit := filepath.Join(t.TempDir(), "kit.txt")
	u.want(0, "key", "export", to, kit)

	found := map[string]bool{}
	for _, files := range agrees(t, u, to, "--keys", kit) {
		for path, sum := range files {
			found[path+" "+sum] = true
		}
	}
	for _, want := range []string{
		"one.raw " + sumFile(t, filepath.Join(from, "one.raw")), "two.raw " + sumFile(t, filepath.Join(from, "two.raw")),
		"vzdump-lxc-200-2026_11_20-01_00_00.tar " + tarSum,
	} {
		if !found[want] {
			t.Errorf("not restored: %s", want)
		}
	}
	script := filepath.Join(moduleRoot, "test", "independent", "reader.py")
	if out, err := exec.Command("python3", "-B", script, "verify", to).CombinedOutput(); err == nil || !strings.Contains(string(out), "encrypted") {
		t.Errorf("the reader without the key: %v\n%s", err, out)
	}
	u.env = nil
	for _, p := range u.points(to) {
		if p.State != "encrypted" || len(p.Machine.ID) == 0 || strings.Contains(p.Machine.Name, "one") {
			t.Errorf("listed without the key: %+v", p)
		}
	}
	u.verified(to)
	u.want(7, "restore", to, "one", "--to", t.TempDir())
	u.want(7, "copy", to, filepath.Join(t.TempDir(), "other"), "--create")
	contentFile(t, filepath.Join(from, "three.raw"), 9, 64*kib)
	u.want(7, "copy", from, to)
}

// The reader also reads what a machine with many disks, an odd size and firmware becomes.
func TestIndependentReaderObjects(t *testing.T) {
	t.Parallel()
	needTool(t, "python3")
	from := t.TempDir()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	all := []vma.DeviceContent{
		device(t, "drive-efidisk0", 1, 512*kib), device(t, "drive-scsi0", 2, 70*mib+512), device(t, "drive-scsi1", 3, 128*kib),
		device(t, "drive-scsi2", 4, 128*kib+512), device(t, "drive-scsi3", 5, 512), device(t, "drive-tpmstate0", 6, 4*mib),
	}
	shuffled := func(a *vma.Archive) { a.Order = a.Shuffled(5) }
	dump{vmid: 7, uuid: uuidOne, name: "many", disks: all, order: shuffled}.write(t, from)
	u.copied(from, to, "--create", "--sha256", "--codec", "none")
	got := byContent(agrees(t, u, to)[0])
	for _, d := range all {
		if got[d.Name] != sumOf(t, d) {
			t.Errorf("%s: %s, not %s", d.Name, got[d.Name], sumOf(t, d))
		}
	}
}
