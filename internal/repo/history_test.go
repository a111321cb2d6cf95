package repo_test

import (
	"errors"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// A machine that has seen more of a repository than is there now reads it with a warning and does not write to it.
func TestRolledBackRepository(t *testing.T) {
	for _, seenBy := range []string{"writing", "opening"} {
		store, writer, cache := initialized(t, repo.Options{}), newCache(t), newCache(t)
		p1, p2, p3 := onePoint("a", "1", content(1, 50000)), onePoint("b", "2", content(2, 50000)), onePoint("c", "3", content(3, 50000))
		r := must(openSmall(t.Context(), store, writer))(t)
		mustCopyAll(t, r, p1)
		older := store.Clone()
		mustCopyAll(t, r, p2)
		closeRepo(t, r)
		if seenBy == "writing" {
			cache = writer
		} else {
			closeRepo(t, must(openSmall(t.Context(), store, cache))(t))
		}

		r = must(openSmall(t.Context(), older, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Fatalf("seen by %s: rolled back, and nobody noticed: %v", seenBy, r.Diverged())
		}
		check(t, r, p1)
		if _, err := r.NewIngest(t.Context(), repo.IngestOptions{}); !errors.Is(err, repo.ErrDiverged) {
			t.Errorf("writing to a repository that was rolled back: %v", err)
		}
		entries := len(older.Names(""))
		if _, err := copyAll(t.Context(), r, sourcetest.Open(t, p3)); !errors.Is(err, repo.ErrDiverged) {
			t.Errorf("copying to a repository that was rolled back: %v", err)
		}
		if n := len(older.Names("")); n != entries {
			t.Errorf("%d files were written where nothing may be", n-entries)
		}
		closeRepo(t, r)

		// Looking at it does not make it right; adopting does.
		r = must(openSmall(t.Context(), older, cache))(t)
		if r.Diverged() == nil {
			t.Error("noticed once only")
		}
		if err := r.Adopt(); err != nil {
			t.Fatal(err)
		}
		mustCopyAll(t, r, p3)
		check(t, r, p1, p3)
		closeRepo(t, r)

		// Now the other copy, in which both went on, is the one that differs, though it is as long.
		r = must(openSmall(t.Context(), store, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("forked, and nobody noticed: %v", r.Diverged())
		}
		check(t, r, p1, p2)
		closeRepo(t, r)
	}
}

// Two copies of a repository that both went on, whichever is longer.
func TestForkedRepository(t *testing.T) {
	for more := range 3 {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		r := must(openSmall(t.Context(), store, cache))(t)
		mustCopyAll(t, r, onePoint("a", "1", content(1, 50000)))
		closeRepo(t, r)
		fork := store.Clone()
		other := must(openSmall(t.Context(), fork, ""))(t)
		for i := range more + 1 {
			mustCopyAll(t, other, onePoint("fork", string(rune('x'+i)), content(9, 9000*(i+1))))
		}
		closeRepo(t, other)
		r = must(openSmall(t.Context(), store, cache))(t)
		mustCopyAll(t, r, onePoint("b", "2", content(2, 50000)))
		mustCopyAll(t, r, onePoint("c", "3", content(3, 50000)))
		closeRepo(t, r)
		r = must(openSmall(t.Context(), fork, cache))(t)
		if !errors.Is(r.Diverged(), repo.ErrDiverged) {
			t.Errorf("fork with %d commits of its own: %v", more+1, r.Diverged())
		}
		closeRepo(t, r)
		// A copy that is merely behind what it was copied from, seen by a machine that knows less, is no fork.
		r = must(openSmall(t.Context(), store, newCache(t)))(t)
		if r.Diverged() != nil {
			t.Errorf("seen for the first time: %v", r.Diverged())
		}
		closeRepo(t, r)
	}
}
