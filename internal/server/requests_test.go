package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
	"ferry/internal/scheduler"
)

// Bad input of every kind is refused with its reason, and changes nothing.
func TestBadRequests(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	f.scheduler.heard()
	before := f.stored()
	apply := func(documents string) string { return asJSON(api.Apply{Documents: documents}) }
	large := strings.Repeat("# much\n", bodyLimit/7)
	for _, c := range []struct {
		name, method, target, body string
		status                     int
		code, want                 string
	}{
		{"no such path", "GET", "/v1/nothing", "", 404, api.CodeNotFound, "/v1/nothing"},
		{"the root", "GET", "/", "", 404, api.CodeNotFound, ""},
		{"another method", "DELETE", api.PathStatus, "", 405, api.CodeInvalid, "does not take DELETE"},
		{"a path with dots", "GET", "/v1/resources/Job/..%2f..%2fetc", "", 404, api.CodeNotFound, "not in the catalog"},
		{"a kind that there is not", "GET", "/v1/resources/Pod/a", "", 422, api.CodeInvalid, ""},
		{"a kind in small letters", "GET", "/v1/resources/job/offsite", "", 422, api.CodeInvalid, ""},
		{"a name that is long", "GET", "/v1/resources/Job/" + strings.Repeat("a", 256), "", 422, api.CodeInvalid, ""},
		{"a resource that is not there", "GET", "/v1/resources/Job/pve", "", 404, api.CodeNotFound, "pve"},
		{"a job that is not there", "GET", "/v1/jobs/nothing", "", 404, api.CodeNotFound, "job nothing"},
		{"a query that is not known", "GET", api.PathSessions + "?jop=a", "", 422, api.CodeInvalid, "jop"},
		{"a limit of letters", "GET", api.PathSessions + "?limit=ten", "", 422, api.CodeInvalid, "query.limit"},
		{"a limit of nothing", "GET", api.PathSessions + "?limit=0", "", 422, api.CodeInvalid, "query.limit"},
		{"a limit that is large", "GET", api.PathSessions + "?limit=1001", "", 422, api.CodeInvalid, "query.limit"},
		{"before less than nothing", "GET", api.PathSessions + "?before=-1", "", 422, api.CodeInvalid, "query.before"},
		{"a session of letters", "GET", "/v1/sessions/last", "", 422, api.CodeInvalid, "path.id"},
		{"a session that is too large a number", "GET", "/v1/sessions/99999999999999999999", "", 422, api.CodeInvalid, "path.id"},
		{"a session that is not there", "GET", "/v1/sessions/7", "", 404, api.CodeNotFound, "session 7"},
		{"its events", "GET", "/v1/sessions/7/events", "", 404, api.CodeNotFound, "session 7"},
		{"no body", "POST", api.PathApply, "", 400, api.CodeInvalid, "body"},
		{"no JSON", "POST", api.PathApply, "kind: Job\n", 400, api.CodeInvalid, ""},
		{"another media type", "POST", api.PathApply, apply(threeYAML()), 415, api.CodeInvalid, "text/plain"},
		{"half JSON", "POST", api.PathApply, `{"documents": "kind`, 400, api.CodeInvalid, ""},
		{"JSON and more", "POST", api.PathApply, apply(threeYAML()) + "{}", 400, api.CodeInvalid, ""},
		{"a list", "POST", api.PathApply, `[]`, 422, api.CodeInvalid, ""},
		{"null", "POST", api.PathApply, `null`, 422, api.CodeInvalid, ""},
		{"no documents", "POST", api.PathApply, `{}`, 422, api.CodeInvalid, "documents"},
		{"documents of another type", "POST", api.PathApply, `{"documents": 1}`, 422, api.CodeInvalid, "documents"},
		{"null documents", "POST", api.PathApply, `{"documents": null}`, 422, api.CodeInvalid, "documents"},
		{"a setting that is not known", "POST", api.PathApply, `{"documents": "", "force": true}`, 422, api.CodeInvalid, "force"},
		{"deep JSON", "POST", api.PathApply, strings.Repeat("[", 100_000), 400, api.CodeInvalid, ""},
		{"a large body", "POST", api.PathApply, apply(large), 413, api.CodeInvalid, "1048576"},
		{"a large body of a GET", "GET", api.PathStatus, large + large, 413, api.CodeInvalid, "1048576"},
		{"nothing to apply", "POST", api.PathApply, apply(""), 422, api.CodeInvalid, "no resource"},
		{"empty documents", "POST", api.PathApply, apply("---\n---\n# nothing\n"), 422, api.CodeInvalid, "no resource"},
		{"no YAML", "POST", api.PathApply, apply("kind: Job\n\tname: a\n"), 422, api.CodeInvalid, "a tab character"},
		{"an unknown kind", "POST", api.PathApply, apply("kind: Pod\nname: a\n"), 422, api.CodeInvalid, `no kind "Pod"`},
		{"no name", "POST", api.PathApply, apply("kind: Repository\nlocation: /a\n"), 422, api.CodeInvalid, "name"},
		{"a name with a slash", "POST", api.PathApply, apply("kind: Repository\nname: a/b\nlocation: /a\n"), 422, api.CodeInvalid, "no name"},
		{"a secret", "POST", api.PathApply, apply(repositoryYAML("a") + "passphrase: hunter2\n"), 422, api.CodeInvalid, "a secret does not belong"},
		{"a relative location", "POST", api.PathApply, apply("kind: Repository\nname: a\nlocation: srv\n"), 422, api.CodeInvalid, "no relative path"},
		{"two documents that dots part", "POST", api.PathApply, apply(repositoryYAML("a") + "...\n" + repositoryYAML("b")), 422, api.CodeInvalid, "not YAML"},
		{"an alias of an alias of an alias", "POST", api.PathApply, apply(aliases()), 422, api.CodeInvalid, ""},
		{"control characters", "POST", api.PathApply, apply("kind: Job\nname: \"a\\u001b[31m\"\n"), 422, api.CodeInvalid, ""},
		{"a run of what is no object", "POST", "/v1/jobs/offsite/run", `true`, 422, api.CodeInvalid, ""},
		{"a run with more than there is", "POST", "/v1/jobs/offsite/run", `{"ful": true}`, 422, api.CodeInvalid, "ful"},
		{"a stop at once, in words", "POST", "/v1/jobs/offsite/stop", `{"now": "yes"}`, 422, api.CodeInvalid, "now"},
		{"machines without end", "GET", api.PathStatus + "?machines=1000000", "", 422, api.CodeInvalid, "query.machines"},
	} {
		media := "application/json"
		if c.status == http.StatusUnsupportedMediaType {
			media = "text/plain"
		}
		a := f.do(c.method, c.target, c.body, "Content-Type", media)
		if a.status != c.status || a.problem.Code != c.code || !strings.Contains(a.body, strings.ReplaceAll(c.want, `"`, `\"`)) {
			t.Errorf("%s: %d, not %d: %.300s", c.name, a.status, c.status, a.body)
		}
		if strings.ContainsAny(a.problem.Detail, "\x1b\n") {
			t.Errorf("%s: the detail is not safe to print: %q", c.name, a.problem.Detail)
		}
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: the secret came back: %s", c.name, a.body)
		}
	}
	if got := f.stored(); got != before {
		t.Errorf("they left %s", got)
	}
	if heard := f.scheduler.heard(); heard != "" {
		t.Errorf("the scheduler was told %q", heard)
	}
}

