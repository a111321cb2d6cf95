package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a server has seen of its target is in its own cache. A target that was rolled back is refused with what helps, and what
// helps is all that is needed, also if whoever adopts it has seen nothing of it before, or names it by a link.
func TestServerGoesOnWithATargetThatWasRolledBack(t *testing.T) {
	site := t.TempDir()
	in := func(name string) string { return filepath.Join(site, name) }
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	with := func(want int, args ...string) string {
		t.Helper()
		out, errOut := run(t, want, append(args, "--cache-dir", in("mine"))...)
		return out + errOut
	}
	serveHere(t)
	write("images/web.raw", string(bytes.Repeat([]byte("web"), 100_000)))
	write("jobs.yaml", `{kind: Repository, name: src, location: images}
---
{kind: Repository, name: vault, location: vault}
---
{kind: Job, name: offsite, schedule: {mode: manual}, source: {repositories: [src]}, target: {repository: vault}}
`)
	run(t, ExitDone, "repo", "init", in("vault"), "--cache-dir", in("other"))
	with(ExitDone, "apply", "-f", in("jobs.yaml"))
	with(ExitDone, "job", "run", "offsite")
	copied := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", in(from), in(to)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	copied("vault", "older")
	write("images/web.raw", string(bytes.Repeat([]byte("web2"), 100_000)))
	with(ExitDone, "job", "run", "offsite")
	rollBack := func() {
		t.Helper()
		if err := os.RemoveAll(in("vault")); err != nil {
			t.Fatal(err)
		}
		copied("older", "vault")
	}
	rollBack()
	if out := with(ExitUsage, "job", "run", "offsite"); !strings.Contains(out, "it was rolled back, or this is another copy of it; if this copy is the one to go on with, run: ferry adopt "+in("vault")) {
		t.Errorf("the reason does not say what helps:\n%s", out)
	}
	if err := os.Symlink(in("vault"), in("link")); err != nil {
		t.Fatal(err)
	}
	if out := with(ExitDone, "adopt", in("link")); !strings.HasSuffix(out, "adopted "+in("link")+" as it is\nthe server goes on with its repository vault, too\n") {
		t.Errorf("%s", out)
	}
	with(ExitDone, "job", "run", "offsite")
	if out := with(ExitDone, "adopt", in("vault")); !strings.HasSuffix(out, "nothing to do: "+in("vault")+" has the history that was seen before\n") {
		t.Errorf("%s", out)
	}

	// It is told, too, where the repository goes into a file as a resource of another name.
	const told = "the server goes on with its repository vault, too\n"
	for _, tc := range []struct{ file, want string }{
		{in("more.yaml"), "adopted " + in("link") + " as it is\n" + told + "added repository second to " + in("more.yaml") + "\n"},
		{"-", "# adopted " + in("link") + " as it is\n# " + told + "kind: Repository\n"},
	} {
		with(ExitDone, "job", "run", "offsite")
		rollBack()
		if out := with(ExitDone, "adopt", in("link"), "--as", "second", "-f", tc.file, "--also"); !strings.Contains(out, tc.want) {
			t.Errorf("-f %s: %s", tc.file, out)
		}
		write("images/web.raw", string(bytes.Repeat([]byte(tc.file), 10_000)))
		with(ExitDone, "job", "run", "offsite")
	}
}
