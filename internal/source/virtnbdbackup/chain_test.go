package virtnbdbackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

const (
	kib, mib = 1 << 10, 1 << 20
	uuid     = "3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f"
	// created is when the full backup's checkpoint was made; each increment comes an hour after the one before.
	created = 1795322413
)

// chain writes a folder of backups of one machine, and keeps what the disks hold in each.
type chain struct {
	t      *testing.T
	folder string
	disks  []string
	sizes  map[string]int64
	// images are the disks' contents after each backup, by ident and disk.
	images     map[string]map[string][]byte
	now        map[string][]byte
	compressed bool
	last       int
}

func newChain(t *testing.T, folder string, compressed bool, disks ...string) *chain {
	c := &chain{t: t, folder: folder, disks: disks, sizes: map[string]int64{}, images: map[string]map[string][]byte{},
		now: map[string][]byte{}, compressed: compressed, last: -1}
	for _, disk := range disks {
		c.sizes[disk] = mib
	}
	if err := os.MkdirAll(filepath.Join(folder, "checkpoints"), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *chain) put(name, content string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.folder, name), []byte(content), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chain) remove(name string) {
	c.t.Helper()
	if err := os.Remove(filepath.Join(c.folder, name)); err != nil {
		c.t.Fatal(err)
	}
}

func checkpointName(n int) string { return fmt.Sprintf("virtnbdbackup.%d", n) }

// frames are the frames of a disk's file, drawn on the disk's content.
func (c *chain) frames(disk string, frames []streamtest.Frame) []streamtest.Frame {
	image := make([]byte, c.sizes[disk])
	copy(image, c.now[disk])
	for _, frame := range frames {
		copy(image[frame.Offset:], frame.Data)
		clear(image[frame.Offset:][:frame.Zero])
	}
	c.now[disk] = image
	return frames
}

// backup makes the next full or incremental backup; frames are those of every disk.
func (c *chain) backup(frames ...streamtest.Frame) string {
	c.t.Helper()
	c.last++
	ident := checkpointName(c.last)
	middle := ".full"
	if c.last > 0 {
		middle = ".inc." + ident
	}
	c.write(ident, middle, ident, c.last > 0, frames)
	var listed []string
	for n := range c.last + 1 {
		listed = append(listed, fmt.Sprintf("%q", checkpointName(n)))
	}
	c.put("tinyvm.cpt", "["+strings.Join(listed, ", ")+"]")
	c.put("checkpoints/"+ident+".xml", streamtest.Checkpoint(ident, created+int64(c.last)*3600, c.disks, []string{"hdc"}))
	return ident
}

// diff makes a differential backup on the last checkpoint. It leaves the content as it was.
func (c *chain) diff(seconds int64, frames ...streamtest.Frame) string {
	c.t.Helper()
	before := c.now
	c.now = map[string][]byte{}
	for disk, image := range before {
		c.now[disk] = image
	}
	ident := fmt.Sprint(seconds)
	c.write(ident, ".diff."+ident, checkpointName(c.last+1), true, frames)
	c.now = before
	return ident
}

func (c *chain) write(ident, middle, checkpoint string, incremental bool, frames []streamtest.Frame) {
	c.t.Helper()
	c.images[ident] = map[string][]byte{}
	for _, disk := range c.disks {
		file := streamtest.File{Disk: disk, Checkpoint: checkpoint, Date: fmt.Sprintf("2026-11-22T05:%02d:%02d.000001", len(c.images), len(disk)),
			VirtualSize: c.sizes[disk], Incremental: incremental, Compressed: c.compressed, PartSize: 40_000, Frames: c.frames(disk, frames)}
		if incremental {
			file.Parent = checkpointName(c.last)
			if checkpoint == checkpointName(c.last) && !strings.HasPrefix(middle, ".inc."+checkpointName(0)) {
				file.Parent = checkpointName(c.last - 1)
			}
		}
		c.put(disk+middle+".data", string(file.Bytes()))
		c.put(disk+"."+ident+".qcow.json", fmt.Sprintf(`{"virtual-size": %d}`, file.VirtualSize))
		c.images[ident][disk] = c.now[disk]
	}
	c.put("vmconfig."+ident+".xml", streamtest.Domain("tinyvm", uuid, c.disks...))
}

// points scans the chain's folder and returns the points by what is before the "@" of their native ids.
func (c *chain) points() map[string]source.Point {
	c.t.Helper()
	_, points, _ := scan(c.t, c.folder)
	named := map[string]source.Point{}
	for _, p := range points {
		name, _, _ := strings.Cut(p.Origin.NativePointID, "@")
		named[name] = p
	}
	return named
}

