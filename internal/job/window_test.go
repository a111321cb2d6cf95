package job_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// nightly is a job that holds a point of each of ten days of two machines, with an interval that begins on the eleventh at noon, while
// its window is closed. opened counts how often its source was, and early how often while the window was closed.
func nightly(t *testing.T) (l *lab, opened, early *int) {
	l = newLab(t)
	for n := range 10 {
		l.points = append(l.points, day("a", n+1), day("b", n+1))
	}
	l.now = time.Date(2026, 3, 10, 21, 0, 0, 0, time.UTC)
	l.setup.Job.Schedule = policy.Schedule{Mode: policy.Immediate} // it takes them all
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	l.wantCounts(l.run(job.ResultDone), "20 copied, 0 claimed, 0 failed, 0 removed")
	l.setup.Job.Lookup.Backfill = 0
	l.setup.Job.Schedule, l.setup.Job.Window = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}}, closedWindow(t)
	opened, early = new(int), new(int)
	l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
		*opened++
		if !l.setup.Job.Window.Open(l.now) {
			*early++
		}
		return l.openSource(ctx)
	}
	l.beginsAt(11)
	return l, opened, early
}

// beginsAt moves on to an interval that begins at noon of a day, and ends a day later.
func (l *lab) beginsAt(n int) {
	l.now = time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC)
	l.setup.Host.Start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l.setup.Host.Interval = policy.Interval{Begins: l.now, Ends: l.now.AddDate(0, 0, 1)}
}

// A session that waits for its window reads nothing of its sources, not even what they have, and says until when it waits.
func TestNothingIsListedWhileTheWindowIsClosed(t *testing.T) {
	l, opened, early := nightly(t)
	l.points = append(l.points, day("a", 11), day("b", 11))
	var waits []job.Wait
	l.setup.Host.Waits = func(wait job.Wait) { waits = append(waits, wait) }
	l.onPause = func() {
		if opens := time.Date(2026, 3, 11, 20, 0, 0, 0, time.UTC); l.now.After(opens) {
			t.Errorf("it waits until %s", l.now)
		}
	}
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	if *opened == 0 || *early > 0 {
		t.Errorf("listed %d times, %d of them while the window was closed", *opened, *early)
	}
	if len(waits) != 2 || waits[0].Kind != job.WaitWindow || waits[0].Text != "the window is closed until 2026-03-11 20:00 UTC" || !waits[0].Until.Equal(time.Date(2026, 3, 11, 20, 0, 0, 0, time.UTC)) {
		t.Errorf("it waits for %+v", waits)
	}

	// When nothing can be waited for any more the session says so, and of no machine that it were up to date.
	l.beginsAt(12)
	l.setup.Host.Interval.Ends = l.now.Add(time.Hour)
	l.setup.Job.Retention = policy.Retention{Days: 3}
	*opened = 0
	s := l.run(job.ResultWaits)
	if *opened > 0 || s.Reason != "the window is closed until 2026-03-12 20:00 UTC" || s.SourcesWait() || s.Selected != nil || s.Removed() != 14 {
		t.Errorf("listed %d times: %s\n%s", *opened, s.Reason, l.describe(s))
	}
	for _, task := range s.Tasks {
		if task.State != job.TaskNotReached {
			t.Errorf("%+v", task)
		}
	}
	if seen, err := job.Look(t.Context(), l.setup); err != nil || len(seen) > 0 || *opened > 0 {
		t.Errorf("listed %d times between sessions, and has seen %d points: %v", *opened, len(seen), err)
	}
}

