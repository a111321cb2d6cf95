package repo_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// A call of the storage that takes hours ends neither the lease nor the hold of whoever waits for it: both are renewed meanwhile.

// storeWith is a store with points. What a program makes once, as codecs, was made outside of any bubble.
func storeWith(t *testing.T, points []*sourcetest.Point) *memory.Store {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	closeRepo(t, r)
	r = must(openSmall(t.Context(), store.Clone(), ""))(t)
	compact(t, r, repo.CompactOptions{})
	reclaim(t, r, atOnce())
	check(t, r, points...)
	closeRepo(t, r)
	return store
}

func TestLeaseLastsThroughASlowCall(t *testing.T) {
	points := manyStates(6, 24)
	base := storeWith(t, points)
	synctest.Test(t, func(t *testing.T) {
		store := base.Clone()
		r, other := must(openSmall(t.Context(), store, ""))(t), must(openSmall(t.Context(), store, ""))(t)
		defer closeRepo(t, r)
		defer closeRepo(t, other)
		var slow atomic.Bool
		store.SetFault(func(op memory.Op, name string) error {
			if op == memory.OpCommit && strings.HasPrefix(name, "packs/") && slow.CompareAndSwap(false, true) {
				time.Sleep(3 * time.Hour)
			}
			return nil
		})
		done := make(chan error, 1)
		go func() {
			_, err := r.Compact(context.Background(), repo.CompactOptions{Codec: repo.CodecZstd})
			done <- err
		}()
		for range 5 { // half an hour apart
			time.Sleep(30 * time.Minute)
			var inUse *repo.InUseError
			if _, err := other.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); !errors.As(err, &inUse) {
				t.Errorf("beside one that waits for the storage: %v", err)
			}
		}
		if err := <-done; err != nil || !slow.Load() {
			t.Errorf("%v; a call was slow: %v", err, slow.Load())
		}
		reclaim(t, other, atOnce())
		check(t, other, points...)
	})
}

func TestHoldLastsThroughASlowRead(t *testing.T) {
	points := manyStates(2, 12)
	base := storeWith(t, points)
	synctest.Test(t, func(t *testing.T) {
		store := base.Clone()
		reader, other := must(openSmall(t.Context(), store, ""))(t), must(openSmall(t.Context(), store, ""))(t)
		defer closeRepo(t, reader)
		defer closeRepo(t, other)
		release := must(reader.KeepHeld(t.Context(), points[0].ID(), "restore"))(t)
		time.Sleep(5 * time.Hour) // as a read may that the storage answers late
		given := must(other.Forget(t.Context(), "manual", []repo.Forgetting{{Point: points[0].ID()}}, nil))(t)
		reclaim(t, other, atOnce())
		if given[0].Removed || !other.Has(points[0].ID()) {
			t.Errorf("removed while it is read: %+v", given[0])
		}
		if err := compare(t.Context(), reader, points[0]); err != nil {
			t.Error(err)
		}
		release()
		reclaim(t, other, atOnce())
		if other.Has(points[0].ID()) {
			t.Error("it stays though nobody reads it any more")
		}
		check(t, other, points...)
	})
}
