package virtnbdbackup_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// TestCopy: copies have no checkpoint; raw disks are plain images; firmware keeps its name.
func TestCopy(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb", "vdc")
	stream := streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.0", VirtualSize: mib, Frames: []streamtest.Frame{{Offset: 512, Data: fill(1, kib)}}}
	c.put("vda.copy.data", string(stream.Bytes()))
	c.put("vda.copy.qcow.json", `{"virtual-size": 1048576}`)
	raw := fill(7, 3*kib)
	c.put("vdb.copy.data", string(raw))
	c.put("vars.fd", "vars")
	c.put("unrelated.txt", "x")
	c.put("vmconfig.copy.xml", streamtest.Domain("tinyvm", uuid, c.disks...))
	_, points, listing := scan(t, c.folder)
	if len(points) != 1 || listing.Unknown() != 1 {
		t.Fatalf("%d points, %d unknown files", len(points), listing.Unknown())
	}
	opened := open(t, points[0])
	if got := content(t, diskNamed(t, opened, "vda")); !bytes.Equal(got[512:512+kib], fill(1, kib)) || len(got) != mib {
		t.Error("vda is wrong")
	}
	disk := diskNamed(t, opened, "vdb")
	if !bytes.Equal(content(t, disk), raw) {
		t.Error("vdb is wrong")
	}
	if extents := extentsOf(t, disk, nil); len(extents) != 1 || extents[0].Kind != backup.ExtentData {
		t.Errorf("vdb: %v", extents)
	}
	found := false
	for _, object := range opened.Objects() {
		if object.Role == backup.RoleFirmware && object.Name == "vars.fd" && string(object.Inline) == "vars" {
			found = true
		}
	}
	if !found {
		t.Errorf("no NVRAM in %+v", opened.Objects())
	}
	c.put("vdb.copy.qcow.json", `{"virtual-size": 4096}`)
	if p := c.points()["copy"]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "3072 bytes of a disk of 4096") {
		t.Errorf("a short image is %s: %s", p.State, p.Reason)
	}
}

// TestRawInFull: raw disks are only in the full backup they were asked for in, not in its increments.
func TestRawInFull(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	c.put("vdz.copy.data", string(fill(9, kib)))
	for n := range 3 {
		xml := strings.Replace(streamtest.Domain("tinyvm", uuid, "vda", "vdz"), "type='qcow2'/><target dev='vdz'", "type='raw'/><target dev='vdz'", 1)
		c.put("vmconfig."+checkpointName(n)+".xml", xml)
	}
	for name, want := range map[string]int{"virtnbdbackup.0": 2, "virtnbdbackup.1": 1, "virtnbdbackup.2": 1} {
		disks := 0
		for _, object := range open(t, c.points()[name]).Objects() {
			if object.Role == backup.RoleDisk {
				disks++
			}
		}
		if disks != want {
			t.Errorf("%s has %d disks, not %d", name, disks, want)
		}
	}
}

// TestExtras: what lies beside the data goes with the point it belongs to.
func TestExtras(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	large := string(fill(5, 100*kib))
	c.put("code.fd.virtnbdbackup.1", large)
	c.put("vars.fd.virtnbdbackup.1", "vars")
	c.put("autostart.virtnbdbackup.1", "True")
	c.put("vda.full.data.chksum", "1234")
	c.put("backup.full.11222026050000.log", "full")
	c.put("backup.inc.11222026050130.log", "one")
	c.put("backup.inc.11222026050230.log", "two")
	c.put("backup.inc.11222026080000.log", "failed later")
	_, points, listing := scan(t, c.folder)
	if listing.Unknown() != 0 {
		t.Errorf("%d files were not claimed", listing.Unknown())
	}
	opened := open(t, points[1])
	got := map[string]string{}
	for i, object := range opened.Objects() {
		text := string(object.Inline)
		if object.Access == source.AccessRandom && object.Role != backup.RoleDisk {
			disk, err := opened.Disk(i)
			if err != nil {
				t.Fatal(err)
			}
			text = string(content(t, disk))
			extentsOf(t, disk, &backup.Base{ID: points[0].ID, Validator: open(t, points[0]).Validator()})
		}
		got[string(object.Role)+" "+object.Name] = text
		if object.Role != backup.RoleDisk && object.Size != int64(len(text)) {
			t.Errorf("%s: %d bytes, announced %d", object.Name, len(text), object.Size)
		}
	}
	for name, want := range map[string]string{
		"firmware code.fd.virtnbdbackup.1": large, "firmware vars.fd.virtnbdbackup.1": "vars", "configuration autostart.virtnbdbackup.1": "True",
		"log backup.inc.11222026050130.log": "one",
	} {
		if got[name] != want {
			t.Errorf("%s: %.20q", name, got[name])
		}
	}
	for _, name := range []string{"configuration vmconfig.virtnbdbackup.1.xml", "configuration virtnbdbackup.1.xml", "configuration vda.virtnbdbackup.1.qcow.json", "disk vda"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s in %v", name, len(got))
		}
	}
	if len(got) != 8 {
		t.Errorf("%d objects", len(got))
	}
}

