package repo_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// atOnce gives up and deletes without grace.
func atOnce() repo.ReclaimPolicy {
	policy := repo.DefaultReclaimPolicy()
	policy.Grace = 0
	return policy
}

func reclaim(t testing.TB, r *repo.Repository, policy repo.ReclaimPolicy) *repo.ReclaimReport {
	t.Helper()
	report, err := r.Reclaim(context.Background(), repo.ReclaimOptions{Policy: policy, TempDir: scratch})
	if err != nil {
		t.Fatalf("reclaim: %v", err)
	}
	return report
}

func forget(t testing.TB, r *repo.Repository, points ...*sourcetest.Point) {
	t.Helper()
	var all []repo.Forgetting
	for _, p := range points {
		all = append(all, repo.Forgetting{Point: p.ID()})
	}
	done, err := r.Forget(context.Background(), "manual", all)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range done {
		if !d.Removed {
			t.Fatalf("not removed: %+v", d)
		}
	}
}

func bytesOf(t testing.TB, store *memory.Store, folder string) int64 {
	total := int64(0)
	for _, name := range store.Names(folder) {
		total += must(store.Stat(context.Background(), name))(t).Size
	}
	return total
}

// Points go one by one, and the space of each with it; what is left is whole at every step.
func TestReclaimGivesSpaceBack(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := threeMachines()
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	for _, p := range points { // each with packs of its own
		mustCopyAll(t, r, p)
	}
	before := bytesOf(t, store, "packs/")
	for i, p := range points {
		forget(t, r, p)
		for range 3 {
			reclaim(t, r, atOnce())
			fresh := must(openSmall(t.Context(), store, ""))(t)
			check(t, fresh, points[i+1:]...)
			closeRepo(t, fresh)
		}
		check(t, r, points[i+1:]...)
		after := bytesOf(t, store, "packs/")
		t.Logf("%d points left: %d bytes of %d", len(points)-i-1, after, before)
	}
	if left := store.Names("packs/"); len(left) > 0 {
		t.Errorf("packs are left: %v", left)
	}
	for _, folder := range []string{"points/", "partials/"} {
		if left := store.Names(folder); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	}
	if state := r.State(); len(state.Condemned)+len(state.CondemnedFiles) > 0 {
		t.Errorf("still condemned: %v %v", state.Condemned, state.CondemnedFiles)
	}
	mustCopyAll(t, r, points...)
	check(t, r, points...)
}

// Dropping points and marking read no data pack.
func TestMarkingReadsNodesOnly(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := threeMachines()
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	mustCopyAll(t, r, points...)
	closeRepo(t, r)
	r = must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	if _, err := r.PlacesOf(t.Context(), repo.ID{}); err != nil { // the index is made of pack tables, which is not marking
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for id, p := range r.State().Packs {
		kinds["packs/"+id.String()[:2]+"/"+id.String()] = p.Kind
	}
	var mu sync.Mutex
	reads := map[string]int{}
	store.SetFault(func(op memory.Op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == memory.OpOpen || op == memory.OpRead {
			reads[kinds[name]]++
		}
		return nil
	})
	forget(t, r, points[0])
	report, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy(), DryRun: true})
	if err != nil || report.Use.Live == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if reads["data"] != 0 || reads["nodes"] == 0 {
		t.Errorf("reads by kind of pack: %v", reads)
	}
}

// What was given up is deleted by the second run that finds its grace passed, by the storage's clock.
func TestGrace(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	now.now = time.Now()
	point, other := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: now.time}))(t)
	r.SetPackTargets(smallPack, smallPack)
	defer closeRepo(t, r)
	mustCopyAll(t, r, point)
	mustCopyAll(t, r, other)
	forget(t, r, point)
	policy := repo.DefaultReclaimPolicy()
	for _, c := range []struct {
		after            time.Duration
		givenUp, deleted bool
	}{
		{0, false, false},           // too young to be given up
		{policy.Grace, true, false}, // given up
		{policy.Grace - time.Second, false, false},
		{time.Second, false, false}, // the first run that finds it old enough
		{0, false, true},
		{0, false, false},
	} {
		now.now = now.now.Add(c.after)
		report := reclaim(t, r, policy)
		if (report.GivenUp.Packs > 0) != c.givenUp || (report.Deleted.Packs > 0) != c.deleted || report.Frozen != "" {
			t.Errorf("%v later: %+v", c.after, report)
		}
		check(t, r, point, other)
	}
	if names := store.Names("packs/"); len(names) != len(r.State().Packs) {
		t.Errorf("%d files of %d packs", len(names), len(r.State().Packs))
	}
}

// A clock that was put back, or that differs from this machine's, freezes deletion.
func TestClockFreezesDeletion(t *testing.T) {
	for what, off := range map[string]time.Duration{"put back": -2 * time.Minute, "ahead": 3 * time.Hour} {
		store := initialized(t, repo.Options{})
		now := clocked(store)
		now.now = time.Now()
		point := onePoint("a", "a", content(1, 20*smallBlock))
		local := now.now
		r := must(repo.Open(t.Context(), store, repo.Environment{Now: func() time.Time { return local }}))(t)
		mustCopyAll(t, r, point)
		forget(t, r, point)
		reclaim(t, r, atOnce())
		now.now = now.now.Add(off)
		report := reclaim(t, r, atOnce())
		if report.Frozen == "" || report.Deleted.Packs > 0 || len(store.Names("packs/")) == 0 {
			t.Errorf("%s: %+v", what, report)
		}
		now.now = local
		reclaim(t, r, atOnce()) // the first run that believes the clock
		if report := reclaim(t, r, atOnce()); report.Frozen != "" || report.Deleted.Packs == 0 {
			t.Errorf("%s, and right again: %+v", what, report)
		}
		closeRepo(t, r)
	}
}

// Packs that the log names and the storage lacks are damage: nothing is given up.
func TestReclaimRefusesMissingPacks(t *testing.T) {
	store := initialized(t, repo.Options{})
	point, other := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, point)
	mustCopyAll(t, r, other)
	forget(t, r, point)
	if err := store.Delete(t.Context(), store.Names("packs/")[0]); err != nil {
		t.Fatal(err)
	}
	entries := r.Usage().Entries
	_, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce()})
	if err == nil || !strings.Contains(err.Error(), "missing") || r.Usage().Entries != entries {
		t.Errorf("%v, %d entries more", err, r.Usage().Entries-entries)
	}
}
