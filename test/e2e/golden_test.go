//go:build integration

package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// headLimit is what listing one file may read; a copy that has nothing to do reads no more.
const headLimit = 1 * mib

// proves copies every point of a source, verifies, restores each point and compares its disks with the sums wanted, in
// the order of the listing. A second copy must find nothing to do without reading.
func proves(t *testing.T, u *user, from, to string, want []map[string]string, options ...string) []pointInfo {
	t.Helper()
	var offered []pointInfo
	for _, p := range u.points(from) {
		if p.State == "complete" {
			offered = append(offered, p)
		}
	}
	sourceFiles := int64(len(treeOf(t, from)))
	if len(offered) != len(want) {
		t.Fatalf("%d complete points, not %d: %v", len(offered), len(want), offered)
	}
	first := u.copied(from, to, append([]string{"--all", "--create"}, options...)...)
	if first.Copied != len(want) || first.Failed != 0 || first.StoredBytes == 0 {
		t.Errorf("first copy: %+v", first)
	}
	u.verified(to)
	stored := u.points(to)
	if !slices.Equal(sorted(ids(stored)), sorted(ids(offered))) {
		t.Errorf("stored %v, offered %v", ids(stored), ids(offered))
	}
	for i, p := range stored {
		if p.State != "complete" || !p.Proven || p.Machine.ID != offered[i].Machine.ID || !p.Created.Equal(offered[i].Created) {
			t.Errorf("point %d is stored as %+v, offered as %+v", i, p, offered[i])
		}
		if got := disks(u.restored(to, p)); !maps.Equal(got, want[i]) {
			t.Errorf("point %d of %s, %s: disks %v, not %v", i, p.Machine.ID, p.Created, got, want[i])
		}
	}
	before := sumTree(t, to)
	again := u.copied(from, to, append([]string{"--all"}, options...)...)
	if again.Copied != 0 || again.AlreadyThere != len(want) || again.StoredBytes != 0 || again.SourceBytesRead > sourceFiles*headLimit {
		t.Errorf("second copy: %+v", again)
	}
	for _, step := range again.Steps {
		if step.ReadBytes != 0 {
			t.Errorf("second copy read %d bytes of %s", step.ReadBytes, step.Point)
		}
	}
	if after := sumTree(t, to); !maps.Equal(before, after) {
		t.Error("the second copy changed the repository")
	}
	return stored
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func vzdumpDisks(t *testing.T) []map[string]string {
	sums := readSums(t, filepath.Join(golden(t, "ref"), "SHA256SUMS"))
	var want []map[string]string
	for k := range 3 {
		want = append(want, map[string]string{"drive-scsi0": sums[fmt.Sprintf("disk.%d.raw", k)], "drive-scsi1": sums["small.raw"]})
	}
	return want
}

// virtnbdbackupDisks has the points of both chains, in the order of time.
func virtnbdbackupDisks(t *testing.T) []map[string]string {
	sums := readSums(t, filepath.Join(golden(t, "ref"), "virtnbdbackup.SHA256SUMS"))
	var want []map[string]string
	for _, state := range []struct {
		chain string
		k     int
		disks []string
	}{
		{"plain", 0, []string{"vda", "vdb"}}, {"plain", 1, []string{"vda", "vdb"}}, {"plain", 2, []string{"vda", "vdb"}}, {"plain", 3, []string{"vda", "vdb"}},
		{"lz4", 3, []string{"vda", "vdb", "vdc"}}, {"lz4", 4, []string{"vda", "vdb", "vdc"}},
	} {
		expected := map[string]string{}
		for _, disk := range state.disks {
			expected[disk] = sums[fmt.Sprintf("%s.%d.raw", disk, state.k)]
		}
		want = append(want, expected)
	}
	return want
}

func TestGoldenVzdump(t *testing.T) {
	t.Parallel()
	proves(t, newUser(t), golden(t, "vzdump"), filepath.Join(t.TempDir(), "vault"), vzdumpDisks(t))
}

func TestGoldenVirtnbdbackup(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	stored := proves(t, u, golden(t, "virtnbdbackup"), filepath.Join(t.TempDir(), "vault"), virtnbdbackupDisks(t))
	for _, p := range stored {
		if p.Machine.ID != stored[0].Machine.ID {
			t.Errorf("two machines: %s and %s", stored[0].Machine.ID, p.Machine.ID)
		}
	}
}

// The images of the samples. Formats that Ferry does not read yet are named and change nothing.
func TestGoldenImages(t *testing.T) {
	t.Parallel()
	from := golden(t, "images")
	sums := readSums(t, filepath.Join(golden(t, "ref"), "SHA256SUMS"))
	var want []map[string]string
	for k := range 3 {
		want = append(want, map[string]string{"base": sums[fmt.Sprintf("disk.%d.raw", k)]})
	}
	for _, name := range []string{"extl2", "plain", "zlib", "zstd"} {
		want = append(want, map[string]string{name: sums["disk.2.raw"]})
	}
	u := newUser(t)
	proves(t, u, from, filepath.Join(t.TempDir(), "vault"), want)
	unsupported := 0
	for _, p := range u.points(from) {
		if p.State == "unsupported" {
			unsupported++
			if p.Reason == "" {
				t.Errorf("%s is unsupported without a reason", p.Machine.ID)
			}
		}
	}
	// Four VMDK, two VHD, a VHDX, a VDI.
	if unsupported != 8 {
		t.Errorf("%d unsupported points, not 8", unsupported)
	}
}

// Raw images, in the source's own folder and one in a folder of its own.
func TestGoldenRaw(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "images")
	unpack(t, filepath.Join(golden(t, "ref"), "ref.tar.zst"), from)
	sums := readSums(t, filepath.Join(golden(t, "ref"), "SHA256SUMS"))
	if err := os.Mkdir(filepath.Join(from, "machine"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(from, "small.raw"), filepath.Join(from, "machine", "root.img")); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"disk.0": sums["disk.0.raw"]}, {"disk.1": sums["disk.1.raw"]}, {"disk.2": sums["disk.2.raw"]}, {"root": sums["small.raw"]},
	}
	proves(t, newUser(t), from, filepath.Join(t.TempDir(), "vault"), want)
}

