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
// name, as a bad file system leaves it. The rest of the task goes on with that, unless it fails, too. torn is its name; empty if there
// were fewer.
func tearing(store *memory.Store, n int, fails bool, part func(size int) int) (torn func() string) {
	var mu sync.Mutex
	count, pending, done := 0, "", ""
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
		if writes(op, name) {
			mu.Lock()
			defer mu.Unlock()
			if count++; count == n {
				pending = name
				if fails {
					return memory.Applied(errInjected)
				}
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

// writes is true for a call that writes a file which is more than a hint.
func writes(op memory.Op, name string) bool {
	return (op == memory.OpPut || op == memory.OpCommit || op == memory.OpOverwrite) && !strings.HasPrefix(name, "marks/")
}

// A file of which only a part arrived, whichever task wrote it, is detected by each reader: nobody gets wrong bytes of it, the errors say
// that something is damaged, and verification names it unless it harms nobody.
func TestEveryReaderDetectsTornWrites(t *testing.T) {
	random := seeded(t)
	all := tasks(t)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		k := all[what]
		at := k.place(t, true)
		var count atomic.Int64
		err := k.perform(t.Context(), t, at, func() {
			at.store.SetFault(func(op memory.Op, name string) error {
				if writes(op, name) {
					count.Add(1)
				}
				return nil
			})
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %d writes", what, count.Load())
		for _, n := range moments(random, count.Load(), strings.HasPrefix(what, "key ")) {
			share := random.IntN(4)
			part := func(size int) int { return []int{0, size / 2, size * 9 / 10, size - 1}[share] }
			for _, fails := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%d/%v", what, n, share, fails), func(t *testing.T) {
					t.Parallel()
					k.torn(t, int(n), fails, part)
				})
			}
		}
	}
}

// torn does the task while a file is torn, and reads what is left in all ways.
func (k task) torn(t *testing.T, n int, fails bool, part func(size int) int) {
	at, torn := k.place(t, true), func() string { return "" }
	store := at.store
	err := k.perform(context.Background(), t, at, func() { torn = tearing(store, n, fails, part) })
	name := torn()
	if name == "" || !slices.Contains(store.Names(""), name) {
		return // it is gone again
	}
	if err != nil && !explained(err, true) && !errors.Is(err, repo.ErrCondemned) && !(fails && errors.Is(err, errInjected)) {
		t.Errorf("%s, the task itself: %v", name, err)
	}
	folder, _, _ := strings.Cut(name, "/")
	if next := at.copied(); fails && folder == "jobs" { // what is torn is told of until the next record takes its place
		if err := k.again(t, next); err != nil {
			t.Errorf("the next time: %v", err)
		}
		k.look(t, next, true, func(*repo.Repository) {})
	} else if fails && folder != "log" && folder != "keys" { // those are told of until a person does something
		k.left(t, next, err == nil && !k.damaged, true)
	}
	r, err := at.forgetful().open(context.Background())
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
		harmed = harmed || err != nil && !(fails && (k.damaged || k.shut))
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
