package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// lab is a job with a source that the test changes, and a target in memory.
type lab struct {
	t      *testing.T
	store  *memory.Store
	now    time.Time
	points []*sourcetest.Point
	// edit changes how the source lists its points.
	edit func(*registry.Source)
	// sourceErr is what opening the source gives.
	sourceErr error
	setup     job.Setup
	// pauses are those that sessions made.
	pauses  []time.Duration
	onPause func()
}

func newLab(t *testing.T, points ...*sourcetest.Point) *lab {
	_, store := newRepository(t)
	l := &lab{t: t, store: store, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), points: points}
	store.SetClock(func() time.Time { return l.now })
	l.setup = job.Setup{
		Job:      policy.Job{Name: "offsite", Schedule: policy.Schedule{Mode: policy.Manual}, HealthCheck: policy.HealthCheck{Level: "points"}},
		Sources:  []job.Place{{Origin: origin(t, "pve"), Open: l.openSource}},
		Target:   job.Goal{Name: "vault", Location: "memory", Open: l.openTarget},
		Document: "kind: Job\n",
		Now:      func() time.Time { return l.now },
		Pause: func(_ context.Context, d time.Duration) error {
			l.pauses = append(l.pauses, d)
			l.now = l.now.Add(d)
			if l.onPause != nil {
				l.onPause()
			}
			return nil
		},
	}
	return l
}

// origin is a repository all of whose points are a job's.
func origin(t *testing.T, name string) policy.Origin {
	t.Helper()
	resources := policy.Resources{
		Repositories: []policy.Repository{{Name: name, Location: "/" + name}, {Name: "vault", Location: "/vault"}},
		Jobs:         []policy.Job{{Name: "offsite", Source: policy.Origins{Repositories: []string{name}}, Target: policy.Target{Repository: "vault"}}},
	}
	return resources.Origins(resources.Jobs[0])[0]
}

func (l *lab) openSource(context.Context) (*registry.Source, error) {
	if l.sourceErr != nil {
		return nil, l.sourceErr
	}
	opened := sourcetest.Open(l.t, l.points...)
	if l.edit != nil {
		l.edit(opened)
	}
	return opened, nil
}

func (l *lab) openTarget(ctx context.Context) (*repo.Repository, error) {
	return repo.Open(ctx, l.store, repo.Environment{Now: func() time.Time { return l.now }})
}

// run runs a session, and fails the test unless it ends as wanted.
func (l *lab) run(want job.Result) *job.Session {
	l.t.Helper()
	s := job.Run(l.t.Context(), l.setup)
	if s.Result != want {
		l.t.Fatalf("%s instead of %s: %s, %v\n%s", s.Result, want, s.Reason, s.Err, l.describe(s))
	}
	return s
}

func (l *lab) describe(s *job.Session) string {
	var text strings.Builder
	for _, p := range s.Phases {
		fmt.Fprintf(&text, "%s: %s %s %v\n", p.Name, p.State, p.Reason, p.Counts)
	}
	for _, task := range s.Tasks {
		fmt.Fprintf(&text, "%s: %s %s\n", task.Machine.Name, task.State, task.Reason)
		for _, p := range task.Points {
			fmt.Fprintf(&text, "  %s %s %s %s %v\n", p.Created, p.Action, p.Outcome, p.Error, p.Reasons)
		}
	}
	return text.String()
}

// target opens the target to look at it.
func (l *lab) target() *repo.Repository {
	l.t.Helper()
	r, err := l.openTarget(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = r.Close() })
	return r
}

// explain is what a session would do now.
func (l *lab) explain() *job.Explanation {
	l.t.Helper()
	e, err := job.Explain(l.t.Context(), l.setup)
	if err != nil {
		l.t.Fatal(err)
	}
	return e
}

func counts(s *job.Session) string {
	return fmt.Sprintf("%d copied, %d claimed, %d failed, %d removed", s.Copied(), s.Claimed(), s.Failed(), s.Removed())
}

func (l *lab) wantCounts(s *job.Session, want string) {
	l.t.Helper()
	if got := counts(s); got != want {
		l.t.Fatalf("%s, want %s\n%s", got, want, l.describe(s))
	}
}

// day is a point of a machine, made on a day of March 2026 at noon.
func day(machine string, n int) *sourcetest.Point {
	p := point(machine, n)
	p.Created = time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC)
	return p
}

