package scheduler_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/scheduler"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// A periodic job begins a session at each boundary and at no other time, copies once what is new, and the catalog says what
// there is then.
func TestPeriodicJobRunsAtItsBoundaries(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		start := time.Now()
		l.pass(time.Minute)
		l.add("b")
		l.pass(24 * time.Hour)
		sessions := l.sessions("offsite")
		if len(sessions) != 7 {
			l.t.Fatalf("%d sessions in a day and a minute", len(sessions))
		}
		copied := int64(0)
		for i, session := range sessions {
			copied += session.Counts["copied"]
			if at := start.Add(time.Duration(i) * 4 * time.Hour); session.State != catalog.SessionDone || !session.Boundary.Equal(at) || !session.Started.Equal(at) {
				l.t.Errorf("session %d: %s at %s of %s, want %s", i, session.State, session.Started, session.Boundary, at)
			}
		}
		if copied != 2 || sessions[1].Counts["copied"] != 1 {
			l.t.Errorf("copied %d in all, %v in the second session", copied, sessions[1].Counts)
		}
		ctx := l.t.Context()
		selected, err := l.catalog.Jobs.Selected(ctx, "offsite")
		l.must(err)
		sightings, err := l.catalog.Machines.Sightings(ctx, "pve")
		l.must(err)
		if len(selected) != 2 || len(sightings) != 2 {
			l.t.Errorf("selected %v, seen %v", selected, sightings)
		}
		points, err := l.catalog.Mirror.All(ctx, "vault")
		l.must(err)
		if len(points) != 2 || points[0].Size != 20_000 || points[0].Machine == nil || len(points[0].Claims) != 1 || points[0].Claims[0].Job != "offsite" {
			l.t.Errorf("mirror %+v", points)
		}
		offered, err := l.catalog.Mirror.All(ctx, "pve")
		l.must(err)
		if len(offered) != 2 || offered[1].State != backup.StateComplete || offered[1].Size != 20_000 {
			l.t.Errorf("what the source has: %+v", offered)
		}
		figures, err := l.catalog.Figures.Since(ctx, "vault", time.Time{})
		l.must(err)
		if f := figures[len(figures)-1]; len(figures) != 7 || f.Points != 2 || f.Machines != 2 || f.LogicalBytes != 40_000 || f.StoredBytes <= 0 {
			l.t.Errorf("figures %+v", figures)
		}
		if report := l.report(sessions[1]); report.ID != fmt.Sprint(sessions[1].ID) || report.Copied() != 1 || !report.Nominal.Equal(sessions[1].Boundary) {
			l.t.Errorf("report %+v", report)
		}
		tasks, err := l.catalog.Tasks.Of(ctx, sessions[1].ID)
		l.must(err)
		if len(tasks) != 1 || tasks[0].State != catalog.TaskDone || tasks[0].Machine.Name != "b" || tasks[0].Progress.Read == 0 || tasks[0].Source != "pve" || tasks[0].Target != "vault" {
			l.t.Errorf("tasks %+v", tasks)
		}
		phases, err := l.catalog.Sessions.Phases(ctx, sessions[1].ID)
		l.must(err)
		var names []string
		for _, phase := range phases {
			names = append(names, fmt.Sprint(phase.Name, " ", phase.State))
		}
		if got := strings.Join(names, ", "); got != "health check skipped, synchronize done, transform done, compact skipped, report done" {
			l.t.Errorf("phases %s", got)
		}
		if state, err := l.catalog.Jobs.State(ctx, "offsite"); err != nil || !state.Next.Equal(start.Add(28*time.Hour)) {
			l.t.Errorf("next %+v, %v", state, err)
		}
	})
}

// Boundaries that pass while no server runs are recorded as not run, and one interval catches up.
func TestMissedBoundariesAreCaughtUpOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		start := time.Now()
		l.end()
		l.pass(13 * time.Hour)
		l.add("a")
		l.begin()
		l.pass(time.Minute)
		var got []string
		for _, session := range l.sessions("offsite") {
			got = append(got, fmt.Sprintf("%s %s", session.Boundary.Sub(start), session.State))
		}
		if text := strings.Join(got, ", "); text != "0s done, 4h0m0s not run, 8h0m0s not run, 12h0m0s done" {
			l.t.Errorf("sessions %s", text)
		}
		if last := l.last("offsite", catalog.SessionDone); last.Counts["copied"] != 1 {
			l.t.Errorf("the one that catches up: %v", last.Counts)
		}
		l.pass(3 * time.Hour) // the boundary to come stands
		if last := l.last("offsite", catalog.SessionDone); !last.Boundary.Equal(start.Add(16 * time.Hour)) {
			l.t.Errorf("the next one is of %s", last.Boundary)
		}
	})
}

