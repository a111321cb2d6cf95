package image

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
)

// What comes and goes beside a machine's files does not change its id, and nothing else ever gets that id.
func TestIDsDoNotDependOnNeighbours(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "vm.raw", []byte("vm"))
	points := map[backup.MachineKey]backup.PointID{}
	look := func(neighbour string) {
		t.Helper()
		for _, p := range scanDir(t, dir).points {
			if id, known := points[p.Machine.Key]; known && id != p.ID {
				t.Errorf("with %s, %s names other content", neighbour, p.Machine.Key)
			}
			points[p.Machine.Key] = p.ID
		}
	}
	look("nothing")
	writeFile(t, dir, "vm/other.raw", []byte("other"))
	look("a folder vm")
	writeFile(t, dir, "vm.img", []byte("vm.img"))
	look("vm.img")
	if err := os.Remove(filepath.Join(dir, "vm.raw")); err != nil {
		t.Fatal(err)
	}
	look("vm.raw gone")
	writeFile(t, dir, "vm.raw/disk.raw", []byte("in a folder"))
	look("a folder vm.raw")
	if len(points) != 4 {
		t.Errorf("%d machines, not 4: %v", len(points), points)
	}
	for _, p := range scanDir(t, dir).points {
		if p.Machine.Name != "vm" && p.Machine.Name != "vm.raw" {
			t.Errorf("%s is called %s", p.Machine.Key, p.Machine.Name)
		}
	}
}

// A description that gains a second machine and loses its first does not pass the first one's id on.
// No two disks of a machine have one name.
func TestDiskNames(t *testing.T) {
	for _, names := range [][2]string{
		{"a.raw b.img c", "a,b,c"}, {"a.raw a.img b.raw", "a.img,a.raw,b"}, {"a a.raw", "a,a.raw"}, {"a.raw a.raw.img", "a,a.raw.img"},
		{"a.qcow2 a.raw a.raw.img", "a.qcow2,a.raw,a.raw.img"},
	} {
		dir := t.TempDir()
		for name := range strings.FieldsSeq(names[0]) {
			writeFile(t, dir, "vm/"+name, []byte("disk"))
			if !strings.Contains(name, ".raw") && !strings.HasSuffix(name, ".img") {
				create(t, dir, "vm/"+name, "", "1M")
			}
		}
		var found []string
		for _, object := range scanDir(t, dir).of(t, "vm", 1)[0].Objects {
			found = append(found, object.Name)
		}
		slices.Sort(found)
		if got := strings.Join(found, ","); got != names[1] {
			t.Errorf("%s: %s", names[0], got)
		}
	}
}

func TestIDsOfDescribedMachines(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "site/web.raw", []byte("web"))
	writeFile(t, dir, "site/mail.raw", []byte("mail"))
	const web, mail = "  - {name: web, chains: {vda: web.raw}}\n", "  - {name: mail, chains: {vda: mail.raw}}\n"
	for _, c := range []struct{ machines, want string }{
		{web, "site%2Fweb complete vda"}, {mail + web, "site%2Fmail complete vda\nsite%2Fweb complete vda"}, {mail, "site%2Fmail complete vda"},
	} {
		writeFile(t, dir, "site/ferry.yaml", []byte("machines:\n"+c.machines))
		expect(t, scanDir(t, dir), c.want)
	}
	// An id that is given by hand and belongs to a file already: the points of two machines do not become one's.
	writeFile(t, dir, "db.raw", []byte("db"))
	writeFile(t, dir, "site/ferry.yaml", []byte("machines:\n  - {name: web, id: db.raw, chains: {vda: web.raw}}\n"))
	s := scanDir(t, dir)
	expect(t, s, "db.raw complete vda\ndb.raw broken db")
	if reason := s.points[1].Reason; reason != "a ferry.yaml gives this machine's id to another one; choose another id there" {
		t.Errorf("reason %q", reason)
	}
}

// tick waits until the file system's clock, which is coarser than the process's, must have moved on.
func tick() { time.Sleep(30 * time.Millisecond) }

