package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferry/internal/api"
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

	a := Allowed{allowed}
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
		err := a.file(root + "/" + c.name)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	link("key", "outside/link")
	for _, other := range []string{"outside/link", "outside/key/below", "outside/not-yet"} { // what is there is nobody's business
		if err := a.file(filepath.Join(root, other)); err == nil || err.Error() != filepath.Join(root, other)+" is in no allowed folder" {
			t.Errorf("%s: %v", other, err)
		}
	}
	for _, relative := range []string{"key", "./key", "~/key", "", " /etc/shadow"} {
		if a.file(relative) == nil {
			t.Errorf("%q is allowed", relative)
		}
	}
	if err := (Allowed{}).file(filepath.Join(allowed, "key")); err == nil {
		t.Error("nothing allows something")
	}
	if err := (Allowed{"/"}).file(filepath.Join(outside, "key")); err != nil {
		t.Errorf("the root allows all: %v", err)
	}
	if err := (Allowed{filepath.Join(root, "not-yet")}).file(filepath.Join(root, "not-yet", "key")); err != nil {
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
	if problems := f.Allowed.Repository(a); len(problems) > 0 {
		t.Errorf("%v", problems)
	}
	must(t, os.Remove(secret))
	must(t, os.Symlink("/etc/shadow", secret))
	if problems := f.Allowed.Repository(a); len(problems) != 1 || problems[0].Path != "passphrase.file" {
		t.Errorf("%v", problems)
	}
	// What stands already keeps nobody from applying something else.
	if got := f.applied(repositoryYAML("b")); got != "created repository b" {
		t.Errorf("%s", got)
	}
}
