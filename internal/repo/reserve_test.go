package repo_test

import (
	"errors"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage"
)

// Points are given up, and space given back, in a storage without a byte left, if there is a reserve.
func TestGivingUpWithoutSpace(t *testing.T) {
	for _, reserved := range []bool{false, true} {
		store := initialized(t, repo.Options{})
		r := must(openSmall(t.Context(), store, ""))(t)
		defer closeRepo(t, r)
		points := threeMachines()
		mustCopyAll(t, r, points...)
		if reserved {
			for range 2 {
				if err := r.Reserve(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		store.SetSpace(0)
		_, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: points[0].ID(), Reason: "a test"}}, nil)
		if reserved == (err != nil) || err != nil && !errors.Is(err, storage.ErrFull) {
			t.Fatalf("reserved: %v, %v", reserved, err)
		}
		if !reserved {
			continue
		}
		if r.Has(points[0].ID()) || len(store.Names("marks/reserve-")) > 0 {
			t.Errorf("%v are left of the reserve", store.Names("marks/reserve-"))
		}
		policy := repo.DefaultReclaimPolicy()
		policy.Grace = 0
		for range 2 {
			must(r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: policy}))(t)
		}
		check(t, r, points[1:]...)
	}
}