// A session that waits ends at its boundary, as the next interval begins, and what it waited for is that one's business.
func TestBoundaryEndsWaiting(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.add("b")
		unlock := l.lock("a")
		l.job("offsite", "schedule: {every: 2h}")
		start := time.Now()
		l.begin()
		l.pass(time.Hour)
		waits := l.last("offsite", catalog.SessionWaiting)
		if !strings.Contains(waits.Reason, "locked") {
			l.t.Errorf("waits for %q", waits.Reason)
		}
		if points, err := l.catalog.Mirror.All(l.t.Context(), "vault"); err != nil || len(points) != 0 {
			l.t.Errorf("the mirror before the end: %v, %v", points, err) // b is in the target; the catalog hears of it at the end
		}
		l.pass(2 * time.Hour)
		sessions := l.sessions("offsite")
		if len(sessions) != 2 || sessions[0].State != catalog.SessionExpired || !sessions[0].Ended.Equal(start.Add(2*time.Hour)) || sessions[1].State != catalog.SessionWaiting {
			l.t.Fatalf("sessions %+v", sessions)
		}
		unlock()
		l.pass(2 * time.Minute)
		if last := l.last("offsite", catalog.SessionDone); last.ID != sessions[1].ID || last.Counts["copied"] != 1 {
			l.t.Errorf("after the lock had gone: %+v", last)
		}
	})
}

// A job that looks forward waits for the points that are made after its interval began: each is copied when it is complete, and the
// next server goes on waiting, for the machines that have had none. One that a person begins does not wait.
func TestForwardWaitsForThePointsOfItsInterval(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.add("b")
		l.pass(time.Minute)
		l.job("offsite", "schedule: {every: 4h}\nlookup: forward")
		start := time.Now()
		l.begin()
		l.pass(20 * time.Minute)
		waits := l.last("offsite", catalog.SessionWaiting)
		if waits.Wait.Kind != string(job.WaitPoint) || !strings.Contains(waits.Reason, "machine a (image/fake/a): no point has been created since 2000-01-01 00:01 UTC") {
			l.t.Errorf("waits for %+v: %q", waits.Wait, waits.Reason)
		}
		l.add("a")
		l.pass(2 * time.Minute)
		if tasks, err := l.catalog.Tasks.Of(l.t.Context(), waits.ID); err != nil || len(tasks) != 1 || tasks[0].State != catalog.TaskDone {
			l.t.Fatalf("when a has made one: %+v, %v", tasks, err)
		}
		l.end()
		l.begin()
		l.add("a") // the next interval's business
		l.pass(2 * time.Minute)
		if waits := l.last("offsite", catalog.SessionWaiting); strings.Contains(waits.Reason, "machine a") || !strings.Contains(waits.Reason, "machine b") {
			l.t.Errorf("taken up it waits for %q", waits.Reason)
		}
		l.add("b")
		l.pass(2 * time.Minute)
		if last := l.last("offsite", catalog.SessionDone); last.ID != waits.ID || last.Counts["copied"] != 2 {
			l.t.Errorf("when b has made one too: %+v", last)
		}
		_, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		l.pass(2 * time.Minute)
		if last := l.last("offsite", catalog.SessionDone); last.ID == waits.ID || last.Counts["copied"] != 1 {
			l.t.Errorf("begun by hand: %+v", last)
		}
		l.pass(8*time.Hour - time.Since(start) + time.Minute)
		sessions := l.sessions("offsite")
		second, third := sessions[len(sessions)-2], sessions[len(sessions)-1]
		if second.State != catalog.SessionDone || !second.Ended.Equal(start.Add(8*time.Hour)) || second.Counts["copied"] != 0 || third.State != catalog.SessionWaiting {
			l.t.Errorf("an interval without a point, and the next: %+v, %+v", second, third)
		}
	})
}

// A session that waits, and began by a clock that was days ahead, does not wait until the clock is there again: it ends at the next
// boundary of the clock that is right, and that has its interval.
func TestWaitingEndsWhenTheClockIsSetBack(t *testing.T) {
	for name, waits := range map[string]func(l *lab) (end func()){
		"for a lock": func(l *lab) func() { return l.lock("a") },
		"for a target": func(l *lab) func() {
			l.with(func() { l.targetErr = fmt.Errorf("no Ferry repository at memory: %w", repo.ErrNoRepository) })
			return func() { l.with(func() { l.targetErr = nil }) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.add("a")
				goOn := waits(l)
				l.job("offsite", "schedule: {every: 4h}")
				start := time.Now()
				l.with(func() { l.jump = 72 * time.Hour })
				l.begin()
				l.pass(time.Hour)
				l.with(func() { l.jump = 0 })
				l.pass(7 * time.Hour)
				goOn()
				l.pass(2 * time.Minute)
				last := l.last("offsite", catalog.SessionDone)
				if last.Counts["copied"] != 1 || !last.Boundary.Equal(start.Add(8*time.Hour)) || last.Started.After(start.Add(9*time.Hour)) {
					l.t.Errorf("with a clock that is right: %+v", last)
				}
			})
		})
	}
}

