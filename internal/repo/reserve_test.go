package repo_test

import (
	"errors"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
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

// growing is a store that ends at a quota, if at all.
type growing struct{ *memory.Store }

func (growing) GrowsOnDemand() bool { return true }

// Whether space is kept depends on whether the storage can end, and not on how far away it is.
func TestReserveIsWhereStorageEnds(t *testing.T) {
	memories := []*memory.Store{initialized(t, repo.Options{}), initialized(t, repo.Options{}), initialized(t, repo.Options{})}
	for i, c := range []struct {
		store storage.Store
		want  bool
	}{{memories[0], true}, {newDistant(memories[1]), true}, {growing{memories[2]}, false}} {
		r := must(openSmall(t.Context(), c.store, ""))(t)
		if err := r.Reserve(t.Context()); err != nil {
			t.Fatal(err)
		}
		closeRepo(t, r)
		if there := len(memories[i].Names("marks/reserve-")); there > 0 != c.want {
			t.Errorf("%T: %d files in reserve", c.store, there)
		}
	}
}
