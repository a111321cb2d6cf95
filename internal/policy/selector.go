package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ferry/internal/backup"
)

// labelPrefix begins a selector that is a label.
const labelPrefix = "label="

// ParseSelector reads a selector.
func ParseSelector(text string) (Selector, error) {
	if _, err := parseText(text); err != nil {
		return "", err
	}
	if text == labelPrefix {
		return "", errors.New("label= names no label")
	}
	if prefix, rest, found := strings.Cut(text, "="); found && prefix != "label" {
		switch prefix {
		case "name", "id", "machine":
			return "", hintedError(fmt.Sprintf("%q: there is no %s=", text, prefix), "write only "+rest+": it is compared with names and ids")
		case "tag", "tags", "labels", "Label":
			return "", hintedError(fmt.Sprintf("%q: there is no %s=", text, prefix), "write "+labelPrefix+rest)
		}
	}
	return Selector(text), nil
}

// IsPattern is true if the selector has wildcards or is a label: it may match any number of machines.
func (s Selector) IsPattern() bool {
	return strings.HasPrefix(string(s), labelPrefix) || strings.ContainsAny(string(s), "*?")
}

// Matches is true if the selector picks a machine. Upper and lower case differ.
func (s Selector) Matches(m backup.Machine) bool { return namesOf(m).match(s) }

// machineNames are what selectors are compared with.
type machineNames struct{ names, labels []string }

// namesOf a machine: its id, its native id, and its name, also as that is shown.
func namesOf(m backup.Machine) machineNames {
	names := []string{m.Key.String(), m.Key.NativeID, m.Name}
	if shown := backup.EncodeName(m.Name); shown != m.Name {
		names = append(names, shown)
	}
	return machineNames{names, m.Labels}
}

func (m machineNames) match(s Selector) bool {
	glob, among := string(s), m.names
	if label, isLabel := strings.CutPrefix(glob, labelPrefix); isLabel {
		glob, among = label, m.labels
	}
	return slices.ContainsFunc(among, func(name string) bool { return Glob(glob, name) })
}

// Glob matches name with a pattern in which '*' is any number of bytes and '?' is one.
func Glob(pattern, name string) bool {
	star, retry := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, retry = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			retry++
			p, n = star+1, retry
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
