package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func itoa(n int) string { return strconv.Itoa(n) }

// double stands in for the scheduler: it notes what it is told, and does what a test says.
type double struct {
	mu sync.Mutex
	// told is what it was told, in order.
	told []string
	// errors are what calls give, by "call job".
	errors map[string]error
	// ready is what is not ready; onReady, if not nil, is called before.
	ready   []scheduler.Trouble
	onReady func()
	// onStart, if not nil, is called by Start and Enable; onExplain by Explain.
	onStart   func()
	onExplain func(context.Context)
	// channels are those of subscribers, by session.
	channels map[int64][]chan scheduler.Event
	catalog  *catalog.Catalog
}

func (d *double) call(what, job string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = append(d.told, strings.TrimSpace(what+" "+job))
	return d.errors[what+" "+job]
}

// heard takes what the double was told.
func (d *double) heard() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := strings.Join(d.told, ", ")
	d.told = nil
	return text
}

func (d *double) Changed() { _ = d.call("changed", "") }

func (d *double) Start(_ context.Context, job string, how scheduler.Start) (int64, error) {
	if d.onStart != nil {
		d.onStart()
	}
	return 7, d.call(fmt.Sprintf("start %v %v", how.Full, how.Retry), job)
}

func (d *double) Stop(_ context.Context, job string, now bool) error {
	return d.call(fmt.Sprintf("stop %v", now), job)
}

func (d *double) Enable(ctx context.Context, job string) error {
	if d.onStart != nil {
		d.onStart()
	}
	if err := d.call("enable", job); err != nil {
		return err
	}
	return d.catalog.Jobs.Enable(ctx, job)
}

func (d *double) Disable(ctx context.Context, job string) error {
	if err := d.call("disable", job); err != nil {
		return err
	}
	return d.catalog.Jobs.Disable(ctx, job)
}

func (d *double) Explain(ctx context.Context, name string) (*job.Explanation, policy.Job, error) {
	if d.onExplain != nil {
		d.onExplain(ctx)
	}
	return &job.Explanation{Warnings: []string{"of " + name}}, policy.Job{Name: name}, d.call("explain", name)
}

func (d *double) Setup(_ context.Context, name string) (job.Setup, policy.Resources, error) {
	return job.Setup{Job: policy.Job{Name: name}}, policy.Resources{}, d.call("setup", name)
}

func (d *double) Rebuild(_ context.Context, repository string) (int64, error) {
	return 12, d.call("rebuild", repository)
}

func (d *double) Adopt(_ context.Context, repository string) (bool, int64, error) {
	return true, 12, d.call("adopt", repository)
}

func (d *double) Subscribe(session int64) (<-chan scheduler.Event, func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	channel := make(chan scheduler.Event, 4)
	if d.channels == nil {
		d.channels = map[int64][]chan scheduler.Event{}
	}
	d.channels[session] = append(d.channels[session], channel)
	return channel, func() {}
}

func (d *double) Ready() []scheduler.Trouble {
	if d.onReady != nil {
		d.onReady()
	}
	return d.ready
}

// fixture is a server over an empty catalog.
type fixture struct {
	*Server
	t         testing.TB
	scheduler *double
	// dir is allowed, and has the files secret and script.
	dir string
	log *bytes.Buffer
}

func newFixture(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"secret", "script"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := catalog.Open(context.Background(), filepath.Join(t.TempDir(), "catalog.db"), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stored.Close() })
	log := &bytes.Buffer{}
	told := &double{errors: map[string]error{}, catalog: stored}
	o := Options{
		Catalog: stored, Scheduler: told, Allowed: Allowed{Files: []string{dir}}, Version: "test", Log: newLog(log),
		Explanation: func(j policy.Job, e *job.Explanation) any {
			return map[string]any{"job": j.Name, "warnings": e.Warnings}
		},
		Future: func(_ context.Context, _ policy.Resources, setup job.Setup, days int) (any, error) {
			return map[string]any{"job": setup.Job.Name, "days": days}, nil
		},
	}
	for _, c := range change {
		c(&o)
	}
	return &fixture{Server: New(o), t: t, scheduler: told, dir: dir, log: log}
}

