package mover

import (
	"fmt"
	"runtime"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// What is copied lies nearly in order, however many processors encode and machines are copied at once: a restore makes few more reads
// than it would if all lay in order, and compaction leaves it alone.
func TestCopiesLieInOrder(t *testing.T) {
	const size = 64 << 20 // two leaves
	for _, c := range []struct {
		processors, machines int
		access               source.Access
	}{{2, 1, source.AccessRandom}, {4, 1, source.AccessRandom}, {8, 1, source.AccessRandom}, {2, 2, source.AccessRandom}, {4, 2, source.AccessOnePass}, {2, 4, source.AccessRandom}} {
		if testing.Short() && (c.processors > 4 || c.machines > 2) {
			continue // many times as long under the race detector, which sees the same in the others
		}
		t.Run(fmt.Sprintf("%d processors, %d machines, in one pass %t", c.processors, c.machines, c.access == source.AccessOnePass), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.processors))
			r, _ := newRepository(t, 128<<10)
			var points []*sourcetest.Point
			for n := range c.machines {
				p := point("1", sourcetest.Object{Name: "vda", Data: noise(uint64(n+1), size), Access: c.access})
				p.Machine = sourcetest.Machine(fmt.Sprint("m", n))
				points = append(points, p)
			}
			together(t, r, Options{Job: "manual"}, points...)
			found, err := r.Analyze(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if len(found.Fragmentation) != c.machines {
				t.Errorf("%d machines", len(found.Fragmentation))
			}
			for _, f := range found.Fragmentation {
				t.Logf("%d reads, in order %d", f.Runs, f.InOrder)
				if f.Blocks != size>>17 || f.Runs > 2*f.InOrder {
					t.Errorf("a restore reads %d blocks in %d reads, in order it would be %d", f.Blocks, f.Runs, f.InOrder)
				}
			}
			if report, err := r.Compact(t.Context(), repo.CompactOptions{}); err != nil || report.Blocks > 0 {
				t.Errorf("there is something to compact: %+v, %v", report, err)
			}
			for _, p := range points {
				wantStored(t, r, p)
			}
		})
	}
}
