package repo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// far is a store where each request is a round trip.
type far struct{ *memory.Store }

func (far) ParallelReads() int { return 8 }

// unreadableKey is a source of keys that cannot read any, and counts how often it tries.
type unreadableKey struct{ tries int }

func (k *unreadableKey) Identities(context.Context, repo.KeyRequest) ([]age.Identity, error) {
	k.tries++
	return nil, errInjected
}

func (k *unreadableKey) Kits(context.Context) ([]repo.Kit, []repo.Passphrase, error) {
	k.tries++
	return nil, nil, errInjected
}

func (*unreadableKey) KitPassphrase(context.Context, repo.Kit, []repo.Passphrase) (repo.Passphrase, error) {
	return repo.Passphrase{}, nil
}

// Where each request is a round trip a machine opens a repository by the key file that it knows, and looks at no other; and looks for all
// of them as soon as that does not do: it was removed or damaged, the key is another, or a rotation has begun.
func TestKnownKeyFile(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	setUp := func(t *testing.T) (*memory.Store, string) {
		store, cache := encryptedFor(t, first, second), newCache(t)
		closeRepo(t, must(repo.Open(t.Context(), far{store}, repo.Environment{Keys: keysOf{first}, CacheDir: cache}))(t))
		return store, cache
	}
	// open returns what was looked at, too: how often in keys/ and for lists of key files.
	open := func(t *testing.T, store *memory.Store, cache string, keys repo.KeySource) (r *repo.Repository, looks int, err error) {
		store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
			if strings.HasPrefix(name, "keys/") && op != memory.OpRead || strings.HasPrefix(name, "marks/") {
				looks++
			}
			return nil
		}))
		r, err = repo.Open(t.Context(), far{store}, repo.Environment{Keys: keys, CacheDir: cache})
		store.SetFault(nil)
		if err == nil {
			t.Cleanup(func() { closeRepo(t, r) })
		}
		return r, looks, err
	}
	own := func(t *testing.T, store *memory.Store) string { // the file that first opens
		for _, name := range keyFilesOf(store) {
			without := store.Clone()
			deleteKeys(t, without, []string{name})
			if _, err := repo.Open(t.Context(), without, repo.Environment{Keys: keysOf{first}}); errors.Is(err, repo.ErrWrongKey) {
				return name
			}
		}
		t.Fatal("no key file is the first one's")
		return ""
	}
	t.Run("known", func(t *testing.T) {
		store, cache := setUp(t)
		r, looks, err := open(t, store, cache, keysOf{first})
		if err != nil || r.Locked() || looks != 2 {
			t.Errorf("%d requests, %v", looks, err)
		}
		must(r.AddKey(t.Context(), newHolder(t, "third").to))(t)
		if _, looks, err = open(t, store, cache, keysOf{first}); err != nil || looks != 2 {
			t.Errorf("beside another key: %d requests, %v", looks, err)
		}
	})
	t.Run("another key", func(t *testing.T) {
		store, cache := setUp(t)
		if r, looks, err := open(t, store, cache, keysOf{second}); err != nil || r.Locked() || looks <= 2 {
			t.Errorf("%d requests, %v", looks, err)
		}
		if _, looks, err := open(t, store, cache, keysOf{second}); err != nil || looks != 2 {
			t.Errorf("then: %d requests, %v", looks, err)
		}
		if _, _, err := open(t, store, cache, keysOf{newHolder(t, "stranger")}); !errors.Is(err, repo.ErrWrongKey) {
			t.Errorf("a stranger: %v", err)
		}
	})
	t.Run("no key", func(t *testing.T) { // where none is given, none of the requests could help
		store, cache := setUp(t)
		_, looks, _ := open(t, store, newCache(t), keysOf{})
		if r, known, err := open(t, store, cache, keysOf{}); err != nil || !r.Locked() || known != looks {
			t.Errorf("%d requests, %v, want %d", known, err, looks)
		}
	})
	t.Run("key that cannot be read", func(t *testing.T) {
		store, cache := setUp(t)
		var key unreadableKey // what a person's command prints, perhaps
		if _, looks, err := open(t, store, cache, &key); !errors.Is(err, errInjected) || key.tries != 1 || looks != 0 {
			t.Errorf("tried %d times, %d requests, %v", key.tries, looks, err)
		}
	})
	t.Run("removed", func(t *testing.T) {
		store, cache := setUp(t)
		id := strings.TrimPrefix(own(t, store), "keys/000001-")
		must(openAs(t, store, second).RemoveKey(t.Context(), id))(t)
		if _, _, err := open(t, store, cache, keysOf{first}); !errors.Is(err, repo.ErrWrongKey) {
			t.Errorf("%v", err)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		store, cache := setUp(t)
		tamper(t, store, own(t, store), func(b []byte) []byte { return b[:len(b)-1] })
		if _, _, err := open(t, store, cache, keysOf{first}); !errors.Is(err, repo.ErrWrongKey) || !strings.Contains(err.Error(), "corrupt") {
			t.Errorf("%v", err)
		}
	})
	t.Run("rotated", func(t *testing.T) {
		store, cache := setUp(t)
		must(openAs(t, store, second).RotateKeys(t.Context(), repo.RotateOptions{}))(t)
		if r, _, err := open(t, store, cache, keysOf{first}); err != nil || r.KeyGeneration() != 2 {
			t.Errorf("%v", err)
		}
		if r, looks, err := open(t, store, cache, keysOf{first}); err != nil || looks != 2 || r.KeyGeneration() != 2 {
			t.Errorf("then: %d requests, %v", looks, err)
		}
	})
	t.Run("rotation interrupted", func(t *testing.T) {
		store, cache := setUp(t)
		interruptRotation(t, store, openAs(t, store, second), 1)
		for range 2 { // each time there is something to warn of
			r, _, err := open(t, store, cache, keysOf{first})
			if err != nil || len(r.Warnings()) != 1 || !strings.Contains(r.Warnings()[0], "a rotation left this key out, or was interrupted") {
				t.Fatalf("%v: %q", err, r.Warnings())
			}
		}
	})
}
