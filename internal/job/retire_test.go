package job_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
)

const week = 7 * 24 * time.Hour

// abandoned is a job whose machine a has left its source on the second of March, with a purgeAfter of a week.
func abandoned(t *testing.T) (*lab, backup.MachineKey) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.setup.Job.PurgeAfter = week
	l.run(job.ResultDone)
	a := l.points[0].Machine.Key
	l.points = l.points[1:]
	l.now = l.now.AddDate(0, 0, 1)
	l.run(job.ResultDone)
	return l, a
}

// tell has the host know what was said of a machine.
func (l *lab) tell(key backup.MachineKey, held backup.Retirement) {
	l.setup.Host.Retired = func() map[backup.MachineKey]backup.Retirement {
		return map[backup.MachineKey]backup.Retirement{key: held}
	}
}

// moveTo lets it be a day of March, of which b has a point.
func (l *lab) moveTo(n int) {
	l.now = time.Date(2026, 3, n, 13, 0, 0, 0, time.UTC)
	l.points = append(l.points, day("b", n))
}

// removals are the points that a session would remove, and that it has removed: they are the same.
func (l *lab) removals() int {
	l.t.Helper()
	told := len(l.explain().Plan.Steps(plan.ActionRemove))
	if s := l.run(job.ResultDone); s.Removed() != told {
		l.t.Fatalf("%d points go by explain\n%s", told, l.describe(s))
	}
	return told
}

// A machine that a person has retired goes after purgeAfter, and not before; the session is told by its host, and the target knows
// from then on.
func TestRetiredMachineIsPurged(t *testing.T) {
	l, a := abandoned(t)
	l.moveTo(3)
	retired := backup.Retirement{}.Decide(true, l.now)
	l.tell(a, retired)
	if s := l.run(job.ResultDone); s.Removed() != 0 || len(s.Retired) != 1 || s.Retired[0].Machine.Key != a || s.Retired[0].Retirement != retired {
		t.Fatalf("told of %+v\n%s", s.Retired, l.describe(s))
	}
	l.setup.Host.Retired = nil // a server that knows nothing but the target
	m := l.explain().Plan.Machines[1]
	if !m.Retired.Equal(retired.Since) || !m.Purge.Equal(retired.Since.Add(week)) {
		t.Errorf("%+v", m)
	}
	l.moveTo(9)
	if n := l.removals(); n != 0 {
		t.Fatalf("%d points went early", n)
	}
	l.now = l.now.AddDate(0, 1, 0) // the clock alone
	if n := l.removals(); n != 0 {
		t.Fatalf("%d points went by the clock alone", n)
	}
	l.moveTo(11)
	if n := l.removals(); n != 1 {
		t.Fatalf("%d points went", n)
	}
	if stone, gone := l.target().Tombstone(day("a", 1).ID()); !gone || stone.Reason != policy.Purged {
		t.Errorf("tombstone %+v, %v", stone, gone)
	}
	if s := l.run(job.ResultDone); len(s.Retired) != 0 {
		t.Errorf("still told of %+v", s.Retired)
	}
}

// Who is back is back, whatever else knows it as retired: what was said last holds.
func TestRetiredMachineComesBack(t *testing.T) {
	l, a := abandoned(t)
	l.moveTo(3)
	retired := backup.Retirement{}.Decide(true, l.now)
	l.tell(a, retired)
	l.run(job.ResultDone)
	l.tell(a, retired.Decide(false, l.now))
	l.moveTo(11)
	if n := l.removals(); n != 0 {
		t.Fatalf("%d points of a machine that is back went", n)
	}
	l.tell(a, retired) // another server, which has not heard of it
	l.moveTo(12)
	if n := l.removals(); n != 0 {
		t.Fatalf("%d points went by what was said first", n)
	}
	if s := l.run(job.ResultDone); len(s.Retired) != 1 || !s.Retired[0].Since.IsZero() {
		t.Errorf("not told that it is back: %+v", s.Retired)
	}
}

