package memory

import (
	"context"
	"time"

	"ferry/internal/storage"
)

// Locking is a store that can keep objects from being deleted or replaced, as a bucket with object lock can. Each process has one of
// its own, on the same Store: what is locked is so for all that have one.
type Locking struct {
	*Store
	newUntil func(name string) time.Time
}

var _ storage.Locker = (*Locking)(nil)

// Locking returns the store as one that can lock.
func (s *Store) Locking() *Locking {
	return &Locking{Store: s, newUntil: func(string) time.Time { return time.Time{} }}
}

// Unwrap returns the store as it is without locks.
func (l *Locking) Unwrap() storage.Store { return l.Store }

// CheckLock is content with all ways.
func (l *Locking) CheckLock(context.Context, storage.Immutability) error { return nil }

// LockNew locks what is put or committed from now on through l.
func (l *Locking) LockNew(_ storage.Immutability, until func(name string) time.Time) error {
	l.newUntil = until
	return nil
}

// Lock locks an object until a time at least.
func (l *Locking) Lock(ctx context.Context, name string, _ storage.Immutability, until time.Time) error {
	return l.call(ctx, OpLock, name, 0, func() error {
		o, ok := l.objects[name]
		if !ok {
			return notExist(name)
		}
		if o.locked.Before(until) {
			o.locked = until
			l.objects[name] = o
		}
		return nil
	})
}

// LockedUntil tells until when an object is locked.
func (l *Locking) LockedUntil(ctx context.Context, name string) (until time.Time, err error) {
	err = l.call(ctx, OpStat, name, 0, func() error {
		o, ok := l.objects[name]
		if !ok {
			return notExist(name)
		}
		until = o.locked
		return nil
	})
	return until, err
}

// LockOf is until when an object is locked; the zero time if it is not, or not there. It is not a call.
func (s *Store) LockOf(name string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[name].locked
}

// SetLock makes an object that is there locked until a time, which may be earlier than it was, behind everybody's back. It is not a call.
func (s *Store) SetLock(name string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[name]; ok {
		o.locked = until
		s.objects[name] = o
	}
}

// Put creates an object that is locked.
func (l *Locking) Put(ctx context.Context, name string, content []byte) error {
	return l.putLocked(ctx, name, content, l.newUntil(name))
}

// Create begins an object that is locked once it is committed.
func (l *Locking) Create(ctx context.Context, name string) (storage.Writer, error) {
	return l.create(ctx, name, l.newUntil)
}
