package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
