package policy

import (
	"strings"
	"testing"
)

func TestLocate(t *testing.T) {
	text := `# what we have
kind: Repository
name: pve   # the dump
location: ` + "dump/ä  # relative" + `
passphrase: {file: "key \"1\".txt"}
---
{kind: Repository, name: vault, location: vault, identity: {file: 'it''s'}}
---
{kind: Repository, name: bucket, location: "s3://b/p?endpoint=http://x", credentials: {file: aws}, passphrase: {file: /etc/key}}
---
kind: Job
name: location
source: {repositories: [pve]}
target: {repository: vault}
`
	want := strings.NewReplacer("dump/ä  #", `"/etc/ferry/dump/ä"  #`, `"key \"1\".txt"`, `"/etc/ferry/key \"1\".txt"`,
		"location: vault", "location: /etc/ferry/vault", "'it''s'", `"/etc/ferry/it's"`, "file: aws", "file: /etc/ferry/aws").Replace(text)
	got, err := Locate(File{Name: "jobs.yaml", Content: []byte(text)}, "/etc/ferry")
	if err != nil || string(got.Content) != want {
		t.Fatalf("%v\n%s\nwant\n%s", err, got.Content, want)
	}
	// What is told of a place behind such a path is told of where it stands in the person's file.
	lines, were := strings.Split(want, "\n"), strings.Split(text, "\n")
	for n, line := range lines {
		for _, word := range []string{"identity", "credentials", "location", "#", "file", "}"} {
			at := strings.Index(line, word)
			if at < 0 {
				continue
			}
			column := len([]rune(line[:at])) + 1
			before, _, _ := strings.Cut(were[n], word)
			if was := len([]rune(before)) + 1; got.Column(n+1, column) != was {
				t.Errorf("line %d: %s at %d is at %d, want %d", n+1, word, column, got.Column(n+1, column), was)
			}
		}
	}
	if c := got.Column(4, 15); c != 11 {
		t.Errorf("within the path: %d", c)
	}
	if _, err := Parse(File{Name: "jobs.yaml", Content: got.Content}); err != nil {
		t.Error(err)
	}
	again, err := Locate(File{Content: got.Content}, "/elsewhere")
	if err != nil || string(again.Content) != want {
		t.Errorf("what is absolute was changed: %v\n%s", err, again.Content)
	}
}

// A path that cannot be replaced in its line is a mistake; what is not YAML is left to Parse.
func TestLocateRefuses(t *testing.T) {
	for _, text := range []string{
		"kind: Repository\nname: pve\nlocation: >\n  dump\n",
		"kind: Repository\nname: pve\nlocation: dump\n  and more\n",
		"kind: Repository\nname: pve\nlocation: &here dump\n",
	} {
		if got, err := Locate(File{Name: "jobs.yaml", Content: []byte(text)}, "/etc/ferry"); err == nil || !strings.HasPrefix(err.Error(), "jobs.yaml:3:") {
			t.Errorf("%q became %q, %v", text, got.Content, err)
		}
	}
	bad := "kind: [\n"
	if got, err := Locate(File{Content: []byte(bad)}, "/etc/ferry"); err != nil || string(got.Content) != bad {
		t.Errorf("%q, %v", got.Content, err)
	}
}