// Rules that were changed hold at the beginning of an interval, also where the window is closed then, and for long. They hold again after
// the copies.
func TestRetentionRunsBeforeTheWindowOpens(t *testing.T) {
	l, _, early := nightly(t)
	l.points = append(l.points, day("a", 11), day("b", 11))
	l.setup.Job.Retention = policy.Retention{Days: 6}
	var names []job.PhaseName
	l.setup.Phase = func(name job.PhaseName) { names = append(names, name) }
	l.onPause = func() {
		if held := len(l.target().Entries()); held != 14 && len(l.pauses) == 1 {
			t.Errorf("the target has %d points while the session waits", held)
		}
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 8 removed")
	if *early > 0 || len(l.pauses) == 0 {
		t.Errorf("listed %d times while the window was closed, %d pauses", *early, len(l.pauses))
	}
	if !slices.Equal(names, []job.PhaseName{job.PhaseTransform, job.PhaseSynchronize, job.PhaseTransform}) {
		t.Errorf("%v", names)
	}
	first, last := s.Phases[1], s.Phases[3]
	if first.Counts["removed"] != 6 || first.Reason != "before the copies: the window is closed until 2026-03-11 20:00 UTC" || last.Counts["removed"] != 2 || last.Reason != "" {
		t.Errorf("%s", l.describe(s))
	}
	for _, task := range s.Tasks {
		if task.State != job.TaskCopied {
			t.Errorf("%+v", task)
		}
	}
}

// A session whose window closes while it works removes what is to be removed before it waits, each time.
func TestRetentionRunsWhenTheWindowCloses(t *testing.T) {
	l, _, early := nightly(t)
	l.now = time.Date(2026, 3, 12, 5, 30, 0, 0, time.UTC)
	l.setup.Host.Interval.Ends = l.now.AddDate(0, 0, 1)
	l.setup.Job.Retention = policy.Retention{Days: 6}
	l.points = append(l.points, day("a", 11))
	opens := time.Date(2026, 3, 12, 20, 0, 0, 0, time.UTC)
	l.lockedWhile(func() bool { return l.now.Before(opens) })
	l.onPause = func() {
		if want := map[string]int{"05:45": 20, "07:00": 14}[l.now.Format("15:04")]; want > 0 && len(l.target().Entries()) != want {
			t.Errorf("%s: the target has not %d points", l.now, want)
		}
	}
	s := l.run(job.ResultDone)
	if *early > 0 || s.Copied() != 1 || s.Removed() != 7 {
		t.Errorf("listed %d times while the window was closed\n%s", *early, l.describe(s))
	}
}

// While nothing may be listed the last listing holds, if it was of the same sources, and whole. Else nothing is removed.
func TestRetentionGoesByTheLastListing(t *testing.T) {
	for name, change := range map[string]func(*lab){
		"a source was not listed whole": func(l *lab) {
			l.edit = func(s *registry.Source) { s.Incomplete = []error{errors.New("lab2: permission denied")} }
			job.Run(t.Context(), l.setup)
			l.edit = nil
		},
		"a source was missing": func(l *lab) {
			l.sourceErr = os.ErrNotExist
			job.Run(t.Context(), l.setup)
			l.sourceErr = nil
		},
		"the machines had gone": func(l *lab) {
			all := l.points
			l.points = []*sourcetest.Point{day("c", 10)}
			job.Run(t.Context(), l.setup)
			l.points = all
		},
		"it is of another source": func(l *lab) { l.setup.Sources[0].Origin = origin(t, "other") },
	} {
		t.Run(name, func(t *testing.T) {
			l, _, early := nightly(t)
			l.setup.Job.Window, l.setup.Host.Interval = policy.Window{}, policy.Interval{}
			change(l)
			l.setup.Job.Window = closedWindow(t)
			l.beginsAt(12)
			l.setup.Job.Retention = policy.Retention{Days: 6}
			held := len(l.target().Entries())
			first := true
			l.onPause = func() {
				if first {
					first = false
					if now := len(l.target().Entries()); now != held {
						t.Errorf("%d of %d points are there", now, held)
					}
				}
			}
			if s := job.Run(t.Context(), l.setup); *early > 0 || first || s.Removed() != 6 {
				t.Errorf("listed %d times while the window was closed\n%s", *early, l.describe(s))
			}
		})
	}
}

// What a look found still holds when the window closes during the next one: the sources were not all unreadable, and retention goes by it.
func TestWindowClosesDuringTheSecondLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)))
		l := newLab(t, day("a", 1), day("b", 1))
		l.onClock()
		l.setup.Job.Window, l.setup.Job.Retention = closedWindow(t), policy.Retention{Points: 1}
		l.run(job.ResultDone)
		time.Sleep(24 * time.Hour)
		l.points = append(l.points, day("a", 2), day("b", 2))
		l.edit = func(s *registry.Source) {
			for i := range s.Points {
				if p := &s.Points[i]; p.Machine.Name == "a" && p.Created.Day() == 2 {
					p.State, p.Reason, p.Opener = backup.StateLocked, "vzdump writes it", nil
					p.Files = append(p.Files, sourceFile(time.Now().Add(-time.Minute)))
				}
			}
		}
		closes, _ := l.setup.Job.Window.Change(time.Now())
		l.setup.Wait = time.Until(closes) + time.Hour
		looks := 0
		l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
			if looks++; looks < 3 { // before the copies, and after them
				return l.openSource(ctx)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		s := l.run(job.ResultWaits)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 1 removed")
		if looks != 3 || s.SourcesWait() || s.Tasks[0].State != job.TaskWaits || s.Sources[0].Points != 4 {
			t.Errorf("%d looks: %s, sources %+v\n%s", looks, s.Reason, s.Sources, l.describe(s))
		}
	})
}

