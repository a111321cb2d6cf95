package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/backup"
)

// A guest owns the bytes of its raw disk. In a file named .img it can make them begin as qcow2; that must not lead to
// another machine's disk, nor make it that machine's point.
func TestGuestWrittenHeaders(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "vm-b.raw", bytes.Repeat([]byte{9}, 100_000))
	writeFile(t, dir, "vm-c.img", bytes.Repeat([]byte{8}, 100_000))
	create(t, dir, "vm-d.qcow2", "", "1M")
	before := scanDir(t, dir)
	create(t, dir, "vm-a.img", "", "1M")
	setBacking(t, filepath.Join(dir, "vm-a.img"), "vm-b.raw")
	// Nor do two guests vouch for each other, nor does the name that libvirt would give to an overlay of another file.
	create(t, dir, "vm-e.img", "vm-f.img", "1M")
	create(t, dir, "vm-f.img", "vm-d.qcow2", "1M")
	create(t, dir, "disk.100", "disk.101", "1M")
	create(t, dir, "disk.101", "vm-d.qcow2", "1M")
	create(t, dir, "vm-d", "vm-d.qcow2", "1M")
	s := scanDir(t, dir)
	expect(t, s, `disk.100 broken disk.100
disk.101 broken disk.101
vm-a.img broken vm-a
vm-b.raw complete vm-b
vm-c.img complete vm-c
vm-d broken vm-d
vm-d.qcow2 complete vm-d
vm-e.img broken vm-e
vm-f.img broken vm-f`)
	const want = "looks like qcow2 with a backing file, but only its content says so; name it .qcow2 or describe it in ferry.yaml"
	for _, p := range s.points {
		if p.State == backup.StateBroken && p.Reason != want {
			t.Errorf("%s: %s", p.Machine.Key, p.Reason)
		}
	}
	for _, p := range before.points {
		if now := s.of(t, p.Machine.Key.NativeID, 1)[0]; now.ID != p.ID || !now.Created.Equal(p.Created) {
			t.Errorf("%s is another point beside the guest's", p.Machine.Key)
		}
	}
}

// An overlay that states no format has its backing file probed: there too, content alone leads nowhere.
func TestProbedBackingFile(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "secret.raw", []byte("another machine's"))
	// Not listed as an image by itself, for its name.
	create(t, dir, "disk.iso", "", "1M")
	setBacking(t, filepath.Join(dir, "disk.iso"), "secret.raw")
	create(t, dir, "over.qcow2", "", "1M")
	setBacking(t, filepath.Join(dir, "over.qcow2"), "disk.iso")
	content, err := os.ReadFile(filepath.Join(dir, "over.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "over.qcow2", bytes.Replace(content, []byte{0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3}, make([]byte, 8), 1))
	s := scanDir(t, dir)
	expect(t, s, "disk.iso broken disk.iso\ndisk.iso broken disk.iso\nsecret.raw complete secret")
	if reason := s.points[1].Reason; !strings.HasPrefix(reason, "backing file disk.iso: looks like qcow2 with a backing file, but") {
		t.Errorf("reason %q", reason)
	}
	// An overlay that is believed and says qcow2 is enough.
	tool(t, dir, "qemu-img", "rebase", "-u", "-b", "disk.iso", "-F", "qcow2", "over.qcow2")
	expect(t, scanDir(t, dir), "secret.raw complete secret\nsecret.raw complete secret\nsecret.raw complete secret")
}

// An overlay that states no format shows what QEMU takes its backing file for by its beginning. Where that is not what its
// name says, nobody can tell whose data is meant.
func TestBackingFileOfTwoFormats(t *testing.T) {
	for name, format := range map[string]string{"a.raw": "qcow2", "a.img": "vmdk", "b.img": "vhdx", "c.img": "vpc", "d.img": "vdi", "e.img": "qed", "f.img": "parallels", "g.img": "raw"} {
		dir := t.TempDir()
		tool(t, dir, "qemu-img", "create", "-q", "-f", format, name, "4M")
		create(t, dir, "over.qcow2", "", "1M")
		setBacking(t, filepath.Join(dir, "over.qcow2"), name)
		content, err := os.ReadFile(filepath.Join(dir, "over.qcow2"))
		if err != nil {
			t.Fatal(err)
		}
		unstated := bytes.Replace(content, []byte{0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3}, make([]byte, 8), 1)
		writeFile(t, dir, "over.qcow2", unstated)
		p := scanDir(t, dir).of(t, name, 2)[1]
		want := backup.StateBroken
		if format == "raw" {
			want = backup.StateComplete
		}
		if p.State != want || (want == backup.StateBroken && !strings.Contains(p.Reason, name+" is raw by its name and looks like")) {
			t.Errorf("%s, made as %s: %s: %s", name, format, p.State, p.Reason)
		}
	}
}

// What makes a header believed: the name, an overlay that is believed, the name that libvirt gives, a ferry.yaml.
func TestBelievedHeaders(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, "base.qcow2", "", "1M", "write -P 1 0 64k")
	create(t, dir, "mid.img", "base.qcow2", "1M")
	create(t, dir, "top.qcow2", "mid.img", "1M")
	writeFile(t, dir, "vm.raw", bytes.Repeat([]byte{2}, 1<<20))
	create(t, dir, "vm.a.b", "vm.raw", "1M")
	create(t, dir, "vm.a.c", "vm.a.b", "1M")
	create(t, dir, "full.img", "", "1M", "write -P 3 0 64k")
	create(t, dir, "inc.img", "vm.raw", "1M")
	writeFile(t, dir, "ferry.yaml", []byte("machines:\n  - {name: web, chains: {vda: [full.img, inc.img]}}\n"))
	s := scanDir(t, dir)
	expect(t, s, `base.qcow2 complete base
base.qcow2 complete base
base.qcow2 complete base
vm.raw complete vm
vm.raw complete vm
vm.raw complete vm
web complete vda
web complete vda`)
	for machine, want := range map[string]byte{"base": 1, "vm": 2, "web": 3} {
		points := s.of(t, machine, map[string]int{"base": 3, "vm": 3, "web": 2}[machine])
		if got, _ := readDisk(t, disk(t, opened(t, points[len(points)-1]), 0), nil, nil); got[0] != want {
			t.Errorf("%s begins with %d", machine, got[0])
		}
	}
	// The first of a list stands on what its header says only if that is believed.
	writeFile(t, dir, "ferry.yaml", []byte("machines:\n  - {name: web, points: [{disks: {vda: inc.img}}]}\n"))
	if p := scanDir(t, dir).of(t, "web", 1)[0]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "only its content says so") {
		t.Errorf("%s: %s", p.State, p.Reason)
	}
}