// Without a server a person says it to the target, also while a session runs, and by the name of the machine.
func TestRetireInTheTarget(t *testing.T) {
	l, a := abandoned(t)
	l.moveTo(3)
	said := false
	l.setup.Phase = func(name job.PhaseName) {
		if name == job.PhaseTransform && !said {
			said = true
			setup := l.setup
			setup.Phase = nil
			if found, _, err := job.Retire(t.Context(), setup, "a", true); err != nil || found.Machine.Key != a || !found.Since.Equal(l.now) {
				t.Errorf("%+v, %v", found, err)
			}
		}
	}
	l.run(job.ResultDone)
	if m := l.explain().Plan.Machines[1]; !said || m.Retired.IsZero() {
		t.Fatalf("said %v; the session has forgotten it: %+v", said, m)
	}
	if _, _, err := job.Retire(t.Context(), l.setup, "nobody", true); !errors.Is(err, plan.ErrNotFound) || !strings.Contains(err.Error(), "a") {
		t.Errorf("no such machine: %v", err)
	}
	l.moveTo(11)
	if _, _, err := job.Retire(t.Context(), l.setup, a.String(), false); err != nil {
		t.Fatal(err)
	}
	if n := l.removals(); n != 0 {
		t.Errorf("%d points of a machine that is back went", n)
	}
}

// Nobody waits for a newer copy of a machine that has gone for good.
func TestRetiredMachineIsNotTooOld(t *testing.T) {
	l, a := abandoned(t)
	l.setup.Job.RPO = 24 * time.Hour
	l.moveTo(4)
	if s := l.run(job.ResultDone); len(s.Alarms) != 1 {
		t.Fatalf("alarms %v", s.Alarms)
	}
	l.tell(a, backup.Retirement{}.Decide(true, l.now))
	if s := l.run(job.ResultDone); len(s.Alarms) != 0 {
		t.Errorf("alarms %v", s.Alarms)
	}
}

// A folder of a source that cannot be looked into may have the machine's points: nothing is taken for gone, and the session says
// that it could not see all there is.
func TestHiddenFolderIsNoEvidence(t *testing.T) {
	l, a := abandoned(t)
	l.moveTo(3)
	l.tell(a, backup.Retirement{}.Decide(true, l.now))
	l.run(job.ResultDone)
	l.moveTo(20)
	l.edit = func(s *registry.Source) {
		s.Incomplete = []error{repo.ErrNeedsKey, errors.New("node2: permission denied")}
	}
	s := l.run(job.ResultPartly)
	if s.Removed() != 0 || !strings.HasSuffix(s.Reason, " is not listed whole: node2: permission denied") || len(s.Alarms) != 1 || s.Listings[0].Complete {
		t.Errorf("%s, %+v\n%s", s.Reason, s.Alarms, l.describe(s))
	}
	l.edit = func(s *registry.Source) { s.Incomplete = []error{repo.ErrNeedsKey} }
	if s := l.run(job.ResultDone); s.Removed() != 0 || len(s.Alarms) != 0 {
		t.Errorf("beside an encrypted repository: %+v\n%s", s.Alarms, l.describe(s))
	}
	l.edit = nil
	if s := l.run(job.ResultDone); s.Removed() != 1 {
		t.Errorf("when all is seen\n%s", l.describe(s))
	}
}

// A source that is a repository which was rolled back lacks what it had: no machine counts as missing for that, and nothing goes as if it had
// gone, while those that it has are copied and thinned out as ever.
func TestRolledBackSourceIsNoEvidence(t *testing.T) {
	l, a := abandoned(t)
	l.points = append(l.points, day("a", 1))
	l.moveTo(3)
	l.run(job.ResultDone)
	l.tell(a, backup.Retirement{}.Decide(true, l.now))
	l.run(job.ResultDone)
	l.points = slices.DeleteFunc(l.points, func(p *sourcetest.Point) bool { return p.ID() == day("a", 1).ID() })
	l.moveTo(20)
	l.edit = func(s *registry.Source) {
		s.Problems = []error{&backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("/mnt/usb: %w", repo.ErrDiverged), Hint: "run: ferry adopt /mnt/usb"}}
	}
	s := l.run(job.ResultDone)
	if s.Copied() != 1 || s.Removed() != 0 || len(s.Alarms) != 1 || !strings.HasSuffix(s.Alarms[0].Text, "; run: ferry adopt /mnt/usb") || s.Listings[0].Complete {
		t.Errorf("alarms %+v, %+v\n%s", s.Alarms, s.Listings, l.describe(s))
	}
	for _, m := range l.explain().Plan.Machines {
		if !m.Missing.IsZero() {
			t.Errorf("%s is missing since %s", m.Machine.Name, m.Missing)
		}
	}
	l.edit = nil // it was adopted
	if s := l.run(job.ResultDone); s.Removed() != 1 {
		t.Errorf("when it is what it is to be\n%s", l.describe(s))
	}
}

