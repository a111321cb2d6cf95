package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"ferry/internal/repo"
)

// Listings that show nothing of what happens, or show it late, mislead nobody: not the task, nor the next processes.
func TestEveryTaskWithStaleListings(t *testing.T) {
	all := tasks(t)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		for _, lag := range []int{1, 4, 15, -1} {
			t.Run(fmt.Sprint(what, lag), func(t *testing.T) {
				t.Parallel()
				all[what].stale(t, lag)
			})
		}
	}
}

func (k task) stale(t *testing.T, lag int) {
	at := k.place(t, true)
	at.store.SetListingLag(lag)
	var beside sync.WaitGroup
	if !k.exclusive && !k.shut {
		// A reclaim of another machine sees files that are named only now.
		beside.Go(func() { reclaimBeside(t, at.forgetful()) })
	}
	err := k.perform(t.Context(), t, at, func() {})
	beside.Wait()
	var inUse *repo.InUseError
	if err != nil && !errors.As(err, &inUse) && !errors.Is(err, repo.ErrCondemned) {
		t.Error(err)
	}
	k.look(t, at, err == nil, func(*repo.Repository) {})
	at.store.Settle()
	k.left(t, at.copied(), err == nil, true)
}

// reclaimBeside reclaims in a process of its own, whoever else does.
func reclaimBeside(t *testing.T, at place) {
	r, err := at.open(context.Background())
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	defer closeRepo(t, r)
	r.IgnoreLease()
	if _, err := r.Reclaim(context.Background(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); err != nil {
		t.Errorf("reclaim: %v", err)
	}
}
