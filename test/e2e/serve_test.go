//go:build integration

package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/storage/fs"

	_ "modernc.org/sqlite"
)

// served is a place with a source, a target, and a server's state.
type served struct {
	t                    *testing.T
	u                    *user
	source, vault, state string
	socket               string
	scripts              string
	want                 map[string]string
	// options are what the server is started with beside what it needs.
	options []string
	server  *running
	// more makes what the next session has to copy.
	more func()
}

// newServed makes a site whose job's health check and compact are due: it has run before, long ago.
func newServed(t *testing.T, machines int, size int64) *served {
	t.Helper()
	root := t.TempDir()
	s := &served{
		t: t, u: newUser(t), source: filepath.Join(root, "src"), vault: filepath.Join(root, "vault"), state: filepath.Join(root, "state"),
		socket: filepath.Join(root, "sock"), scripts: filepath.Join(root, "scripts"), want: map[string]string{},
	}
	s.more = func() { s.machine(len(s.want), 4*mib) }
	s.u.untidy = true // a server that is killed leaves a temporary file
	for _, dir := range []string{s.source, s.scripts} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n := range machines {
		s.machine(n, size)
	}
	for _, name := range []string{"pre", "post"} {
		text := fmt.Sprintf("#!/bin/sh\necho $FERRY_SESSION >>%s/%s.ran\nexec sleep 0.2\n", s.scripts, name)
		if err := os.WriteFile(filepath.Join(s.scripts, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.u.want(0, "repo", "init", s.vault)
	s.remember(time.Now().Add(-48 * time.Hour))
	return s
}

func (s *served) machine(n int, size int64) {
	name := fmt.Sprint("vm", n)
	path := filepath.Join(s.source, name+".raw")
	contentFile(s.t, path, uint64(100+n), size)
	s.want[name] = sumFile(s.t, path)
}

// remember leaves in the target that the job first ran at a time.
func (s *served) remember(began time.Time) {
	s.t.Helper()
	store, err := fs.Open(s.vault)
	if err != nil {
		s.t.Fatal(err)
	}
	target, err := repo.Open(s.t.Context(), store, repo.Environment{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer target.Close()
	memory, err := json.Marshal(map[string]any{"started": began})
	if err == nil {
		err = target.WriteJob(s.t.Context(), repo.JobRecord{Job: "offsite", Memory: memory})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// job describes the job, offsite, and its places; more is what it has beside them.
func (s *served) job(more string) string {
	return fmt.Sprintf("kind: Repository\nname: src\nlocation: %s\n---\nkind: Repository\nname: vault\nlocation: %s\n---\n"+
		"kind: Job\nname: offsite\nsource: {repositories: [src]}\ntarget: {repository: vault}\n%s", s.source, s.vault, more)
}

// manual is the job as one that runs when it is told to.
func (s *served) manual() string { return s.job("schedule: {mode: manual}\nretention: {points: 9}\n") }

// full is the job with all phases.
func (s *served) full() string {
	return s.job(fmt.Sprintf(`schedule: {every: 30d, at: "00:00"}
retention: {points: 2}
healthCheck: {every: 1m}
compact: {every: 1m}
scripts:
  pre: {run: [%s/pre], timeout: 1m, onFailure: abort}
  post: {run: [%s/post], timeout: 1m, onFailure: warn}
`, s.scripts, s.scripts))
}

func (s *served) arguments() []string {
	return append([]string{"serve", "--state", s.state, "--socket", s.socket, "--allow", s.scripts}, s.options...)
}

// serve starts the server and waits until it answers.
func (s *served) serve() {
	s.t.Helper()
	s.server = s.u.start(s.arguments()...)
	s.until("the server answers", func() bool {
		answer, err := s.client().Get("http://ferry/health/ready")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func (s *served) client() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
		},
	}}
}

// until waits until something is so. It leaves the processor to others between two looks.
func (s *served) until(what string, is func() bool) {
	s.t.Helper()
	s.untilEvery(20*time.Millisecond, what, is)
}

// untilEvery waits until something is so, and looks again after each pause.
func (s *served) untilEvery(pause time.Duration, what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(runLimit); !is(); time.Sleep(pause) {
		if time.Now().After(end) || s.server != nil && zombie(s.server) {
			s.t.Fatalf("not so: %s\n%s", what, s.server.err.String())
		}
	}
}

// post asks the server for something, and reads its answer into value.
func (s *served) post(path string, body, value any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.client().Post("http://ferry"+path, "application/json", bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		s.t.Fatalf("%s: %s %s %v", path, answer.Status, content, err)
	}
	if err := json.Unmarshal(content, value); err != nil {
		s.t.Fatal(err)
	}
}

// catalog reads the server's catalog beside it.
func (s *served) catalog() *sql.DB {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.state, "catalog.db")+"?_pragma=busy_timeout(5000)&_pragma=query_only(1)")
	if err != nil {
		s.t.Fatal(err)
	}
	return db
}

func column(t *testing.T, db *sql.DB, query string, args ...any) (text string) {
	t.Helper()
	err := db.QueryRow(query, args...).Scan(&text)
	if err != nil && err != sql.ErrNoRows {
		t.Fatal(err)
	}
	return text
}

// kill ends the server without a word while its session is in a phase, and returns the session. The catalog says afterwards
// whether it was: if the phase was over by then, another session is tried.
func (s *served) kill(phase string) int64 {
	s.t.Helper()
	for range 20 {
		session := s.begin("offsite")
		db := s.catalog()
		inPhase := func() bool {
			script, ofScript := strings.CutSuffix(phase, "-job script")
			return column(s.t, db, `SELECT name FROM phases WHERE session = $1 AND ended_at = 0`, session) == phase &&
				(!ofScript || s.ran(script, session) > 0) // the phase begins before its script does
		}
		// Some phases last for an instant.
		s.untilEvery(300*time.Microsecond, "the session is in "+phase+", or over", func() bool {
			return inPhase() || column(s.t, db, `SELECT state FROM sessions WHERE id = $1 AND ended_at <> 0`, session) != ""
		})
		s.end(syscall.SIGKILL)
		hit := inPhase()
		db.Close()
		if hit {
			return session
		}
		s.remember(time.Now().Add(-48 * time.Hour)) // what was done is due again
		s.more()
		s.serve()
		s.idle()
	}
	s.t.Fatalf("of 20 kills none hit the phase %s", phase)
	return 0
}

// idle waits until no session is left.
func (s *served) idle() {
	s.t.Helper()
	db := s.catalog()
	defer db.Close()
	s.until("no session is left", func() bool { return column(s.t, db, `SELECT id FROM sessions WHERE ended_at = 0`) == "" })
}

// ran counts how often a script was run for a session.
func (s *served) ran(script string, session int64) int {
	content, _ := os.ReadFile(filepath.Join(s.scripts, script+".ran"))
	return len(slices.DeleteFunc(strings.Fields(string(content)), func(id string) bool { return id != fmt.Sprint(session) }))
}

// phases are those of a session in which a server can be killed.
var phases = []string{"pre-job script", "health check", "synchronize", "transform", "compact", "post-job script", "report"}

// A server that is killed in any phase of a session goes on with that session when it starts again: under its number, without
// hands, and of each machine its newest point alone is in the target in the end: what retention gives up in it, it gives up once.
// Scripts that had ended are not run again.
func TestServerKilledInEachPhase(t *testing.T) {
	t.Parallel()
	for _, phase := range phases {
		t.Run(phase, func(t *testing.T) {
			s := newServed(t, 3, 40*mib)
			more := 0
			s.more = func() { // something to copy, and something to give up
				more++
				for n := range 2 {
					s.machine(n, int64(23+more)*mib)
				}
			}
			s.serve()
			s.apply(strings.Replace(s.full(), "{points: 2}", "{points: 1}", 1))
			s.session("offsite")
			s.remember(time.Now().Add(-48 * time.Hour))
			s.more()
			session := s.kill(phase)
			left := len(s.u.points(s.vault))
			s.serve()
			s.idle()
			db := s.catalog()
			defer db.Close()
			if state := column(t, db, `SELECT state || ' ' || reason FROM sessions WHERE id = $1`, session); state != "done " {
				t.Errorf("the session ended %s\n%s", state, s.server.err.String())
			}
			if left := column(t, db, `SELECT COUNT(*) FROM tasks WHERE state IN ('running', 'waiting')`); left != "0" {
				t.Errorf("%s tasks are left", left)
			}
			removed := column(t, db, `SELECT COALESCE(SUM(json_extract(counts, '$.removed')), 0) FROM phases WHERE session = $1 AND name = 'transform'`, session)
			if given := left == len(s.want); given && phase == "transform" {
				t.Log("it was killed after the points were given up, and before that was noted")
			} else if removed != "2" {
				t.Errorf("%s points were removed by its record; when it was killed there were %d", removed, left)
			}
			want := map[string]int{"pre": 1, "post": 1}
			switch phase { // one that was cut off is run again
			case "pre-job script":
				want["pre"] = 2
			case "post-job script":
				want["post"] = 2
			}
			if got := map[string]int{"pre": s.ran("pre", session), "post": s.ran("post", session)}; !maps.Equal(got, want) {
				t.Errorf("scripts were run %v, not %v", got, want)
			}
			s.end(syscall.SIGTERM)
			s.u.verified(s.vault)
			if points := s.u.points(s.vault); len(points) != len(s.want) {
				t.Errorf("%d points are left of %d machines", len(points), len(s.want))
			}
			for name, sum := range s.want {
				out := filepath.Join(t.TempDir(), name)
				s.u.want(0, "restore", s.vault, name, "--to", out)
				if got := disks(sumTree(t, out)); got[name] != sum {
					t.Errorf("restored %v, not %s of %s", got, sum, name)
				}
				os.RemoveAll(out)
			}
		})
	}
}

// A server that is killed while its job is idle has nothing to go on with: no session is lost, none is begun again, no script is
// run a second time, and the next session copies what is new.
func TestServerKilledIdle(t *testing.T) {
	t.Parallel()
	s := newServed(t, 2, 4*mib)
	s.serve()
	s.apply(s.full())
	first := s.session("offsite")
	s.idle()
	sessions := func() string {
		db := s.catalog()
		defer db.Close()
		return column(t, db, `SELECT group_concat(id || ' ' || state || ' ' || started_at || ' ' || ended_at || ' ' || length(report), '; ') FROM sessions`)
	}
	before, stored := sessions(), ids(s.u.points(s.vault))
	s.end(syscall.SIGKILL)
	s.serve()
	if after := sessions(); after != before {
		t.Errorf("the sessions were %s, and are %s", before, after)
	}
	s.more()
	next := s.session("offsite")
	if next.ID <= first.ID || strings.Count(sessions(), "; ") != 1 || next.State != "done" || len(next.Report.did("copy")) != 1 {
		t.Errorf("the next session: %+v", next)
	}
	for _, session := range []int64{first.ID, next.ID} {
		if pre, post := s.ran("pre", session), s.ran("post", session); pre != 1 || post != 1 {
			t.Errorf("session %d: %d and %d scripts were run", session, pre, post)
		}
	}
	if now := ids(s.u.points(s.vault)); len(now) != 3 || len(stored) != 2 {
		t.Errorf("points %v, then %v", stored, now)
	}
	s.end(syscall.SIGTERM)
	s.u.verified(s.vault)
}

// A task whose server is killed in the middle of a copy goes on in its very row, under a higher epoch: the catalog says what was kept
// of it, and no more than the rest is read again.
func TestTaskGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	s := newServed(t, 0, 0)
	const size = 320 * mib
	file, err := os.Create(filepath.Join(s.source, "big.raw"))
	if err == nil {
		_, err = io.CopyN(file, rand.NewChaCha8([32]byte{6}), size)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	s.serve()
	// Slow enough that the task's lease is renewed in the middle.
	s.apply(strings.Replace(s.manual(), "location: "+s.source, "location: "+s.source+"\nbandwidth: [{limit: 8MiB/s}]", 1))
	session := s.begin("offsite")
	db := s.catalog()
	defer db.Close()
	task := func() (row string, epoch, kept int64) {
		err := db.QueryRow(`SELECT id || ' ' || point, epoch, COALESCE(json_extract(progress, '$.kept'), 0) FROM tasks WHERE session = $1`, session).Scan(&row, &epoch, &kept)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
		return row, epoch, kept
	}
	s.until("something is kept, and noted", func() bool { _, _, kept := task(); return kept > 0 })
	s.end(syscall.SIGKILL)
	row, epoch, kept := task()
	if kept >= size {
		t.Fatal("the copy was done before the server was killed")
	}
	s.serve()
	s.until("the task is taken up", func() bool { _, now, _ := task(); return now > epoch })
	shown := s.u.want(0, "session", "show", "offsite", "--socket", s.socket).out
	if !strings.Contains(shown, "kept ") && !strings.Contains(shown, " is kept") {
		t.Errorf("what is kept is not shown:\n%s", shown)
	}
	s.idle()
	after, now, _ := task()
	if state := column(t, db, `SELECT state FROM tasks WHERE session = $1`, session); after != row || now <= epoch || state != "done" {
		t.Errorf("the task was %s at epoch %d, and is %s at epoch %d, %s", row, epoch, after, now, state)
	}
	var ended servedSession
	s.get(fmt.Sprint("/v1/sessions/", session), &ended)
	read := int64(0)
	for _, p := range ended.Report.copies() {
		read += p.ReadBytes
	}
	if ended.State != "done" || read == 0 || read > size-kept {
		t.Errorf("%s: of %d bytes %d were kept, and %d were read after that", ended.State, size, kept, read)
	}
	s.end(syscall.SIGTERM)
}

// A server that is told to end while it copies writes a checkpoint and ends with 0; the next one goes on from there, reads what is
// left, and the job can be deleted with what it claims.
func TestServerEndsInOrder(t *testing.T) {
	t.Parallel()
	s := newServed(t, 0, 0)
	const size = 600 * mib
	path := filepath.Join(s.source, "big.raw") // of bytes that do not compress: what is stored is what was read
	file, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(file, rand.NewChaCha8([32]byte{5}), size)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	s.serve()
	// Slow enough that it is not done before the test, which may get no processor for a while, has seen a quarter of it.
	s.apply(strings.Replace(s.full(), "location: "+s.source, "location: "+s.source+"\nbandwidth: [{limit: 60MB/s}]", 1))
	session := s.begin("offsite")
	db := s.catalog()
	defer db.Close()
	stored := func() int64 { return packBytes(t, s.vault) }
	s.until("a quarter is stored", func() bool { return stored() > size/4 })
	told := time.Now()
	s.end(syscall.SIGTERM)
	if took := time.Since(told); took > 30*time.Second {
		t.Fatalf("told to end, it did after %s", took)
	}
	if column(t, db, `SELECT id FROM sessions WHERE ended_at = 0`) != fmt.Sprint(session) {
		t.Fatal("the copy was done before the server was told to end")
	}
	kept := stored()
	s.serve()
	s.idle()
	var ended servedSession
	s.get(fmt.Sprint("/v1/sessions/", session), &ended)
	if ended.State != "done" {
		t.Errorf("the session ended %+v", ended)
	}
	read := int64(0)
	for _, p := range ended.Report.copies() {
		read += p.ReadBytes
	}
	t.Logf("%d MiB were stored when it ended, %d MiB were read after that", kept/mib, read/mib)
	if most := size - kept + packLimit + overhead; read > most || read == 0 {
		t.Errorf("%d MiB are read again, at most %d are missing", read/mib, most/mib)
	}
	if got := s.ran("pre", session) + s.ran("post", session); got != 2 {
		t.Errorf("scripts were run %d times", got)
	}
	version := column(t, db, `SELECT version FROM resources WHERE kind = 'Job'`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://ferry/v1/resources/Job/offsite?release=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("If-Match", `"`+version+`"`)
	answer, err := s.client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	content, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("deleted: %s %s", answer.Status, content)
	}
	s.end(syscall.SIGTERM)
	if left := s.u.points(s.vault); len(left) != 0 {
		t.Errorf("after its job had released it %+v is there", left)
	}
}
