package repo_test

import (
	"testing"

	"ferry/internal/repo"
)

// Of two that note the same lost point at once the second one writes nothing, nor does one for which there is nothing to note.
func TestLostPointsAreNotedOnce(t *testing.T) {
	store := initialized(t, repo.Options{})
	first, second := must(openSmall(t.Context(), store, newCache(t)))(t), must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, first)
	defer closeRepo(t, second)
	p := onePoint("m", "p", content(1, 20*smallBlock))
	mustCopyAll(t, first, p)
	if err := second.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost, before := first.Entries(), len(store.Names("log/"))
	for _, r := range []*repo.Repository{first, second, second} {
		if err := r.NoteLost(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		if _, noted := r.DamageOf(p.ID()); !noted {
			t.Error("not noted")
		}
	}
	if after := len(store.Names("log/")); after != before+1 {
		t.Errorf("%d entries of the log, %d before", after, before)
	}
}