// A job whose target is offline waits with its reason, and goes on by itself when the target is back. It makes nothing where the
// target was, and takes no other repository for it.
func TestOfflineTargetRecoversWithoutHands(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {every: 1d, at: \"00:00\"}")
		l.targetErr = fmt.Errorf("no Ferry repository at memory: %w", repo.ErrNoRepository)
		l.begin()
		l.pass(3 * time.Hour)
		waits := l.last("offsite", catalog.SessionWaiting)
		if !strings.Contains(waits.Reason, "offline") {
			l.t.Errorf("waits for %q", waits.Reason)
		}
		l.with(func() { l.targetErr = nil })
		l.pass(time.Minute)
		if last := l.last("offsite", catalog.SessionDone); last.ID != waits.ID || last.Counts["copied"] != 1 || last.Reason != "" {
			l.t.Errorf("after it is back: %+v", last)
		}
		// It goes while it is written to, and another one comes in its place.
		l.pass(20*time.Hour + 58*time.Minute)
		p := l.add("a")
		whole, once := l.targets["vault"], true
		replaced := func(_ int, _ int64, n int) (int, error) {
			if once {
				once = false
				other := memory.New()
				r, err := repo.Init(context.Background(), other, repo.Environment{}, repo.Options{BlockSize: 4096})
				l.must(err)
				l.must(r.Close())
				whole.SetFault(func(memory.Op, string) error { return repo.ErrNoRepository })
				l.with(func() { l.targets["vault"] = other })
			}
			return n, nil
		}
		l.with(func() { p.OnRead = replaced })
		l.pass(3 * time.Hour)
		if last := l.last("offsite", catalog.SessionFailed); !strings.Contains(last.Reason, "and the job is for") {
			l.t.Errorf("with another repository in its place: %q", last.Reason)
		}
		whole.SetFault(nil)
		l.with(func() { l.targets["vault"] = whole })
		l.pass(24 * time.Hour)
		if last := l.last("offsite", catalog.SessionDone); last.Counts["copied"] != 1 {
			l.t.Errorf("a day later: %+v", last)
		}
	})
}

// A session that waits for its window says when that opens, and looks at no source before. What its rules give up goes at once, in a phase
// of its own.
func TestWaitForAWindowSaysUntilWhen(t *testing.T) {
	inBubble(t, func(l *lab) { // it begins at midnight in UTC
		l.add("a")
		l.job("offsite", "schedule: {every: 1d, at: \"00:00\"}\nwindow: {allow: [\"06:00-09:00\"]}")
		opens := time.Now().Add(6 * time.Hour)
		l.begin()
		l.pass(time.Hour)
		if waits := l.last("offsite", catalog.SessionWaiting).Wait; waits.Kind != string(job.WaitWindow) || !waits.Until.Equal(opens) {
			l.t.Errorf("the session waits for %+v, not until %s", waits, opens)
		}
		l.pass(4 * time.Hour)
		waits, err := l.catalog.Status.Waits(l.t.Context(), 10)
		if l.must(err); len(waits) > 0 || l.looked() > 0 {
			l.t.Errorf("listed %d times, tasks %+v", l.looked(), waits)
		}
		l.pass(time.Hour + time.Minute)
		last := l.last("offsite", catalog.SessionDone)
		phases, err := l.catalog.Sessions.Phases(l.t.Context(), last.ID)
		l.must(err)
		var names []string
		for _, phase := range phases {
			names = append(names, fmt.Sprint(phase.Name, " ", phase.State))
		}
		if got := strings.Join(names, ", "); last.Counts["copied"] != 1 || got != "health check skipped, transform done, synchronize done, transform done, compact skipped, report done" {
			l.t.Errorf("%+v, phases %s", last, got)
		}
	})
}

// A job of mode immediate runs when a source has a new point, and looks at its sources only while its window is open.
func TestImmediateJobRunsWhenThereIsANewPoint(t *testing.T) {
	inBubble(t, func(l *lab) { // it begins at midnight in UTC
		l.add("a")
		l.job("offsite", "schedule: {mode: immediate}\nwindow: {allow: [\"00:00-06:00\"]}")
		l.begin()
		l.pass(time.Minute)
		if first := l.last("offsite", catalog.SessionDone); first.Counts["copied"] != 1 {
			l.t.Errorf("the first: %+v", first)
		}
		l.pass(2 * time.Hour)
		if n := len(l.sessions("offsite")); n != 1 {
			l.t.Errorf("%d sessions while there was nothing new", n)
		}
		l.add("a")
		l.pass(2 * time.Minute)
		if second := l.last("offsite", catalog.SessionDone); second.Counts["copied"] != 1 || len(l.sessions("offsite")) != 2 {
			l.t.Errorf("the second: %+v", second)
		}
		l.pass(5 * time.Hour)
		l.add("a")
		before := l.looked()
		l.pass(12 * time.Hour)
		if len(l.sessions("offsite")) != 2 || l.looked() != before {
			l.t.Errorf("while the window is closed: %d sessions, %d looks", len(l.sessions("offsite")), l.looked()-before)
		}
		l.pass(5 * time.Hour)
		if third := l.last("offsite", catalog.SessionDone); third.Counts["copied"] != 1 || len(l.sessions("offsite")) != 3 {
			l.t.Errorf("when it was open again: %+v", third)
		}
		// A session that leaves something undone is followed by another one.
		bad := l.add("a")
		l.with(func() { bad.OpenError = fmt.Errorf("%w: it is cut off", backup.ErrBroken) })
		l.pass(2 * time.Minute)
		l.last("offsite", catalog.SessionFailed)
		l.pass(5 * time.Minute)
		if n := len(l.sessions("offsite")); n != 4 {
			l.t.Errorf("%d sessions at once", n)
		}
		l.with(func() { bad.OpenError = nil })
		l.pass(20 * time.Minute)
		if n := len(l.sessions("offsite")); n != 5 {
			l.t.Errorf("%d sessions", n)
		}
	})
}

