package virtnbdbackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// slowDiff writes the data of a differential backup on the last checkpoint, each disk begun at a time of its own, and
// the date of the streams to match. It returns what the disks hold.
func (c *chain) slowDiff(frame streamtest.Frame, begun map[string]int64) map[string][]byte {
	c.t.Helper()
	images := map[string][]byte{}
	for disk, seconds := range begun {
		file := streamtest.File{Disk: disk, Checkpoint: checkpointName(c.last + 1), Parent: checkpointName(c.last), VirtualSize: mib,
			Incremental: true, Date: localDate(seconds), Frames: []streamtest.Frame{frame}}
		c.put(fmt.Sprintf("%s.diff.%d.data", disk, seconds), string(file.Bytes()))
		images[disk] = bytes.Clone(c.now[disk])
		copy(images[disk][frame.Offset:], frame.Data)
	}
	return images
}

// localDate is the date in a stream begun at that time; the streams of the tests are a few minutes off their names.
func localDate(seconds int64) string {
	since := seconds - created
	return fmt.Sprintf("2026-11-22T%02d:%02d:%02d.5", 5+since/3600, since/60%60, since%60)
}

// behind writes what comes with a differential backup's vmconfig, each a second later.
func (c *chain) behind(seconds int64, disks ...string) {
	c.t.Helper()
	c.put(fmt.Sprintf("vmconfig.%d.xml", seconds), streamtest.Domain("tinyvm", uuid, c.disks...))
	c.put(fmt.Sprintf("vars.fd.%d", seconds+1), "vars")
	for i, disk := range disks {
		c.put(fmt.Sprintf("%s.%d.qcow.json", disk, seconds+2+int64(i)), fmt.Sprintf(`{"virtual-size": %d}`, mib))
	}
	c.put(fmt.Sprintf("autostart.%d", seconds+2+int64(len(disks))), "True")
}

// natives are the native ids of the folder's differential points, with their states.
func (c *chain) natives() map[string]source.Point {
	c.t.Helper()
	_, points, _ := scan(c.t, c.folder)
	named := map[string]source.Point{}
	for _, p := range points {
		if strings.HasPrefix(p.Origin.NativePointID, "diff@") {
			named[p.Origin.NativePointID] = p
		}
	}
	return named
}

// TestSlowDiff: each name of a differential backup has a time of its own, the vmconfig's long after the data's.
func TestSlowDiff(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	threePoints(c)
	const first, second = created + 9000, created + 12000
	one := c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(8, kib)}, map[string]int64{"vda": first, "vdb": first + 700})
	c.behind(first+1500, "vda", "vdb")
	two := c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(9, kib)}, map[string]int64{"vda": second + 2, "vdb": second})
	check := func(native string, want map[string][]byte, config int64) backup.PointID {
		t.Helper()
		p := c.natives()[native]
		opened := open(t, p)
		for disk, image := range want {
			if !bytes.Equal(content(t, diskNamed(t, opened, disk)), image) {
				t.Errorf("%s: wrong content of %s", native, disk)
			}
		}
		var names []string
		for _, object := range opened.Objects() {
			names = append(names, object.Name)
		}
		for _, name := range []string{fmt.Sprintf("vmconfig.%d.xml", config), fmt.Sprintf("vars.fd.%d", config+1), fmt.Sprintf("vda.%d.qcow.json", config+2),
			fmt.Sprintf("vdb.%d.qcow.json", config+3), fmt.Sprintf("autostart.%d", config+4)} {
			if !slices.Contains(names, name) {
				t.Errorf("%s: no %s in %q", native, name, names)
			}
		}
		if len(names) != 7 || fmt.Sprintf("diff@%d", p.Created.Unix()) != native {
			t.Errorf("%s: created %v, %d objects", native, p.Created, len(names))
		}
		return p.ID
	}
	before := check(fmt.Sprintf("diff@%d", first), one, first+1500)
	// The second is being written: its data is there, the vmconfig is not.
	points := c.natives()
	if p := points[fmt.Sprintf("diff@%d", second)]; len(points) != 2 || p.State != backup.StateLocked || !strings.Contains(p.Reason, "still running") {
		t.Errorf("%d points, the second is %s (%s)", len(points), p.State, p.Reason)
	}
	c.behind(second+60, "vda", "vdb")
	if check(fmt.Sprintf("diff@%d", first), one, first+1500) != before {
		t.Error("the first one's id changed")
	}
	check(fmt.Sprintf("diff@%d", second), two, second+60)
	if _, _, listing := scan(t, c.folder); listing.Unknown() != 0 {
		t.Errorf("%d files were not claimed", listing.Unknown())
	}
}

