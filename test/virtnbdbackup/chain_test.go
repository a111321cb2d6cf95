//go:build integration

// Package virtnbdbackup_test makes backups with the real virtnbdbackup and reads them. It needs root, libvirt, QEMU
// and virtnbdbackup, and a host on which no libvirt daemon runs:
//
//	go test -tags integration ./test/virtnbdbackup
package virtnbdbackup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/cli"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/source/virtnbdbackup"
	"ferry/test/libvirt"
)

// machine runs the steps of machine.sh.
type machine struct {
	t   *testing.T
	dir string
	// meanwhile is called while a backup is halted.
	meanwhile func()
}

// vault is the repository that the machine's backups are copied to.
func (m *machine) vault() string { return filepath.Join(m.dir, "vault") }

// ferry runs a command, which must succeed, and returns what it prints.
func (m *machine) ferry(args ...string) string {
	m.t.Helper()
	var out, errOut bytes.Buffer
	if code := cli.Main(append(args, "--cache-dir", filepath.Join(m.dir, "cache")), &out, &errOut); code != cli.ExitDone {
		m.t.Errorf("ferry %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), errOut.String())
	}
	return out.String()
}

// restored restores a point from the repository and compares its disks with the reference images.
func (m *machine) restored(p source.Point, reference string) {
	m.t.Helper()
	to := m.t.TempDir()
	m.ferry("restore", m.vault(), "ferry-test-vm", "--point", p.ID.String(), "--to", to)
	disks := 0
	for _, object := range p.Objects {
		if object.Role != backup.RoleDisk {
			continue
		}
		disks++
		if m.sumOf(filepath.Join(to, object.Name+".raw")) != m.sumOf(filepath.Join(m.dir, "ref", object.Name+"."+reference+".raw")) {
			m.t.Errorf("%s: %s restored is not as %s", p.Origin.NativePointID, object.Name, reference)
		}
	}
	if disks == 0 {
		m.t.Errorf("%s has no disks", p.Origin.NativePointID)
	}
}

func (m *machine) sumOf(path string) [sha256.Size]byte {
	m.t.Helper()
	file, err := os.Open(path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer file.Close()
	return sum(m.t, file)
}

func start(t *testing.T) *machine {
	t.Helper()
	libvirt.Alone(t)
	m := &machine{t: t, dir: t.TempDir()}
	// The machine's own user must reach the images.
	if err := os.Chmod(filepath.Dir(m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("./machine.sh", "stop", m.dir).CombinedOutput(); err != nil {
			t.Errorf("stopping: %v\n%s", err, out)
		}
	})
	m.step("start")
	return m
}

func (m *machine) command(step string, args ...string) *exec.Cmd {
	return exec.Command("./machine.sh", append([]string{step, m.dir}, args...)...)
}

func (m *machine) step(step string, args ...string) {
	m.t.Helper()
	if out, err := m.command(step, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %v: %v\n%s", step, args, err, out)
	}
}

// scan lists the points of a folder by native id up to the "@".
func scan(t *testing.T, path string) map[string]source.Point {
	t.Helper()
	_, listing := sourcetest.List(t, path, "")
	points, err := virtnbdbackup.Format{}.Scan(context.Background(), listing)
	if err != nil {
		t.Fatal(err)
	}
	if unknown := listing.Unknown(); unknown != 0 {
		t.Errorf("%s: %d files were not claimed", path, unknown)
	}
	named := map[string]source.Point{}
	for _, p := range points {
		name, _, _ := strings.Cut(p.Origin.NativePointID, "@")
		named[name] = p
	}
	return named
}

// compare reads a point's disks and compares them with the reference images.
func (m *machine) compare(p source.Point, reference string, disks ...string) {
	m.t.Helper()
	if p.State != backup.StateComplete {
		m.t.Errorf("%s is %s: %s", p.Origin.NativePointID, p.State, p.Reason)
		return
	}
	content, err := p.Opener.Open(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	defer content.Close()
	var found []string
	firmware := 0
	for i, object := range content.Objects() {
		if object.Role == backup.RoleFirmware {
			firmware++
		}
		if object.Role != backup.RoleDisk {
			continue
		}
		found = append(found, object.Name)
		disk, err := content.Disk(i)
		if err != nil {
			m.t.Fatal(err)
		}
		want := m.sumOf(filepath.Join(m.dir, "ref", object.Name+"."+reference+".raw"))
		if want != sum(m.t, io.NewSectionReader(disk, 0, disk.Size())) {
			m.t.Errorf("%s: %s is not as %s", p.Origin.NativePointID, object.Name, reference)
		}
	}
	if fmt.Sprint(found) != fmt.Sprint(disks) {
		m.t.Errorf("%s: disks %v, not %v", p.Origin.NativePointID, found, disks)
	}
	if firmware != 2 {
		m.t.Errorf("%s: %d firmware files, not 2", p.Origin.NativePointID, firmware)
	}
	if err := content.Revalidate(context.Background()); err != nil {
		m.t.Error(err)
	}
}

func sum(t *testing.T, r io.Reader) [sha256.Size]byte {
	t.Helper()
	hash := sha256.New()
	if _, err := io.CopyBuffer(hash, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

func TestRealChains(t *testing.T) {
	m := start(t)
	m.step("reference", "0")
	m.step("backup", "plain", "-l", "full", "-x", "vdc", "-r")
	m.step("write", "1")
	m.step("reference", "1")
	m.step("backup", "plain", "-l", "inc", "-x", "vdc")
	m.step("write", "2")
	m.step("reference", "2")
	m.step("backup", "plain", "-l", "inc", "-x", "vdc")
	m.step("write", "3")
	m.step("reference", "3")
	m.slowDiff("plain")
	points := scan(t, filepath.Join(m.dir, "plain"))
	m.compare(points["virtnbdbackup.0"], "0", "vda", "vdb", "vdd")
	m.compare(points["virtnbdbackup.1"], "1", "vda", "vdb")
	m.compare(points["virtnbdbackup.2"], "2", "vda", "vdb")
	m.compare(points["diff"], "3", "vda", "vdb")
	if len(points) != 4 {
		t.Errorf("%d points, not 4", len(points))
	}
	m.ferry("copy", filepath.Join(m.dir, "plain"), m.vault(), "--create", "--all")
	m.ferry("verify", m.vault())
	for name, reference := range map[string]string{"virtnbdbackup.0": "0", "virtnbdbackup.1": "1", "virtnbdbackup.2": "2", "diff": "3"} {
		m.restored(points[name], reference)
	}

	m.step("backup", "lz4", "-l", "full", "-z")
	m.step("write", "1")
	m.step("reference", "4")
	m.step("backup", "lz4", "-l", "inc", "-z", "9")
	points = scan(t, filepath.Join(m.dir, "lz4"))
	m.compare(points["virtnbdbackup.0"], "3", "vda", "vdb", "vdc")
	m.compare(points["virtnbdbackup.1"], "4", "vda", "vdb", "vdc")

	// An increment of the machine switched off takes the name of the increment before it, which is lost.
	m.step("off")
	m.step("backup", "lz4", "-l", "inc", "-z")
	points = scan(t, filepath.Join(m.dir, "lz4"))
	m.compare(points["virtnbdbackup.0"], "3", "vda", "vdb", "vdc")
	if p := points["virtnbdbackup.1"]; p.State != backup.StateBroken || !strings.Contains(p.Reason, "switched off") {
		t.Errorf("an overwritten increment is %s: %s", p.State, p.Reason)
	}
	// Straight after a full backup there is none to be lost.
	m.step("on")
	m.step("backup", "once", "-l", "full", "-x", "vdc")
	m.step("write", "2")
	m.step("reference", "5")
	m.step("off")
	m.step("backup", "once", "-l", "inc", "-x", "vdc")
	points = scan(t, filepath.Join(m.dir, "once"))
	m.compare(points["virtnbdbackup.0"], "4", "vda", "vdb")
	m.compare(points["virtnbdbackup.0+offline"], "5", "vda", "vdb")

	m.step("on")
	m.step("backup", "plainfull", "-l", "full", "-t", "raw", "-x", "vdc")
	m.step("write", "1")
	m.step("reference", "6")
	m.step("backup", "plainfull", "-l", "inc", "-x", "vdc")
	points = scan(t, filepath.Join(m.dir, "plainfull"))
	m.compare(points["virtnbdbackup.0"], "5", "vda", "vdb")
	m.compare(points["virtnbdbackup.1"], "6", "vda", "vdb")
	m.step("off")

	m.step("backup", "copy", "-l", "copy", "-r", "-x", "vdb")
	m.compare(scan(t, filepath.Join(m.dir, "copy"))["copy"], "6", "vda", "vdc", "vdd")
	m.step("backup", "image", "-l", "copy", "-t", "raw")
	m.compare(scan(t, filepath.Join(m.dir, "image"))["copy"], "6", "vda", "vdb", "vdc")

	zip, err := os.Create(filepath.Join(m.dir, "copy", "stream.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer zip.Close()
	stream := exec.Command("virtnbdbackup", "-n", "-d", "ferry-test-vm", "-S", filepath.Join(m.dir, "run"), "-l", "copy", "-o", "-")
	stream.Stdout, stream.Dir = zip, m.dir // it leaves files where it runs
	if err := stream.Run(); err != nil {
		t.Fatal(err)
	}
	if p := scan(t, filepath.Join(m.dir, "copy"))["zip"]; p.State != backup.StateUnsupported {
		t.Errorf("a ZIP stream is %s", p.State)
	}
}

// slowDiff makes a differential backup whose files get names seconds apart: with one worker, and halted after the first
// disk was begun. On a busy machine that may come too late; then it makes another one in its place.
func (m *machine) slowDiff(out string) {
	m.t.Helper()
	before := m.files(out)
	for range 5 {
		points := m.during(out, 3*time.Second, "-l", "diff", "-x", "vdc", "-w", "1")
		if points["diff"].State == backup.StateLocked && m.slow(out) {
			for name, p := range points {
				if name != "diff" && p.State == backup.StateLocked {
					m.t.Errorf("meanwhile %s is %s: %s", name, p.State, p.Reason)
				}
			}
			return
		}
		for name := range m.files(out) {
			if !before[name] {
				if err := os.Remove(filepath.Join(m.dir, out, name)); err != nil {
					m.t.Fatal(err)
				}
			}
		}
	}
	m.t.Error("no differential backup was slow and seen at work")
}

// slow is true if the files of the differential backup have names of more times than one.
func (m *machine) slow(out string) bool {
	m.t.Helper()
	times := map[string]bool{}
	for _, pattern := range []string{"vda.diff.*.data", "vdb.diff.*.data", "vmconfig.1*.xml"} {
		found, err := filepath.Glob(filepath.Join(m.dir, out, pattern))
		if err != nil || len(found) != 1 {
			m.t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		times[regexp.MustCompile("[0-9]{10}").FindString(filepath.Base(found[0]))] = true
	}
	return len(times) > 1
}

// files are what lies in a folder.
func (m *machine) files(out string) map[string]bool {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(m.dir, out))
	if err != nil {
		m.t.Fatal(err)
	}
	files := map[string]bool{}
	for _, entry := range entries {
		files[entry.Name()] = true
	}
	return files
}

// TestWhileRunning looks at a chain in the middle of a backup, which is halted for it as soon as a partial file appears.
func TestWhileRunning(t *testing.T) {
	m := start(t)
	m.step("backup", "out", "-l", "full", "-x", "vdc")
	out := filepath.Join(m.dir, "out")
	said := ""
	m.meanwhile = func() { said = m.ferry("copy", out, m.vault(), "--create", "--all") }
	for attempt := range 5 {
		m.step("write", "many")
		m.step("reference", "running")
		points := m.during("out", 0, "-l", "inc", "-x", "vdc")
		ident := fmt.Sprintf("virtnbdbackup.%d", attempt+1)
		for name, p := range points {
			if name != ident && p.State != backup.StateComplete {
				t.Errorf("meanwhile %s is %s: %s", name, p.State, p.Reason)
			}
		}
		p := points[ident]
		m.compare(scan(t, out)[ident], "running", "vda", "vdb")
		if p.State == backup.StateLocked && strings.Contains(p.Reason, ".partial") {
			if !strings.Contains(said, "locked") {
				t.Errorf("a copy attempted meanwhile says %q", said)
			}
			// What was locked is copied when it is done.
			if again := m.ferry("copy", out, m.vault(), "--all"); !strings.Contains(again, "1 copied") {
				t.Errorf("the copy after it says %q", again)
			}
			m.ferry("verify", m.vault())
			m.restored(scan(t, out)[ident], "running")
			return
		}
		t.Logf("attempt %d: too late, %s is %s: %s", attempt, ident, p.State, p.Reason)
	}
	t.Error("the backup was never seen running")
}

// during starts a backup, halts it when its first partial file appears, scans, and lets it finish after a pause.
func (m *machine) during(name string, pause time.Duration, args ...string) map[string]source.Point {
	m.t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		m.t.Fatal(err)
	}
	events := os.NewFile(uintptr(watch), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(watch, filepath.Join(m.dir, name), unix.IN_CREATE); err != nil {
		m.t.Fatal(err)
	}
	var log bytes.Buffer
	running := m.command("backup", append([]string{name}, args...)...)
	running.Stdout, running.Stderr = &log, &log
	running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := running.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- running.Wait()
		events.Close() // nobody waits for a file that will not come
	}()
	var points map[string]source.Point
	buffer := make([]byte, 64<<10)
	for {
		n, err := events.Read(buffer)
		if errors.Is(err, os.ErrClosed) || n == 0 {
			break
		}
		if !bytes.Contains(buffer[:n], []byte(".partial")) {
			continue
		}
		if err := syscall.Kill(-running.Process.Pid, syscall.SIGSTOP); err != nil {
			break // it has ended
		}
		points = scan(m.t, filepath.Join(m.dir, name))
		if m.meanwhile != nil {
			m.meanwhile()
		}
		time.Sleep(pause)
		if err := syscall.Kill(-running.Process.Pid, syscall.SIGCONT); err != nil {
			m.t.Error(err)
		}
		break
	}
	if err := <-ended; err != nil {
		m.t.Fatalf("%v\n%s", err, log.String())
	}
	if points == nil {
		points = scan(m.t, filepath.Join(m.dir, name))
	}
	return points
}
