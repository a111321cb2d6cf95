//go:build integration

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fenced is the first block of a page in a language.
func fenced(t *testing.T, page, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, block, begins := strings.Cut(string(text), "```"+language+"\n")
	block, _, ends := strings.Cut(block, "```")
	if !begins || !ends {
		t.Fatalf("docs/%s has no block of %s", page, language)
	}
	return block
}

// The script of docs/alerts.md mails what needs a person, and nothing when all is well.
func TestAlertsScript(t *testing.T) {
	u, folder, tools := newUser(t), t.TempDir(), t.TempDir()
	alarm, mailed := filepath.Join(folder, "alarm"), filepath.Join(folder, "mailed")
	for path, content := range map[string]string{
		alarm:                        fenced(t, "alerts.md", "sh"),
		filepath.Join(tools, "mail"): "#!/bin/sh\n{ printf '%s|' \"$@\"; echo; cat; } >>" + mailed + "\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	u.env = append(u.env, "PATH="+tools+":"+os.Getenv("PATH"))
	images, file := filepath.Join(folder, "images"), filepath.Join(folder, "job.yaml")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(images, "web.raw")
	contentFile(t, raw, 91, mib)
	old := time.Now().Add(-100 * time.Hour)
	if err := os.Chtimes(raw, old, old); err != nil {
		t.Fatal(err)
	}
	job := fmt.Sprintf(`{kind: Repository, name: disks, location: %q}
---
{kind: Repository, name: vault, location: %q}
---
kind: Job
name: offsite
source: {repositories: [disks]}
target: {repository: vault}
retention: {points: 9}
rpo: 26h
scripts: {post: {run: [%q, admin@example.org]}}
`, images, filepath.Join(folder, "vault"), alarm)
	if err := os.WriteFile(file, []byte(job), 0o600); err != nil {
		t.Fatal(err)
	}
	u.want(0, "repo", "init", filepath.Join(folder, "vault"))
	u.run("job", "run", "--once", "-f", file) // it ends with the code for alarms
	text, err := os.ReadFile(mailed)
	if err != nil {
		t.Fatal(err)
	}
	mentions(t, string(text), "-s|Ferry: job offsite: done|admin@example.org|", "1 copied, 0 failed, 0 removed", "web", "rpo")
	if err := os.Remove(mailed); err != nil {
		t.Fatal(err)
	}
	contentFile(t, raw, 92, mib) // made just now
	u.want(0, "job", "run", "--once", "-f", file)
	if text, err := os.ReadFile(mailed); err == nil {
		t.Errorf("mailed though all is well: %s", text)
	}
}

// The rules of docs/alerts.md ask for metrics that docs/metrics.md has, of which a test sees to it that the server tells them.
func TestAlertsRules(t *testing.T) {
	metrics, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\bferry_[a-z_]+`).FindAllString(fenced(t, "alerts.md", "yaml"), -1)
	if len(names) < 6 {
		t.Fatalf("the rules ask for %v", names)
	}
	for _, name := range names {
		if !strings.Contains(string(metrics), "`"+name) {
			t.Errorf("%s is no metric of docs/metrics.md", name)
		}
	}
}
