package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferry/internal/api"
	"ferry/internal/repo"
	filestore "ferry/internal/storage/fs"
)

// run runs the command line and returns what it printed.
func run(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := Main(args, &out, &errOut); code != want {
		t.Fatalf("ferry %s: exit code %d instead of %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errOut.String())
	}
	return out.String(), errOut.String()
}

// shape notes the path and the kind of every name in a JSON document, and fails at null.
func shape(t *testing.T, into map[string]bool, path string, value any) {
	t.Helper()
	switch value := value.(type) {
	case nil:
		t.Errorf("%s is null", path)
	case map[string]any:
		for name, member := range value {
			shape(t, into, path+"."+name, member)
		}
	case []any:
		into[path+" list"] = true
		for _, element := range value {
			shape(t, into, path+"[]", element)
		}
	default:
		into[fmt.Sprintf("%s %T", path, value)] = true
	}
}

func shapeOf(t *testing.T, documents ...string) []string {
	t.Helper()
	paths := map[string]bool{}
	for _, document := range documents {
		var value any
		if err := json.Unmarshal([]byte(document), &value); err != nil {
			t.Fatalf("%v in %s", err, document)
		}
		shape(t, paths, "", value)
	}
	return slices.Sorted(maps.Keys(paths))
}

// documented are the examples of docs/json.md, by the heading of their section.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	content, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string][]string{}
	for _, section := range strings.Split(string(content), "\n## ")[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		for _, example := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(body, -1) {
			examples[heading] = append(examples[heading], example[1])
		}
	}
	return examples
}

