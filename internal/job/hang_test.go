package job_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
)

// The source stops answering in the middle of a copy, for hours. When the window closes the session waits for it within 30 s, with
// a checkpoint; when the source answers again and the window is open, the same session copies what is left.
func TestWindowClosesWhileTheSourceHangs(t *testing.T) {
	for name, access := range map[string]source.Access{"a disk": source.AccessRandom, "a stream": source.AccessOnePass} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const size, hangsAt = 8 << 20, 5 << 20
				data := make([]byte, size)
				_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
				p := day("a", 1)
				p.Objects = []sourcetest.Object{{Name: "vda", Data: data, Access: access}}
				answers := make(chan struct{})
				hang := func(offset int64) {
					if offset >= hangsAt {
						<-answers
					}
				}
				p.OnRead = func(_ int, offset int64, n int) (int, error) { hang(offset); return n, nil }
				p.OnPiece = func(piece sourcetest.Piece) error { hang(piece.Offset); return nil }
				l := newLab(t, p)
				l.onClock()
				l.setup.Wait, l.setup.Job.Window = 48*time.Hour, closedWindow(t)
				closes, _ := l.setup.Job.Window.Change(time.Now())
				var waitedAt time.Time
				partials := 0
				l.setup.Host.Waits = func(wait job.Wait) {
					if waitedAt.IsZero() && wait.Kind == job.WaitWindow {
						waitedAt, partials = time.Now(), len(l.store.Names("partials/"))
						time.AfterFunc(time.Hour, func() { close(answers) })
					}
				}
				s := l.run(job.ResultDone)
				if late := waitedAt.Sub(closes); late < 0 || late > 30*time.Second {
					t.Errorf("the session waits %s after the window has closed\n%s", late, l.describe(s))
				}
				if partials != 1 {
					t.Errorf("%d checkpoints were there then", partials)
				}
				l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
				synctest.Wait()
				if p.Opened.Load() != 2 || p.Closed.Load() != 2 {
					t.Errorf("opened %d times, closed %d times", p.Opened.Load(), p.Closed.Load())
				}
				if again := s.Tasks[0].Points[0]; again.StoredBytes > size-hangsAt+1<<20 {
					t.Errorf("%d bytes were stored by the second attempt", again.StoredBytes)
				}
				stored, err := repo.Open(t.Context(), l.store, repo.Environment{})
				if err != nil {
					t.Fatal(err)
				}
				defer stored.Close()
				if report, err := stored.Verify(t.Context(), nil); err != nil || len(report.Damage) > 0 {
					t.Errorf("%v %v", report, err)
				}
			})
		})
	}
}

// The window closes while the list of a source does not come: the session waits for the window, and says that it has listed
// nothing.
func TestWindowClosesWhileASourceIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, day("a", 1))
		l.onClock()
		l.setup.Job.Window = closedWindow(t)
		closes, _ := l.setup.Job.Window.Change(time.Now())
		opened := l.setup.Sources[0].Open
		answers := make(chan struct{})
		l.setup.Sources[0].Open = func(context.Context) (*registry.Source, error) {
			<-answers
			return nil, errors.New("too late")
		}
		l.setup.Wait = time.Until(closes) // and no longer
		s := l.run(job.ResultWaits)
		close(answers)
		if phase := s.Phase(job.PhaseSynchronize); phase.State != job.PhaseWaits || !s.Ended.Equal(closes) || !s.SourcesWait() {
			t.Errorf("%s after the end\n%s", s.Ended.Sub(closes), l.describe(s))
		}
		l.setup.Sources[0].Open = opened
		time.Sleep(20 * time.Hour)
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	})
}

// Nothing is wrong with a source whose list is cut off by the window's end, so the session ends as one that waits, unless none of them
// has answered for long.
func TestWindowClosesDuringTheFirstListing(t *testing.T) {
	for name, c := range map[string]struct {
		before time.Duration // the window's end
		silent bool
	}{
		"merely slow":   {time.Minute, false},
		"no answer yet": {answer.TellAfter - time.Second, false},
		"silent":        {time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, day("a", 1))
				l.onClock()
				l.setup.Job.Window = closedWindow(t)
				closes, _ := l.setup.Job.Window.Change(time.Now())
				time.Sleep(time.Until(closes.Add(-c.before)))
				answers := make(chan struct{})
				l.setup.Sources[0].Open = func(context.Context) (*registry.Source, error) {
					<-answers
					return nil, errors.New("too late")
				}
				l.setup.Wait = time.Until(closes)
				s := l.run(job.ResultWaits)
				close(answers)
				if s.SourcesWait() != c.silent || s.Selected != nil || s.Phase(job.PhaseSynchronize).Reason != "the window has closed" {
					t.Errorf("%s\n%s", s.Reason, l.describe(s))
				}
				if !c.silent && (len(s.Sources) > 0 || s.Reason != "the window has closed") {
					t.Errorf("%s: %+v", s.Reason, s.Sources)
				}
				if c.silent && (len(s.Sources) != 1 || s.Sources[0].State != job.StateUnreadable || !strings.HasPrefix(s.Sources[0].Reason, "it does not answer since ")) {
					t.Errorf("%+v", s.Sources)
				}
			})
		})
	}
}

// What a source that was not listed has is not known: a machine of it that was retired is not taken for gone.
func TestWindowClosesBeforeTheRetiredMachineIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(n int) { time.Sleep(time.Until(time.Date(2026, 3, n, 21, 0, 0, 0, time.UTC))) }
		at(1)
		l := newLab(t, day("b", 1))
		l.setup.Now, l.setup.Pause = time.Now, nil
		l.store.SetClock(time.Now)
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			return repo.Open(ctx, l.store, repo.Environment{})
		}
		hangs := false
		l.setup.Sources = append(l.setup.Sources, job.Place{Origin: origin(t, "share"), Open: func(ctx context.Context) (*registry.Source, error) {
			if !hangs {
				return sourcetest.Open(t, day("a", 1)), nil
			}
			<-ctx.Done()
			return nil, fmt.Errorf("%w: %w", answer.ErrNone, ctx.Err())
		}})
		l.setup.Job.PurgeAfter = week
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		l.tell(day("a", 1).Described().Machine.Key, backup.Retirement{}.Decide(true, time.Now()))
		at(12)
		l.points = append(l.points, day("b", 12))
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
		hangs, l.setup.Job.Window = true, closedWindow(t)
		closes, _ := l.setup.Job.Window.Change(time.Now())
		l.setup.Wait = time.Until(closes) // and no longer
		if s := l.run(job.ResultWaits); s.Removed() != 0 || s.Phase(job.PhaseTransform) == nil {
			t.Errorf("%s", l.describe(s))
		}
	})
}
