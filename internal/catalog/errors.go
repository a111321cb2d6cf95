package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"ferry/internal/backup"
)

// Conditions on which callers decide. Errors that mean one of them wrap it.
var (
	// ErrNotFound: there is no such resource, job, session or task.
	ErrNotFound = errors.New("not in the catalog")
	// ErrConflict: somebody else changed it meanwhile. A *ConflictError says what it is now.
	ErrConflict = errors.New("changed by somebody else meanwhile")
	// ErrLostLease: another owner has taken the task or session over, or it has ended. Whoever gets this stops working on it.
	ErrLostLease = errors.New("the lease was lost")
	// ErrSessionRunning: the job has a session that has not ended.
	ErrSessionRunning = errors.New("the job has a running session")
	// ErrBoundaryTaken: the job has a session of this boundary already.
	ErrBoundaryTaken = errors.New("this interval has its session already")
	// ErrTasksRunning: a session with running tasks does not end.
	ErrTasksRunning = errors.New("tasks of the session are running")
	// ErrMirrorMoved: the mirror is at another head than the caller thought, or is being replaced by somebody else.
	ErrMirrorMoved = errors.New("the mirror has moved")
	// ErrTooLarge: a document, a checkpoint or a list is larger than the catalog takes.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid: a value that the catalog cannot keep, such as a name with control characters.
	ErrInvalid = errors.New("invalid value")

	// ErrForeign: the file or database belongs to another program.
	ErrForeign = errors.New("not a Ferry catalog")
	// ErrCorrupt: the database's own file is damaged.
	ErrCorrupt = errors.New("the catalog is damaged")
	// ErrNewer: a newer Ferry has changed the catalog in ways that this one does not know.
	ErrNewer = errors.New("the catalog is of a newer version of Ferry")
	// ErrFull: there is no space to write. Nothing of what was asked for has been done.
	ErrFull = errors.New("no space left for the catalog")
	// ErrBusy: another process held the database for too long. Nothing of what was asked for has been done.
	ErrBusy = errors.New("the catalog is in use by another process")
)

const (
	hintForeign = "give Ferry a file or a database of its own"
	hintCorrupt = "move it aside or put a backup of it in its place, of a file always together with those beside it that end in -wal and -shm; points are read anew from the repositories, jobs and repositories come from their YAML, history does not come back"
	hintNewer   = "use the newer version of Ferry, or a catalog from before it"
	hintFull    = "free space where the catalog lies; nothing is lost"
)

// hinted adds a hint for a person.
func hinted(err error, hint string) error {
	return &backup.Error{Offset: backup.NoOffset, Err: err, Hint: hint}
}

// ConflictError says what a resource is now. It wraps ErrConflict.
type ConflictError struct {
	Kind, Name string
	// Expected is the version that the caller thought was there, Current the one that is; 0: none.
	Expected, Current int64
}

func (e *ConflictError) Error() string {
	name := e.Kind + " " + e.Name
	switch {
	case e.Current == 0:
		return fmt.Sprintf("%s: %v: it is not there", name, ErrConflict)
	case e.Expected == 0:
		return fmt.Sprintf("%s: %v: it is there, at version %d", name, ErrConflict, e.Current)
	}
	return fmt.Sprintf("%s: %v: it is at version %d, not %d", name, ErrConflict, e.Current, e.Expected)
}

// Unwrap gives ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// explain gives a database's error the meaning that callers decide on.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	kind := kindOf(err)
	if kind == nil {
		return fmt.Errorf("catalog: %s: %w", doing, err)
	}
	err = fmt.Errorf("catalog: %s: %w: %w", doing, kind, err)
	if hint := map[error]string{ErrFull: hintFull, ErrCorrupt: hintCorrupt}[kind]; hint != "" {
		return hinted(err, hint)
	}
	return err
}

// kindOf is the condition that a driver's error means, or nil.
func kindOf(err error) error {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff { // the rest says where
		case sqlite3.SQLITE_FULL:
			return ErrFull
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return ErrCorrupt
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return ErrBusy
		}
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch {
		case pg.Code == "53100":
			return ErrFull
		case strings.HasPrefix(pg.Code, "XX00"), pg.Code == "58030": // internal error, data or index corrupted, input or output failed
			return ErrCorrupt
		}
	}
	return nil
}

// again is true for what a database undid because of another transaction: doing it once more helps.
func again(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// isOurs is true for errors that say already what they mean.
func isOurs(err error) bool {
	for _, known := range []error{
		ErrNotFound, ErrConflict, ErrLostLease, ErrSessionRunning, ErrBoundaryTaken, ErrTasksRunning, ErrMirrorMoved, ErrTooLarge,
		ErrInvalid, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
