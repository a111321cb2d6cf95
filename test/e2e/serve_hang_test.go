//go:build integration

package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// share is a folder that bindfs serves in the place of another, and that can stop answering.
type share struct {
	t      *testing.T
	server *os.Process
}

// mountShare serves a folder at another until the test ends. Nothing of what is read is kept in the page cache for the next reader.
func mountShare(t *testing.T, from, to string) *share {
	t.Helper()
	needRoot(t)
	needTool(t, "bindfs")
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lacks(t, "nothing can be mounted by FUSE here: %v", err)
	}
	fuse.Close()
	cmd := exec.Command("bindfs", "-f", "-o", "direct_io", from, to)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &share{t: t, server: cmd.Process}
	t.Cleanup(func() {
		s.answers(true)
		if out, err := exec.Command("umount", "--lazy", to).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
		_ = cmd.Wait()
	})
	for end := time.Now().Add(runLimit); ; time.Sleep(time.Millisecond) {
		content, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), " "+to+" fuse") {
			return s
		}
		if time.Now().After(end) {
			t.Fatal("bindfs mounts nothing")
		}
	}
}

// answers lets the share answer, or stops it in the middle of what it does.
func (s *share) answers(does bool) {
	signal := syscall.SIGSTOP
	if does {
		signal = syscall.SIGCONT
	}
	if err := s.server.Signal(signal); err != nil {
		s.t.Error(err)
	}
}

// A share stops answering while a server copies from it, and the window closes. The session has a checkpoint and waits for the
// window within 30 s; the source is unreadable until it answers; then the same session copies the rest, once the window is open.
func TestServerKeepsTheWindowOfASourceThatHangs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a window ends at a full minute")
	}
	s := newServed(t, 0, 0)
	const size = 96 * mib
	behind := filepath.Join(filepath.Dir(s.source), "behind")
	if err := os.Mkdir(behind, 0o700); err != nil {
		t.Fatal(err)
	}
	contentFile(t, filepath.Join(behind, "vm0.raw"), 5, size)
	s.want["vm0"] = sumFile(t, filepath.Join(behind, "vm0.raw"))
	share := mountShare(t, behind, s.source)
	s.serve()
	closes := time.Now().UTC().Truncate(time.Minute).Add(time.Minute)
	if time.Until(closes) < 25*time.Second {
		closes = closes.Add(time.Minute) // time for a slow machine to get into the copy
	}
	// A window that is closed for one minute, which begins soon.
	window := fmt.Sprintf("window: {allow: [\"%s-%s\"]}\n", closes.Add(time.Minute).Format("15:04"), closes.Format("15:04"))
	job := strings.Replace(s.manual(), "schedule: {mode: manual}", "schedule: {mode: manual, timeZone: UTC}", 1)
	s.apply(strings.Replace(job, "location: "+s.source, "location: "+s.source+"\nbandwidth: [{limit: 6MB/s}]", 1) + window)
	session := s.begin("offsite")
	db := s.catalog()
	defer db.Close()
	s.until("something is being copied", func() bool { return packBytes(t, s.vault) > 0 || reads(s.server) > 8*mib })
	share.answers(false)
	if time.Now().After(closes) {
		t.Fatal("the window had closed before the share stopped answering")
	}
	s.until("the session waits for the window", func() bool {
		return strings.Contains(column(t, db, `SELECT reason FROM sessions WHERE id = $1 AND state = 'waiting'`, session), "window has closed")
	})
	if late := time.Since(closes); late > 30*time.Second {
		t.Errorf("it does so %s after the end of the window", late)
	}
	if left := filesIn(filepath.Join(s.vault, "partials")); left != 1 {
		t.Errorf("%d checkpoints", left)
	}
	// Whoever looks now is told, and does not hang as well.
	var looked struct {
		Sources []struct{ Name, State, Reason string }
	}
	s.get("/v1/jobs/offsite/explain", &looked)
	if len(looked.Sources) != 1 || looked.Sources[0].State != "unreadable" || !strings.Contains(looked.Sources[0].Reason, "does not answer") {
		t.Errorf("%+v", looked)
	}
	share.answers(true)
	s.idle()
	var ended servedSession
	s.get(fmt.Sprint("/v1/sessions/", session), &ended)
	if ended.State != "done" || len(ended.Report.did("copy")) != 1 {
		t.Errorf("%+v", ended)
	}
	for _, p := range ended.Report.copies() {
		if p.ReadBytes >= size {
			t.Errorf("the second attempt read %d bytes of %d", p.ReadBytes, size)
		}
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	s.restores(s.want["vm0"])
}

