package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// slots are how much may run at once: so many copies in all, and so many in each repository that says so.
//
// Who waits first is served first, as far as there is a slot for it: one that waits for a repository with many waiting keeps
// nobody from another repository.
type slots struct {
	mu sync.Mutex
	// all is the limit in all, 0 for none; used counts what is taken by repository, and in all under the empty name.
	all  int
	used map[string]int
	// users are the jobs that have slots, by repository, for messages.
	users   map[string][]string
	waiting []*waiter
}

// waiter is somebody who waits for a slot.
type waiter struct {
	of     string
	limits map[string]int
	// had is closed when the slot is the waiter's.
	had chan struct{}
}

func newSlots(all int) *slots {
	return &slots{all: all, used: map[string]int{}, users: map[string][]string{}}
}

// take takes a slot for a copy of a job in repositories with the limits given, 0 for none. release is nil if there is none and wait
// is nil; else wait is told why nothing could be had at once, and take returns when there is a slot, or ctx ends.
func (s *slots) take(ctx context.Context, of string, limits map[string]int, wait func(reason string)) (release func(), err error) {
	w := &waiter{of: of, limits: limits, had: make(chan struct{})}
	s.mu.Lock()
	reason := s.full(w)
	if reason == "" {
		s.give(w)
		s.mu.Unlock()
		return s.release(w), nil
	}
	if wait == nil {
		s.mu.Unlock()
		return nil, nil
	}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	wait(reason)
	select {
	case <-w.had:
		return s.release(w), nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.Index(s.waiting, w)
	if at < 0 { // it was given at this very moment
		s.back(w)
	} else {
		s.waiting = slices.Delete(s.waiting, at, at+1)
	}
	return nil, ctx.Err()
}

// full says why there is no slot; empty: there is one. Those who wait had theirs, if there was one, when it was given back.
func (s *slots) full(w *waiter) string {
	if s.all > 0 && s.used[""] >= s.all {
		return fmt.Sprintf("no slot: %d of %d machines are copied at once, for %s", s.used[""], s.all, names(s.users[""]))
	}
	for name, limit := range w.limits {
		if limit > 0 && s.used[name] >= limit {
			return fmt.Sprintf("no slot: %d of %d machines are worked on in repository %s, for %s", s.used[name], limit, name, names(s.users[name]))
		}
	}
	return ""
}

func (s *slots) give(w *waiter) {
	for name := range w.limits {
		s.used[name]++
		s.users[name] = append(s.users[name], w.of)
	}
	s.used[""]++
	s.users[""] = append(s.users[""], w.of)
}

// back gives a slot back, and gives what there is to those who wait.
func (s *slots) back(w *waiter) {
	for _, name := range append(slices.Collect(maps.Keys(w.limits)), "") {
		s.used[name]--
		at := slices.Index(s.users[name], w.of)
		s.users[name] = slices.Delete(s.users[name], at, at+1)
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(next *waiter) bool {
		if s.full(next) != "" {
			return false
		}
		s.give(next)
		close(next.had)
		return true
	})
}

func (s *slots) release(w *waiter) func() {
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.back(w)
	})
}

// names joins the names of jobs, each once.
func names(jobs []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(jobs))), ", ")
}
