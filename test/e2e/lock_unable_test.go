//go:build integration

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Who may not make files immutable makes no repository that promises it, and adds nothing to one; it is told why and what to do.
func TestLocksThatMayNotBeSet(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 300*mib)
	setpriv := needTool(t, "setpriv")
	from, to := t.TempDir(), filepath.Join(disk, "vault")
	contentFile(t, filepath.Join(from, "web.raw"), 71, 8*mib)
	u := newUser(t)
	t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-i", disk).Run() })
	refused := func(args ...string) {
		t.Helper()
		cmd := u.command(args...)
		cmd.Path, cmd.Args = setpriv, append([]string{"setpriv", "--bounding-set", "-linux_immutable", "--inh-caps", "-all", program}, args...)
		out, _ := cmd.CombinedOutput()
		said := string(out)
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(said, "this process may not") || !strings.Contains(said, "setcap cap_linux_immutable+ep ferry") {
			t.Errorf("ferry %v: exit code %d: %s", args, code, said)
		}
	}
	entries := func() int {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(to, "log", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	refused("repo", "init", to, "--lock", "host", "--lock-for", "1h")
	if _, err := os.Stat(filepath.Join(to, "repository.json")); err == nil {
		t.Error("a repository was made")
	}
	u.want(0, "repo", "init", to, "--lock", "host", "--lock-for", "1h")
	u.want(0, "copy", from, to)
	before := entries()
	contentFile(t, filepath.Join(from, "db.raw"), 72, 8*mib)
	refused("copy", from, to)
	if n := entries(); n != before || before == 0 {
		t.Errorf("the log has %d entries, %d before", n, before)
	}
	u.want(0, "verify", to)
	u.want(0, "copy", from, to)
	u.want(0, "repo", "locks", to, "--extend")
	u.want(0, "repo", "locks", to, "--check")
}
