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

// Where the session that removed a point could not give its space back, the next one does, though it removes nothing.
func TestSpaceIsGivenBackByTheNextSession(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Retention = policy.Retention{Points: 1}
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	l.now = l.now.Add(24 * time.Hour)
	l.store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOverwrite && strings.HasPrefix(name, "marks/reclaim") {
			return errors.New("the storage does not take it")
		}
		return nil
	})
	s := job.Run(t.Context(), l.setup)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 1 removed")
	if given := s.Phase(job.PhaseTransform).Counts["givenUpBytes"]; given != 0 {
		t.Fatalf("%d bytes were given up", given)
	}
	l.store.SetFault(nil)
	for i, want := range []bool{true, false} { // and the one after it has nothing to do
		l.now = l.now.Add(24 * time.Hour)
		s = l.run(job.ResultDone)
		if given := s.Phase(job.PhaseTransform).Counts["givenUpBytes"]; given > 0 != want {
			t.Errorf("session %d after it gave %d bytes up", i+1, given)
		}
	}
}
