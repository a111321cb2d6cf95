package virtnbdbackup_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/virtnbdbackup"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

// verdict is the state that a point should have, and what its reason should say.
type verdict struct {
	state backup.State
	says  string
}

// TestStates damages a chain of a full backup, two increments and a differential one.
func TestStates(t *testing.T) {
	good := verdict{state: backup.StateComplete}
	broken := func(says string) verdict { return verdict{backup.StateBroken, says} }
	locked := func(says string) verdict { return verdict{backup.StateLocked, says} }
	for name, c := range map[string]struct {
		damage                func(c *chain)
		full, inc, inc2, diff verdict
	}{
		"untouched":           {func(*chain) {}, good, good, good, good},
		"partial of the next": {func(c *chain) { c.put("vda.inc.virtnbdbackup.3.data.partial", "meta") }, good, good, good, good},
		"partial of the second": {
			func(c *chain) { c.put("vda.inc.virtnbdbackup.2.data.partial", "meta") },
			good, good, locked("vda.inc.virtnbdbackup.2.data.partial"), locked("increment virtnbdbackup.2, which it builds on, is locked"),
		},
		"no configuration": {func(c *chain) { c.remove("vmconfig.virtnbdbackup.2.xml") }, good, good, locked("still running"), good},
		"no configuration in the middle": {
			func(c *chain) { c.remove("vmconfig.virtnbdbackup.1.xml") }, good, broken("later backups are there"), good, good,
		},
		"no configuration of the full": {
			func(c *chain) { c.remove("vmconfig.virtnbdbackup.0.xml") }, broken("later backups are there"), good, good, good,
		},
		"configuration is junk": {
			func(c *chain) { c.put("vmconfig.virtnbdbackup.1.xml", "<domain><uuid>") }, good, broken("a domain's XML that ends too early"), good, good,
		},
		"configuration is other XML": {
			func(c *chain) { c.put("vmconfig.virtnbdbackup.2.xml", "<network/>") }, good, good, broken("not a domain's XML"), good,
		},
		"configuration being written": {
			func(c *chain) { c.put("vmconfig.virtnbdbackup.2.xml", "<domain><name>tin") }, good, good, locked("ends too early"), good,
		},
		"configuration empty": {func(c *chain) { c.put("vmconfig.1795331413.xml", "") }, good, good, good, locked("ends too early")},
		"no configuration of the differential": {
			func(c *chain) { c.remove("vmconfig.1795331413.xml") }, good, good, good, locked("still running"),
		},
		"no configuration of an old differential": {
			func(c *chain) { c.remove("vmconfig.1795331413.xml"); c.backup() }, good, good, good, broken("later backups"),
		},
		"configuration of another machine": {
			func(c *chain) {
				c.put("vmconfig.virtnbdbackup.2.xml", streamtest.Domain("tinyvm", strings.Replace(uuid, "3f", "4f", 1), c.disks...))
			},
			good, good, broken("its full backup of"), good,
		},
		"no full": {
			func(c *chain) { c.remove("vda.full.data") },
			broken("disk vda has no file"), broken("its full backup is broken: vda.full.data is missing"),
			broken("its full backup is broken"), broken("its full backup is broken"),
		},
		"no increment": {
			func(c *chain) { c.remove("vdb.inc.virtnbdbackup.1.data") },
			good, broken("disk vdb has no file in this backup: its .qcow.json"), broken("increment virtnbdbackup.1, which it builds on, is broken"),
			broken("increment virtnbdbackup.1, which it builds on, is broken"),
		},
		"no increment of any disk": {
			func(c *chain) { c.remove("vda.inc.virtnbdbackup.2.data"); c.remove("vdb.inc.virtnbdbackup.2.data") },
			good, good, broken("has no file in this backup"), broken("increment virtnbdbackup.2, which it builds on, is broken"),
		},
		"lost without description": {
			func(c *chain) { c.remove("vdb.inc.virtnbdbackup.2.data"); c.remove("vdb.virtnbdbackup.2.qcow.json") },
			good, good, broken("its checkpoint says that it was backed up"), broken("virtnbdbackup.2"),
		},
		"left out from then on": {
			func(c *chain) {
				c.remove("vdb.inc.virtnbdbackup.2.data")
				c.remove("vdb.virtnbdbackup.2.qcow.json")
				c.put("checkpoints/virtnbdbackup.2.xml", streamtest.Checkpoint("virtnbdbackup.2", created+7200, []string{"vda"}, []string{"vdb"}))
			},
			good, good, good, broken("increment virtnbdbackup.2, which it builds on, is broken"),
		},
		"differential left out": {
			func(c *chain) {
				c.put("checkpoints/virtnbdbackup.2.xml", streamtest.Checkpoint("virtnbdbackup.2", created+7200, []string{"vda"}, []string{"vdb"}))
				for _, name := range []string{"vdb.inc.virtnbdbackup.2.data", "vdb.virtnbdbackup.2.qcow.json", "vdb.diff.1795331413.data", "vdb.1795331413.qcow.json"} {
					c.remove(name)
				}
			}, good, good, good, good,
		},
		"differential lost without description": {
			func(c *chain) { c.remove("vdb.diff.1795331413.data"); c.remove("vdb.1795331413.qcow.json") },
			good, good, good, locked("has no file in this backup yet: the backup it builds on has the disk"),
		},
		"differential lost, later backups": {
			func(c *chain) { c.remove("vdb.diff.1795331413.data"); c.remove("vdb.1795331413.qcow.json"); c.backup() },
			good, good, good, broken("has no file in this backup: the backup it builds on has the disk"),
		},
		"differential lost": {
			func(c *chain) { c.remove("vdb.diff.1795331413.data") }, good, good, good, locked("its .qcow.json says"),
		},
		"truncated full": {
			func(c *chain) { c.truncate("vda.full.data", 60) },
			broken("stop frame"), broken("its full backup is broken"), broken("its full backup is broken"), broken("its full backup is broken"),
		},
		"wrong magic": {
			func(c *chain) { c.put("vda.inc.virtnbdbackup.2.data", strings.Repeat("x", 5000)) },
			good, good, broken("not a virtnbdbackup stream"), broken("which it builds on"),
		},
		"empty file": {func(c *chain) { c.put("vda.inc.virtnbdbackup.2.data", "") }, good, good, broken("stream"), broken("which it builds on")},
		"files swapped": {
			func(c *chain) { c.copy("vdb.inc.virtnbdbackup.2.data", "vda.inc.virtnbdbackup.2.data") },
			good, good, broken("it is of disk vdb"), broken("which it builds on"),
		},
		"increments swapped": {
			func(c *chain) { c.copy("vda.inc.virtnbdbackup.1.data", "vda.inc.virtnbdbackup.2.data") },
			good, good, broken("it is of checkpoint virtnbdbackup.1"), broken("which it builds on"),
		},
		"full as increment": {
			func(c *chain) { c.copy("vda.full.data", "vda.inc.virtnbdbackup.2.data") },
			good, good, broken("its name says inc"), broken("which it builds on"),
		},
		"overwritten by an offline increment": {
			func(c *chain) {
				c.put("vda.inc.virtnbdbackup.1.data", string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.1", Parent: "virtnbdbackup.1",
					VirtualSize: mib, Incremental: true}.Bytes()))
			},
			good, broken("switched off"), broken("increment virtnbdbackup.1, which it builds on, is broken"), broken("switched off"),
		},
		"its own ancestor": {
			func(c *chain) {
				c.put("vda.inc.virtnbdbackup.1.data", string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.1", Parent: "virtnbdbackup.2",
					VirtualSize: mib, Incremental: true}.Bytes()))
			},
			good, broken("ancestor"), broken("ancestor"), broken("ancestor"),
		},
		"parent outside": {
			func(c *chain) {
				c.put("vda.inc.virtnbdbackup.1.data", string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.1", Parent: "../../x",
					VirtualSize: mib, Incremental: true}.Bytes()))
			},
			good, broken("names no parent"), broken("which it builds on"), broken("which it builds on"),
		},
		"version of the future": {
			func(c *chain) {
				c.put("vda.inc.virtnbdbackup.2.data", string(streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.2", Parent: "virtnbdbackup.1",
					VirtualSize: mib, Incremental: true, Version: 9}.Bytes()))
			},
			good, good, verdict{backup.StateUnsupported, "version 9"}, verdict{backup.StateUnsupported, "version 9"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			made := newChain(t, t.TempDir(), false, "vda", "vdb")
			threePoints(made)
			made.diff(created + 9000)
			c.damage(made)
			points := made.points()
			for native, want := range map[string]verdict{"virtnbdbackup.0": c.full, "virtnbdbackup.1": c.inc, "virtnbdbackup.2": c.inc2, "diff": c.diff} {
				if p := points[native]; p.State != want.state || !strings.Contains(p.Reason, want.says) {
					t.Errorf("%s is %s (%s), not %s (…%s…)", native, p.State, p.Reason, want.state, want.says)
				}
			}
		})
	}
}