func TestRunTwiceCopiesOnce(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	s := l.run(job.ResultDone)
	l.wantCounts(s, "0 copied, 0 claimed, 0 failed, 0 removed")
	for _, task := range s.Tasks {
		if task.State != job.TaskUpToDate || task.Reason == "" {
			t.Errorf("%+v", task)
		}
	}
	if claims := l.target().Claims(l.points[0].ID()); len(claims) != 1 || claims[0].Job != "offsite" {
		t.Errorf("claims %+v", claims)
	}
	records, _, err := l.target().Jobs(t.Context())
	if err != nil || len(records) != 1 || records[0].Document != "kind: Job\n" {
		t.Errorf("left in the target: %+v, %v", records, err)
	}
}

// What explain says of every point is what the session then does, item by item.
func TestExplainIsWhatRuns(t *testing.T) {
	for what, want := range map[string]job.Result{"": job.ResultDone, "lab2: permission denied": job.ResultPartly} {
		explainIsWhatRuns(t, what, want)
	}
}

// explainIsWhatRuns lives a month with a source in which something cannot be looked into, if that is said.
func explainIsWhatRuns(t *testing.T, unreadable string, want job.Result) {
	l := newLab(t)
	if unreadable != "" {
		l.edit = func(s *registry.Source) { s.Incomplete = []error{errors.New(unreadable)} }
	}
	l.setup.Job.Retention = policy.Retention{Days: 3}
	l.setup.Job.Retention.Tiers[policy.Weekly].Keep = 2
	removed := 0
	for n := range 30 {
		l.points = append(l.points, day("a", n+1))
		if n%2 == 0 {
			l.points = append(l.points, day("b", n+1))
		}
		l.now = time.Date(2026, 3, n+1, 22, 0, 0, 0, time.UTC)
		e := l.explain()
		promised := map[string]bool{}
		for _, m := range e.Plan.Machines {
			for _, step := range m.Steps {
				if step.Action == plan.ActionCopy || step.Action == plan.ActionRemove {
					promised[string(step.Action)+" "+step.Point.ID.String()] = true
				}
			}
		}
		s := l.run(want)
		for _, task := range s.Tasks {
			for _, p := range task.Points {
				if what := string(p.Action) + " " + p.Point; !promised[what] {
					t.Fatalf("day %d: not promised: %s", n, what)
				} else {
					delete(promised, what)
				}
			}
		}
		if len(promised) > 0 {
			t.Fatalf("day %d: promised and not done: %v", n, promised)
		}
		removed += s.Removed()
		// The flags that points were stored with are the plan's.
		target := l.target()
		for _, m := range e.Plan.Machines {
			for _, step := range m.Steps {
				if claims := target.Claims(step.Point.ID); step.Action == plan.ActionCopy && strings.Join(claims[0].Flags, " ") != strings.Join(job.FlagsOf(step.Slots), " ") {
					t.Fatalf("day %d: %s has flags %v, planned %v", n, step.Point.ID.Short(), claims[0].Flags, step.Slots)
				}
			}
		}
	}
	if removed < 20 {
		t.Errorf("%q: only %d points were removed", unreadable, removed)
	}
}

// A machine whose point is locked waits with its reason, and the others are copied. With --wait it is copied once the lock
// has gone.
func TestLockedMachineWaits(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	locked := true
	l.edit = func(s *registry.Source) {
		for i := range s.Points {
			if p := &s.Points[i]; p.Machine.Name == "a" && locked {
				p.State, p.Reason, p.Opener = backup.StateLocked, "vzdump writes it", nil
				p.Files = append(p.Files, sourceFile(l.now.Add(-time.Minute)))
			}
		}
	}
	s := l.run(job.ResultWaits)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if task := s.Tasks[0]; task.State != job.TaskWaits || !strings.Contains(task.Reason, "locked") || len(l.pauses) > 0 {
		t.Errorf("%+v, %v", task, l.pauses)
	}
	l.setup.Wait = time.Hour
	l.onPause = func() { locked = len(l.pauses) < 10 }
	s = l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if len(l.pauses) != 10 {
		t.Errorf("pauses %v", l.pauses)
	}
}

// What another job has copied is claimed and not copied; when one of them gives it up it stays.
func TestClaimOfAnotherJobsPoint(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.run(job.ResultDone)
	l.setup.Job.Name = "second"
	s := l.run(job.ResultDone)
	l.wantCounts(s, "0 copied, 1 claimed, 0 failed, 0 removed")
	if claims := l.target().Claims(l.points[0].ID()); len(claims) != 2 {
		t.Errorf("claims %+v", claims)
	}
}

