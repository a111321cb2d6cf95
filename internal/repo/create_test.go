package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// Whichever call fails while an encrypted repository is made, and whether it took effect or not: then there is none and
// another try makes one, or there is one and the key opens it. Never one without a key.
func TestInitFailingAtEveryCall(t *testing.T) {
	for _, fails := range []error{errInjected, memory.Applied(errInjected), memory.Applied(storage.ErrExists)} {
		for failing := 1; ; failing++ {
			store, calls := memory.New(), 0
			store.SetFault(memory.InTurn(func(memory.Op, string) error {
				if calls++; calls == failing {
					return fails
				}
				return nil
			}))
			options := encryptedOptions(repo.Options{BlockSize: smallBlock})
			r, err := repo.Init(t.Context(), store, repo.Environment{}, options)
			store.SetFault(nil)
			if err == nil {
				closeRepo(t, r)
			}
			_, statErr := store.Stat(t.Context(), format.DescriptionName)
			if errors.Is(statErr, storage.ErrNotExist) {
				if r, err = repo.Init(t.Context(), store, repo.Environment{}, options); err != nil {
					t.Fatalf("call %d: another try: %v", failing, err)
				}
				closeRepo(t, r)
			}
			r, err = openSmall(t.Context(), store, "")
			if err != nil || r.Locked() {
				t.Fatalf("call %d, %v: the repository that is there opens with %v", failing, fails, err)
			}
			mustCopyAll(t, r, onePoint("web", "w1", content(96, 3*smallBlock)))
			closeRepo(t, r)
			if calls < failing {
				break
			}
		}
	}
}

// Making a repository where there is one leaves no key files in it. Lists of them may stay: their numbers are never used again.
func TestInitOverAnother(t *testing.T) {
	filesOf := func(store *memory.Store) string {
		return strings.Join(slices.DeleteFunc(store.Names(""), func(name string) bool { return strings.HasPrefix(name, "marks/keys-") }), " ")
	}
	for _, there := range []repo.Options{{BlockSize: smallBlock}, encryptedOptions(repo.Options{BlockSize: smallBlock})} {
		store := memory.New()
		closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, there))(t))
		before := filesOf(store)
		for _, lost := range []bool{false, true} { // another process may be just as fast
			store.SetFault(func(op memory.Op, name string) error {
				if lost && op == memory.OpStat && name == format.DescriptionName {
					return storage.ErrNotExist
				}
				return nil
			})
			if _, err := repo.Init(t.Context(), store, repo.Environment{}, encryptedOptions(repo.Options{})); !errors.Is(err, repo.ErrExists) {
				t.Errorf("%v", err)
			}
			store.SetFault(nil)
			if after := filesOf(store); after != before {
				t.Errorf("left behind: %s, before %s", after, before)
			}
		}
	}
}
