package policy

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// member is a setting of a group that makes an S.
type member[S any] struct {
	key, doc string
	required bool
	// absent says what holds without it, where the zero value is what holds; empty: nothing is to be said.
	absent string

	read   func(*reader, *yaml.Node, *S) bool
	isZero func(*S) bool
	write  func(w printer, value, given *S) *yaml.Node
	schema func(defaults *S) schema
	keys   func() []string
}

// setting is a member that is the field which at returns.
func setting[S, T any](key, doc string, at func(*S) *T, of kind[T]) member[S] {
	return member[S]{
		key: key, doc: doc,
		read: func(r *reader, n *yaml.Node, into *S) bool {
			value, ok := of.read(r, n)
			*at(into) = value
			return ok
		},
		isZero: func(s *S) bool { return isZero(*at(s)) },
		write:  func(w printer, value, given *S) *yaml.Node { return of.write(w, *at(value), *at(given)) },
		schema: func(defaults *S) schema {
			form := schema{}
			for key, value := range of.schema(*at(defaults)) {
				form[key] = value
			}
			form["description"] = doc
			if of.keys == nil && !isZero(*at(defaults)) {
				form["default"] = plainValue(of.write(printer{typed: true}, *at(defaults), *at(defaults)))
			}
			return form
		},
		keys: of.keys,
	}
}

// must makes a setting one that has to be there.
func (m member[S]) must() member[S] {
	m.required = true
	return m
}

// without says what holds if the setting is not there, where no value says it.
func (m member[S]) without(text string) member[S] {
	m.absent = text
	return m
}

// group is a kind of settings by key.
func group[S any](members ...member[S]) kind[S] {
	g := groupOf[S]{members: members}
	return kind[S]{read: g.read, write: g.write, schema: g.schema, keys: g.keys}
}

// flat is a group that is written in one line.
func flat[S any](members ...member[S]) kind[S] {
	g := groupOf[S]{members: members, flow: true}
	return kind[S]{read: g.read, write: g.write, schema: g.schema, keys: g.keys}
}

type groupOf[S any] struct {
	members []member[S]
	flow    bool
}

func (g groupOf[S]) names() []string {
	names := make([]string, len(g.members))
	for i, m := range g.members {
		names[i] = m.key
	}
	return names
}

// keys are the settings in the group and below it, as paths.
func (g groupOf[S]) keys() []string {
	var paths []string
	for _, m := range g.members {
		paths = append(paths, m.key)
		if m.keys != nil {
			for _, below := range m.keys() {
				paths = append(paths, m.key+"."+below)
			}
		}
	}
	return paths
}

func (g groupOf[S]) read(r *reader, n *yaml.Node) (S, bool) {
	var value S
	if n = r.resolve(n); n == nil {
		return value, false
	}
	if n.Kind != yaml.MappingNode {
		hint := "its settings are " + strings.Join(g.names(), ", ")
		r.wrong(n, hint, "a group of settings is expected here, not %s", kindOf(n))
		return value, false
	}
	good := true
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, content := n.Content[i], n.Content[i+1]
		m, ok := g.member(r, key, seen)
		if !ok {
			good = false
			continue
		}
		r.at(m.key, content, func(content *yaml.Node) {
			if !m.read(r, content, &value) {
				good = false
			}
		})
	}
	for _, m := range g.members {
		if m.required && seen[m.key] == nil {
			r.wrong(n, m.key+" is "+m.doc, "%s is missing", m.key)
			good = false
		}
	}
	return value, good
}

// member finds the setting that a key names, which has not been seen before; false after a mistake that was noted.
func (g groupOf[S]) member(r *reader, key *yaml.Node, seen map[string]*yaml.Node) (member[S], bool) {
	node := r.resolve(key)
	switch {
	case node == nil:
		return member[S]{}, false
	case node.Kind != yaml.ScalarNode:
		r.wrong(key, "", "the name of a setting is expected here, not %s", kindOf(node))
		return member[S]{}, false
	case node.ShortTag() == "!!merge":
		r.wrong(key, "write the settings out, or give a whole value an anchor", "<< is not known here")
		return member[S]{}, false
	}
	if first := seen[node.Value]; first != nil {
		r.wrong(key, fmt.Sprintf("it is on line %d already", first.Line), "%q is there twice", node.Value)
		return member[S]{}, false
	}
	seen[node.Value] = key
	for _, m := range g.members {
		if m.key == node.Value {
			return m, true
		}
	}
	r.wrong(key, g.hint(node.Value), "there is no setting %q", node.Value)
	return member[S]{}, false
}

// hint says what an unknown key may be meant to be: one of another spelling, or one that belongs elsewhere.
func (g groupOf[S]) hint(key string) string {
	if hint, isSecret := secretHint(key); isSecret {
		return hint
	}
	if near := nearest(key, g.names()); near != "" {
		return "did you mean " + near + "?"
	}
	for _, path := range g.keys() {
		if strings.HasSuffix(path, "."+key) {
			return "it belongs into " + strings.TrimSuffix(path, "."+key)
		}
	}
	return "there are " + strings.Join(g.names(), ", ")
}

func (g groupOf[S]) write(w printer, value, given S) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	if g.flow {
		node.Style = yaml.FlowStyle
	}
	var notes []string // on settings that are not there, for above the next one that is
	for _, m := range g.members {
		if m.isZero(&value) && !m.required {
			if w.explain && m.absent != "" {
				notes = append(notes, m.key+": "+m.absent)
			}
			continue
		}
		key, child := scalar("!!str", m.key), (*yaml.Node)(nil)
		if isDefault := m.isZero(&given) && !m.required; isDefault && w.explain {
			child = m.write(printer{typed: w.typed}, &value, &value)
			if child.Kind == yaml.ScalarNode || child.Style&yaml.FlowStyle != 0 {
				child.LineComment = "default"
			} else {
				key.LineComment = "default"
			}
			node.Style = 0
		} else {
			child = m.write(w, &value, &given)
			if child.Kind != yaml.ScalarNode && child.Style&yaml.FlowStyle == 0 {
				node.Style = 0
			}
		}
		if len(notes) > 0 {
			key.HeadComment, notes = strings.Join(notes, "\n"), nil
			node.Style = 0
		}
		node.Content = append(node.Content, key, child)
	}
	if len(notes) > 0 && len(node.Content) > 0 {
		node.Style = 0
		node.Content[len(node.Content)-2].FootComment = strings.Join(notes, "\n")
	}
	return node
}

func (g groupOf[S]) schema(defaults S) schema {
	properties := schema{}
	var required []string
	for _, m := range g.members {
		properties[m.key] = m.schema(&defaults)
		if m.required {
			required = append(required, m.key)
		}
	}
	form := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		form["required"] = required
	}
	return form
}