// An interval of a job that looks backward takes one point of each machine: of one that has nothing to copy when it begins, the first
// that appears before it ends.
func TestBackwardTakesTheFirstPointThatAppears(t *testing.T) {
	inBubble(t, func(l *lab) { // it begins at midnight in UTC
		l.add("a")
		l.add("b")
		l.job("offsite", "schedule: {every: 1d, at: \"00:00\"}")
		l.begin()
		copied := func(what string, sessions int, last int64) {
			l.t.Helper()
			if of := l.last("offsite", catalog.SessionDone); len(l.sessions("offsite")) != sessions || of.Counts["copied"] != last {
				l.t.Errorf("%s: %d sessions, the last copied %d, want %d and %d", what, len(l.sessions("offsite")), of.Counts["copied"], sessions, last)
			}
		}
		l.pass(time.Hour)
		copied("the first interval", 1, 2)
		l.add("a")
		before := l.looked()
		l.pass(5 * time.Hour)
		copied("it has had a point of a", 1, 2)
		if n := l.looked() - before; n != 0 {
			l.t.Errorf("looked %d times where nothing is waited for", n)
		}
		l.pass(18*time.Hour + time.Minute)
		copied("the second interval", 2, 1)
		l.add("a")
		l.pass(4 * time.Hour)
		copied("it has had a point of a, and b has none", 2, 1)
		l.add("a")
		l.add("b")
		l.pass(3 * time.Minute)
		copied("one of b has appeared", 3, 1)
		l.add("b")
		l.pass(19 * time.Hour)
		copied("it has had points of both", 3, 1)
		l.Changed() // says nothing of what has been copied
		l.pass(time.Hour)
		copied("the third interval", 4, 2)
		l.pass(24 * time.Hour)
		copied("the fourth has nothing yet", 5, 0)
		l.Changed()
		l.add("b")
		l.pass(3 * time.Minute)
		copied("and is waited for, whatever else was applied", 6, 1)
	})
}

// A folder of the source that cannot be looked into is nothing that another session would mend: none begins before there is a new point.
func TestHiddenFolderBeginsNoSessions(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.edit = func(s *registry.Source) { s.Incomplete = []error{errors.New("node2: permission denied")} }
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		l.pass(5 * time.Hour)
		if n := len(l.sessions("offsite")); n != 1 || l.last("offsite", catalog.SessionPartial).Counts["copied"] != 1 {
			l.t.Errorf("%d sessions while there was nothing new", n)
		}
		l.add("a")
		l.pass(2 * time.Minute)
		if n := len(l.sessions("offsite")); n != 2 {
			l.t.Errorf("%d sessions when there was a new point", n)
		}
	})
}

// A source that takes long to list is listed less often: listing takes no more than its share of the time.
func TestSlowSourceIsListedLessOften(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		l.pass(time.Minute)
		l.last("offsite", catalog.SessionDone)
		l.with(func() { l.looks, l.listing = 0, 30*time.Second })
		l.pass(5 * time.Hour) // each listing and what follows it take 100 minutes and a half
		if n := l.looked(); n != 3 {
			l.t.Errorf("listed %d times", n)
		}
		l.add("a")
		l.pass(2 * time.Hour)
		if last := l.last("offsite", catalog.SessionDone); last.Counts["copied"] != 1 {
			l.t.Errorf("a new point: %+v", last)
		}
	})
}

