package policy

import (
	"bytes"
	"fmt"

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

// render prints a resource.
func render(kind string, settings *yaml.Node) []byte {
	settings.Content = append([]*yaml.Node{scalar("!!str", "kind"), scalar("!!str", kind)}, settings.Content...)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(settings); err != nil {
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
