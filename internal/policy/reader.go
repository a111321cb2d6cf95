package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"ferry/internal/backup"
)

// Limits of what is read. They are far above what a person writes, and keep a hostile file from taking memory or time.
const (
	// MaxFile is the largest file that Parse reads, in bytes.
	MaxFile = 1 << 20
	// maxNodes is how many values a file may have, those counted again that an alias repeats.
	maxNodes = 200_000
	// maxProblems is how many mistakes are told of one file.
	maxProblems = 100
)

// reader walks a document's nodes along the table of settings and collects every mistake.
type reader struct {
	file     string
	problems Problems
	// places are the nodes of the settings that were read, by path.
	places map[string]*yaml.Node
	path   []string
	// nodes that were looked at so far.
	nodes int
}

// at runs read with a path that is one element longer: a key, or "[n]".
func (r *reader) at(element string, n *yaml.Node, read func(n *yaml.Node)) {
	r.path = append(r.path, element)
	r.places[r.where()] = n
	read(n)
	r.path = r.path[:len(r.path)-1]
}

func (r *reader) where() string { return joinPath(r.path...) }

// joinPath makes a path of keys and list places: a, [1], b is a[1].b.
func joinPath(elements ...string) string {
	var b strings.Builder
	for _, element := range elements {
		if b.Len() > 0 && element != "" && element[0] != '[' {
			b.WriteByte('.')
		}
		b.WriteString(element)
	}
	return b.String()
}

// wrong notes a mistake at a node.
func (r *reader) wrong(n *yaml.Node, hint, format string, args ...any) {
	r.problem(r.where(), n, fmt.Sprintf(format, args...), hint)
}

func (r *reader) problem(path string, n *yaml.Node, text, hint string) {
	if len(r.problems) == maxProblems {
		return
	}
	if len(r.problems) == maxProblems-1 {
		path, text, hint = "", "there are more mistakes than are told", ""
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: n.Line, Column: n.Column, Path: path, Text: text, Hint: hint})
}

// failed notes why a value cannot be read: at the node, or at the field below it that the error names.
func (r *reader) failed(n *yaml.Node, err error) {
	path := r.where()
	var field *FieldError
	if errors.As(err, &field) {
		path = joinPath(path, field.Field)
		n, err = nearestPlace(r.places, path, n), field.Err
	}
	r.problem(path, n, err.Error(), backup.Hint(err))
}

// nearestPlace is the node of a setting, or of the one that it is in; else the node given.
func nearestPlace(places map[string]*yaml.Node, path string, otherwise *yaml.Node) *yaml.Node {
	for path != "" {
		if n, ok := places[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return otherwise
}

// resolve follows an alias and counts the node. It returns nil when the file has too many: then that was said.
func (r *reader) resolve(n *yaml.Node) *yaml.Node {
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.problem("", n, fmt.Sprintf("the file has more than %d values, those counted that aliases repeat", maxNodes), "")
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias // never an alias itself
	}
	return n
}

// kindOf says what a node is, for a person.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of settings"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "no value"
	case "!!timestamp":
		return "a date"
	}
	return "of another type"
}

// decimal is how whole numbers are written.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// text reads a scalar that is text, or a whole number that stands for itself: the number of a machine.
func (r *reader) text(n *yaml.Node, expected string) (string, bool) {
	if n = r.resolve(n); n == nil {
		return "", false
	}
	switch tag := n.ShortTag(); {
	case n.Kind != yaml.ScalarNode || tag == "!!null":
		r.wrong(n, "", "%s is expected here, not %s", expected, kindOf(n))
	case tag == "!!str", tag == "!!int" && decimal.MatchString(n.Value):
		return n.Value, true
	default:
		r.wrong(n, fmt.Sprintf("if it is meant as text, write it in quotes: %q", n.Value), "%s is expected here, not %s", expected, kindOf(n))
	}
	return "", false
}