// TestDiffPartial: the first disk is done, the second being written.
func TestDiffPartial(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	threePoints(c)
	c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(8, kib)}, map[string]int64{"vda": created + 9000})
	c.put(fmt.Sprintf("vdb.diff.%d.data.partial", created+9700), "meta")
	points := c.natives()
	if p := points[fmt.Sprintf("diff@%d", created+9000)]; len(points) != 1 || p.State != backup.StateLocked || !strings.Contains(p.Reason, ".partial") {
		t.Errorf("%+v", points)
	}
}

// TestDiffLateFile: a file that is written behind the vmconfig has a name that cannot be foreseen to the second.
func TestDiffLateFile(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	threePoints(c)
	c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(8, kib)}, map[string]int64{"vda": created + 9000, "vdb": created + 9700})
	config := int64(created + 9900)
	c.put(fmt.Sprintf("vmconfig.%d.xml", config), streamtest.Domain("tinyvm", uuid, c.disks...))
	for _, name := range []string{fmt.Sprintf("vars.fd.%d", config), fmt.Sprintf("vdb.%d.qcow.json", config+3), fmt.Sprintf("autostart.%d", config+5)} {
		opened := open(t, c.natives()[fmt.Sprintf("diff@%d", created+9000)])
		if err := opened.Revalidate(context.Background()); err != nil {
			t.Error(err)
		}
		c.put(name, "x")
		if err := opened.Revalidate(context.Background()); !errors.Is(err, backup.ErrChanged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDiffLeftovers: data of a backup that was killed does not get into the one after it.
func TestDiffLeftovers(t *testing.T) {
	const killed, next = created + 9000, created + 12000
	frame := streamtest.Frame{Offset: 0, Data: fill(8, kib)}
	for name, prepare := range map[string]func(c *chain){
		"the same disk": func(c *chain) { c.slowDiff(frame, map[string]int64{"vda": killed}) },
		"another checkpoint": func(c *chain) {
			c.slowDiff(frame, map[string]int64{"vdb": killed})
			c.backup()
		},
		"a log in between": func(c *chain) {
			c.slowDiff(frame, map[string]int64{"vdb": killed})
			c.put("backup.diff.11222026080000.log", "") // of the next one
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, t.TempDir(), false, "vda", "vdb")
			threePoints(c)
			prepare(c)
			c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(9, kib)}, map[string]int64{"vda": next})
			c.behind(next+500, "vda")
			points := c.natives()
			left, whole := points[fmt.Sprintf("diff@%d", killed)], points[fmt.Sprintf("diff@%d", next)]
			if len(points) != 2 || left.State != backup.StateBroken || !strings.Contains(left.Reason, "later backups are there") {
				t.Errorf("%d points, left over is %s (%s)", len(points), left.State, left.Reason)
			}
			if whole.State != backup.StateLocked || !strings.Contains(whole.Reason, "disk vdb has no file in this backup yet") {
				t.Errorf("a diff without vdb is %s (%s)", whole.State, whole.Reason)
			}
		})
	}
}

// TestDiffParentsDiffer: files of one second are of one backup, and then build on the same checkpoint.
func TestDiffParentsDiffer(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	threePoints(c)
	c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(8, kib)}, map[string]int64{"vda": created + 9000})
	c.last--
	c.slowDiff(streamtest.Frame{Offset: 0, Data: fill(8, kib)}, map[string]int64{"vdb": created + 9000})
	c.behind(created+9001, "vda", "vdb")
	if p := c.points()["diff"]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "build on virtnbdbackup.2 and on virtnbdbackup.1") {
		t.Errorf("%s (%s)", p.State, p.Reason)
	}
}

