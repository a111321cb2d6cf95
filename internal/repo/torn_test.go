package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// tearing makes a store tear the n-th file that is written: it says that the file is there, and a part of it is, under its final
// name, as a bad file system leaves it. The rest of the task goes on with that. torn is its name; empty if there were fewer.
func tearing(store *memory.Store, n int, part func(size int) int) (torn func() string) {
	var mu sync.Mutex
	writes, pending, done := 0, "", ""
	tear := func() {
		mu.Lock()
		name := pending
		pending = ""
		mu.Unlock()
		if name == "" {
			return
		}
		if store.Tamper(name, func(b []byte) []byte { return b[:part(len(b))] }) == nil {
			mu.Lock()
			done = name
			mu.Unlock()
		}
	}
	store.SetFault(func(op memory.Op, name string) error {
		tear() // what the call before has written
		if op == memory.OpPut || op == memory.OpCommit {
			mu.Lock()
			defer mu.Unlock()
			if writes++; writes == n {
				pending = name
			}
		}
		return nil
	})
	return func() string {
		tear()
		store.SetFault(nil)
		return done
	}
}

// A file of which only a part arrived, whichever task wrote it, is detected by each reader: nobody gets wrong bytes of it, the errors say
// that something is damaged, and verification names it unless it harms nobody.
func TestEveryReaderDetectsTornWrites(t *testing.T) {
	random := seeded(t)
	all := tasks(t)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		k := all[what]
		store, donor := k.clone()
		var writes atomic.Int64
		store.SetFault(func(op memory.Op, _ string) error {
			if op == memory.OpPut || op == memory.OpCommit {
				writes.Add(1)
			}
			return nil
		})
		if err := k.perform(t.Context(), t, store, donor, newCache(t)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, n := range moments(random, writes.Load()) {
			share := random.IntN(4)
			t.Run(fmt.Sprintf("%s/%d/%d", what, n, share), func(t *testing.T) {
				t.Parallel()
				k.torn(t, int(n), func(size int) int { return []int{0, size / 2, size * 9 / 10, size - 1}[share] })
			})
		}
	}
}

// torn does the task while a file is torn, and reads what is left in all ways.
func (k task) torn(t *testing.T, n int, part func(size int) int) {
	store, donor := k.clone()
	torn := tearing(store, n, part)
	cache := newCache(t)
	err := k.perform(context.Background(), t, store, donor, cache)
	name := torn()
	if name == "" || strings.HasPrefix(name, "marks/") || !slices.Contains(store.Names(""), name) {
		return // a hint, or it is gone again
	}
	if err != nil && !explained(err, true) && !errors.Is(err, repo.ErrCondemned) {
		t.Errorf("%s, the task itself: %v", name, err)
	}
	r, err := openSmall(context.Background(), store, "")
	if err != nil {
		if !explained(err, true) && !errors.Is(err, repo.ErrForged) && !errors.Is(err, repo.ErrWrongKey) {
			t.Errorf("%s: it does not open, and no word of damage: %v", name, err)
		}
		return
	}
	defer closeRepo(t, r)
	harmed := false
	for _, p := range slices.Concat(k.kept, k.goes, k.comes) {
		if !r.Has(p.ID()) {
			continue
		}
		err := compare(context.Background(), r, p)
		var wrong *wrongBytes
		if errors.As(err, &wrong) {
			t.Errorf("%s: wrong bytes without a word: %v", name, err)
		} else if err != nil && !explained(err, true) {
			t.Errorf("%s: restoring: %v", name, err)
		}
		harmed = harmed || err != nil
	}
	found := must(r.Verify(context.Background(), nil))(t)
	told := slices.ContainsFunc(slices.Concat(found.Damage, found.Healed), func(d repo.Damage) bool { return d.File == name })
	if told || slices.Contains(found.Remade, name) || len(r.Warnings()) > 0 && strings.HasPrefix(name, "checkpoints/") {
		return
	}
	pending := strings.HasPrefix(name, "packs/") && found.Pending > 0
	if harmed || !pending && len(found.Damage)+len(found.Healed)+len(found.Remade) == 0 && isNamed(t, r, name) {
		t.Errorf("%s is torn, and verify says nothing of it: %+v", name, found)
	}
}

// isNamed is true if the log, or a key file's own name, says what a file must hold.
func isNamed(t *testing.T, r *repo.Repository, name string) bool {
	state := r.State()
	base := name[strings.LastIndex(name, "/")+1:]
	for id := range state.Packs.All() {
		if strings.HasSuffix(base, id.String()) && !state.Condemned[id] {
			return true
		}
	}
	for id := range state.Index {
		if id.String() == base {
			return true
		}
	}
	for p := range state.Points.All() {
		if p.File() == name {
			return true
		}
	}
	keys, err := r.ListKeys(context.Background()) // but leftovers
	if err != nil && !errors.Is(err, repo.ErrNotEncrypted) {
		t.Error(err)
	}
	return strings.HasPrefix(name, "log/") || slices.ContainsFunc(keys, func(key repo.Key) bool { return strings.Contains(name, key.ID) })
}
