package job_test

import (
	"errors"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
)

// missing is what the next interval would write.
func (l *lab) missing() *job.Missing {
	l.t.Helper()
	told := 0
	found, err := job.FindMissing(l.t.Context(), l.setup, func(steps []plan.IntervalStep) { told = len(steps) })
	if err != nil {
		l.t.Fatal(err)
	}
	if told != len(found.Points) {
		l.t.Errorf("%d steps announced, %d points", told, len(found.Points))
	}
	return found
}

// packs are the sizes of the target's packs by name.
func (l *lab) packs() map[string]int64 {
	l.t.Helper()
	sizes := map[string]int64{}
	for info, err := range l.store.List(l.t.Context(), "packs/") {
		if err != nil {
			l.t.Fatal(err)
		}
		sizes[info.Name] = info.Size
	}
	return sizes
}

// What is missing is what the interval then stores, point by point and byte by byte, and after it nothing is.
func TestMissingIsWhatTheNextIntervalStores(t *testing.T) {
	l := newLab(t, day("a", 1), day("bb", 1), day("c", 1))
	l.setup.Copy.Codec = "zstd"
	l.points[2].Objects[0].Data = l.points[0].Objects[0].Data // what a brings, c does not miss
	for n := range 3 {
		if n > 0 {
			for _, machine := range []string{"a", "bb"} {
				p := day(machine, n+1)
				p.Objects[0].Data[n*4096] ^= 1
				l.points = append(l.points, p)
			}
		}
		l.now = time.Date(2026, 3, n+1, 22, 0, 0, 0, time.UTC)
		before, head := l.packs(), len(l.store.Names("log/"))
		found := l.missing()
		if len(l.packs()) != len(before) || len(l.store.Names("log/")) != head {
			t.Fatal("something was written")
		}
		s := l.run(job.ResultDone)
		stored := map[string]job.TaskPoint{}
		for _, task := range s.Tasks {
			for _, p := range task.Points {
				stored[p.Point] = p
			}
		}
		if len(stored) != len(found.Points) || len(stored) == 0 {
			t.Fatalf("%d stored, %d missing", len(stored), len(found.Points))
		}
		for _, m := range found.Points {
			p := stored[m.Point.ID.String()]
			if m.Err != nil || p.NewBytes != m.NewBytes || p.StoredBytes != m.Stored || p.ReadBytes != m.Read || m.NewBytes == 0 != (m.Point.Machine.Name == "c") {
				t.Errorf("day %d, %s: missing %+v, stored %+v", n+1, m.Point.Machine.Name, m, p)
			}
		}
		written := int64(0)
		for name, size := range l.packs() {
			if _, there := before[name]; !there {
				written += size
			}
		}
		if found.Written < written || found.Written > written+int64(len(found.Points))*4096 {
			t.Errorf("day %d: %d bytes would be written, packs took %d", n+1, found.Written, written)
		}
		if again := l.missing(); len(again.Points) != 0 || again.Written != 0 {
			t.Errorf("something is missing still: %+v", again)
		}
	}
}

// A point that is to be read whole misses all of it, and one that is broken is told with its trouble.
func TestMissingOfWholeAndBrokenPoints(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.run(job.ResultDone)
	l.setup.Full = true
	l.points[1].OpenError = errors.New("no such sector")
	found := l.missing()
	if a := found.Points[0]; !a.Whole || a.NewBytes != 20_000 || a.Err != nil {
		t.Errorf("%+v", a)
	}
	if b := found.Points[1]; b.Err == nil {
		t.Errorf("%+v", b)
	}
}

// Sources are not read while the window is closed. That nothing is missing can be told all the same.
func TestMissingKeepsTheWindow(t *testing.T) {
	l := newLab(t, day("a", 1))
	window, err := policy.ParseWindow([]string{"00:00-01:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	l.setup.Job.Window = window
	_, err = job.FindMissing(t.Context(), l.setup, func([]plan.IntervalStep) { t.Error("announced") })
	if !errors.Is(err, job.ErrWindowClosed) {
		t.Errorf("%v", err)
	}
	l.setup.Target.ID = "another"
	if found, err := job.FindMissing(t.Context(), l.setup, nil); err == nil || found.Target.State != job.StateOther {
		t.Errorf("%v, %+v", err, found)
	}
}