// aliases repeat each other: a few lines stand for a million values.
func aliases() string {
	var b strings.Builder
	b.WriteString("kind: Job\nname: a\nselect:\n  include: &a0 [x, y, x, y, x, y, x, y]\n")
	for i := 1; i < 8; i++ {
		fmt.Fprintf(&b, "x%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 8), ", "))
	}
	return b.String()
}

func TestBrowsersAreRefused(t *testing.T) {
	f := newFixture(t)
	for _, header := range []string{"Origin", "Sec-Fetch-Site"} {
		a := f.expect(http.StatusForbidden, "POST", api.PathApply, asJSON(api.Apply{Documents: threeYAML()}), header, "https://example.com")
		if !strings.Contains(a.problem.Detail, "web pages") {
			t.Errorf("%s: %s", header, a.body)
		}
	}
	if got := f.stored(); got != "" {
		t.Errorf("they left %s", got)
	}
}

func TestPanicsTellNothingOfTheInside(t *testing.T) {
	f := newFixture(t)
	f.scheduler.onReady = func() { panic("the inside: hunter2") }
	a := f.expect(http.StatusInternalServerError, "GET", api.PathReady, "")
	if strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "goroutine") || a.problem.Detail != "the server failed; its log says more" {
		t.Errorf("%s", a.body)
	}
	if log := f.log.String(); !strings.Contains(log, "hunter2") || !strings.Contains(log, "TestPanicsTellNothingOfTheInside") || !strings.Contains(log, "user=unknown") {
		t.Errorf("the log says %s", log)
	}
	f.scheduler.onReady = nil
	f.expect(http.StatusOK, "GET", api.PathReady, "")
}