// One machine's trouble is its own, is tried again with growing pauses, and passes.
func TestTroubleIsTriedAgain(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	tries := 0
	l.points[0].OnRead = func(_ int, _ int64, n int) (int, error) {
		if tries++; tries < 3 {
			return 0, errors.New("connection reset")
		}
		return n, nil
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 0 removed")
	if len(l.pauses) != 2 || l.pauses[1] <= l.pauses[0] || s.Tasks[0].Points[0].Attempts != 3 {
		t.Errorf("pauses %v, %+v", l.pauses, s.Tasks[0])
	}
	// Trouble that does not pass ends, and is a failure of that machine.
	l = newLab(t, day("a", 1), day("b", 1))
	l.points[0].OnRead = func(int, int64, int) (int, error) { return 0, errors.New("connection reset") }
	s = l.run(job.ResultPartly)
	l.wantCounts(s, "1 copied, 0 claimed, 1 failed, 0 removed")
	if want := []time.Duration{5 * time.Second, 15 * time.Second, 45 * time.Second}; !slices.Equal(l.pauses, want) || s.Tasks[0].Points[0].Attempts != 4 {
		t.Errorf("pauses %v, want %v: none after the last attempt; %+v", l.pauses, want, s.Tasks[0])
	}
	// What cannot be read is not read again.
	l = newLab(t, day("a", 1), day("b", 1))
	l.points[0].OpenError = fmt.Errorf("bad header: %w", backup.ErrBroken)
	s = l.run(job.ResultPartly)
	if attempts := s.Tasks[0].Points[0].Attempts; len(l.pauses) > 0 || attempts != 1 {
		t.Errorf("pauses %v, %d attempts", l.pauses, attempts)
	}
}

// A point that is gone when it is opened is none: the next newest is taken in the same session.
func TestVanishedPoint(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	gone := l.points[1]
	gone.OpenError = backup.ErrVanished
	looks := 0
	l.edit = func(s *registry.Source) {
		if looks++; looks > 1 {
			s.Points = s.Points[:1]
		}
	}
	s := l.run(job.ResultDone)
	if !l.target().Has(l.points[0].ID()) || s.Tasks[0].State != job.TaskCopied {
		t.Errorf("%s", l.describe(s))
	}
}

// Whatever is wrong with the target has a name; nothing is made there, and nothing removed.
func TestTargetStates(t *testing.T) {
	for _, c := range []struct {
		want   job.PlaceState
		result job.Result
		open   func(*lab) error
		id     string
	}{
		{job.StateOffline, job.ResultWaits, func(*lab) error { return repo.ErrNoRepository }, ""},
		{job.StateOther, job.ResultRefused, nil, strings.Repeat("0", 32)},
		{job.StateReadOnly, job.ResultWaits, func(*lab) error { return repo.ErrReadOnly }, ""},
		{job.StateReadOnly, job.ResultWaits, func(*lab) error { return fmt.Errorf("%w: %w", repo.ErrCannotLock, storage.ErrUnsuitable) }, ""},
		{job.StateNeedsKey, job.ResultWaits, func(*lab) error { return repo.ErrNeedsKey }, ""},
		{job.StateUnreadable, job.ResultWaits, func(*lab) error {
			return &backup.Error{Offset: backup.NoOffset, Err: errors.New("input/output error"), Hint: "look at the disk"}
		}, ""},
	} {
		l := newLab(t, day("a", 1))
		before := len(l.store.Names(""))
		l.setup.Target.ID, l.setup.Wait = c.id, 150*time.Second
		if c.open != nil {
			l.setup.Target.Open = func(context.Context) (*repo.Repository, error) { return nil, c.open(l) }
		}
		s := l.run(c.result)
		if s.Target.State != c.want || s.Target.Reason == "" || len(l.store.Names("")) != before {
			t.Errorf("%s: %+v, %d files instead of %d", c.want, s.Target, len(l.store.Names("")), before)
		}
		helps := map[job.PlaceState]string{job.StateOffline: "; if none was ever made there, ferry repo init makes one", job.StateOther: "or run ferry catalog rebuild " + s.Target.Name, job.StateUnreadable: "input/output error; look at the disk"}
		if !strings.HasSuffix(s.Target.Reason, helps[c.want]) {
			t.Errorf("%s: %s", c.want, s.Target.Reason)
		}
		if waits := slices.Equal(l.pauses, []time.Duration{time.Minute, time.Minute, 30 * time.Second}); waits == (c.want == job.StateOther) || !waits && len(l.pauses) > 0 {
			t.Errorf("%s: pauses %v", c.want, l.pauses)
		}
	}
}

// Where a repository has been, nobody is told to make one when its disk is not mounted.
func TestTargetThatWasThere(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Target.ID = l.target().ID()
	l.setup.Target.Open = func(context.Context) (*repo.Repository, error) { return nil, repo.ErrNoRepository }
	if s := l.run(job.ResultWaits); s.Target.State != job.StateOffline || strings.Contains(s.Target.Reason, "init") {
		t.Errorf("%+v", s.Target)
	}
}

// With --wait a target is waited for: a disk that is plugged in, or is mounted anew for writing, is copied to.
func TestTargetIsWaitedFor(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Wait = time.Hour
	opens := 0
	l.setup.Target.Open = func(ctx context.Context) (*repo.Repository, error) {
		l.store.SetFault(nil)
		if opens++; opens == 1 {
			return nil, repo.ErrNoRepository
		}
		target, err := l.openTarget(ctx)
		if opens == 2 { // opened, and its memory cannot be read
			l.store.SetFault(func(memory.Op, string) error { return errors.New("input/output error") })
		}
		return target, err
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if s.Target.State != job.StateReady || s.Target.Reason != "" || opens != 3 || len(l.pauses) != 2 {
		t.Errorf("%+v, opened %d times, pauses %v", s.Target, opens, l.pauses)
	}
	l.setup.Target.Open = func(context.Context) (*repo.Repository, error) { return nil, repo.ErrNoRepository }
	l.onPause = nil
	ctx, cancel := context.WithCancel(t.Context())
	l.setup.Pause = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	if s = job.Run(ctx, l.setup); s.Result != job.ResultInterrupted {
		t.Errorf("%s: %s", s.Result, s.Reason)
	}
}

// A key that cannot be read is no target or source that is missing or read only, whatever its own file lacks.
func TestKeyThatCannotBeRead(t *testing.T) {
	for _, lacks := range []error{os.ErrNotExist, os.ErrPermission} {
		trouble := fmt.Errorf("%w: %w", job.ErrNoKey, lacks)
		l := newLab(t, day("a", 1))
		l.sourceErr = trouble
		if s := l.run(job.ResultWaits); s.Sources[0].State != job.StateUnreadable {
			t.Errorf("%v: %+v", lacks, s.Sources)
		}
		l.setup.Target.Open = func(context.Context) (*repo.Repository, error) { return nil, trouble }
		if s := l.run(job.ResultWaits); s.Target.State != job.StateNeedsKey {
			t.Errorf("%v: %+v", lacks, s.Target)
		}
	}
}

// Sources that are missing, empty or unreadable: a named state, nothing removed, and the other source is copied from.
func TestSourceStates(t *testing.T) {
	for want, trouble := range map[job.PlaceState]func(*lab){
		job.StateMissing:    func(l *lab) { l.sourceErr = fmt.Errorf("no folder: %w", os.ErrNotExist) },
		job.StateUnreadable: func(l *lab) { l.sourceErr = errors.New("input/output error") },
		job.StateEmpty:      func(l *lab) { l.points = nil },
	} {
		l := newLab(t, day("a", 1), day("a", 2))
		l.setup.Job.Schedule.Mode, l.setup.Job.Lookup.Backfill = policy.Manual, policy.BackfillAll
		l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
		l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
		l.setup.Job.Retention = policy.Retention{Points: 1} // which would remove one
		trouble(l)
		s := l.run(job.ResultWaits)
		l.wantCounts(s, "0 copied, 0 claimed, 0 failed, 0 removed")
		if s.Sources[0].State != want || s.Sources[0].Reason == "" {
			t.Errorf("%+v", s.Sources)
		}
		other := day("b", 2)
		l.setup.Sources = append(l.setup.Sources, job.Place{Origin: origin(t, "second"), Open: func(context.Context) (*registry.Source, error) { return sourcetest.Open(t, other), nil }})
		l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	}
}

func sourceFile(grew time.Time) source.FileIdentity {
	return source.FileIdentity{Path: "file", Size: 1, ModTime: grew}
}

// A window that is closed gates what is read from sources: health check and retention run, copies wait, with --wait until it
// opens. The script before the job runs just before the first transfer.
func TestClosedWindow(t *testing.T) {
	l := newLab(t, day("a", 1))
	window, err := policy.ParseWindow([]string{"20:00-06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(t.TempDir(), "ran")
	l.setup.Job.Window = window
	l.setup.Job.Scripts.Pre = policy.Script{Run: []string{"/usr/bin/touch", ran}}
	s := l.run(job.ResultWaits)
	l.wantCounts(s, "0 copied, 0 claimed, 0 failed, 0 removed")
	if phase := s.Phase(job.PhaseSynchronize); phase.State != job.PhaseWaits || !strings.Contains(phase.Reason, "closed until 2026-03-01 20:00") || s.Phase(job.PhaseTransform) == nil || s.Phase(job.PhasePreScript) != nil {
		t.Errorf("%+v", s.Phases)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the script ran without a transfer")
	}
	l.setup.Wait = 7 * time.Hour // not long enough
	if s = l.run(job.ResultWaits); s.Copied() != 0 {
		t.Errorf("%s", l.describe(s))
	}
	l.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l.setup.Wait = 9 * time.Hour
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	if at := l.now.Format("15:04"); at != "20:00" {
		t.Errorf("copied at %s", at)
	}
	if _, err := os.Stat(ran); err != nil {
		t.Error(err)
	}
}

// A full target: retention and reclaim run first, then the copies go on.
func TestFullTarget(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	full := true
	l.store.SetFault(func(op memory.Op, name string) error {
		if full && op == memory.OpCommit && strings.HasPrefix(name, "packs/") {
			return storage.ErrFull
		}
		return nil
	})
	s := l.run(job.ResultWaits)
	if s.Target.State != job.StateFull || s.Target.Reason == "" || s.Copied() != 0 {
		t.Errorf("%+v\n%s", s.Target, l.describe(s))
	}
	l.store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
		if op == memory.OpDelete && strings.HasPrefix(name, "packs/") {
			full = false
		}
		if full && op == memory.OpCommit && strings.HasPrefix(name, "packs/") {
			return storage.ErrFull
		}
		return nil
	}))
	// What reclaim gives up now makes room: the first point goes by the rules of a second job that never claimed it.
	if _, err := l.target().Forget(t.Context(), "offsite", []repo.Forgetting{{Point: l.points[0].ID(), Reason: "a test", Tombstone: true}}, nil); err != nil {
		t.Fatal(err)
	}
	l.now = l.now.Add(24 * time.Hour)
	s = l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if s.Phases[0].Name != job.PhaseHealthCheck || s.Phase(job.PhaseTransform).Reason != "the target is full" {
		t.Errorf("%s", l.describe(s))
	}
}

// What a health check finds damaged is healed from the source in the same interval; what the source has no longer is listed.
func TestHealthCheckHeals(t *testing.T) {
	for _, inSource := range []bool{true, false} {
		l := newLab(t, day("a", 1))
		l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 30}}
		s := l.run(job.ResultDone)
		if phase := s.Phase(job.PhaseHealthCheck); phase.State != job.PhaseSkipped {
			t.Fatalf("checked when the job first ran: %+v", phase)
		}
		for _, name := range l.store.Names("packs/") {
			raw, err := storage.ReadAll(t.Context(), l.store, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)/3] ^= 1
			if err := l.store.Overwrite(t.Context(), name, raw); err != nil {
				t.Fatal(err)
			}
		}
		l.now = l.now.AddDate(0, 0, 31)
		id := l.points[0].ID()
		if !inSource {
			l.points = []*sourcetest.Point{day("b", 31)}
		}
		s = l.run(job.ResultDone)
		phase := s.Phase(job.PhaseHealthCheck)
		_, damaged := l.target().DamageOf(id)
		if damaged == inSource || phase.Counts["damagedPlaces"] == 0 || (phase.State == job.PhaseDone) != inSource || inSource != (phase.Counts["damagedPoints"] == 0) || inSource != (len(s.Alarms) == 0) {
			t.Errorf("in the source: %v, still damaged: %v\n%s", inSource, damaged, l.describe(s))
		}
		if claims := l.target().Claims(id); len(claims) != 1 || claims[0].Job != "offsite" {
			t.Errorf("claims %+v", claims)
		}
		s = l.run(job.ResultDone)
		if phase := s.Phase(job.PhaseHealthCheck); phase.State != job.PhaseSkipped {
			t.Errorf("checked again at once: %+v", phase)
		}
		// What one session found damaged, later ones tell as well, until it is healed.
		if inSource != (s.Damage == job.Damage{}) || inSource != (len(s.Alarms) == 0) {
			t.Errorf("in the source: %v, damage %+v, alarms %q", inSource, s.Damage, s.Alarms)
		}
	}
}

