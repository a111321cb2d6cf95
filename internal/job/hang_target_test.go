package job_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// hung is a lab by the clock of a bubble whose target stops answering what is written. It returns when the target answers again, and
// is written then.
type hung struct {
	*lab
	point *sourcetest.Point
	// answers is closed when it answers; nil: it does.
	answers atomic.Pointer[chan struct{}]
	// asked counts what was asked of it while it did not.
	asked atomic.Int64
}

const hungSize = 8 << 20

// newHung copies a point of which half is read when reached is called, for the first time.
func newHung(t *testing.T, reached func()) *hung {
	p := day("a", 1)
	data := make([]byte, hungSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	p.Objects = []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}}
	h := &hung{lab: newLab(t, p), point: p}
	var first sync.Once
	p.OnRead = func(_ int, offset int64, n int) (int, error) {
		if offset >= hungSize/2 {
			first.Do(reached)
		}
		return n, nil
	}
	h.setup.Now, h.setup.Pause = time.Now, nil
	h.store.SetClock(time.Now)
	h.store.SetFault(func(op memory.Op, _ string) error {
		if op != memory.OpWrite { // others are asked with locks held, for which a bubble's clock does not go on
			return nil
		}
		if answers := h.answers.Load(); answers != nil {
			h.asked.Add(1)
			<-*answers
		}
		return nil
	})
	h.setup.Target.Location = t.Name()
	h.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
		return repo.Open(ctx, storage.Answering(h.store, answer.Of(t.Name())), repo.Environment{})
	}
	h.setup.Host.Interval = policy.Interval{Begins: time.Now(), Ends: time.Now().Add(48 * time.Hour)}
	return h
}

func (h *hung) hang() {
	answers := make(chan struct{})
	h.answers.Store(&answers)
}

func (h *hung) answer() {
	answers := h.answers.Swap(nil)
	close(*answers)
}

// whole fails the test unless the target is whole and has the point.
func (h *hung) whole() {
	h.t.Helper()
	stored, err := repo.Open(h.t.Context(), h.store, repo.Environment{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer stored.Close()
	if report, err := stored.Verify(h.t.Context(), nil); err != nil || len(report.Damage) > 0 || len(stored.Entries()) != 1 {
		h.t.Errorf("%v %v, %d points", report, err, len(stored.Entries()))
	}
}

// The target stops answering in the middle of a copy, for hours. When the window closes the session waits for the target within
// 30 s; when it answers again and the window is open, the same session copies what is left.
func TestWindowClosesWhileTheTargetHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *hung
		h = newHung(t, func() {
			h.hang()
			time.AfterFunc(20*time.Hour, h.answer)
		})
		h.setup.Job.Window = closedWindow(t)
		closes, _ := h.setup.Job.Window.Change(time.Now())
		var ended []time.Time
		h.setup.Host.PhaseEnded = func(p job.Phase) {
			if p.Name == job.PhaseSynchronize {
				ended = append(ended, p.Ended)
			}
		}
		s := h.run(job.ResultDone)
		// It waits for the window, and looks a minute later.
		if late := ended[0].Sub(closes); len(ended) != 2 || late < 0 || late > 30*time.Second+time.Minute {
			t.Errorf("copying ended %s after the window has closed, %d times\n%s", late, len(ended), h.describe(s))
		}
		h.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
		synctest.Wait()
		if opened, closed := h.point.Opened.Load(), h.point.Closed.Load(); opened != 2 || closed != 2 {
			t.Errorf("opened %d times, closed %d times", opened, closed)
		}
		if n := h.asked.Load(); n != 1 {
			t.Errorf("%d calls hung", n)
		}
		h.whole()
	})
}

// However a session is told to end, it does within 30 s though its target hangs, and what is left behind does no harm when the
// target answers, while another session copies to it.
func TestSessionEndsWhileTheTargetHangs(t *testing.T) {
	for name, cause := range map[string]error{"the server ends": job.ErrLeft, "at once": job.ErrStopNow, "after a checkpoint": errors.New("stopped")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				defer stop(nil)
				var h *hung
				var told time.Time
				h = newHung(t, func() {
					h.hang()
					time.AfterFunc(time.Hour, func() {
						told = time.Now()
						stop(cause)
					})
				})
				s := job.Run(ctx, h.setup)
				if took := time.Since(told); s.Result != job.ResultInterrupted || told.IsZero() || took > 30*time.Second {
					t.Errorf("%s, %s after it was told to end", s.Result, took)
				}
				waits := ""
				h.setup.Host.Waits = func(wait job.Wait) { waits += wait.Text + "\n" }
				time.AfterFunc(time.Hour, h.answer)
				h.wantCounts(h.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
				if !strings.HasPrefix(waits, "target unreadable: it does not answer: what was asked of it 2000-01-01") {
					t.Errorf("it waited for %q", waits)
				}
				synctest.Wait()
				h.whole()
			})
		})
	}
}

