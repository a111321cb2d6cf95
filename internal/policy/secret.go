package policy

import (
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Secrets are never in a resource: it is shown, kept in targets and handed around. It says where they are.

// secretForms are the ways to say where a secret is.
type secretForm uint8

const (
	fromFile secretForm = iota
	fromEnvironment
	fromCommand
)

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (f secretForm) member() member[SecretRef] {
	switch f {
	case fromFile:
		return setting("file", "a file, from this one if relative", func(s *SecretRef) *string { return &s.File }, textKind)
	case fromEnvironment:
		return setting("environment", "the name of a variable", func(s *SecretRef) *string { return &s.Environment },
			parsed("the name of a variable", parseVariable, plainText, schema{"type": "string", "pattern": variableForm.String()}))
	}
	return setting("command", "a shell command that prints it", func(s *SecretRef) *string { return &s.Command }, textKind)
}

// parseVariable does not repeat what it does not take: it may be the secret.
func parseVariable(text string) (string, error) {
	if !variableForm.MatchString(text) {
		return "", hintedError("it is not the name of a variable: letters, digits and _", "the secret itself stands in the environment, not here")
	}
	return text, nil
}

// secretKind is a reference to a secret in one of the forms.
func secretKind(forms ...secretForm) kind[SecretRef] {
	var members []member[SecretRef]
	var names []string
	for _, form := range forms {
		m := form.member()
		members, names = append(members, m), append(names, m.key)
	}
	inner := flat(members...)
	of := inner
	of.read = func(r *reader, n *yaml.Node) (SecretRef, bool) {
		resolved := r.resolve(n)
		if resolved == nil {
			return SecretRef{}, false
		}
		if resolved.Kind == yaml.ScalarNode {
			r.wrong(resolved, fmt.Sprintf("say where it is: {%s: …}", strings.Join(names, "|")), "a secret does not belong into this file")
			return SecretRef{}, false
		}
		secret, ok := inner.read(r, resolved)
		if set := len(resolved.Content) / 2; ok && set != 1 {
			r.wrong(resolved, "", "%d places are named, instead of one of %s", set, strings.Join(names, ", "))
			return SecretRef{}, false
		}
		return secret, ok
	}
	of.schema = func(defaults SecretRef) schema {
		form := inner.schema(defaults)
		form["minProperties"], form["maxProperties"] = 1, 1
		return form
	}
	return of
}

// secretNames are settings that other programs have for what must not be in a resource here.
var secretNames = regexp.MustCompile(`(?i)^(password|passwd|secret|secret_?key|secret_?access_?key|access_?key(_?id)?|token|key|keys|aws_.*)$`)

// secretHint is the hint for a setting by whose name a secret is meant.
func secretHint(key string) (hint string, isSecret bool) {
	if !secretNames.MatchString(key) {
		return "", false
	}
	return "secrets stand elsewhere: a repository has passphrase, identity and credentials, which say in which file, variable or command", true
}
