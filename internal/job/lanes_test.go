package job_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/policy"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// observed notes how many points are read at once. Each read waits for the gate, if there is one.
type observed struct {
	mu           sync.Mutex
	inside, most int
	begun        []string
	gate         chan struct{}
}

func (o *observed) watch(points ...*sourcetest.Point) {
	for _, p := range points {
		p.OnRead = func(_ int, offset int64, n int) (int, error) {
			if offset > 0 {
				return n, nil
			}
			o.mu.Lock()
			o.inside++
			o.most = max(o.most, o.inside)
			o.begun = append(o.begun, p.Native)
			o.mu.Unlock()
			if o.gate != nil {
				<-o.gate
			}
			o.mu.Lock()
			o.inside--
			o.mu.Unlock()
			return n, nil
		}
	}
}

// order in which machines were begun.
func (o *observed) order() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.begun, " ")
}

// inBubble is a lab whose clock is that of the bubble, and whose machines are copied by the slots given.
func inBubble(t *testing.T, slots *job.Slots, points func() []*sourcetest.Point, test func(l *lab)) {
	for _, codec := range []mover.Codec{mover.CodecS2, mover.CodecZstd} { // what all repositories share must not be the bubble's
		warm := newLab(t, day("a", 1))
		warm.setup.Copy.Codec = codec
		warm.run(job.ResultDone)
		if report, err := warm.target().Verify(t.Context(), nil); err != nil || report.DamagedPoints > 0 {
			t.Fatal(report, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, points()...)
		l.setup.Host.Slots = slots
		test(l)
	})
}

// begin runs a session beside the test.
func (l *lab) begin(ctx context.Context) (wait func() *job.Session) {
	ended := make(chan *job.Session, 1)
	go func() { ended <- job.Run(ctx, l.setup) }()
	synctest.Wait()
	return func() *job.Session { return <-ended }
}

func machines(names ...string) func() []*sourcetest.Point {
	return func() (points []*sourcetest.Point) {
		for _, name := range names {
			points = append(points, day(name, 1))
		}
		return points
	}
}

// As many machines are in progress at the same time as there are slots, in the order of the plan, and the report is in that
// order whichever is done first.
func TestMachinesAreCopiedAtOnce(t *testing.T) {
	for slots, want := range map[int]string{1: "a1", 2: "a1 b1", 0: "a1 b1 c1"} {
		inBubble(t, job.NewSlots(slots), machines("a", "b", "c"), func(l *lab) {
			watched := &observed{gate: make(chan struct{})}
			watched.watch(l.points...)
			wait := l.begin(l.t.Context())
			begun := strings.Fields(watched.order())
			slices.Sort(begun)
			if got := strings.Join(begun, " "); got != want {
				t.Errorf("%d slots: %q were begun before any could be read, want %q", slots, got, want)
			}
			close(watched.gate)
			s := wait()
			l.wantCounts(s, "3 copied, 0 claimed, 0 failed, 0 removed")
			for i, name := range []string{"a", "b", "c"} {
				if s.Tasks[i].Machine.Name != name {
					t.Errorf("task %d is of %s", i, s.Tasks[i].Machine.Name)
				}
			}
			if most := len(strings.Fields(want)); watched.most != most {
				t.Errorf("%d slots: %d at once", slots, watched.most)
			}
		})
	}
}

// The points of a machine are copied one after the other, oldest first, whatever slots there are.
func TestPointsOfAMachineStayInOrder(t *testing.T) {
	inBubble(t, job.NewSlots(0), func() []*sourcetest.Point {
		return []*sourcetest.Point{day("a", 3), day("a", 1), day("b", 1), day("a", 2)}
	}, func(l *lab) {
		l.setup.Job.Lookup.Backfill, l.now = policy.BackfillAll, l.now.AddDate(0, 0, 3)
		watched := &observed{}
		watched.watch(l.points...)
		wait := l.begin(l.t.Context())
		s := wait()
		var ofA []string
		for _, native := range strings.Fields(watched.order()) {
			if native[0] == 'a' {
				ofA = append(ofA, native)
			}
		}
		if !slices.Equal(ofA, []string{"a1", "a2", "a3"}) || s.Copied() != 4 {
			t.Errorf("%q of machine a, %s", ofA, counts(s))
		}
	})
}