func (c *chain) truncate(name string, by int64) {
	c.t.Helper()
	path := filepath.Join(c.folder, name)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-by)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *chain) copy(from, to string) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.folder, from))
	if err != nil {
		c.t.Fatal(err)
	}
	c.put(to, string(b))
}

// TestBeginning follows the first backup of a machine from the first file on.
func TestBeginning(t *testing.T) {
	done := newChain(t, t.TempDir(), false, "vda", "vdb")
	done.backup(streamtest.Frame{Offset: 0, Data: fill(1, kib)})
	c := newChain(t, t.TempDir(), false, "vda", "vdb")
	locked := func(step, says, machine string) {
		t.Helper()
		_, points, listing := scan(t, c.folder)
		if len(points) != 1 || points[0].State != backup.StateLocked || !strings.Contains(points[0].Reason, says) ||
			points[0].Machine.Name != machine || listing.Unknown() != 0 {
			t.Errorf("%s: %+v, %d unknown", step, points, listing.Unknown())
		}
	}
	c.put("tinyvm.cpt", `["virtnbdbackup.0"]`)
	locked("list", "nothing of it", "tinyvm")
	c.put("vda.full.data.partial", "")
	locked("partial", "vda.full.data.partial", "tinyvm")
	c.remove("tinyvm.cpt")
	c.put("vda.full.data.partial", string(streamtest.Header("meta", 0, 0)))
	locked("partial without list", "vda.full.data.partial", filepath.Base(c.folder))
	for _, name := range []string{"vda.full.data", "vdb.full.data"} {
		b, err := os.ReadFile(filepath.Join(done.folder, name))
		if err != nil {
			t.Fatal(err)
		}
		c.put(name, string(b))
	}
	c.remove("vda.full.data.partial")
	locked("data", "still running", filepath.Base(c.folder))
	c.put("vmconfig.virtnbdbackup.0.xml", streamtest.Domain("tinyvm", uuid, c.disks...))
	if p := c.points()["virtnbdbackup.0"]; p.State != backup.StateComplete || p.Zone != "unknown" {
		t.Errorf("whole, without checkpoint: %s %s, zone %s", p.State, p.Reason, p.Zone)
	}
}