// What fails beside the copies, such as a health check, does not keep from copying, and is an alarm.
func TestFailedHealthCheckDoesNotKeepFromCopying(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.HealthCheck.Schedule = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 1}}
	l.run(job.ResultDone)
	l.points = append(l.points, day("a", 3))
	l.now = time.Date(2026, 3, 3, 20, 0, 0, 0, time.UTC)
	l.store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpList && strings.HasPrefix(name, "packs/") {
			return errors.New("input/output error")
		}
		return nil
	})
	s := l.run(job.ResultPartly)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if len(s.Alarms) == 0 || !strings.Contains(s.Alarms[0].Text, "health check failed: ") || !strings.Contains(s.Reason, "input/output error") {
		t.Errorf("reason %q, alarms %q", s.Reason, s.Alarms)
	}
	l.store.SetFault(nil)
	if s = l.run(job.ResultDone); s.Phase(job.PhaseHealthCheck).State != job.PhaseDone {
		t.Errorf("the check that failed was not made up for\n%s", l.describe(s))
	}
}

// Backfill that was interrupted is finished by the next session, though the job holds newer points by then.
func TestInterruptedBackfillIsFinished(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2), day("a", 3), day("a", 4))
	l.now = time.Date(2026, 3, 4, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	ctx, cancel := context.WithCancel(t.Context())
	l.points[2].OnRead = func(_ int, _ int64, n int) (int, error) { cancel(); return n, nil }
	s := job.Run(ctx, l.setup)
	if s.Result != job.ResultInterrupted || s.Copied() != 2 {
		t.Fatalf("%s\n%s", s.Result, l.describe(s))
	}
	l.points[2].OnRead = nil
	l.points = append(l.points, day("a", 5))
	l.now = l.now.AddDate(0, 0, 1)
	l.wantCounts(l.run(job.ResultDone), "3 copied, 0 claimed, 0 failed, 0 removed")
	// One that can no longer be read does not keep newer ones from being copied.
	l = newLab(t, day("a", 1), day("a", 2), day("a", 3), day("a", 4))
	l.now = time.Date(2026, 3, 4, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	ctx, cancel = context.WithCancel(t.Context())
	l.points[1].OnRead = func(_ int, _ int64, n int) (int, error) { cancel(); return n, nil }
	job.Run(ctx, l.setup)
	l.points[1].OnRead = func(int, int64, int) (int, error) { return 0, errors.New("connection reset") }
	l.points = append(l.points, day("a", 5))
	l.now = l.now.AddDate(0, 0, 1)
	l.wantCounts(l.run(job.ResultPartly), "3 copied, 0 claimed, 1 failed, 0 removed")
	// Even if one of them cannot be read the newest is copied.
	l = newLab(t, day("a", 1), day("a", 2), day("a", 3))
	l.now = time.Date(2026, 3, 3, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	l.points[1].OnRead = func(int, int64, int) (int, error) { return 0, errors.New("connection reset") }
	s = l.run(job.ResultPartly)
	l.wantCounts(s, "2 copied, 0 claimed, 1 failed, 0 removed")
}

// Immediate: the first run takes the newest only, then every point, oldest first.
func TestImmediateTakesEveryPoint(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2))
	l.setup.Job.Schedule.Mode = policy.Immediate
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	l.wantCounts(l.run(job.ResultDone), "1 copied, 0 claimed, 0 failed, 0 removed")
	l.points = append(l.points, day("a", 3), day("a", 4), day("a", 5))
	l.now = time.Date(2026, 3, 5, 20, 0, 0, 0, time.UTC)
	s := l.run(job.ResultDone)
	l.wantCounts(s, "3 copied, 0 claimed, 0 failed, 0 removed")
	for i, p := range s.Tasks[0].Points {
		if p.Created.Day() != i+3 {
			t.Errorf("%s", l.describe(s))
		}
	}
}

