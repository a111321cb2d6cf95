package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// documentLimit is the largest document of a resource, in bytes.
const documentLimit = 1 << 20

// Resource is what a person configured, as the YAML text that was given.
type Resource struct {
	// Kind is "Job" or "Repository"; Name is unique within it.
	Kind, Name string
	// Version is another one after each change, also after the resource was deleted and made again. It serves as an ETag.
	Version  int64
	Document string
	// Created and Changed in UTC; Deleted is zero unless the resource was deleted.
	Created, Changed, Deleted time.Time
}

// Resources are what people configured.
type Resources struct{ db *database }

const resourceColumns = `kind, name, version, document, created_at, changed_at, deleted_at`

func scanResource(row interface{ Scan(...any) error }) (r Resource, err error) {
	var created, changed, deleted int64
	err = row.Scan(&r.Kind, &r.Name, &r.Version, &r.Document, &created, &changed, &deleted)
	r.Created, r.Changed, r.Deleted = moment(created), moment(changed), maybe(deleted)
	return r, err
}

// ResourceChange makes a resource (Expected 0) or changes the one that is at version Expected.
type ResourceChange struct {
	Kind, Name, Document string
	Expected             int64
}

// Put makes a resource (expected 0) or changes the one that is at version expected. If it is at another version, or there
// already, or gone, the error is a *ConflictError. A deleted resource is made again.
func (r *Resources) Put(ctx context.Context, kind, name, document string, expected int64) (Resource, error) {
	list, err := r.PutAll(ctx, []ResourceChange{{Kind: kind, Name: name, Document: document, Expected: expected}})
	if err != nil {
		return Resource{}, err
	}
	return list[0], nil
}

// PutAll makes and changes resources as Put does, all of them or none, and returns them in the same order.
func (r *Resources) PutAll(ctx context.Context, changes []ResourceChange) (list []Resource, err error) {
	what := make([]string, len(changes))
	for i, c := range changes {
		if err := checkResource(c.Kind, c.Name, c.Document); err != nil {
			return nil, err
		}
		what[i] = c.Kind + " " + c.Name
	}
	now := r.db.now().UTC()
	err = r.db.write(ctx, "storing "+strings.Join(what, ", "), func(tx *sql.Tx) error {
		list = make([]Resource, len(changes))
		for i, c := range changes {
			stored, err := put(ctx, tx, c, now)
			if err != nil {
				return err
			}
			list[i] = stored
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func put(ctx context.Context, tx *sql.Tx, c ResourceChange, now time.Time) (stored Resource, err error) {
	version, err := number(ctx, tx, "version", 1)
	if err != nil {
		return stored, err
	}
	if c.Expected == 0 {
		stored, err = scanResource(tx.QueryRowContext(ctx, `
			INSERT INTO resources (`+resourceColumns+`) VALUES ($1, $2, $3, $4, $5, $5, 0)
			ON CONFLICT (kind, name) DO UPDATE SET version = excluded.version, document = excluded.document,
				created_at = excluded.created_at, changed_at = excluded.changed_at, deleted_at = 0
			WHERE resources.deleted_at <> 0
			RETURNING `+resourceColumns, c.Kind, c.Name, version, c.Document, stamp(now)))
	} else {
		stored, err = scanResource(tx.QueryRowContext(ctx, `
			UPDATE resources SET version = $3, document = $4, changed_at = $5 WHERE kind = $1 AND name = $2 AND version = $6 AND deleted_at = 0
			RETURNING `+resourceColumns, c.Kind, c.Name, version, c.Document, stamp(now), c.Expected))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return stored, conflict(ctx, tx, c.Kind, c.Name, c.Expected)
	}
	return stored, err
}

func checkResource(kind, name, document string) error {
	if err := errors.Join(checkName("kind", kind), checkName(kind, name)); err != nil {
		return err
	}
	if len(document) > documentLimit {
		return fmt.Errorf("%w: the document of %s %s has %d bytes, more than %d", ErrTooLarge, kind, name, len(document), documentLimit)
	}
	if !utf8.ValidString(document) || strings.Contains(document, "\x00") {
		return fmt.Errorf("%w: the document of %s %s is not text", ErrInvalid, kind, name)
	}
	return nil
}

// conflict says what a resource is that is not as expected.
func conflict(ctx context.Context, tx *sql.Tx, kind, name string, expected int64) error {
	var current int64
	err := tx.QueryRowContext(ctx, `SELECT version FROM resources WHERE kind = $1 AND name = $2 AND deleted_at = 0`, kind, name).Scan(&current)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return &ConflictError{Kind: kind, Name: name, Expected: expected, Current: current}
}

// Delete marks the resource that is at version expected as deleted. Its last document stays until Forget: the points of a
// deleted job are kept under its last policy. If it is at another version or gone the error is a *ConflictError.
func (r *Resources) Delete(ctx context.Context, kind, name string, expected int64) error {
	now := r.db.now()
	return r.db.write(ctx, "deleting "+kind+" "+name, func(tx *sql.Tx) error {
		changed, err := execute(ctx, tx, `UPDATE resources SET deleted_at = $4 WHERE kind = $1 AND name = $2 AND version = $3 AND deleted_at = 0`,
			kind, name, expected, stamp(now))
		if err == nil && changed == 0 {
			return conflict(ctx, tx, kind, name, expected)
		}
		return err
	})
}

// Forget removes the last document of a deleted resource. One that is not deleted, or not there, is left alone.
func (r *Resources) Forget(ctx context.Context, kind, name string) error {
	return r.db.write(ctx, "forgetting "+kind+" "+name, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM resources WHERE kind = $1 AND name = $2 AND deleted_at <> 0`, kind, name)
		return err
	})
}

// Get returns a resource that is not deleted, else ErrNotFound.
func (r *Resources) Get(ctx context.Context, kind, name string) (found Resource, err error) {
	err = r.db.read(ctx, "reading "+kind+" "+name, func(rows *sql.Rows) (err error) {
		found, err = scanResource(rows)
		return err
	}, `SELECT `+resourceColumns+` FROM resources WHERE kind = $1 AND name = $2 AND deleted_at = 0`, kind, name)
	if err == nil && found.Name == "" {
		err = fmt.Errorf("%s %s: %w", strings.ToLower(kind), name, ErrNotFound)
	}
	return found, err
}

// List returns the resources of some kinds, those that are deleted or the others, as they are at one moment: read one kind after the other, a
// job might be there without its repository. They are in the order of the kinds, and by name.
func (r *Resources) List(ctx context.Context, deleted bool, kinds ...string) (list []Resource, err error) {
	err = r.db.read(ctx, "listing resources", func(rows *sql.Rows) error {
		resource, err := scanResource(rows)
		if slices.Contains(kinds, resource.Kind) {
			list = append(list, resource)
		}
		return err
	}, `SELECT `+resourceColumns+` FROM resources WHERE CASE WHEN deleted_at = 0 THEN 0 ELSE 1 END = $1`, flag(deleted))
	// Databases differ in how they order text.
	slices.SortFunc(list, func(a, b Resource) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(a.Name, b.Name))
	})
	return list, err
}
