package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

func expect(t *testing.T, s scanned, want string) {
	t.Helper()
	if got := s.summary(t); got != want {
		t.Errorf("points:\n%s\nnot:\n%s", got, want)
		for _, p := range s.points {
			t.Logf("%s: %s", p.Machine.Key, p.Reason)
		}
	}
}

func TestTemplateAndFolders(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"vm1", "vm2", "site/vm3", "isos"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	create(t, dir, "golden.qcow2", "", "1M", "write -P 1 0 64k")
	create(t, dir, "a.qcow2", "golden.qcow2", "1M", "write -P 2 64k 64k")
	create(t, dir, "a.snap1", "a.qcow2", "1M", "write -P 3 128k 64k")
	create(t, dir, "b.qcow2", "golden.qcow2", "1M")
	// What a template stands on is a template's part, no machine.
	create(t, dir, "x0.qcow2", "", "1M")
	create(t, dir, "x1.qcow2", "x0.qcow2", "1M")
	create(t, dir, "x2.qcow2", "x1.qcow2", "1M")
	create(t, dir, "x3.qcow2", "x1.qcow2", "1M")
	// A folder is a machine: two chains of two files are two points.
	create(t, dir, "vm1/sys.qcow2", "../golden.qcow2", "1M")
	create(t, dir, "vm1/sys-2.qcow2", "sys.qcow2", "1M", "write -P 4 0 64k")
	create(t, dir, "vm1/data.qcow2", "", "2M", "write -P 5 0 64k")
	create(t, dir, "vm1/data-2.qcow2", "data.qcow2", "2M")
	// Chains of different lengths: only the newest states belong together for certain.
	create(t, dir, "vm2/disk0.qcow2", "", "1M")
	create(t, dir, "vm2/disk0-2.qcow2", filepath.Join(dir, "vm2", "disk0.qcow2"), "1M")
	writeFile(t, dir, "vm2/disk1.raw", bytes.Repeat([]byte{6}, 1000))
	writeFile(t, dir, "vm2/vm2.xml", []byte("<domain/>"))
	writeFile(t, dir, "vm2/vm2.nvram", bytes.Repeat([]byte{7}, 100<<10))
	writeFile(t, dir, "vm2/big.xml", make([]byte, 70<<10))
	writeFile(t, dir, "site/vm3/disk.img", []byte("x"))
	writeFile(t, dir, "site/vm3/disk.raw", []byte("y"))
	writeFile(t, dir, "isos/debian.iso", []byte("z"))
	s := scanDir(t, dir)
	expect(t, s, `a.qcow2 complete a
a.qcow2 complete a
b.qcow2 complete b
site%2Fvm3%2F complete disk.img,disk.raw
vm1%2F complete data,sys
vm1%2F complete data,sys
vm2%2F complete disk0,disk1,vm2.nvram,vm2.xml
x2.qcow2 complete x2
x3.qcow2 complete x3`)
	if unknown := s.listing.Unknown(); unknown != 2 {
		t.Errorf("%d unknown files, not big.xml and debian.iso", unknown)
	}
	newest := opened(t, s.of(t, "vm1", 2)[1])
	if n := len(newest.Ancestors()); n != 1 {
		t.Errorf("%d ancestors", n)
	}
	older := opened(t, s.of(t, "vm1", 2)[0])
	for k := range 2 {
		before, _ := readDisk(t, disk(t, older, k), nil, nil)
		_, kinds := readDisk(t, disk(t, newest, k), &backup.Base{Validator: older.Validator()}, before)
		if want := int64(k) * 65536; kinds[backup.ExtentData] != want || kinds[backup.ExtentZero] != 0 {
			t.Errorf("disk %d: %v", k, kinds)
		}
	}
	content := opened(t, s.of(t, "vm2", 1)[0])
	objects := content.Objects()
	if len(objects) != 4 || objects[2].Role != backup.RoleFirmware || objects[2].Size != 100<<10 ||
		objects[3].Role != backup.RoleConfiguration || string(objects[3].Inline) != "<domain/>" || objects[3].Access != source.AccessInline {
		t.Errorf("objects %+v", objects)
	}
	if got, _ := readDisk(t, disk(t, content, 1), nil, nil); !bytes.Equal(got, bytes.Repeat([]byte{6}, 1000)) {
		t.Error("the raw disk is not as it was written")
	}
	if got, _ := readDisk(t, disk(t, content, 2), nil, nil); len(got) != 100<<10 || got[0] != 7 {
		t.Error("the firmware is not as it was written")
	}
	if _, err := content.Disk(3); err == nil {
		t.Error("an inline object is a disk")
	}
}

