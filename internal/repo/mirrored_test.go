package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// readHeld reads a point as a restore does, and leaves the hold behind if the reader is killed.
func readHeld(t *testing.T, r *repo.Repository, id backup.PointID, killed bool) {
	t.Helper()
	hold, err := r.Hold(t.Context(), id, "restored")
	if err != nil {
		t.Fatal(err)
	}
	if killed {
		return
	}
	if err := hold.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What reads a copy of a repository leaves its hold in it: the repository itself, which lacks that, was not rolled back by this.
// Everything else that a copy got is missed.
func TestReadingACopyDoesNotRollBackTheOriginal(t *testing.T) {
	for _, killed := range []bool{false, true} {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		r := must(openSmall(t.Context(), store, cache))(t)
		p1, p2 := onePoint("a", "1", content(1, 50000)), onePoint("b", "2", content(2, 50000))
		mustCopyAll(t, r, p1)
		closeRepo(t, r)
		before, mirror := store.Clone(), store.Clone()
		id := r.Entries()[0].ID
		for range 3 {
			for _, of := range []*memory.Store{mirror, store} { // in turns, and at last in the mirror
				r = must(openSmall(t.Context(), of, cache))(t)
				if err := r.Diverged(); err != nil {
					t.Fatalf("reader killed %v: %v", killed, err)
				}
				readHeld(t, r, id, killed)
				closeRepo(t, r)
			}
		}
		for range 2 { // the second time by what this machine remembers of the first
			r = must(openSmall(t.Context(), mirror, cache))(t)
			readHeld(t, r, id, killed)
			closeRepo(t, r)
		}

		// Also without the entries that only readers have made.
		r = must(openSmall(t.Context(), before, cache))(t)
		mustCopyAll(t, r, p2)
		check(t, r, p1, p2)
		closeRepo(t, r)
		for what, of := range map[string]*memory.Store{"the mirror": mirror, "the one that lacks what was copied": store} {
			r = must(openSmall(t.Context(), of, cache))(t)
			if !errors.Is(r.Diverged(), repo.ErrDiverged) {
				t.Errorf("reader killed %v: %s is not told from the one that was written to: %v", killed, what, r.Diverged())
			}
			check(t, r, p1)
			closeRepo(t, r)
		}
	}
}

// Readers' holds behind what was written hide nothing of it: a log that loses both was rolled back.
func TestRolledBackBeyondReaders(t *testing.T) {
	for what, write := range map[string]func(t *testing.T, r *repo.Repository, id backup.PointID){
		"a point": func(t *testing.T, r *repo.Repository, _ backup.PointID) {
			mustCopyAll(t, r, onePoint("b", "2", content(2, 50000)))
		},
		"a person's hold": func(t *testing.T, r *repo.Repository, id backup.PointID) {
			if err := r.HoldForPerson(t.Context(), []backup.PointID{id}, "a reason", time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		},
		"the end of a person's hold": func(t *testing.T, r *repo.Repository, id backup.PointID) {
			must(r.ReleaseForPerson(t.Context(), []backup.PointID{id}))(t)
		},
		"a point that was given up": func(t *testing.T, r *repo.Repository, id backup.PointID) {
			must(r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: id}}, nil))(t)
		},
	} {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		r := must(openSmall(t.Context(), store, cache))(t)
		p := onePoint("a", "1", content(1, 50000))
		mustCopyAll(t, r, p, onePoint("c", "3", content(3, 50000)))
		id := r.Entries()[0].ID
		if strings.Contains(what, "the end of") {
			if err := r.HoldForPerson(t.Context(), []backup.PointID{id}, "a reason", time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		id = r.Entries()[1].ID
		readHeld(t, r, id, false)
		older := store.Clone()
		write(t, r, r.Entries()[0].ID)
		readHeld(t, r, id, false)
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, cache))(t) // what it came to is remembered, too
		readHeld(t, r, id, false)
		closeRepo(t, r)
		r = must(openSmall(t.Context(), older, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("%s was lost, and nobody noticed: %v", what, r.Diverged())
		}
		closeRepo(t, r)
	}
}

// A reader's hold may be all that shows that a data key was reached: a log without it would be gone on with by who does not have that.
func TestReaderWhoReachesADataKeyIsMissed(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	store, cache := encryptedFor(t, first, second), newCache(t)
	r := openAs(t, store, first)
	mustCopyAll(t, r, onePoint("a", "1", content(1, 50000)))
	interruptRotation(t, store, r, 1)
	older := store.Clone()
	open := func(of *memory.Store) *repo.Repository {
		r := must(repo.Open(t.Context(), of, repo.Environment{Keys: keysOf{first}, CacheDir: cache}))(t)
		t.Cleanup(func() { closeRepo(t, r) })
		return r
	}
	reader := open(store)
	if reader.KeyGeneration() != 2 {
		t.Fatalf("generation %d", reader.KeyGeneration())
	}
	readHeld(t, reader, reader.Entries()[0].ID, false)
	if err := open(older).Diverged(); !errors.Is(err, repo.ErrDiverged) {
		t.Errorf("the log lost its only MAC of the new key, and nobody noticed: %v", err)
	}
}

// A kit that was made after a restore from a copy fits the original.
func TestKitOfACopyThatWasRead(t *testing.T) {
	h := newHolder(t, "first")
	store := encryptedFor(t, h)
	r := openAs(t, store, h)
	mustCopyAll(t, r, onePoint("a", "1", content(1, 50000)))
	mirror := store.Clone()
	r = openAs(t, mirror, h)
	readHeld(t, r, r.Entries()[0].ID, false)
	r = must(repo.OpenWithKit(t.Context(), store, repo.Environment{}, kitOf(t, r, repo.Passphrase{}), nil))(t)
	defer closeRepo(t, r)
	if warnings := r.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
}

// Where a reader's entry is the end of the log, and is damaged, the machine that made it knows which one it was, as of any other.
func TestReadersEntryIsMended(t *testing.T) {
	store, env := initialized(t, repo.Options{}), repo.Environment{CacheDir: newCache(t)}
	r := must(openSmall(t.Context(), store, env.CacheDir))(t)
	mustCopyAll(t, r, onePoint("a", "1", content(1, 50000)))
	readHeld(t, r, r.Entries()[0].ID, false)
	closeRepo(t, r)
	mirror := store.Clone()
	entries := store.Names("log/")
	tamper(t, store, entries[len(entries)-1], func(b []byte) []byte { return b[:len(b)-1] })
	mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{mirror})
	if err != nil || len(mended) != 1 || differs(store, mirror) {
		t.Errorf("%v, %v", mended, err)
	}
}