func content(t *testing.T, disk source.Disk) []byte {
	t.Helper()
	b := make([]byte, disk.Size())
	if n, err := disk.ReadAt(b, 0); n != len(b) || (err != nil && err != io.EOF) {
		t.Fatal(err)
	}
	return b
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// threePoints makes a full backup and two increments, with zeros, gaps and overwritten ranges.
func threePoints(c *chain) {
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, 100*kib)}, streamtest.Frame{Offset: 100 * kib, Zero: 412 * kib}, streamtest.Frame{Offset: 512 * kib, Data: fill(2, 200*kib)})
	c.backup(streamtest.Frame{Offset: 64 * kib, Data: fill(3, 64*kib)}, streamtest.Frame{Offset: 1000 * kib, Data: fill(4, 24*kib)})
	c.backup(streamtest.Frame{Offset: 60 * kib, Data: make([]byte, 10*kib)}, streamtest.Frame{Offset: 600 * kib, Data: fill(5, 200*kib)})
}

func TestChainContent(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		c := newChain(t, t.TempDir(), compressed, "vda", "vdb")
		threePoints(c)
		c.diff(created+9000, streamtest.Frame{Offset: 0, Data: fill(9, kib)})
		points := c.points()
		if len(points) != 4 {
			t.Fatalf("%d points", len(points))
		}
		for name, p := range points {
			ident := name
			if name == "diff" {
				ident = fmt.Sprint(created + 9000)
			}
			opened := open(t, p)
			for _, disk := range c.disks {
				if !bytes.Equal(content(t, diskNamed(t, opened, disk)), c.images[ident][disk]) {
					t.Errorf("compressed %v, %s %s: wrong content", compressed, name, disk)
				}
			}
		}
		if p := points["virtnbdbackup.1"]; !p.Created.Equal(time.Unix(created+3600, 0)) || p.Zone != "UTC" {
			t.Errorf("created %v, zone %s", p.Created, p.Zone)
		}
		ancestors := open(t, points["diff"]).Ancestors()
		want := []backup.PointID{points["virtnbdbackup.2"].ID, points["virtnbdbackup.1"].ID, points["virtnbdbackup.0"].ID}
		if !slices.Equal(ancestors, want) {
			t.Errorf("ancestors of the differential backup: %v", ancestors)
		}
		if got := open(t, points["virtnbdbackup.0"]).Ancestors(); len(got) != 0 {
			t.Errorf("ancestors of the full backup: %v", got)
		}
	}
}

// TestReadAtEdges reads as io.ReaderAt must.
func TestReadAtEdges(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	disk := diskNamed(t, open(t, c.points()["virtnbdbackup.2"]), "vda")
	p := make([]byte, 100)
	if n, err := disk.ReadAt(p, mib-40); n != 40 || err != io.EOF || !bytes.Equal(p[:n], fill(4, 40)) {
		t.Errorf("across the end: %d %v", n, err)
	}
	if n, err := disk.ReadAt(p, mib); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d %v", n, err)
	}
	if _, err := disk.ReadAt(p, -1); err == nil || err == io.EOF {
		t.Errorf("before the start: %v", err)
	}
}

// TestResized: a disk that shrank and grew again does not show what it lost; one that grew is zero behind.
func TestResized(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, mib)})
	c.sizes["vda"] = 512*kib + 512
	c.now["vda"] = c.now["vda"][:c.sizes["vda"]]
	shrunk := c.backup(streamtest.Frame{Offset: 0, Data: fill(2, 512)})
	c.sizes["vda"] = 2 * mib
	grown := c.backup(streamtest.Frame{Offset: 2*mib - 512, Data: fill(3, 512)})
	points := c.points()
	for _, ident := range []string{"virtnbdbackup.0", shrunk, grown} {
		if !bytes.Equal(content(t, diskNamed(t, open(t, points[ident]), "vda")), c.images[ident]["vda"]) {
			t.Errorf("%s: wrong content", ident)
		}
	}
	base := &backup.Base{ID: points["virtnbdbackup.0"].ID, Validator: open(t, points["virtnbdbackup.0"]).Validator()}
	want := []backup.Extent{
		{Offset: 0, Length: 512, Kind: backup.ExtentData}, {Offset: 512, Length: 512 * kib, Kind: backup.ExtentUnchanged},
		{Offset: 512*kib + 512, Length: 2*mib - 512*kib - 1024, Kind: backup.ExtentZero}, {Offset: 2*mib - 512, Length: 512, Kind: backup.ExtentData},
	}
	if got := extentsOf(t, diskNamed(t, open(t, points[grown]), "vda"), base); !slices.Equal(got, want) {
		t.Errorf("grown: %v", got)
	}
	// The shrunk point as the base: what it did not have is not unchanged.
	base = &backup.Base{ID: points[shrunk].ID, Validator: open(t, points[shrunk]).Validator()}
	want = []backup.Extent{
		{Offset: 0, Length: 512*kib + 512, Kind: backup.ExtentUnchanged},
		{Offset: 512*kib + 512, Length: 2*mib - 512*kib - 1024, Kind: backup.ExtentZero}, {Offset: 2*mib - 512, Length: 512, Kind: backup.ExtentData},
	}
	if got := extentsOf(t, diskNamed(t, open(t, points[grown]), "vda"), base); !slices.Equal(got, want) {
		t.Errorf("on the shrunk one: %v", got)
	}
}

