package memory

import (
	"slices"
	"strings"
)

// countKey is what calls are counted by.
type countKey struct {
	op   Op
	kind string
}

// count is of calls, whether or not they worked, and of the bytes they moved.
type count struct {
	calls int
	bytes int64
}

// Kind returns the kind of an object that counts are kept by: the first element of its name, as "packs" or "log".
func Kind(name string) string {
	kind, _, _ := strings.Cut(name, "/")
	return kind
}

// Calls returns how many calls there were of an operation, or of all for op "", to objects of the given kinds, or of
// all without any. Calls that failed count too, unless their context or name was bad to begin with.
func (s *Store) Calls(op Op, kinds ...string) int { return s.sum(op, kinds).calls }

// Bytes returns how many bytes were written or read, selected as in Calls. What was written and never committed counts.
func (s *Store) Bytes(op Op, kinds ...string) int64 { return s.sum(op, kinds).bytes }

// ResetCounts begins all counts anew.
func (s *Store) ResetCounts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.counts)
}

func (s *Store) sum(op Op, kinds []string) count {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum count
	for key, c := range s.counts {
		if (op == "" || op == key.op) && (len(kinds) == 0 || slices.Contains(kinds, key.kind)) {
			sum.calls += c.calls
			sum.bytes += c.bytes
		}
	}
	return sum
}

// countCall counts a call. The lock is held.
func (s *Store) countCall(op Op, name string) {
	key := countKey{op, Kind(name)}
	c := s.counts[key]
	c.calls++
	s.counts[key] = c
}

// addBytes counts what a call moved. The lock is held.
func (s *Store) addBytes(op Op, name string, n int) {
	key := countKey{op, Kind(name)}
	c := s.counts[key]
	c.bytes += int64(n)
	s.counts[key] = c
}
