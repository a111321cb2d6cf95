package job_test

import (
	"errors"
	"strings"
	"testing"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// lose deletes the file of a point from the target.
func (l *lab) lose(p *sourcetest.Point) {
	l.t.Helper()
	lost := 0
	for _, name := range l.store.Names("points/") {
		if strings.Contains(name, p.ID().String()) {
			lost++
			if err := l.store.Delete(l.t.Context(), name); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	if lost != 1 {
		l.t.Fatalf("%d files of the point", lost)
	}
}

// A newest point whose file is lost is not the newest good one, though no verification has found that out: the one before stays, and the
// lost one is copied again, if a source still has it.
func TestLostPointIsNotTheNewestGoodOne(t *testing.T) {
	for name, c := range map[string]struct {
		offered  []*sourcetest.Point
		want     string
		alarms   int
		takesLog bool
	}{
		"no source has it":     {[]*sourcetest.Point{day("a", 1)}, "0 copied, 0 claimed, 0 failed, 0 removed", 1, true},
		"a source has it":      {[]*sourcetest.Point{day("a", 1), day("a", 2)}, "1 copied, 0 claimed, 0 failed, 1 removed", 0, true},
		"nothing can be noted": {[]*sourcetest.Point{day("a", 1)}, "0 copied, 0 claimed, 0 failed, 0 removed", 1, false},
		"a newer one comes":    {[]*sourcetest.Point{day("a", 1), day("a", 3)}, "1 copied, 0 claimed, 0 failed, 2 removed", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, day("a", 1), day("a", 2))
			l.setup.Job.Lookup.Backfill = policy.BackfillAll
			l.run(job.ResultDone)
			l.lose(l.points[1])
			l.now = l.now.AddDate(0, 0, 3)
			l.points, l.setup.Job.Retention.Points = c.offered, 1
			if !c.takesLog {
				l.store.SetFault(func(op memory.Op, name string) error {
					if op == memory.OpPut && strings.HasPrefix(name, "log/") {
						return errors.New("refused")
					}
					return nil
				})
			}
			written := len(l.store.Names("log/"))
			if l.explain(); len(l.store.Names("log/")) != written {
				t.Error("explain has written to the target")
			}
			s := l.run(job.ResultDone)
			l.store.SetFault(nil)
			if _, noted := l.target().DamageOf(day("a", 2).ID()); noted != (c.takesLog && c.alarms > 0) {
				t.Errorf("noted in the target: %v", noted)
			}
			if counts(s) != c.want || len(s.Alarms) != c.alarms {
				t.Errorf("%s, alarms %q\n%s", counts(s), s.Alarms, l.describe(s))
			}
		})
	}
}