// TestNextBegins: a checkpoint that only the list names is a backup that has just begun.
func TestNextBegins(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup()
	c.put("tinyvm.cpt", `["virtnbdbackup.0", "virtnbdbackup.1"]`)
	points := c.points()
	if points["virtnbdbackup.0"].State != backup.StateComplete || points["virtnbdbackup.1"].State != backup.StateLocked {
		t.Errorf("%+v", points)
	}
}

// TestOfflineIncrement: the increment of a machine that was switched off after the full backup shares its checkpoint.
func TestOfflineIncrement(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	c.backup(streamtest.Frame{Offset: 0, Data: fill(1, 64*kib)})
	offline := streamtest.File{Disk: "vda", Checkpoint: "virtnbdbackup.0", Parent: "virtnbdbackup.0", Date: "2026-11-22T09:00:00.5",
		VirtualSize: mib, Incremental: true, Frames: []streamtest.Frame{{Offset: kib, Data: fill(2, kib)}}}
	c.put("vda.inc.virtnbdbackup.0.data", string(offline.Bytes()))
	points := c.points()
	full, inc := points["virtnbdbackup.0"], points["virtnbdbackup.0+offline"]
	if len(points) != 2 || full.State != backup.StateComplete || inc.State != backup.StateComplete || !inc.Created.After(full.Created) {
		t.Fatalf("%+v", points)
	}
	want := bytes.Clone(c.images["virtnbdbackup.0"]["vda"])
	if !bytes.Equal(content(t, diskNamed(t, open(t, full), "vda")), want) {
		t.Error("the full backup's content is wrong")
	}
	copy(want[kib:], fill(2, kib))
	opened := open(t, inc)
	if !bytes.Equal(content(t, diskNamed(t, opened, "vda")), want) {
		t.Error("the increment's content is wrong")
	}
	if ancestors := opened.Ancestors(); len(ancestors) != 1 || ancestors[0] != full.ID {
		t.Errorf("ancestors %v", ancestors)
	}
	// The next increment, made while it runs, builds on the checkpoint and does not need the other.
	c.last = 0
	c.backup(streamtest.Frame{Offset: kib, Data: fill(2, kib)})
	next := c.points()["virtnbdbackup.1"]
	if !bytes.Equal(content(t, diskNamed(t, open(t, next), "vda")), want) {
		t.Error("the next increment's content is wrong")
	}
}

// Of a checkpoint that is dated after the year 9999 only the point itself is broken, as it is listed.
func TestTimesThatCannotBeWrittenDown(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	c.put("checkpoints/virtnbdbackup.2.xml", streamtest.Checkpoint("virtnbdbackup.2", 1<<39, []string{"vda"}, nil))
	listed, err := registry.Open(t.Context(), c.folder, registry.Options{Formats: []source.Format{virtnbdbackup.Format{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer listed.Close()
	for i, p := range listed.Points {
		if far := i == 2; far != (p.State == backup.StateBroken) || far != strings.Contains(p.Reason, "dated 19391-") {
			t.Errorf("%s: %s (%s)", p.Origin.NativePointID, p.State, p.Reason)
		}
		if _, err := json.Marshal(p.Created); err != nil {
			t.Errorf("%s: %v", p.Origin.NativePointID, err)
		}
	}
	if len(listed.Points) != 3 {
		t.Errorf("%d points", len(listed.Points))
	}
}
