package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// What some stores can do beside being a Store, each an interface of its own. Who wants one asks [As]; the functions
// below do without where there is none.

// WholeReader is implemented by stores that read a whole object with less than opening it and reading takes.
type WholeReader interface {
	// ReadAll reads an object of at most limit bytes; ErrNotExist if there is none.
	ReadAll(ctx context.Context, name string, limit int64) ([]byte, error)
}

// SizedOpener is implemented by stores that can save a request when the caller knows an object's size already.
type SizedOpener interface {
	// OpenSized opens an object that has the given size. That it does not exist, or is shorter, may show only by
	// reading: ErrNotExist, or fewer bytes and io.EOF.
	OpenSized(ctx context.Context, name string, size int64) (Reader, error)
}

// ContextReader is implemented by readers whose reads can be given up.
type ContextReader interface {
	// ReadAtContext is ReadAt until ctx is cancelled.
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}

// OnceReader is implemented by readers of files that can be read without pushing other things out of the operating system's cache.
type OnceReader interface {
	// ReadOnceAt is ReadAt for bytes that are not wanted again soon.
	ReadOnceAt(p []byte, off int64) (int, error)
}

// AfterLister is implemented by stores that list part of what is below a prefix with less than listing all of it takes.
type AfterLister interface {
	// ListAfter yields the objects whose names begin with prefix and sort behind after, in the order of their names,
	// bytes compared. Unlike List it shows everything that was published before it began. Failures are as List's.
	ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// DeleteSyncer is implemented by stores where a power cut may bring back what was deleted.
type DeleteSyncer interface {
	// SyncDeletes returns when nothing that was deleted in a folder, whose name ends in a slash, can come back.
	SyncDeletes(ctx context.Context, folder string) error
}

// Distant is implemented by stores with a round trip over a network before every byte: fewer and larger reads, and
// several at once, pay off there.
type Distant interface {
	// ParallelReads is how many reads at once pay off, at least 1.
	ParallelReads() int
}

// ParallelWriter is implemented by stores where a write waits for more than the medium, so that several at once pay off.
type ParallelWriter interface {
	// ParallelWrites is how many objects that were begun with Create pay off to be written to at once, and how many to be put or
	// committed; both at least 1.
	ParallelWrites() (written, put int)
}

// Measured is implemented by stores that can tell how much space is left.
type Measured interface {
	// Free is how many bytes can still be written by this process, headroom that is kept for others not counted; known is false
	// where the medium does not say.
	Free(ctx context.Context) (free int64, known bool, err error)
}

// Unbounded is implemented by stores that no medium bounds. What may end there is a quota, and that can be raised.
type Unbounded interface {
	// GrowsOnDemand is true if somebody can give a full store more room without deleting anything in it first, so that no
	// space need be kept in reserve for deleting.
	GrowsOnDemand() bool
}

// Requester is implemented by stores that count what they ask of a server.
type Requester interface {
	// Requests so far, tries that failed included.
	Requests() Requests
}

// Requests to a server, by kind.
type Requests struct {
	Get, Head, List, Put, Delete, Lock, Other int64
	// Retried is how many of them were tries again.
	Retried int64
}

// Total of all kinds.
func (r Requests) Total() int64 { return r.Get + r.Head + r.List + r.Put + r.Delete + r.Lock + r.Other }

// Add returns the sums.
func (r Requests) Add(o Requests) Requests {
	return Requests{
		Get: r.Get + o.Get, Head: r.Head + o.Head, List: r.List + o.List, Put: r.Put + o.Put, Delete: r.Delete + o.Delete,
		Lock: r.Lock + o.Lock, Other: r.Other + o.Other, Retried: r.Retried + o.Retried,
	}
}

// OlderVersions is implemented by stores that may have kept what an object was before somebody else replaced or removed it.
type OlderVersions interface {
	// Oldest opens the oldest version that there is of an object, hidden or not; ErrNotExist if there is none. From then on
	// the store gives that version whenever it is asked for the object.
	Oldest(ctx context.Context, name string) (Reader, error)
}

// Immutability is how a store keeps objects from being deleted or replaced before their time.
type Immutability string

// The ways.
const (
	// Compliance and Governance are the modes of S3 object lock: nobody can delete before the time, or only who has a
	// particular right can.
	Compliance Immutability = "compliance"
	Governance Immutability = "governance"
	// Host is the immutable attribute of a file system: the machine's administrator can take it away.
	Host Immutability = "host"
)

// Locker is implemented by stores that can keep objects from being deleted or replaced until a time.
type Locker interface {
	// CheckLock tells whether objects can be locked in this way here and now: ErrUnsuitable, with what to do, if not.
	CheckLock(ctx context.Context, how Immutability) error
	// LockNew makes every object that is published from now on, and for which until gives a time, locked until then. ErrUnsuitable if
	// such a store has no such way to lock, whatever its owner allows.
	LockNew(how Immutability, until func(name string) time.Time) error
	// Lock locks an object until a time at least. A lock that lasts longer already stays as it is.
	Lock(ctx context.Context, name string, how Immutability, until time.Time) error
	// LockedUntil tells until when an object is locked; the zero time if it is not.
	LockedUntil(ctx context.Context, name string) (time.Time, error)
}

// RetentionChecker is implemented by stores whose owner can have them lock everything that is written, also later than Probe looked.
type RetentionChecker interface {
	// CheckRetention returns an error that wraps ErrUnsuitable, with what to do, if they do, and another if that cannot be asked.
	CheckRetention(ctx context.Context) error
}

// LockedError is what deleting fails with while an object is locked.
type LockedError struct {
	Name  string
	Until time.Time
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is locked until %s", e.Name, e.Until.UTC().Format(time.RFC3339))
}

// As finds the first of a store and the stores that it wraps, which have a method Unwrap, that implements T.
func As[T any](store Store) (T, bool) {
	for store != nil {
		if found, ok := store.(T); ok {
			return found, true
		}
		wrapping, ok := store.(interface{ Unwrap() Store })
		if !ok {
			break
		}
		store = wrapping.Unwrap()
	}
	var none T
	return none, false
}

// Free is how many bytes can still be written; known is false where nothing tells, as in a bucket.
func Free(ctx context.Context, store Store) (free int64, known bool, err error) {
	if measured, ok := As[Measured](store); ok {
		return measured.Free(ctx)
	}
	return 0, false, nil
}

// ReadAll reads a whole object of at most limit bytes.
func ReadAll(ctx context.Context, store Store, name string, limit int64) ([]byte, error) {
	if whole, ok := store.(WholeReader); ok {
		return whole.ReadAll(ctx, name, limit)
	}
	reader, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return readWhole(ctx, reader, name, limit)
}

func readWhole(ctx context.Context, reader Reader, name string, limit int64) ([]byte, error) {
	if reader.Size() > limit {
		return nil, TooLarge(name)
	}
	content := make([]byte, reader.Size())
	if n, err := ReadAt(ctx, reader, content, 0); err != nil && (err != io.EOF || n < len(content)) {
		return nil, err
	}
	return content, nil
}

// ErrTooLarge is wrapped by the error of reading whole an object above the limit.
var ErrTooLarge = errors.New("larger than such an object can be")

// TooLarge is the error of reading whole an object above the limit.
func TooLarge(name string) error { return fmt.Errorf("%s is %w", name, ErrTooLarge) }

// ReadIntact reads a whole object of at most limit bytes that check accepts. Where what is there now is missing or not
// accepted, and the store has kept what it was at first, that is read instead. The error is that of what is there now.
func ReadIntact(ctx context.Context, store Store, name string, limit int64, check func([]byte) error) error {
	content, err := ReadAll(ctx, store, name, limit)
	if err == nil {
		err = check(content)
	}
	if err == nil || ctx.Err() != nil || ReadOldest(ctx, store, name, limit, check) != nil {
		return err
	}
	return nil
}

// ReadOldest reads whole what an object was at first. It gives ErrNotExist where the store does not keep that.
func ReadOldest(ctx context.Context, store Store, name string, limit int64, check func([]byte) error) error {
	versions, ok := As[OlderVersions](store)
	if !ok {
		return fmt.Errorf("an older version of %s: %w", name, ErrNotExist)
	}
	reader, err := versions.Oldest(ctx, name)
	if err != nil {
		return err
	}
	defer reader.Close()
	content, err := readWhole(ctx, reader, name, limit)
	if err != nil {
		return err
	}
	return check(content)
}

// OpenSized opens an object whose size is known.
func OpenSized(ctx context.Context, store Store, name string, size int64) (Reader, error) {
	if opener, ok := store.(SizedOpener); ok {
		return opener.OpenSized(ctx, name, size)
	}
	return store.Open(ctx, name)
}

// ReadAt reads as reader does, and gives up when ctx is cancelled if the reader can.
func ReadAt(ctx context.Context, reader io.ReaderAt, p []byte, off int64) (int, error) {
	if interruptible, ok := reader.(ContextReader); ok {
		return interruptible.ReadAtContext(ctx, p, off)
	}
	return reader.ReadAt(p, off)
}

// readOnceAt reads as reader does, once if it can; else it gives up when ctx is cancelled if it can do that.
func readOnceAt(ctx context.Context, reader io.ReaderAt, p []byte, off int64) (int, error) {
	if once, ok := reader.(OnceReader); ok {
		return once.ReadOnceAt(p, off)
	}
	return ReadAt(ctx, reader, p, off)
}

// ListAfter yields the objects below prefix whose names sort behind after. Only with an AfterLister is the order that of
// the names, and the listing fresh.
func ListAfter(ctx context.Context, store Store, prefix, after string) iter.Seq2[Info, error] {
	if lister, ok := As[AfterLister](store); ok {
		return lister.ListAfter(ctx, prefix, after)
	}
	return func(yield func(Info, error) bool) {
		for info, err := range store.List(ctx, prefix) {
			if err == nil && strings.Compare(info.Name, after) <= 0 {
				continue
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// SyncDeletes returns when nothing that was deleted in a folder, whose name ends in a slash, can come back.
func SyncDeletes(ctx context.Context, store Store, folder string) error {
	if syncer, ok := As[DeleteSyncer](store); ok {
		return syncer.SyncDeletes(ctx, folder)
	}
	return nil
}

// GrowsOnDemand is true if nothing need be kept in reserve in a store: false for those that say nothing of it.
func GrowsOnDemand(store Store) bool {
	unbounded, ok := As[Unbounded](store)
	return ok && unbounded.GrowsOnDemand()
}

// ParallelReads is how many reads at once pay off: 1 for stores that say nothing of it.
func ParallelReads(store Store) int {
	if distant, ok := As[Distant](store); ok {
		return max(1, distant.ParallelReads())
	}
	return 1
}

// ParallelWrites is how many objects pay off to be written to at once, and how many to be put or committed: 1 for stores that say
// nothing of it.
func ParallelWrites(store Store) (written, put int) {
	if parallel, ok := As[ParallelWriter](store); ok {
		written, put = parallel.ParallelWrites()
	}
	return max(1, written), max(1, put)
}
