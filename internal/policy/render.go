package policy

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML is the job as it is read.
func (j Job) YAML() []byte { return render(kindOfJob, jobKind.write(printer{}, j, j)) }

// Explained is the job with what holds where it says nothing, each of that marked by a comment.
func (j Job) Explained() []byte {
	return render(kindOfJob, jobKind.write(printer{explain: true}, j.Effective(), j))
}

// YAML is the repository as it is read.
func (r Repository) YAML() []byte {
	return render(kindOfRepository, repositoryKind.write(printer{}, r, r))
}

// Explained is the repository, with comments on what it leaves out.
func (r Repository) Explained() []byte {
	return render(kindOfRepository, repositoryKind.write(printer{explain: true}, r, r))
}

// ofKind is a resource with its kind in front.
func ofKind(kind string, settings *yaml.Node) *yaml.Node {
	settings.Content = append([]*yaml.Node{scalar("!!str", "kind"), scalar("!!str", kind)}, settings.Content...)
	return settings
}

// render prints a resource.
func render(kind string, settings *yaml.Node) []byte {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(ofKind(kind, settings)); err != nil {
		panic(fmt.Sprintf("policy: %v", err)) // nodes of our own making, into memory
	}
	return b.Bytes()
}

// plainValue is what a node without aliases stands for, as JSON has it.
func plainValue(n *yaml.Node) any {
	var value any
	if err := n.Decode(&value); err != nil {
		panic(fmt.Sprintf("policy: %v", err)) // a node of our own making
	}
	return value
}

// Document is the job as it is read, as values of JSON.
func (j Job) Document() any {
	return plainValue(ofKind(kindOfJob, jobKind.write(printer{typed: true}, j, j)))
}

// Document is the repository as it is read, as values of JSON.
func (r Repository) Document() any {
	return plainValue(ofKind(kindOfRepository, repositoryKind.write(printer{typed: true}, r, r)))
}

// String is the retention as it is written: "{days: 14, weekly: {keep: 4}}", or "all".
func (r Retention) String() string {
	encoded, err := yaml.Marshal(retentionKind.write(printer{}, r, r))
	if err != nil {
		panic(fmt.Sprintf("policy: %v", err)) // a node of our own making
	}
	return strings.TrimSpace(string(encoded))
}
