package job_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/storage/memory"
)

// Healing reads nothing of a source once the window has closed. That is no failure: what is left is healed when it opens again.
func TestWindowClosesWhileHealing(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	reads := 0
	for _, p := range l.points {
		p.OnRead = func(_ int, _ int64, n int) (int, error) { reads++; return n, nil }
	}
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
	l.run(job.ResultDone)
	spoilPacks(t, l.store)
	l.setup.Job.Window = window
	l.now = time.Date(2026, 4, 10, 6, 0, 0, -1, time.UTC) // it closes before the check has read anything
	reads = 0
	s := job.Run(t.Context(), l.setup)
	phase := s.Phase(job.PhaseHealthCheck)
	if reads > 0 || phase.State != job.PhaseWarned || !strings.Contains(phase.Reason, "window has closed") || phase.Counts["damagedPoints"] != 2 {
		t.Fatalf("%d reads: %s, %s\n%s", reads, s.Result, s.Reason, l.describe(s))
	}
	l.now = time.Date(2026, 4, 10, 21, 0, 0, 0, time.UTC)
	s = l.run(job.ResultDone)
	for _, p := range l.points {
		if damage, is := l.target().DamageOf(p.ID()); is {
			t.Errorf("still damaged: %s\n%s", damage, l.describe(s))
		}
	}
}

// What healing came to before the window closed is told: also which point could not be copied again.
func TestWindowClosesAfterHealingFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, day("a", 1), day("b", 1))
		l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
		l.run(job.ResultDone)
		spoilPacks(t, l.store)
		l.setup.Job.Window = closedWindow(t)
		l.now = time.Date(2026, 4, 10, 5, 0, 0, 0, time.UTC) // it closes in an hour
		l.points[0].OnRead = func(int, int64, int) (int, error) { return 0, errors.New("connection reset") }
		l.points[1].OnRead = func(_ int, _ int64, n int) (int, error) {
			time.Sleep(time.Hour + answer.Patience/2) // it ends by itself
			l.now = l.now.Add(2 * time.Hour)
			return n, nil
		}
		s := job.Run(t.Context(), l.setup)
		told := slices.ContainsFunc(s.Warnings, func(text string) bool { return strings.Contains(text, "connection reset") })
		if phase := s.Phase(job.PhaseHealthCheck); !told || !strings.Contains(phase.Reason, "window has closed") {
			t.Errorf("%q\n%s", s.Warnings, l.describe(s))
		}
	})
}

// spoilPacks changes a byte here and there in each pack.
func spoilPacks(t *testing.T, store *memory.Store) {
	t.Helper()
	for _, name := range store.Names("packs/") {
		if err := store.Tamper(name, func(content []byte) []byte {
			for at := 500; at < len(content)-500; at += 500 {
				content[at] ^= 1
			}
			return content
		}); err != nil {
			t.Fatal(err)
		}
	}
}