func TestBackingNamesStayInside(t *testing.T) {
	outside := t.TempDir()
	writeFile(t, outside, "secret.raw", []byte("secret"))
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(outside, "secret.raw"), filepath.Join(dir, "link.raw")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.raw"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.raw"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ backing, state, reason string }{
		"up":       {"../secret.raw", "broken", "outside the source"},
		"far":      {"x/../../../../etc/passwd.raw", "broken", "outside the source"},
		"absolute": {filepath.Join(outside, "secret.raw"), "broken", "outside the source"},
		"prefix":   {dir + "-2/secret.raw", "broken", "outside the source"},
		"root":     {dir + "/../" + filepath.Base(outside) + "/secret.raw", "broken", "outside the source"},
		"symlink":  {"link.raw", "broken", "escapes"},
		"missing":  {"nowhere\n.raw", "broken", "nowhere%0A.raw: it is missing"},
		"json":     {`json:{"driver":"raw"}.raw`, "unsupported", "JSON"},
		"nbd":      {"nbd://host/x.raw", "unsupported", "does not name a file"},
		"folder":   {"folder.raw", "broken", "not a regular file"},
		"pipe":     {"pipe.raw", "broken", "not a regular file"},
	}
	for name, c := range cases {
		create(t, dir, name+".qcow2", "", "1M")
		setBacking(t, filepath.Join(dir, name+".qcow2"), c.backing)
	}
	s := scanDir(t, dir)
	for name, c := range cases {
		p := s.of(t, name, 1)[0]
		if string(p.State) != c.state || !strings.Contains(p.Reason, c.reason) {
			t.Errorf("%s: %s: %s", name, p.State, p.Reason)
		}
	}
	if n := s.root.BytesRead(); n > int64(len(cases))*(source.ScanLimit/2) {
		t.Errorf("%d bytes read", n)
	}
}

