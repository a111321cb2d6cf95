package vzdump

import (
	"slices"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	const (
		qemu = "vzdump-qemu-100-2026_11_20-01_00_00"
		lxc  = "vzdump-lxc-101-2026_11_20-01_00_00"
		at   = "2026_11_20-01_00_00"
	)
	archive := func(base, vmid, stamp string, kind container, compression string) dumpName {
		return dumpName{role: roleArchive, base: base, guest: guestOf(base), vmid: vmid, stamp: stamp, container: kind, compression: compression}
	}
	for _, test := range []struct {
		name string
		want dumpName
	}{
		{qemu + ".vma", archive(qemu, "100", at, containerVMA, "")},
		{qemu + ".vma.zst", archive(qemu, "100", at, containerVMA, "zst")},
		{qemu + ".vma.gz", archive(qemu, "100", at, containerVMA, "gz")},
		{qemu + ".vma.lzo", archive(qemu, "100", at, containerVMA, "lzo")},
		{qemu + ".vma.bz2", archive(qemu, "100", at, containerVMA, "bz2")},
		{lxc + ".tar", archive(lxc, "101", at, containerTar, "")},
		{lxc + ".tar.zst", archive(lxc, "101", at, containerTar, "zst")},
		{lxc + ".tar.gz", archive(lxc, "101", at, containerTar, "gz")},
		{lxc + ".tar.lzo", archive(lxc, "101", at, containerTar, "lzo")},
		{lxc + ".tar.bz2", archive(lxc, "101", at, containerTar, "bz2")},
		{lxc + ".tgz", archive(lxc, "101", at, containerTar, "gz")},
		{"vzdump-openvz-7-2011_01_02-03_04_05.tgz", archive("vzdump-openvz-7-2011_01_02-03_04_05", "7", "2011_01_02-03_04_05", containerTar, "gz")},
		// Non-standard names.
		{"vzdump-qemu-before-upgrade.vma.zst", archive("vzdump-qemu-before-upgrade", "", "", containerVMA, "zst")},
		{"vzdump-qemu-100.vma", archive("vzdump-qemu-100", "", "", containerVMA, "")},
		{"vzdump-qemu-100-2026_13_20-01_00_00.vma", archive("vzdump-qemu-100-2026_13_20-01_00_00", "", "", containerVMA, "")},
		{"vzdump-qemu-1234567890-" + at + ".vma", archive("vzdump-qemu-1234567890-"+at, "", "", containerVMA, "")},
		{"vzdump-qemu-100-" + at + "-copy.vma.gz", archive("vzdump-qemu-100-"+at+"-copy", "", "", containerVMA, "gz")},
		{"vzdump-lxc-a\nb\xff.tar", archive("vzdump-lxc-a\nb\xff", "", "", containerTar, "")},
		{"vzdump-lxc-.tar", archive("vzdump-lxc-", "", "", containerTar, "")},
		// Known and not read.
		{qemu + ".vma.xz", dumpName{role: roleUnread, base: qemu, guest: "qemu", vmid: "100", stamp: at, container: containerVMA, outer: ".xz"}},
		{lxc + ".tgz.lzo", dumpName{role: roleUnread, base: lxc, guest: "lxc", vmid: "101", stamp: at, container: containerTar, outer: ".lzo"}},
		{qemu + ".vma.zst.gpg", dumpName{role: roleUnread, base: qemu, guest: "qemu", vmid: "100", stamp: at, container: containerVMA, outer: ".gpg", sealed: true}},
		{qemu + ".vma.age", dumpName{role: roleUnread, base: qemu, guest: "qemu", vmid: "100", stamp: at, container: containerVMA, outer: ".age", sealed: true}},
		// Running.
		{qemu + ".vma.dat", dumpName{role: roleRunning, base: qemu, guest: "qemu", vmid: "100", stamp: at, container: containerVMA}},
		{qemu + ".dat", dumpName{role: roleRunning, base: qemu, guest: "qemu", vmid: "100", stamp: at, container: containerVMA}},
		{lxc + ".tar.dat", dumpName{role: roleRunning, base: lxc, guest: "lxc", vmid: "101", stamp: at, container: containerTar}},
		{lxc + ".dat", dumpName{role: roleRunning, base: lxc, guest: "lxc", vmid: "101", stamp: at, container: containerTar}},
		// Beside an archive.
		{qemu + ".log", dumpName{role: roleLog, base: qemu, guest: "qemu", vmid: "100", stamp: at}},
		{qemu + ".vma.zst.notes", dumpName{role: roleNotes, base: qemu, archive: qemu + ".vma.zst", guest: "qemu", vmid: "100", stamp: at, container: containerVMA, compression: "zst"}},
		{lxc + ".tgz.protected", dumpName{role: roleProtected, base: lxc, archive: lxc + ".tgz", guest: "lxc", vmid: "101", stamp: at, container: containerTar, compression: "gz"}},
		// Not ours.
		{"", dumpName{}},
		{"vzdump", dumpName{}},
		{"vzdump-hyperv-1.vma", dumpName{}},
		{"x" + qemu + ".vma", dumpName{}},
		{"." + qemu + ".vma", dumpName{}},
		{"disk.vma", dumpName{}},
		{qemu + ".notes", dumpName{}},
	} {
		if got := parseName(test.name); got != test.want {
			t.Errorf("%q:\ngot  %+v\nwant %+v", test.name, got, test.want)
		}
	}
	for _, name := range []string{qemu, qemu + ".vma.sha256", qemu + ".vma.zst.sha256", qemu + ".vma.zst.asc", qemu + ".txt", qemu + ".vma."} {
		if got := parseName(name); got.role != roleForeign {
			t.Errorf("%q is known as %+v", name, got)
		}
	}
}