// Full from the source: into a sealed domain, also what is there, and the claims stay as they were.
func TestFullFromSource(t *testing.T) {
	l := newLab(t, day("a", 1))
	l.setup.Job.Retention.Tiers[policy.Weekly].Keep = 1
	l.run(job.ResultDone)
	id := l.points[0].ID()
	before := l.target().Claims(id)[0].Flags
	l.setup.Full = true
	s := l.run(job.ResultDone)
	l.wantCounts(s, "1 copied, 0 claimed, 0 failed, 0 removed")
	if attempts := s.Tasks[0].Points[0].Attempts; attempts != 1 {
		t.Errorf("read %d times", attempts)
	}
	p, err := l.target().ReadPoint(t.Context(), id)
	if err != nil || !p.Sealed {
		t.Errorf("sealed: %v, %v", p.Sealed, err)
	}
	if after := l.target().Claims(id); len(after) != 1 || !slices.Equal(after[0].Flags, before) {
		t.Errorf("claims %+v, before %v", after, before)
	}
}

// A machine that is in no source any more is missing since the session that first found it so, and keeps its copies.
func TestMissingSince(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1), day("c", 1))
	l.run(job.ResultDone)
	l.points = l.points[:2]
	l.now = l.now.AddDate(0, 0, 1)
	first := l.now
	for range 2 {
		s := l.run(job.ResultDone)
		if task := s.Tasks[2]; task.State != job.TaskMissing || !strings.Contains(task.Reason, first.Format("2006-01-02 15:04")) {
			t.Errorf("%+v", task)
		}
		l.now = l.now.AddDate(0, 0, 1)
	}
}

