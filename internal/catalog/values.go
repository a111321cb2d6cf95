package catalog

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ferry/internal/backup"
)

// The times that can be kept: what fits in nanoseconds since 1970. Times outside become the nearest that can.
var (
	firstTime = time.Unix(0, math.MinInt64).UTC()
	lastTime  = time.Unix(0, math.MaxInt64).UTC()
)

// stamp is how a time is kept; the zero time is 0.
func stamp(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(firstTime):
		return math.MinInt64
	case t.After(lastTime):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// moment is the time that is kept as n.
func moment(n int64) time.Time { return time.Unix(0, n).UTC() }

// maybe is the time that is kept as n, and the zero time for 0.
func maybe(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return moment(n)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// reasonLimit is the length in bytes to which reasons are cut.
const reasonLimit = 4 << 10

// safeReason makes a message fit to be kept: what sources say may be hostile, and long.
func safeReason(text string) string {
	text = backup.SafeText(text)
	if len(text) <= reasonLimit {
		return text
	}
	cut := reasonLimit
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// nameLimit bounds the names of jobs, repositories and owners, in bytes.
const nameLimit = 255

// checkName refuses names that no configuration has: they would be trouble on one database or the other.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: %s without a name", ErrInvalid, what)
	case len(name) > nameLimit:
		return fmt.Errorf("%w: the name of a %s has %d bytes, more than %d", ErrInvalid, what, len(name), nameLimit)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%w: the name %q of a %s", ErrInvalid, name, what)
	}
	return nil
}

// toJSON is for values that cannot fail.
func toJSON(v any) string {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers, and maps and lists of them
	}
	return string(encoded)
}

// fromJSON reads what toJSON wrote. Text that is something else, which only a damaged database has, gives an error.
func fromJSON(text string, v any) error {
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// encoded makes a list of strings that may be hostile into JSON.
func encoded(list []string) string {
	safe := make([]string, len(list))
	for i, text := range list {
		safe[i] = backup.EncodeName(text)
	}
	return toJSON(safe)
}

// decoded reads what encoded wrote.
func decoded(text string) ([]string, error) {
	var list []string
	if err := fromJSON(text, &list); err != nil {
		return nil, err
	}
	for i := range list {
		name, err := backup.DecodeName(list[i])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		list[i] = name
	}
	return list, nil
}

// Counts are figures with names, such as points copied. What they mean is their writer's business.
type Counts map[string]int64

// countsLimit is how many figures one phase or session may have.
const countsLimit = 64

// check makes counts text, {} for none.
func (c Counts) text() (string, error) {
	if len(c) > countsLimit {
		return "", fmt.Errorf("%w: %d counts, more than %d", ErrTooLarge, len(c), countsLimit)
	}
	if c == nil {
		return "{}", nil
	}
	return toJSON(c), nil
}
