// Package memory is a store in memory, for tests of what is built on storage: it keeps the same promises as a real one
// (it passes the same contract suite), and goes wrong where and how a test says.
//
//   - Faults: a hook sees each call before it is carried out and can let it fail ([Store.SetFault]), also after it took
//     effect, as when an answer is lost ([Applied]).
//   - Wrong bytes: a hook changes what reads give ([Store.SetSpoil]).
//   - Crashes: from a given call on everything fails ([Store.CrashAfter]); [Store.Clone] is what the next process finds.
//   - Power cuts: [Store.PowerCut] is what the next process finds when, besides, what was not synced may be lost.
//   - Full: [Store.SetSpace] says how many bytes still fit.
//   - Stale listings: changes show in listings only some calls later, or when the test says so ([Store.SetListingLag]).
//   - Deleted while it is read: gone at once, as in a bucket, and not kept for who has it open ([Store.SetReadByName]).
//   - Locks: [Store.Locking] can keep objects from being deleted.
//   - Latency: [Store.SetLatency]; it uses timers only, so that time costs nothing in a testing/synctest bubble.
//   - Counts: calls and bytes by operation and by kind of object ([Store.Calls], [Store.Bytes]).
//
// The same calls in the same order give the same results: the store uses no randomness and, but for the time of
// objects, no clock.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ferry/internal/storage"
)

// Store is a storage.Store in memory. New makes one.
type Store struct {
	mu      sync.Mutex
	objects map[string]object
	closed  bool

	// listed is what listings show; pending are the changes that they do not show yet, oldest first.
	listed  map[string]storage.Info
	pending []change
	lag     int
	// writesAtOnce and putsAtOnce are how many at once pay off.
	writesAtOnce, putsAtOnce int

	script   script
	volatile volatile
	counts   map[countKey]count
}

var _ storage.Store = (*Store)(nil)

// object is never changed once it is in the map: readers keep its content.
type object struct {
	content  []byte
	modified time.Time
	// locked is until when it can be neither deleted nor replaced.
	locked time.Time
}

func (o object) info(name string) storage.Info {
	return storage.Info{Name: name, Size: int64(len(o.content)), Modified: o.modified}
}

// change is one that listings are to show from the call number due on.
type change struct {
	due     int
	info    storage.Info
	deleted bool
}

var errClosed = errors.New("store is closed")

// New returns an empty store in which nothing goes wrong.
func New() *Store {
	return &Store{
		objects:      map[string]object{},
		listed:       map[string]storage.Info{},
		script:       script{space: unlimited, crashAt: never, now: time.Now},
		volatile:     volatile{before: map[string]*object{}},
		counts:       map[countKey]count{},
		writesAtOnce: 1, putsAtOnce: 1,
	}
}

// Clone returns a store of its own with the objects that are published now, and in which nothing goes wrong: what the
// next process finds after a crash, or a copy of a repository that goes its own way. Writers that have not committed
// are not in it.
func (s *Store) Clone() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	clone := New()
	clone.script.now = s.script.now
	clone.writesAtOnce, clone.putsAtOnce = s.writesAtOnce, s.putsAtOnce
	maps.Copy(clone.objects, s.objects)
	for name, o := range s.objects {
		clone.listed[name] = o.info(name)
	}
	return clone
}

