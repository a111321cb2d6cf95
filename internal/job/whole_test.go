package job_test

import (
	"errors"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/source/sourcetest"
)

// everyWeek is a job that holds a point of each of two machines, and whose turn of reading whole has just come.
func everyWeek(t *testing.T) *lab {
	l := newLab(t, day("a", 1), day("b", 1))
	l.setup.Job.FullFromSource = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 7}}
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	l.now = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	return l
}

// A turn in which nothing could be read is not over: not while the window is closed, and not while the source is away.
func TestWholeIsOwedUntilItIsRead(t *testing.T) {
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for what, hinder := range map[string]func(*lab) (undo func()){
		"window": func(l *lab) func() {
			l.setup.Job.Window = window
			return func() { l.setup.Job.Window = policy.Window{} }
		},
		"source": func(l *lab) func() {
			l.sourceErr = errors.New("input/output error")
			return func() { l.sourceErr = nil }
		},
		"machine": func(l *lab) func() {
			points := l.points
			l.points = []*sourcetest.Point{day("c", 3)}
			return func() { l.points = points }
		},
	} {
		l := everyWeek(t)
		undo := hinder(l)
		if s := job.Run(t.Context(), l.setup); s.Result == job.ResultFailed || s.Failed() > 0 {
			t.Fatalf("%s: %s\n%s", what, s.Reason, l.describe(s))
		}
		undo()
		l.now = l.now.AddDate(0, 0, 1)
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		for _, p := range l.points {
			if read, err := l.target().ReadPoint(t.Context(), p.ID()); err != nil || !read.Sealed {
				t.Errorf("%s: not read whole: %v", what, err)
			}
		}
		l.wantCounts(l.run(job.ResultDone), "0 copied, 0 claimed, 0 failed, 0 removed")
	}
}

// A machine that cannot be read whole owes its turn alone: the others are not read again, and a person who has them all read
// whole does not owe them for that.
func TestLastingTroubleOwesAlone(t *testing.T) {
	l := everyWeek(t)
	l.points[1].OnRead = func(int, int64, int) (int, error) { return 0, errors.New("connection reset") }
	l.wantCounts(l.run(job.ResultPartly), "1 copied, 0 claimed, 1 failed, 0 removed")
	l.wantCounts(l.run(job.ResultPartly), "0 copied, 0 claimed, 1 failed, 0 removed")
	l.setup.Full = true
	l.wantCounts(l.run(job.ResultPartly), "1 copied, 0 claimed, 1 failed, 0 removed")
	l.setup.Full = false
	l.points[1].OnRead = nil
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	l.wantCounts(l.run(job.ResultDone), "0 copied, 0 claimed, 0 failed, 0 removed")
	l.now = l.now.AddDate(0, 0, 7)
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
}

// A whole read that was interrupted is finished, though the machine has a newer point by then; that one has its turn later.
func TestWholeReadIsFinished(t *testing.T) {
	l := everyWeek(t)
	l.points = l.points[:1]
	first := l.points[0]
	first.Revalidated = errors.New("connection reset") // after all was read
	l.run(job.ResultFailed)
	if unfinished, err := l.target().UnfinishedWhole(t.Context()); err != nil || len(unfinished) != 1 || unfinished[0] != first.ID() {
		t.Fatalf("unfinished: %v, %v", unfinished, err)
	}
	first.Revalidated = nil
	first.Read.Store(0)
	l.points = append(l.points, day("a", 4))
	l.now = l.now.AddDate(0, 0, 2)
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	if read, err := l.target().ReadPoint(t.Context(), first.ID()); err != nil || !read.Sealed || first.Read.Load() > 0 {
		t.Errorf("%v, sealed: %v, %d bytes read again", err, err == nil && read.Sealed, first.Read.Load())
	}
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	if read, err := l.target().ReadPoint(t.Context(), l.points[1].ID()); err != nil || read.Sealed {
		t.Errorf("the newer one is read whole too: %v", err)
	}
}
