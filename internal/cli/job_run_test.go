package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/repo"
	"ferry/internal/storage/fs"
)

// A run whose window is closed waits, which is no failure, and no sign that there is nothing to copy: it lists no source.
func TestJobRunWithAClosedWindow(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	opens := time.Now().UTC().Add(3 * time.Hour)
	for name, content := range map[string]string{"images/web.raw": "a disk", "job.yaml": fmt.Sprintf(`{kind: Repository, name: images, location: %s}
---
{kind: Repository, name: vault, location: %s}
---
{kind: Job, name: offsite, source: {repositories: [images]}, target: {repository: vault}, window: {allow: ["%s-%s"]}}
`, in("images"), in("vault"), opens.Format("15:04"), opens.Add(time.Hour).Format("15:04"))} {
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ExitDone, "repo", "init", in("vault"), "--quiet")
	out, _ := run(t, ExitDone, "job", "run", "--once", "-f", in("job.yaml"))
	if !strings.Contains(out, "the window is closed until") || !strings.Contains(out, "job offsite: waiting; 0 copied") {
		t.Errorf("%s", out)
	}
}

// Compact gives way to all else, what comes after it does not: also where it is the last phase of the session.
func TestPriorityIsBackAfterCompact(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gets the priority back")
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(in("images"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"images/web.raw": "a disk", "job.yaml": fmt.Sprintf(`{kind: Repository, name: images, location: %s}
---
{kind: Repository, name: vault, location: %s}
---
{kind: Job, name: offsite, source: {repositories: [images]}, target: {repository: vault}, compact: {every: 1m}}
`, in("images"), in("vault"))} {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, ExitDone, "repo", "init", in("vault"), "--quiet")
	ranBefore(t, in("vault"), "offsite")
	before, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, ExitDone, "job", "run", "--once", "-f", in("job.yaml"), "--json")
	if !strings.Contains(strings.Join(strings.Fields(out), ""), `"name":"compact","state":"done"`) {
		t.Fatalf("compact did not run: %s", out)
	}
	if after, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid()); err != nil || after != before {
		t.Errorf("the priority is %d, and was %d: %v", after, before, err)
	}
}

// ranBefore has a job know of its target that it first ran long ago, so that what is due from time to time is due.
func ranBefore(t *testing.T, location, job string) {
	t.Helper()
	store, err := fs.Open(location)
	if err != nil {
		t.Fatal(err)
	}
	target, err := repo.Open(t.Context(), store, repo.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	memory, err := json.Marshal(map[string]any{"started": time.Now().Add(-48 * time.Hour)})
	if err == nil {
		err = target.WriteJob(t.Context(), repo.JobRecord{Job: job, Memory: memory})
	}
	if err != nil {
		t.Fatal(err)
	}
}
