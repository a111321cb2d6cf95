package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/api"
	"ferry/internal/client"
	"ferry/internal/job"
	"ferry/internal/pace"
	"ferry/internal/plan"
)

// double is a server that answers what a test says, and notes what it was asked.
type double struct {
	*testing.T
	mux    *http.ServeMux
	socket string
	mutex  sync.Mutex
	asked  []string
}

// newDouble listens on a socket, which FERRY_SOCKET names.
func newDouble(t *testing.T) *double {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &double{T: t, mux: http.NewServeMux(), socket: filepath.Join(dir, "ferry.sock")}
	t.Setenv("FERRY_SOCKET", d.socket)
	d.start()
	return d
}

// start has the server listen, until the returned function is called or the test ends.
func (d *double) start() (stop func()) {
	d.Helper()
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		d.Fatal(err)
	}
	server := &http.Server{Handler: d.mux}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	stop = sync.OnceFunc(func() {
		server.Close()
		<-served
	})
	d.Cleanup(stop)
	return stop
}

// answers has the server answer a request with a value, or with a problem.
func (d *double) answers(pattern string, value any) {
	d.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mutex.Lock()
		d.asked = append(d.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s%s", r.Method, r.URL, r.Header.Get("If-Match"), body)))
		d.mutex.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if problem, is := value.(api.Problem); is {
			w.Header().Set("Content-Type", api.MediaProblem)
			w.WriteHeader(problem.Status)
		} else if value == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if err := json.NewEncoder(w).Encode(value); err != nil {
			d.Error(err)
		}
	})
}

func (d *double) wantAsked(want ...string) {
	d.Helper()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if !slices.Equal(d.asked, want) {
		d.Errorf("asked:\n%s\nwant:\n%s", strings.Join(d.asked, "\n"), strings.Join(want, "\n"))
	}
	d.asked = nil
}

// forget forgets what was asked.
func (d *double) forget() {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.asked = nil
}

func TestStatusOfServer(t *testing.T) {
	d := newDouble(t)
	d.answers("GET /v1/status", badStatus())
	out, _ := run(t, ExitDone, "status")
	golden(t, "bad.txt", strings.Split(strings.TrimSuffix(out, "\n"), "\n"))
	out, _ = run(t, ExitDone, "status", "--json")
	var got api.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.TooOld != 3 {
		t.Errorf("%v: %s", err, out)
	}
	d.wantAsked("GET /v1/status?machines=100000", "GET /v1/status?machines=100000")
	if out, errOut := run(t, checkCritical, "status", "--check"); !strings.HasPrefix(out, "FERRY CRITICAL - 3 copies") || strings.Count(out, "\n") != 1 || errOut != "" {
		t.Errorf("%q, %q", out, errOut)
	}
}

// Where no server answers, a check says so in its one line; everything else is an error with what helps.
func TestNoServer(t *testing.T) {
	t.Setenv("FERRY_SOCKET", filepath.Join(t.TempDir(), "none.sock"))
	if out, errOut := run(t, checkUnknown, "status", "--check"); !strings.HasPrefix(out, "FERRY UNKNOWN - no server runs at ") || errOut != "" {
		t.Errorf("%q, %q", out, errOut)
	}
	for _, args := range [][]string{
		{"status"}, {"get"}, {"job", "run", "x"}, {"job", "stop"}, {"job", "explain"}, {"job", "resolve"}, {"job", "simulate"}, {"job", "show"}, {"session", "list"}, {"session", "follow", "1"},
		{"catalog", "rebuild"}, {"delete", "job", "x"}, {"bandwidth"},
	} {
		if _, errOut := run(t, ExitFailed, args...); !strings.Contains(errOut, "no server runs at ") || !strings.Contains(errOut, "ferry serve") {
			t.Errorf("%v: %q", args, errOut)
		}
	}
	if out, _ := run(t, checkUnknown, "status", "--check", "--socket", t.TempDir()); !strings.HasPrefix(out, "FERRY UNKNOWN - ") {
		t.Errorf("%q", out)
	}
}

