package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of a document of resources, for editors and for programs that write them. It
// says the form of settings; what contradicts itself only [Parse] finds.
func Schema() []byte {
	job := jobKind.schema(Job{}.Effective())
	repository := repositoryKind.schema(Repository{})
	for kind, form := range map[string]schema{kindOfJob: job, kindOfRepository: repository} {
		form["title"] = kind
		properties, _ := form["properties"].(schema)
		properties["kind"] = schema{"const": kind, "description": "what this is: a " + strings.ToLower(kind)}
		required, _ := form["required"].([]string)
		form["required"] = append([]string{"kind"}, required...)
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "A resource of Ferry",
		"oneOf":   []schema{job, repository},
	}); err != nil {
		panic(fmt.Sprintf("policy: %v", err)) // of our own making
	}
	return b.Bytes()
}
