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
)

// newAsked is a server that curl asks, with a machine to copy.
func newAsked(t *testing.T) *served {
	t.Helper()
	needTool(t, "curl")
	s := newServed(t, 1, 3*mib)
	s.serve()
	return s
}

// curl asks the server and wants a status.
func (s *served) curl(status int, path string, args ...string) string {
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

// curlApply applies documents, and wants a status.
func (s *served) curlApply(status int, documents string) string {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{"documents": documents})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.curl(status, "/v1/apply", "--json", string(body))
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
	t.Parallel()
	s := newAsked(t)
	wantIn(t, "live", s.curl(200, "/health/live"), `"ok":true`)
	committed, err := os.ReadFile(filepath.Join(moduleRoot, "docs", "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.curl(200, "/openapi.json"); got != string(committed) {
		t.Error("the description is not the one in docs/openapi.json")
	}
	wantIn(t, "apply", s.curlApply(200, "# where machines are\n"+s.manual()), `"outcome":"created"`)
	wantIn(t, "resource", s.curl(200, "/v1/resources/Repository/src", "--include"), "Etag: \"1\"", "# where machines are")
	wantIn(t, "run", s.curl(202, "/v1/jobs/offsite/run", "--request", "POST"), `"session":1`)
	events := s.curl(200, "/v1/sessions/1/events", "--no-buffer")
	if !strings.HasPrefix(events, "event: session\n") || !strings.Contains(events, "\nevent: end\ndata: {\"kind\":\"end\"") {
		t.Errorf("events: %s", events)
	}
	wantIn(t, "session", s.curl(200, "/v1/sessions/1"), `"state":"done"`, `"report":{`, `"name":"vm0"`)
	wantIn(t, "sessions", s.curl(200, "/v1/sessions?limit=1"), `"id":1`)
	wantIn(t, "status", s.curl(200, "/v1/status"), `"machinesTotal":1`, `"name":"vm0"`)
	wantIn(t, "metrics", s.curl(200, "/metrics"), "\nferry_machine_copy_age_seconds{job=\"offsite\",machine=\"image/src/vm0.raw\",name=\"vm0\"} ", "\nferry_repository_points{repository=\"vault\"} 1\n")
	wantIn(t, "explain", s.curl(200, "/v1/jobs/offsite/explain"), `"selected":true`)
	wantIn(t, "rebuild", s.curl(200, "/v1/catalog/rebuild", "--request", "POST"), `"points":1,"error":""`)
	wantIn(t, "in use", s.curl(409, "/v1/resources/Repository/vault", "--request", "DELETE", "--header", "If-Match: *"), "in use by job offsite")
	s.curl(428, "/v1/resources/Job/offsite", "--request", "DELETE")
	s.curl(204, "/v1/resources/Job/offsite?release=true", "--request", "DELETE", "--header", `If-Match: "3"`)
	if left := s.u.points(s.vault); len(left) != 0 {
		t.Errorf("after release the target has %+v", left)
	}
	s.end(syscall.SIGTERM)
	if _, err := os.Lstat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What is refused: pages of browsers, files outside of what is allowed, also by a link that is put there later, a second
// server. A server that was killed leaves a socket that keeps nobody from starting the next one.
func TestInterfaceRefuses(t *testing.T) {
	t.Parallel()
	s := newAsked(t)
	wantIn(t, "a page", s.curl(403, "/v1/status", "--header", "Origin: https://example.com"), "web pages")
	wantIn(t, "shadow", s.curlApply(422, s.manual()+"---\nkind: Repository\nname: x\nlocation: /srv/x\npassphrase: {file: /etc/shadow}\n"), `"path":"passphrase.file"`, "in no allowed folder")
	wantIn(t, "a script", s.curlApply(422, s.manual()+"scripts: {pre: {run: [/bin/sh, -c, id]}}\n"), "in no allowed folder")
	if list := s.curl(200, "/v1/resources"); list != "[]\n" {
		t.Errorf("they left %s", list)
	}

	secret := s.passphrase()
	s.curlApply(200, strings.Replace(s.manual(), "/vault\n", "/vault\npassphrase: {file: "+secret+"}\n", 1))
	if err := errors.Join(os.Remove(secret), os.Symlink("/etc/shadow", secret)); err != nil {
		t.Fatal(err)
	}
	wantIn(t, "a link that came later", s.curl(503, "/v1/jobs/offsite/explain"), "in no allowed folder")

	if second := s.u.want(6, s.arguments()...); !strings.Contains(second.err, "already") {
		t.Errorf("a second server: %v", second)
	}
	if other := s.u.want(6, "serve", "--state", filepath.Join(t.TempDir(), "other"), "--socket", s.socket); !strings.Contains(other.err, "a server runs already") {
		t.Errorf("a second server with a state of its own: %v", other)
	}

	s.end(syscall.SIGKILL)
	if _, err := os.Lstat(s.socket); err != nil {
		t.Fatalf("the socket of the killed server: %v", err)
	}
	s.serve()
	wantIn(t, "after the kill", s.curl(200, "/v1/resources/Job/offsite"), `"kind":"Job"`)
	s.end(syscall.SIGINT)
}