// What is not known of an error stays in the log.
func TestErrorsTellNothingOfTheInside(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	f.scheduler.errors["start false false offsite"] = errors.New("SELECT hunter2")
	a := f.expect(http.StatusInternalServerError, "POST", "/v1/jobs/offsite/run", "")
	if strings.Contains(a.body, "hunter2") || !strings.Contains(f.log.String(), "hunter2") {
		t.Errorf("%s\n%s", a.body, f.log)
	}
}

func TestVersions(t *testing.T) {
	f := newFixture(t)
	put := func(document string) string { return asJSON(api.Document{Document: document}) }
	pve := resourcePath("Repository", "pve")
	a := f.expect(http.StatusCreated, "PUT", pve, put(repositoryYAML("pve")), "If-None-Match", "*")
	tag := a.header.Get("ETag")
	var made api.Resource
	if f.read(a, &made); tag != fmt.Sprintf("%q", fmt.Sprint(made.Version)) || made.Version == 0 {
		t.Fatalf("ETag %s of version %d", tag, made.Version)
	}
	if heard := f.scheduler.heard(); heard != "changed" {
		t.Errorf("the scheduler was told %q", heard)
	}
	if a := f.expect(http.StatusNotModified, "GET", pve, "", "If-None-Match", tag); a.body != "" || a.header.Get("ETag") != tag {
		t.Errorf("%q with %v", a.body, a.header)
	}
	f.expect(http.StatusOK, "GET", pve, "", "If-None-Match", `"999"`)
	other := strings.Replace(repositoryYAML("pve"), "/srv", "/mnt", 1)
	for _, c := range []struct {
		name, method, target, body string
		header                     []string
		status                     int
		code                       string
	}{
		{"change without a condition", "PUT", pve, put(other), nil, 428, api.CodeCondition},
		{"delete without a condition", "DELETE", pve, "", nil, 428, api.CodeCondition},
		{"make what is there", "PUT", pve, put(other), []string{"If-None-Match", "*"}, 412, api.CodeChanged},
		{"unless it is a version", "PUT", pve, put(other), []string{"If-None-Match", `"999"`}, 428, api.CodeCondition},
		{"change another version", "PUT", pve, put(other), []string{"If-Match", `"999"`}, 412, api.CodeChanged},
		{"a weak tag", "PUT", pve, put(other), []string{"If-Match", "W/" + tag}, 412, api.CodeChanged},
		{"a tag without quotes", "PUT", pve, put(other), []string{"If-Match", strings.Trim(tag, `"`)}, 412, api.CodeChanged},
		{"both conditions", "PUT", pve, put(other), []string{"If-Match", tag, "If-None-Match", "*"}, 400, api.CodeInvalid},
		{"change what is not there", "PUT", resourcePath("Repository", "vault"), put(repositoryYAML("vault")), []string{"If-Match", "*"}, 412, api.CodeChanged},
		{"delete what is not there", "DELETE", resourcePath("Repository", "vault"), "", []string{"If-Match", "*"}, 412, api.CodeChanged},
		{"delete another version", "DELETE", pve, "", []string{"If-Match", `"999"`}, 412, api.CodeChanged},
		{"another name", "PUT", pve, put(repositoryYAML("vault")), []string{"If-Match", tag}, 422, api.CodeInvalid},
		{"another kind", "PUT", resourcePath("Job", "pve"), put(repositoryYAML("pve")), []string{"If-None-Match", "*"}, 422, api.CodeInvalid},
		{"two resources", "PUT", pve, put(other + "---\n" + repositoryYAML("vault")), []string{"If-Match", tag}, 422, api.CodeInvalid},
		{"a mistake", "PUT", pve, put(other + "slots: many\n"), []string{"If-Match", tag}, 422, api.CodeInvalid},
		{"nothing", "PUT", pve, put(""), []string{"If-Match", tag}, 422, api.CodeInvalid},
	} {
		a := f.do(c.method, c.target, c.body, c.header...)
		if a.status != c.status || a.problem.Code != c.code {
			t.Errorf("%s: %d, not %d: %s", c.name, a.status, c.status, a.body)
		}
		if now := a.header.Get("ETag"); c.code == api.CodeChanged && c.target == pve && now != tag {
			t.Errorf("%s: the answer has ETag %q, not %q", c.name, now, tag)
		}
	}
	if heard, got := f.scheduler.heard(), f.stored(); heard != "" || got != "repository pve" {
		t.Errorf("they told the scheduler %q, and left %s", heard, got)
	}
	a = f.expect(http.StatusOK, "PUT", pve, put(other), "If-Match", `"999", `+tag)
	if now := a.header.Get("ETag"); now == tag {
		t.Error("the change has no version of its own")
	}
	f.expect(http.StatusPreconditionFailed, "PUT", pve, put(other), "If-Match", tag)
	f.expect(http.StatusNoContent, "DELETE", pve, "", "If-Match", a.header.Get("ETag"))
	f.expect(http.StatusNotFound, "GET", pve, "")
	again := f.expect(http.StatusCreated, "PUT", pve, put(other), "If-None-Match", "*")
	if again.header.Get("ETag") == a.header.Get("ETag") {
		t.Error("made again it has its old version")
	}
}

