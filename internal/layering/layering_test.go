// Package layering tests the shape of the module: who imports whom, that every package says what it is for, and that files
// stay readable. The import rules are those of the depguard section in .golangci.yml, which says them while one types.
package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "ferry"

// floors says for each package, with everything below it, what else of ours it may import: a package, or with "/..." also
// what lies below that. Its own floor it may always import. The longest entry that fits counts. A new package needs a line
// here, and one in .golangci.yml.
var floors = map[string][]string{
	"internal/backup": {},

	"internal/policy": {"internal/backup"},
	"internal/plan":   {"internal/backup", "internal/policy/..."},

	"internal/vma":   {"internal/backup"},
	"internal/lzop":  {"internal/backup"},
	"internal/qcow2": {"internal/backup"},

	"internal/answer":       {},
	"internal/idle":         {},
	"internal/storage":      {"internal/backup", "internal/direct", "internal/pagecache", "internal/answer", "internal/idle"},
	"internal/repo":         {"internal/backup", "internal/storage/...", "internal/cachefile", "internal/spill", "internal/direct", "internal/answer", "internal/idle", "internal/processors"},
	"internal/repotest":     {"internal/repo"},
	"internal/source":       {"internal/answer", "internal/backup", "internal/vma", "internal/lzop", "internal/qcow2", "internal/cachefile", "internal/pagecache"},
	"internal/source/ferry": {"internal/answer", "internal/backup", "internal/source/...", "internal/repo", "internal/storage/..."},
	"internal/spill":        {},
	"internal/cachefile":    {},
	"internal/direct":       {},
	"internal/pagecache":    {},
	"internal/processors":   {},
	"internal/catalog":      {"internal/backup"},
	"internal/mover":        {"internal/answer", "internal/backup", "internal/source", "internal/processors", "internal/repo", "internal/spill"},
	"internal/restore":      {"internal/backup", "internal/repo", "internal/direct"},
	"internal/job": {
		"internal/answer", "internal/backup", "internal/policy/...", "internal/plan", "internal/source", "internal/source/registry", "internal/repo", "internal/mover",
		"internal/storage",
	},

	"internal/api":    {},
	"internal/client": {"internal/api"},
	"internal/scheduler": {
		"internal/answer", "internal/backup", "internal/policy/...", "internal/plan", "internal/source", "internal/source/registry", "internal/repo", "internal/mover",
		"internal/storage", "internal/job", "internal/catalog",
	},
	"internal/status": {"internal/backup", "internal/policy/...", "internal/catalog", "internal/job", "internal/api"},
	"internal/server": {
		"internal/backup", "internal/policy/...", "internal/plan", "internal/job", "internal/catalog", "internal/scheduler", "internal/status",
		"internal/api", "internal/answer", "internal/storage/s3",
	},

	"internal/pace": {"internal/policy", "internal/storage"},

	"internal/demo": {
		"internal/backup", "internal/vma", "internal/plan", "internal/job", "internal/source/...", "internal/storage/...", "internal/repo",
		"internal/mover", "internal/restore", "internal/api", "internal/client",
	},
	"internal/cli": {"internal/..."},
	"cmd/ferry":    {"internal/cli", "internal/processors"},

	// Tests that need real tools, and benchmarks.
	"test":              {"internal/..."},
	"internal/layering": {},
}

// private import paths, with what lies below them or, with "/" at their end, only that, may be imported only from the folders
// named, by tests too.
var private = map[string][]string{
	"internal/cli":   {"internal/cli", "cmd/ferry", "test"},
	"internal/repo/": {"internal/repo"},
}

// noIO lists what may not be imported by packages that only think. An entry covers what lies below it.
var noIO = map[string][]string{
	"internal/backup": {"os", "net", "syscall"},
	"internal/policy": {"os", "net", "syscall", "io/fs", "log", "math/rand", "crypto/rand", "golang.org/x/sys"},
	"internal/plan":   {"os", "net", "syscall", "io/fs", "log", "math/rand", "crypto/rand", "golang.org/x/sys"},
}

// longFiles are the files of more than maxLines lines, each with the reason why it is better whole.
var longFiles = map[string]string{}

const maxLines = 500

// vagueNames say nothing of what a package is for.
var vagueNames = []string{"util", "utils", "common", "manager", "managers", "helper", "helpers", "misc", "shared", "types"}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath, Dir, Name, Doc         string
	GoFiles, IgnoredGoFiles            []string
	Imports, TestImports, XTestImports []string
}

// path within the module.
func (p goPackage) path() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func packages(t *testing.T) []goPackage {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-tags=integration", "-json", "./...")
	command.Dir = moduleRoot(t)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var list []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 3 {
		t.Fatalf("go list found %d packages", len(list))
	}
	return list
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return root
}

// within is true if pkg is folder or lies below it.
func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// matches is true if pkg is what pattern names: a package, or with "/..." what lies below it as well.
func matches(pkg, pattern string) bool {
	if folder, deep := strings.CutSuffix(pattern, "/..."); deep {
		return within(pkg, folder)
	}
	return pkg == pattern
}

// floorOf is the entry of floors that counts for pkg, or "".
func floorOf(pkg string) string {
	best := ""
	for floor := range floors {
		if within(pkg, floor) && len(floor) > len(best) {
			best = floor
		}
	}
	return best
}

