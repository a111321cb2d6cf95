package job_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/storage/memory"
)

// Where the session that removed a point could not give its space back, the next one does, though it removes nothing: the storage
// did not take it, the session was killed, or the clock of the storage was not believed.
func TestSpaceIsGivenBackByTheNextSession(t *testing.T) {
	for name, trouble := range map[string]func(l *lab){
		"an error": func(l *lab) {
			l.store.SetFault(func(op memory.Op, name string) error {
				if op == memory.OpOverwrite && strings.HasPrefix(name, "marks/reclaim") {
					return errors.New("the storage does not take it")
				}
				return nil
			})
		},
		"killed": func(l *lab) {
			dead := false
			l.store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
				if dead = dead || op == memory.OpOverwrite && strings.HasPrefix(name, "marks/reclaim"); dead {
					return errors.New("nothing comes any more")
				}
				return nil
			}))
		},
		"a wrong clock": func(l *lab) { l.store.SetClock(func() time.Time { return l.now.Add(-3 * time.Hour) }) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, day("a", 1))
			l.setup.Job.Retention = policy.Retention{Points: 1}
			l.run(job.ResultDone)
			l.points = append(l.points, day("a", 2))
			l.now = l.now.Add(24 * time.Hour)
			trouble(l)
			s := job.Run(t.Context(), l.setup)
			l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 1 removed")
			if given := s.Phase(job.PhaseTransform).Counts["givenUpBytes"]; given != 0 {
				t.Fatalf("%d bytes were given up", given)
			}
			l.store.SetFault(nil)
			l.store.SetClock(func() time.Time { return l.now })
			for i, want := range []bool{true, false} { // and the one after it has nothing to do
				l.now = l.now.Add(24 * time.Hour)
				s = l.run(job.ResultDone)
				if given := s.Phase(job.PhaseTransform).Counts["givenUpBytes"]; given > 0 != want {
					t.Errorf("session %d after it gave %d bytes up", i+1, given)
				}
			}
		})
	}
}

// What one session gives up is deleted by the second one for which the grace has passed, though they remove nothing; then they look for
// space seldom again.
func TestWhatWasGivenUpIsDeletedInTime(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Retention = policy.Retention{Points: 1}
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	marks := 0
	l.store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
		if op == memory.OpList && name == "packs/" {
			marks++
		}
		return nil
	}))
	l.now = l.now.Add(24 * time.Hour)
	if given := l.run(job.ResultDone).Phase(job.PhaseTransform).Counts["givenUpBytes"]; given == 0 || marks != 1 {
		t.Fatalf("%d bytes were given up in %d runs", given, marks)
	}
	deletes := 0
	for session := 1; session <= 6*5; session++ { // every four hours for five days
		l.now = l.now.Add(4 * time.Hour)
		if l.run(job.ResultDone).Phase(job.PhaseTransform).Counts["deletedBytes"] > 0 {
			deletes = session
		}
	}
	if left := l.target().CondemnedBytes(); deletes != 7 || left != 0 || marks != 3 {
		t.Errorf("session %d has deleted last and %d bytes are left, after %d runs", deletes, left, marks)
	}
}
