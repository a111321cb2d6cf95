package memory

import (
	"context"
	"errors"
	"slices"
	"time"

	"ferry/internal/storage"
)

var errFinished = errors.New("object was committed or aborted already")

// writer gathers an object.
type writer struct {
	store *Store
	// ctx is Create's: a writer whose work was cancelled takes nothing more.
	ctx     context.Context
	name    string
	content []byte
	// taken is how much of the store's space the content has.
	taken  int
	failed error
	// until says when the lock of an object that is committed now ends.
	until func(name string) time.Time
}

// Create begins an object. Writes fail once ctx is cancelled.
func (s *Store) Create(ctx context.Context, name string) (storage.Writer, error) {
	return s.create(ctx, name, func(string) time.Time { return time.Time{} })
}

func (s *Store) create(ctx context.Context, name string, until func(string) time.Time) (storage.Writer, error) {
	err := s.call(ctx, OpCreate, name, 0, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return &writer{store: s, ctx: ctx, name: name, until: until}, nil
}

// Write takes p, or as much of it as there is space for. After an error the object cannot be committed.
func (w *writer) Write(p []byte) (n int, err error) {
	if w.failed != nil {
		return 0, w.failed
	}
	s := w.store
	w.failed = s.call(w.ctx, OpWrite, w.name, len(p), func() error {
		n = len(p)
		if s.script.space != unlimited {
			n = int(min(int64(n), s.script.space))
		}
		full := s.takeSpace(w.name, len(p))
		if full != nil {
			// What fits is written first, as on a disk.
			_ = s.takeSpace(w.name, n)
		}
		w.taken += n
		w.content = append(w.content, p[:n]...)
		s.addBytes(OpWrite, w.name, n)
		return full
	})
	return n, w.failed
}

// Commit publishes the object.
func (w *writer) Commit(ctx context.Context) error {
	defer w.Abort()
	if w.failed != nil {
		return w.failed
	}
	s, locked := w.store, w.until(w.name)
	return s.call(ctx, OpCommit, w.name, 0, func() error {
		if _, taken := s.objects[w.name]; taken {
			return exists(w.name)
		}
		s.publish(w.name, slices.Clip(w.content), locked)
		s.synced(w.name)
		w.taken = 0
		return nil
	})
}

// Abort drops what was written; after Commit it does nothing. It is not a call: a real writer that aborts asks nobody.
func (w *writer) Abort() {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveSpace(w.taken)
	w.taken, w.content, w.failed = 0, nil, errFinished
}