// unpack extracts the regular files of a tar.zst into a folder, without the archive's own folders.
func unpack(t *testing.T, archive, folder string) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder, err := zstd.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for reader := tar.NewReader(decoder); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeGNUSparse {
			continue
		}
		writeFrom(t, filepath.Join(folder, filepath.Base(header.Name)), reader)
	}
}

func writeFrom(t *testing.T, path string, content io.Reader) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.Copy(file, content); err != nil {
		t.Fatal(err)
	}
}

// Everything of the samples in one folder: formats mix, and nothing is told from the folder it lies in.
func TestGoldenMixed(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	for _, name := range []string{"vzdump", "virtnbdbackup", "xva"} {
		copyTree(t, golden(t, name), filepath.Join(from, name))
	}
	// A folder of images is one machine; one disk of a format that is not read would make all of it unsupported.
	for _, name := range []string{"plain.qcow2", "zstd.qcow2"} {
		copyFile(t, filepath.Join(golden(t, "images"), name), filepath.Join(from, "images", name))
	}
	u := newUser(t)
	to := filepath.Join(t.TempDir(), "vault")
	newest := u.copied(from, to, "--create")
	if newest.Failed != 0 || newest.Copied != 3 || newest.UnknownFiles != 1 {
		t.Errorf("%+v", newest)
	}
	byPlatform := map[string][]pointInfo{}
	for _, p := range u.points(to) {
		byPlatform[p.Machine.Platform] = append(byPlatform[p.Machine.Platform], p)
	}
	for platform, want := range map[string]map[string]string{
		"proxmox": vzdumpDisks(t)[2], "libvirt": virtnbdbackupDisks(t)[5],
		"image": {"plain": vzdumpDisks(t)[2]["drive-scsi0"], "zstd": vzdumpDisks(t)[2]["drive-scsi0"]},
	} {
		points := byPlatform[platform]
		if len(points) != 1 {
			t.Errorf("%d points of %s, not the newest alone", len(points), platform)
			continue
		}
		if got := disks(u.restored(to, points[0])); !maps.Equal(got, want) {
			t.Errorf("%s: %v, not %v", platform, got, want)
		}
	}
	all := u.copied(from, to, "--all")
	if all.Failed != 0 || all.Copied != 2+5 {
		t.Errorf("--all: %+v", all)
	}
	u.verified(to)
}

// copyTree copies a folder with modification times, as `cp -a` and `rsync -t` do.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range treeOf(t, from) {
		copyFile(t, filepath.Join(from, name), filepath.Join(to, name))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	writeFrom(t, to, source)
	info, err := source.Stat()
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What lies beside the disks comes back too: the configuration, the log, notes and the mark of protection.
func TestGoldenConfiguration(t *testing.T) {
	t.Parallel()
	from, to := golden(t, "vzdump"), filepath.Join(t.TempDir(), "vault")
	u := newUser(t)
	u.copied(from, to, "--all", "--create")
	first := u.restored(to, u.points(to)[0])
	base := "vzdump-qemu-100-2026_11_20-01_00_00"
	for _, name := range []string{base + ".log", base + ".vma.zst.notes", base + ".vma.zst.protected"} {
		if got, want := first[filepath.Join("config", name)], sumFile(t, filepath.Join(from, name)); got != want {
			t.Errorf("%s: %q, not %s", name, got, want)
		}
	}
	if first["config/qemu-server.conf"] == "" {
		t.Errorf("no qemu-server.conf: %v", slices.Collect(maps.Keys(first)))
	}
	from, to = golden(t, "virtnbdbackup"), filepath.Join(t.TempDir(), "vault")
	u.copied(from, to, "--all", "--create")
	for i, p := range u.points(to) {
		found := false
		for path, sum := range u.restored(to, p) {
			if strings.HasPrefix(path, "config/vmconfig.") {
				chain := map[bool]string{true: "plain", false: "lz4"}[i < 4]
				found = sum == sumFile(t, filepath.Join(from, chain, filepath.Base(path)))
			}
		}
		if !found {
			t.Errorf("point %d has no vmconfig, or another", i)
		}
	}
}