// A job of mode immediate that is changed, or made anew under its name, begins a session: what was seen for the former one says
// nothing of what this one has copied.
func TestImmediateJobThatIsChanged(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.target("second")
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		l.pass(time.Hour)
		l.last("offsite", catalog.SessionDone)
		before, err := l.catalog.Resources.Get(l.t.Context(), "Job", "offsite")
		l.must(err)
		changed, err := l.catalog.Resources.Put(l.t.Context(), "Job", "offsite", strings.Replace(before.Document, "vault", "second", 1), before.Version)
		l.must(err)
		l.Changed()
		l.pass(time.Minute)
		if last := l.last("offsite", catalog.SessionDone); len(l.sessions("offsite")) != 2 || last.Counts["copied"] != 1 {
			l.t.Errorf("with another target: %+v", last)
		}
		// While a session is in progress: what it sees is not what the next one has copied.
		_, blocked := l.slow("b")
		l.pass(2 * time.Minute)
		l.last("offsite", catalog.SessionRunning)
		changed, err = l.catalog.Resources.Put(l.t.Context(), "Job", "offsite", before.Document, changed.Version)
		l.must(err)
		l.Changed()
		l.pass(time.Minute)
		close(blocked)
		l.pass(time.Minute)
		if last := l.last("offsite", catalog.SessionDone); len(l.sessions("offsite")) != 4 || last.Counts["copied"] != 1 {
			l.t.Errorf("changed while a session was in progress: %+v", last)
		}
		l.must(l.catalog.Resources.Delete(l.t.Context(), "Job", "offsite", changed.Version))
		l.Changed()
		l.pass(time.Hour)
		l.job("offsite", "schedule: {mode: immediate}")
		l.Changed()
		l.pass(time.Minute)
		if n := len(l.sessions("offsite")); n != 5 {
			l.t.Errorf("%d sessions when it was made anew", n)
		}
	})
}

// That sources cannot be looked at is told as long as that is so, and not of a job that looks no more.
func TestLookThatFailsIsTold(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		l.pass(time.Minute)
		ready := func(when, want string) {
			l.pass(2 * time.Minute)
			if got := l.notReady(); got != want {
				l.t.Errorf("%s: %q", when, got)
			}
		}
		told := "the sources of job offsite cannot be looked at: no password"
		ready("at first", "")
		l.with(func() { l.prepareErr = errors.New("no password") })
		ready("when it fails", told)
		l.with(func() { l.prepareErr = nil })
		ready("when it works again", "")
		l.with(func() { l.prepareErr = errors.New("no password") })
		ready("when it fails again", told)
		l.must(l.Disable(l.t.Context(), "offsite"))
		ready("when it is disabled", "")
	})
}

// That the sources have answered nothing for two minutes is told while they are being looked at.
func TestLookThatHangsIsTold(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {mode: immediate}")
		l.begin()
		l.pass(30 * time.Second)
		l.with(func() { l.listing = time.Hour }) // the next look begins within a minute
		for _, c := range []struct {
			pass time.Duration
			told bool
		}{{2 * time.Minute, false}, {2 * time.Minute, true}, {time.Hour, false}} {
			l.pass(c.pass)
			got := l.notReady()
			if told := got == "the sources of job offsite cannot be looked at: /pve: it does not answer since 2000-01-01 00:01 UTC"; told != c.told || !told && got != "" {
				l.t.Errorf("after another %s: %q", c.pass, got)
			}
		}
	})
}

// A session whose report is too large to be kept ends all the same, without it.
func TestReportThatIsTooLarge(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.log = slog.New(slog.DiscardHandler)
		l.job("offsite", "schedule: {mode: manual}")
		l.prepareErr = errors.New(strings.Repeat("no key ", 10<<20))
		l.begin()
		_, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		l.pass(time.Minute)
		last := l.last("offsite", catalog.SessionFailed)
		if report, err := l.catalog.Sessions.Report(l.t.Context(), last.ID); err != nil || report != nil || !strings.HasPrefix(last.Reason, "no key") {
			l.t.Errorf("%d bytes of a report, %v, and the reason %.80q", len(report), err, last.Reason)
		}
	})
}

// A job that comes after another one runs when that has stored a point, and not when it has not; also if it was in progress then.
func TestJobAfterAnother(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.target("second")
		l.job("offsite", "schedule: {every: 1h}")
		l.put("Job", "further", "kind: Job\nname: further\nsource: {repositories: [pve]}\ntarget: {repository: second}\nschedule: {after: offsite}\n")
		l.begin()
		l.pass(90 * time.Minute)
		if n := len(l.sessions("further")); n != 0 {
			l.t.Fatalf("%d sessions though nothing was stored", n)
		}
		l.add("a")
		l.pass(time.Hour)
		if last := l.last("further", catalog.SessionDone); last.Counts["copied"] != 1 {
			l.t.Errorf("after a point was stored: %+v", last)
		}
		// The other one waits for a lock while the first stores another point.
		unlock := l.lock("b")
		l.add("b")
		l.add("a")
		l.pass(2 * time.Hour) // the first waits for it too, to its boundary
		waiting := l.last("further", catalog.SessionWaiting)
		l.add("a")
		l.pass(time.Hour)
		l.last("further", catalog.SessionWaiting)
		unlock()
		l.pass(2 * time.Minute)
		if last := l.last("further", catalog.SessionDone); last.ID == waiting.ID {
			l.t.Errorf("what was stored while it was in progress asked for nothing: %+v", last)
		}
	})
}