// mayImport is true if code (not tests) of importer may import imported, both being ours.
func mayImport(importer, imported string) bool {
	floor := floorOf(importer)
	if within(imported, floor) && floorOf(imported) == floor {
		return true
	}
	allowed := slices.ContainsFunc(floors[floor], func(pattern string) bool { return matches(imported, pattern) })
	return allowed && mayReach(importer, imported)
}

// mayReach is true unless imported is private to folders that importer is not in.
func mayReach(importer, imported string) bool {
	for folder, folders := range private {
		hidden := strings.HasPrefix(imported+"/", strings.TrimSuffix(folder, "/")+"/") && imported+"/" != folder
		if hidden && !slices.ContainsFunc(folders, func(folder string) bool { return within(importer, folder) }) {
			return false
		}
	}
	return true
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		if floorOf(p.path()) == "" {
			t.Errorf("%s has no floor: add a line to floors in this file and a rule to .golangci.yml", p.path())
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !mayImport(p.path(), ours) {
				t.Errorf("%s may not import %s", p.path(), ours)
			}
			for folder, denied := range noIO {
				if within(p.path(), folder) && slices.ContainsFunc(denied, func(d string) bool { return within(imported, d) }) {
					t.Errorf("%s may not import %s: it does no I/O", p.path(), imported)
				}
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !mayReach(p.path(), ours) {
				t.Errorf("tests of %s may not import %s", p.path(), ours)
			}
		}
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		want               bool
	}{
		{"internal/backup", "internal/storage", false},
		{"internal/storage/fs", "internal/storage", true},
		{"internal/storage", "internal/storage/fs", true},
		{"internal/repo", "internal/repo/pack", true},
		{"internal/repo/pack", "internal/repo/format", true},
		{"internal/mover", "internal/repo", true},
		{"internal/mover", "internal/repo/pack", false},
		{"internal/mover", "internal/source/vzdump", false},
		{"internal/source/vzdump", "internal/vma", true},
		{"internal/source/vzdump", "internal/repo", false},
		{"internal/source/vzdump", "internal/source/ferry", false},
		{"internal/source/ferry", "internal/repo", true},
		{"internal/source/ferry", "internal/repo/pack", false},
		{"internal/vma", "internal/source", false},
		{"internal/plan", "internal/repo", false},
		{"internal/catalog", "internal/repo", false},
		{"internal/cli", "internal/source/ferry", true},
		{"internal/cli", "internal/repo/pack", false},
		{"internal/demo", "internal/cli", false},
		{"internal/cli", "internal/client", true},
		{"internal/server", "internal/client", false},
		{"cmd/ferry", "internal/cli", true},
		{"cmd/ferry", "internal/repo", false},
		{"test/integration", "internal/cli", true},
		{"test/integration", "internal/repo/pack", false},
	} {
		if got := mayImport(c.importer, c.imported); got != c.want {
			t.Errorf("mayImport(%q, %q) = %v", c.importer, c.imported, got)
		}
	}
}

func TestPrivatePackages(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		want               bool
	}{
		{"internal/demo", "internal/cli", false},
		{"internal/server", "internal/client", true}, // its tests may
		{"internal/mover", "internal/repo", true},
		{"internal/mover", "internal/repo/pack", false},
		{"internal/repo/pack", "internal/repo/format", true},
	} {
		if got := mayReach(c.importer, c.imported); got != c.want {
			t.Errorf("mayReach(%q, %q) = %v", c.importer, c.imported, got)
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.path())
		}
		if slices.Contains(vagueNames, p.Name) || slices.Contains(vagueNames, path.Base(p.path())) {
			t.Errorf("%s: the name says nothing of what the package is for", p.path())
		}
	}
}

func TestFilesAreNotTooLong(t *testing.T) {
	root := moduleRoot(t)
	long := map[string]bool{}
	for _, p := range packages(t) {
		for _, file := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			content, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(content, []byte("\n"))
			if lines <= maxLines || strings.HasSuffix(file, "_test.go") {
				continue
			}
			name, err := filepath.Rel(root, filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			long[name] = true
			if longFiles[name] == "" {
				t.Errorf("%s has %d lines, more than %d: divide it, or give the reason in longFiles", name, lines, maxLines)
			}
		}
	}
	for name := range longFiles {
		if !long[name] {
			t.Errorf("%s is no longer too long: remove it from longFiles", name)
		}
	}
}

// machinePaths are paths that exist on one person's machine only.
const machinePaths = `/(?:home|Users)/[A-Za-z][\w.-]*/|/root/(?:go|\.\w+)\b|/(?:work|workspace|builds)/\w`

func TestNoPathsOfOneMachine(t *testing.T) {
	root := moduleRoot(t)
	pattern := regexp.MustCompile(`(?:^|[^\w./$})-])(?:` + machinePaths + `|` + regexp.QuoteMeta(root) + `/)`)
	files := 0
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", ".tools", "bin", "testdata", "__pycache__"}, entry.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || entry.Name() == ".git" { // in a worktree of git, a file that says where it belongs
			return nil
		}
		content, err := os.ReadFile(file)
		if err != nil || bytes.IndexByte(content, 0) >= 0 {
			return err
		}
		files++
		for i, line := range strings.Split(string(content), "\n") {
			if found := pattern.FindString(line); found != "" {
				name, _ := filepath.Rel(root, file)
				t.Errorf("%s:%d: %q is a path of one machine", name, i+1, strings.TrimSpace(found))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were looked at", files)
	}
}
