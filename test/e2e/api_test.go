//go:build integration

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// apiSite is a server that curl speaks to.
type apiSite struct {
	t       *testing.T
	root    string
	socket  string // in a folder of its own, whose path is short
	command *exec.Cmd
	log     *bytes.Buffer
}

func newAPISite(t *testing.T) *apiSite {
	t.Helper()
	needTool(t, "curl")
	short, err := os.MkdirTemp("", "ferry")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	s := &apiSite{t: t, root: t.TempDir(), socket: filepath.Join(short, "s")}
	for _, dir := range []string{"src", "secrets"} {
		if err := os.Mkdir(filepath.Join(s.root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	contentFile(t, filepath.Join(s.root, "src", "vm1.raw"), 1, 3*mib)
	if out, err := exec.Command(program, "repo", "init", filepath.Join(s.root, "vault")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

func (s *apiSite) arguments() []string {
	return []string{"serve", "--state", filepath.Join(s.root, "state"), "--socket", s.socket, "--allow", filepath.Join(s.root, "secrets")}
}

// begin starts the server and waits until it answers.
func (s *apiSite) begin() {
	s.t.Helper()
	s.log = &bytes.Buffer{}
	s.command = exec.Command(program, s.arguments()...)
	s.command.Stdout, s.command.Stderr = s.log, s.log
	if err := s.command.Start(); err != nil {
		s.t.Fatal(err)
	}
	command := s.command
	s.t.Cleanup(func() { _ = command.Process.Kill() })
	out, err := exec.Command("curl", "--silent", "--fail", "--unix-socket", s.socket, "--retry", "100", "--retry-delay", "0", "--retry-all-errors",
		"--retry-max-time", "60", "http://ferry/health/ready").CombinedOutput()
	if err != nil {
		s.t.Fatalf("the server is not ready: %v %s", err, out)
	}
}

// end ends the server by a signal, and returns its exit code; -1 if the signal ended it.
func (s *apiSite) end(signal syscall.Signal) int {
	s.t.Helper()
	if err := s.command.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
	err := s.command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return s.command.ProcessState.ExitCode()
}

// curl asks the server and wants a status.
func (s *apiSite) curl(status int, path string, args ...string) string {
	s.t.Helper()
	args = append([]string{"--silent", "--show-error", "--max-time", "60", "--unix-socket", s.socket, "--write-out", "\n%{http_code}"}, args...)
	out, err := exec.Command("curl", append(args, "http://ferry"+path)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("curl %s: %v\n%s", path, err, out)
	}
	at := bytes.LastIndexByte(out, '\n')
	if got := string(out[at+1:]); got != fmt.Sprint(status) {
		s.t.Fatalf("curl %s %q: %s, not %d: %s", path, args, got, status, out[:at])
	}
	return string(out[:at])
}

func (s *apiSite) apply(status int, documents string) string {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"documents": documents})
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.root, "apply.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.curl(status, "/v1/apply", "--json", "@"+file)
}

func (s *apiSite) resources() string {
	return fmt.Sprintf("# where machines are\nkind: Repository\nname: src\nlocation: %s/src\n---\nkind: Repository\nname: vault\nlocation: %s/vault\n---\n", s.root, s.root) +
		"kind: Job\nname: offsite\nsource: {repositories: [src]}\ntarget: {repository: vault}\nschedule: {mode: manual}\n"
}

// wantIn fails if any of some texts is not there.
func wantIn(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

// The interface as docs/api.md shows it, by curl: a job is applied, run, followed, looked at, and deleted.
func TestInterfaceByCurl(t *testing.T) {
	s := newAPISite(t)
	s.begin()
	wantIn(t, "live", s.curl(200, "/health/live"), `"ok":true`)
	committed, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.curl(200, "/openapi.json"); got != string(committed) {
		t.Error("the description is not the one in docs/openapi.json")
	}
	wantIn(t, "apply", s.apply(200, s.resources()), `"outcome":"created"`)
	wantIn(t, "resource", s.curl(200, "/v1/resources/Repository/src", "--include"), "Etag: \"1\"", "# where machines are")
	wantIn(t, "run", s.curl(202, "/v1/jobs/offsite/run", "--request", "POST"), `"session":1`)
	events := s.curl(200, "/v1/sessions/1/events", "--no-buffer")
	if !strings.HasPrefix(events, "event: session\n") || !strings.Contains(events, "\nevent: end\ndata: {\"kind\":\"end\"") {
		t.Errorf("events: %s", events)
	}
	wantIn(t, "session", s.curl(200, "/v1/sessions/1"), `"state":"done"`, `"report":{`, `"name":"vm1"`)
	wantIn(t, "sessions", s.curl(200, "/v1/sessions?limit=1"), `"id":1`)
	wantIn(t, "status", s.curl(200, "/v1/status"), `"machinesTotal":1`, `"name":"vm1"`)
	wantIn(t, "metrics", s.curl(200, "/metrics"), "\nferry_machine_copy_age_seconds{job=\"offsite\",machine=\"image/src/vm1.raw\",name=\"vm1\"} ", "\nferry_repository_points{repository=\"vault\"} 1\n")
	wantIn(t, "explain", s.curl(200, "/v1/jobs/offsite/explain"), `"selected":true`)
	wantIn(t, "rebuild", s.curl(200, "/v1/catalog/rebuild", "--request", "POST"), `"points":1,"error":""`)
	wantIn(t, "in use", s.curl(409, "/v1/resources/Repository/vault", "--request", "DELETE", "--header", "If-Match: *"), "in use by job offsite")
	s.curl(428, "/v1/resources/Job/offsite", "--request", "DELETE")
	s.curl(204, "/v1/resources/Job/offsite?release=true", "--request", "DELETE", "--header", `If-Match: "3"`)
	if out, err := exec.Command(program, "--json", "points", filepath.Join(s.root, "vault")).Output(); err != nil || strings.Contains(string(out), `"vm1"`) {
		t.Errorf("after release the target has %s, %v", out, err)
	}
	if code := s.end(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d\n%s", code, s.log)
	}
	if _, err := os.Lstat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What is refused: pages of browsers, files outside of what is allowed, also by a link that is put there later, a second
// server. A server that was killed leaves a socket that keeps nobody from starting the next one.
func TestInterfaceRefuses(t *testing.T) {
	s := newAPISite(t)
	s.begin()
	wantIn(t, "a page", s.curl(403, "/v1/status", "--header", "Origin: https://example.com"), "web pages")
	wantIn(t, "shadow", s.apply(422, s.resources()+"---\nkind: Repository\nname: x\nlocation: /srv/x\npassphrase: {file: /etc/shadow}\n"), `"path":"passphrase.file"`, "in no allowed folder")
	wantIn(t, "a script", s.apply(422, s.resources()+"scripts: {pre: {run: [/bin/sh, -c, id]}}\n"), "in no allowed folder")
	if list := s.curl(200, "/v1/resources"); list != "[]\n" {
		t.Errorf("they left %s", list)
	}

	secret := filepath.Join(s.root, "secrets", "passphrase")
	if err := os.WriteFile(secret, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(200, strings.Replace(s.resources(), "/vault\n", "/vault\npassphrase: {file: "+secret+"}\n", 1))
	if err := errors.Join(os.Remove(secret), os.Symlink("/etc/shadow", secret)); err != nil {
		t.Fatal(err)
	}
	wantIn(t, "a link that came later", s.curl(503, "/v1/jobs/offsite/explain"), "in no allowed folder")

	second := exec.Command(program, s.arguments()...)
	out, err := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 6 || !strings.Contains(string(out), "already") {
		t.Errorf("a second server: %v\n%s", err, out)
	}
	other := exec.Command(program, "serve", "--state", filepath.Join(s.root, "other"), "--socket", s.socket)
	out, err = other.CombinedOutput()
	if other.ProcessState.ExitCode() != 6 || !strings.Contains(string(out), "a server runs already") {
		t.Errorf("a second server with a state of its own: %v\n%s", err, out)
	}

	s.end(syscall.SIGKILL)
	if there, err := os.Lstat(s.socket); err != nil || time.Since(there.ModTime()) < 0 {
		t.Fatalf("the socket of the killed server: %v", err)
	}
	s.begin()
	wantIn(t, "after the kill", s.curl(200, "/v1/resources/Job/offsite"), `"kind":"Job"`)
	if code := s.end(syscall.SIGINT); code != 0 && code != 130 {
		t.Errorf("it ended with %d\n%s", code, s.log)
	}
}
