package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

func (f *fixture) delete(kind, name, query string) answered {
	f.t.Helper()
	return f.do("DELETE", resourcePath(kind, name)+query, "", "If-Match", "*")
}

func (f *fixture) enabled(job string) bool {
	f.t.Helper()
	state, err := f.Catalog.Jobs.State(f.t.Context(), job)
	if err != nil {
		f.t.Fatal(err)
	}
	return state.Enabled
}

func TestWhatIsInUseIsNotDeleted(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML() + "---\n" + jobYAML("copy", "pve", "vault", "schedule: {after: offsite}\n"))
	for _, c := range []struct{ kind, name, users string }{
		{"Repository", "pve", "job copy, job offsite"},
		{"Repository", "vault", "job copy, job offsite"},
		{"Job", "offsite", "job copy"},
	} {
		a := f.delete(c.kind, c.name, "")
		if a.status != 409 || a.problem.Code != api.CodeUsed || !strings.Contains(a.problem.Detail, "in use by "+c.users) {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
	}
	if got := f.stored(); got != "job copy, job offsite, repository pve, repository vault" {
		t.Errorf("left: %s", got)
	}
	for _, of := range [][2]string{{"Job", "copy"}, {"Job", "offsite"}, {"Repository", "vault"}, {"Repository", "pve"}} {
		if a := f.delete(of[0], of[1], ""); a.status != 204 {
			t.Errorf("%v: %d %s", of, a.status, a.body)
		}
	}
	if got := f.stored(); got != "" {
		t.Errorf("left: %s", got)
	}
}

// A job that the scheduler has not come to yet is not enabled by it while it is deleted.
func TestDeletedJobThatIsNew(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	if a := f.delete("Job", "offsite", ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if err := f.Catalog.Jobs.EnableNew(t.Context(), "offsite"); err != nil { // by one who had looked before
		t.Fatal(err)
	}
	if f.enabled("offsite") {
		t.Error("the deleted job is enabled")
	}
}

// A deleted job is an orphan: its last document stays, by which its points are kept.
func TestDeletedJobKeepsItsPolicy(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Release = func(context.Context, policy.Resources, string) error { return errors.New("nobody asked for it") }
	})
	f.applied(threeYAML())
	if a := f.delete("Job", "offsite", ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	orphans, err := f.Catalog.Resources.List(t.Context(), true, kindJob)
	if err != nil || len(orphans) != 1 || !strings.Contains(orphans[0].Document, "name: offsite") {
		t.Errorf("%+v, %v", orphans, err)
	}
}

func TestRunningJobIsNotDeleted(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	if err := f.Catalog.Jobs.Enable(t.Context(), "offsite"); err != nil {
		t.Fatal(err)
	}
	_, lease, err := f.Catalog.Sessions.Begin(t.Context(), catalog.NewSession{Job: "offsite"}, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a := f.delete("Job", "offsite", "")
	if a.status != 409 || a.problem.Code != api.CodeRunning {
		t.Errorf("%d %s", a.status, a.body)
	}
	if !f.enabled("offsite") || !strings.Contains(f.stored(), "job offsite") {
		t.Errorf("enabled %v, stored %s", f.enabled("offsite"), f.stored())
	}
	if err := f.Catalog.Sessions.End(t.Context(), lease, catalog.SessionDone, "", nil); err != nil {
		t.Fatal(err)
	}
	if a := f.delete("Job", "offsite", ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// While a job is told to begin or to be enabled, its deletion does not begin.
func TestDeletionWaitsForABeginning(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	calls := 0
	f.scheduler.onStart = func() {
		if calls++; f.changing.TryLock() {
			f.changing.Unlock()
			t.Error("the job could be deleted meanwhile")
		}
	}
	f.expect(202, "POST", "/v1/jobs/offsite/run", "")
	f.expect(204, "POST", "/v1/jobs/offsite/enable", "")
	if calls != 2 {
		t.Errorf("the scheduler was told %d times", calls)
	}
}

func TestRelease(t *testing.T) {
	var released []string
	var failure error
	var during func()
	f := newFixture(t, func(o *Options) {
		o.Release = func(_ context.Context, resources policy.Resources, job string) error {
			if _, there := resources.Job(job); !there {
				return errors.New("the job is not among its resources")
			}
			if during != nil {
				during()
			}
			released = append(released, job)
			return failure
		}
	})
	f.applied(threeYAML())
	if err := f.Catalog.Jobs.Enable(t.Context(), "offsite"); err != nil {
		t.Fatal(err)
	}
	if a := f.delete("Repository", "pve", "?release=true"); a.status != 422 {
		t.Errorf("of a repository: %d %s", a.status, a.body)
	}
	failure = errors.New("target offline: is the disk mounted?")
	a := f.delete("Job", "offsite", "?release=true")
	if a.status != 409 || !strings.Contains(a.problem.Detail, "is the disk mounted?") || len(released) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if !f.enabled("offsite") || !strings.Contains(f.stored(), "job offsite") {
		t.Errorf("the job did not stay as it was: enabled %v, stored %s", f.enabled("offsite"), f.stored())
	}
	during = func() { panic("the inside of a repository") }
	if a := f.delete("Job", "offsite", "?release=true"); a.status != 500 || !f.enabled("offsite") {
		t.Errorf("after a panic: %d %s, enabled %v", a.status, a.body, f.enabled("offsite"))
	}
	// The scheduler was about to begin a session when the job was switched off.
	var lease catalog.SessionLease
	failure, during = nil, func() {
		var err error
		_, lease, err = f.Catalog.Sessions.Begin(t.Context(), catalog.NewSession{Job: "offsite"}, "test", time.Minute)
		must(t, err)
	}
	if a := f.delete("Job", "offsite", "?release=true"); a.status != 409 || a.problem.Code != api.CodeRunning || !f.enabled("offsite") {
		t.Errorf("with a session: %d %s, enabled %v", a.status, a.body, f.enabled("offsite"))
	}
	must(t, f.Catalog.Sessions.End(t.Context(), lease, catalog.SessionDone, "", nil))
	// While claims are withdrawn nothing of the job begins, it is not changed or deleted by others, and others go on.
	failure, during = nil, func() {
		if f.enabled("offsite") {
			t.Error("the job is enabled while its claims are withdrawn")
		}
		changed := asJSON(api.Apply{Documents: jobYAML("offsite", "pve", "vault", "rpo: 26h\n")})
		for _, a := range []answered{f.delete("Job", "offsite", ""), f.do("POST", api.PathApply, changed)} {
			if a.status != 409 || !strings.Contains(a.problem.Detail, "is being deleted") {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		if a := f.do("POST", "/v1/jobs/offsite/run", ""); a.status != 409 {
			t.Errorf("begins: %d %s", a.status, a.body)
		}
		f.applied(repositoryYAML("usb"))
	}
	if a := f.delete("Job", "offsite", "?release=true"); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := f.stored(); got != "repository pve, repository usb, repository vault" || len(released) != 3 {
		t.Errorf("left %s; released %v", got, released)
	}
	during = nil
	f.applied(jobYAML("offsite", "pve", "vault"))
	f.Release = nil
	if a := f.delete("Job", "offsite", "?release=true"); a.status != 501 || !strings.Contains(f.stored(), "job offsite") {
		t.Errorf("without a way to: %d %s", a.status, a.body)
	}
}