func TestApply(t *testing.T) {
	d := newDouble(t)
	d.answers("POST /v1/apply", api.Applied{Resources: []api.AppliedResource{{Kind: "Repository", Name: "pve", Outcome: "unchanged"}, {Kind: "Job", Name: "offsite", Outcome: "created"}}})
	file := filepath.Join(t.TempDir(), "jobs.yaml")
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("kind: Repository\nname: pve # ours\nlocation: dump\n")
	out, _ := run(t, ExitDone, "apply", "-f", file)
	if out != "repository pve: unchanged\njob offsite: created\n" {
		t.Errorf("%q", out)
	}
	if out, _ := run(t, ExitDone, "apply", "-f", file, "--dry-run"); out != "repository pve: unchanged\njob offsite: would be created\n" {
		t.Errorf("%q", out)
	}
	sent := func(dryRun bool) string {
		text, err := json.Marshal(api.Apply{Documents: "kind: Repository\nname: pve # ours\nlocation: " + filepath.Dir(file) + "/dump\n", DryRun: dryRun})
		if err != nil {
			t.Fatal(err)
		}
		return "POST /v1/apply " + string(text)
	}
	d.wantAsked(sent(false), sent(true))
	run(t, ExitUsage, "apply")
	run(t, ExitUsage, "apply", "-f", file, "-f", file)
	run(t, ExitUsage, "apply", "-f", file+".none")
	write("kind: Repository\nname: pve\nlocation: >\n  dump\n")
	if _, errOut := run(t, ExitUsage, "apply", "-f", file); !strings.Contains(errOut, file+":3:11: the path") {
		t.Errorf("%q", errOut)
	}
	d.wantAsked()
}