// Two jobs share a slot: one machine is copied at a time, whoever waits says so, and they take turns.
func TestTwoJobsShareASlot(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.slots = 1
		l.target("second")
		gate := make(chan struct{})
		inside, most := 0, 0
		for _, name := range []string{"a", "b"} {
			p := l.add(name)
			p.OnRead = func(_ int, offset int64, n int) (int, error) {
				if offset == 0 {
					l.with(func() { inside++; most = max(most, inside) })
					<-gate
					l.with(func() { inside-- })
				}
				return n, nil
			}
		}
		l.job("first", "schedule: {every: 1d, at: \"00:00\"}")
		l.put("Job", "other", "kind: Job\nname: other\nsource: {repositories: [pve]}\ntarget: {repository: second}\nschedule: {every: 1d, at: \"00:00\"}\n")
		l.begin()
		l.pass(time.Minute)
		var waits []string
		for _, name := range []string{"first", "other"} {
			s := l.sessions(name)[0]
			waits = append(waits, string(s.State))
			if s.State == catalog.SessionWaiting && !strings.Contains(s.Reason, "no slot") {
				l.t.Errorf("job %s waits for %q", name, s.Reason)
			}
		}
		if text := strings.Join(waits, " "); text != "running waiting" && text != "waiting running" {
			l.t.Errorf("the sessions are %s", text)
		}
		for range 4 {
			gate <- struct{}{}
			synctest.Wait()
		}
		l.pass(time.Minute)
		for _, name := range []string{"first", "other"} {
			if last := l.last(name, catalog.SessionDone); last.Counts["copied"] != 2 {
				l.t.Errorf("job %s: %+v", name, last)
			}
		}
		if most != 1 {
			l.t.Errorf("%d at once", most)
		}
	})
}

// A clock that jumps by days, there and back, moves no boundary and runs nothing again; what passed meanwhile is not run.
func TestClockThatJumps(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		start := time.Now()
		l.pass(time.Hour)
		ran := func() (boundaries []time.Duration, missed int) {
			for _, session := range l.sessions("offsite") {
				if session.State == catalog.SessionNotRun {
					missed++
				} else {
					boundaries = append(boundaries, session.Boundary.Sub(start))
				}
			}
			return boundaries, missed
		}
		l.with(func() { l.jump = 72 * time.Hour })
		l.pass(time.Minute)
		if boundaries, missed := ran(); fmt.Sprint(boundaries) != "[0s 72h0m0s]" || missed != 17 {
			l.t.Errorf("after it jumped ahead: ran %v, %d not run", boundaries, missed)
		}
		l.with(func() { l.jump = 0 })
		l.pass(time.Hour)
		if boundaries, _ := ran(); len(boundaries) != 2 {
			l.t.Errorf("after it jumped back: ran %v", boundaries)
		}
		l.pass(7 * time.Hour)
		boundaries, missed := ran()
		if fmt.Sprint(boundaries) != "[0s 72h0m0s 4h0m0s 8h0m0s]" || missed != 15 { // what was not run yet is run after all
			l.t.Errorf("after the clock was set right: ran %v, %d not run", boundaries, missed)
		}
		if state, err := l.catalog.Jobs.State(l.t.Context(), "offsite"); err != nil || state.Last.Sub(start)%(4*time.Hour) != 0 || !state.Start.Equal(start) {
			l.t.Errorf("state %+v, %v", state, err)
		}
		points, err := l.catalog.Mirror.All(l.t.Context(), "vault")
		if l.must(err); len(points) != 1 {
			l.t.Errorf("%d points", len(points))
		}
		l.pass(63 * time.Hour) // the one that ran already has no boundary the second time
		if last := l.last("offsite", catalog.SessionDone); !last.Boundary.IsZero() || last.Started.Sub(start) != 72*time.Hour {
			l.t.Errorf("at the boundary that ran already: %+v", last)
		}
	})
}

// A job is enabled when it is new, and not when a person has switched it off; and when it has gone nothing of it begins.
func TestJobsComeAndGo(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.begin()
		if _, err := l.Start(l.t.Context(), "offsite", scheduler.Start{}); !errors.Is(err, scheduler.ErrUnknownJob) {
			l.t.Errorf("an unknown job: %v", err)
		}
		l.job("offsite", "schedule: {every: 1h}")
		l.Changed()
		l.pass(time.Minute)
		l.last("offsite", catalog.SessionDone)
		l.must(l.Disable(l.t.Context(), "offsite"))
		l.Changed()
		l.pass(3 * time.Hour)
		if n := len(l.sessions("offsite")); n != 1 {
			l.t.Errorf("%d sessions after it was disabled", n)
		}
		full, err := l.Start(l.t.Context(), "offsite", scheduler.Start{Full: true})
		l.must(err)
		l.pass(time.Minute)
		if byHand := l.last("offsite", catalog.SessionDone); byHand.ID != full || !byHand.Full || !byHand.Boundary.IsZero() {
			l.t.Errorf("by hand: %+v", byHand)
		}
		l.must(l.Enable(l.t.Context(), "offsite"))
		l.pass(time.Minute)
		if n := len(l.sessions("offsite")); n != 5 { // the first, the one by hand, two that were not run, and one that catches up
			l.t.Errorf("%d sessions after it was enabled", n)
		}
		resource, err := l.catalog.Resources.Get(l.t.Context(), "Job", "offsite")
		l.must(err)
		l.must(l.catalog.Resources.Delete(l.t.Context(), "Job", "offsite", resource.Version))
		l.Changed()
		l.pass(3 * time.Hour)
		if n := len(l.sessions("offsite")); n != 5 {
			l.t.Errorf("%d sessions after it had gone", n)
		}
	})
}

