//go:build integration

package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/vma"
)

// movedCopiesNothing copies a source, moves its folder and copies again: nothing may be read or stored for it.
func movedCopiesNothing(t *testing.T, from string, options ...string) {
	t.Helper()
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	first := u.copied(from, to, append([]string{"--all", "--create"}, options...)...)
	if first.Copied == 0 {
		t.Fatalf("nothing was copied: %+v", first)
	}
	// A rename keeps inodes, a copy to another disk does not; neither may matter.
	renamed, remounted := filepath.Join(t.TempDir(), "another", "name"), filepath.Join(t.TempDir(), "disk")
	if err := os.MkdirAll(filepath.Dir(renamed), 0o755); err != nil {
		t.Fatal(err)
	}
	copyTree(t, from, remounted)
	if err := os.Rename(from, renamed); err != nil {
		t.Fatal(err)
	}
	for _, moved := range []string{renamed, remounted} {
		again := u.copied(moved, to, append([]string{"--all"}, options...)...)
		if again.Copied != 0 || again.AlreadyThere != first.Copied || again.StoredBytes != 0 ||
			again.SourceBytesRead > int64(len(treeOf(t, moved)))*headLimit {
			t.Errorf("%s: %+v", moved, again)
		}
	}
}

func TestMovedSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		golden  string
		options []string
	}{
		{"vzdump", nil},
		{"virtnbdbackup", nil},
		// Images state no UUID: the source's name has to be given when the folder's changes.
		{"images", []string{"--source-name", "site"}},
	} {
		t.Run(c.golden, func(t *testing.T) {
			from := filepath.Join(t.TempDir(), "source")
			copyTree(t, golden(t, c.golden), from)
			movedCopiesNothing(t, from, c.options...)
		})
	}
}

// A machine of a format that states no UUID is another machine under another source name.
func TestSourceNameIsIdentity(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "dump")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	dump{vmid: 100, name: "old", disks: []vma.DeviceContent{device(t, "drive-scsi0", 1, mib)}}.write(t, from)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.copied(from, to, "--create")
	u.copied(from, to, "--source-name", "elsewhere")
	stored := u.points(to)
	if len(stored) != 2 || stored[0].Machine.ID == stored[1].Machine.ID || stored[0].ID == stored[1].ID {
		t.Errorf("%+v", stored)
	}
	if again := u.copied(from, to, "--source-name", "dump"); again.Copied != 0 || again.AlreadyThere != 1 {
		t.Errorf("the folder's own name, given: %+v", again)
	}
}

// A VMID is used again after its machine was deleted. The UUID tells the two apart, wherever they lie.
func TestReusedVMID(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "dump")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	old, next := device(t, "drive-scsi0", 1, 3*mib), device(t, "drive-scsi0", 2, 2*mib)
	dump{vmid: 100, uuid: uuidOne, name: "web", day: 0, disks: []vma.DeviceContent{old}}.write(t, from)
	dump{vmid: 100, uuid: uuidTwo, name: "db", day: 1, disks: []vma.DeviceContent{next}}.write(t, from)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	// The newest point of each machine: both, for they are two.
	if report := u.copied(from, to, "--create"); report.Copied != 2 {
		t.Fatalf("%+v", report)
	}
	sums := map[string]string{}
	for _, p := range u.points(to) {
		sums[p.Machine.ID] = disks(u.restored(to, p))["drive-scsi0"]
	}
	want := map[string]string{"proxmox/100/" + uuidOne: sumOf(t, old), "proxmox/100/" + uuidTwo: sumOf(t, next)}
	if !maps.Equal(sums, want) {
		t.Errorf("%v, not %v", sums, want)
	}
	// The VMID alone is no answer: restore says which machines it could mean.
	r := u.want(2, "restore", to, "100", "--to", filepath.Join(t.TempDir(), "out"))
	mentions(t, r.err, "not unique", uuidOne, uuidTwo)
	u.want(0, "restore", to, "db", "--to", filepath.Join(t.TempDir(), "out"))
}

// A backup that was recompressed, renamed, or lies there twice is the same point. (Its VMID is known from its name only,
// so the name has to keep that.)
func TestSameBackupInTwoFiles(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "dump")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	disk := device(t, "drive-scsi0", 3, 5*mib)
	d := dump{vmid: 101, uuid: uuidOne, name: "web", disks: []vma.DeviceContent{disk}}
	path := d.write(t, from)
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	u.copied(from, to, "--create", "--all")

	copyFile(t, path, filepath.Join(from, "vzdump-qemu-101-2027_01_31-23_59_59.vma.zst"))
	raw, err := os.Create(filepath.Join(from, "vzdump-qemu-101-2026_11_20-01_00_00.vma"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.archive().WriteTo(raw); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	if offered := u.points(from); len(offered) != 1 {
		t.Errorf("%d points of one backup: %+v", len(offered), offered)
	}
	if again := u.copied(from, to, "--all"); again.Copied != 0 || again.StoredBytes != 0 || again.AlreadyThere != 1 {
		t.Errorf("%+v", again)
	}
	// Also the plain one alone, at another place.
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	copyFile(t, raw.Name(), filepath.Join(elsewhere, "vzdump-qemu-101-2027_02_28-00_00_00.vma"))
	if got := ids(u.points(elsewhere)); !slices.Equal(got, ids(u.points(to))) {
		t.Errorf("the plain archive is point %v", got)
	}
	if again := u.copied(elsewhere, to, "--all"); again.Copied != 0 || again.AlreadyThere != 1 {
		t.Errorf("%+v", again)
	}
}

// An administrator recompressed an archive with the zstd tool, which then states the content's size: more than what a
// decoder is given as memory.
func TestRecompressedArchive(t *testing.T) {
	t.Parallel()
	needTool(t, "zstd")
	from := t.TempDir()
	disk := device(t, "drive-scsi0", 31, 160*mib)
	d := dump{vmid: 102, uuid: uuidOne, name: "large", disks: []vma.DeviceContent{disk}}
	path := strings.TrimSuffix(filepath.Join(from, d.fileName()), ".zst")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.archive().WriteTo(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("zstd", "-q", "--rm", "-1", "--long=27", path).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v\n%s", err, out)
	}
	u, to := newUser(t), filepath.Join(t.TempDir(), "vault")
	r := u.want(0, "copy", from, to, "--create")
	small(t, r)
	u.verified(to)
	if got := disks(u.restored(to, u.points(to)[0])); got["drive-scsi0"] != sumOf(t, disk) {
		t.Errorf("%v", got)
	}
}
