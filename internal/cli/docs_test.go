package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ferry/internal/policy"
)

const root = "../.."

func readPage(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestArchitecture: each row of a table in docs/architecture.md names files, and functions that are in them.
func TestArchitecture(t *testing.T) {
	code := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for _, line := range strings.Split(readPage(t, "docs/architecture.md"), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[2], "`") {
			continue
		}
		rows++
		all := ""
		for _, file := range code.FindAllStringSubmatch(cells[2], -1) {
			all += readPage(t, file[1])
		}
		for _, name := range code.FindAllStringSubmatch(cells[3], -1) {
			// A function or a method of that name; or, in cli, a call of it.
			if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name[1] + `[([]`).MatchString(all) {
				t.Errorf("%s is in none of%s", name[1], cells[2])
			}
		}
	}
	if rows < 30 {
		t.Errorf("%d rows were looked at", rows)
	}
}

// TestLinks: files and headings that pages link to are there.
func TestLinks(t *testing.T) {
	pages := []string{"README.md", "CONTRIBUTING.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range found {
			pages = append(pages, strings.TrimPrefix(filepath.ToSlash(page), root+"/"))
		}
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		for _, match := range link.FindAllStringSubmatch(readPage(t, page), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			file, heading, _ := strings.Cut(match[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, match[1])
			} else if heading != "" && !hasHeading(readPage(t, target), heading) {
				t.Errorf("%s links to %s, which has no such heading", page, match[1])
			}
		}
	}
}

// hasHeading is true if a page has a heading with this anchor, made as code hosts make it.
func hasHeading(page, anchor string) bool {
	for _, line := range strings.Split(page, "\n") {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		text = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(text, "")
		if strings.ReplaceAll(text, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// TestSettingsOfJobsAreDocumented: every setting that the schema has is in docs/jobs.md.
func TestSettingsOfJobsAreDocumented(t *testing.T) {
	page := readPage(t, "docs/jobs.md")
	settings := 0
	var walk func(form any)
	walk = func(form any) {
		switch form := form.(type) {
		case []any:
			for _, element := range form {
				walk(element)
			}
		case map[string]any:
			properties, _ := form["properties"].(map[string]any)
			for name := range properties {
				settings++
				if !regexp.MustCompile("\\b" + name + "\\b").MatchString(page) {
					t.Errorf("docs/jobs.md does not have %s", name)
				}
			}
			for _, member := range form {
				walk(member)
			}
		}
	}
	var form any
	if err := json.Unmarshal(policy.Schema(), &form); err != nil {
		t.Fatal(err)
	}
	walk(form)
	if settings < 60 {
		t.Errorf("%d settings were looked at", settings)
	}
}

// TestExamplesOfJobsAreRight: what docs/jobs.md shows as a file is one.
func TestExamplesOfJobsAreRight(t *testing.T) {
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readPage(t, "docs/jobs.md"), -1)
	for _, example := range examples {
		if _, err := policy.Parse(policy.File{Name: "docs/jobs.md", Content: []byte(example[1])}); err != nil {
			t.Error(err)
		}
	}
	if len(examples) == 0 {
		t.Error("there are no examples")
	}
}

// TestExitCodesAreDocumented: the same codes in --help and in docs/cli.md.
func TestExitCodesAreDocumented(t *testing.T) {
	out, _ := run(t, ExitDone, "--help")
	page := readPage(t, "docs/cli.md")
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "130"} {
		if !regexp.MustCompile(`(?m)^  ` + code + `  \S`).MatchString(out) {
			t.Errorf("--help does not have exit code %s", code)
		}
		if !strings.Contains(page, "\n| "+code+" | ") {
			t.Errorf("docs/cli.md does not have exit code %s", code)
		}
	}
}
