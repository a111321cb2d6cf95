package repo_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// Packs under a quarter of a full one become one as soon as there are four of them and their grace has passed; fewer stay, and
// so does one that is larger. All of it is live: nothing else would move it.
func TestSmallPacksAreMerged(t *testing.T) {
	for _, c := range []struct {
		small  int
		merged bool
	}{{3, false}, {4, true}, {5, true}} {
		t.Run(fmt.Sprint(c.small), func(t *testing.T) {
			store := initialized(t, repo.Options{})
			now := clocked(store)
			now.now = time.Now()
			r := must(repo.Open(t.Context(), store, repo.Environment{Now: now.time, Keys: identities{testIdentity()}}))(t)
			r.SetPackTargets(smallPack, smallPack)
			defer closeRepo(t, r)
			var points []*sourcetest.Point
			for i := range c.small { // each with a pack of one block, and one of its tree
				name := fmt.Sprint("small", i)
				points = append(points, onePoint(name, name, content(uint64(i+1), smallBlock)))
				mustCopyAll(t, r, points[i])
			}
			var large map[string]bool
			if c.merged { // two blocks are more than a quarter; their tree is not
				before := filesOf(r, "data")
				points = append(points, onePoint("large", "large", append(content(101, smallBlock), content(102, smallBlock)...)))
				mustCopyAll(t, r, points[c.small])
				large = filesOf(r, "data")
				maps.DeleteFunc(large, func(name string, _ bool) bool { return before[name] })
			}
			packs := len(store.Names("packs/"))
			if packs != 2*len(points) {
				t.Fatalf("%d packs of %d points", packs, len(points))
			}
			policy := repo.DefaultReclaimPolicy()
			if report := reclaim(t, r, policy); len(report.Steps) > 0 || report.Moved.Packs > 0 {
				t.Errorf("within the grace: %+v", report)
			}
			now.now = now.now.Add(policy.Grace)
			report := reclaim(t, r, policy)
			merged := map[string]int{}
			for _, step := range report.Steps {
				if step.Action == repo.ReclaimMerge {
					merged[step.Kind]++
				}
			}
			check(t, r, points...)
			if !c.merged {
				if len(report.Steps) > 0 || report.Moved.Packs > 0 || len(store.Names("packs/")) != packs {
					t.Errorf("%d small packs do not stay: %+v", c.small, report)
				}
				return
			}
			if len(report.Steps) != packs-1 || merged["data"] != c.small || merged["nodes"] != c.small+1 || report.Moved.Packs != packs-1 || report.Written.Packs != 2 {
				t.Errorf("%d small packs, and %d of nodes: %v are merged, %+v", c.small, c.small+1, merged, report)
			}
			data, nodes := filesOf(r, "data"), filesOf(r, "nodes")
			for name := range large {
				if !data[name] {
					t.Errorf("%s is moved, which is larger", name)
				}
			}
			if len(large) != 1 || len(data) != 2 || len(nodes) != 1 {
				t.Errorf("packs of data %v, of nodes %v", data, nodes)
			}
			for range 2 { // what is merged is given back in time, and not merged again
				now.now = now.now.Add(policy.Grace)
				if again := reclaim(t, r, policy); len(again.Steps) > 0 {
					t.Errorf("another run: %+v", again)
				}
			}
			if left := store.Names("packs/"); len(left) != 3 {
				t.Errorf("packs that are left: %v", left)
			}
			check(t, r, points...)
		})
	}
}
