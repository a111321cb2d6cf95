package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Located is a file of resources in which nothing depends on where it is read.
type Located struct {
	Content []byte
	edits   []edit
}

// edit is a text in place of another on one line of a file, counted in characters from 1.
type edit struct {
	line, column int
	was, is      string
}

// Column is where something at a place of the located file stands in the line as it was written.
func (l Located) Column(line, column int) int {
	for _, e := range slices.Backward(l.edits) { // from the line's beginning on: edits are sorted from the end
		if e.line != line || column <= e.column {
			continue
		}
		was, is := utf8.RuneCountInString(e.was), utf8.RuneCountInString(e.is)
		if column < e.column+is {
			return e.column
		}
		column += was - is
	}
	return column
}

// Locate makes relative locations and files of secrets in a file of resources absolute: they count from dir. All else, lines
// and comments too, stays as it is written. The error is of type Problems. A file that is not YAML is left for Parse to refuse.
func Locate(file File, dir string) (Located, error) {
	r := &reader{file: file.Name}
	roots := r.documents(file.Content)
	if len(r.problems) > 0 {
		return Located{Content: file.Content}, nil
	}
	lines := bytes.SplitAfter(file.Content, []byte("\n"))
	var problems Problems
	var edits []edit
	seen := map[*yaml.Node]bool{}
	for _, root := range roots {
		if valueOf(root, "kind").Value != kindOfRepository {
			continue
		}
		places := []*yaml.Node{valueOf(root, "location")}
		for _, secret := range []string{"passphrase", "identity", "credentials"} {
			places = append(places, valueOf(valueOf(root, secret), "file"))
		}
		for _, n := range places {
			if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || n.Value == "" || filepath.IsAbs(n.Value) || strings.Contains(n.Value, "://") || seen[n] {
				continue
			}
			seen[n] = true
			was, ok := written(lines, n)
			is, fits := pathText(filepath.Join(dir, n.Value), n.Style)
			if !ok || !fits {
				problems = append(problems, Problem{File: file.Name, Line: n.Line, Column: n.Column, Text: fmt.Sprintf("the path %q is relative, and written so that it cannot be made absolute", n.Value), Hint: "write the absolute path"})
				continue
			}
			edits = append(edits, edit{n.Line, n.Column, was, is})
		}
	}
	if len(problems) > 0 {
		return Located{}, problems
	}
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Or(cmp.Compare(b.line, a.line), cmp.Compare(b.column, a.column)) })
	for _, e := range edits {
		line := []rune(string(lines[e.line-1]))
		after := e.column - 1 + utf8.RuneCountInString(e.was)
		lines[e.line-1] = []byte(string(line[:e.column-1]) + e.is + string(line[after:]))
	}
	return Located{bytes.Join(lines, nil), edits}, nil
}

// valueOf is the value of a key, or a node of nothing.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value != key {
				continue
			}
			if value := n.Content[i+1]; value.Kind == yaml.AliasNode {
				return value.Alias
			}
			return n.Content[i+1]
		}
	}
	return &yaml.Node{}
}

// The forms of quoted texts.
var (
	doubleQuoted = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"`)
	singleQuoted = regexp.MustCompile(`^'(?:[^']|'')*'`)
)

// written is how a scalar stands in its line; false if it is not simply there.
func written(lines [][]byte, n *yaml.Node) (text string, ok bool) {
	if n.Line < 1 || n.Line > len(lines) {
		return "", false
	}
	line := []rune(strings.TrimRight(string(lines[n.Line-1]), "\r\n"))
	if n.Column < 1 || n.Column > len(line) {
		return "", false
	}
	rest := string(line[n.Column-1:])
	switch n.Style {
	case yaml.DoubleQuotedStyle:
		text = doubleQuoted.FindString(rest)
	case yaml.SingleQuotedStyle:
		text = singleQuoted.FindString(rest)
	case 0:
		if strings.HasPrefix(rest, n.Value) {
			text = n.Value
		}
	}
	return text, text != ""
}

// plainPath is a path that needs no quotes in YAML, wherever it stands.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9/._-]*$`)

// pathText is a path as YAML; false if it cannot be written.
func pathText(path string, style yaml.Style) (text string, ok bool) {
	if style == 0 && plainPath.MatchString(path) {
		return path, true
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if !utf8.ValidString(path) || encoder.Encode(path) != nil {
		return "", false
	}
	return strings.TrimSuffix(b.String(), "\n"), true
}