// What the mirror says comes from the repository alone: made anew it is what it was.
func TestRebuildMakesTheMirrorAnew(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.add("b")
		l.job("offsite", "schedule: {mode: manual}")
		l.begin()
		_, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		l.pass(time.Minute)
		before, err := l.catalog.Mirror.All(l.t.Context(), "vault")
		l.must(err)
		l.must(l.catalog.Mirror.Drop(l.t.Context(), "vault"))
		if n, err := l.Rebuild(l.t.Context(), "vault"); err != nil || n != 2 {
			l.t.Errorf("rebuilt %d, %v", n, err)
		}
		after, err := l.catalog.Mirror.All(l.t.Context(), "vault")
		l.must(err)
		if fmt.Sprintf("%+v", deref(after)) != fmt.Sprintf("%+v", deref(before)) {
			l.t.Errorf("before %+v\nafter %+v", deref(before), deref(after))
		}
		if _, err := l.Rebuild(l.t.Context(), "pve"); !errors.Is(err, scheduler.ErrUnknownRepository) {
			l.t.Errorf("a source: %v", err)
		}
		explanation, of, err := l.Explain(l.t.Context(), "offsite")
		if err != nil || of.Name != "offsite" || len(explanation.Plan.Machines) != 2 || explanation.Target.State != job.StateReady {
			l.t.Errorf("explained: %+v, %v", explanation, err)
		}
	})
}

// Of what a source has only what is new, has changed or has gone is written to the catalog: the mirror stays the edition that it was.
func TestMirrorOfASourceIsChangedNotMadeAnew(t *testing.T) {
	inBubble(t, func(l *lab) {
		ctx := l.t.Context()
		edition := func() (id int64) {
			db, err := sql.Open("sqlite", l.path)
			l.must(err)
			defer db.Close()
			l.must(db.QueryRow(`SELECT edition FROM mirrors WHERE repository = 'pve'`).Scan(&id))
			return id
		}
		mirrored := func() string {
			points, err := l.catalog.Mirror.All(ctx, "pve")
			l.must(err)
			var states []string
			for _, p := range points {
				states = append(states, fmt.Sprintf("%s %s", p.Machine.Name, p.State))
			}
			slices.Sort(states)
			return strings.Join(states, ", ")
		}
		l.add("a")
		l.add("b")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		l.pass(time.Minute)
		first := edition()
		l.add("c")
		unlock := l.lock("c")
		for _, step := range []struct {
			change func()
			want   string
		}{
			{func() {}, "a complete, b complete, c locked"},
			{unlock, "a complete, b complete, c complete"},
			{func() { l.with(func() { l.points["pve"] = l.points["pve"][1:] }) }, "b complete, c complete"},
		} {
			step.change()
			l.pass(8 * time.Hour)
			if got := mirrored(); got != step.want || edition() != first {
				l.t.Errorf("%s in edition %d, want %s in %d", got, edition(), step.want, first)
			}
		}
	})
}

// What a job claims is withdrawn in its target alone, and not in another repository that lies in its place.
func TestReleaseWithdrawsClaimsInTheTargetAlone(t *testing.T) {
	inBubble(t, func(l *lab) {
		ctx := l.t.Context()
		l.target("second")
		l.add("a")
		l.job("offsite", "schedule: {mode: manual}")
		l.begin()
		_, err := l.Start(ctx, "offsite", scheduler.Start{})
		l.must(err)
		l.pass(time.Minute)
		file, err := l.catalog.Resources.Get(ctx, "Job", "offsite")
		l.must(err)
		where, err := l.catalog.Resources.Get(ctx, "Repository", "vault")
		l.must(err)
		resources, err := policy.Parse(policy.File{Content: []byte(file.Document + "---\n" + where.Document + "---\nkind: Repository\nname: pve\nlocation: /pve\n")})
		l.must(err)
		whole := l.targets["vault"]
		left := func() int {
			r, err := repo.Open(ctx, whole, repo.Environment{})
			l.must(err)
			defer r.Close()
			return len(r.Entries())
		}
		l.targets["vault"] = l.targets["second"]
		if err := l.Release(ctx, resources, "offsite"); err == nil || !strings.Contains(err.Error(), "and repository vault is ") {
			l.t.Errorf("in another repository: %v", err)
		}
		if n := left(); n != 1 {
			l.t.Errorf("%d points before", n)
		}
		l.targets["vault"] = whole
		l.must(l.Release(ctx, resources, "offsite"))
		if n := left(); n != 0 {
			l.t.Errorf("%d points after", n)
		}
		if known, err := l.catalog.Mirror.All(ctx, "vault"); err != nil || len(known) != 0 {
			l.t.Errorf("the catalog still has %v, %v", known, err)
		}
	})
}

