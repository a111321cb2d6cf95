package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ferry/internal/api"
)

// descriptionFile is the committed description, which clients are written by.
const descriptionFile = "../../docs/openapi.json"

// TestDescription: the committed description is that of the code. UPDATE=1 writes it.
func TestDescription(t *testing.T) {
	f := newFixture(t)
	got := f.expect(http.StatusOK, http.MethodGet, api.PathDescription, "")
	if got.header.Get("Content-Type") != "application/openapi+json" {
		t.Errorf("it is of type %s", got.header.Get("Content-Type"))
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(descriptionFile, []byte(got.body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(descriptionFile)
	if err != nil {
		t.Fatal(err)
	}
	if got.body != string(want) {
		t.Error("docs/openapi.json is not what the code answers to: UPDATE=1 go test ./internal/server -run TestDescription writes it; " +
			"what clients rely on must not change or go")
	}
}

// TestEveryPathIsDescribed: of the paths of package api, all but that of the description itself.
func TestEveryPathIsDescribed(t *testing.T) {
	paths := described().Paths
	source, err := os.ReadFile("../api/paths.go")
	must(t, err)
	named := regexp.MustCompile(`\tPath[A-Za-z]+ += "(/[^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(named) != len(paths)+1 {
		t.Errorf("%d paths are named, %d are described", len(named), len(paths))
	}
	for _, path := range named {
		if paths[path[1]] == nil && path[1] != api.PathDescription {
			t.Errorf("%s is not described", path[1])
		}
	}
	for path, operations := range paths {
		for method, o := range operations {
			if o.Summary == "" || o.OperationID == "" || len(o.Responses) < 2 {
				t.Errorf("%s %s: %+v", method, path, o)
			}
		}
	}
}

// description is what tests need of it.
type description struct {
	Paths map[string]map[string]struct {
		Summary, OperationID string
		Responses            map[string]struct {
			Content map[string]struct{ Schema json.RawMessage }
		}
	}
	compiler *jsonschema.Compiler
}

var described = sync.OnceValue(func() *description {
	content := New(Options{Scheduler: &double{}}).description
	d := &description{compiler: jsonschema.NewCompiler()}
	if err := json.Unmarshal(content, d); err != nil {
		panic(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		panic(err)
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("openapi.json", document); err != nil {
		panic(err)
	}
	return d
})

// compiling is held while a schema of the description is compiled: requests are made at once, too.
var compiling sync.Mutex

// checkDescribed fails if an answer is not one that the description has.
func checkDescribed(t testing.TB, method, target string, a answered) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	d := described()
	for template, operations := range d.Paths {
		operation, there := operations[strings.ToLower(method)]
		if !there || !fits(path, template) || template == api.PathMetrics {
			continue
		}
		key := strings.NewReplacer("~", "~0", "/", "~1").Replace(template)
		status := http.StatusText(a.status)
		response, there := operation.Responses[itoa(a.status)]
		code := itoa(a.status)
		if !there {
			response, code = operation.Responses["default"], "default"
		}
		media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		if a.body == "" && len(response.Content) == 0 || a.status == http.StatusNotModified || media == "text/event-stream" {
			return
		}
		if _, there := response.Content[media]; !there {
			t.Errorf("%s %s: no answer %d %s of type %q is described", method, target, a.status, status, media)
			return
		}
		compiling.Lock()
		schema, err := d.compiler.Compile("openapi.json#/paths/" + key + "/" + strings.ToLower(method) + "/responses/" + code + "/content/" +
			strings.ReplaceAll(media, "/", "~1") + "/schema")
		compiling.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s %s: not as described: %v\n%s", method, target, err, a.body)
		}
		return
	}
}

// fits is true if a path is of a template.
func fits(path, template string) bool {
	have, want := strings.Split(path, "/"), strings.Split(template, "/")
	if len(have) != len(want) {
		return false
	}
	for i := range have {
		if have[i] != want[i] && !strings.HasPrefix(want[i], "{") {
			return false
		}
	}
	return true
}

// docs/api.md has every operation and every code.
func TestOperationsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/api.md")
	must(t, err)
	rows := 0
	for path, operations := range described().Paths {
		for method := range operations {
			rows++
			if row := "| `" + strings.ToUpper(method) + "` | `" + path + "` | "; !strings.Contains(string(page), row) {
				t.Errorf("docs/api.md lacks %s", row)
			}
		}
	}
	if got := strings.Count(string(page), "\n| `GET`") + strings.Count(string(page), "\n| `P") + strings.Count(string(page), "\n| `DELETE`"); got != rows {
		t.Errorf("docs/api.md has %d operations, the code %d", got, rows)
	}
	source, err := os.ReadFile("../api/api.go")
	must(t, err)
	codes := regexp.MustCompile(`\tCode[A-Za-z]+ += "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(codes) < 9 {
		t.Fatalf("%d codes were found in the code", len(codes))
	}
	for _, code := range codes {
		if !strings.Contains(string(page), "\n| `"+code[1]+"` | ") {
			t.Errorf("docs/api.md lacks the code %s", code[1])
		}
	}
}