// answered is what came back.
type answered struct {
	status  int
	header  http.Header
	body    string
	problem api.Problem
}

// do sends a request and checks that the answer is as the description says.
func (f *fixture) do(method, target, body string, header ...string) answered {
	f.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	a := answered{status: w.Code, header: w.Header(), body: w.Body.String()}
	if a.status >= 400 && a.header.Get("Content-Type") == api.MediaProblem {
		f.read(a, &a.problem)
		if a.problem.Status != a.status || a.problem.Detail == "" || a.problem.Mistakes == nil || a.problem.Title != http.StatusText(a.status) {
			f.t.Errorf("%s %s: %d with problem %+v", method, target, a.status, a.problem)
		}
	} else if a.status >= 400 && target != api.PathReady {
		f.t.Errorf("%s %s: %d without a problem: %s", method, target, a.status, a.body)
	}
	checkDescribed(f.t, method, target, a)
	return a
}

// read decodes an answer.
func (f *fixture) read(a answered, into any) {
	f.t.Helper()
	decoder := json.NewDecoder(strings.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		f.t.Fatalf("%v in %s", err, a.body)
	}
	if _, err := decoder.Token(); err != io.EOF {
		f.t.Errorf("something follows in %s", a.body)
	}
}

// expect sends a request and wants a status.
func (f *fixture) expect(status int, method, target, body string, header ...string) answered {
	f.t.Helper()
	a := f.do(method, target, body, header...)
	if a.status != status {
		f.t.Fatalf("%s %s: %d, not %d: %s", method, target, a.status, status, a.body)
	}
	return a
}

func asJSON(v any) string {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(content)
}

// applied applies documents and returns what became of them: "created job a@3".
func (f *fixture) applied(documents string) string {
	f.t.Helper()
	var applied api.Applied
	f.read(f.expect(http.StatusOK, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: documents})), &applied)
	var list []string
	for _, r := range applied.Resources {
		list = append(list, fmt.Sprintf("%s %s", r.Outcome, describe(r.Kind, r.Name)))
	}
	return strings.Join(list, ", ")
}

// stored lists what is in the catalog: "job a, repository b".
func (f *fixture) stored() string {
	f.t.Helper()
	var list []string
	stored, err := f.storedResources(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, r := range stored {
		list = append(list, describe(r.Kind, r.Name))
	}
	return strings.Join(list, ", ")
}

func repositoryYAML(name string) string {
	return "kind: Repository\nname: " + name + "\nlocation: /srv/" + name + "\n"
}

func jobYAML(name, from, to string, more ...string) string {
	return "kind: Job\nname: " + name + "\nsource: {repositories: [" + from + "]}\ntarget: {repository: " + to + "}\n" + strings.Join(more, "\n")
}

// threeYAML are two repositories and a job.
func threeYAML() string {
	return repositoryYAML("pve") + "---\n" + repositoryYAML("vault") + "---\n# nightly\n" + jobYAML("offsite", "pve", "vault")
}

func resourcePath(kind, name string) string { return "/v1/resources/" + kind + "/" + name }

func TestApply(t *testing.T) {
	f := newFixture(t)
	if got, want := f.applied(threeYAML()), "created repository pve, created repository vault, created job offsite"; got != want {
		t.Errorf("%s", got)
	}
	if heard := f.scheduler.heard(); heard != "changed" {
		t.Errorf("the scheduler was told %q", heard)
	}
	var got api.Resource
	f.read(f.expect(http.StatusOK, http.MethodGet, resourcePath("Job", "offsite"), ""), &got)
	if got.Document != "# nightly\n"+jobYAML("offsite", "pve", "vault") {
		t.Errorf("the document came back as %q", got.Document)
	}
	version := got.Version
	if got := f.applied(threeYAML()); got != "unchanged repository pve, unchanged repository vault, unchanged job offsite" {
		t.Errorf("again: %s", got)
	}
	if heard := f.scheduler.heard(); heard != "" {
		t.Errorf("the scheduler was told %q of nothing", heard)
	}
	more := jobYAML("offsite", "pve", "vault", "rpo: 26h\n")
	dry := f.expect(http.StatusOK, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: more, DryRun: true}))
	if !strings.Contains(dry.body, `"outcome":"changed"`) || f.scheduler.heard() != "" {
		t.Errorf("dry: %s", dry.body)
	}
	f.read(f.expect(http.StatusOK, http.MethodGet, resourcePath("Job", "offsite"), ""), &got)
	if got.Version != version {
		t.Error("a dry run changed the job")
	}
	if got := f.applied(more + "---\n" + jobYAML("weekly", "pve", "vault")); got != "changed job offsite, created job weekly" {
		t.Errorf("changed: %s", got)
	}
	f.read(f.expect(http.StatusOK, http.MethodGet, resourcePath("Job", "offsite"), ""), &got)
	if got.Version <= version || got.Document != more {
		t.Errorf("%+v", got)
	}
	var list []api.Resource
	f.read(f.expect(http.StatusOK, http.MethodGet, api.PathResources+"?kind=Job", ""), &list)
	if len(list) != 2 || list[0].Name != "offsite" || list[1].Name != "weekly" {
		t.Errorf("%+v", list)
	}
	f.read(f.expect(http.StatusOK, http.MethodGet, api.PathResources, ""), &list)
	if len(list) != 4 {
		t.Errorf("%+v", list)
	}
}