// setBacking writes a backing file's name and the format raw into a header, whatever the name.
func setBacking(t *testing.T, where, name string) {
	t.Helper()
	content, err := os.ReadFile(where)
	if err != nil {
		t.Fatal(err)
	}
	copy(content[104:], make([]byte, 600))
	copy(content[112:], []byte{0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 3, 'r', 'a', 'w'})
	content[103] = 112
	content[14], content[15] = 1, 0
	content[18], content[19] = byte(len(name)>>8), byte(len(name))
	copy(content[256:], name)
	if err := os.WriteFile(where, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCirclesAndDepth(t *testing.T) {
	dir := t.TempDir()
	for _, pair := range [][2]string{{"a", "b.qcow2"}, {"b", "c.qcow2"}, {"c", "a.qcow2"}, {"over", "a.qcow2"}, {"self", "./self.qcow2"}} {
		create(t, dir, pair[0]+".qcow2", pair[1], "1M")
	}
	s := scanDir(t, dir)
	expect(t, s, "a.qcow2 broken a\na.qcow2 broken a\nb.qcow2 broken b\nc.qcow2 broken c\nself.qcow2 broken self")
	for _, p := range s.points {
		if !strings.Contains(p.Reason, "circle") {
			t.Errorf("reason %q", p.Reason)
		}
	}
	dir = t.TempDir()
	create(t, dir, "000.qcow2", "", "1M", "write -P 1 0 64k")
	create(t, dir, "001.qcow2", "000.qcow2", "1M")
	template, err := os.ReadFile(filepath.Join(dir, "001.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	for k := 2; k < 260; k++ {
		writeFile(t, dir, fmt.Sprintf("%03d.qcow2", k), bytes.Replace(template, []byte("000.qcow2"), []byte(fmt.Sprintf("%03d.qcow2", k-1)), 1))
	}
	chain := scanDir(t, dir).of(t, "000", 260)
	for k, p := range chain {
		if (p.State == backup.StateComplete) != (k < maxDepth) {
			t.Errorf("point %d is %s", k, p.State)
		}
	}
	deep := opened(t, chain[maxDepth-1])
	got, kinds := readDisk(t, disk(t, deep, 0), nil, nil)
	if got[100] != 1 || kinds[backup.ExtentData] != 64<<10 || len(deep.Ancestors()) != maxDepth-1 || len(deep.Validator()) == 0 {
		t.Errorf("deep chain: %v", kinds)
	}
}

func TestRawFiles(t *testing.T) {
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse.raw")
	writeFile(t, dir, "sparse.raw", bytes.Repeat([]byte{1}, 4096))
	f, err := os.OpenFile(sparse, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), 8<<20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	tool(t, dir, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", "fixed.img", "1M")
	tool(t, dir, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed", "fixed2.raw", "1M")
	writeFile(t, dir, "empty.raw", nil)
	writeFile(t, dir, "text.bin", []byte("no image"))
	writeFile(t, dir, "not.qcow2", []byte("no image"))
	create(t, dir, "really.img", "", "1M")
	// A guest that writes a qcow2 header to its first sector does not change what a file named .raw is.
	inner, err := os.ReadFile(filepath.Join(dir, "really.img"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "guest.raw", inner)
	writeFile(t, dir, "bad\n\xff name.raw", []byte("abc"))
	create(t, dir, "liar.qcow2", "really.img", "1M")
	setBacking(t, filepath.Join(dir, "liar.qcow2"), "really.img")
	s := scanDir(t, dir)
	expect(t, s, `bad%0A%FF%20name.raw complete bad%0A%FF name
empty.raw broken empty
fixed.img unsupported fixed
fixed2.raw unsupported fixed2
guest.raw complete guest
not.qcow2 broken not
really.img complete really
really.img broken really
sparse.raw complete sparse`)
	if reason := s.of(t, "fixed", 1)[0].Reason; !strings.Contains(reason, "fixed VHD image") {
		t.Errorf("reason %q", reason)
	}
	_, kinds := readDisk(t, disk(t, opened(t, s.of(t, "sparse", 1)[0]), 0), nil, nil)
	if kinds[backup.ExtentZero] < 7<<20 {
		t.Errorf("the hole is not seen: %v", kinds)
	}
	if got, _ := readDisk(t, disk(t, opened(t, s.of(t, "guest", 1)[0]), 0), nil, nil); !bytes.Equal(got, inner) {
		t.Error("guest.raw is not its own bytes")
	}
}

func TestSnapshotsArePoints(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, "base.qcow2", "", "1M", "write -P 1 0 64k")
	create(t, dir, "vm.qcow2", "base.qcow2", "1M", "write -P 2 64k 64k")
	tool(t, dir, "qemu-img", "snapshot", "-c", "before", "vm.qcow2")
	write(t, dir, "vm.qcow2", "write -P 3 0 64k")
	tool(t, dir, "qemu-img", "snapshot", "-c", "after", "vm.qcow2")
	write(t, dir, "vm.qcow2", "write -P 4 128k 64k")
	first := scanDir(t, dir)
	points := first.of(t, "base", 4)
	for k, want := range []byte{1, 1, 3, 3} {
		content := opened(t, points[k])
		got, _ := readDisk(t, disk(t, content, 0), nil, nil)
		if got[0] != want || (got[128<<10] == 4) != (k == 3) {
			t.Errorf("point %d begins with %d", k, got[0])
		}
		if n := len(content.Ancestors()); n != min(k, 1) {
			t.Errorf("point %d has %d ancestors", k, n)
		}
	}
	base := opened(t, points[0])
	before, _ := readDisk(t, disk(t, base, 0), nil, nil)
	_, kinds := readDisk(t, disk(t, opened(t, points[1]), 0), &backup.Base{Validator: base.Validator()}, before)
	if kinds[backup.ExtentData] != 64<<10 || kinds[backup.ExtentUnchanged] != 960<<10 {
		t.Errorf("snapshot over base: %v", kinds)
	}
	// A snapshot proves nothing about the active state, and keeps its id when that goes on.
	_, kinds = readDisk(t, disk(t, opened(t, points[3]), 0), &backup.Base{Validator: opened(t, points[2]).Validator()}, nil)
	if kinds[backup.ExtentUnchanged] != 0 {
		t.Errorf("active over snapshot: %v", kinds)
	}
	write(t, dir, "vm.qcow2", "write -P 5 192k 64k")
	again := scanDir(t, dir).of(t, "base", 4)
	if again[1].ID != points[1].ID || again[2].ID != points[2].ID || again[3].ID == points[3].ID || again[0].ID != points[0].ID {
		t.Error("ids after a write: the active state's changes, no other")
	}
}

// What two disks have under a name belongs together, unless one of them has two things under it.
func TestSnapshotsOfSeveralDisks(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "vm/README.md", nil)
	for _, name := range []string{"vm/a.qcow2", "vm/b.qcow2"} {
		create(t, dir, name, "", "1M")
		for _, snapshot := range []string{"once", "twice"} {
			tool(t, dir, "qemu-img", "snapshot", "-c", snapshot, name)
		}
	}
	tool(t, dir, "qemu-img", "snapshot", "-c", "twice", "vm/b.qcow2")
	tool(t, dir, "qemu-img", "snapshot", "-c", "alone", "vm/b.qcow2")
	points := scanDir(t, dir).of(t, "vm", 2)
	if native := points[0].Origin.NativePointID; strings.Count(native, ";once;") != 2 || strings.Contains(native, "twice") {
		t.Errorf("the first point is %s", native)
	}
}

func TestTimesFollowTheChain(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, "base.qcow2", "", "1M")
	create(t, dir, "top.qcow2", "base.qcow2", "1M")
	now := time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)
	for name, at := range map[string]time.Time{"base.qcow2": now, "top.qcow2": now.Add(-time.Hour)} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	s := scanDir(t, dir)
	points := s.of(t, "base", 2)
	if !points[0].Created.Equal(now) || !points[1].Created.Equal(now.Add(1)) || points[0].Zone != "UTC" {
		t.Errorf("created %v, %v", points[0].Created, points[1].Created)
	}
	if points[0].Origin.NativePointID != "base.qcow2;196616;1777636800123456789" {
		t.Errorf("native id %s", points[0].Origin.NativePointID)
	}
}
