package job_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
)

// Scripts that a process has run before it went are not run again for the same session; a session that is left to another
// process runs none after the job.
func TestScriptsOfASessionThatWasInterrupted(t *testing.T) {
	folder := t.TempDir()
	script := func(name string) policy.Script {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho x >>"+path+".ran\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return policy.Script{Run: []string{path}, Timeout: time.Minute, OnFailure: policy.FailureAborts}
	}
	ran := func(name string) int {
		content, _ := os.ReadFile(filepath.Join(folder, name+".ran"))
		return len(content) / 2
	}
	l := newLab(t, day("a", 1))
	l.setup.Job.Scripts = policy.Scripts{Pre: script("pre"), Post: script("post")}
	l.setup.Host.ID = "17"
	ctx, leave := context.WithCancelCause(t.Context())
	l.points[0].OnRead = func(int, int64, int) (int, error) {
		leave(job.ErrLeft)
		return 0, ctx.Err()
	}
	if s := job.Run(ctx, l.setup); s.Result != job.ResultInterrupted || s.ID != "17" || ran("pre") != 1 || ran("post") != 0 {
		t.Errorf("left: %s %s, %d before, %d after", s.ID, s.Result, ran("pre"), ran("post"))
	}
	l.points[0].OnRead = nil
	l.setup.Host.Ran = map[job.PhaseName]bool{job.PhasePreScript: true}
	s := l.run(job.ResultDone)
	if ran("pre") != 1 || ran("post") != 1 || s.Phase(job.PhasePreScript).State != job.PhaseSkipped || s.Copied() != 1 {
		t.Errorf("gone on: %d before, %d after\n%s", ran("pre"), ran("post"), l.describe(s))
	}
	ctx, stop := context.WithCancelCause(t.Context())
	l.points = append(l.points, day("a", 2))
	l.points[1].OnRead = func(int, int64, int) (int, error) {
		stop(job.ErrStopNow)
		return 0, ctx.Err()
	}
	if s := job.Run(ctx, l.setup); s.Result != job.ResultInterrupted || ran("post") != 1 {
		t.Errorf("stopped at once: %s, %d after", s.Result, ran("post"))
	}
}

// The interval is the one that whoever keeps the schedule gives. When its end comes what was chosen is copied, and nothing more
// is looked for; the target is given away at the end, with what the sources have.
func TestIntervalOfTheHost(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	begins := l.now.Add(-3 * time.Hour)
	left := 0
	l.setup.Host = job.Host{
		Interval: policy.Interval{Begins: begins, Ends: l.now.Add(time.Minute)},
		Leaving:  func(_ context.Context, r *repo.Repository) { left = len(r.Entries()) },
	}
	l.points[0].OnRead = func(_ int, _ int64, n int) (int, error) {
		l.now = l.now.Add(2 * time.Hour)
		if len(l.points) == 2 {
			l.points = append(l.points, day("c", 1))
		}
		return n, nil
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 0 removed")
	if !s.Nominal.Equal(begins) || left != 2 {
		t.Errorf("nominal %s, %d points at the end", s.Nominal, left)
	}
	if len(s.Selected) != 2 || len(s.Listings) != 1 || !s.Listings[0].Complete || len(plan.MachinesOf(s.Listings[0].Briefs())) != 2 || len(s.Seen) != 2 {
		t.Errorf("selected %v, listings %+v", s.Selected, s.Listings)
	}
	seen, err := job.Look(t.Context(), l.setup)
	if err != nil || len(seen) != 3 {
		t.Errorf("looked: %v, %v", seen, err)
	}
}

// While a job that looks forward waits for points, sources that take long to list are listed less often, and a point that comes shortly
// before the end of the interval is copied still.
func TestLooksWhilePointsAreWaitedFor(t *testing.T) {
	for _, c := range []struct {
		took         time.Duration
		fewest, most int
	}{{0, 1435, 1445}, {time.Second, 340, 440}, {time.Minute, 80, 100}} {
		l := newLab(t, day("a", 1))
		l.setup.Job.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}, At: 13 * 60}
		l.setup.Job.Lookup.Direction = policy.Forward
		begins := time.Date(2026, 3, 2, 13, 0, 0, 0, time.UTC)
		ends := begins.AddDate(0, 0, 1)
		l.now, l.setup.Host = begins, job.Host{Start: begins.AddDate(0, 0, -1), Interval: policy.Interval{Begins: begins, Ends: ends}, Awaits: true}
		looks := 0
		l.edit = func(*registry.Source) {
			looks++
			l.now = l.now.Add(c.took)
		}
		l.onPause = func() {
			if len(l.points) == 1 && ends.Sub(l.now) <= 3*time.Minute {
				p := day("a", 3)
				p.Created = l.now
				l.points = append(l.points, p)
			}
		}
		s := l.run(job.ResultDone)
		if looks < c.fewest || looks > c.most || s.Copied() != 1 || ends.Sub(s.Tasks[0].Points[0].Created) > 3*time.Minute {
			t.Errorf("looks of %s: %d\n%s", c.took, looks, l.describe(s))
		}
	}
}
