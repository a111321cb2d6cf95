package job_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
)

// share is a second source, which answers from a time on, and counts how often it was opened.
type share struct {
	from   time.Time
	opened int
	points []*sourcetest.Point
}

// withShare is a job with a source whose list comes late, before one that is there.
func withShare(t *testing.T, after time.Duration) (*lab, *share) {
	l := newLab(t, day("b", 1))
	l.onClock()
	late := &share{from: time.Now().Add(after), points: []*sourcetest.Point{day("a", 1)}}
	l.setup.Sources = append([]job.Place{{Origin: origin(t, "share"), Open: func(ctx context.Context) (*registry.Source, error) {
		late.opened++
		answers := time.After(time.Until(late.from))
		return answer.Call(ctx, answer.Of("/share"), func() (*registry.Source, error) { // as registry.Open does
			<-answers
			return sourcetest.Open(t, late.points...), nil
		}, func(s *registry.Source) { _ = s.Close() })
	}}}, l.setup.Sources...)
	return l, late
}

// committed is after how long of a session points were first committed.
func (l *lab) committed(began time.Time, after *time.Duration) {
	l.setup.Copy.Finished = func(job.StepReport) {
		if *after == 0 {
			*after = time.Since(began)
		}
	}
}

// A source that does not answer keeps no machine of another one waiting, and is waited for when there is nothing else to do. Its
// list is asked for once.
func TestSourceThatIsListedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, late := withShare(t, 3*time.Hour)
		l.setup.Wait = 12 * time.Hour
		began, first := time.Now(), time.Duration(0)
		l.committed(began, &first)
		var waited []job.Wait
		l.setup.Host.Waits = func(wait job.Wait) { waited = append(waited, wait) }
		s := l.run(job.ResultDone)
		l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 0 removed")
		if took := time.Since(began); first > 5*time.Minute || took < 3*time.Hour || took > 3*time.Hour+5*time.Minute || late.opened > 2 { // once more to see that all is done
			t.Errorf("the first copy after %s, all after %s, listed %d times", first, took, late.opened)
		}
		if len(waited) == 0 || waited[0].Kind != job.WaitSource || waited[0].Source != "share" {
			t.Errorf("waited for %+v", waited)
		}
	})
}

// The machines of a source that is listed while those of another are copied do not wait until all of them are. What is being copied
// goes on behind its checkpoint, and that counts as one attempt.
func TestSourceThatIsListedWhileOthersAreCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines, read = 100, 5 * time.Second
		l, _ := withShare(t, 3*time.Minute)
		l.setup.Wait = 12 * time.Hour
		var reads atomic.Int64
		l.points = nil
		for n := range machines {
			p := day(fmt.Sprintf("b%02d", n), 1)
			p.OnRead = func(_ int, _ int64, n int) (int, error) {
				reads.Add(1)
				time.Sleep(read)
				return n, nil
			}
			l.points = append(l.points, p)
		}
		began, late := time.Now(), time.Duration(0)
		l.setup.Copy.Finished = func(done job.StepReport) {
			if done.Point.Machine.Name == "a" {
				late = time.Since(began)
			}
		}
		s := l.run(job.ResultDone)
		l.wantCounts(s, "101 copied, 0 claimed, 0 failed, 0 removed")
		if late > 4*time.Minute {
			t.Errorf("the machine of the late source was copied after %s", late)
		}
		if n := reads.Load(); n > machines+1 {
			t.Errorf("%d reads of %d machines", n, machines)
		}
		for _, task := range s.Tasks {
			if attempts := task.Points[0].Attempts; attempts != 1 {
				t.Errorf("%s took %d attempts", task.Machine.Name, attempts)
			}
		}
	})
}

