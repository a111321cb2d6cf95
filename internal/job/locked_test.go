package job_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// locked is a store that keeps its packs until a time.
type locked struct {
	*memory.Store
	until *time.Time
	now   func() time.Time
}

func (s locked) CheckLock(context.Context, storage.Immutability) error               { return nil }
func (s locked) LockNew(storage.Immutability, func(string) time.Time) error          { return nil }
func (s locked) Lock(context.Context, string, storage.Immutability, time.Time) error { return nil }
func (s locked) LockedUntil(context.Context, string) (time.Time, error)              { return *s.until, nil }
func (s locked) Delete(ctx context.Context, name string) error {
	if strings.HasPrefix(name, "packs/") && s.until.After(s.now()) {
		return &storage.LockedError{Name: name, Until: *s.until}
	}
	return s.Store.Delete(ctx, name)
}

// What a job removes while the storage locks it: explain and the session say until when its space stays, in the plan, while the
// grace runs, and when it has passed.
func TestRemovedWhileLocked(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.points[0].Objects[0].Data = make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(l.points[0].Objects[0].Data) // never fails
	until := &time.Time{}
	store := locked{Store: memory.New(), until: until, now: func() time.Time { return l.now }}
	store.SetClock(store.now)
	env := repo.Environment{Now: store.now}
	made, err := repo.Init(t.Context(), store, env, repo.Options{BlockSize: 4096, Lock: &repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600}})
	if err != nil {
		t.Fatal(err)
	}
	l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) { return repo.Open(ctx, store, env) }
	defer made.Close()
	l.setup.Job.Retention = policy.Retention{Points: 1}
	l.run(job.ResultDone)
	if err := made.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	*until = made.LockInfo().Until
	text := policy.ShowTime(*until, nil)
	l.points = append(l.points, day("a", 2))
	l.now = l.now.Add(24 * time.Hour)
	if e := l.explain(); !e.Locked.Equal(*until) {
		t.Errorf("explain: locked until %v, want %v", e.Locked, *until)
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 1 removed")
	if got, want := s.Phase(job.PhaseTransform).Reason, "the space of what was removed stays locked by the storage until "+text; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := l.describe(s); !strings.Contains(got, "its space stays locked until "+text) {
		t.Errorf("the removed point does not say it:\n%s", got)
	}
	for range 2 { // the grace passes, as two runs see
		l.now = l.now.Add(8 * 24 * time.Hour)
		s = l.run(job.ResultDone)
	}
	if phase := s.Phase(job.PhaseTransform); phase.Counts["lockedBytes"] < 1<<20 || !strings.HasSuffix(phase.Reason, " of what was given up stay locked by the storage, until "+text+" at least") {
		t.Errorf("once the storage refuses to delete: %q %v", phase.Reason, phase.Counts)
	}
	l.now = until.Add(8 * 24 * time.Hour)
	if s = l.run(job.ResultDone); s.Phase(job.PhaseTransform).Counts["deletedBytes"] < 1<<20 || s.Phase(job.PhaseTransform).Reason != "" {
		t.Errorf("after the lock: %s", l.describe(s))
	}
}

// A point that a person holds: explain says why it stays, and until when, and the session that gives it up keeps it.
func TestHeldByAPerson(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Retention = policy.Retention{Points: 1}
	l.run(job.ResultDone)
	held, until := l.points[0].ID(), time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	if err := l.target().HoldForPerson(t.Context(), []backup.PointID{held}, "audit", until); err != nil {
		t.Fatal(err)
	}
	l.points = append(l.points, day("a", 2))
	l.now = l.now.Add(24 * time.Hour)
	e := l.explain()
	removals := e.Plan.Steps(plan.ActionRemove)
	if want := "held: audit, until " + policy.ShowTime(until, nil); len(removals) != 1 || removals[0].Stays != want {
		t.Errorf("explain: %+v, want it to stay: %s", removals, want)
	}
	l.run(job.ResultDone)
	if !l.target().Has(held) {
		t.Error("the point is gone")
	}
}
