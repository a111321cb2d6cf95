package repo_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// distantPartials is a store whose partials take a while to come, and which counts them.
type distantPartials struct {
	*memory.Store
	mu sync.Mutex
	// inside are on their way, most were at once.
	inside, most int
	reads        map[string]int
}

func (s *distantPartials) ParallelReads() int { return 8 }

func newDistantPartials(store *memory.Store) *distantPartials {
	s := &distantPartials{Store: store, reads: map[string]int{}}
	store.SetFault(func(op memory.Op, name string) error {
		if op != memory.OpOpen || !strings.HasPrefix(name, "partials/") {
			return nil
		}
		s.mu.Lock()
		s.inside++
		s.most = max(s.most, s.inside)
		s.reads[name]++
		s.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
		s.mu.Lock()
		s.inside--
		s.mu.Unlock()
		return nil
	})
	return s
}

// unfinishedAtOnce leaves copies of three machines unfinished, each of which has many partials.
func unfinishedAtOnce(t *testing.T) *memory.Store {
	t.Helper()
	store := initialized(t, repo.Options{})
	points := machinesAtOnce()
	for _, p := range points {
		p.Revalidated = errInjected
	}
	if s := sessionAtOnce(t, store, points); s.Copied() > 0 {
		t.Fatalf("%d points were copied", s.Copied())
	}
	return store
}

// What unfinished copies left is read ahead from a distant storage: as many at once as pay off, also where several copies go on at
// once, and each once. Of a copy that is not gone on with the first alone is read.
func TestPartialsAreReadAhead(t *testing.T) {
	base := unfinishedAtOnce(t)
	r := must(openSmall(t.Context(), base, ""))(t)
	all := 0
	for _, parts := range r.State().Partials {
		if all += len(parts); len(parts) < 10 {
			t.Fatalf("%d partials", len(parts))
		}
	}
	closeRepo(t, r)
	synctest.Test(t, func(t *testing.T) {
		store := newDistantPartials(base.Clone())
		points := machinesAtOnce()
		began := time.Now()
		if s := sessionAtOnce(t, store, points); s.Copied() != len(points) {
			t.Fatalf("%s: %v", s.Result, s.Err)
		}
		for _, p := range points {
			if p.Read.Load() > 0 {
				t.Errorf("%d bytes of %s were read", p.Read.Load(), p.Machine.Name)
			}
		}
		for name, n := range store.reads {
			if n > 1 && !strings.HasSuffix(name, "-00000000") { // the first is asked before, whether the copy can go on
				t.Errorf("%s was read %d times", name, n)
			}
		}
		// The first of another copy may come on top.
		if wanted := len(store.reads); store.most < 8 || store.most > 8+len(points)-1 || wanted != all || time.Since(began) > time.Duration(wanted)*50*time.Millisecond/3 {
			t.Errorf("%d of %d at once, of %d in all, in %s", store.most, wanted, all, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		store := newDistantPartials(base.Clone())
		r := must(openSmall(t.Context(), store, ""))(t)
		defer closeRepo(t, r)
		p := machinesAtOnce()[0]
		p.Validator = []byte("another")
		if mustCopyAll(t, r, p); len(store.reads) != 1 || p.Read.Load() != twoDisks {
			t.Errorf("%v were read for a point that has changed, and %d bytes", store.reads, p.Read.Load())
		}
	})
}

// That a part cannot be read, or is too large to be read ahead, costs nothing but its own blocks; and when it is stopped nothing is
// left under way.
func TestPartialsThatCannotBeReadAhead(t *testing.T) {
	base := unfinishedAtOnce(t)
	r := must(openSmall(t.Context(), base, ""))(t)
	defer closeRepo(t, r)
	for what, spoil := range map[string]func(*memory.Store, string) error{
		"lost": func(s *memory.Store, name string) error { return s.Delete(t.Context(), name) },
		"damaged": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { b[40] ^= 1; return b })
		},
		"large": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { return append(b, make([]byte, 3<<20)...) })
		},
	} {
		store := base.Clone()
		for _, parts := range r.State().Partials {
			if err := spoil(store, parts[len(parts)/2].File); err != nil {
				t.Fatal(err)
			}
		}
		points := machinesAtOnce()
		distant := newDistantPartials(store)
		if s := sessionAtOnce(t, distant, points); s.Copied() != len(points) {
			t.Errorf("%s: %s %v", what, s.Result, s.Err)
		}
		for _, p := range points {
			if read := p.Read.Load(); read == 0 || read > smallPack+smallBlock {
				t.Errorf("%s: %d bytes of %s were read", what, read, p.Machine.Name)
			}
		}
	}
}