func deref(points []catalog.MirrorPoint) (list []any) {
	for _, p := range points {
		machine := *p.Machine
		p.Machine = nil
		list = append(list, p, machine)
	}
	return list
}

// A machine that has left its source stays among those of its job, whose copies can grow too old, for as long as the job has any.
func TestMachineThatLeftItsSourceIsStillTheJobs(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.add("b")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		l.pass(time.Minute)
		l.with(func() { l.points["pve"] = l.points["pve"][:1] })
		l.pass(8 * time.Hour)
		selected, err := l.catalog.Jobs.Selected(l.t.Context(), "offsite")
		if l.must(err); len(selected) != 2 || selected[1].Name != "b" {
			l.t.Errorf("selected %v", selected)
		}
	})
}

// A machine of a source that is not listed whole stays among those of its job, also one that has no copy yet: else nothing tells that
// it never gets one. It
// leaves them when all sources are listed without it.
func TestMachineOfASourceThatIsNotListedStaysTheJobs(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.add("a")
		l.add("b")
		second := func(machines ...string) {
			l.with(func() {
				l.points["second"] = nil
				for _, name := range machines {
					l.points["second"] = append(l.points["second"], &sourcetest.Point{Machine: sourcetest.Machine(name), Native: name, Created: time.Now()})
				}
			})
		}
		second("c")
		l.with(func() {
			l.edit = func(opened *registry.Source) {
				for i := range opened.Points {
					if p := &opened.Points[i]; p.Machine.Name > "b" { // they get no copies
						p.State, p.Reason, p.Opener = backup.StateBroken, "cut off", nil
					}
				}
			}
		})
		l.repository("second")
		document := "kind: Job\nname: offsite\nsource: {repositories: [pve, second]}\ntarget: {repository: vault}\nschedule: {every: 4h}\n"
		l.put("Job", "offsite", document)
		names := func() (names []string) {
			selected, err := l.catalog.Jobs.Selected(l.t.Context(), "offsite")
			l.must(err)
			for _, machine := range selected {
				names = append(names, machine.Name)
			}
			slices.Sort(names)
			return names
		}
		l.begin()
		l.pass(time.Minute)
		if got := names(); !slices.Equal(got, []string{"a", "b", "c"}) {
			l.t.Fatalf("at first %v", got)
		}
		second()
		l.pass(8 * time.Hour)
		if got := names(); !slices.Equal(got, []string{"a", "b", "c"}) {
			l.t.Errorf("with a source that offers nothing %v", got)
		}
		second("d")
		l.pass(8 * time.Hour)
		if got := names(); !slices.Equal(got, []string{"a", "b", "d"}) {
			l.t.Errorf("with sources that were listed whole %v", got)
		}
	})
}

// What a person says of a machine that has gone goes to the target with the next session. A server that knows nothing but the
// target learns it there, and removes the machine's points when their time has come.
func TestRetiredIsKnownToAServerMadeFromTheTarget(t *testing.T) {
	inBubble(t, func(l *lab) {
		ctx := l.t.Context()
		a := l.add("a").Machine.Key
		l.add("b")
		l.job("offsite", "schedule: {every: 4h}\npurgeAfter: 2d")
		l.begin()
		l.pass(time.Minute)
		l.with(func() { l.points["pve"] = l.points["pve"][1:] })
		retired, err := l.catalog.Machines.Retire(ctx, a, true)
		l.must(err)
		l.pass(4 * time.Hour)
		l.end()
		l.another()
		l.repository("pve")
		l.repository("vault")
		l.job("offsite", "schedule: {every: 4h}\npurgeAfter: 2d")
		l.begin()
		l.pass(time.Minute)
		known, err := l.catalog.Machines.Retired(ctx)
		if l.must(err); known[a] != retired {
			l.t.Fatalf("known %v, said %v", known, retired)
		}
		for day, want := range []int64{0, 0, 1} {
			explained, _, err := l.Explain(ctx, "offsite")
			l.must(err)
			m := explained.Plan.Machines[1]
			if m.Machine.Key != a || !m.Purge.Equal(retired.Since.Add(48*time.Hour)) {
				l.t.Errorf("explained on day %d: %+v", day, m)
			}
			l.add("b")
			l.pass(24 * time.Hour)
			removed := int64(0)
			for _, session := range l.sessions("offsite") {
				removed += session.Counts["removed"]
			}
			if removed != want {
				l.t.Fatalf("%d removed by the end of day %d, want %d", removed, day, want)
			}
		}
		points, err := l.catalog.Mirror.All(ctx, "vault")
		if l.must(err); len(points) == 0 {
			l.t.Error("nothing is left")
		}
		for _, p := range points {
			if p.Machine.Key == a {
				l.t.Errorf("left: %+v", p)
			}
		}
	})
}