// When the window closes, copies stop with what they have stored, and the next session goes on.
func TestWindowCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var points []*sourcetest.Point
		for n := range 20 {
			p := point(fmt.Sprint("m", n), 1)
			p.Created = time.Now().Add(-time.Hour)
			p.OnRead = func(_ int, _ int64, n int) (int, error) { time.Sleep(time.Minute); return n, nil }
			points = append(points, p)
		}
		l := newLab(t, points...)
		l.onClock()
		window, err := policy.ParseWindow([]string{time.Now().UTC().Format("15:04") + "-" + time.Now().Add(10*time.Minute).UTC().Format("15:04")}, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		l.setup.Job.Window = window
		closes, _ := window.Change(time.Now())
		copied := 0
		for day := range 6 {
			s := job.Run(t.Context(), l.setup)
			copied += s.Copied()
			if s.Result == job.ResultDone && copied == len(points) && day > 0 {
				return
			}
			// A read that has begun is waited for for a while, not for the minute that it takes here.
			if late := s.Ended.Sub(closes); s.Result != job.ResultWaits || late < 0 || late > answer.Patience || s.Copied() == 0 || s.Failed() > 0 {
				t.Fatalf("day %d: %s, %s after the window has closed\n%s", day, s.Result, late, l.describe(s))
			}
			if phase := s.Phase(job.PhaseSynchronize); phase.State != job.PhaseWaits {
				t.Fatalf("%+v", phase)
			}
			closes = closes.Add(24 * time.Hour)
			time.Sleep(time.Until(closes.Add(-10 * time.Minute)))
		}
		t.Errorf("%d of %d points after six days", copied, len(points))
	})
}