// Of clients that change a resource at the same time each change counts, once; the others are told.
func TestConcurrentEdits(t *testing.T) {
	f := newFixture(t)
	f.applied(repositoryYAML("pve") + "---\n" + repositoryYAML("vault"))
	const clients, edits = 4, 5
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			for done := 0; done < edits; {
				var now api.Resource
				a := f.do("GET", resourcePath("Repository", "pve"), "")
				f.read(a, &now)
				document := now.Document + "# one more\n"
				switch a := f.do("PUT", resourcePath("Repository", "pve"), asJSON(api.Document{Document: document}), "If-Match", a.header.Get("ETag")); a.status {
				case http.StatusOK:
					done++
				case http.StatusPreconditionFailed:
				default:
					t.Errorf("%d %s", a.status, a.body)
					return
				}
			}
		})
	}
	wait.Wait()
	var now api.Resource
	f.read(f.expect(http.StatusOK, "GET", resourcePath("Repository", "pve"), ""), &now)
	if got := strings.Count(now.Document, "# one more\n"); got != clients*edits {
		t.Errorf("%d of %d edits are there", got, clients*edits)
	}
}

// Whatever is applied and deleted at the same time, what is stored holds together.
func TestConcurrentChangesHoldTogether(t *testing.T) {
	f := newFixture(t)
	f.applied(repositoryYAML("pve") + "---\n" + repositoryYAML("vault"))
	job := asJSON(api.Apply{Documents: jobYAML("offsite", "pve", "vault")})
	vault := asJSON(api.Apply{Documents: repositoryYAML("vault")})
	var wait sync.WaitGroup
	for _, request := range [][]string{
		{"POST", api.PathApply, job}, {"POST", api.PathApply, vault}, {"DELETE", resourcePath("Job", "offsite"), ""}, {"DELETE", resourcePath("Repository", "vault"), ""},
	} {
		wait.Go(func() {
			for range 15 {
				switch a := f.do(request[0], request[1], request[2], "If-Match", "*"); a.status {
				case http.StatusOK, http.StatusNoContent, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
				default:
					t.Errorf("%v: %d %s", request, a.status, a.body)
				}
				if _, err := f.parsed(t.Context()); err != nil {
					t.Errorf("what is stored does not hold: %v", err)
				}
			}
		})
	}
	wait.Wait()
}