// A source with one slot has one machine copied at a time; machines of another source go on meanwhile, before it is their turn.
func TestSlotsOfASource(t *testing.T) {
	inBubble(t, job.NewSlots(0), machines("a", "b", "c"), func(l *lab) {
		other := day("d", 1)
		l.setup.Sources[0].Origin.Repository.Slots = 1
		l.setup.Sources = append(l.setup.Sources, job.Place{Origin: origin(t, "second"), Open: func(context.Context) (*registry.Source, error) {
			return sourcetest.Open(l.t, other), nil
		}})
		watched := &observed{gate: make(chan struct{})}
		watched.watch(append([]*sourcetest.Point{other}, l.points...)...)
		wait := l.begin(l.t.Context())
		begun := strings.Fields(watched.order())
		slices.Sort(begun)
		if !slices.Equal(begun, []string{"a1", "d1"}) {
			t.Errorf("begun: %q", begun)
		}
		close(watched.gate)
		l.wantCounts(wait(), "4 copied, 0 claimed, 0 failed, 0 removed")
		if watched.most > 2 {
			t.Errorf("%d at once", watched.most)
		}
	})
}

// What was copied is committed before another job is waited for, which is told; and the slots of a repository are shared: the
// other job comes to its turn between two machines.
func TestSlotsAreSharedBetweenJobs(t *testing.T) {
	inBubble(t, job.NewSlots(0), machines("a", "b", "c"), func(l *lab) {
		l.setup.Target.Slots = 1
		watched := &observed{gate: make(chan struct{})}
		watched.watch(l.points...)
		var waits []job.Wait
		l.setup.Host.Waits = func(wait job.Wait) { waits = append(waits, wait) }
		wait := l.begin(l.t.Context())
		other := *l
		other.setup.Job.Name, other.setup.Host.Waits = "other", nil
		watchedOther := &observed{gate: make(chan struct{})}
		other.points = machines("x")()
		other.setup.Sources = []job.Place{{Origin: l.setup.Sources[0].Origin, Open: other.openSource}}
		watchedOther.watch(other.points...)
		waitOther := other.begin(l.t.Context())
		if watched.order() != "a1" || watchedOther.order() != "" {
			t.Errorf("begun: %q, %q", watched.order(), watchedOther.order())
		}
		watched.gate <- struct{}{} // b waits longer than x
		synctest.Wait()
		watched.gate <- struct{}{}
		synctest.Wait()
		if watched.order() != "a1 b1" || watchedOther.order() != "x1" {
			t.Errorf("then begun: %q, %q", watched.order(), watchedOther.order())
		}
		if n := len(l.target().Entries()); n != 2 {
			t.Errorf("while another job is waited for the target has %d points", n)
		}
		if len(waits) == 0 || waits[len(waits)-1].Kind != job.WaitSlot || !strings.Contains(waits[len(waits)-1].Text, "repository vault, for other") {
			t.Errorf("waits for %+v", waits)
		}
		close(watchedOther.gate)
		other.wantCounts(waitOther(), "1 copied, 0 claimed, 0 failed, 0 removed")
		close(watched.gate)
		l.wantCounts(wait(), "3 copied, 0 claimed, 0 failed, 0 removed")
		if watched.most != 1 || waits[len(waits)-1] != (job.Wait{}) {
			t.Errorf("%d at once; waits %+v", watched.most, waits)
		}
	})
}

// Between two points of a machine its slot goes to another job that waits for one, and what is copied is committed before.
func TestSlotIsGivenToAnotherJobBetweenPoints(t *testing.T) {
	inBubble(t, job.NewSlots(1), func() []*sourcetest.Point { return []*sourcetest.Point{day("a", 1), day("a", 2)} }, func(l *lab) {
		l.setup.Job.Lookup.Backfill, l.now = policy.BackfillAll, l.now.AddDate(0, 0, 3)
		watched := &observed{gate: make(chan struct{})}
		watched.watch(l.points...)
		wait := l.begin(l.t.Context())
		other := *l
		other.setup.Job.Name, other.points = "other", machines("x")()
		other.setup.Sources = []job.Place{{Origin: l.setup.Sources[0].Origin, Open: other.openSource}}
		watchedOther := &observed{gate: make(chan struct{})}
		watchedOther.watch(other.points...)
		waitOther := other.begin(l.t.Context())
		watched.gate <- struct{}{}
		synctest.Wait()
		if watched.order() != "a1" || watchedOther.order() != "x1" || len(l.target().Entries()) != 1 {
			t.Errorf("begun: %q, %q; the target has %d points", watched.order(), watchedOther.order(), len(l.target().Entries()))
		}
		close(watchedOther.gate)
		other.wantCounts(waitOther(), "1 copied, 0 claimed, 0 failed, 0 removed")
		close(watched.gate)
		l.wantCounts(wait(), "2 copied, 0 claimed, 0 failed, 0 removed")
	})
}

