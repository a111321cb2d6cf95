package storage

import (
	"fmt"
	"strings"
)

// Limits of names, in bytes: what every medium takes, with room for a bucket's prefix or a long mount point.
const (
	MaxNameLength    = 512
	MaxElementLength = 255
)

// reservedElement begins no name: file systems keep files there that are not published yet.
const reservedElement = "tmp"

// CheckName tells whether name may name an object, by the rules given at [Store]. Every implementation asks it first,
// so that what one takes, all take. Names that begin with "tmp/" are refused too: the place is the file system's.
func CheckName(name string) error {
	if name == "" {
		return fmt.Errorf("object name is empty")
	}
	if len(name) > MaxNameLength {
		return fmt.Errorf("object name %.40q… is longer than %d bytes", name, MaxNameLength)
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_./", rune(c)) {
			return fmt.Errorf("object name %q has a byte that is not a letter, a digit, or one of -_.", name)
		}
	}
	first := true
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "" || element == "." || element == "..":
			return fmt.Errorf("object name %q has the element %q", name, element)
		case len(element) > MaxElementLength:
			return fmt.Errorf("object name %.40q… has an element longer than %d bytes", name, MaxElementLength)
		case first && element == reservedElement:
			return fmt.Errorf("object name %q begins with the reserved element %q", name, element)
		}
		first = false
	}
	return nil
}

// CheckPrefix tells whether prefix may be given to [Store.List]: empty, or a name with a slash behind it.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	name, ok := strings.CutSuffix(prefix, "/")
	if !ok {
		return fmt.Errorf("list prefix %q does not end at a slash", prefix)
	}
	return CheckName(name)
}
