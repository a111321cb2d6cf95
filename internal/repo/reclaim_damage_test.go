package repo_test

import (
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// mustHeal verifies and heals with what donor has, and fails the test unless everything is whole then.
func mustHeal(t *testing.T, r *repo.Repository, donor *memory.Store) {
	t.Helper()
	found := must(r.Verify(t.Context(), nil))(t)
	from := must(openSmall(t.Context(), donor, ""))(t)
	defer closeRepo(t, from)
	must(r.Heal(t.Context(), found, []*repo.Repository{from}))(t)
	if after := must(r.Verify(t.Context(), nil))(t); len(after.Damage) > 0 {
		t.Fatalf("still damaged after healing: %+v", after.Damage)
	}
}

// dataPacks are the names of the data packs that the log names and does not give up.
func dataPacks(r *repo.Repository) map[string]bool {
	names := map[string]bool{}
	for id, p := range r.State().Packs {
		if p.Kind == "data" && !r.State().Condemned[id] {
			names["packs/"+id.String()[:2]+"/"+id.String()] = true
		}
	}
	return names
}

// What only an unfinished copy needs is healed by nobody: its loss keeps nothing from being given up, and the copy goes on.
// It makes no difference whether the index still has what is lost.
func TestReclaimWhenAnUnfinishedCopyLostBlocks(t *testing.T) {
	for _, indexed := range []bool{true, false} {
		store := initialized(t, repo.Options{})
		stays, goes := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
		unfinished := onePoint("c", "c", content(3, 3*smallBlock))
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, stays)
		mustCopyAll(t, r, goes)
		before := dataPacks(r)
		unfinished.Revalidated = errInjected
		if err := ingest(r, repo.IngestOptions{}, unfinished); err == nil || len(r.State().Partials) != 1 {
			t.Fatalf("a copy that fails at its end: %v, %d unfinished", err, len(r.State().Partials))
		}
		donor, lost := store.Clone(), map[string]bool{}
		for name := range dataPacks(r) {
			if !before[name] {
				lost[name] = true
				tamper(t, store, name, func([]byte) []byte { return nil })
			}
		}
		if len(lost) == 0 {
			t.Fatal("the unfinished copy stored nothing")
		}
		if !indexed {
			for _, name := range store.Names("index/") {
				if err := store.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, ""))(t)
		}
		mustHeal(t, r, donor)
		forget(t, r, goes)
		if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 || report.GivenUp.Packs == 0 {
			t.Errorf("%+v", report)
		}
		for range 2 {
			reclaim(t, r, atOnce())
		}
		for _, name := range store.Names("packs/") {
			if lost[name] {
				t.Errorf("%s, which nothing can be read from, is still there", name)
			}
		}
		unfinished.Revalidated = nil
		mustCopyAll(t, r, unfinished)
		check(t, r, stays, goes, unfinished)
		closeRepo(t, r)
	}
}
