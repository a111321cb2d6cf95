package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// retaining is a store that may lock everything by itself, as a bucket does.
type retaining struct {
	*memory.Store
	err           error
	asked, probed atomic.Int64
}

func (s *retaining) CheckRetention(context.Context) error { s.asked.Add(1); return s.err }

func (s *retaining) Probe(context.Context) error { s.probed.Add(1); return s.err }

// Where the storage begins to lock everything by itself, a repository goes on, and whoever writes to it or verifies it is told. A
// copy of nothing new asks nothing.
func TestRetentionSetLater(t *testing.T) {
	store := &retaining{Store: memory.New()}
	options := repo.Options{BlockSize: smallBlock}
	if encryptAll {
		options = encryptedOptions(options)
	}
	closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, options))(t))
	if store.probed.Load() != 1 || store.asked.Load() != 0 {
		t.Errorf("probed %d times, asked %d times", store.probed.Load(), store.asked.Load())
	}
	store.err = &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("it locks everything: %w", storage.ErrUnsuitable), Hint: "clear that"}
	first, second := onePoint("m", "p1", content(1, 9*smallBlock)), onePoint("m", "p2", content(2, 9*smallBlock))
	for _, c := range []struct {
		what  string
		do    func(*repo.Repository) error
		asked int64
	}{
		{"a copy", func(r *repo.Repository) error { mustCopyAll(t, r, first); mustCopyAll(t, r, second); return nil }, 1},
		{"a copy of nothing new", func(r *repo.Repository) error { mustCopyAll(t, r, first, second); return nil }, 0},
		{"a verification", func(r *repo.Repository) error { _, err := r.Verify(t.Context(), nil); return err }, 1},
		{"a check of locks", func(r *repo.Repository) error { _, _, _, err := r.CheckLocks(t.Context()); return err }, 1},
	} {
		r := must(openSmall(t.Context(), store, ""))(t)
		store.asked.Store(0)
		if err := c.do(r); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		told := slices.ContainsFunc(r.Warnings(), func(w string) bool {
			return strings.Contains(w, "it locks everything") && strings.Contains(w, "; clear that")
		})
		if n := store.asked.Load(); n != c.asked || told != (c.asked > 0) {
			t.Errorf("%s: asked %d times, want %d; warnings %v", c.what, n, c.asked, r.Warnings())
		}
		closeRepo(t, r)
	}
}

// A storage is tried out before a repository is made in it, also behind what lets calls go that never answer: so the program opens it.
func TestInitProbesBehindOtherStores(t *testing.T) {
	store := &retaining{Store: memory.New(), err: storage.ErrUnsuitable}
	wrapped := storage.Paced(storage.Answering(store, answer.Of("a test")), nil, nil)
	_, err := repo.Init(t.Context(), wrapped, repo.Environment{}, repo.Options{})
	if names := store.Names(""); !errors.Is(err, storage.ErrUnsuitable) || len(names) > 0 {
		t.Errorf("%v; it has %v", err, names)
	}
}