// TestJSON compares what --json prints with docs/json.md: every name of the one is in the other, with the same kind of
// value. A name that is changed here is changed for every script that someone has written.
func TestJSON(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	ferry := func(want int, args ...string) string {
		t.Helper()
		out, _ := run(t, want, append(args, "--json", "--cache-dir", in("cache"))...)
		return out
	}
	messages := func(want int, args ...string) []string {
		t.Helper()
		_, messages := run(t, want, append(args, "--json", "--cache-dir", in("cache"))...)
		return strings.Split(strings.TrimSpace(messages), "\n")
	}
	printed := map[string][]string{}
	note := func(command, document string) { printed[command] = append(printed[command], document) }

	note("repo init", ferry(ExitDone, "repo", "init", in("vault")))
	note("copy", ferry(ExitDone, "copy", vzdumpSamples, in("vault"), "--dry-run"))
	note("copy", ferry(ExitDone, "copy", vzdumpSamples, in("vault"), "--all"))
	note("points", ferry(ExitDone, "points", vzdumpSamples))
	note("points", ferry(ExitDone, "points", in("vault")))
	note("repo info", ferry(ExitDone, "repo", "info", in("vault")))
	note("repo info", ferry(ExitDone, "repo", "info", in("vault"), "--analyze"))
	note("verify", ferry(ExitDone, "verify", in("vault")))
	if document := printed["verify"][0]; strings.Contains(document, `"begun"`) {
		t.Errorf("a verification that goes on with none says since when: %s", document)
	}
	ferry(ExitDone, "verify", in("vault"), "--max-bytes", "1")
	note("verify", ferry(ExitDone, "verify", in("vault"))) // goes on
	note("repo locks", ferry(ExitDone, "repo", "locks", in("vault"), "--check"))
	// What takes rights that not everyone who runs the tests has.
	problem, err := json.Marshal(locksJSON{Problems: []lockProblemJSON{{File: "packs/a2/b3"}}})
	if err != nil {
		t.Fatal(err)
	}
	note("repo locks", string(problem))
	note("adopt", ferry(ExitDone, "adopt", in("vault"), "--as", "vault", "-f", "-", "--also"))
	note("repo rescan", ferry(ExitDone, "repo", "rescan", in("vault")))
	note("repo reindex", ferry(ExitDone, "repo", "reindex", in("vault"), "--all"))
	note("demo", ferry(ExitDone, "demo", "--keep=false", "--temp-dir", dir))

	// What is given up, one of it held.
	if err := os.CopyFS(in("held"), os.DirFS(in("vault"))); err != nil {
		t.Fatal(err)
	}
	holdOldest(t, in("held"))
	note("points", ferry(ExitDone, "points", in("held"), "--cache-dir", in("other cache")))
	note("forget", ferry(ExitDone, "forget", in("held"), "--keep-points", "1", "--keep-weekly", "1", "--cache-dir", in("other cache")))

	oldest := oldestPoint(t, printed["points"][1])
	note("hold", ferry(ExitDone, "hold", in("held"), oldest, "--reason", "audit", "--until", "2999-01-01", "--cache-dir", in("other cache")))
	note("hold", ferry(ExitDone, "release", in("held"), oldest, "--cache-dir", in("other cache")))

	// Keys, with and without one.
	note("key generate", ferry(ExitDone, "key", "generate", in("admin.key")))
	t.Setenv("FERRY_IDENTITY", in("admin.key"))
	note("repo init", ferry(ExitDone, "repo", "init", in("encrypted"), "--encrypt", "--recipient", generatedKey(t, printed["key generate"][0])))
	note("key list", ferry(ExitDone, "key", "list", in("encrypted")))
	note("key export", ferry(ExitDone, "key", "export", in("encrypted"), in("kit.txt")))
	t.Setenv("FERRY_IDENTITY", "")
	note("key list", ferry(ExitDone, "key", "list", in("encrypted")))
	note("points", ferry(ExitDone, "points", in("encrypted")))

	noteJobs(t, in, note, ferry)
	noteServer(t, note, ferry)

	note("compact", ferry(ExitDone, "compact", in("held")))

	// A repository without points.
	if err := os.CopyFS(in("emptied"), os.DirFS(in("vault"))); err != nil {
		t.Fatal(err)
	}
	var points pointsJSON
	if err := json.Unmarshal([]byte(ferry(ExitDone, "points", in("emptied"))), &points); err != nil {
		t.Fatal(err)
	}
	all := []string{"forget", in("emptied"), "--newest"}
	ferry(ExitDone, "adopt", in("emptied")) // "held" is seen as the same repository
	for _, p := range points.Points {
		all = append(all, "--point", p.ID)
	}
	ferry(ExitDone, all...)
	note("reclaim", ferry(ExitDone, "reclaim", in("emptied"), "--grace", "0"))

	// A copy of the copy has hops.
	note("copy", ferry(ExitDone, "copy", in("vault"), in("second"), "--create"))
	note("points", ferry(ExitDone, "points", in("second"))) // has hops
	note("restore", ferry(ExitDone, "restore", in("second"), "web01", "--to", in("out"), "--sha256"))

	// Lists are there, empty, where there is nothing.
	if err := os.Mkdir(in("empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	note("points", ferry(ExitDone, "points", in("empty")))

	spoil(t, in("second"))
	note("verify", ferry(ExitDamaged, "verify", in("second")))
	printed["Warnings and errors"] = append(messages(ExitUsage, "job", "show", "-f", in("bad.yaml")), messages(ExitDamaged, "restore", in("second"), "web01", "--to", in("damaged"))...)
	printed["Warnings and errors"] = append(printed["Warnings and errors"], messages(ExitUsage, "points", in("nowhere"))...)
	note("restore", ferry(ExitDamaged, "restore", in("second"), "web01", "--to", in("gaps"), "--skip-damaged"))
	entries, err := filepath.Glob(in("second/log/*"))
	if err != nil || len(entries) < 2 {
		t.Fatal(entries, err)
	}
	for _, entry := range entries[1:] { // the history ends before what was seen; without the holds of the restores alone nothing is missed
		if err := os.Remove(entry); err != nil {
			t.Fatal(err)
		}
	}
	printed["Warnings and errors"] = append(printed["Warnings and errors"], messages(ExitFailed, "copy", vzdumpSamples, in("second"))...)

	runJobs(t, in, func(command string, args ...string) { note(command, ferry(ExitDone, args...)) })

	examples := documented(t)
	for _, command := range slices.Sorted(maps.Keys(examples)) {
		got, want := shapeOf(t, printed[command]...), shapeOf(t, examples[command]...)
		for _, name := range got {
			if !slices.Contains(want, name) {
				t.Errorf("%s prints %s, which docs/json.md does not have", command, name)
			}
		}
		for _, name := range want {
			// No sample has labels, and copies by hand have one job.
			if !slices.Contains(got, name) && !strings.HasSuffix(name, ".machine.labels[] string") && name != ".points[].claimedBy[] string" {
				t.Errorf("%s does not print %s, which docs/json.md has", command, name)
			}
		}
	}
	if len(examples) != 36 {
		t.Errorf("docs/json.md has examples for %d sections", len(examples))
	}
}

// noteJobs notes what commands print that read a file of jobs.
func noteJobs(t *testing.T, in func(string) string, note func(string, string), ferry func(int, ...string) string) {
	t.Helper()
	samples, err := filepath.Abs(vzdumpSamples)
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf(`kind: Repository
name: pve
location: %s
labels: [{label: web, name: web*}]
---
kind: Repository
name: vault
location: vault
---
kind: Job
name: near
source: {repositories: [pve]}
target: {repository: vault}
select: {include: [label=web, WEB01], exclude: [test-*]}
retention: {points: 3}
overrides: [{match: web01, retention: {days: 14, weekly: {keep: 4, on: sunday}}}]
`, samples)
	for name, content := range map[string]string{"job.yaml": file, "bad.yaml": "kind: Job\nsorce: x\n"} {
		if err := os.WriteFile(in(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	note("job show", ferry(ExitDone, "job", "show", "-f", in("job.yaml")))
	note("job resolve", ferry(ExitDone, "job", "resolve", "-f", in("job.yaml")))
}

// noteServer notes what commands print that ask a server, after a session of a real one.
func noteServer(t *testing.T, note func(string, string), ferry func(int, ...string) string) {
	t.Helper()
	dir := serveHere(t)
	samples, err := filepath.Abs(vzdumpSamples)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "jobs.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{kind: Repository, name: pve, location: %s}
---
{kind: Repository, name: vault, location: vault}
---
{kind: Job, name: offsite, source: {repositories: [pve]}, target: {repository: vault}, rpo: 26h}
`, samples), 0o600); err != nil {
		t.Fatal(err)
	}
	ferry(ExitDone, "repo", "init", filepath.Join(dir, "vault"))
	note("apply", ferry(ExitDone, "apply", "-f", file))
	note("get", ferry(ExitDone, "get"))
	note("job run", ferry(ExitDone, "job", "run"))
	note("job explain", ferry(ExitDone, "job", "explain"))
	note("session list", ferry(ExitDone, "session", "list"))
	note("status", ferry(ExitDone, "status"))
	note("catalog rebuild", ferry(ExitDone, "catalog", "rebuild"))
	var shown map[string]any
	if err := json.Unmarshal([]byte(ferry(ExitDone, "session", "show", "1")), &shown); err != nil {
		t.Fatal(err)
	}
	if shown["report"] == nil {
		t.Error("a session that has ended has no report")
	}
	delete(shown, "report") // it is what job run prints
	delete(shown, "phases") // with counts that differ from phase to phase
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	note("session show", string(text))
	note("job run --detach", ferry(ExitDone, "job", "full", "--detach"))
	ferry(ExitDone, "session", "follow", "offsite")
	note("job enable", ferry(ExitDone, "job", "disable"))
	note("job enable", ferry(ExitDone, "job", "enable"))
	note("machine retire", ferry(ExitDone, "machine", "retire", "web01"))
	note("machine retire", ferry(ExitDone, "machine", "return", "web01"))
	note("bandwidth", ferry(ExitDone, "bandwidth", "20MB/s"))
	note("apply", ferry(ExitDone, "delete", "job", "offsite"))
	noteBusy(t, note, badStatus())
}

// noteBusy notes what is printed of work that only lasts for moments.
func noteBusy(t *testing.T, note func(string, string), busy api.Status) {
	t.Helper()
	live := busy.Sessions[0]
	live.Counts, live.Tasks, live.Phases = map[string]int64{}, []api.Task{}, []api.Phase{}
	shown := live
	shown.Phases = []api.Phase{{Counts: map[string]int64{}}}
	for command, document := range map[string]any{
		"status": api.Status{
			Running: busy.Running[:1], Waiting: busy.Waiting[:1], Sessions: []api.Session{live}, Alarms: []api.Alarm{}, Machines: []api.Copy{}, Jobs: []api.Job{},
			Repositories: []api.Repository{{Orphaned: []api.Orphaned{{}}}},
		},
		"session show": shown,
	} {
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		note(command, string(text))
	}
}

// runJobs runs a job over two sources, one of whose machines goes away, and notes what is printed.
func runJobs(t *testing.T, in func(string) string, note func(command string, args ...string)) {
	t.Helper()
	if err := os.CopyFS(in("dump"), os.DirFS(vzdumpSamples)); err != nil {
		t.Fatal(err)
	}
	for _, machine := range []string{"db", "mail"} {
		if err := os.MkdirAll(in("images"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in("images/"+machine+".raw"), bytes.Repeat([]byte(machine), 50_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, mapping, retention string) string {
		t.Helper()
		err := os.WriteFile(in(name), []byte(`{kind: Repository, name: pve, location: dump}
---
{kind: Repository, name: pictures, location: images}
---
{kind: Repository, name: target, location: target}
---
kind: Job
name: offsite
source: {repositories: [pve, pictures]}
target: {repository: target, map: `+mapping+`}
backfill: all
retention: `+retention+`
purgeAfter: 90d
scripts: {post: {run: [/bin/true]}}
`), 0o644)
		if err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	wide, narrow := write("wide.yaml", "[]", "{days: 14, weekly: {keep: 2}}"), write("narrow.yaml", "[{machine: web01, backup: offsite/web01}, {machine: web02, backup: manual/web02}]", "{points: 1}")
	run(t, ExitDone, "repo", "init", in("target"), "--quiet")
	note("job explain", "job", "explain", "-f", wide)
	note("job missing", "job", "missing", "-f", wide)
	note("job run", "job", "run", "--once", "-f", wide)
	if err := os.Remove(in("images/mail.raw")); err != nil {
		t.Fatal(err)
	}
	note("machine retire", "machine", "retire", "mail", "-f", narrow)
	note("job explain", "job", "explain", "-f", narrow)
	note("job resolve", "job", "resolve", "-f", narrow)
	note("job simulate", "job", "simulate", "-f", narrow, "--days", "3")
	note("job run", "job", "run", "--once", "-f", narrow)
	chained, err := os.ReadFile(narrow)
	if err == nil {
		chained = append(chained, "---\n{kind: Repository, name: far, location: far}\n---\n{kind: Job, name: onward, source: {jobs: [offsite]}, target: {repository: far}}\n"...)
		err = os.WriteFile(in("chained.yaml"), chained, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, ExitDone, "repo", "init", in("far"), "--quiet")
	run(t, ExitDone, "job", "run", "--once", "-f", in("chained.yaml"), "onward", "--quiet")
	note("repo jobs", "repo", "jobs", in("far"))
}

// holdOldest holds the oldest point of a repository, as a restore does.
func holdOldest(t *testing.T, path string) {
	t.Helper()
	store, err := filestore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	repository, err := repo.Open(t.Context(), store, repo.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	defer repository.Close()
	if _, err := repository.Hold(t.Context(), repository.Entries()[0].ID, "a test"); err != nil {
		t.Fatal(err)
	}
}

// oldestPoint is the id of the first point that points printed.
func oldestPoint(t *testing.T, document string) string {
	t.Helper()
	var listed pointsJSON
	if err := json.Unmarshal([]byte(document), &listed); err != nil || len(listed.Points) == 0 {
		t.Fatal(err)
	}
	return listed.Points[0].ID
}

func generatedKey(t *testing.T, document string) string {
	t.Helper()
	var generated generatedJSON
	if err := json.Unmarshal([]byte(document), &generated); err != nil {
		t.Fatal(err)
	}
	return generated.PublicKey
}

// spoil changes a byte in every pack of a repository.
func spoil(t *testing.T, repository string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(repository, "packs/*/*"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("%d packs, %v", len(packs), err)
	}
	for _, pack := range packs {
		content, err := os.ReadFile(pack)
		if err != nil {
			t.Fatal(err)
		}
		content[200] ^= 1
		if err := os.WriteFile(pack, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJSONErrorsAreLast: a script can take the last line of standard error for the error.
func TestJSONErrorsAreLast(t *testing.T) {
	_, messages := run(t, ExitUsage, "verify", t.TempDir(), "--json", "--cache-dir", t.TempDir())
	var message struct {
		Error struct {
			Message, Hint string
			ExitCode      int
		}
	}
	if err := json.Unmarshal([]byte(messages), &message); err != nil || message.Error.ExitCode != ExitUsage || message.Error.Message == "" {
		t.Errorf("%v: %s", err, messages)
	}
}