// A machine whose newest copy is too old, or that has none, raises an alarm; so does what the schedule asks to be read whole
// get read whole.
func TestAgesAndScheduledFull(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.points[1].OpenError = backup.ErrBroken
	l.setup.Job.RPO = 48 * time.Hour
	l.setup.Job.FullFromSource = policy.Schedule{Mode: policy.Periodic, Every: policy.Every{Days: 7}}
	s := l.run(job.ResultPartly)
	if len(s.Alarms) != 1 || !strings.Contains(s.Alarms[0].Text, "machine b (image/fake/b): it has no copy") || s.Alarms[0].Kind != job.AlarmAge {
		t.Errorf("alarms %q", s.Alarms)
	}
	l.points[1].OpenError = nil
	l.now = time.Date(2026, 3, 3, 12, 0, 1, 0, time.UTC)
	s = l.run(job.ResultDone)
	if len(s.Alarms) != 2 || !strings.Contains(s.Alarms[0].Text, "machine a (image/fake/a): its newest copy is of 2026-03-01 12:00 UTC, older than 2d") {
		t.Errorf("alarms %q", s.Alarms)
	}
	// The schedule's first turn is the midnight after the job first ran, the next one a week later.
	if s.Copied() != 2 {
		t.Errorf("%s", l.describe(s))
	}
	for _, want := range []int{0, 2, 0} {
		if s = l.run(job.ResultDone); s.Copied() != want {
			t.Errorf("%d copied, not %d\n%s", s.Copied(), want, l.describe(s))
		}
		if want == 0 {
			l.now = l.now.AddDate(0, 0, 7)
		}
	}
	if p, err := l.target().ReadPoint(t.Context(), l.points[0].ID()); err != nil || !p.Sealed {
		t.Errorf("not read whole: %v", err)
	}
}