// Names returns the names of all objects below prefix as they are, sorted. It is not a call: nothing delays it, no
// fault hits it, and it counts nowhere.
func (s *Store) Names(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Tamper replaces an object's content by what tamper makes of a copy of it, behind everybody's back; the time stays.
// It gives storage.ErrNotExist if there is no such object. It is not a call.
func (s *Store) Tamper(name string, tamper func(content []byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[name]
	if !ok {
		return notExist(name)
	}
	o.content = bytes.Clone(tamper(bytes.Clone(o.content)))
	s.objects[name] = o
	s.show(change{info: o.info(name)})
	return nil
}

// Location is "memory".
func (s *Store) Location() string { return "memory" }

// Close makes all later calls fail.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Put creates an object in one call.
func (s *Store) Put(ctx context.Context, name string, content []byte) error {
	return s.putLocked(ctx, name, content, time.Time{})
}

func (s *Store) putLocked(ctx context.Context, name string, content []byte, locked time.Time) error {
	return s.call(ctx, OpPut, name, len(content), func() error {
		if _, taken := s.objects[name]; taken {
			return exists(name)
		}
		if err := s.takeSpace(name, len(content)); err != nil {
			return err
		}
		s.publish(name, bytes.Clone(content), locked)
		s.synced(name)
		s.addBytes(OpPut, name, len(content))
		return nil
	})
}

// Overwrite replaces an object or creates it.
func (s *Store) Overwrite(ctx context.Context, name string, content []byte) error {
	return s.call(ctx, OpOverwrite, name, len(content), func() error {
		if err := s.locked(name); err != nil {
			return err
		}
		if err := s.takeSpace(name, len(content)); err != nil {
			return err
		}
		s.giveSpace(len(s.objects[name].content))
		s.unsynced(name)
		s.publish(name, bytes.Clone(content), time.Time{})
		s.addBytes(OpOverwrite, name, len(content))
		return nil
	})
}

// Open opens an object for reading. What is opened stays readable when it is overwritten or deleted.
func (s *Store) Open(ctx context.Context, name string) (storage.Reader, error) {
	var opened *reader
	err := s.call(ctx, OpOpen, name, 0, func() error {
		o, ok := s.objects[name]
		if !ok {
			return notExist(name)
		}
		opened = &reader{store: s, name: name, content: o.content}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return opened, nil
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, name string) (storage.Info, error) {
	var info storage.Info
	err := s.call(ctx, OpStat, name, 0, func() error {
		o, ok := s.objects[name]
		if !ok {
			return notExist(name)
		}
		info = o.info(name)
		return nil
	})
	return info, err
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, name string) error {
	return s.call(ctx, OpDelete, name, 0, func() error {
		o, ok := s.objects[name]
		if !ok {
			return nil
		}
		if err := s.locked(name); err != nil {
			return err
		}
		s.giveSpace(len(o.content))
		s.unsynced(name)
		delete(s.objects, name)
		s.show(change{info: storage.Info{Name: name}, deleted: true})
		return nil
	})
}

// SyncDeletes makes deletions in a folder durable.
func (s *Store) SyncDeletes(ctx context.Context, folder string) error {
	return s.call(ctx, OpSync, folder, 0, func() error {
		s.synced(folder)
		return nil
	})
}

// List yields what listings show at the time of the call; each listing is one call. The order is fixed but looks like
// none, because none is promised. With a fault that was [Applied] the error comes behind all objects.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		var found []storage.Info
		err := s.call(ctx, OpList, prefix, 0, func() error {
			for name, info := range s.listed {
				if strings.HasPrefix(name, prefix) {
					found = append(found, info)
				}
			}
			return nil
		})
		slices.SortFunc(found, func(a, b storage.Info) int {
			byHash := int64(crc32.ChecksumIEEE([]byte(a.Name))) - int64(crc32.ChecksumIEEE([]byte(b.Name)))
			if byHash != 0 {
				return int(byHash)
			}
			return strings.Compare(a.Name, b.Name)
		})
		for _, info := range found {
			if canceled := ctx.Err(); canceled != nil {
				yield(storage.Info{}, canceled)
				return
			}
			if !yield(info, nil) {
				return
			}
		}
		if err != nil {
			yield(storage.Info{}, err)
		}
	}
}

// publish puts an object under its name. The lock is held.
func (s *Store) publish(name string, content []byte, locked time.Time) {
	o := object{content: content, modified: s.script.now(), locked: locked}
	s.objects[name] = o
	s.show(change{info: o.info(name)})
}

// reader reads what an object was when it was opened.
type reader struct {
	store   *Store
	name    string
	content []byte

	mu     sync.Mutex
	closed bool
}

func (r *reader) Size() int64 { return int64(len(r.content)) }

func (r *reader) ReadAt(p []byte, off int64) (n int, err error) {
	var spoil Spoil
	err = r.store.call(context.Background(), OpRead, r.name, len(p), func() error {
		spoil = r.store.script.spoil
		r.mu.Lock()
		closed := r.closed
		r.mu.Unlock()
		switch {
		case closed:
			return fmt.Errorf("%s: reader is closed", r.name)
		case off < 0:
			return fmt.Errorf("%s: offset %d is negative", r.name, off)
		}
		if _, there := r.store.objects[r.name]; !there && r.store.script.byName {
			return fmt.Errorf("reading %s: %w", r.name, storage.ErrNotExist)
		}
		if off < int64(len(r.content)) {
			n = copy(p, r.content[off:])
		}
		r.store.addBytes(OpRead, r.name, n)
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	if spoil != nil && n > 0 {
		spoil(r.name, p[:n])
	}
	return n, err
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// locked says so of an object that is, by the storage's clock. The lock of the store is held.
func (s *Store) locked(name string) error {
	if until := s.objects[name].locked; until.After(s.script.now()) {
		return &storage.LockedError{Name: name, Until: until}
	}
	return nil
}

func notExist(name string) error { return fmt.Errorf("%s: %w", name, storage.ErrNotExist) }

func exists(name string) error { return fmt.Errorf("%s: %w", name, storage.ErrExists) }