// TestHostileNames: newlines, bytes that are no UTF-8, and names that look like others.
func TestHostileNames(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, kib)})
	for _, name := range []string{"a\nb.full.data", "\xff\xfe.full.data", ".full.data", "x.full.data.full.data", "vmconfig.\n.xml", "vda.inc.virtnbdbackup.99999999999.data",
		"vda.diff.0.data.partial", "\n.virtnbdbackup.0", "backup.full.99999999999999.log", "%2e.copy.data"} {
		c.put(name, "meta 0000000000000000 x")
	}
	for _, p := range c.points() {
		if strings.Contains(p.Reason, "\n") || strings.Contains(p.Reason, "\xff") {
			t.Errorf("reason %q", p.Reason)
		}
		if strings.HasPrefix(p.Origin.NativePointID, "virtnbdbackup.0@") {
			if p.State != backup.StateComplete {
				t.Errorf("%s: %s", p.State, p.Reason)
			}
			if !json.Valid(open(t, p).Validator()) {
				t.Error("the validator is not JSON")
			}
		}
	}
}

// TestForeignFolder: names like ours alone make nobody's files ours.
func TestForeignFolder(t *testing.T) {
	c := newChain(t, t.TempDir(), false)
	c.put("vda.full.data", "something else")
	c.put("backup.full.11222026050000.log", "x")
	c.put("list.cpt", `["a", "b"]`)
	c.put("vmconfig.copy.xml", "<network/>")
	_, points, listing := scan(t, c.folder)
	if len(points) != 0 || listing.Unknown() != 4 {
		t.Errorf("%d points, %d unknown", len(points), listing.Unknown())
	}
}

// TestRevalidate: changes, losses and late files are noticed.
func TestRevalidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(c *chain)
		want   error
	}{
		"appended": {func(c *chain) { c.put("vda.full.data", "other") }, backup.ErrChanged},
		"gone":     {func(c *chain) { c.remove("vda.inc.virtnbdbackup.1.data") }, backup.ErrVanished},
		"late":     {func(c *chain) { c.put("vars.fd.virtnbdbackup.2", "x") }, backup.ErrChanged},
		"nothing":  {func(*chain) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			made := newChain(t, t.TempDir(), false, "vda")
			threePoints(made)
			p := made.points()["virtnbdbackup.2"]
			opened := open(t, p)
			c.change(made)
			if err := opened.Revalidate(context.Background()); !errors.Is(err, c.want) {
				t.Errorf("%v, not %v", err, c.want)
			}
			if name != "nothing" && name != "late" {
				if _, err := p.Opener.Open(context.Background()); !errors.Is(err, c.want) {
					t.Errorf("opening: %v, not %v", err, c.want)
				}
				disk := diskNamed(t, opened, "vda")
				if _, err := disk.ReadAt(make([]byte, mib), 0); !errors.Is(err, c.want) {
					t.Errorf("reading: %v, not %v", err, c.want)
				}
			}
		})
	}
}

// TestFoundWhileReading: what a scan cannot see shows, with file and offset, when the file is needed.
func TestFoundWhileReading(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	var frames []streamtest.Frame
	for i := range int64(100) {
		frames = append(frames, streamtest.Frame{Offset: i * 8 * kib, Data: fill(byte(i), 8*kib-512)})
	}
	c.backup(frames...)
	path := filepath.Join(c.folder, "vda.full.data")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c.put("vda.full.data", string(bytes.Replace(b, streamtest.Header("data", 90*8*kib, 8*kib-512), streamtest.Header("data", 80*8*kib, 8*kib-512), 1)))
	opened := open(t, c.points()["virtnbdbackup.0"])
	for range 2 {
		for _, err := range diskNamed(t, opened, "vda").Extents(context.Background(), nil) {
			if !errors.Is(err, backup.ErrBroken) || !strings.Contains(err.Error(), "vda.full.data, offset") {
				t.Errorf("%v", err)
			}
		}
	}
	opened.Close()
	if _, err := opened.Disk(0); err == nil {
		t.Error("a closed point gives disks")
	}
}

// TestZIP: the stream form is named, other ZIP files are not claimed.
func TestZIP(t *testing.T) {
	c := newChain(t, t.TempDir(), false)
	pack := func(name string, members map[string]string) {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		for member, text := range members {
			f, err := w.CreateHeader(&zip.FileHeader{Name: member, Method: zip.Store})
			if err == nil {
				_, err = f.Write([]byte(text))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c.put(name, out.String())
	}
	pack("copy.zip", map[string]string{"vda.copy.data": strings.Repeat("x", 2*mib), "vmconfig.copy.xml": streamtest.Domain("tinyvm", uuid, "vda")})
	pack("other.zip", map[string]string{"readme": "x"})
	pack("almost.zip", map[string]string{"vmconfig.copy.xml": "x"})
	c.put("junk.zip", "PK")
	root, points, listing := scan(t, c.folder)
	if len(points) != 1 || points[0].State != backup.StateUnsupported || points[0].Machine.Name != "tinyvm" || listing.Unknown() != 3 {
		t.Errorf("%+v, %d unknown", points, listing.Unknown())
	}
	if root.BytesRead() > mib {
		t.Errorf("%d bytes read", root.BytesRead())
	}
}
