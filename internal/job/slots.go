package job

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Slots are how much may run at once: so many machines in all, and so many in each repository that says so. Sessions share them.
//
// Who waits first is served first, as far as there is a slot for it: one that waits for a repository with many waiting keeps
// nobody from another repository.
type Slots struct {
	mu sync.Mutex
	// all is the limit in all, 0 for none; users are the jobs that have slots, once for each, by repository, and in all under the empty
	// name.
	all     int
	users   map[string][]string
	waiting []*waiter
	// lent are the jobs whose slots others may take as well: what they were given for stands still.
	lent map[string]bool
}

// limits are the repositories that a machine is copied between, and how many may be worked on in each at once; 0: any number.
type limits map[string]int

// waiter is a job that waits for a slot, for one of its machines.
type waiter struct {
	of string
	// choices are where a slot would do, what is preferred first; chosen is where it has one.
	choices []limits
	chosen  int
	// had is closed when the slot is the waiter's.
	had chan struct{}
}

// NewSlots makes slots for so many machines in all, 0 for any number.
func NewSlots(all int) *Slots {
	return &Slots{all: all, users: map[string][]string{}, lent: map[string]bool{}}
}

// atOnce is how many of some machines may be copied at once.
func (s *Slots) atOnce(machines int) int {
	machines = min(machines, mostAtOnce)
	if s.all > 0 {
		machines = min(machines, s.all)
	}
	return machines
}

// take takes a slot for a machine of a job, in the first of the choices in which there is one. If there is none it calls
// wait, and returns when there is, or ctx ends.
func (s *Slots) take(ctx context.Context, of string, choices []limits, wait func()) (chosen int, release func(), err error) {
	w := &waiter{of: of, choices: choices, had: make(chan struct{})}
	s.mu.Lock()
	if s.full(w) == "" {
		s.give(w)
		s.mu.Unlock()
		return w.chosen, s.release(w), nil
	}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	wait()
	select {
	case <-w.had:
		return w.chosen, s.release(w), nil
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
	return 0, nil, ctx.Err()
}

// waits says why there is no slot for a job that waits for one; empty: it does not wait.
func (s *Slots) waits(of string) (reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.waiting, func(w *waiter) bool { return w.of == of })
	if at < 0 {
		return ""
	}
	return s.full(s.waiting[at])
}

// wanted is true while another job waits for a slot.
func (s *Slots) wanted(of string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.waiting, func(w *waiter) bool { return w.of != of })
}

// usedByOthers is true while another job copies, and does not stand still.
func (s *Slots) usedByOthers(of string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.users[""], func(user string) bool { return user != of && !s.lent[user] })
}

// full chooses where there is a slot; if there is none it says why there is none where it is preferred. Those who wait had
// theirs, if there was one, when it was given back.
func (s *Slots) full(w *waiter) (reason string) {
	if used := s.taken(""); s.all > 0 && used >= s.all {
		return fmt.Sprintf("no slot: %d of %d machines are copied at once, for %s", used, s.all, names(s.users[""]))
	}
	for i, choice := range w.choices {
		name := s.fullRepository(choice)
		if name == "" {
			w.chosen = i
			return ""
		}
		if reason == "" {
			reason = fmt.Sprintf("no slot: %d of %d machines are worked on in repository %s, for %s", s.taken(name), choice[name], name, names(s.users[name]))
		}
	}
	return reason
}

// fullRepository is one that has no slot left; empty: all have one.
func (s *Slots) fullRepository(in limits) string {
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if in[name] > 0 && s.taken(name) >= in[name] {
			return name
		}
	}
	return ""
}

func (s *Slots) give(w *waiter) {
	for name := range w.choices[w.chosen] {
		s.users[name] = append(s.users[name], w.of)
	}
	s.users[""] = append(s.users[""], w.of)
}

// back gives a slot back, to those who wait.
func (s *Slots) back(w *waiter) {
	for _, name := range append(slices.Collect(maps.Keys(w.choices[w.chosen])), "") {
		at := slices.Index(s.users[name], w.of)
		s.users[name] = slices.Delete(s.users[name], at, at+1)
	}
	s.serve()
}

// taken is how many slots of a repository, or in all, are taken and not lent.
func (s *Slots) taken(name string) int {
	taken := 0
	for _, of := range s.users[name] {
		if !s.lent[of] {
			taken++
		}
	}
	return taken
}

// lend lets others take the slots of a job as well, or no longer. Those that have one by then keep it.
func (s *Slots) lend(of string, lent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lent == s.lent[of] {
		return
	}
	delete(s.lent, of)
	if lent {
		s.lent[of] = true
		s.serve()
	}
}

// serve gives the slots that there are to those who wait.
func (s *Slots) serve() {
	s.waiting = slices.DeleteFunc(s.waiting, func(next *waiter) bool {
		if s.full(next) != "" {
			return false
		}
		s.give(next)
		close(next.had)
		return true
	})
}

func (s *Slots) release(w *waiter) func() {
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
