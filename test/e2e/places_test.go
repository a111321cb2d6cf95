//go:build integration

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A server that is told in which places repositories lie refuses others in every request: when resources are given to it, and,
// where a link in a place has come to lead elsewhere, whenever they are used. What lies elsewhere is neither read nor changed,
// though it is a repository with the very id.
func TestServerKeepsToItsPlaces(t *testing.T) {
	t.Parallel()
	needTool(t, "curl")
	s := newServed(t, 1, 2*mib)
	root := filepath.Dir(s.vault)
	at := func(name string) string { return filepath.Join(root, name) }
	real := s.vault
	s.vault = at("vaults/link")
	link := func(to, name string) error {
		_ = os.Remove(name)
		return os.Symlink(to, name)
	}
	if err := errors.Join(os.Mkdir(at("vaults"), 0o700), os.Mkdir(at("elsewhere"), 0o700), os.Rename(real, at("vaults/vault")), link("vault", s.vault)); err != nil {
		t.Fatal(err)
	}
	s.options = []string{"--place", s.source, "--place", at("vaults"), "--place", "s3+http://127.0.0.1:1/bucket"}
	s.serve()

	// Given to it.
	outside := func(location string) string {
		return fmt.Sprintf("kind: Repository\nname: other\nlocation: %s\n", location)
	}
	job := "---\nkind: Job\nname: mapped\nsource: {repositories: [src]}\ntarget: {repository: other, map: [{machine: \"*\", backup: \"offsite/*\"}]}\n"
	for _, location := range []string{at("elsewhere"), "/etc", at("vaults") + "/../elsewhere", "s3+http://127.0.0.1:2/bucket/vault", "s3://bucket/vault"} {
		wantIn(t, "apply "+location, s.curlApply(422, s.manual()+"---\n"+outside(location)), `"path":"location"`, `"line":18,"column":11`)
		wantIn(t, "map "+location, s.curlApply(422, s.manual()+"---\n"+outside(location)+job), `"path":"location"`)
		wantIn(t, "put "+location, s.curl(422, "/v1/resources/Repository/other", "--request", "PUT", "--header", "If-None-Match: *", "--json", `{"document":`+fmt.Sprintf("%q", outside(location))+`}`),
			`"path":"location"`, `"line":3,"column":11`)
	}
	other := at("elsewhere/other")
	s.u.want(0, "repo", "init", other)
	if r := s.u.want(2, "adopt", other, "--socket", s.socket, "--as", "other"); !strings.Contains(r.err, "in no allowed folder") {
		t.Errorf("adopt: %v", r)
	}
	if list := s.curl(200, "/v1/resources"); list != "[]\n" {
		t.Errorf("what was refused left %s", list)
	}

	// Used.
	s.apply(s.manual())
	if first := s.session("offsite"); first.State != "done" || len(first.Report.did("copy")) != 1 {
		t.Fatalf("%+v", first)
	}
	twin := at("elsewhere/vault")
	if out, err := exec.Command("cp", "-a", at("vaults/vault"), twin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.machine(1, mib)
	// waits begins a session that waits, and returns the status as it does.
	waits := func() string {
		t.Helper()
		session := s.begin("offsite")
		s.until("the session waits", func() bool {
			var now servedSession
			s.get(fmt.Sprint("/v1/sessions/", session), &now)
			return now.State == "waiting"
		})
		defer s.idle()
		defer s.curl(202, "/v1/jobs/offsite/stop", "--request", "POST")
		return s.curl(200, "/v1/status")
	}
	refuses := func(what string) {
		t.Helper()
		before := sumTree(t, twin)
		wantIn(t, what+": explain", s.curl(503, "/v1/jobs/offsite/explain"), what)
		wantIn(t, what+": simulate", s.curl(503, "/v1/jobs/offsite/simulate"), what)
		wantIn(t, what+": rebuild", s.curl(200, "/v1/catalog/rebuild", "--request", "POST"), what)
		wantIn(t, what+": release", s.curl(409, "/v1/resources/Job/offsite?release=true", "--request", "DELETE", "--header", "If-Match: *"), what)
		wantIn(t, what+": status", waits(), `"target unreadable: `, what)
		if after := sumTree(t, twin); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s: the other repository was %v, is %v", what, before, after)
		}
	}
	if err := link("../elsewhere/vault", s.vault); err != nil {
		t.Fatal(err)
	}
	refuses("leads to " + twin)
	s.end(syscall.SIGTERM)
	s.options = []string{"--place", s.source} // what was applied before is refused too
	s.serve()
	refuses(s.vault + " is in no allowed folder")
	s.end(syscall.SIGTERM)
	s.options = append(s.options, "--place", at("vaults"))
	if err := link("vault", s.vault); err != nil {
		t.Fatal(err)
	}
	s.serve()

	if again := s.session("offsite"); again.State != "done" || len(again.Report.did("copy")) != 1 {
		t.Errorf("%+v", again)
	}

	// A source that comes to lead elsewhere.
	images := at("src/images")
	if err := errors.Join(os.Mkdir(at("src/inside"), 0o700), os.Mkdir(at("stranger"), 0o700), link("inside", images)); err != nil {
		t.Fatal(err)
	}
	contentFile(t, at("stranger/vm9.raw"), 77, mib)
	s.apply(strings.Replace(s.manual(), "location: "+s.source+"\n", "location: "+images+"\n", 1))
	if err := link("../stranger", images); err != nil {
		t.Fatal(err)
	}
	wantIn(t, "a source by a link", waits(), "leads to "+at("stranger"))
	if points := s.u.points(at("vaults/vault")); len(points) != 2 {
		t.Errorf("%+v", points)
	}
	s.end(syscall.SIGTERM)
}