// The name of a data file counts only with the feature bit, and only if the header is believed.
func TestDataFileNames(t *testing.T) {
	dir := t.TempDir()
	tool(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=victim.raw", "with.img", "1M")
	content, err := os.ReadFile(filepath.Join(dir, "with.img"))
	if err != nil {
		t.Fatal(err)
	}
	content[79] &^= 4
	writeFile(t, dir, "without.qcow2", content)
	s := scanDir(t, dir)
	expect(t, s, "victim.raw complete victim\nwith.img unsupported with\nwithout.qcow2 complete without")
	if len(s.listing.Problems) != 0 {
		t.Errorf("problems %v", s.listing.Problems)
	}
}

// A word at the end of a raw disk does not make it a VHD: a guest could keep itself from being backed up.
func TestVHDFooter(t *testing.T) {
	const size = 8192
	image := make([]byte, size+vhdFooterSize)
	footer := image[size:]
	copy(footer, "conectix")
	binary.BigEndian.PutUint64(footer[vhdSize:], size)
	binary.BigEndian.PutUint32(footer[vhdType:], vhdTypeFixed)
	seal := func() {
		binary.BigEndian.PutUint32(footer[vhdChecksum:], 0)
		var sum uint32
		for _, b := range footer {
			sum += uint32(b)
		}
		binary.BigEndian.PutUint32(footer[vhdChecksum:], ^sum)
	}
	for name, c := range map[string]struct {
		change func()
		want   backup.State
	}{
		"fixed":    {func() {}, backup.StateUnsupported},
		"word":     {func() { clear(footer[8:]) }, backup.StateComplete},
		"checksum": {func() { footer[vhdChecksum+3] ^= 1 }, backup.StateComplete},
		"type":     {func() { footer[vhdType+3] = 3; seal() }, backup.StateComplete},
		"size":     {func() { footer[vhdSize+7] = 1; seal() }, backup.StateComplete},
	} {
		t.Run(name, func(t *testing.T) {
			seal()
			whole := bytes.Clone(footer)
			defer copy(footer, whole)
			c.change()
			dir := t.TempDir()
			writeFile(t, dir, "disk.raw", image)
			if p := scanDir(t, dir).of(t, "disk", 1)[0]; p.State != c.want {
				t.Errorf("%s: %s", p.State, p.Reason)
			}
		})
	}
}
