package job_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

const (
	// hangingSize is the size of a machine of which nothing is read from hangsAt on until it answers.
	hangingSize, hangsAt = 8 << 20, 5 << 20
)

// hanging are machines whose disks can be read up to a place only, until they answer.
type hanging struct {
	mu      sync.Mutex
	points  []*sourcetest.Point
	answers chan struct{}
	// reads counts what was asked for, by point and offset.
	reads map[string]map[int64]int
}

func newHanging(names ...string) *hanging {
	h := &hanging{answers: make(chan struct{}), reads: map[string]map[int64]int{}}
	for i, name := range names {
		data := make([]byte, hangingSize)
		_, _ = rand.NewChaCha8([32]byte{byte(i), 1}).Read(data)
		p := day(name, 1)
		p.Objects = []sourcetest.Object{{Name: "vda", Data: data, Access: source.AccessRandom}}
		p.OnRead = func(_ int, offset int64, n int) (int, error) {
			h.read(name, offset)
			return n, nil
		}
		p.OnPiece = func(piece sourcetest.Piece) error {
			h.read(name, piece.Offset)
			return nil
		}
		h.points, h.reads[name] = append(h.points, p), map[int64]int{}
	}
	return h
}

func (h *hanging) read(name string, offset int64) {
	h.mu.Lock()
	h.reads[name][offset]++
	h.mu.Unlock()
	if offset >= hangsAt {
		<-h.answers
	}
}

// wantReads fails the test unless of each disk all was read, what had been read before it hung once, and the rest at most twice.
func (h *hanging) wantReads(t *testing.T) {
	t.Helper()
	for _, p := range h.points {
		if p.Objects[0].Access != source.AccessRandom {
			continue
		}
		for offset := int64(0); offset < hangingSize; offset += 1 << 20 {
			if n := h.reads[p.Machine.Name][offset]; n < 1 || n > 2 || n > 1 && offset < hangsAt {
				t.Errorf("%s: what lies at %d was read %d times", p.Machine.Name, offset, n)
			}
		}
		if p.Opened.Load() != p.Closed.Load() {
			t.Errorf("%s was opened %d times and closed %d times", p.Machine.Name, p.Opened.Load(), p.Closed.Load())
		}
	}
}

// onClock makes the clock of a bubble that of the lab.
func (l *lab) onClock() {
	l.setup.Now, l.setup.Pause = time.Now, nil
	l.store.SetClock(time.Now)
	l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
		return repo.Open(ctx, l.store, repo.Environment{})
	}
}

// wantWhole fails the test unless the target has all points, and no damage.
func (l *lab) wantWhole(store *memory.Store) {
	l.t.Helper()
	r, err := repo.Open(l.t.Context(), store, repo.Environment{})
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	for _, p := range l.points {
		if !r.Has(p.ID()) {
			l.t.Errorf("%s is not there", p.Native)
		}
	}
	if report, err := r.Verify(l.t.Context(), nil); err != nil || len(report.Damage) > 0 {
		l.t.Errorf("%v %v", report.Damage, err)
	}
}

// The window closes while several machines are copied, each of which hangs: the session waits for the window within 30 s, with a
// checkpoint of each. When it opens again all go on, and nothing is read again but what was not read to its end.
func TestWindowClosesOverMachinesAtOnce(t *testing.T) {
	h := newHanging("a", "b", "c", "d")
	h.points[3].Objects[0].Access = source.AccessOnePass
	inBubble(t, job.NewSlots(4), func() []*sourcetest.Point { return h.points }, func(l *lab) {
		h.answers = make(chan struct{}) // the bubble's
		l.onClock()
		l.setup.Wait, l.setup.Job.Window = 48*time.Hour, closedWindow(t)
		closes, _ := l.setup.Job.Window.Change(time.Now())
		var waitedAt time.Time
		partials := 0
		l.setup.Host.Waits = func(wait job.Wait) {
			if waitedAt.IsZero() && wait.Kind == job.WaitWindow {
				waitedAt, partials = time.Now(), len(l.store.Names("partials/"))
				time.AfterFunc(time.Hour, func() { close(h.answers) })
			}
		}
		s := l.run(job.ResultDone)
		if late := waitedAt.Sub(closes); late < 0 || late > 30*time.Second {
			t.Errorf("the session waits %s after the window has closed\n%s", late, l.describe(s))
		}
		if partials != 4 {
			t.Errorf("%d checkpoints were there then", partials)
		}
		l.wantCounts(s, "4 copied, 0 claimed, 0 failed, 0 removed")
		for _, task := range s.Tasks {
			if again := task.Points[0]; again.StoredBytes > hangingSize-hangsAt+1<<20 {
				t.Errorf("%s: %d bytes were stored by the second attempt", task.Machine.Name, again.StoredBytes)
			}
		}
		synctest.Wait()
		h.wantReads(t)
		l.wantWhole(l.store)
	})
}

