package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/answer"
	"ferry/internal/idle"
)

// Answering is a store that may never answer, such as a share whose server is away, with calls that can be left behind when the
// work is to end. Once one was, nothing more is asked through this store: every call fails at once with answer.ErrNone. The store
// can be opened again when the calls that were left behind have returned.
//
// What a call that was left behind does when it returns after all is what a writer does that was paused: each call publishes or
// deletes one object at most, and nothing follows it.
func Answering(store Store, calls *answer.Calls) Store {
	s := &answering{Store: store, calls: calls, readAtOnce: readAtOnce}
	if ParallelReads(store) > 1 {
		s.readAtOnce = 0 // each call is a request
	}
	if locker, ok := As[Locker](store); ok {
		return &answeringLocker{s, locker}
	}
	return s
}

type answering struct {
	Store
	calls *answer.Calls
	// readAtOnce is how many bytes a call reads at most; 0: as many as are asked for.
	readAtOnce int
	// left is true once a call was left behind.
	left atomic.Bool
}

// Unwrap gives what the store can do beside being one, and that is not here.
func (s *answering) Unwrap() Store { return s.Store }

// ask makes a call. What it is given as its context ends when it is left behind.
func ask[T any](ctx context.Context, s *answering, call func(context.Context) (T, error), drop func(T)) (T, error) {
	var none T
	if s.left.Load() {
		return none, s.gone(answer.ErrNone)
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	value, err := answer.Call(ctx, s.calls, func() (T, error) {
		defer idle.Begin(ctx)()
		return call(within)
	}, drop)
	if errors.Is(err, answer.ErrNone) {
		return none, s.gone(err)
	}
	return value, err
}

func (s *answering) gone(err error) error {
	s.left.Store(true)
	return fmt.Errorf("%s: %w", s.Location(), err)
}

// do makes a call that returns nothing but an error.
func (s *answering) do(ctx context.Context, call func(context.Context) error) error {
	_, err := ask(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) }, nil)
	return err
}

func (s *answering) Create(ctx context.Context, name string) (Writer, error) {
	// The writer keeps its context longer than the call.
	w, err := ask(ctx, s, func(context.Context) (Writer, error) { return s.Store.Create(ctx, name) }, Writer.Abort)
	if err != nil {
		return nil, err
	}
	return &answeringWriter{Writer: w, of: s, ctx: ctx}, nil
}

func (s *answering) Put(ctx context.Context, name string, content []byte) error {
	return s.do(ctx, func(ctx context.Context) error { return s.Store.Put(ctx, name, content) })
}

func (s *answering) Overwrite(ctx context.Context, name string, content []byte) error {
	return s.do(ctx, func(ctx context.Context) error { return s.Store.Overwrite(ctx, name, content) })
}

func (s *answering) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	return ask(ctx, s, func(ctx context.Context) ([]byte, error) { return ReadAll(ctx, s.Store, name, limit) }, nil)
}

func (s *answering) Open(ctx context.Context, name string) (Reader, error) {
	return s.open(ctx, func() (Reader, error) { return s.Store.Open(ctx, name) })
}

func (s *answering) OpenSized(ctx context.Context, name string, size int64) (Reader, error) {
	return s.open(ctx, func() (Reader, error) { return OpenSized(ctx, s.Store, name, size) })
}

func (s *answering) open(ctx context.Context, open func() (Reader, error)) (Reader, error) {
	r, err := ask(ctx, s, func(context.Context) (Reader, error) { return open() }, func(r Reader) { _ = r.Close() })
	if err != nil {
		return nil, err
	}
	return &answeringReader{Reader: r, of: s, ctx: ctx}, nil
}

func (s *answering) Stat(ctx context.Context, name string) (Info, error) {
	return ask(ctx, s, func(ctx context.Context) (Info, error) { return s.Store.Stat(ctx, name) }, nil)
}

func (s *answering) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if s.left.Load() {
			yield(Info{}, s.gone(answer.ErrNone))
			return
		}
		for info, err := range answer.Each(ctx, s.calls, func(ctx context.Context) iter.Seq2[Info, error] { return givingWay(ctx, s.Store.List(ctx, prefix)) }) {
			if errors.Is(err, answer.ErrNone) {
				err = s.gone(err)
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

// givingWay lists as ctx says that it is to be done: idle.Begin in the goroutine that lists.
func givingWay(ctx context.Context, list iter.Seq2[Info, error]) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		defer idle.Begin(ctx)()
		list(yield)
	}
}

