package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"ferry/internal/backup"
)

// descriptionName is the file beside images that says what they are; descriptionLimit its largest size in bytes.
const (
	descriptionName  = "ferry.yaml"
	descriptionLimit = 1 << 20
)

// description is what a ferry.yaml says. docs/sources/image.md is its reference.
type description struct {
	Machines []describedMachine `yaml:"machines"`
}

// describedMachine has either chains or points.
type describedMachine struct {
	Name word `yaml:"name"`
	ID   word `yaml:"id"`
	UUID word `yaml:"uuid"`
	// Chains has each disk's files, oldest first; every file is a point.
	Chains map[string]fileList `yaml:"chains"`
	Points []describedPoint    `yaml:"points"`
}

// describedPoint is one point, its disks by name.
type describedPoint struct {
	Created word                `yaml:"created"`
	Disks   map[string]fileList `yaml:"disks"`

	created time.Time
	zone    string
}

// word is a text and the line it stands on.
type word struct {
	text string
	line int
}

// UnmarshalYAML takes any scalar as text.
func (w *word) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: expected one value", node.Line)
	}
	w.text, w.line = node.Value, node.Line
	return nil
}

// fileList is one file's name, or a list of them, oldest first.
type fileList struct {
	files []word
	line  int
}

// UnmarshalYAML takes a scalar or a list of scalars.
func (l *fileList) UnmarshalYAML(node *yaml.Node) error {
	nodes := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		nodes = node.Content
	}
	l.line = node.Line
	for _, n := range nodes {
		var file word
		if err := file.UnmarshalYAML(n); err != nil {
			return err
		}
		if file.text == "" {
			return fmt.Errorf("line %d: a file name is missing", n.Line)
		}
		l.files = append(l.files, file)
	}
	if len(l.files) == 0 || len(l.files) > maxDepth {
		return fmt.Errorf("line %d: a list of %d files; 1 to %d are allowed", node.Line, len(l.files), maxDepth)
	}
	return nil
}

// goTypes is how the YAML library names the place of an unknown key.
var goTypes = regexp.MustCompile(` in type image\.[A-Za-z]+`)

// parseDescription reads a ferry.yaml, strictly. Errors name the line.
func parseDescription(content []byte) (*description, error) {
	if len(content) > descriptionLimit {
		return nil, fmt.Errorf("more than %d bytes", descriptionLimit)
	}
	// Aliases would let a small file stand for a huge one. Nodes are decoded without expanding them.
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, plain(err)
	}
	if alias := findAlias(&document); alias != nil {
		return nil, fmt.Errorf("line %d: aliases are not allowed", alias.Line)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	var d description
	if err := decoder.Decode(&d); err != nil {
		return nil, plain(err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if len(d.Machines) == 0 {
		return nil, errors.New("it describes no machines")
	}
	for k := range d.Machines {
		if err := d.Machines[k].check(); err != nil {
			return nil, err
		}
	}
	return &d, nil
}

// plain words an error of the YAML library for people.
func plain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ", "")
	return errors.New(goTypes.ReplaceAllString(strings.ReplaceAll(text, "\n  ", "; "), ""))
}

// findAlias returns the first alias in a document.
func findAlias(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node
	}
	for _, child := range node.Content {
		if alias := findAlias(child); alias != nil {
			return alias
		}
	}
	return nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// check judges what the YAML library cannot, and fills in the times.
func (m *describedMachine) check() error {
	switch {
	case m.Name.text == "":
		return errors.New("a machine has no name")
	case m.UUID.text != "" && !uuidForm.MatchString(m.UUID.text):
		return fmt.Errorf("line %d: %q is not a UUID", m.UUID.line, m.UUID.text)
	case (len(m.Chains) == 0) == (len(m.Points) == 0):
		return fmt.Errorf("line %d: machine %s needs either chains or points", m.Name.line, backup.EncodeName(m.Name.text))
	}
	length := 0
	for _, disk := range slices.Sorted(maps.Keys(m.Chains)) {
		chain := m.Chains[disk]
		if disk == "" || len(chain.files) == 0 {
			return fmt.Errorf("line %d: machine %s has a disk without a name or without files", m.Name.line, backup.EncodeName(m.Name.text))
		}
		if length != 0 && len(chain.files) != length {
			return fmt.Errorf("line %d: the chains of machine %s have %d and %d files; use points to say which belong together",
				chain.line, backup.EncodeName(m.Name.text), length, len(chain.files))
		}
		length = len(chain.files)
	}
	for k := range m.Points {
		p := &m.Points[k]
		if len(p.Disks) == 0 {
			return fmt.Errorf("machine %s: point %d has no disks", backup.EncodeName(m.Name.text), k+1)
		}
		for disk, files := range p.Disks {
			if disk == "" || len(files.files) == 0 {
				return fmt.Errorf("machine %s: point %d has a disk without a name or without files", backup.EncodeName(m.Name.text), k+1)
			}
		}
		if p.Created.text == "" {
			continue
		}
		created, err := time.Parse(time.RFC3339Nano, p.Created.text)
		if err != nil || created.Year() < 1970 || created.Year() > 9990 {
			return fmt.Errorf("line %d: %q is not a time like 2026-11-22T22:00:00Z", p.Created.line, p.Created.text)
		}
		p.created, p.zone = created.UTC(), created.Format("-07:00")
		if p.zone == "+00:00" {
			p.zone = "UTC"
		}
	}
	return nil
}
