package policy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

const schemaPage = "../../docs/job.schema.json"

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("ferry.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("ferry.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON is the documents of a file as a validator sees them.
func asJSON(t interface{ Fatal(...any) }, content []byte) []any {
	var all []any
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var value any
		if decoder.Decode(&value) != nil {
			return all
		}
		all = append(all, reencoded(t, value))
	}
}

// reencoded is a value as it comes out of JSON.
func reencoded(t interface{ Fatal(...any) }, value any) any {
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// Text that is a number is text for programs, and no number is too long for them.
func TestDocumentsHaveTextAsText(t *testing.T) {
	long := strings.Repeat("1", 32)
	repository := Repository{Name: "100", Location: "x", ID: long, Slots: 3}
	want := map[string]any{"kind": "Repository", "name": "100", "location": "x", "id": long, "slots": 3}
	if got := repository.Document(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if got := string(repository.YAML()); !strings.Contains(got, "name: 100\n") || !strings.Contains(got, "id: \""+long+"\"\n") {
		t.Errorf("%s", got)
	}
}

// TestSchemaIsPublished: docs has what ferry job schema prints.
func TestSchemaIsPublished(t *testing.T) {
	published, err := os.ReadFile(schemaPage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, Schema()) {
		t.Errorf("docs/job.schema.json is not the schema: ferry job schema > docs/job.schema.json")
	}
}

// TestSchemaTakesWhatIsRead, by a validator that is not ours.
func TestSchemaTakesWhatIsRead(t *testing.T) {
	compiled := compiledSchema(t)
	documents := asJSON(t, sample(t))
	if len(documents) != 5 {
		t.Fatalf("%d documents", len(documents))
	}
	for i, document := range documents {
		if err := compiled.Validate(document); err != nil {
			t.Errorf("document %d: %v", i+1, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		job := genJob().Draw(t, "job")
		if err := compiled.Validate(reencoded(t, job.Document())); err != nil {
			t.Fatalf("%v\n%v", job.Document(), err)
		}
		for _, content := range [][]byte{job.YAML(), job.Explained()} {
			if err := compiled.Validate(asJSON(t, content)[0]); err != nil {
				t.Fatalf("%s\n%v", content, err)
			}
		}
	})
}

// TestSchemaRefusesMistakesOfForm: those of mistakes.txt that a schema can see.
func TestSchemaRefusesMistakesOfForm(t *testing.T) {
	compiled := compiledSchema(t)
	content, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	visible := []string{
		"there is no setting", " is missing", "is expected here", "is not one of", "the list is empty", "is no name", "there is no rule", "is not from 1",
		"does not belong into this file", "there is no kind", "places are named",
	}
	refused := 0
	for _, block := range strings.Split(strings.TrimSpace(string(content)), "\n====\n") {
		source, told, _ := strings.Cut(block, "\n----\n")
		sees := false
		for _, text := range visible {
			sees = sees || strings.Contains(told, text)
		}
		if !sees || strings.Contains(told, "is there twice") || strings.Contains(source, "? [a]") {
			continue // a YAML library drops doubles, and JSON has no such keys
		}
		bad := false
		for _, document := range asJSON(t, []byte(source)) {
			bad = bad || compiled.Validate(document) != nil
		}
		if !bad {
			t.Errorf("the schema takes\n%s", source)
		}
		refused++
	}
	if refused < 11 {
		t.Errorf("only %d files were refused", refused)
	}
}
