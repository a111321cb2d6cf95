package job_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
)

// waited lets a session wait for what it waits for, and returns the kinds of that in their order.
func (l *lab) waited(want job.Result) (kinds []job.WaitKind, waits []job.Wait) {
	l.t.Helper()
	l.setup.Wait = 24 * time.Hour
	l.setup.Host.Waits = func(wait job.Wait) {
		if (wait.Kind == "") != (wait.Text == "") {
			l.t.Errorf("a wait that says half of it: %+v", wait)
		}
		kinds, waits = append(kinds, wait.Kind), append(waits, wait)
	}
	l.run(want)
	return kinds, waits
}

// lockedWhile locks the points of all machines while it says so.
func (l *lab) lockedWhile(locked func() bool) {
	l.edit = func(s *registry.Source) {
		for i := range s.Points {
			if p := &s.Points[i]; locked() {
				p.State, p.Reason, p.Opener = backup.StateLocked, "vzdump writes it", nil
				p.Files = append(p.Files, sourceFile(l.now.Add(-time.Minute)))
			}
		}
	}
}

// A session tells the kind of what it waits for, and of a target what it was found to be.
func TestKindsOfWaits(t *testing.T) {
	t.Run("target", func(t *testing.T) {
		l := newLab(t, day("a", 1))
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			if len(l.pauses) == 0 {
				return nil, repo.ErrNoRepository
			}
			return l.openTarget(ctx)
		}
		kinds, waits := l.waited(job.ResultDone)
		if !slices.Equal(kinds, []job.WaitKind{job.WaitTarget, ""}) || waits[0].State != job.StateOffline ||
			waits[0].Reason == "" || waits[0].Text != "target offline: "+waits[0].Reason {
			t.Errorf("%+v", waits)
		}
	})
	t.Run("source", func(t *testing.T) {
		l := newLab(t, day("a", 1))
		l.sourceErr = os.ErrNotExist
		l.onPause = func() { l.sourceErr = nil }
		if kinds, waits := l.waited(job.ResultDone); !slices.Equal(kinds, []job.WaitKind{job.WaitSource, ""}) || !strings.HasPrefix(waits[0].Text, "source pve is missing: ") {
			t.Errorf("%+v", waits)
		}
	})
	t.Run("lock", func(t *testing.T) {
		l := newLab(t, day("a", 1))
		l.lockedWhile(func() bool { return len(l.pauses) < 2 })
		if kinds, waits := l.waited(job.ResultDone); !slices.Equal(kinds, []job.WaitKind{job.WaitLock, ""}) || !strings.Contains(waits[0].Text, "is locked") {
			t.Errorf("%+v", waits)
		}
	})
	t.Run("retry", func(t *testing.T) {
		l := newLab(t, day("a", 1))
		failed := false
		l.points[0].OnRead = func(_ int, _ int64, n int) (int, error) {
			if !failed {
				failed = true
				return 0, errors.New("connection reset")
			}
			return n, nil
		}
		if kinds, waits := l.waited(job.ResultDone); !slices.Equal(kinds, []job.WaitKind{job.WaitRetry, ""}) {
			t.Errorf("%+v", waits)
		}
	})
}

// When the window has opened, and what was to be copied is locked by then, the session says that it waits for the lock.
func TestWaitAfterAWait(t *testing.T) {
	l := newLab(t, day("a", 1))
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	l.setup.Job.Window = window
	opens := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	l.lockedWhile(func() bool { return !l.now.Before(opens) && l.now.Before(opens.Add(time.Hour)) })
	kinds, waits := l.waited(job.ResultDone)
	if !slices.Equal(kinds, []job.WaitKind{job.WaitWindow, job.WaitLock, ""}) || !waits[0].Until.Equal(opens) || !waits[1].Until.IsZero() {
		t.Errorf("%+v", waits)
	}
}