// What the server finds wrong is told as it stands in the person's file, where a path is shorter than the one that was sent.
func TestMistakesInWhatIsApplied(t *testing.T) {
	d := newDouble(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "jobs.yaml")
	if err := os.WriteFile(file, []byte("{kind: Repository, location: dump, nme: pve}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shift := len(dir) + 1
	d.answers("POST /v1/apply", api.Problem{Status: 422, Code: api.CodeInvalid, Detail: "2 mistakes", Mistakes: []api.Mistake{
		{Line: 1, Column: 36 + shift, Path: "nme", Text: "there is no setting nme", Hint: "did you mean name?"},
		{Resource: "job offsite", Line: 3, Column: 4, Path: "target.repository", Text: "there is no repository vault"},
	}})
	_, errOut := run(t, ExitUsage, "apply", "-f", file)
	want := fmt.Sprintf("ferry: %s:1:36: nme: there is no setting nme; did you mean name?\njob offsite target.repository: there is no repository vault\n", file)
	if errOut != want {
		t.Errorf("got\n%swant\n%s", errOut, want)
	}
	_, errOut = run(t, ExitUsage, "apply", "-f", file, "--json")
	var message messageJSON
	if err := json.Unmarshal([]byte(errOut), &message); err != nil || len(message.Error.Problems) != 2 || message.Error.Problems[0].Column != 36 {
		t.Errorf("%v: %s", err, errOut)
	}
}

func TestGetAndDelete(t *testing.T) {
	d := newDouble(t)
	vault := api.Resource{Kind: "Repository", Name: "vault", Version: 2, Document: "# the vault\nkind: Repository\nname: vault\n", Changed: night}
	offsite := api.Resource{Kind: "Job", Name: "offsite", Version: 1234, Document: "kind: Job\nname: offsite\n", Changed: night}
	d.answers("GET /v1/resources", []api.Resource{offsite, vault})
	d.answers("GET /v1/resources/Job/offsite", offsite)
	d.answers("GET /v1/resources/Job/none", api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "job none: not in the catalog"})
	d.answers("DELETE /v1/resources/Job/offsite", nil)
	out, _ := run(t, ExitDone, "get")
	want := "kind        name     version  changed\nrepository  vault    2        2026-11-24 02:14:05\njob         offsite  1,234    2026-11-24 02:14:05\n"
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	if out, _ := run(t, ExitDone, "get", "-o", "yaml"); out != vault.Document+"---\n"+offsite.Document {
		t.Errorf("%s", out)
	}
	if out, _ := run(t, ExitDone, "get", "Jobs", "offsite"); out != offsite.Document {
		t.Errorf("%s", out)
	}
	d.wantAsked("GET /v1/resources", "GET /v1/resources", "GET /v1/resources/Job/offsite")
	run(t, ExitUsage, "get", "machine")
	run(t, ExitUsage, "get", "-o", "xml")
	run(t, ExitNothing, "get", "job", "none")
	run(t, ExitNothing, "delete", "job", "none")
	d.forget()
	run(t, ExitDone, "delete", "job", "offsite")
	run(t, ExitDone, "delete", "job", "offsite", "--release")
	d.wantAsked("GET /v1/resources/Job/offsite", `DELETE /v1/resources/Job/offsite "1234"`, "GET /v1/resources/Job/offsite", `DELETE /v1/resources/Job/offsite?release=true "1234"`)
}

// report is that of a session in which one machine was copied, and another has a result.
func report(t *testing.T, result job.Result, state job.TaskState) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(job.Session{
		ID: "0123", Job: "offsite", Began: ago(time.Hour), Ended: night, Result: result, Target: job.TargetState{State: job.StateReady},
		Sources: []job.SourceState{{Name: "pve", State: job.StateReady}}, Alarms: []job.Alarm{{Kind: job.AlarmDamage, Text: "it rots"}}, Warnings: []string{"take care"},
		Tasks: []job.Task{{
			Machine: job.TaskMachine{ID: "proxmox/100/x", Name: "web01"}, State: job.TaskCopied,
			Points: []job.TaskPoint{{Action: plan.ActionCopy, Outcome: job.OutcomeCopied}},
		}, {Machine: job.TaskMachine{ID: "proxmox/101/x", Name: "db1"}, State: state, Reason: "because"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSessions(t *testing.T) {
	d := newDouble(t)
	ended := api.Session{ID: 42, Job: "offsite", Boundary: ago(2 * time.Hour), Began: ago(time.Hour), Ended: night, State: "done", Counts: map[string]int64{"copied": 3}, Phases: []api.Phase{}, Tasks: []api.Task{}}
	live := api.Session{ID: 43, Job: "near", Began: night, State: "waiting", Reason: "the window is closed", Phases: []api.Phase{{Name: "synchronize", State: "running", Began: night}},
		Tasks: []api.Task{{Machine: machineOf("web01"), State: "running", Began: night, Done: 1 << 20, Total: 4 << 20}}}
	d.answers("GET /v1/sessions", []api.Session{live, ended})
	out, _ := run(t, ExitDone, "session", "list", "offsite", "--before", "50", "--limit", "7")
	want := "session  job      began                took  state\n43       near     2026-11-24 02:14:05        waiting  the window is closed\n42       offsite  2026-11-24 01:14:05  60m   done     3 copied, 0 failed, 0 removed\n"
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	d.wantAsked("GET /v1/sessions?before=50&job=offsite&limit=7")
	whole := ended
	whole.Report = report(t, job.ResultPartly, job.TaskFailed)
	d.answers("GET /v1/sessions/43", live)
	d.answers("GET /v1/sessions/42", whole)
	d.answers("GET /v1/sessions/7", api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "session 7: not in the catalog"})
	out, errOut := run(t, ExitDone, "session", "show", "42")
	for _, part := range []string{"session 42 of job offsite: done\n", "ALARM  it rots\n", "job offsite: some failed; 1 copied, 0 claimed"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	if !strings.Contains(errOut, "warning: take care") {
		t.Errorf("%q", errOut)
	}
	d.forget()
	out, _ = run(t, ExitDone, "session", "show", "near") // the newest of a job
	if !strings.Contains(out, "session 43 of job near: waiting\n") || !strings.Contains(out, "the window is closed") || !strings.Contains(out, "1.0 MiB of 4.0 MiB") {
		t.Errorf("%s", out)
	}
	d.wantAsked("GET /v1/sessions?job=near&limit=1", "GET /v1/sessions/43")
	run(t, ExitNothing, "session", "show", "7")
	run(t, ExitUsage, "session", "list", "--limit", "0")
}

// events has the server send events of a session, and end the stream.
func (d *double) events(id int, events ...api.Event) {
	d.mux.HandleFunc(fmt.Sprintf("GET /v1/sessions/%d/events", id), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range events {
			text, err := json.Marshal(e)
			if err != nil {
				d.Error(err)
			}
			fmt.Fprintf(w, ": a comment\n\nevent: %s\ndata: %s\n\n", e.Kind, text)
		}
	})
}

func event(kind string, s api.Session) api.Event { return api.Event{Kind: kind, Session: &s} }

func taskEvent(state string, done int64) api.Event {
	return api.Event{Kind: "task", Task: &api.Task{ID: 9, Machine: machineOf("web01"), State: state, Created: ago(time.Hour), Done: done, Total: 4 << 20, Read: 3 << 20, Written: 1 << 20, Reason: map[string]string{"failed": "it broke"}[state]}}
}

// Who follows a session sees how it comes on, then its report, and ends with its code.
func TestFollow(t *testing.T) {
	running := api.Session{ID: 42, Job: "offsite", State: "running", Phase: "synchronize", Began: ago(time.Hour), Phases: synchronizes}
	waiting := running
	waiting.Phases = nil // what has changed comes without
	waiting.State, waiting.Reason = "waiting", "the window is closed"
	ended := running
	ended.State, ended.Ended = "done", night
	ended.Phases = append(slices.Clone(synchronizes), *phaseEvent("transform").Phase)
	for name, c := range map[string]struct {
		result job.Result
		state  job.TaskState
		code   int
	}{"done": {job.ResultDone, job.TaskUpToDate, ExitDone}, "partly": {job.ResultPartly, job.TaskFailed, ExitSomeFailed}, "stopped": {job.ResultInterrupted, job.TaskNotReached, ExitInterrupted}} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			d.answers("POST /v1/jobs/offsite/run", api.Started{Session: 42})
			whole := ended
			whole.Report = report(t, c.result, c.state)
			d.answers("GET /v1/sessions/42", whole)
			unknown := taskEvent("running", 0) // how large it is
			unknown.Task.Total = 0
			d.events(42, event("session", running), unknown, taskEvent("running", 1<<20), taskEvent("done", 4<<20), event("session", waiting), event("session", waiting),
				phaseEvent("transform"), phaseEvent("synchronize"), event("end", ended))
			out, _ := run(t, c.code, "job", "run", "offsite")
			want := "phase: synchronize\ncopied  web01  2026-11-24 01:14:05  4.0 MiB  read 3.0 MiB  stored 1.0 MiB\nwaits: the window is closed\nphase: transform\nALARM  it rots\n"
			if !strings.HasPrefix(out, want) || !strings.Contains(out, "job offsite: "+string(c.result)) {
				t.Errorf("%s", out)
			}
			d.wantAsked(`POST /v1/jobs/offsite/run {"full":false,"retry":false}`, "GET /v1/sessions/42")
			out, _ = run(t, c.code, "session", "follow", "42", "--json")
			var printed sessionJSON
			if err := json.Unmarshal([]byte(out), &printed); err != nil || printed.Result != c.result {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

var synchronizes = []api.Phase{{Name: "pre-job script", State: "skipped"}, {Name: "synchronize", State: "running", Began: ago(time.Hour)}}

// Who follows late, or again after a while, is told the same as who was there from the beginning, and nothing twice.
func TestFollowLate(t *testing.T) {
	begins := api.Session{ID: 42, Job: "offsite", State: "running", Phase: "health check", Began: ago(time.Hour), Phases: []api.Phase{
		{Name: "pre-job script", State: "skipped", Began: ago(time.Hour)}, {Name: "health check", State: "running", Began: ago(time.Hour)},
	}}
	late := begins
	late.Phase = "transform"
	late.Phases = append(slices.Clone(begins.Phases), api.Phase{Name: "synchronize", State: "done", Began: ago(50 * time.Minute)}, api.Phase{Name: "transform", State: "running", Began: ago(10 * time.Minute)})
	copied, failed := taskEvent("done", 4<<20).Task, taskEvent("failed", 1).Task
	failed.ID++
	copied.Ended, failed.Ended = ago(40*time.Minute), ago(30*time.Minute)
	late.Tasks = []api.Task{*copied, *failed}
	ended := late
	ended.State, ended.Ended = "stopped", night
	want := "phase: health check\nphase: synchronize\ncopied  web01  2026-11-24 01:14:05  4.0 MiB  read 3.0 MiB  stored 1.0 MiB\nFAILED  web01  it broke\nphase: transform\n"
	for name, events := range map[string][]api.Event{
		"late":  {event("session", late), event("end", ended)},
		"again": {event("session", begins), event("session", late), event("session", late), event("end", ended)},
		"all": {event("session", begins), phaseEvent("synchronize"), {Kind: "task", Task: copied}, {Kind: "task", Task: failed}, event("session", late),
			phaseEvent("transform"), event("end", ended)},
		"at the end": {event("end", ended)},
	} {
		d := newDouble(t)
		d.answers("GET /v1/sessions/42", ended)
		d.events(42, events...)
		var out bytes.Buffer
		a := &app{out: &out, errOut: &out}
		if err := a.follow(t.Context(), &asked{socket: d.socket}, 42); codeOf(t.Context(), err) != ExitInterrupted || out.String() != want {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

func phaseEvent(name string) api.Event {
	return api.Event{Kind: "phase", Phase: &api.Phase{Name: name, State: "running", Began: map[string]time.Time{
		"health check": ago(time.Hour), "synchronize": ago(50 * time.Minute), "transform": ago(10 * time.Minute)}[name]}}
}

// A server that goes while a session is followed is waited for, but not for ever.
func TestFollowThroughARestart(t *testing.T) {
	d := newDouble(t)
	running := api.Session{ID: 42, Job: "offsite", State: "running", Phase: "synchronize", Began: ago(time.Hour), Phases: synchronizes}
	stopped := running
	stopped.State, stopped.Ended, stopped.Reason = "stopped", night, "before it began"
	d.events(42, event("session", running), taskEvent("running", 1<<20), taskEvent("failed", 1), event("end", stopped))
	d.answers("GET /v1/sessions/42", stopped)
	var out bytes.Buffer
	a := &app{out: &out, errOut: &out}
	at := &asked{socket: d.socket + "2"}
	pauses := 0
	at.sleep = func(context.Context, time.Duration) error {
		if pauses++; pauses == 3 {
			d.socket += "2"
			d.start()
		}
		return nil
	}
	err := a.follow(t.Context(), at, 42)
	if codeOf(t.Context(), err) != ExitInterrupted || !strings.Contains(err.Error(), "stopped: before it began") {
		t.Errorf("%v", err)
	}
	if want := "the server has gone; waiting for it to come back\nphase: synchronize\nFAILED  web01  it broke\n"; out.String() != want || pauses != 3 {
		t.Errorf("%d pauses, got\n%swant\n%s", pauses, out.String(), want)
	}
	gone := &asked{socket: d.socket + ".gone", sleep: func(context.Context, time.Duration) error { pauses++; return nil }}
	pauses = 0
	if err := a.follow(t.Context(), gone, 42); codeOf(t.Context(), err) != ExitFailed || pauses != int(returnsWithin/lookAfter) {
		t.Errorf("%v after %d pauses", err, pauses)
	}
	// Ctrl-C ends following at once, and the session goes on.
	ctx, cancel := context.WithCancel(t.Context())
	gone.sleep = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if err := a.follow(ctx, gone, 42); codeOf(ctx, err) != ExitInterrupted || !strings.Contains(a.interrupted, "session 42 goes on") {
		t.Errorf("%v, %q", err, a.interrupted)
	}
}

func TestJobsOfServer(t *testing.T) {
	d := newDouble(t)
	d.answers("GET /v1/jobs", []api.Job{{Name: "offsite"}})
	for _, what := range []string{"stop", "enable", "disable"} {
		d.answers("POST /v1/jobs/offsite/"+what, nil)
	}
	d.answers("POST /v1/jobs/offsite/run", api.Started{Session: 42})
	d.answers("POST /v1/jobs/busy/run", api.Problem{Status: 409, Code: api.CodeRunning, Detail: "a session of the job is in progress", Hint: "follow it"})
	d.answers("POST /v1/jobs/fine/run", api.Problem{Status: 409, Code: api.CodeNothingToRetry, Detail: "job fine: the last session left nothing undone"})
	d.answers("POST /v1/jobs/none/stop", api.Problem{Status: 404, Code: api.CodeNotFound, Detail: "there is no such job"})
	d.answers("GET /v1/jobs/offsite/explain", explanationJSON{Job: "offsite", TimeZone: "Europe/Berlin", Copies: 1, Machines: []explainedJSON{{
		Machine: machineJSON{ID: "proxmox/100/x", Name: "web01"}, Reason: "it is new", Points: []explainedStepJSON{{
			Point: strings.Repeat("ab", 32), Created: night, Action: plan.ActionCopy, Reasons: []string{"the newest"}, Goes: &goesJSON{From: &[]time.Time{time.Date(2026, 12, 6, 23, 0, 0, 0, time.UTC)}[0], Points: 3},
		}},
	}}})
	for _, c := range []struct{ args, want string }{
		{"job run --detach", "job offsite: session 42\n"},
		{"job full offsite --detach", "job offsite: session 42\n"},
		{"job retry fine", "job fine: the last session left nothing undone\n"},
		{"job stop", "job offsite: asked to stop\n"},
		{"job stop offsite --now", "job offsite: asked to stop\n"},
		{"job enable", "job offsite: enabled\n"},
		{"job disable offsite", "job offsite: disabled\n"},
	} {
		if out, _ := run(t, ExitDone, strings.Fields(c.args)...); out != c.want {
			t.Errorf("%s: %q", c.args, out)
		}
	}
	d.wantAsked("GET /v1/jobs", `POST /v1/jobs/offsite/run {"full":false,"retry":false}`, `POST /v1/jobs/offsite/run {"full":true,"retry":false}`, `POST /v1/jobs/fine/run {"full":false,"retry":true}`,
		"GET /v1/jobs", `POST /v1/jobs/offsite/stop {"now":false}`, `POST /v1/jobs/offsite/stop {"now":true}`, "GET /v1/jobs", "POST /v1/jobs/offsite/enable", "POST /v1/jobs/offsite/disable")
	if _, errOut := run(t, ExitInUse, "job", "run", "busy"); errOut != "ferry: a session of the job is in progress\n       follow it\n" {
		t.Errorf("%q", errOut)
	}
	run(t, ExitNothing, "job", "stop", "none")
	run(t, ExitUsage, "job", "run", "-f", "x.yaml")
	run(t, ExitUsage, "job", "run", "--wait", "1h")
	for _, args := range []string{"status x", "apply x", "get job a b", "delete job a b", "job stop a b", "job retry a b", "job enable a b", "session list a b", "catalog rebuild a b", "job schema x"} {
		run(t, ExitUsage, strings.Fields(args)...) // one argument too many
	}
	run(t, ExitUsage, "job", "run", "--once", "--detach", "-f", "x.yaml")
	out, _ := run(t, ExitDone, "job", "explain", "offsite")
	if !strings.Contains(out, "web01  proxmox/100/x\n  it is new\n") || !strings.Contains(out, "the newest; goes with a point made from 2026-12-07 on, not before 3 more points come\n") {
		t.Errorf("%s", out)
	}
}

func TestCatalogRebuild(t *testing.T) {
	for name, c := range map[string]struct {
		rebuilt []api.RebuiltRepository
		code    int
		out     string
	}{
		"all":  {[]api.RebuiltRepository{{Name: "vault", Points: 1234}}, ExitDone, "vault: 1,234 points\n"},
		"some": {[]api.RebuiltRepository{{Name: "vault", Points: 1}, {Name: "shelf", Error: "offline"}}, ExitSomeFailed, "vault: 1 point\nFAILED  shelf  offline\n"},
		"none": {[]api.RebuiltRepository{{Name: "shelf", Error: "offline"}}, ExitFailed, "FAILED  shelf  offline\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			d.answers("POST /v1/catalog/rebuild", api.Rebuilt{Repositories: c.rebuilt})
			if out, _ := run(t, c.code, "catalog", "rebuild", "vault"); out != c.out {
				t.Errorf("%q", out)
			}
			d.wantAsked(`POST /v1/catalog/rebuild {"repository":"vault"}`)
		})
	}
}

// serveHere runs a server until the test ends, which FERRY_SOCKET names. It returns a folder for the test's own.
func serveHere(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferry") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "ferry.sock")
	t.Setenv("FERRY_SOCKET", socket)
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	a := &app{out: io.Discard, errOut: &log, limits: &pace.Limits{}}
	root := a.root()
	root.SetArgs([]string{"serve", "--state", filepath.Join(dir, "state"), "--cache-dir", filepath.Join(dir, "cache")})
	served := make(chan error, 1)
	go func() { served <- root.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the server ended: %v\n%s", err, log.String())
		}
	})
	for tick := time.NewTicker(10 * time.Millisecond); !client.New(socket).Running(ctx); {
		select {
		case err := <-served:
			served <- err
			t.Fatalf("the server ended: %v\n%s", err, log.String())
		case <-tick.C:
		}
	}
	return dir
}

// Jobs and repositories of a person's file, by a real server: mistakes at their places, paths that hold for it, a job's life.
func TestRealServer(t *testing.T) {
	dir := serveHere(t)
	file := filepath.Join(dir, "jobs.yaml")
	apply := func(code int, job string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte("# ours\n{kind: Repository, name: images, location: images}\n---\n{kind: Repository, name: vault, location: vault}\n---\n"+job), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut := run(t, code, "apply", "-f", file)
		return out + errOut
	}
	if text := apply(ExitUsage, "kind: Job\nname: offsite\nsource: {repositories: [images]}\ntarget: {repository: valt}\n"); !strings.Contains(text, file+":9:") || !strings.Contains(text, "vault") {
		t.Errorf("%s", text)
	}
	run(t, ExitNothing, "get", "job", "offsite") // nothing of it was taken
	if text := apply(ExitDone, "kind: Job\nname: offsite\nsource: {repositories: [images]}\ntarget: {repository: vault}\nretention: {days: 14}\n"); strings.Count(text, "created") != 3 {
		t.Errorf("%s", text)
	}
	out, _ := run(t, ExitDone, "get", "repository", "images")
	if out != "# ours\n{kind: Repository, name: images, location: "+filepath.Join(dir, "images")+"}\n" {
		t.Errorf("%s", out)
	}
	if err := os.Mkdir(filepath.Join(dir, "images"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "images", "web.raw"), bytes.Repeat([]byte("web"), 50_000), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, ExitDone, "repo", "init", filepath.Join(dir, "vault"), "--cache-dir", filepath.Join(dir, "cache"))
	for _, c := range []struct{ args, want string }{
		{"job run", "copied  web  "},
		{"job retry", "left nothing undone"},
		{"session show offsite", "session 1 of job offsite: done\n"},
		{"status", "All is well: 1 copy, the oldest of web, "},
		{"status --check", "FERRY OK - All is well: 1 copy, "},
		{"job explain", "0 points to copy, 0 to claim, 0 to remove"},
		{"job resolve offsite", "job offsite copies 1 of 1 machine to vault"},
		{"job simulate offsite --days 5", "; nothing was changed"},
		{"job simulate --json", `"job": "offsite"`},
		{"job show", "kind: Repository\nname: images\n"},
		{"job show offsite --effective", "staleLock: 2h # default"},
		{"job disable", "job offsite: disabled\n"},
		{"status", "No alarms, but not everything is enabled: job offsite\n"},
		{"catalog rebuild vault", "vault: 1 point\n"},
		{"bandwidth", "all jobs together: no limit; as the server was started\n"},
		{"bandwidth 20MB/s", "all jobs together: 20MB/s; set "},
		{"bandwidth none", "all jobs together: no limit; set "},
		{"bandwidth default", "all jobs together: no limit; as the server was started\n"},
	} {
		if out, _ := run(t, ExitDone, append(strings.Fields(c.args), "--cache-dir", filepath.Join(dir, "cache"))...); !strings.Contains(out, c.want) {
			t.Errorf("%s: no %q in\n%s", c.args, c.want, out)
		}
	}
	run(t, ExitUsage, "delete", "repository", "vault") // the job names it
	run(t, ExitNothing, "job", "stop", "offsite")
	run(t, ExitUsage, "bandwidth", "fast")
	run(t, ExitUsage, "job", "simulate", "--days", "0")
	run(t, ExitNothing, "job", "simulate", "other")
	run(t, ExitNothing, "job", "show", "other")
	run(t, ExitNothing, "session", "show", "4711")
	run(t, ExitDone, "delete", "job", "offsite")
	if out, _ := run(t, ExitDone, "status"); !strings.Contains(out, "keeps 1 point here: its last retention is {days: 14}; ferry repo jobs ") || !strings.Contains(out, " offsite | ferry apply --keep-existing -f - takes them up again") {
		t.Errorf("the deleted job is not told:\n%s", out)
	}
	left, _ := run(t, ExitDone, "repo", "jobs", filepath.Join(dir, "vault"), "offsite", "--cache-dir", filepath.Join(dir, "cache"))
	if err := os.WriteFile(file, []byte(left), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run(t, ExitDone, "apply", "--keep-existing", "-f", file); !strings.Contains(out, "kept") || !strings.Contains(out, "job offsite: created") {
		t.Errorf("taken up again:\n%s", out)
	}
	if out, _ := run(t, ExitDone, "status"); strings.Contains(out, "last retention") {
		t.Errorf("the job is there again:\n%s", out)
	}
	run(t, ExitDone, "delete", "job", "offsite", "--release")
	if out, _ := run(t, ExitDone, "status"); strings.Contains(out, "last retention") {
		t.Errorf("its points were released:\n%s", out)
	}
	run(t, ExitDone, "delete", "repository", "vault")
	if out, _ := run(t, ExitDone, "get"); !strings.Contains(out, "images") || strings.Contains(out, "vault") {
		t.Errorf("%s", out)
	}
}