// A machine of which one point fails has failed, though another is copied after it.
func TestOneFailedPointFailsItsMachine(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 2))
	l.now = time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Lookup.Backfill = policy.BackfillAll
	l.points[0].OpenError = fmt.Errorf("bad header: %w", backup.ErrBroken)
	s := l.run(job.ResultPartly)
	l.wantCounts(s, "1 copied, 0 claimed, 1 failed, 0 removed")
	if task := s.Tasks[0]; task.State != job.TaskFailed || !strings.Contains(task.Reason, "bad header") || s.Reason != "1 of 1 machines failed: "+task.Machine.Name {
		t.Errorf("%s: %+v", s.Reason, task)
	}
}

// While a source cannot be read nothing is learned of which machines have gone, and nothing forgotten.
func TestMissingSinceOutlastsAnOutage(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1), day("c", 1))
	l.run(job.ResultDone)
	l.points = l.points[:2]
	first := l.now
	l.run(job.ResultDone)
	l.now = l.now.AddDate(0, 0, 1)
	l.sourceErr = errors.New("input/output error")
	other := job.Place{Origin: origin(t, "second"), Open: func(context.Context) (*registry.Source, error) { return sourcetest.Open(t, day("d", 1)), nil }}
	l.setup.Sources = append(l.setup.Sources, other)
	l.run(job.ResultDone)
	l.sourceErr = nil
	tasks := l.run(job.ResultDone).Tasks
	if task := tasks[len(tasks)-1]; task.Machine.Name != "c" || task.State != job.TaskMissing || !strings.Contains(task.Reason, first.Format("2006-01-02 15:04")) {
		t.Errorf("%+v", task)
	}
}

// A point that is broken at the first look, and can be copied at the next, has not failed its machine.
func TestBrokenAtFirstLookOnly(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	looks := 0
	l.edit = func(s *registry.Source) {
		if looks++; looks == 1 {
			p := &s.Points[0]
			p.State, p.Reason, p.Opener = backup.StateBroken, "cut off", nil
		}
	}
	s := l.run(job.ResultDone)
	l.wantCounts(s, "2 copied, 0 claimed, 0 failed, 0 removed")
	if s.Tasks[0].State != job.TaskCopied || len(s.Tasks[0].Points) != 1 {
		t.Errorf("%+v", s.Tasks[0])
	}
}

// Whatever time a source gives a point, the session can be written down, and the script after the job is told of it.
func TestSessionCanBeWrittenDown(t *testing.T) {
	l := newLab(t, day("a", 1), day("b", 1))
	l.edit = func(s *registry.Source) { s.Points[0].Created = time.Unix(1<<40, 0) }
	told := filepath.Join(t.TempDir(), "told")
	l.setup.Job.Scripts.Post = policy.Script{Run: []string{"/bin/sh", "-c", "cat > " + told}, Timeout: time.Minute}
	s := job.Run(t.Context(), l.setup)
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(told); err != nil || !strings.Contains(string(content), `"name":"a"`) {
		t.Errorf("told %q, %v", content, err)
	}
}

// Whether slots are filled goes by the rules that the plan goes by, not by what the machine was called when an older point
// was made.
func TestSlotsGoByThePlansRules(t *testing.T) {
	l := newLab(t, day("a", 1), day("a", 8))
	l.points[1].Machine.Labels = []string{"gold"}
	l.now = time.Date(2026, 3, 8, 20, 0, 0, 0, time.UTC)
	l.setup.Job.Lookup.Backfill = 1
	l.setup.Job.Retention.Tiers[policy.Weekly].Keep = 4
	l.setup.Job.Overrides = []policy.Override{{Match: []policy.Selector{"label=gold"}, Retention: policy.Retention{Points: 10}}}
	l.wantCounts(l.run(job.ResultDone), "2 copied, 0 claimed, 0 failed, 0 removed")
	for _, p := range l.points {
		if claims := l.target().Claims(p.ID()); len(claims) != 1 || claims[0].Flags != nil {
			t.Errorf("%s: claims %+v", p.Created, claims)
		}
	}
}