// The script before the job may take until the window has closed. Then nothing is read.
func TestWindowClosesWhileTheScriptRuns(t *testing.T) {
	l, _, _ := nightly(t)
	l.beginsAt(12)
	ran := filepath.Join(t.TempDir(), "ran")
	l.setup.Job.Scripts.Pre = policy.Script{Run: []string{"/usr/bin/touch", ran}, Timeout: time.Minute}
	l.points = append(l.points, day("a", 11))
	l.setup.Host.PhaseEnded = func(phase job.Phase) {
		if phase.Name == job.PhasePreScript {
			l.now = l.now.Add(10 * time.Hour)
		}
	}
	s := l.run(job.ResultWaits)
	if s.Copied() > 0 || s.Phase(job.PhasePreScript) == nil || len(s.Tasks) == 0 || s.Tasks[0].State != job.TaskWaits || !strings.HasPrefix(s.Tasks[0].Reason, "the window is closed until") {
		t.Errorf("%s", l.describe(s))
	}
}

// Sources that take long to list are listed less often while a lock is waited for.
func TestLocksAreLookedForLessOften(t *testing.T) {
	l := newLab(t, day("a", 1))
	looks := 0
	l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
		looks++
		l.now = l.now.Add(3 * time.Second)
		return l.openSource(ctx)
	}
	l.lockedWhile(func() bool { return true })
	l.setup.Wait = time.Hour
	l.run(job.ResultWaits)
	if looks > 12 {
		t.Errorf("listed %d times, pauses %v", looks, l.pauses)
	}
}

// The window is changed to one that is closed while a copy goes on: that stops, and goes on when the window is changed back.
func TestWindowIsChangedDuringACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed, err := policy.ParseWindow([]string{"12:00-13:00"}, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		var window atomic.Pointer[policy.Window] // it is midnight
		window.Store(&policy.Window{})
		p := day("a", 1)
		p.Objects = []sourcetest.Object{{Name: "vda", Data: make([]byte, 32<<20), Access: source.AccessOnePass}}
		close := sync.OnceFunc(func() { window.Store(&closed) })
		p.OnPiece = func(piece sourcetest.Piece) error {
			if piece.Offset >= 4<<20 {
				close()
				time.Sleep(5 * time.Second)
			}
			return nil
		}
		_, _ = rand.NewChaCha8([32]byte{1}).Read(p.Objects[0].Data)
		l := newLab(t, p)
		l.onClock()
		l.setup.Wait = 24 * time.Hour
		l.setup.Host.Window = func() policy.Window { return *window.Load() }
		var waits []job.Wait
		l.setup.Host.Waits = func(wait job.Wait) {
			if waits = append(waits, wait); wait.Kind == job.WaitWindow {
				window.Store(&policy.Window{})
			}
		}
		s := l.run(job.ResultDone)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if p.Opened.Load() != 2 || len(waits) != 2 || waits[0].Kind != job.WaitWindow || time.Since(s.Began) > time.Hour {
			t.Errorf("opened %d times, waits %+v, %s", p.Opened.Load(), waits, time.Since(s.Began))
		}
	})
}