// Who reads all resources while others go sees those of one moment: no job without its repository, though that went behind it.
func TestWhatIsReadIsOfOneMoment(t *testing.T) {
	f := newFixture(t)
	f.applied(repositoryYAML("pve"))
	ended := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(ended)
		for range 60 {
			f.applied(repositoryYAML("vault") + "---\n" + jobYAML("offsite", "pve", "vault"))
			f.delete("Job", "offsite", "")
			f.delete("Repository", "vault", "")
		}
	})
	for going := true; going; {
		select {
		case <-ended:
			going = false
		default:
		}
		if _, err := f.parsed(t.Context()); err != nil {
			t.Errorf("what is read does not hold: %v", err)
			break
		}
	}
	wait.Wait()
}

func TestJobs(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	f.scheduler.heard()
	wrapped := func(err error) error { return fmt.Errorf("job offsite: %w", err) }
	for _, c := range []struct {
		method, path, body string
		err                error
		told               string
		status             int
		code               string
	}{
		{"POST", "run", "", nil, "start false false offsite", 202, ""},
		{"POST", "run", `{}`, nil, "start false false offsite", 202, ""},
		{"POST", "run", `{"full": true}`, nil, "start true false offsite", 202, ""},
		{"POST", "run", `{"retry": true}`, wrapped(scheduler.ErrNothingToRetry), "start false true offsite", 409, api.CodeNothingToRetry},
		{"POST", "run", "", wrapped(scheduler.ErrRunning), "start false false offsite", 409, api.CodeRunning},
		{"POST", "run", "", wrapped(scheduler.ErrUnknownJob), "start false false offsite", 404, api.CodeNotFound},
		{"POST", "run", "", scheduler.ErrNotReady, "start false false offsite", 503, api.CodeNotReady},
		{"POST", "run", "", fmt.Errorf("x: %w", catalog.ErrFull), "start false false offsite", 507, api.CodeNotReady},
		{"POST", "stop", "", nil, "stop false offsite", 202, ""},
		{"POST", "stop", `{"now": true}`, nil, "stop true offsite", 202, ""},
		{"POST", "stop", "", wrapped(scheduler.ErrNotRunning), "stop false offsite", 409, api.CodeNotRunning},
		{"POST", "enable", "", nil, "enable offsite", 204, ""},
		{"POST", "disable", "", nil, "disable offsite", 204, ""},
		{"POST", "disable", "", wrapped(scheduler.ErrUnknownJob), "disable offsite", 404, api.CodeNotFound},
		{"GET", "explain", "", nil, "explain offsite", 200, ""},
		{"GET", "explain", "", wrapped(scheduler.ErrUnknownJob), "explain offsite", 404, api.CodeNotFound},
		{"GET", "explain", "", fmt.Errorf("x: %w", policy.Problems{{Path: "passphrase.file", Text: "is the disk mounted?"}}), "explain offsite", 503, api.CodeNotReady},
		{"GET", "simulate?days=400", "", nil, "setup offsite", 200, ""},
		{"GET", "simulate?days=3661", "", nil, "", 422, api.CodeInvalid},
		{"GET", "simulate", "", wrapped(scheduler.ErrUnknownJob), "setup offsite", 404, api.CodeNotFound},
		{"GET", "explain", "", errors.New("target offline: is the disk mounted?"), "explain offsite", 503, api.CodeNotReady},
	} {
		f.scheduler.errors[c.told] = c.err
		a := f.do(c.method, "/v1/jobs/offsite/"+c.path, c.body)
		if a.status != c.status || a.problem.Code != c.code {
			t.Errorf("%s %s: %d %s", c.path, c.body, a.status, a.body)
		}
		if helps := c.code == api.CodeRunning || c.code == api.CodeNotFound; helps && !strings.HasPrefix(a.problem.Hint, "ferry ") {
			t.Errorf("%s %s: nothing says what helps: %s", c.path, c.body, a.body)
		}
		if heard := f.scheduler.heard(); heard != c.told {
			t.Errorf("%s %s: the scheduler was told %q", c.path, c.body, heard)
		}
		if c.status == 202 && c.path == "run" && !strings.Contains(a.body, `"session":7`) {
			t.Errorf("%s", a.body)
		}
		if c.status == 503 && c.path == "explain" && !strings.Contains(a.problem.Detail, "is the disk mounted?") {
			t.Errorf("%s", a.body)
		}
		delete(f.scheduler.errors, c.told)
	}
	var jobs []api.Job
	if f.read(f.expect(200, "GET", api.PathJobs, ""), &jobs); len(jobs) != 1 || jobs[0].Name != "offsite" {
		t.Errorf("%+v", jobs)
	}
	var one api.Job
	if f.read(f.expect(200, "GET", "/v1/jobs/offsite", ""), &one); one.Target != "vault" {
		t.Errorf("%+v", one)
	}
}

