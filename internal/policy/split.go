package policy

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is one resource of a file as it is written, with its comments.
type Document struct {
	// Kind and Name are empty if they cannot be read, or if the document is not one resource: Parse may say why.
	Kind, Name string
	// Line of the file at which Text begins, from 1.
	Line int
	// Text ends with a line's end.
	Text string
}

// separator is a line that begins a document. In YAML it does so wherever it stands.
var separator = regexp.MustCompile(`(?m)^---(?:[ \t\r].*)?$`)

// Split parts a file into its resources, at lines of "---". Documents that are empty are left out. What is wrong with the
// others, only Parse tells.
func Split(content []byte) []Document {
	var all []Document
	line, rest := 1, content
	cut := func(length int) { // the document that ends there
		text := rest[:length]
		if kind, name, empty := identify(text); !empty {
			all = append(all, Document{Kind: kind, Name: name, Line: line, Text: strings.TrimSuffix(string(text), "\n") + "\n"})
		}
		line, rest = line+bytes.Count(text, []byte("\n")), rest[length:]
	}
	for begin := 0; ; {
		at := separator.FindIndex(rest[begin:])
		if at == nil {
			break
		}
		from, to := begin+at[0], begin+at[1]
		bare := len(bytes.TrimSpace(rest[from+len("---"):to])) == 0
		cut(from)
		if begin = to - from; bare { // a line that says something more belongs to its document
			skipped := min(begin+1, len(rest)) // with its end
			line, rest, begin = line+1, rest[skipped:], 0
		}
	}
	cut(len(rest))
	return all
}

// identify reads kind and name of a document, leniently.
func identify(text []byte) (kind, name string, empty bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var node, more yaml.Node
	switch err := decoder.Decode(&node); {
	case errors.Is(err, io.EOF):
		return "", "", true
	case err != nil || len(node.Content) != 1:
		return "", "", false
	case node.Content[0].ShortTag() == "!!null":
		return "", "", errors.Is(decoder.Decode(&more), io.EOF)
	case !errors.Is(decoder.Decode(&more), io.EOF): // "..." ends a document as well
		return "", "", false
	}
	var r reader
	r.places = map[string]*yaml.Node{}
	kind, rest, ok := r.kind(node.Content[0])
	if !ok {
		return "", "", false
	}
	for i := 0; i+1 < len(rest.Content); i += 2 {
		if rest.Content[i].Value == "name" {
			name, _ = r.text(rest.Content[i+1], "a name")
		}
	}
	if name == "" {
		kind = ""
	}
	return kind, name, false
}