// A target that answers nothing for hours, in the middle of a copy that nothing ends, is told of, and meanwhile the session's slot is
// another job's. When the target answers, the copy goes on where it was: however long it takes, nothing is given up.
func TestTargetThatHangsIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := job.NewSlots(1)
		other := newLab(t, day("b", 1))
		other.setup.Host.Slots, other.setup.Job.Name = slots, "other"
		var hangs time.Time
		var others sync.WaitGroup
		var h *hung
		h = newHung(t, func() {
			h.hang()
			hangs = time.Now()
			others.Go(func() { other.wantCounts(other.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed") })
			time.AfterFunc(20*time.Hour, func() {
				others.Wait()
				h.answer()
			})
		})
		h.setup.Host.Slots = slots
		var waits []job.Wait
		var told, ended time.Time
		h.setup.Host.Waits = func(wait job.Wait) {
			if waits = append(waits, wait); wait.Kind == job.WaitTarget {
				told = time.Now()
			} else {
				ended = time.Now()
			}
		}
		h.wantCounts(h.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
		if len(waits) != 2 || waits[0].State != job.StateUnreadable || waits[0].Reason != "it does not answer since 2000-01-01 00:00 UTC" || waits[1] != (job.Wait{}) {
			t.Errorf("%+v", waits)
		}
		if late := told.Sub(hangs); late < answer.TellAfter || late > answer.TellAfter+time.Minute || ended.Sub(hangs) < 20*time.Hour {
			t.Errorf("told %s after it hung, and that it answers %s after", late, ended.Sub(hangs))
		}
		if n := h.point.Opened.Load(); n != 1 {
			t.Errorf("the point was opened %d times", n)
		}
		h.whole()
	})
}

// A source of which the list does not come is told of.
func TestSourceThatHangsIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, day("a", 1))
		l.setup.Now, l.setup.Pause = time.Now, nil
		l.store.SetClock(time.Now)
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			return repo.Open(ctx, l.store, repo.Environment{})
		}
		l.setup.Sources[0].Origin.Repository.Location = t.Name()
		open := l.setup.Sources[0].Open
		var hangs sync.Once
		l.setup.Sources[0].Open = func(ctx context.Context) (*registry.Source, error) {
			hangs.Do(func() { time.Sleep(5 * time.Hour) })
			return open(ctx)
		}
		var waits []job.Wait
		l.setup.Host.Waits = func(wait job.Wait) { waits = append(waits, wait) }
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
		if len(waits) != 2 || waits[0].Kind != job.WaitSource || waits[0].Text != "source pve is unreadable: it does not answer since 2000-01-01 00:00 UTC" {
			t.Errorf("%+v", waits)
		}
	})
}

// While one of two sources does not answer, and machines of the other are copied, the session's slots stay its own.
func TestSlotsAreKeptWhileAnotherSourceAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		slots := job.NewSlots(2)
		other := newLab(t, day("c", 1))
		other.setup.Host.Slots, other.setup.Job.Name = slots, "other"
		read := func(name string, each func()) *sourcetest.Point {
			p := day(name, 1)
			data := make([]byte, 48<<20)
			_, _ = rand.NewChaCha8([32]byte{name[0]}).Read(data)
			p.Objects = []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}}
			p.OnRead = func(_ int, _ int64, n int) (int, error) { each(); return n, nil }
			return p
		}
		var slowEnds atomic.Pointer[time.Time]
		var otherEnds time.Time
		var hung atomic.Bool
		var others sync.WaitGroup
		hangs := read("a", func() {
			if !hung.Swap(true) {
				others.Go(func() { time.Sleep(time.Minute); other.run(job.ResultDone); otherEnds = time.Now() })
				time.Sleep(48 * time.Hour)
			}
		})
		slow := read("b", func() {
			time.Sleep(time.Minute)
			now := time.Now()
			slowEnds.Store(&now)
		})
		l := newLab(t)
		l.setup.Now, l.setup.Pause, l.setup.Host.Slots = time.Now, nil, slots
		l.store.SetClock(time.Now)
		l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
			return repo.Open(ctx, l.store, repo.Environment{})
		}
		l.setup.Sources = nil
		for _, p := range []*sourcetest.Point{hangs, slow} {
			of := origin(t, p.Machine.Name)
			of.Repository.Location = t.Name() + p.Machine.Name
			l.setup.Sources = append(l.setup.Sources, job.Place{Origin: of, Open: func(context.Context) (*registry.Source, error) {
				opened := sourcetest.Open(t, p)
				opened.Root.SetCalls(answer.Of(of.Repository.Location))
				return opened, nil
			}})
		}
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		others.Wait()
		ends := *slowEnds.Load()
		if busy := ends.Sub(began); busy < 5*answer.TellAfter || otherEnds.Before(ends) {
			t.Errorf("the other source was read for %s, and the other job had a slot %s before that ended", busy, ends.Sub(otherEnds))
		}
	})
}
