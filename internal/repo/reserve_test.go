package repo_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// fullBut lets a store have no space to create files of a folder for as long as more pieces of the reserve than so many are there.
func fullBut(store *memory.Store, folder string, leave int) {
	store.SetFault(func(op memory.Op, name string) error {
		if (op == memory.OpCreate || op == memory.OpPut) && strings.HasPrefix(name, folder) && len(store.Names("marks/reserve-")) > leave {
			return fmt.Errorf("writing %s: %w", name, storage.ErrFull)
		}
		return nil
	})
}

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

// What is needed is moved with the space of the reserve, in the run that found no other. A piece is left for log entries.
func TestMovingUsesTheReserve(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	kept, shared := onePoint("b", "b", content(2, 3*smallBlock)), onePoint("c", "c", content(3, 60*smallBlock))
	mustCopyAll(t, r, kept, shared)
	forget(t, r, shared)
	if err := r.Reserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	fullBut(store, "packs/", 1)
	report := reclaim(t, r, atOnce())
	if report.Moved.Packs == 0 || report.Written.Packs == 0 || report.Stopped != "" {
		t.Errorf("%+v", report)
	}
	if left := store.Names("marks/reserve-"); len(left) != 1 {
		t.Errorf("%v are left of the reserve", left)
	}
	reclaim(t, r, atOnce())
	check(t, r, kept)
}

// A pack that no entry could name for want of space takes none: it may be all that is left for entries. In a bucket the entry
// may still come to be there, so the pack waits for a run that finds nobody names it.
func TestWhatCannotBeNamedTakesNoSpace(t *testing.T) {
	for bucket, left := range map[bool]int{false: 0, true: 1} {
		store := initialized(t, repo.Options{})
		var medium storage.Store = store
		if bucket {
			medium = growing{store}
		}
		r := must(openSmall(t.Context(), medium, ""))(t)
		kept, shared := onePoint("b", "b", content(2, 3*smallBlock)), onePoint("c", "c", content(3, 60*smallBlock))
		mustCopyAll(t, r, kept, shared)
		forget(t, r, shared)
		before := len(store.Names("packs/"))
		moving := false
		store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
			moving = moving || op == memory.OpCreate && strings.HasPrefix(name, "packs/")
			if moving && strings.HasPrefix(name, "log/") && op == memory.OpPut {
				return storage.ErrFull
			}
			return nil
		}))
		report := reclaim(t, r, atOnce())
		if added := len(store.Names("packs/")) - before; added != left || report.Written.Packs > 0 || !strings.Contains(report.Stopped, "full") {
			t.Errorf("bucket %v: %d packs more, %+v", bucket, added, report)
		}
		store.SetFault(nil)
		for range 3 {
			reclaim(t, r, atOnce())
			check(t, r, kept)
		}
		if files := len(store.Names("packs/")); files != r.State().Packs.Len() {
			t.Errorf("bucket %v: %d packs of %d", bucket, r.State().Packs.Len(), files)
		}
		closeRepo(t, r)
	}
}

// A run that needs the reserve for its log entries is one run: what was given up before waits for the next.
func TestTheReserveMakesNoSecondRun(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	goes, stays := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
	mustCopyAll(t, r, goes)
	before := packsOf(r)
	mustCopyAll(t, r, stays)
	forget(t, r, goes)
	condemn(t, store, commitlog.Payload{Condemned: before})
	garbage := "packs/00/00112233445566778899aabbccddeeff"
	if err := errors.Join(r.Reserve(t.Context()), store.Put(t.Context(), garbage, []byte("left over"))); err != nil {
		t.Fatal(err)
	}
	fullBut(store, "log/", 0)
	report := reclaim(t, r, atOnce())
	if report.Deleted.Packs > 0 || report.Waiting.Packs != len(before)+1 || report.Garbage.Packs != 1 || report.Stopped != "" {
		t.Errorf("%+v", report)
	}
	if left := store.Names("marks/reserve-"); len(left) > 0 {
		t.Errorf("%v are left of the reserve", left)
	}
	if report = reclaim(t, r, atOnce()); report.Deleted.Packs == 0 {
		t.Errorf("the next run deleted nothing: %+v", report)
	}
	check(t, r, stays)
}

// What two runs have to see to delete anything is remembered with the space of the reserve, too.
func TestRunsRememberWithTheReserve(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	goes := onePoint("a", "a", content(1, 20*smallBlock))
	mustCopyAll(t, r, goes)
	forget(t, r, goes)
	reclaim(t, r, atOnce())
	if err := r.Reserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOverwrite && name == "marks/reclaim" && len(store.Names("marks/reserve-")) > 0 {
			return storage.ErrFull
		}
		return nil
	})
	deleted := 0
	for range 2 {
		deleted += reclaim(t, r, atOnce()).Deleted.Packs
	}
	if deleted == 0 || len(r.Warnings()) > 0 {
		t.Errorf("%d packs deleted, warnings %q", deleted, r.Warnings())
	}
}