// The interval ends while machines are copied at once and others wait for a slot: all that were chosen are copied, also what has
// to be tried again, and nothing more is looked for.
func TestIntervalEndsOverMachinesAtOnce(t *testing.T) {
	inBubble(t, job.NewSlots(2), machines("a", "b", "c", "d"), func(l *lab) {
		l.onClock()
		l.setup.Host.Interval = policy.Interval{Begins: time.Now(), Ends: time.Now().Add(time.Hour)}
		watched := &observed{gate: make(chan struct{})}
		watched.watch(l.points...)
		fails, watch := true, l.points[1].OnRead
		l.points[1].OnRead = func(object int, offset int64, n int) (int, error) {
			if n, err := watch(object, offset, n); !fails {
				return n, err
			}
			fails = false
			return 0, errors.New("connection reset")
		}
		wait := l.begin(l.t.Context())
		time.Sleep(2 * time.Hour)
		if begun := len(watched.begun); begun != 2 {
			t.Errorf("%d machines were begun when the interval ended", begun)
		}
		l.points = append(l.points, day("e", 1))
		close(watched.gate)
		s := wait()
		l.wantCounts(s, "4 copied, 0 claimed, 0 failed, 0 removed")
		if s.Result != job.ResultDone || watched.most != 2 {
			t.Errorf("%s; %d at once", s.Result, watched.most)
		}
	})
}

// One machine hangs, one is locked, one fails for good and one for the moment. The others are copied meanwhile, in the slot that is
// left, and are durable within the time that a copy may lose, though the one that hangs is not done.
func TestTroubleOfOthersAtOnce(t *testing.T) {
	h := newHanging("a")
	inBubble(t, job.NewSlots(2), func() []*sourcetest.Point {
		return append(h.points, machines("b", "c", "d", "e")()...)
	}, func(l *lab) {
		h.answers = make(chan struct{})
		l.onClock()
		l.edit = func(opened *registry.Source) {
			for i := range opened.Points {
				if p := &opened.Points[i]; p.Machine.Name == "b" {
					p.State, p.Reason, p.Opener = backup.StateLocked, "vzdump writes it", nil
					p.Files = append(p.Files, sourceFile(time.Now().Add(-time.Minute)))
				}
			}
		}
		broken, passing := l.points[2], l.points[3]
		broken.OnRead = func(int, int64, int) (int, error) { return 0, backup.ErrBroken }
		passing.OnRead = func(int, int64, int) (int, error) {
			passing.OnRead = nil
			return 0, errors.New("connection reset")
		}
		wait := l.begin(l.t.Context())
		time.Sleep(time.Minute)
		if r := l.target(); !r.Has(l.points[4].ID()) || len(r.Entries()) != 1 {
			t.Errorf("while one machine hangs the target has %d points", len(r.Entries()))
		}
		close(h.answers)
		s := wait()
		l.wantCounts(s, "3 copied, 0 claimed, 1 failed, 0 removed")
		for i, want := range []job.TaskState{job.TaskCopied, job.TaskWaits, job.TaskFailed, job.TaskCopied, job.TaskCopied} {
			if s.Tasks[i].State != want {
				t.Errorf("%s is %s, want %s", s.Tasks[i].Machine.Name, s.Tasks[i].State, want)
			}
		}
		if s.Result != job.ResultPartly {
			t.Errorf("%s", s.Result)
		}
		h.wantReads(t)
	})
}

// A session is stopped while several machines are copied that hang. In order: within 30 s there is a checkpoint of each, and the
// next session reads nothing again but what was not read to its end. At once: nothing more is written down.
func TestStopOfMachinesAtOnce(t *testing.T) {
	for cause, checkpoints := range map[error]int{job.ErrLeft: 3, errors.New("a person's wish"): 3, job.ErrStopNow: 0} {
		h := newHanging("a", "b", "c")
		inBubble(t, job.NewSlots(0), func() []*sourcetest.Point { return h.points }, func(l *lab) {
			h.answers = make(chan struct{})
			l.onClock()
			ctx, stop := context.WithCancelCause(l.t.Context())
			wait := l.begin(ctx)
			stopped := time.Now()
			stop(cause)
			s := wait()
			if took := time.Since(stopped); took > 30*time.Second || s.Result != job.ResultInterrupted || s.Copied()+s.Failed() != 0 {
				t.Errorf("%v: %s after %s\n%s", cause, s.Result, took, l.describe(s))
			}
			if n := len(l.store.Names("partials/")); n != checkpoints {
				t.Errorf("%v: %d checkpoints", cause, n)
			}
			close(h.answers)
			l.wantCounts(l.run(job.ResultDone), "3 copied, 0 claimed, 0 failed, 0 removed")
			synctest.Wait()
			if checkpoints > 0 {
				h.wantReads(t)
			}
			l.wantWhole(l.store)
		})
	}
}

// A session that is stopped at once does not wait for a target that takes hours to take what it was given.
func TestStopAtOnceOfASlowTarget(t *testing.T) {
	inBubble(t, job.NewSlots(0), machines("a", "b", "c"), func(l *lab) {
		l.onClock()
		ctx, stop := context.WithCancelCause(l.t.Context())
		slow := true
		l.store.SetLatency(func(op memory.Op, size int) time.Duration {
			if slow && op == memory.OpWrite {
				return time.Hour
			}
			return 0
		})
		wait := l.begin(ctx)
		stopped := time.Now()
		stop(job.ErrStopNow)
		if s := wait(); time.Since(stopped) > answer.Patience || s.Result != job.ResultInterrupted || s.Copied() != 0 {
			t.Errorf("%s after %s\n%s", s.Result, time.Since(stopped), l.describe(s))
		}
		slow = false
		l.wantCounts(l.run(job.ResultDone), "3 copied, 0 claimed, 0 failed, 0 removed")
		l.wantWhole(l.store)
	})
}
