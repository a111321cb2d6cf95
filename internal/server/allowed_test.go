package server

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	calls "ferry/internal/answer"
	"ferry/internal/api"
	"ferry/internal/policy"
)

func TestAllowed(t *testing.T) {
	root := t.TempDir()
	allowed, outside := filepath.Join(root, "ferry"), filepath.Join(root, "outside")
	for _, dir := range []string{filepath.Join(allowed, "sub"), outside, filepath.Join(root, "ferry2")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ferry/key", "ferry/sub/key", "outside/key", "ferry2/key"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("../outside/key", "ferry/to-outside")
	link("sub/key", "ferry/to-inside")
	link(outside, "ferry/folder-outside")
	link("to-outside", "ferry/twice")
	link("nowhere", "ferry/dangling")
	link("loop", "ferry/loop")
	link(allowed, "by-another-name")
	link("../outside/not-yet", "ferry/dangling-outside")

	a := []string{allowed}
	for _, c := range []struct {
		name string
		want string // part of the error; empty: allowed
	}{
		{"ferry/key", ""},
		{"ferry/sub/key", ""},
		{"ferry/to-inside", ""},
		{"ferry/not-yet", ""},
		{"ferry/sub/not/yet", ""},
		{"by-another-name/key", ""},
		{"ferry/./sub//key", ""},
		{"outside/key", "is in no allowed folder"},
		{"ferry2/key", "is in no allowed folder"},
		{"ferry", "is in no allowed folder"},
		{"ferry/../outside/key", "no path with .."},
		{"ferry/sub/../key", "no path with .."},
		{"ferry/to-outside", "leads to " + filepath.Join(outside, "key")},
		{"ferry/twice", "leads to " + filepath.Join(outside, "key")},
		{"ferry/folder-outside/key", "leads to " + filepath.Join(outside, "key")},
		{"ferry/folder-outside/not-yet", "leads to " + filepath.Join(outside, "not-yet")},
		{"ferry/dangling", "a link that leads nowhere"},
		{"ferry/dangling-outside", "a link that leads nowhere"},
		{"ferry/loop", "too many links"},
		{"ferry/key/below", "not a directory"},
	} {
		err := within(root+"/"+c.name, a, isBelow)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	link("key", "outside/link")
	for _, other := range []string{"outside/link", "outside/key/below", "outside/not-yet"} { // what is there is nobody's business
		if err := within(filepath.Join(root, other), a, isBelow); err == nil || err.Error() != filepath.Join(root, other)+" is in no allowed folder" {
			t.Errorf("%s: %v", other, err)
		}
	}
	for _, relative := range []string{"key", "./key", "~/key", "", " /etc/shadow"} {
		if within(relative, a, isBelow) == nil {
			t.Errorf("%q is allowed", relative)
		}
	}
	if err := within(filepath.Join(allowed, "key"), []string{}, isBelow); err == nil {
		t.Error("nothing allows something")
	}
	if err := within(filepath.Join(outside, "key"), []string{"/"}, isBelow); err != nil {
		t.Errorf("the root allows all: %v", err)
	}
	if err := within(filepath.Join(root, "not-yet", "key"), []string{filepath.Join(root, "not-yet")}, isBelow); err != nil {
		t.Errorf("a folder that will be made: %v", err)
	}
}

// Every setting that names a file or a program is asked about.
func TestResourcesNameOnlyWhatIsAllowed(t *testing.T) {
	f := newFixture(t)
	secret, script := filepath.Join(f.dir, "secret"), filepath.Join(f.dir, "script")
	pair := repositoryYAML("pve") + "---\n" + repositoryYAML("vault")
	for _, c := range []struct{ setting, good, bad string }{
		{"passphrase.file", "passphrase: {file: " + secret + "}", "passphrase: {file: /etc/shadow}"},
		{"identity.file", "identity: {file: " + secret + "}", "identity: {file: /etc/ssh/ssh_host_ed25519_key}"},
		{"credentials.file", "credentials: {file: " + secret + "}", "credentials: {file: /proc/self/environ}"},
		{"passphrase.command", "passphrase: {command: " + script + " --of vault}", "passphrase: {command: cat /etc/shadow}"},
		{"passphrase.command", "passphrase: {command: " + script + "}", "passphrase: {command: " + script + " $(cat /etc/shadow)}"},
		{"passphrase.command", "passphrase: {command: " + script + "}", `passphrase: {command: "` + script + `; id"}`},
		{"passphrase.command", "passphrase: {command: " + script + "}", `passphrase: {command: "LD_PRELOAD=/tmp/x ` + script + `"}`},
		{"passphrase.command", "passphrase: {command: " + script + "}", `passphrase: {command: "` + script + `\nid"}`},
		{"passphrase.command", "passphrase: {command: " + script + "}", `passphrase: {command: " ` + script + `"}`},
		{"credentials.command", "credentials: {command: " + script + "}", "credentials: {command: /bin/sh -c id}"},
	} {
		repository := repositoryYAML("a")
		if strings.HasPrefix(c.setting, "credentials") {
			repository = strings.Replace(repository, "/srv/a", "s3://bucket/a?endpoint=https://s3.example.com", 1)
		}
		bad := f.do("POST", api.PathApply, asJSON(api.Apply{Documents: repository + c.bad + "\n"}))
		if bad.status != 422 || len(bad.problem.Mistakes) != 1 || bad.problem.Mistakes[0].Path != c.setting || bad.problem.Mistakes[0].Line != 4 {
			t.Errorf("%s: %d %s", c.bad, bad.status, bad.body)
		}
		good := f.do("POST", api.PathApply, asJSON(api.Apply{Documents: repository + c.good + "\n"}))
		if good.status != 200 {
			t.Errorf("%s: %s", c.good, good.body)
		}
	}
	for _, when := range []string{"pre", "post"} {
		job := func(run string) string {
			return pair + "---\n" + jobYAML("j", "pve", "vault", "scripts: {"+when+": {run: ["+run+"]}}\n")
		}
		bad := f.do("POST", api.PathApply, asJSON(api.Apply{Documents: job("/bin/sh, -c, id")}))
		if bad.status != 422 || len(bad.problem.Mistakes) != 1 || bad.problem.Mistakes[0].Path != "scripts."+when+".run" {
			t.Errorf("%d %s", bad.status, bad.body)
		}
		if good := f.do("POST", api.PathApply, asJSON(api.Apply{Documents: job(script + ", '$(id)'")})); good.status != 200 {
			t.Errorf("%s", good.body)
		}
	}
}

// What was allowed when it was applied is checked again before it is used.
func TestLinksThatChangedAreSeen(t *testing.T) {
	f := newFixture(t)
	secret := filepath.Join(f.dir, "secret")
	f.applied(repositoryYAML("a") + "passphrase: {file: " + secret + "}\n")
	resources, err := f.parsed(t.Context())
	must(t, err)
	a, _ := resources.Repository("a")
	if problems := f.Allowed.Secrets(a); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	must(t, os.Remove(secret))
	must(t, os.Symlink("/etc/shadow", secret))
	if problems := f.Allowed.Secrets(a); len(problems) != 1 || problems[0].Path != "passphrase.file" {
		t.Errorf("%v", problems)
	}
	// What stands already keeps nobody from applying something else.
	if got := f.applied(repositoryYAML("b")); got != "created repository b" {
		t.Errorf("%s", got)
	}
}

// Where places are named, repositories lie in or below one of them, all links followed, or in a bucket below one; every request
// that stores a resource is refused otherwise, with the line and the column, and nothing is told of what is elsewhere.
func TestRepositoriesLieInPlaces(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"dump/sub", "vault", "vault2", "elsewhere"} {
		must(t, os.MkdirAll(at(dir), 0o755))
	}
	for from, to := range map[string]string{"dump/inside": "sub", "dump/outside": "../elsewhere", "dump/nowhere": "gone", "other": "vault", "elsewhere/link": "../vault"} {
		must(t, os.Symlink(to, at(from)))
	}
	must(t, os.WriteFile(at("dump/file"), nil, 0o600))
	f := newFixture(t, func(o *Options) {
		o.Allowed.Places = []string{at("dump"), at("vault"), "s3://backups/ferry", "s3+http://s3.lan:9000/lan", "s3://eu?endpoint=https://s3.example.com"}
	})
	const outside, bucket = "is in no allowed folder", "is in no allowed bucket"
	for _, c := range []struct{ location, want string }{ // of the error; empty: it is taken
		{at("vault"), ""},
		{at("vault") + "/", ""},
		{at("vault/not/yet"), ""},
		{at("dump/sub"), ""},
		{at("dump/inside"), ""},
		{at("other"), ""},
		{at("elsewhere/link"), ""},
		{at("vault2"), outside},
		{root, outside},
		{"/", outside},
		{"/etc", outside},
		{"/proc/self/root" + at("elsewhere"), outside},
		{at("elsewhere/not-there"), outside},
		{at("dump/outside"), "leads to " + at("elsewhere")},
		{at("dump/outside/not/yet"), "leads to " + at("elsewhere/not/yet")},
		{at("dump/nowhere"), "a link that leads nowhere"},
		{at("dump/file/below"), "not a directory"},
		{at("dump") + "/../elsewhere", "no path with .."},
		{"dump", "no relative path"},
		{"s3://backups/ferry", ""},
		{"s3://backups/ferry/site/a?region=eu-1&profile=x", ""},
		{"s3://backups/ferry2", bucket},
		{"s3://backups", bucket},
		{"s3://other/ferry", bucket},
		{"s3://backups/ferry?endpoint=https://evil.example.com", bucket},
		{"s3+https://evil.example.com/backups/ferry", bucket},
		{"s3://backups/other/../ferry", "name"},
		{"s3+http://s3.lan:9000/lan/a", ""},
		{"s3://lan/a?endpoint=http://S3.lan:9000", ""},
		{"s3+https://s3.lan:9000/lan/a", bucket},
		{"s3+http://s3.lan/lan/a", bucket},
		{"s3+http://s3.lan:9000/lan2", bucket},
		{"s3+https://s3.example.com/eu/a", ""},
		{"s3://eu/a", bucket},
		{"s3+http://169.254.169.254/latest/meta-data", bucket},
	} {
		document := "kind: Repository\nname: a\nlocation: '" + c.location + "'\n"
		for how, a := range map[string]answered{
			"apply":   f.do("POST", api.PathApply, asJSON(api.Apply{Documents: document})),
			"dry run": f.do("POST", api.PathApply, asJSON(api.Apply{Documents: document, DryRun: true})),
			"put":     f.do("PUT", resourcePath("Repository", "a"), asJSON(api.Document{Document: document}), "If-Match", "*"),
		} {
			if c.want == "" {
				if a.status != 200 {
					t.Errorf("%s of %s: %d %s", how, c.location, a.status, a.body)
				}
				continue
			}
			if a.status != 422 || len(a.problem.Mistakes) != 1 || !strings.Contains(a.problem.Mistakes[0].Text, c.want) {
				t.Errorf("%s of %s: %d %s, want %q", how, c.location, a.status, a.body, c.want)
				continue
			}
			if m := a.problem.Mistakes[0]; m.Path != "location" || m.Line != 3 || m.Column != 11 {
				t.Errorf("%s of %s: %+v", how, c.location, m)
			}
		}
	}
	if stored := f.expect(200, "GET", resourcePath("Repository", "a"), "").body; !strings.Contains(stored, "s3.example.com/eu/a") {
		t.Errorf("what was refused was stored: %s", stored)
	}
	if got := newFixture(t).do("POST", api.PathApply, asJSON(api.Apply{Documents: repositoryYAML("a")})); got.status != 200 {
		t.Errorf("where no places are named: %d %s", got.status, got.body)
	}
}

// A link in a place that comes to lead elsewhere is seen when the repository is used.
func TestPlacesAreLookedAtAgain(t *testing.T) {
	root := t.TempDir()
	link := filepath.Join(root, "place", "link")
	must(t, os.MkdirAll(filepath.Join(root, "place", "vault"), 0o755))
	must(t, os.Symlink("vault", link))
	a, r := Allowed{Places: []string{filepath.Join(root, "place")}}, policy.Repository{Location: link}
	if problems := a.Place(r); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	must(t, os.Remove(link))
	must(t, os.Symlink("/etc", link))
	if problems := a.Place(r); len(problems) != 1 || !strings.Contains(problems[0].Text, "leads to /etc") {
		t.Errorf("%v", problems)
	}
}

// A location on a share that does not answer is refused, and keeps nobody waiting for longer than a call is waited for.
func TestPlaceThatDoesNotAnswer(t *testing.T) {
	location := filepath.Join(t.TempDir(), "share")
	f := newFixture(t, func(o *Options) { o.Allowed.Places = []string{filepath.Dir(location)} })
	anywhere := newFixture(t)
	synctest.Test(t, func(t *testing.T) {
		ended, end := context.WithCancel(t.Context())
		end()
		back := make(chan struct{})
		_ = calls.Of(location).Do(ended, func() error { <-back; return nil })
		problems := f.place(t.Context(), policy.Repository{Location: location})
		if len(problems) != 1 || problems[0].Path != "location" || !strings.Contains(problems[0].Text, "does not answer") {
			t.Errorf("%v", problems)
		}
		if problems := anywhere.place(t.Context(), policy.Repository{Location: location}); len(problems) > 0 {
			t.Errorf("where no places are named: %v", problems)
		}
		close(back)
		synctest.Wait()
		if problems := f.place(t.Context(), policy.Repository{Location: location}); len(problems) > 0 {
			t.Errorf("it answers again: %v", problems)
		}
	})
}