func (s *answering) Delete(ctx context.Context, name string) error {
	return s.do(ctx, func(ctx context.Context) error { return s.Store.Delete(ctx, name) })
}

func (s *answering) SyncDeletes(ctx context.Context, folder string) error {
	return s.do(ctx, func(ctx context.Context) error { return SyncDeletes(ctx, s.Store, folder) })
}

func (s *answering) Free(ctx context.Context) (free int64, known bool, err error) {
	type space struct {
		free  int64
		known bool
	}
	left, err := ask(ctx, s, func(ctx context.Context) (space, error) {
		free, known, err := Free(ctx, s.Store)
		return space{free, known}, err
	}, nil)
	return left.free, left.known, err
}

func (s *answering) Close() error { return s.calls.WhenBack(s.Store.Close) }

// answeringWriter gives its bytes up with the call that was left behind: who gets answer.ErrNone must not use them again.
type answeringWriter struct {
	Writer
	of  *answering
	ctx context.Context // of the object: io.Writer has none
}

func (w *answeringWriter) Write(p []byte) (int, error) {
	return ask(w.ctx, w.of, func(context.Context) (int, error) { return w.Writer.Write(p) }, nil)
}

func (w *answeringWriter) Commit(ctx context.Context) error {
	return w.of.do(ctx, func(ctx context.Context) error { return w.Writer.Commit(ctx) })
}

func (w *answeringWriter) Abort() {
	_ = w.of.calls.WhenBack(func() error {
		return w.of.calls.Do(w.ctx, func() error { w.Writer.Abort(); return nil })
	})
}

type answeringReader struct {
	Reader
	of  *answering
	ctx context.Context // of the object: io.ReaderAt has none
}

func (r *answeringReader) ReadAt(p []byte, offset int64) (int, error) {
	return r.ReadAtContext(r.ctx, p, offset)
}

// readAtOnce is how many bytes a call reads of a store that is near: more at once cost more, for the pages of the buffer between.
const readAtOnce = 1 << 20

// readBuffers are what calls read into that may be left behind: callers use their own again.
var readBuffers = sync.Pool{New: func() any { return new([]byte) }}

func (r *answeringReader) ReadAtContext(ctx context.Context, p []byte, offset int64) (int, error) {
	return r.read(ctx, p, offset, ReadAt)
}

func (r *answeringReader) ReadOnceAt(p []byte, offset int64) (int, error) {
	return r.read(r.ctx, p, offset, readOnceAt)
}

// readAt is ReadAt, or readOnceAt.
type readAt = func(ctx context.Context, reader io.ReaderAt, p []byte, off int64) (int, error)

func (r *answeringReader) read(ctx context.Context, p []byte, offset int64, read readAt) (done int, err error) {
	size := len(p)
	if r.of.readAtOnce > 0 {
		size = min(size, r.of.readAtOnce)
	}
	buffer := readBuffers.Get().(*[]byte)
	*buffer = slices.Grow((*buffer)[:0], size)[:size]
	for first := true; err == nil && (first || done < len(p)); first = false {
		piece, at := (*buffer)[:min(len(p)-done, size)], offset+int64(done)
		var n int
		n, err = ask(ctx, r.of, func(ctx context.Context) (int, error) { return read(ctx, r.Reader, piece, at) }, nil)
		done += copy(p[done:], piece[:n])
	}
	if !errors.Is(err, answer.ErrNone) {
		readBuffers.Put(buffer)
	}
	return done, err
}

func (r *answeringReader) Close() error {
	return r.of.calls.WhenBack(func() error { return r.of.calls.Do(r.ctx, r.Reader.Close) })
}

// answeringLocker is one whose store locks.
type answeringLocker struct {
	*answering
	locker Locker
}

func (s *answeringLocker) CheckLock(ctx context.Context, how Immutability) error {
	return s.do(ctx, func(ctx context.Context) error { return s.locker.CheckLock(ctx, how) })
}

func (s *answeringLocker) LockNew(how Immutability, until func(name string) time.Time) error {
	return s.locker.LockNew(how, until)
}

func (s *answeringLocker) Lock(ctx context.Context, name string, how Immutability, until time.Time) error {
	return s.do(ctx, func(ctx context.Context) error { return s.locker.Lock(ctx, name, how, until) })
}

func (s *answeringLocker) LockedUntil(ctx context.Context, name string) (time.Time, error) {
	return ask(ctx, s.answering, func(ctx context.Context) (time.Time, error) { return s.locker.LockedUntil(ctx, name) }, nil)
}
