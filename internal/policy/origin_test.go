package policy

import (
	"strings"
	"testing"
)

// A job needs what it copies on or comes after, and what that needs: not what a repository alone knows of, and not who needs it.
func TestNeeded(t *testing.T) {
	all := parse(t, `
{kind: Repository, name: src, location: /src}
---
{kind: Repository, name: a, location: /a}
---
{kind: Repository, name: b, location: /b}
---
{kind: Repository, name: c, location: /c}
---
{kind: Job, name: first, source: {repositories: [src]}, target: {repository: a}}
---
{kind: Job, name: beside, source: {repositories: [src]}, target: {repository: b}}
---
{kind: Job, name: second, source: {jobs: [first, src/nightly]}, target: {repository: b}, schedule: {after: beside}}
---
{kind: Job, name: third, source: {backups: [b/second/web]}, target: {repository: c}, schedule: {after: second}}
`)
	for job, want := range map[string]string{"first": "", "beside": "", "second": "beside first", "third": "beside first second"} {
		of, _ := all.Job(job)
		var names []string
		for _, needed := range all.Needed(of) {
			names = append(names, needed.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s needs %q, want %q", job, got, want)
		}
	}
	second, _ := all.Job("second")
	var names []string
	for _, r := range all.Named(second) {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "b a src" {
		t.Errorf("second names %q", got)
	}
}