// What there is stays as it is where that is asked for, also if what was sent of it could not be; what there is not yet is made beside it.
func TestApplyKeepsWhatThereIs(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	before := f.stored()
	f.scheduler.heard()
	keep := func(dry bool, documents string) string {
		var applied api.Applied
		f.read(f.expect(http.StatusOK, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: documents, KeepExisting: true, DryRun: dry})), &applied)
		var list []string
		for _, r := range applied.Resources {
			list = append(list, fmt.Sprintf("%s %s", r.Outcome, describe(r.Kind, r.Name)))
		}
		return strings.Join(list, ", ")
	}
	older := jobYAML("offsite", "pve", "gone", "rpo: never\n") + "---\n" + repositoryYAML("vault")
	if got := keep(false, older); got != "kept job offsite, unchanged repository vault" || f.stored() != before || f.scheduler.heard() != "" {
		t.Errorf("%s; stored %s", got, f.stored())
	}
	more := older + "---\n" + jobYAML("weekly", "pve", "vault", "schedule: {after: offsite}\n")
	for _, dry := range []bool{true, false} {
		if got := keep(dry, more); got != "kept job offsite, unchanged repository vault, created job weekly" {
			t.Errorf("dry %v: %s", dry, got)
		}
	}
	var got api.Resource
	f.read(f.expect(http.StatusOK, http.MethodGet, resourcePath("Job", "offsite"), ""), &got)
	if got.Document != "# nightly\n"+jobYAML("offsite", "pve", "vault") {
		t.Errorf("the job has become %q", got.Document)
	}
	f.expect(http.StatusOK, http.MethodGet, resourcePath("Job", "weekly"), "")
	wrong := f.expect(http.StatusUnprocessableEntity, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: older + "---\n" + jobYAML("monthly", "pve", "gone"), KeepExisting: true}))
	if !strings.Contains(wrong.body, `"line":14`) {
		t.Errorf("the line of a mistake behind what is kept: %s", wrong.body)
	}
	f.expect(http.StatusUnprocessableEntity, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: "", KeepExisting: true}))
}

func TestApplyIsAllOrNone(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	before := f.stored()
	f.scheduler.heard()
	for _, c := range []struct{ name, documents, want string }{
		{"a mistake", repositoryYAML("new") + "---\n" + jobYAML("other", "new", "vault", "rpo: never\n"), `is not a length of time`},
		{"a reference to nothing", repositoryYAML("new") + "---\n" + jobYAML("other", "pvx", "vault"), "there is no repository pvx"},
		{"twice the same", repositoryYAML("new") + "---\n" + repositoryYAML("new"), "there is a repository new already"},
		{"a file that is not allowed", repositoryYAML("new") + "---\n" + repositoryYAML("other") + "passphrase: {file: /etc/shadow}\n", "/etc/shadow is in no allowed folder"},
		{"a circle", jobYAML("a", "pve", "vault", "schedule: {after: b}\n") + "---\n" + jobYAML("b", "pve", "vault", "schedule: {after: a}\n"), "jobs wait for each other"},
	} {
		a := f.expect(http.StatusUnprocessableEntity, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: c.documents}))
		if a.problem.Code != api.CodeInvalid || !strings.Contains(a.problem.Detail+a.body, c.want) {
			t.Errorf("%s: %s", c.name, a.body)
		}
		if got := f.stored(); got != before {
			t.Errorf("%s: %s", c.name, got)
		}
		if heard := f.scheduler.heard(); heard != "" {
			t.Errorf("%s: the scheduler was told %q", c.name, heard)
		}
	}
}

