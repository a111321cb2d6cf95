package virtnbdbackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/source/virtnbdbackup/streamtest"
)

func TestMovedAndTouched(t *testing.T) {
	parent := t.TempDir()
	c := newChain(t, filepath.Join(parent, "a"), false, "vda")
	threePoints(c)
	before := c.points()
	base := &backup.Base{ID: before["virtnbdbackup.0"].ID, Validator: open(t, before["virtnbdbackup.0"]).Validator()}
	if err := os.Rename(c.folder, filepath.Join(parent, "b")); err != nil {
		t.Fatal(err)
	}
	c.folder = filepath.Join(parent, "b")
	for _, name := range []string{"vda.full.data", "vda.inc.virtnbdbackup.1.data"} {
		if err := os.Chtimes(filepath.Join(c.folder, name), time.Time{}, time.Unix(5, 0)); err != nil {
			t.Fatal(err)
		}
	}
	after := c.points()
	for name := range before {
		if before[name].ID != after[name].ID {
			t.Errorf("%s: another id after a move", name)
		}
	}
	kinds := map[backup.ExtentKind]bool{}
	for _, extent := range extentsOf(t, diskNamed(t, open(t, after["virtnbdbackup.1"]), "vda"), base) {
		kinds[extent.Kind] = true
	}
	if !kinds[backup.ExtentUnchanged] {
		t.Error("nothing is unchanged after a move")
	}
}

// TestCheckpointArrivesLate: a checkpoint's creation time is part of the identity, which must not change.
func TestCheckpointArrivesLate(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	whole := c.points()
	name := "checkpoints/virtnbdbackup.1.xml"
	text, err := os.ReadFile(filepath.Join(c.folder, name))
	if err != nil {
		t.Fatal(err)
	}
	for step, content := range map[string]string{"missing": "", "cut short": string(text[:len(text)/2])} {
		c.remove(name)
		if content != "" {
			c.put(name, content)
		}
		points := c.points()
		if p := points["virtnbdbackup.1"]; p.State != backup.StateLocked || !strings.Contains(p.Reason, name) {
			t.Errorf("%s: %s (%s)", step, p.State, p.Reason)
		}
		if p := points["virtnbdbackup.2"]; p.State != backup.StateComplete || p.ID != whole["virtnbdbackup.2"].ID {
			t.Errorf("%s: the next one is %s (%s)", step, p.State, p.Reason)
		}
		c.put(name, string(text))
	}
	// The folder is there and the list knows the checkpoint: it is to come. Without list and checkpoints it is not.
	for n := range 3 {
		c.remove("checkpoints/" + checkpointName(n) + ".xml")
	}
	for native, p := range c.points() {
		if p.State != backup.StateLocked {
			t.Errorf("empty folder: %s is %s (%s)", native, p.State, p.Reason)
		}
	}
}

// TestWithoutCheckpoints: a folder that was moved without its checkpoints is usable, until they come after all.
func TestWithoutCheckpoints(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	if err := os.RemoveAll(filepath.Join(c.folder, "checkpoints")); err != nil {
		t.Fatal(err)
	}
	points := c.points()
	var opened []source.Content
	for native, p := range points {
		if p.State != backup.StateComplete || p.Zone != "unknown" || len(points) != 3 {
			t.Fatalf("%s is %s (%s), zone %s", native, p.State, p.Reason, p.Zone)
		}
		content := open(t, p)
		if err := content.Revalidate(context.Background()); err != nil {
			t.Error(err)
		}
		opened = append(opened, content)
	}
	if err := os.Mkdir(filepath.Join(c.folder, "checkpoints"), 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		c.put("checkpoints/"+checkpointName(n)+".xml", streamtest.Checkpoint(checkpointName(n), created+int64(n)*3600, c.disks, nil))
	}
	for _, content := range opened {
		if err := content.Revalidate(context.Background()); !errors.Is(err, backup.ErrChanged) {
			t.Errorf("a checkpoint came: %v", err)
		}
	}
}

