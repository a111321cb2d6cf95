package job_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// Healing stops reading the source when the window closes. That is no failure: what is left is healed when it opens again.
func TestWindowClosesWhileHealing(t *testing.T) {
	newLab(t, day("a", 1)).run(job.ResultDone) // what a compressor shares between tests must not be made in the bubble
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		reading := time.Duration(0)
		for n := range 20 {
			p := point(fmt.Sprint("m", n), n+1)
			p.Created = time.Now().Add(-time.Hour)
			p.OnRead = func(_ int, _ int64, n int) (int, error) { time.Sleep(reading); return n, nil }
			l.points = append(l.points, p)
		}
		l.setup.Now, l.setup.Pause = time.Now, nil
		l.store.SetClock(time.Now)
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			return repo.Open(ctx, l.store, repo.Environment{})
		}
		l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
		l.run(job.ResultDone)
		spoilPacks(t, l.store)
		time.Sleep(31 * 24 * time.Hour)
		reading = time.Minute
		window, err := policy.ParseWindow([]string{time.Now().UTC().Format("15:04") + "-" + time.Now().Add(10*time.Minute).UTC().Format("15:04")}, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		l.setup.Job.Window = window
		closes, _ := window.Change(time.Now())
		s := job.Run(t.Context(), l.setup)
		phase := s.Phase(job.PhaseHealthCheck)
		late := s.Ended.Sub(closes)
		// A read that has begun ends by itself; here it takes a minute.
		if late > time.Minute || phase.State != job.PhaseWarned || !strings.Contains(phase.Reason, "window has closed") || phase.Counts["healedPoints"] == 0 || phase.Counts["damagedPoints"] == 0 {
			t.Fatalf("%s after the window has closed: %s, %s\n%s", late, s.Result, s.Reason, l.describe(s))
		}
		l.setup.Job.Window = policy.Window{}
		s = job.Run(t.Context(), l.setup)
		for _, p := range l.points {
			if damage, is := l.target().DamageOf(p.ID()); is {
				t.Errorf("still damaged: %s\n%s", damage, l.describe(s))
			}
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