// A session of a server whose interval has no end does not stand for days behind a source that does not answer: the next one of the job
// could not begin. Storage that is merely slow it waits for.
func TestSourceThatIsListedLateWithoutAnInterval(t *testing.T) {
	for after, want := range map[time.Duration]job.Result{72 * time.Hour: job.ResultWaits, 10 * time.Minute: job.ResultDone} {
		synctest.Test(t, func(t *testing.T) {
			l, _ := withShare(t, after)
			began := time.Now()
			l.setup.Wait, l.setup.Host.Start = 7*24*time.Hour, began
			s := l.run(want)
			if took := time.Since(began); s.Copied() == 0 || took > 20*time.Minute {
				t.Errorf("after %s:\n%s", took, l.describe(s))
			}
			time.Sleep(after)
			synctest.Wait()
		})
	}
}

// Who does not wait copies what is there, and says of the source that it does not answer. Nothing of it is taken for gone.
func TestSourceThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, late := withShare(t, 0)
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		late.from = time.Now().Add(3 * time.Hour)
		l.points = append(l.points, day("b", 2))
		began := time.Now()
		s := l.run(job.ResultWaits)
		l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		if took := time.Since(began); took > 5*time.Minute || s.Sources[0].State != job.StateUnreadable || s.Sources[1].State != job.StateReady {
			t.Errorf("after %s: %+v", took, s.Sources)
		}
		for _, task := range s.Tasks {
			if task.State == job.TaskMissing {
				t.Errorf("%s is missing", task.Machine.Name)
			}
		}
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if e := l.explain(); len(e.Plan.Steps(plan.ActionKeep)) != 3 {
			t.Errorf("%+v", e.Plan.Machines)
		}
	})
}

// A list that takes longer than is waited for is taken when it has come: storage that is merely slow is copied from.
func TestSlowListIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := withShare(t, 4*time.Minute)
		l.setup.Wait = 12 * time.Hour
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	})
}

// One source that does not answer is waited for as long as it takes, also by who waits for nothing else.
func TestTheOnlySourceIsListedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := withShare(t, 4*time.Minute)
		l.setup.Sources = l.setup.Sources[:1]
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			return repo.Open(ctx, l.store, repo.Environment{})
		}
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	})
}

// The window closes while a source is listed that is waited for. What was found until then is not taken for what the source has: it is
// listed anew.
func TestWindowClosesWhileALateSourceIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, late := withShare(t, 0)
		l.setup.Job.Window, l.setup.Wait = closedWindow(t), 48*time.Hour
		closes, _ := l.setup.Job.Window.Change(time.Now())
		l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
			select {
			case <-time.After(time.Until(closes.Add(30 * time.Minute))):
				return sourcetest.Open(t, late.points...), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	})
}

// Since when a source does not answer is said as it was when the others were listed, also if it has answered something since.
func TestSinceWhenASourceDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, late := withShare(t, 10*time.Minute)
		late.points = nil
		began := time.Now()
		l.setup.Sources[1] = job.Place{Origin: origin(t, "tape"), Open: func(ctx context.Context) (*registry.Source, error) {
			select {
			case <-time.After(7 * time.Minute):
				answer.Of("/tape").Heard()
			case <-ctx.Done():
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		s := l.run(job.ResultWaits)
		if want := "it does not answer since " + policy.ShowTime(began.Add(answer.TellAfter), nil); s.Sources[1].Reason != want {
			t.Errorf("%q, not %q", s.Sources[1].Reason, want)
		}
	})
}

// However many sources do not answer, the end of a session waits for them only as long as for one.
func TestSessionEndsWhileSourcesAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, day("b", 1))
		l.onClock()
		answers := make(chan struct{})
		for _, name := range []string{"share", "tape", "nas"} {
			l.setup.Sources = append(l.setup.Sources, job.Place{Origin: origin(t, name), Open: func(context.Context) (*registry.Source, error) {
				<-answers
				return sourcetest.Open(t), nil
			}})
		}
		var worked time.Time
		l.setup.Host.Leaving = func(context.Context, *repo.Repository) { worked = time.Now() }
		l.wantCounts(l.run(job.ResultWaits), "1 copied, 0 claimed, 0 failed, 0 removed")
		if took := time.Since(worked); took > answer.Patience {
			t.Errorf("it ended after %s", took)
		}
		close(answers)
		synctest.Wait()
	})
}
