//go:build integration

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"ferry/test/libvirt"
)

// guest is a libvirt machine with a QEMU of its own, of which the real virtnbdbackup makes a chain. It is paused: what is written
// to its disks, the steps of machine.sh write through QEMU.
type guest struct {
	t *testing.T
	// dir is the guest's, chain what virtnbdbackup writes to.
	dir, chain string
	// grown counts the chain's points. The disks at each are kept.
	grown int
	// growing lets one backup at a time be made.
	growing sync.Mutex
}

// startGuest starts the guest and makes the chain's full backup. Others who would start a libvirt daemon wait meanwhile.
func startGuest(t *testing.T) *guest {
	t.Helper()
	libvirt.Alone(t)
	g := &guest{t: t, dir: t.TempDir()}
	g.chain = filepath.Join(g.dir, "chain")
	if err := os.Chmod(filepath.Dir(g.dir), 0o755); err != nil { // QEMU's user must reach the images
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.step("stop"); err != nil {
			t.Error(err)
		}
	})
	g.must(g.step("start"))
	g.must(g.grow())
	return g
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) command(step string, args ...string) *exec.Cmd {
	cmd := exec.Command("./machine.sh", append([]string{step, g.dir}, args...)...)
	cmd.Dir = filepath.Join(moduleRoot, "test", "virtnbdbackup")
	return cmd
}

func (g *guest) step(step string, args ...string) error {
	if out, err := g.command(step, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w\n%s", step, args, err, out)
	}
	return nil
}

// backup is the virtnbdbackup that makes the chain's next point, of which the disks are kept.
func (g *guest) backup() (*exec.Cmd, error) {
	level := "inc"
	if g.grown == 0 {
		level = "full"
	}
	g.grown++
	if err := g.step("fill", fmt.Sprint(g.grown)); err != nil {
		return nil, err
	}
	return g.command("backup", "chain", "-l", level, "-x", "vdc"), g.step("reference", fmt.Sprint(g.grown))
}

// grow adds a point to the chain: the guest's disks are written to, and backed up.
func (g *guest) grow() error {
	g.growing.Lock()
	defer g.growing.Unlock()
	cmd, err := g.backup()
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("virtnbdbackup: %w\n%s", err, out)
	}
	return nil
}

// halted is a backup that is stopped in the middle of its work: it has a partial file. goOn lets it finish.
func (g *guest) halted() (goOn func()) {
	g.t.Helper()
	for range 5 {
		g.must(g.step("write", "many")) // it takes its time
		cmd, err := g.backup()
		g.must(err)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		g.must(cmd.Start())
		run := &running{cmd: cmd}
		for end := time.Now().Add(runLimit); !g.partial() && !zombie(run) && time.Now().Before(end); {
			time.Sleep(100 * time.Microsecond)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGSTOP)
		for stateOf(run) != "T" && !zombie(run) {
			time.Sleep(100 * time.Microsecond)
		}
		goOn = func() {
			g.t.Helper()
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT) // it may have ended
			if err := cmd.Wait(); err != nil {
				g.t.Fatalf("virtnbdbackup: %v\n%s", err, log.String())
			}
		}
		if g.partial() {
			return goOn
		}
		goOn()
	}
	g.t.Fatal("virtnbdbackup was never seen at work")
	return nil
}

// partial is true while a backup writes the content of a disk.
func (g *guest) partial() bool {
	g.t.Helper()
	found, err := filepath.Glob(filepath.Join(g.chain, "*.partial"))
	g.must(err)
	return len(found) > 0
}

// disks are the sums of the disks as they were at a point of the chain, counted from 1.
func (g *guest) disks(point int, names ...string) map[string]string {
	g.t.Helper()
	sums := map[string]string{}
	for _, name := range names {
		sums[name] = sumFile(g.t, filepath.Join(g.dir, "ref", fmt.Sprintf("%s.%d.raw", name, point)))
	}
	return sums
}
