package backup

import (
	"errors"
	"fmt"
	"strings"
)

// Conditions on which callers decide. Errors that mean one of them wrap it.
var (
	// ErrLocked: another program is writing the point; wait.
	ErrLocked = errors.New("locked by its writer")
	// ErrBroken: the point cannot be read, now or later.
	ErrBroken = errors.New("broken")
	// ErrUnsupported: the format or a feature of it is known and not supported.
	ErrUnsupported = errors.New("unsupported")
	// ErrEncrypted: the source is encrypted.
	ErrEncrypted = errors.New("encrypted")
	// ErrChanged: the source changed while it was read.
	ErrChanged = errors.New("changed while being read")
	// ErrVanished: the point is no longer in the source.
	ErrVanished = errors.New("vanished from the source")
	// ErrDamaged: stored data is not what was copied.
	ErrDamaged = errors.New("damaged")
)

// NoOffset is the Offset of an Error that has none.
const NoOffset int64 = -1

// Error is a failure with the place it happened at and, where a person can act, a hint.
type Error struct {
	// Machine is the machine's name or id; Point a point id; Object a disk's name. Empty if not known.
	Machine, Point, Object string
	// Offset in bytes in the object, or NoOffset.
	Offset int64
	// Hint says what to do, in a sentence without a full stop. May be empty.
	Hint string
	Err  error
}

// Error names the place first, then what happened. Names are encoded: they come from sources.
func (e *Error) Error() string {
	var where []string
	if e.Machine != "" {
		where = append(where, "machine "+EncodeName(e.Machine))
	}
	if e.Point != "" {
		where = append(where, "point "+EncodeName(e.Point))
	}
	if e.Object != "" {
		where = append(where, EncodeName(e.Object))
	}
	if e.Offset >= 0 {
		where = append(where, fmt.Sprintf("offset %d", e.Offset))
	}
	if len(where) == 0 {
		return e.Err.Error()
	}
	return strings.Join(where, ", ") + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the innermost hint in err's chain, or "".
func Hint(err error) string {
	hint := ""
	for err != nil {
		var place *Error
		if !errors.As(err, &place) {
			break
		}
		if place.Hint != "" {
			hint = place.Hint
		}
		err = place.Err
	}
	return hint
}