// reads is how many bytes a run has read, by the kernel's count.
func reads(r *running) int64 { return countOf(r, "rchar") }

// A target stops answering while a server copies to it. Other jobs go on, everybody is answered, and status tells of it; a session
// that is to end ends, and so does the server. When the target answers, the next server goes on without hands, and what was left
// behind has done no harm.
func TestServerGoesOnWhileATargetHangs(t *testing.T) {
	t.Parallel()
	s := newServed(t, 1, 96*mib) // one slot is left to others
	behind := filepath.Join(filepath.Dir(s.vault), "behind")
	if err := os.Rename(s.vault, behind); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.vault, 0o700); err != nil {
		t.Fatal(err)
	}
	share := mountShare(t, behind, s.vault)
	other := filepath.Join(filepath.Dir(s.vault), "other")
	s.u.want(0, "repo", "init", other)
	s.serve()
	s.apply(strings.Replace(s.manual(), "location: "+s.vault, "location: "+s.vault+"\nbandwidth: [{limit: 6MB/s}]", 1) +
		fmt.Sprintf("---\nkind: Repository\nname: other\nlocation: %s\n---\nkind: Job\nname: near\nsource: {repositories: [src]}\n"+
			"target: {repository: other}\nschedule: {mode: manual}\n", other))
	db := s.catalog()
	defer db.Close()
	state := func(session int64) string {
		return column(t, db, `SELECT state FROM sessions WHERE id = $1`, session)
	}
	session := s.begin("offsite")
	s.until("something is being copied", func() bool { return packBytes(t, behind) > 0 })
	share.answers(false)
	near := s.begin("near")
	s.until("the other job has copied", func() bool { return state(near) == "done" })
	answered := func() {
		t.Helper()
		var anything any
		for _, path := range []string{"/v1/status", "/v1/jobs", "/v1/jobs/near/explain", "/v1/sessions", "/health/live", "/health/ready"} {
			s.get(path, &anything)
		}
		s.u.want(0, "status", "--socket", s.socket)
	}
	answered()

	told := time.Now()
	s.u.want(0, "job", "stop", "offsite", "--now", "--socket", s.socket)
	s.until("the session has ended", func() bool { return state(session) == "stopped" })
	if late := time.Since(told); late > 35*time.Second {
		t.Errorf("it ended %s after it was told to", late)
	}
	session = s.begin("offsite")
	s.until("the next one waits for the target", func() bool { return state(session) == "waiting" })
	if now := s.status(); !now.has("target", "target vault is unreadable: it does not answer") {
		t.Errorf("%+v", now)
	}
	answered()
	explained, err := s.client().Get("http://ferry/v1/jobs/offsite/explain")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(explained.Body)
	explained.Body.Close()
	if err != nil || !strings.Contains(string(text), "does not answer") {
		t.Errorf("%v %s", err, text)
	}

	// A process ends only when the kernel lets go of its calls.
	if err := s.server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("the server has ended what it does", func() bool {
		_, err := os.Stat(s.socket)
		return os.IsNotExist(err) || zombie(s.server)
	})
	share.answers(true)
	if r := s.server.wait(); r.code != 0 || !strings.Contains(r.err, "msg=ended") {
		t.Errorf("%v", r)
	}
	s.server = nil
	s.serve()
	s.until("the session has copied", func() bool { return state(session) == "done" })
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
	s.restores(s.want["vm0"])
}
