package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A seed is taken up by the server that runs, and mapped by its job. Then the server is lost, with its state: another one goes
// on, from what the job has left in the target, and copies nothing twice.
func TestServerTakesUpASeed(t *testing.T) {
	site := t.TempDir()
	in := func(name string) string { return filepath.Join(site, name) }
	write := func(name string, content []byte) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	wants := func(want, what string) {
		t.Helper()
		if !strings.Contains(what, want) {
			t.Errorf("no %q in\n%s", want, what)
		}
	}
	write("here/web.raw", bytes.Repeat([]byte("web"), 100_000))
	run(t, ExitDone, "copy", in("here"), in("seed"), "--create")
	if err := os.Rename(in("here"), in("moved")); err != nil { // other machines, by their ids
		t.Fatal(err)
	}
	jobs := write("jobs.yaml", []byte(`{kind: Repository, name: src, location: moved}
---
kind: Job
name: offsite
schedule: {mode: manual}
source: {repositories: [src]}
target: {repository: vault, map: [{machine: web, backup: manual/web}]}
`))

	t.Run("the seed", func(t *testing.T) {
		serveHere(t)
		out, _ := run(t, ExitDone, "adopt", in("seed"), "--as", "vault")
		wants("added repository vault to the server", out)
		_, errOut := run(t, ExitUsage, "adopt", in("seed"), "--as", "other")
		wants("the server has repository vault already", errOut)
		run(t, ExitDone, "apply", "-f", jobs)
		out, _ = run(t, ExitDone, "job", "resolve")
		wants("target.map: manual/web, machine image/here/web.raw there, has 1 point for it", out)
		out, _ = run(t, ExitDone, "job", "missing", "offsite")
		wants("nothing is missing", out)
		out, _ = run(t, ExitDone, "job", "run", "offsite")
		wants("0 copied, 1 claimed", out)
		write("moved/web.raw", bytes.Repeat([]byte("web2"), 100_000))
		out, _ = run(t, ExitDone, "job", "missing")
		wants("missing: ", out)
		run(t, ExitDone, "job", "run", "offsite")
		out, _ = run(t, ExitDone, "repo", "rescan", "vault")
		wants("backup offsite/web  image/here/web.raw  1 point", out)
		wants("backup offsite/web  image/moved/web.raw  1 point", out)
		run(t, ExitNothing, "repo", "rescan", "other")
	})

	t.Run("the server is lost", func(t *testing.T) {
		serveHere(t)
		out, _ := run(t, ExitDone, "repo", "jobs", in("seed"), "--cache-dir", in("fresh"))
		left := write("left.yaml", []byte(out))
		run(t, ExitDone, "apply", "-f", left)
		out, _ = run(t, ExitDone, "job", "run", "offsite")
		wants("0 copied, 0 claimed, 0 failed, 0 removed", out)
		out, _ = run(t, ExitDone, "status")
		wants("offsite", out)
	})
}