func TestRebuild(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML() + "---\n" + repositoryYAML("usb") + "---\n" + jobYAML("copy", "pve", "usb") + "---\n" + jobYAML("weekly", "pve", "vault"))
	f.scheduler.heard()
	f.scheduler.errors["rebuild usb"] = errors.New("no Ferry repository at /srv/usb")
	f.scheduler.errors["rebuild pve"] = scheduler.ErrUnknownRepository
	var rebuilt api.Rebuilt
	f.read(f.expect(200, "POST", api.PathRebuild, ""), &rebuilt)
	want := api.Rebuilt{Repositories: []api.RebuiltRepository{{Name: "usb", Points: 12, Error: "no Ferry repository at /srv/usb"}, {Name: "vault", Points: 12}}}
	if asJSON(rebuilt) != asJSON(want) {
		t.Errorf("%s", asJSON(rebuilt))
	}
	if heard := f.scheduler.heard(); heard != "rebuild usb, rebuild vault" {
		t.Errorf("the scheduler was told %q", heard)
	}
	f.expect(200, "POST", api.PathRebuild, `{"repository": "vault"}`)
	f.expect(404, "POST", api.PathRebuild, `{"repository": "pve"}`)
	if heard := f.scheduler.heard(); heard != "rebuild vault, rebuild pve" {
		t.Errorf("the scheduler was told %q", heard)
	}
}

func TestAdopt(t *testing.T) {
	f := newFixture(t)
	var adopted api.Adopted
	if f.read(f.expect(200, "POST", "/v1/targets/vault/adopt", ""), &adopted); adopted != (api.Adopted{Adopted: true, Points: 12}) {
		t.Errorf("%+v", adopted)
	}
	f.scheduler.errors["adopt pve"] = scheduler.ErrUnknownRepository
	f.expect(404, "POST", "/v1/targets/pve/adopt", "")
	f.scheduler.errors["adopt usb"] = errors.New("no Ferry repository at /srv/usb")
	if a := f.expect(503, "POST", "/v1/targets/usb/adopt", ""); a.problem.Detail != "repository usb cannot be adopted now: no Ferry repository at /srv/usb" {
		t.Errorf("%s", a.body)
	}
	if heard := f.scheduler.heard(); heard != "adopt vault, adopt pve, adopt usb" {
		t.Errorf("the scheduler was told %q", heard)
	}
}

