// Package storage is a flat store of immutable objects under slash-separated names: what a repository lies on.
//
// The implementations have folders of their own below this one; storagetest is the contract suite that all of them
// pass. A repository asks only for what [Store] promises.
//
// What the medium must guarantee, and every implementation must show by the contract suite:
//
//   - Durability: when Create's Commit or Put return nil, the object survives a power cut, and so does its name.
//   - Atomicity: an object is seen whole under its name or not at all, also by other processes and after a crash.
//   - Create if absent: of several writers that publish one name, exactly one succeeds; the others get ErrExists.
//   - Read after write: an object that was published can be read at once, by anyone. Listings may lag behind.
//   - Time: Info.Modified is the storage's own clock, not the writer's.
//
// A medium that cannot do this is refused with a message that names what it lacks.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Conditions that callers decide on. Errors that mean one of them wrap it.
var (
	ErrNotExist = errors.New("no such object")
	ErrExists   = errors.New("object exists already")
	// ErrNoStorage: what the objects lie in is not there, such as a bucket. That says nothing of any of them.
	ErrNoStorage = errors.New("no such storage")
	// ErrUnsuitable: the medium lacks a guarantee that a repository needs.
	ErrUnsuitable = errors.New("storage lacks a guarantee that a repository needs")
	// ErrNotFile: something lies under the name that is no object, and is not opened: a link, a pipe, a socket, a device or a folder. Of a
	// folder the error wraps ErrNotExist as well.
	ErrNotFile = errors.New("not a file of a repository")
	// ErrFull: no space is left, or a quota is reached.
	ErrFull = errors.New("storage is full")
)

// Info describes an object.
type Info struct {
	Name string
	// Size in bytes.
	Size int64
	// Modified is when the object was published, by the storage's clock.
	Modified time.Time
	// NotFile is true in a listing of what is no object, of which opening gives ErrNotFile: its name is taken. Size is 0 then.
	NotFile bool
}

// Missing is true for errors that say that there is no object under a name: nothing, or what is none.
func Missing(err error) bool { return errors.Is(err, ErrNotExist) || errors.Is(err, ErrNotFile) }

// Absent is true for errors that say that nothing lies under a name: no object, nor what is none.
func Absent(err error) bool { return errors.Is(err, ErrNotExist) && !errors.Is(err, ErrNotFile) }

// Store keeps objects. All methods may be used from several goroutines at once. Names are relative, slash-separated,
// of letters, digits and "-_.", without empty elements, "." or "..", as CheckName has it.
type Store interface {
	// Create begins an object that becomes visible, whole, with Commit. Writes fail once ctx is cancelled.
	Create(ctx context.Context, name string) (Writer, error)
	// Put creates a small object in one call: the same promises as Create and Commit.
	Put(ctx context.Context, name string, content []byte) error
	// Overwrite replaces an object or creates it, atomically. It is for hints below marks/, and for putting back the one
	// content that a damaged object had.
	Overwrite(ctx context.Context, name string, content []byte) error
	// Open opens an object for reading; ErrNotExist if there is none.
	Open(ctx context.Context, name string) (Reader, error)
	// Stat describes an object; ErrNotExist if there is none.
	Stat(ctx context.Context, name string) (Info, error)
	// List yields all objects whose name begins with prefix, in no order. The prefix ends at a slash or is empty.
	// A failure is yielded once, as the last item: a listing that ended without error was complete when it was taken.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// Delete removes an object. Removing one that does not exist is not an error.
	Delete(ctx context.Context, name string) error
	// Location is what a person calls this store, for messages.
	Location() string
	Close() error
}

// Writer writes one object. Either Commit or Abort must be called; Abort after Commit does nothing.
type Writer interface {
	io.Writer
	// Commit publishes the object durably; ErrExists if the name was taken meanwhile. The object's bytes are
	// then released, whatever is returned. After an error other than ErrExists it may be published or not: the answer
	// of the medium can be what was lost.
	Commit(ctx context.Context) error
	// Abort drops what was written.
	Abort()
}

// Reader reads one object; reads may run in parallel.
type Reader interface {
	io.ReaderAt
	// Size in bytes.
	Size() int64
	Close() error
}