// Mistakes have their place in the whole of what was sent, and say what was meant.
func TestMistakesOfYAMLHaveAPlace(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML() + "---\n" + jobYAML("copy", "pve", "vault", "schedule: {after: offsite}\n"))
	documents := repositoryYAML("new") + "passphrase: {file: /etc/shadow}\n---\n# a job\n" +
		jobYAML("other", "pvee", "vault", "retenton: {days: 3}\n") + "---\nkind: Job\nname: third\nsource: {repositories: [pvx]}\ntarget: {repository: vault}\n"
	a := f.expect(http.StatusUnprocessableEntity, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: documents}))
	want := []api.Mistake{
		{Line: 4, Column: 20, Path: "passphrase.file", Text: "/etc/shadow is in no allowed folder", Hint: "allowed are " + f.dir + "; ferry serve --allow DIR allows another"},
		{Line: 11, Column: 1, Text: `there is no setting "retenton"`, Hint: "did you mean retention?"},
		{Line: 15, Column: 25, Path: "source.repositories[0]", Text: "there is no repository pvx", Hint: "did you mean pve?"},
	}
	if !slices.Equal(a.problem.Mistakes, want) {
		t.Errorf("%+v\nwant\n%+v", a.problem.Mistakes, want)
	}
	if !strings.HasPrefix(a.problem.Detail, "3 mistakes; the first: line 4: passphrase.file: /etc/shadow is in no allowed folder") {
		t.Errorf("detail %q", a.problem.Detail)
	}
	// What is sent can make a stored resource wrong.
	circle := jobYAML("offsite", "pve", "vault", "schedule: {after: copy}\n")
	a = f.expect(http.StatusUnprocessableEntity, http.MethodPost, api.PathApply, asJSON(api.Apply{Documents: circle}))
	if len(a.problem.Mistakes) != 1 {
		t.Errorf("%+v", a.problem.Mistakes)
	}
}

func TestHealth(t *testing.T) {
	f := newFixture(t)
	f.expect(http.StatusOK, http.MethodGet, api.PathLive, "")
	f.expect(http.StatusOK, http.MethodGet, api.PathReady, "")
	since := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	f.scheduler.ready = []scheduler.Trouble{{Text: "what sessions do cannot be noted: disk full", Since: since}}
	var health api.Health
	f.read(f.expect(http.StatusServiceUnavailable, http.MethodGet, api.PathReady, ""), &health)
	if health.OK || !slices.Equal(health.Checks, []string{"what sessions do cannot be noted: disk full"}) {
		t.Errorf("%+v", health)
	}
	var standing api.Status
	f.read(f.expect(http.StatusOK, http.MethodGet, api.PathStatus, ""), &standing)
	if want := (api.Alarm{Level: "critical", Kind: "server", Text: health.Checks[0], Since: since}); len(standing.Alarms) != 1 || standing.Alarms[0] != want {
		t.Errorf("%+v", standing.Alarms)
	}
	f.expect(http.StatusOK, http.MethodGet, api.PathLive, "")
	f.scheduler.ready = nil
	f.Catalog.Close()
	f.read(f.expect(http.StatusServiceUnavailable, http.MethodGet, api.PathReady, ""), &health)
	if !slices.Equal(health.Checks, []string{"the catalog cannot be read"}) {
		t.Errorf("%+v", health)
	}
}

var _ Scheduler = (*scheduler.Scheduler)(nil)
