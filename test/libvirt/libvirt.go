//go:build integration

// Package libvirt is for tests that start a libvirt daemon of their own, of which a host can have one.
package libvirt

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Alone returns when no other test has a libvirt daemon, and keeps the others waiting until this one has ended. It skips the test
// where it cannot run: as another user than root, without the programs, or beside a daemon that is not a test's.
func Alone(t *testing.T) {
	t.Helper()
	lacking := t.Skip
	if os.Getenv("CI") != "" {
		lacking = t.Fatal // make test has installed them
	}
	for _, program := range []string{"libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "qemu-io", "virtnbdbackup"} {
		if _, err := exec.LookPath(program); err != nil {
			lacking(err)
		}
	}
	if os.Geteuid() != 0 {
		lacking("needs root")
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "ferry-test-libvirt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if exec.Command("virsh", "-c", "qemu:///system", "version").Run() == nil {
		t.Skip("a libvirt daemon runs here, which this test must not disturb")
	}
}
