package policy

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kind is how values of a type are written: it reads them, writes them and describes them to other programs. What a
// resource looks like is said once, by kinds made of kinds (table.go); parser, printer and schema all come from that.
type kind[T any] struct {
	// read returns the value at a node; false after a mistake that was noted.
	read func(*reader, *yaml.Node) (T, bool)
	// write returns the node of a value. given is what was written down of it; where that is zero, the value is a default.
	write func(w printer, value, given T) *yaml.Node
	// schema of the value's form.
	schema func(defaults T) schema
	// keys are the settings below it, with the paths of those farther below. Nil for all but groups.
	keys func() []string
}

// schema is a JSON Schema.
type schema map[string]any

// printer is how values are printed.
type printer struct {
	// explain marks defaults by comments, and names what is not set.
	explain bool
	// typed writes text as text also where it is a number and YAML would take that too: for programs.
	typed bool
}

// olderMeaning are texts that readers of YAML 1.1 take for numbers or truth: 22:00, yes.
var olderMeaning = regexp.MustCompile(`(?i)^(y|yes|n|no|on|off)$|:`)

func scalar(tag, value string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
}

// longestNumber is how many digits a number has at most that other programs surely take for the same.
const longestNumber = 15

// parsed is a kind whose values are written as a word. expected says what: "a length of time such as 2h".
func parsed[T any](expected string, parse func(string) (T, error), text func(T) string, form schema) kind[T] {
	return kind[T]{
		read: func(r *reader, n *yaml.Node) (T, bool) {
			word, ok := r.text(n, expected)
			if !ok {
				var none T
				return none, false
			}
			value, err := parse(word)
			if err != nil {
				r.failed(n, err)
			}
			return value, err == nil
		},
		write: func(w printer, value, _ T) *yaml.Node {
			word := text(value)
			node := scalar("!!str", word)
			if !w.typed && len(word) <= longestNumber && decimal.MatchString(word) {
				node.Tag = "!!int" // it is taken as a number too, and looks better so
			} else if olderMeaning.MatchString(word) {
				node.Style = yaml.DoubleQuotedStyle
			}
			return node
		},
		schema: func(T) schema { return form },
	}
}

// words is a kind of one of some words.
func words[T ~string](all ...T) kind[T] {
	names := make([]string, len(all))
	for i, word := range all {
		names[i] = string(word)
	}
	return parsed(strings.Join(names, ", "), func(word string) (T, error) {
		for _, known := range all {
			if word == string(known) {
				return known, nil
			}
		}
		return "", hintedError(fmt.Sprintf("%q is not one of %s", word, strings.Join(names, ", ")), nearWord(word, names))
	}, func(value T) string { return string(value) }, schema{"enum": names})
}

func nearWord(word string, words []string) string {
	if near := nearest(word, words); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// number is a kind of whole numbers.
func number(least, most int) kind[int] {
	return kind[int]{
		read: func(r *reader, n *yaml.Node) (int, bool) {
			if n = r.resolve(n); n == nil {
				return 0, false
			}
			hint := ""
			if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && decimal.MatchString(n.Value) {
				hint = "write it without quotes"
			}
			if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || !decimal.MatchString(n.Value) {
				r.wrong(n, hint, "a whole number is expected here, not %s", kindOf(n))
				return 0, false
			}
			value, err := strconv.Atoi(n.Value)
			if err != nil || value < least || value > most {
				r.wrong(n, "", "%s is not from %d to %d", n.Value, least, most)
				return 0, false
			}
			return value, true
		},
		write:  func(_ printer, value, _ int) *yaml.Node { return scalar("!!int", strconv.Itoa(value)) },
		schema: func(int) schema { return schema{"type": "integer", "minimum": least, "maximum": most} },
	}
}

// list is a kind of lists. most is their greatest length.
func list[T any](element kind[T], most int) kind[[]T] {
	return kind[[]T]{
		read: func(r *reader, n *yaml.Node) ([]T, bool) {
			resolved := r.resolve(n)
			if resolved == nil {
				return nil, false
			}
			if resolved.Kind != yaml.SequenceNode {
				r.wrong(resolved, "write it as [ … ], or one to a line behind \"- \"", "a list is expected here, not %s", kindOf(resolved))
				return nil, false
			}
			if len(resolved.Content) > most {
				r.wrong(resolved, "", "the list has %d elements; %d are allowed", len(resolved.Content), most)
				return nil, false
			}
			var values []T
			good := true
			for i, child := range resolved.Content {
				r.at(fmt.Sprintf("[%d]", i), child, func(child *yaml.Node) {
					value, ok := element.read(r, child)
					values = append(values, value)
					good = good && ok
				})
			}
			return values, good
		},
		write: func(w printer, values, _ []T) *yaml.Node {
			node := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
			for _, value := range values {
				child := element.write(w, value, value)
				if child.Kind != yaml.ScalarNode {
					node.Style = 0
				}
				node.Content = append(node.Content, child)
			}
			return node
		},
		schema: func([]T) schema {
			var none T
			return schema{"type": "array", "items": element.schema(none), "maxItems": most}
		},
		keys: element.keys,
	}
}

// filled is a list that is not empty if it is there at all.
func filled[T any](of kind[[]T], why string) kind[[]T] {
	inner := of
	of.read = func(r *reader, n *yaml.Node) ([]T, bool) {
		values, ok := inner.read(r, n)
		if ok && len(values) == 0 {
			r.wrong(n, why, "the list is empty")
			return nil, false
		}
		return values, ok
	}
	of.schema = func(values []T) schema {
		form := inner.schema(values)
		if alternatives, ok := form["anyOf"].([]schema); ok {
			alternatives[1]["minItems"] = 1
		} else {
			form["minItems"] = 1
		}
		return form
	}
	return of
}

// oneOrMore is a kind of lists that may be written without brackets if there is one element.
func oneOrMore[T any](element kind[T], most int) kind[[]T] {
	many := list(element, most)
	return kind[[]T]{
		read: func(r *reader, n *yaml.Node) ([]T, bool) {
			if resolved := r.resolve(n); resolved == nil {
				return nil, false
			} else if resolved.Kind == yaml.SequenceNode {
				return many.read(r, n)
			}
			value, ok := element.read(r, n)
			return []T{value}, ok
		},
		write: func(w printer, values, given []T) *yaml.Node {
			if len(values) == 1 {
				return element.write(w, values[0], values[0])
			}
			return many.write(w, values, given)
		},
		schema: func(values []T) schema {
			var none T
			return schema{"anyOf": []schema{element.schema(none), many.schema(values)}}
		},
		keys: element.keys,
	}
}

// via is a kind of values that are written as those of another kind. An error of from may be a *FieldError.
func via[T, U any](inner kind[U], from func(U) (T, error), to func(T) U) kind[T] {
	return kind[T]{
		read: func(r *reader, n *yaml.Node) (T, bool) {
			var value T
			raw, ok := inner.read(r, n)
			if !ok {
				return value, false
			}
			value, err := from(raw)
			if err != nil {
				r.failed(n, err)
			}
			return value, err == nil
		},
		write:  func(w printer, value, given T) *yaml.Node { return inner.write(w, to(value), to(given)) },
		schema: func(defaults T) schema { return inner.schema(to(defaults)) },
		keys:   inner.keys,
	}
}

func isZero[T any](value T) bool { return reflect.ValueOf(&value).Elem().IsZero() }
