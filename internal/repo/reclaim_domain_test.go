package repo_test

import (
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/pack"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// What is damaged in a domain and whole in another is not given up there with the last point that is of that domain: it is the
// only copy that is left. Once it is healed it goes.
func TestWhatAnotherDomainLacksIsKept(t *testing.T) {
	for what, c := range map[string]struct {
		keeps, goes repo.IngestOptions
		// whole loses the table of a pack, else one block is damaged.
		whole bool
		// before gives the other point's packs up before the damage is found.
		before bool
	}{
		"for the default domain":                 {goes: repo.IngestOptions{Sealed: true}},
		"a pack, for the default domain":         {goes: repo.IngestOptions{Sealed: true}, whole: true},
		"given up before, of a sealed domain":    {goes: repo.IngestOptions{Sealed: true}, before: true},
		"for a sealed domain":                    {keeps: repo.IngestOptions{Sealed: true}},
		"a pack, for a sealed domain":            {keeps: repo.IngestOptions{Sealed: true}, whole: true},
		"given up before, of the default domain": {keeps: repo.IngestOptions{Sealed: true}, before: true},
		"of a sealed domain for another":         {keeps: repo.IngestOptions{Sealed: true}, goes: repo.IngestOptions{Sealed: true}},
	} {
		t.Run(what, func(t *testing.T) {
			store, data := initialized(t, repo.Options{}), content(7, 30*smallBlock)
			stays, goes := onePoint("web", "w1", data), onePoint("db", "d1", data)
			r := must(openSmall(t.Context(), store, ""))(t)
			defer func() { closeRepo(t, r) }()
			copyInto(t, r, c.keeps, stays)
			copyInto(t, r, c.goes, goes)
			domain := must(r.ReadPoint(t.Context(), stays.ID()))(t).Domain
			if c.before {
				forget(t, r, goes)
				reclaim(t, r, atOnce())
			}
			for id, p := range r.State().Packs.All() {
				if p.Kind == "data" && p.Domain == domain {
					tamper(t, store, pack.ObjectName(id), func(b []byte) []byte {
						at := 64 + 200
						if c.whole {
							at = len(b) - 80
						}
						b[at] ^= 1
						return b
					})
					break
				}
			}
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, ""))(t)
			must(r.Verify(t.Context(), nil))(t)
			if len(r.State().Bad) != 1 {
				t.Fatalf("bad %v", r.State().Bad)
			}
			if !c.before {
				forget(t, r, goes)
			}
			for range 4 {
				reclaim(t, r, atOnce())
			}
			if err := compare(t.Context(), r, stays); err != nil {
				t.Fatalf("the last copy was deleted: %v", err)
			}
			_, after := healed(t, store)
			wholeAgain(t, what, store, []*sourcetest.Point{stays}, after)
			if err := r.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				reclaim(t, r, atOnce())
			}
			check(t, r, stays)
			if left := packsByDomain(r); len(left) != 1 {
				t.Errorf("packs of %d domains are left", len(left))
			}
		})
	}
}

// A point is stored in another domain just when reclaim has read the log: what it then reads of the point is what the log said, and
// nothing is missing.
func TestAPointThatMovesWhileReclaimBegins(t *testing.T) {
	files := initialized(t, repo.Options{})
	p := onePoint("web", "w1", content(7, 30*smallBlock))
	writer := must(openSmall(t.Context(), files, ""))(t)
	defer closeRepo(t, writer)
	copyInto(t, writer, repo.IngestOptions{}, p)
	for after := range 4 {
		store := &between{Store: files}
		r := must(openSmall(t.Context(), store, ""))(t)
		listed := false
		store.when = func(op memory.Op, name string) bool {
			listed = listed || op == memory.OpList && name == "index/"
			if listed && op == memory.OpOpen && strings.HasPrefix(name, "log/") {
				after--
			}
			return listed && after < 0
		}
		store.do = func() { copyInto(t, writer, repo.IngestOptions{Sealed: true}, p) }
		if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 {
			t.Errorf("%q", report.Incomplete)
		}
		check(t, r, p)
		closeRepo(t, r)
	}
}
