package job_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/storage/memory"
)

// A target without a single byte left: the reserve is what retention and reclaim work with, whatever comes first there.
func TestTargetWithoutSpace(t *testing.T) {
	for _, what := range []string{"copy", "claim", "nothing to copy"} {
		l := newLab(t, day("a", 1))
		l.points[0].Objects[0].Data = make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{}).Read(l.points[0].Objects[0].Data) // never fails
		l.run(job.ResultDone)
		for n := 2; n <= 3; n++ {
			l.points = append(l.points, day("a", n))
			l.now = time.Date(2026, 3, n, 20, 0, 0, 0, time.UTC)
			switch {
			case n == 2:
				l.run(job.ResultDone)
			case what == "claim":
				l.setup.Job.Name = "second"
				l.run(job.ResultDone)
				l.setup.Job.Name = "offsite"
			case what == "nothing to copy":
				l.points = l.points[:2]
			}
		}
		l.setup.Job.Retention = policy.Retention{Points: 1}
		l.store.SetSpace(0)
		l.run(job.ResultDone)
		if left := l.store.Names("marks/reserve-"); len(left) < 15 {
			t.Errorf("%s: the reserve for the next time is %v", what, left)
		}
		target := l.target()
		if target.Has(l.points[0].ID()) {
			t.Errorf("%s: the rules did not remove what they do not keep", what)
		}
		if _, mine := job.ClaimOf(target, "offsite", l.points[len(l.points)-1].ID()); !mine {
			t.Errorf("%s: the newest point was not copied", what)
		}
	}
}

// Where nothing can be freed the target is full, every time, and nothing eats the reserve up.
func TestReserveStays(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.run(job.ResultDone)
	reserved := len(l.store.Names("marks/reserve-"))
	l.points = append(l.points, day("a", 2))
	l.store.SetSpace(0)
	for n := range 5 {
		l.now = time.Date(2026, 3, 2+n, 20, 0, 0, 0, time.UTC)
		if s := l.run(job.ResultWaits); s.Target.State != job.StateFull || s.Copied() != 0 || !strings.Contains(s.Reason, "0 B left, beside 6") {
			t.Fatalf("%+v\n%s", s.Target, l.describe(s))
		}
	}
	if left := len(l.store.Names("marks/reserve-")); reserved == 0 || left < reserved-1 {
		t.Errorf("%d of %d files of the reserve are left", left, reserved)
	}
	l.store.SetSpace(-1)
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	if whole := len(l.store.Names("marks/reserve-")); whole != reserved {
		t.Errorf("%d of %d files of the reserve after there was space again", whole, reserved)
	}
}

// What the copies are expected to take is compared with the space that is left before they begin: where it may not do,
// retention and reclaim come first, the copies follow all the same, and no grace is cut short.
func TestRoomIsMadeBeforeCopies(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.points[0].Objects[0].Data = make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(l.points[0].Objects[0].Data) // never fails
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Retention = policy.Retention{Points: 1}
	l.store.SetSpace(512 << 10) // half of what the last copy took, and plenty for this one
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 1 removed")
	early := func(p job.Phase) bool { return p.Name == job.PhaseTransform && p.Reason == "the copies may not fit" }
	if i := slices.IndexFunc(s.Phases, early); i < 0 || s.Phases[i].State != job.PhaseDone {
		t.Errorf("phases: %+v", s.Phases)
	}
	if got := strings.Join(s.Warnings, "\n"); !strings.Contains(got, "the copies may take 1.0 MiB, and the target has 512 KiB left") {
		t.Errorf("warnings: %s", got)
	}
	if left := len(l.store.Names("marks/reserve-")); left != 16 {
		t.Errorf("%d files of the reserve", left)
	}

	// The last copy took next to nothing: the next one is not expected to take more.
	l.points = append(l.points, day("a", 3))
	l.now = time.Date(2026, 3, 3, 20, 0, 0, 0, time.UTC)
	if s := l.run(job.ResultDone); slices.ContainsFunc(s.Phases, early) || len(s.Warnings) != 0 {
		t.Errorf("where the copies are expected to fit: %+v %v", s.Phases, s.Warnings)
	}
}

// Space that cannot be made beforehand is an alarm, and keeps no copy from being made.
func TestRoomThatCannotBeMade(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.points[0].Objects[0].Data = make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(l.points[0].Objects[0].Data) // never fails
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	l.store.SetSpace(512 << 10)
	unlisted := errors.New("input/output error")
	l.store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpList && strings.HasPrefix(name, "packs/") {
			return unlisted
		}
		return nil
	})
	s := l.run(job.ResultPartly)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if !slices.ContainsFunc(s.Alarms, func(alarm job.Alarm) bool { return strings.Contains(alarm.Text, "transform failed") }) {
		t.Errorf("alarms: %v\n%s", s.Alarms, l.describe(s))
	}
}