// Resources that a less strict program has stored keep nobody from looking at them, replacing and deleting them.
func TestStoredMistakes(t *testing.T) {
	f := newFixture(t)
	f.applied(threeYAML())
	must(t, f.Catalog.Jobs.Enable(t.Context(), "offsite"))
	for _, name := range []string{"old", "older"} {
		_, err := f.Catalog.Resources.Put(t.Context(), kindJob, name, jobYAML(name, "pve", "vault", "gone: 1\n"), 0)
		must(t, err)
	}
	a := f.expect(500, "GET", api.PathStatus, "")
	if a.problem.Code != api.CodeNotReady || len(a.problem.Mistakes) != 2 || a.problem.Mistakes[0].Resource != "job old" || a.problem.Mistakes[0].Line != 5 {
		t.Errorf("%s", a.body)
	}
	if a.problem.Detail != "resources that are stored have mistakes: job old, job older" {
		t.Errorf("%s", a.problem.Detail)
	}
	f.expect(200, "GET", api.PathResources, "")
	f.expect(200, "GET", resourcePath("Job", "old"), "")
	a = f.expect(422, "POST", api.PathApply, asJSON(api.Apply{Documents: repositoryYAML("usb")}))
	if len(a.problem.Mistakes) != 2 || a.problem.Mistakes[1].Resource != "job older" {
		t.Errorf("%s", a.body)
	}
	f.scheduler.errors["disable offsite"] = errors.New("the jobs cannot be read")
	if a := f.delete("Job", "older", ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := f.delete("Job", "offsite", ""); a.status != 204 {
		t.Errorf("of another: %d %s", a.status, a.body)
	}
	if got := f.applied(jobYAML("old", "pve", "vault")); got != "changed job old" {
		t.Errorf("%s", got)
	}
	f.expect(200, "GET", api.PathStatus, "")
	if a := f.delete("Repository", "pve", ""); a.status != 409 {
		t.Errorf("of what it uses: %d %s", a.status, a.body)
	}
}

// FuzzApply: whatever is sent, it is taken or refused with a reason, and what is stored holds together.
func FuzzApply(f *testing.F) {
	f.Add([]byte(asJSON(api.Apply{Documents: threeYAML()})), true)
	f.Add([]byte(threeYAML()), false)
	f.Add([]byte(repositoryYAML("a")+"...\n"+repositoryYAML("b")), false)
	f.Add([]byte("--- {kind: Repository, name: a, location: /a}\n---\n"+jobYAML("j", "a", "a")), false)
	f.Add([]byte(`{"documents": "\ud800", "dryRun": 1}`), true)
	f.Add([]byte(aliases()), false)
	for _, location := range []string{"/srv/../etc", "/srv/./a//b", "/etc", "/srvx", "srv", "s3://b/p?endpoint=http://h", "s3+https://h/b?endpoint=http://h", "s3://b/../c", "/srv/\x00a"} {
		f.Add([]byte("{kind: Repository, name: a, location: \""+location+"\"}"), false)
	}
	server := newFixture(f, func(o *Options) { o.Allowed.Places = []string{"/srv", "/a", "s3://b/p"} })
	f.Fuzz(func(t *testing.T, content []byte, raw bool) {
		server.t = t
		body := string(content)
		if !raw {
			body = asJSON(api.Apply{Documents: body})
		}
		a := server.do("POST", api.PathApply, body)
		switch a.status {
		case 200, 400, 413, 422:
		default:
			t.Fatalf("%d %s", a.status, a.body)
		}
		resources, err := server.parsed(t.Context())
		if err != nil {
			t.Fatalf("what is stored does not hold: %v", err)
		}
		for _, r := range resources.Repositories {
			if problems := append(server.Allowed.Place(r), server.Allowed.Secrets(r)...); len(problems) > 0 {
				t.Fatalf("what is not allowed was stored: %v", problems)
			}
		}
		for _, j := range resources.Jobs {
			if problems := server.Allowed.Job(j); len(problems) > 0 {
				t.Fatalf("what is not allowed was stored: %v", problems)
			}
		}
		list, err := server.storedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if d := policy.Split([]byte(r.Document)); len(d) != 1 || d[0].Kind != r.Kind || d[0].Name != r.Name {
				t.Fatalf("%s is stored as %q", describe(r.Kind, r.Name), r.Document)
			}
		}
		if len(list) > 50 { // each is checked with all others
			for _, r := range list {
				if err := server.Catalog.Resources.Delete(t.Context(), r.Kind, r.Name, r.Version); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