// newGeneration writes a new full backup over the first of the chain, as a copy of the folder without deletion does.
func (c *chain) newGeneration(seconds int64) {
	c.t.Helper()
	for _, disk := range c.disks {
		file := streamtest.File{Disk: disk, Checkpoint: "virtnbdbackup.0", Date: localDate(seconds), VirtualSize: mib,
			Frames: []streamtest.Frame{{Offset: 0, Data: fill(77, mib)}}}
		c.put(disk+".full.data", string(file.Bytes()))
	}
	c.put("tinyvm.cpt", `["virtnbdbackup.0"]`)
	c.put("checkpoints/virtnbdbackup.0.xml", streamtest.Checkpoint("virtnbdbackup.0", seconds, c.disks, nil))
}

// TestOlderGeneration: increments of the chain before are not put onto a new full backup.
func TestOlderGeneration(t *testing.T) {
	withoutCheckpoints := func(c *chain) {
		if err := os.RemoveAll(filepath.Join(c.folder, "checkpoints")); err != nil {
			c.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change  func(c *chain)
		seconds int64
	}{
		"checkpoints tell": {func(*chain) {}, created + 20000},
		"dates tell": {func(c *chain) {
			c.put("checkpoints/virtnbdbackup.0.xml", streamtest.Checkpoint("virtnbdbackup.0", created, c.disks, nil))
		}, created + 20000},
		"no checkpoints":                 {withoutCheckpoints, created + 20000},
		"no checkpoints, a little newer": {withoutCheckpoints, created + 1200},
	} {
		t.Run(name, func(t *testing.T) {
			made := newChain(t, t.TempDir(), false, "vda")
			threePoints(made)
			made.diff(created + 9000)
			made.newGeneration(c.seconds)
			c.change(made)
			points := made.points()
			if p := points["virtnbdbackup.0"]; p.State != backup.StateComplete {
				t.Errorf("the full backup is %s (%s)", p.State, p.Reason)
			}
			for _, native := range []string{"virtnbdbackup.1", "virtnbdbackup.2", "diff"} {
				if p := points[native]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "left over from an older chain") {
					t.Errorf("%s is %s (%s)", native, p.State, p.Reason)
				}
			}
		})
	}
}

// TestNewGenerationArrives: a new chain is copied over an older one, file by file. What is there in between is no backup, whatever
// arrives first: least of all one that has the new checkpoint's time and with it the identity of the backup to come.
func TestNewGenerationArrives(t *testing.T) {
	const newer = created + 30*24*3600
	old := func() *chain {
		c := newChain(t, t.TempDir(), false, "vda", "vdb")
		c.backup(streamtest.Frame{Offset: 0, Data: fill(1, kib)})
		c.backup(streamtest.Frame{Offset: 0, Data: fill(2, kib)})
		c.put("backup.full.11222026050000.log", "old")
		return c
	}
	full := func(c *chain, disk string) {
		file := streamtest.File{Disk: disk, Checkpoint: "virtnbdbackup.0", Date: time.Unix(newer+1, 0).UTC().Format("2006-01-02T15:04:05.000001"), VirtualSize: mib,
			Frames: []streamtest.Frame{{Offset: 0, Data: fill(77, mib)}}}
		c.put(disk+".full.data", string(file.Bytes()))
	}
	log := func(c *chain) {
		c.put("backup.full."+time.Unix(newer, 0).UTC().Format("01022006150405")+".log", "new")
	}
	checkpoint := func(c *chain, name string, after int64) {
		c.put("checkpoints/"+name+".xml", streamtest.Checkpoint(name, newer+after, c.disks, nil))
	}

	c := old()
	checkpoint(c, "virtnbdbackup.0", 0)
	for native, p := range c.points() {
		if p.State != backup.StateBroken || !strings.Contains(p.Reason, "it is of an older chain") {
			t.Errorf("the checkpoint came first: %s is %s (%s)", native, p.State, p.Reason)
		}
	}
	full(c, "vda")
	for native, p := range c.points() {
		if p.State != backup.StateBroken {
			t.Errorf("one of two disks came: %s is %s (%s)", native, p.State, p.Reason)
		}
	}
	full(c, "vdb")
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateComplete {
		t.Errorf("all came: %s (%s)", p.State, p.Reason)
	}

	c = old()
	log(c)
	full(c, "vda")
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "vdb.full.data") {
		t.Errorf("the checkpoint comes last: %s (%s)", p.State, p.Reason)
	}
	full(c, "vdb")
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateComplete {
		t.Errorf("all but the checkpoint came: %s (%s)", p.State, p.Reason)
	}

	c = old()
	checkpoint(c, "virtnbdbackup.1", 3600)
	points := c.points()
	if p := points["virtnbdbackup.1"]; p.State != backup.StateBroken {
		t.Errorf("the increment's checkpoint came first: %s (%s)", p.State, p.Reason)
	}
	if p := points["virtnbdbackup.0"]; p.State != backup.StateComplete {
		t.Errorf("nothing of the new full backup came: %s (%s)", p.State, p.Reason)
	}
}