// Programs set the mtime back after writing. What they wrote is not "unchanged" then.
func TestWriteInPlaceWithOldTime(t *testing.T) {
	dir := t.TempDir()
	create(t, dir, "base.qcow2", "", "1M", "write -P 1 0 1M")
	create(t, dir, "top.qcow2", "base.qcow2", "1M", "write -P 2 0 64k")
	first := scanDir(t, dir)
	base := first.of(t, "base", 2)[0]
	validator := opened(t, base).Validator()
	proof := &backup.Base{ID: base.ID, Validator: validator}
	if _, kinds := readDisk(t, disk(t, opened(t, first.of(t, "base", 2)[1]), 0), proof, bytes.Repeat([]byte{1}, 1<<20)); kinds[backup.ExtentUnchanged] != 960<<10 {
		t.Fatalf("before the write: %v", kinds)
	}
	reading := opened(t, first.of(t, "base", 2)[1])

	tick()
	where := filepath.Join(dir, "base.qcow2")
	before, err := os.Stat(where)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(where, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("written in place"), before.Size()-4096); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Chtimes(where, before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	second := scanDir(t, dir)
	top := second.of(t, "base", 2)[1]
	if _, kinds := readDisk(t, disk(t, opened(t, top), 0), proof, nil); kinds[backup.ExtentUnchanged] != 0 {
		t.Errorf("%d bytes are unchanged, it is said", kinds[backup.ExtentUnchanged])
	}
	if err := reading.Revalidate(t.Context()); err == nil {
		t.Error("a write during the copy is not noticed")
	}
	// The time that shows it is no part of a point's id: it does not outlive a move.
	if top.ID != first.of(t, "base", 2)[1].ID {
		t.Error("the point's id depends on the change time")
	}
	if bytes.Equal(opened(t, second.of(t, "base", 2)[0]).Validator(), validator) {
		t.Error("the validator is as before")
	}
}

// Where times have whole seconds, two writes within one look the same.
func TestWholeSecondsProveNothing(t *testing.T) {
	id := source.FileIdentity{Path: "a", Size: 1, ModTime: time.Unix(100, 0), ChangeTime: time.Unix(100, 0)}
	for _, c := range []struct {
		modified, changed int64
		want              bool
	}{{0, 0, false}, {1, 0, true}, {0, 1, true}} {
		id.ModTime, id.ChangeTime = time.Unix(100, c.modified), time.Unix(100, c.changed)
		if got := recordIdentity(id).proves(recordIdentity(id)); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// All files that a point is read from are in the validator, so that nothing is put together of two of their states.
func TestValidatorKnowsFilesBeside(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "vm/disk.raw", []byte("disk"))
	writeFile(t, dir, "vm/vm.xml", []byte("<domain/>"))
	writeFile(t, dir, "vm/vm.nvram", bytes.Repeat([]byte{7}, 100<<10))
	look := func() string {
		content := opened(t, scanDir(t, dir).of(t, "vm", 1)[0])
		return string(content.Validator())
	}
	before := look()
	if again := look(); again != before || !strings.Contains(before, "vm.nvram") {
		t.Errorf("%s, then %s", before, again)
	}
	for _, name := range []string{"vm/vm.nvram", "vm/vm.xml"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		tick()
		content[0]++
		writeFile(t, dir, name, content)
		after := look()
		if after == before {
			t.Errorf("%s changed and the validator did not", name)
		}
		before = after
	}
	// It may go between listing and opening.
	points := scanDir(t, dir).of(t, "vm", 1)
	if err := os.Remove(filepath.Join(dir, "vm/vm.nvram")); err != nil {
		t.Fatal(err)
	}
	content := opened(t, points[0])
	if len(content.Objects()) != 2 || strings.Contains(string(content.Validator()), "nvram") {
		t.Errorf("%d objects, validator %s", len(content.Objects()), content.Validator())
	}
	if got, err := io.ReadAll(io.NewSectionReader(disk(t, content, 0), 0, 4)); string(got) != "disk" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
