package mover

import (
	"errors"

	"ferry/internal/backup"
	"ferry/internal/source"
	"ferry/internal/spill"
)

// place adds machine, point and object to an error that does not name them yet. What it knows better stays.
func place(p source.Point, object string, offset int64, err error) error {
	var there *backup.Error
	if errors.As(err, &there) && there.Machine != "" {
		return err
	}
	if errors.Is(err, spill.ErrTemporary) && backup.Hint(err) == "" {
		err = &backup.Error{Offset: backup.NoOffset, Err: err, Hint: "free space in the folder for temporary files, or name another with --temp-dir"}
	}
	name := p.Machine.Name
	if name == "" {
		name = p.Machine.Key.String()
	}
	placed := &backup.Error{Machine: name, Point: p.ID.Short(), Object: object, Offset: offset, Err: err}
	if at, ok := err.(*backup.Error); ok { //nolint:errorlint // one deeper in the chain has a text before it, which must stay
		placed.Hint, placed.Err = at.Hint, at.Err
		if at.Object != "" {
			placed.Object = at.Object
		}
		if at.Offset >= 0 {
			placed.Offset = at.Offset
		}
	}
	return placed
}
