//go:build integration

package e2e

import (
	"fmt"
	"os"
	"os/exec"
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
	t.Parallel()
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
	// A machine whose backup is still being written is left to the next session; a target that is gone is not.
	writing := filepath.Join(images, "vzdump-qemu-100-2026_01_01-01_00_00.vma")
	for _, path := range []string{writing + ".dat", writing + ".log"} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	anyAge := filepath.Join(folder, "any-age.yaml") // that it has no copy yet is no alarm then
	if err := os.WriteFile(anyAge, []byte(strings.Replace(job, "rpo: 26h\n", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	mentions(t, u.run("job", "run", "--once", "-f", anyAge).out, "job offsite: waiting; 0 copied")
	// Nor is a window that is closed.
	closed := filepath.Join(folder, "closed.yaml")
	day := strings.ToLower(time.Now().AddDate(0, 0, 3).Format("Mon"))
	window := "window: {allow: [\"" + day + " 01:00-02:00\"]}\n"
	if err := os.WriteFile(closed, []byte(strings.Replace(job, "rpo: 26h\n", window, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	mentions(t, u.run("job", "run", "--once", "-f", closed).out, "job offsite: waiting; 0 copied", "the window is closed until")
	if text, err := os.ReadFile(mailed); err == nil {
		t.Errorf("mailed though nobody is needed: %s", text)
	}
	if err := os.Rename(filepath.Join(folder, "vault"), filepath.Join(folder, "unplugged")); err != nil {
		t.Fatal(err)
	}
	u.run("job", "run", "--once", "-f", file)
	if text, err = os.ReadFile(mailed); err != nil {
		t.Fatal(err)
	}
	mentions(t, string(text), "-s|Ferry: job offsite: waiting|admin@example.org|", "target offline")
}

// The rules of docs/alerts.md ask for metrics that docs/metrics.md has, of which a test sees to it that the server tells them.
func TestAlertsRules(t *testing.T) {
	t.Parallel()
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

// The rules of docs/alerts.md fire over series that call for it, each once it has been so for its time, and not before, nor where all is
// well. After the server has ended its last figures stay, and only the age of the file tells.
func TestAlertsRulesFire(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for name, content := range map[string]string{"rules.yaml": fenced(t, "alerts.md", "yaml"), "test.yaml": `rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - name: all is well, and trouble that passes
    interval: 1m
    input_series:
      - {series: 'ferry_info{version="0.1.0"}', values: '1x120'}
      - {series: 'ferry_catalog_up', values: '1x20 0x10 1x90'}
      - {series: 'node_textfile_mtime_seconds{file="/var/lib/node_exporter/ferry.prom"}', values: '0+60x120'}
      - {series: 'ferry_machine_copy_too_old{job="offsite",machine="proxmox/100/x",name="web01"}', values: '0x50 1x3 0x70'}
      - {series: 'ferry_alarms{level="critical",kind="rpo"}', values: '_x50 1x3 stale _x70'}
      - {series: 'ferry_alarms{level="critical",kind="target"}', values: '_x50 1x3 stale _x70'}
      - {series: 'ferry_alarms{level="warning",kind="lag"}', values: '_x20 1x20 stale _x80'}
      - {series: 'ferry_repository_full_timestamp_seconds{repository="vault"}', values: '2592000x120'}
    alert_rule_test:
ALL
  - name: a server that has ended
    interval: 1m
    input_series:
      - {series: 'ferry_info{version="0.1.0"}', values: '1x120'}
      - {series: 'ferry_catalog_up', values: '1x120'}
      - {series: 'node_textfile_mtime_seconds{file="/var/lib/node_exporter/ferry.prom"}', values: '0+60x10 600x110'}
    alert_rule_test:
      - {eval_time: 40m, alertname: FerryDoesNotAnswer, exp_alerts: []}
      - eval_time: 41m
        alertname: FerryDoesNotAnswer
        exp_alerts:
          - exp_labels: {severity: critical, file: /var/lib/node_exporter/ferry.prom}
            exp_annotations: {summary: "No Ferry server answers, or it cannot read its catalog"}
  - name: no metrics at all
    interval: 1m
    input_series: []
    alert_rule_test:
      - {eval_time: 14m, alertname: FerryDoesNotAnswer, exp_alerts: []}
      - eval_time: 15m
        alertname: FerryDoesNotAnswer
        exp_alerts:
          - exp_labels: {severity: critical}
            exp_annotations: {summary: "No Ferry server answers, or it cannot read its catalog"}
  - name: a catalog that cannot be read
    interval: 1m
    input_series:
      - {series: 'ferry_info{version="0.1.0"}', values: '1x60'}
      - {series: 'ferry_catalog_up', values: '0x60'}
      - {series: 'node_textfile_mtime_seconds{file="/var/lib/node_exporter/ferry.prom"}', values: '0+60x60'}
    alert_rule_test:
      - eval_time: 15m
        alertname: FerryDoesNotAnswer
        exp_alerts:
          - exp_labels: {severity: critical}
            exp_annotations: {summary: "No Ferry server answers, or it cannot read its catalog"}
  - name: what needs a person
    interval: 1m
    input_series:
      - {series: 'ferry_info{version="0.1.0"}', values: '1x120'}
      - {series: 'ferry_machine_copy_too_old{job="offsite",machine="proxmox/100/x",name="web01"}', values: '0x20 1x100'}
      - {series: 'ferry_machine_copy_too_old{job="offsite",machine="proxmox/101/y",name="db01"}', values: '0x120'}
      - {series: 'ferry_alarms{level="critical",kind="rpo"}', values: '_x21 1x100'}
      - {series: 'ferry_alarms{level="critical",kind="damage"}', values: '_x21 2x100'}
      - {series: 'ferry_alarms{level="warning",kind="lag"}', values: '_x21 1x100'}
      - {series: 'ferry_repository_full_timestamp_seconds{repository="vault"}', values: '604800x120'}
      - {series: 'ferry_repository_full_timestamp_seconds{repository="large"}', values: '2592000x120'}
    alert_rule_test:
      - {eval_time: 25m, alertname: FerryCopyTooOld, exp_alerts: []}
      - eval_time: 26m
        alertname: FerryCopyTooOld
        exp_alerts:
          - exp_labels: {severity: critical, job: offsite, machine: proxmox/100/x, name: web01}
            exp_annotations: {summary: "The copy that job offsite has of web01 is older than allowed, or there is none"}
      - {eval_time: 25m, alertname: FerryAlarm, exp_alerts: []}
      - eval_time: 26m
        alertname: FerryAlarm
        exp_alerts:
          - exp_labels: {severity: critical, kind: damage}
            exp_annotations: {summary: "Ferry: damage; ferry status says more"}
      - {eval_time: 50m, alertname: FerryWarning, exp_alerts: []}
      - eval_time: 51m
        alertname: FerryWarning
        exp_alerts:
          - exp_labels: {severity: warning, kind: lag}
            exp_annotations: {summary: "Ferry: lag; ferry status says more"}
      - {eval_time: 59m, alertname: FerryRepositoryFillsUp, exp_alerts: []}
      - eval_time: 60m
        alertname: FerryRepositoryFillsUp
        exp_alerts:
          - exp_labels: {severity: warning, repository: vault}
            exp_annotations: {summary: "Repository vault will be full in 6d 23h 0m 0s"}
`} {
		var none strings.Builder
		for _, name := range []string{"FerryDoesNotAnswer", "FerryCopyTooOld", "FerryAlarm", "FerryWarning", "FerryRepositoryFillsUp"} {
			for _, at := range []int{30, 45, 54, 58, 120} {
				fmt.Fprintf(&none, "      - {eval_time: %dm, alertname: %s, exp_alerts: []}\n", at, name)
			}
		}
		content = strings.Replace(content, "ALL\n", none.String(), 1)
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("promtool", "test", "rules", "test.yaml")
	command.Dir = folder
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
