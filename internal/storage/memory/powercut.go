package memory

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
)

// volatile is what a power cut may undo or bring about. Its rules are those of a file system below package fs:
//
//   - What Put and Commit published is durable when they return, and so is everything that happened before in that folder:
//     they sync it.
//   - Delete and Overwrite sync nothing: what was there before may come back. SyncDeletes syncs a folder.
//   - The call that the power cut interrupts may have taken effect or not.
type volatile struct {
	// before are the objects that may come back, by name; nil for one that may be gone again.
	before map[string]*object
	// inFlight is the call that was interrupted.
	inFlight *interrupted
}

// interrupted is what a call would have left under a name; nil for nothing.
type interrupted struct {
	name  string
	after *object
}

// PowerCut returns a store of its own with what the next process finds after the power failed now, or when the crash
// that CrashAfter announced happened. What the storage did not promise to keep is kept or lost by chance.
func (s *Store) PowerCut(random *rand.Rand) *Store {
	next := s.Clone()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.volatile.before)) {
		if random.IntN(2) == 0 {
			next.put(name, s.volatile.before[name])
		}
	}
	if call := s.volatile.inFlight; call != nil && random.IntN(2) == 0 {
		next.put(call.name, call.after)
	}
	return next
}

// put makes an object what it is said to be, also in listings. Nobody else has the store yet.
func (s *Store) put(name string, o *object) {
	if o == nil {
		delete(s.objects, name)
		delete(s.listed, name)
		return
	}
	s.objects[name], s.listed[name] = *o, o.info(name)
}

// at is the object of a name, or nil. The lock is held.
func (s *Store) at(name string) *object {
	if o, ok := s.objects[name]; ok {
		return &o
	}
	return nil
}

// unsynced notes that a name is about to change without being synced. The lock is held.
func (s *Store) unsynced(name string) {
	if _, noted := s.volatile.before[name]; !noted {
		s.volatile.before[name] = s.at(name)
	}
}

// synced notes that a folder was synced, the one of that name. The lock is held.
func (s *Store) synced(name string) {
	folder := path.Dir(name)
	maps.DeleteFunc(s.volatile.before, func(other string, _ *object) bool { return path.Dir(other) == folder })
}

// interrupt finds out what the call that the crash interrupts would have left, without leaving it. The lock is held.
func (s *Store) interrupt(op Op, name string, do func() error) {
	if op != OpPut && op != OpCommit && op != OpOverwrite && op != OpDelete {
		return
	}
	objects, listed, pending, counts, before := s.objects, s.listed, s.pending, s.counts, s.volatile.before
	space := s.script.space
	s.objects, s.listed, s.counts, s.volatile.before = maps.Clone(objects), maps.Clone(listed), maps.Clone(counts), maps.Clone(before)
	s.pending = slices.Clone(pending)
	if do() == nil {
		s.volatile.inFlight = &interrupted{name: name, after: s.at(name)}
	}
	s.objects, s.listed, s.pending, s.counts, s.volatile.before = objects, listed, pending, counts, before
	s.script.space = space
}