// However many slots there are, a job copies no more than sixteen machines at once.
func TestNoMoreThanSixteenAtOnce(t *testing.T) {
	inBubble(t, job.NewSlots(0), func() (points []*sourcetest.Point) {
		for n := range 20 {
			points = append(points, day(string(rune('a'+n)), 1))
		}
		return points
	}, func(l *lab) {
		watched := &observed{gate: make(chan struct{})}
		watched.watch(l.points...)
		wait := l.begin(l.t.Context())
		close(watched.gate)
		l.wantCounts(wait(), "20 copied, 0 claimed, 0 failed, 0 removed")
		if watched.most != 16 {
			t.Errorf("%d at once", watched.most)
		}
	})
}

// One machine's failure while others are copied at the same time is its own.
func TestFailureBesideOthers(t *testing.T) {
	inBubble(t, job.NewSlots(0), machines("a", "b", "c"), func(l *lab) {
		watched := &observed{gate: make(chan struct{})}
		watched.watch(l.points[0], l.points[2])
		l.points[1].OnRead = func(int, int64, int) (int, error) { return 0, backup.ErrBroken }
		wait := l.begin(l.t.Context())
		close(watched.gate)
		s := wait()
		l.wantCounts(s, "2 copied, 0 claimed, 1 failed, 0 removed")
		if s.Result != job.ResultPartly || s.Tasks[1].State != job.TaskFailed || watched.most != 2 {
			t.Errorf("%s, b is %s, %d others at once", s.Result, s.Tasks[1].State, watched.most)
		}
	})
}

// A target that cannot be written to ends all machines that are in progress, and none begins after that.
func TestTargetFailsBesideOthers(t *testing.T) {
	l := newLab(t, machines("a", "b", "c", "d")()...)
	l.setup.Host.Slots = job.NewSlots(2)
	wrong := errors.New("no more")
	l.store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpCreate && strings.HasPrefix(name, "packs/") {
			return wrong
		}
		return nil
	})
	s := job.Run(t.Context(), l.setup)
	if s.Copied() != 0 || !errors.Is(s.Err, wrong) {
		t.Errorf("%s: %v\n%s", s.Result, s.Err, l.describe(s))
	}
	l.store.SetFault(nil)
	l.wantCounts(l.run(job.ResultDone), "4 copied, 0 claimed, 0 failed, 0 removed")
}

// To stop at once ends all machines that are in progress; after a graceful stop each goes on from its own checkpoint.
func TestStopEndsAllThatAreInProgress(t *testing.T) {
	for _, cause := range []error{job.ErrStopNow, job.ErrLeft} {
		inBubble(t, job.NewSlots(0), machines("a", "b", "c"), func(l *lab) {
			watched := &observed{gate: make(chan struct{})}
			watched.watch(l.points...)
			ctx, stop := context.WithCancelCause(l.t.Context())
			wait := l.begin(ctx)
			stop(cause)
			close(watched.gate)
			s := wait()
			if s.Result != job.ResultInterrupted || s.Copied() != 0 || s.Failed() != 0 {
				t.Errorf("%v: %s\n%s", cause, s.Result, l.describe(s))
			}
			for _, p := range l.points {
				p.OnRead = nil
				if p.Opened.Load() != p.Closed.Load() {
					t.Errorf("%s is still open", p.Native)
				}
			}
			l.wantCounts(l.run(job.ResultDone), "3 copied, 0 claimed, 0 failed, 0 removed")
		})
	}
}

// Machines that are copied at once take no more of the target than one after the other, and few packs.
func TestSimilarMachinesAtOnceStoreAsMuch(t *testing.T) {
	stored := func(slots int) (bytes, packs int64) {
		points := machines("a", "b", "c", "d")()
		for i, p := range points {
			data := make([]byte, 1<<20)
			for at := range data {
				data[at] = byte(at>>12 + at>>7*at)
			}
			copy(data, strings.Repeat(string(rune('a'+i)), 5000)) // else all alike
			p.Objects[0].Data = data
		}
		l := newLab(t, points...)
		l.setup.Copy.Codec = "none"
		l.setup.Host.Slots = job.NewSlots(slots)
		s := l.run(job.ResultDone)
		for _, p := range s.Tasks {
			bytes += p.Points[0].StoredBytes
		}
		r := l.target()
		for _, p := range points {
			if !r.Has(p.ID()) {
				t.Errorf("%s is not there", p.Native)
			}
		}
		last, _ := r.LastRun(t.Context())
		return bytes, last.Packs
	}
	apart, packsApart := stored(1)
	atOnce, packs := stored(4)
	if apart != atOnce || packs != packsApart {
		t.Errorf("one after the other %d bytes in %d packs, at once %d in %d", apart, packsApart, atOnce, packs)
	}
}
