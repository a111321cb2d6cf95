package repo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// interruptedStore is a storage whose user is interrupted while an entry of the log is being written, and whose answer is
// that of one who was: the entry is there all the same.
type interruptedStore struct {
	*memory.Store
	interrupt func()
	happened  bool
}

func (s *interruptedStore) Put(ctx context.Context, name string, content []byte) error {
	err := s.Store.Put(ctx, name, content)
	if err == nil && s.interrupt != nil && strings.HasPrefix(name, "log/") && strings.Contains(string(content), `"condemned"`) {
		s.happened = true
		s.interrupt()
		s.interrupt = nil
		return errors.New("the connection was closed")
	}
	return err
}

// What a commit that was interrupted may have named stays: the packs that live content was moved to above all.
func TestReclaimInterruptedInItsCommit(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	if _, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: points[0].ID()}}, nil); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	options := repo.ReclaimOptions{TempDir: t.TempDir(), Policy: repo.DefaultReclaimPolicy()}
	options.Policy.Grace = 0
	happened := 0
	for range 8 { // each entry that condemns in turn
		ctx, interrupt := context.WithCancel(t.Context())
		interrupted := &interruptedStore{Store: store, interrupt: interrupt}
		r := must(openSmall(t.Context(), interrupted, ""))(t)
		_, _ = r.Reclaim(ctx, options) // interrupted or done
		interrupt()
		closeRepo(t, r)
		if interrupted.happened {
			happened++
		}
		again := must(openSmall(t.Context(), store, ""))(t)
		check(t, again, points[1:]...)
		closeRepo(t, again)
	}
	if happened == 0 {
		t.Fatal("nothing was interrupted")
	}
	last := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, last)
	if _, err := last.Reclaim(t.Context(), options); err != nil {
		t.Errorf("reclaim afterwards: %v", err)
	}
	check(t, last, points[1:]...)
}