// The window closes while the target takes its time, after everything was looked at and before the first copy: none begins until it is open
// again.
func TestWindowClosesJustBeforeTheCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := day("a", 1)
		p.Objects = []sourcetest.Object{{Name: "vda", Data: make([]byte, 4<<20), Access: source.AccessOnePass}}
		l := newLab(t, p)
		l.onClock()
		window := closedWindow(t)
		l.setup.Job.Window = window
		closes, _ := window.Change(time.Now()) // it is midnight
		var listed atomic.Bool
		l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
			listed.Store(true)
			return l.openSource(ctx)
		}
		slow := sync.OnceFunc(func() { time.Sleep(time.Until(closes.Add(time.Second))) })
		l.store.SetFault(func(op memory.Op, name string) error {
			if op == memory.OpPut && strings.HasPrefix(name, "jobs/") && listed.Load() {
				slow()
			}
			return nil
		})
		var pieces, early atomic.Int64
		p.OnPiece = func(sourcetest.Piece) error {
			if pieces.Add(1); !window.Open(time.Now()) {
				early.Add(1)
			}
			return nil
		}
		l.setup.Wait = 24 * time.Hour
		s := l.run(job.ResultDone)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if pieces.Load() == 0 || early.Load() > 0 || !window.Open(s.Ended) || time.Since(s.Began) < 12*time.Hour {
			t.Errorf("%d pieces were read, %d while the window was closed; it ended %s", pieces.Load(), early.Load(), s.Ended)
		}
	})
}

// What ends the copies ends also what the sources were opened with, which may be first: then reads fail a moment before. That is no failure of
// the points, whether the window closes or a person stops the session.
func TestReadsEndAMomentBeforeTheCopies(t *testing.T) {
	for name, cause := range map[string]error{"the window closes": nil, "stopped": errors.New("a person's wish"), "stopped at once": job.ErrStopNow} {
		inBubble(t, job.NewSlots(0), machines("a", "b"), func(l *lab) {
			l.onClock()
			want, ends := job.ResultInterrupted, time.Now().Add(time.Hour)
			if cause == nil {
				want, l.setup.Job.Window = job.ResultWaits, closedWindow(l.t)
				ends, _ = l.setup.Job.Window.Change(time.Now()) // it is midnight
			}
			for _, p := range l.points {
				p.OnRead = func(_ int, _ int64, n int) (int, error) {
					if time.Now().After(ends) {
						return n, nil
					}
					time.Sleep(time.Until(ends.Add(-time.Millisecond)))
					return 0, context.DeadlineExceeded
				}
			}
			ctx, stop := context.WithCancelCause(l.t.Context())
			defer stop(nil)
			wait := l.begin(ctx)
			if cause != nil {
				time.Sleep(time.Until(ends))
				stop(cause)
			}
			s := wait()
			if s.Result != want || s.Failed() > 0 || s.Copied() > 0 || len(s.Tasks) != 2 {
				t.Errorf("%s: %s\n%s", name, s.Result, l.describe(s))
			}
			for _, task := range s.Tasks {
				if task.State == job.TaskFailed || len(task.Points) > 0 {
					t.Errorf("%s: %+v", name, task)
				}
			}
			if phase := s.Phases[1]; cause != nil && phase.Reason != "interrupted" {
				t.Errorf("%s: %+v", name, phase)
			}
			l.setup.Wait = 24 * time.Hour
			l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		})
	}
}