// A folder of a source that cannot be looked into keeps no machine that is listed from losing what the rules give up. One that is not
// listed keeps all, and so does one that may have other rules by what is not listed.
func TestRetentionBesideAHiddenFolder(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2), day("b", 1), day("b", 2), day("c", 1), day("c", 2))
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	l.wantCounts(l.run(job.ResultDone), "6 copied, 0 claimed, 0 failed, 0 removed")
	l.setup.Job.Retention.Points = 1
	l.points = []*sourcetest.Point{day("a", 3), day("b", 2)}
	l.edit = func(s *registry.Source) { s.Incomplete = []error{errors.New("node2: permission denied")} }
	l.now = l.now.AddDate(0, 0, 2)
	l.setup.Job.Overrides = []policy.Override{{Match: []policy.Selector{"label=web"}, Retention: policy.Retention{Points: 2}}}
	l.wantCounts(l.run(job.ResultPartly), "1 copied, 0 claimed, 0 failed, 1 removed")
	l.setup.Job.Overrides = nil
	s := l.run(job.ResultPartly)
	l.wantCounts(s, "0 copied, 0 claimed, 0 failed, 2 removed")
	for _, task := range s.Tasks {
		if task.State == job.TaskMissing {
			t.Errorf("%s is missing", task.Machine.Name)
		}
	}
	l.edit = nil
	if s := l.run(job.ResultDone); s.Removed() != 1 {
		t.Errorf("when all is seen\n%s", l.describe(s))
	}
}

// An encrypted repository among the backups stays there for good: the rules give points up all the same.
func TestRetentionBesideAnEncryptedRepository(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Retention.Points = 1
	l.edit = func(s *registry.Source) { s.Incomplete = []error{repo.ErrNeedsKey} }
	l.moveTo(1)
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	l.moveTo(2)
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 2 removed")
}

// A machine that is said to be back while a session runs that would purge it loses nothing.
func TestReturnIsHeardBySessionsThatRun(t *testing.T) {
	l, a := abandoned(t)
	l.moveTo(11)
	retired := backup.Retirement{}.Decide(true, l.now.AddDate(0, 0, -8))
	said := retired
	l.setup.Host.Retired = func() map[backup.MachineKey]backup.Retirement {
		return map[backup.MachineKey]backup.Retirement{a: said}
	}
	if n := len(l.explain().Plan.Steps(plan.ActionRemove)); n != 1 {
		t.Fatalf("%d points would go", n)
	}
	l.setup.Phase = func(name job.PhaseName) {
		if name == job.PhaseTransform {
			said = retired.Decide(false, l.now)
		}
	}
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
}

// A machine that was back while a part of the source could not be looked into, and has gone again, is missing since then, and not since
// it first was.
func TestMissingMachineWasBackInDoubt(t *testing.T) {
	l, a := abandoned(t)
	gone := l.points
	l.moveTo(11)
	l.points = append(l.points, day("a", 11))
	l.edit = func(s *registry.Source) { s.Incomplete = []error{errors.New("lab2: permission denied")} }
	l.run(job.ResultPartly)
	l.edit, l.points = nil, gone
	l.moveTo(12)
	l.run(job.ResultDone)
	for _, m := range l.explain().Plan.Machines {
		if m.Machine.Key == a && !m.Missing.Equal(l.now) {
			t.Errorf("missing since %s", m.Missing)
		}
	}
}