// TestClockGoesBack: without checkpoints the dates are local time, which goes back by an hour once a year.
func TestClockGoesBack(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	if err := os.RemoveAll(filepath.Join(c.folder, "checkpoints")); err != nil {
		t.Fatal(err)
	}
	c.put("vda.inc.virtnbdbackup.2.data", string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.2", Parent: "virtnbdbackup.1",
		Date: "2026-11-22T04:12:00.5", VirtualSize: mib, Incremental: true}.Bytes()))
	if p := c.points()["virtnbdbackup.2"]; p.State != backup.StateComplete {
		t.Errorf("%s (%s)", p.State, p.Reason)
	}
}

// TestClockGoesBackInFullBackup: of a machine's disks one is begun before the clock goes back and the other after it.
func TestClockGoesBackInFullBackup(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, kib)})
	full := func(disk, date string) {
		file := streamtest.File{Disk: disk, Checkpoint: "virtnbdbackup.0", Date: date, VirtualSize: mib, Frames: []streamtest.Frame{{Offset: 0, Data: fill(1, mib)}}}
		c.put(disk+".full.data", string(file.Bytes()))
	}
	full("vda", "2026-11-22T04:50:01.5")
	full("vdb", "2026-11-22T04:10:00.5")
	c.put("backup.full.11222026045000.log", "this one")
	c.put("backup.full.10222026041000.log", "of a month ago")
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateComplete {
		t.Errorf("%s (%s)", p.State, p.Reason)
	}
	c.put("backup.full.11222026041000.log", "begun again within the hour")
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "vdb.full.data") {
		t.Errorf("a chain was begun twice: %s (%s)", p.State, p.Reason)
	}
}

// countdown is a context that ends after it was asked so often.
type countdown struct {
	context.Context
	left, after int
}

func (c *countdown) Err() error {
	if c.left--; c.left >= 0 {
		return nil
	}
	c.after++
	return context.Canceled
}

// TestManyDiffs: a folder with thousands of backups is listed, and given up at once when nobody wants it any more.
func TestManyDiffs(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, kib)})
	const count = 12_000
	stream := string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.1", Parent: "virtnbdbackup.0", VirtualSize: mib, Incremental: true}.Bytes())
	config := streamtest.Domain("tinyvm", uuid, "vda")
	for i := range int64(count) {
		c.put(fmt.Sprintf("vda.diff.%d.data", created+10*i), stream)
		c.put(fmt.Sprintf("vmconfig.%d.xml", created+10*i+5), config)
	}
	root, err := source.OpenRoot(c.folder, "")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	scanWith := func(ctx context.Context) (int, error) {
		listing, err := source.List(context.Background(), root)
		if err != nil {
			t.Fatal(err)
		}
		points, err := virtnbdbackup.Format{}.Scan(ctx, listing)
		return len(points), err
	}
	ctx := &countdown{Context: context.Background(), left: 1 << 30}
	if found, err := scanWith(ctx); found != count+1 || err != nil {
		t.Fatalf("%d points, %v", found, err)
	}
	asked := 1<<30 - ctx.left
	if asked < 3*count {
		t.Errorf("the context was asked %d times for %d files and %d points", asked, 2*count, count)
	}
	for _, left := range []int{0, count, asked - count/2} {
		ctx := &countdown{Context: context.Background(), left: left}
		if _, err := scanWith(ctx); !errors.Is(err, context.Canceled) || ctx.after > 2 {
			t.Errorf("ended after %d questions: %v, asked %d times more", left, err, ctx.after)
		}
	}
}
