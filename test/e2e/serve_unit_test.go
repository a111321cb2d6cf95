//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the systemd unit lets the server do must suffice for what the server does: a root with its capabilities, and no others,
// copies what only root may read to a repository that locks its files.
func TestUnitsCapabilitiesSuffice(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 300*mib)
	setpriv := needTool(t, "setpriv")
	unit, err := os.ReadFile(filepath.Join(moduleRoot, "packaging", "ferry.service"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	line, _, _ := strings.Cut(rest, "\n")
	if !found || line == "" {
		t.Fatal("the unit names no capabilities")
	}
	bounding := "-all"
	for _, capability := range strings.Fields(line) {
		bounding += ",+" + strings.ToLower(strings.TrimPrefix(capability, "CAP_"))
	}
	from, to := t.TempDir(), filepath.Join(disk, "vault")
	contentFile(t, filepath.Join(from, "machine.raw"), 71, 8*mib)
	if err := os.Chown(filepath.Join(from, "machine.raw"), 65534, 65534); err != nil { // another's, who lets nobody else read it
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "machine.raw"), 0o400); err != nil {
		t.Fatal(err)
	}
	u := newUser(t)
	t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-i", to).Run() })
	for _, args := range [][]string{
		{"repo", "init", to, "--lock", "host", "--lock-for", "1h"}, {"copy", from, to}, {"verify", to}, {"repo", "locks", to, "--extend"},
	} {
		cmd := u.command(args...)
		cmd.Path, cmd.Args = setpriv, append([]string{"setpriv", "--bounding-set", bounding, "--inh-caps", "-all", "--no-new-privs", program}, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ferry %v, with the capabilities %s: %v\n%s", args, line, err, out)
		}
	}
}