// extentsOf collects a disk's extents, and checks that they cover it.
func extentsOf(t testing.TB, disk source.Disk, base *backup.Base) []backup.Extent {
	t.Helper()
	var list []backup.Extent
	at := int64(0)
	for extent, err := range disk.Extents(context.Background(), base) {
		if err != nil {
			t.Fatal(err)
		}
		if extent.Offset != at || extent.Length <= 0 {
			t.Fatalf("extent %+v behind %d", extent, at)
		}
		at = extent.End()
		list = append(list, extent)
	}
	if at != disk.Size() {
		t.Fatalf("extents up to %d of %d", at, disk.Size())
	}
	return list
}

func TestExtents(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	points := c.points()
	newest := open(t, points["virtnbdbackup.2"])
	disk := diskNamed(t, newest, "vda")
	image := c.images["virtnbdbackup.2"]["vda"]
	for _, extent := range extentsOf(t, disk, nil) {
		if extent.Kind == backup.ExtentUnchanged {
			t.Errorf("unchanged without a base: %+v", extent)
		}
		if extent.Kind == backup.ExtentZero && !bytes.Equal(image[extent.Offset:extent.End()], make([]byte, extent.Length)) {
			t.Errorf("not zeros: %+v", extent)
		}
	}
	for _, name := range []string{"virtnbdbackup.0", "virtnbdbackup.1"} {
		base := &backup.Base{ID: points[name].ID, Validator: open(t, points[name]).Validator()}
		before, unchanged := c.images[name]["vda"], int64(0)
		for _, extent := range extentsOf(t, disk, base) {
			if extent.Kind == backup.ExtentUnchanged {
				unchanged += extent.Length
				if !bytes.Equal(before[extent.Offset:extent.End()], image[extent.Offset:extent.End()]) {
					t.Errorf("changed since %s: %+v", name, extent)
				}
			}
		}
		if unchanged < 500*kib {
			t.Errorf("since %s only %d bytes are unchanged", name, unchanged)
		}
	}
	for stopped := range disk.Extents(context.Background(), nil) {
		_ = stopped
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range disk.Extents(ctx, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// TestUnprovenBase: whatever is wrong with a base, nothing is unchanged.
func TestUnprovenBase(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	threePoints(c)
	c.diff(created + 9000)
	points := c.points()
	full, newest := points["virtnbdbackup.0"], points["virtnbdbackup.2"]
	good := open(t, full).Validator()
	disk := diskNamed(t, open(t, newest), "vda")
	for name, base := range map[string]backup.Base{
		"no validator":   {ID: full.ID},
		"junk":           {ID: full.ID, Validator: []byte("{")},
		"other id":       {ID: backup.PointID{1}, Validator: good},
		"own id":         {ID: newest.ID, Validator: good},
		"a diff":         {ID: points["diff"].ID, Validator: open(t, points["diff"]).Validator()},
		"other version":  {ID: full.ID, Validator: bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1)},
		"other size":     {ID: full.ID, Validator: bytes.Replace(good, []byte(`"size":1048576`), []byte(`"size":1048577`), 1)},
		"other disk":     {ID: full.ID, Validator: bytes.Replace(good, []byte(`"vda"`), []byte(`"vdc"`), 1)},
		"other head":     {ID: full.ID, Validator: bytes.Replace(good, []byte(`"head":"`), []byte(`"head":"x`), 1)},
		"no files":       {ID: full.ID, Validator: []byte(`{"version":1,"disks":[{"name":"vda","size":1048576,"files":[]}]}`)},
		"more files":     {ID: full.ID, Validator: open(t, points["diff"]).Validator()},
		"larger than it": {ID: full.ID, Validator: append(bytes.Clone(good), bytes.Repeat([]byte(" "), mib)...)},
	} {
		for _, extent := range extentsOf(t, disk, &base) {
			if extent.Kind == backup.ExtentUnchanged {
				t.Errorf("%s: %+v", name, extent)
			}
		}
	}
	again := open(t, c.points()["virtnbdbackup.0"]).Validator()
	if !bytes.Equal(good, again) {
		t.Error("the validator is not the same twice")
	}
}

// TestIncrementReadsItselfOnly: on a proven base the full backup's file is not touched.
func TestIncrementReadsItselfOnly(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, mib)})
	c.backup(streamtest.Frame{Offset: 4 * kib, Data: fill(2, 8*kib)})
	root, points, _ := scan(t, c.folder)
	base := &backup.Base{ID: points[0].ID, Validator: open(t, points[0]).Validator()}
	opened := open(t, points[1])
	before := root.BytesRead()
	disk := diskNamed(t, opened, "vda")
	for _, extent := range extentsOf(t, disk, base) {
		if extent.Kind == backup.ExtentData {
			if _, err := disk.ReadAt(make([]byte, extent.Length), extent.Offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	info, err := os.Stat(filepath.Join(c.folder, "vda.inc.virtnbdbackup.1.data"))
	if err != nil {
		t.Fatal(err)
	}
	if read := root.BytesRead() - before; read > 2*info.Size() {
		t.Errorf("%d bytes read for an increment of %d", read, info.Size())
	}
}