func guestOf(base string) string { return strings.Split(base, "-")[1] }

func TestParseConfig(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       guestConfig
	}{
		{"usual", "#a note: x\nname: web01\nsmbios1: uuid=3F1D2C4E-5a6b-4c7d-8e9f-0a1b2c3d4e5f,manufacturer=QQ==,base64=1\ntags: prod;web\n",
			guestConfig{"web01", "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", []string{"prod", "web"}}},
		{"container", "arch: amd64\nhostname: ct101\ntags: a,b a\n", guestConfig{"ct101", "", []string{"a", "b"}}},
		{"uuid not first", "smbios1: family=x, uuid=3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f", guestConfig{uuid: "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f"}},
		{"snapshots do not count", "name: a\n[before]\nname: b\nsmbios1: uuid=3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f\n", guestConfig{name: "a"}},
		{"last one counts", "name: a\nname: b\r\n", guestConfig{name: "b"}},
		{"no uuid", "smbios1: uuid=not-one\n", guestConfig{}},
		{"uuid of wrong length", "smbios1: uuid=3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f0\n", guestConfig{}},
		{"nothing", "", guestConfig{}},
		{"garbage", "\x00\xff:\n:::\nname\n\n tags:;;, \n", guestConfig{}},
		{"hostile name", "name: \x1b[31m\xfe", guestConfig{name: "\x1b[31m\xfe"}},
	} {
		got := parseConfig([]byte(test.text))
		if got.name != test.want.name || got.uuid != test.want.uuid || !slices.Equal(got.tags, test.want.tags) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// FuzzScan holds what names and configurations say to their rules.
func FuzzScan(f *testing.F) {
	f.Add("vzdump-qemu-100-2026_11_20-01_00_00.vma.zst", []byte("name: a\ntags: b;c\nsmbios1: uuid=3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f\n"))
	f.Add("vzdump-lxc-1-2026_11_20-01_00_00.tgz.protected", []byte("[x]\n"))
	f.Add("vzdump-qemu-\xff\n.vma.zst.gpg", []byte(":\n"))
	f.Add("vzdump-openvz-1.dat", []byte{})
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		parsed := parseName(name)
		if parsed.role == roleForeign {
			if parsed.base != "" && parsed.container != containerUnknown {
				t.Fatalf("%q is foreign and %+v", name, parsed)
			}
		} else if !strings.HasPrefix(name, parsed.base) || len(parsed.base) >= len(name) || parsed.nativeMachineID() == "" {
			t.Fatalf("%q has base %q and machine %q", name, parsed.base, parsed.nativeMachineID())
		}
		if (parsed.vmid == "") != (parsed.stamp == "") {
			t.Fatalf("%q: VMID %q, time %q", name, parsed.vmid, parsed.stamp)
		}
		if _, ok := parsed.time(); ok != (parsed.stamp != "") {
			t.Fatalf("%q: time %q is none", name, parsed.stamp)
		}
		if temporary, ok := parseTemporary(name); ok && temporary.nativeMachineID() == "" {
			t.Fatalf("%q is a folder of no machine", name)
		}
		config := parseConfig(text)
		if config.uuid != "" && !uuidPattern.MatchString(config.uuid) {
			t.Fatalf("UUID %q", config.uuid)
		}
		size := len(config.name) + len(config.uuid)
		for _, tag := range config.tags {
			size += len(tag)
			if tag == "" || strings.ContainsAny(tag, ";, ") {
				t.Fatalf("tag %q", tag)
			}
		}
		if size > 2*len(text) {
			t.Fatalf("%d bytes from %d", size, len(text))
		}
	})
}
