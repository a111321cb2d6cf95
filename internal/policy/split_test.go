package policy

import (
	"fmt"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"one", "kind: Job\nname: a\n", "1 Job/a \"kind: Job\\nname: a\\n\""},
		{"without a last line's end", "kind: Job\nname: a", "1 Job/a \"kind: Job\\nname: a\\n\""},
		{"comments stay", "# about a\nkind: Job # x\nname: a\n# end\n---\n# about b\nkind: Repository\nname: b\n",
			"1 Job/a \"# about a\\nkind: Job # x\\nname: a\\n# end\\n\"\n6 Repository/b \"# about b\\nkind: Repository\\nname: b\\n\""},
		{"empty documents", "---\n---\n# nothing\n---\nkind: Job\nname: a\n---\n---", "5 Job/a \"kind: Job\\nname: a\\n\""},
		{"a document on the separator's line", "--- {kind: Job, name: a}\n---\nkind: Job\nname: b\n", "1 Job/a \"--- {kind: Job, name: a}\\n\"\n3 Job/b \"kind: Job\\nname: b\\n\""},
		{"a comment on it", "--- # first\nkind: Job\nname: a\n", "1 Job/a \"--- # first\\nkind: Job\\nname: a\\n\""},
		{"spaces and carriage returns", "--- \t\r\nkind: Job\r\nname: a\r\n---\r\nkind: Job\r\nname: b\r\n", "2 Job/a \"kind: Job\\r\\nname: a\\r\\n\"\n5 Job/b \"kind: Job\\r\\nname: b\\r\\n\""},
		{"a value that ends so", "kind: Job\nname: a\ninstance: x---\n--- \n ---\n", "1 Job/a \"kind: Job\\nname: a\\ninstance: x---\\n\"\n5 / \" ---\\n\""},
		{"not a separator", "kind: Job\nname: a\n----\n", "1 / \"kind: Job\\nname: a\\n----\\n\""},
		{"a number for a name", "kind: Job\nname: 100\n", "1 Job/100 \"kind: Job\\nname: 100\\n\""},
		{"another kind", "kind: Pod\nname: a\n", "1 / \"kind: Pod\\nname: a\\n\""},
		{"no name", "kind: Job\n", "1 / \"kind: Job\\n\""},
		{"no mapping", "- a\n", "1 / \"- a\\n\""},
		{"two that dots part", "kind: Job\nname: a\n...\nkind: Job\nname: b\n", "1 / \"kind: Job\\nname: a\\n...\\nkind: Job\\nname: b\\n\""},
		{"no YAML", "kind: Job\nname: a\n---\n{", "1 Job/a \"kind: Job\\nname: a\\n\"\n4 / \"{\\n\""},
		{"nothing", "", ""},
	} {
		var got []string
		for _, d := range Split([]byte(c.content)) {
			got = append(got, fmt.Sprintf("%d %s/%s %q", d.Line, d.Kind, d.Name, d.Text))
		}
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, text, c.want)
		}
	}
}

func TestRules(t *testing.T) {
	rules := Rules{
		Repository: func(r Repository) []Problem { return []Problem{{Path: "location", Text: "not " + r.Location}} },
		Job:        func(Job) []Problem { return []Problem{{Path: "scripts.pre.run", Text: "not this"}} },
	}
	content := "kind: Repository\nname: a\nlocation: /a\n---\nkind: Job\nname: j\nsource: {repositories: [a]}\ntarget: {repository: a2}\nscripts:\n  pre:\n    run: [/x]\n" +
		"---\nkind: Repository\nname: a2\nlocation: /b\n"
	_, err := rules.Parse(File{Name: "f", Content: []byte(content)})
	want := "f:3:11: location: not /a\nf:11:10: scripts.pre.run: not this\nf:15:11: location: not /b"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
}