// TestValidatorCoversAllFiles: whatever a point is read from, a change of it changes the validator.
func TestValidatorCoversAllFiles(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	threePoints(c)
	c.put("vdz.copy.data", string(fill(9, 100*kib)))
	c.put("vmconfig.virtnbdbackup.0.xml", strings.Replace(streamtest.Domain("tinyvm", uuid, "vda", "vdz"),
		"type='qcow2'/><target dev='vdz'", "type='raw'/><target dev='vdz'", 1))
	c.put("code.fd.virtnbdbackup.0", string(fill(5, 100*kib)))
	c.put("vars.fd.virtnbdbackup.0", "vars")
	validator := func() []byte { return open(t, c.points()["virtnbdbackup.0"]).Validator() }
	for _, name := range []string{"vda.full.data", "vdz.copy.data", "code.fd.virtnbdbackup.0", "vars.fd.virtnbdbackup.0", "vmconfig.virtnbdbackup.0.xml",
		"vda.virtnbdbackup.0.qcow.json", "checkpoints/virtnbdbackup.0.xml"} {
		before := validator()
		if !bytes.Equal(before, validator()) {
			t.Fatal("the validator is not the same twice")
		}
		path := filepath.Join(c.folder, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(1795400000, 7)); err != nil {
			t.Fatal(err)
		}
		touched := validator()
		if bytes.Equal(before, touched) {
			t.Errorf("%s: another time does not show", name)
		}
		// The same content and time in another file.
		c.put(name+".new", string(text))
		if err := os.Chtimes(path+".new", time.Time{}, time.Unix(1795400000, 7)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(touched, validator()) {
			t.Errorf("%s: another inode does not show", name)
		}
	}
}

// TestValidatorTooLong: a validator that would be too long is none, or a changed point would count as the same.
func TestValidatorTooLong(t *testing.T) {
	folder := t.TempDir()
	for range 2 {
		folder = filepath.Join(folder, strings.Repeat("%", 250))
	}
	c := newChain(t, folder, false, "vda")
	root := filepath.Dir(filepath.Dir(folder))
	for range 900 {
		c.backup()
	}
	// Their times run away from the dates in the streams.
	if err := os.RemoveAll(filepath.Join(folder, "checkpoints")); err != nil {
		t.Fatal(err)
	}
	_, points, _ := scan(t, root)
	if len(points) != 900 {
		t.Fatalf("%d points", len(points))
	}
	if got := open(t, points[899]).Validator(); got != nil {
		t.Errorf("a validator of %d bytes: %.60s", len(got), got)
	}
	if got := open(t, points[0]).Validator(); len(got) == 0 {
		t.Error("no validator of a short chain")
	}
}

// TestImageInFull: "-l full -t raw" writes plain images under the name of streams.
func TestImageInFull(t *testing.T) {
	c := newChain(t, t.TempDir(), false, "vda")
	image := fill(7, mib)
	c.now["vda"] = image
	c.backup()
	inc := c.backup(streamtest.Frame{Offset: 4 * kib, Data: fill(8, kib)})
	c.put("vda.full.data", string(image))
	points := c.points()
	full := open(t, points["virtnbdbackup.0"])
	if object := full.Objects()[0]; object.Format != "raw" || !bytes.Equal(content(t, diskNamed(t, full, "vda")), image) {
		t.Errorf("the image is not read: %+v", object)
	}
	opened := open(t, points[inc])
	if !bytes.Equal(content(t, diskNamed(t, opened, "vda")), c.images[inc]["vda"]) {
		t.Error("the increment on it is wrong")
	}
	base := &backup.Base{ID: points["virtnbdbackup.0"].ID, Validator: full.Validator()}
	for _, extent := range extentsOf(t, diskNamed(t, opened, "vda"), base) {
		if extent.Kind == backup.ExtentUnchanged {
			t.Errorf("the head of an image proves nothing: %+v", extent)
		}
	}
	for says, change := range map[string]func(){
		"not a plain image of a disk of 4096": func() { c.put("vda.virtnbdbackup.0.qcow.json", `{"virtual-size": 4096}`) },
		"without the disk's .qcow.json":       func() { c.remove("vda.virtnbdbackup.0.qcow.json") },
	} {
		change()
		for native, p := range c.points() {
			if p.State != backup.StateUnsupported || !strings.Contains(p.Reason, says) {
				t.Errorf("%s is %s (%s)", native, p.State, p.Reason)
			}
		}
		c.put("vda.virtnbdbackup.0.qcow.json", fmt.Sprintf(`{"virtual-size": %d}`, mib))
	}
}
