package scheduler_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/scheduler"
	"ferry/internal/source/sourcetest"
)

// What was stored when a person stops a session is kept, or with now what was committed; the next session goes on from there.
func TestStop(t *testing.T) {
	for _, now := range []bool{false, true} {
		inBubble(t, func(l *lab) {
			l.job("offsite", "schedule: {mode: manual}")
			l.begin()
			if err := l.Stop(l.t.Context(), "offsite", now); !errors.Is(err, scheduler.ErrNotRunning) {
				l.t.Errorf("nothing runs: %v", err)
			}
			p, blocked := l.slow("a")
			id, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
			l.must(err)
			synctest.Wait()
			if _, err := l.Start(l.t.Context(), "offsite", scheduler.Start{}); !errors.Is(err, scheduler.ErrRunning) {
				l.t.Errorf("a second one: %v", err)
			}
			events, cancel := l.Subscribe(id)
			defer cancel()
			l.must(l.Stop(l.t.Context(), "offsite", now))
			close(blocked)
			l.pass(time.Minute)
			last := l.last("offsite", catalog.SessionStopped)
			if last.ID != id || last.Counts["copied"] != 0 || last.Reason != "a person stopped it" {
				l.t.Errorf("stopped: %+v", last)
			}
			heard := 0
			for range events {
				heard++
			}
			if heard == 0 {
				l.t.Error("nothing was told before the end")
			}
			tasks, err := l.catalog.Tasks.Of(l.t.Context(), id)
			l.must(err)
			if len(tasks) != 1 || tasks[0].State != catalog.TaskStopped {
				l.t.Errorf("tasks %+v", tasks)
			}
			p.Read.Store(0)
			_, err = l.Start(l.t.Context(), "offsite", scheduler.Start{Retry: true})
			l.must(err)
			l.pass(time.Minute)
			if again := l.last("offsite", catalog.SessionDone); again.Counts["copied"] != 1 {
				l.t.Errorf("again: %+v", again)
			}
			if read := p.Read.Load(); !now && read >= slowSize {
				l.t.Errorf("after a checkpoint %d bytes are read again", read)
			}
			if _, err := l.Start(l.t.Context(), "offsite", scheduler.Start{Retry: true}); !errors.Is(err, scheduler.ErrNothingToRetry) {
				l.t.Errorf("nothing is left to be done: %v", err)
			}
		})
	}
}

// A request to stop that only the catalog has, because another process noted it or whoever made it was cut off, reaches the session
// at the next renewal of its lease; and one that was noted while no server ran reaches the one that takes the session up.
func TestStopThatTheCatalogTells(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		inBubble(t, func(l *lab) {
			l.job("offsite", "schedule: {mode: manual}")
			l.begin()
			p, blocked := l.slow("a")
			id, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
			l.must(err)
			synctest.Wait()
			if restarted {
				go func() {
					time.Sleep(time.Second)
					close(blocked)
				}()
				l.end()
				p.Read.Store(0)
			}
			l.must(l.catalog.Sessions.Cancel(l.t.Context(), id, catalog.CancelGracefully))
			if restarted {
				l.begin()
			} else {
				l.pass(21 * time.Second)
				close(blocked)
			}
			l.pass(time.Minute)
			if last := l.last("offsite", catalog.SessionStopped); last.ID != id || last.Counts["copied"] != 0 || last.Reason != "a person stopped it" {
				l.t.Errorf("restarted %v: %+v", restarted, last)
			}
			if restarted && p.Read.Load() != 0 {
				l.t.Errorf("%d bytes were read after it was stopped", p.Read.Load())
			}
			tasks, err := l.catalog.Tasks.Of(l.t.Context(), id)
			if l.must(err); len(tasks) != 1 || tasks[0].State != catalog.TaskStopped {
				l.t.Errorf("tasks %+v", tasks)
			}
		})
	}
}

// atEnd does something once, at the very moment at which a session has ended for the catalog, and not yet for its scheduler.
type atEnd struct {
	slog.Handler
	once sync.Once
	do   func()
}

func (h *atEnd) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "session ended" {
		h.once.Do(h.do)
	}
	return h.Handler.Handle(ctx, r)
}

// A session that begins at the very moment at which the one before it has ended is the scheduler's all the same: it can be
// followed, and to stop it waits for no renewal.
func TestSessionThatBeginsAsAnotherEnds(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.job("offsite", "schedule: {mode: manual}")
		l.add("a")
		hook := &atEnd{Handler: l.log.Handler()}
		l.log = slog.New(hook)
		l.begin()
		var blocked chan struct{}
		var second int64
		hook.do = func() {
			_, blocked = l.slow("b")
			var err error
			second, err = l.Start(l.t.Context(), "offsite", scheduler.Start{})
			l.must(err)
		}
		_, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		synctest.Wait()
		events, cancel := l.Subscribe(second)
		defer cancel()
		select {
		case _, more := <-events:
			if !more {
				l.t.Error("nobody is told of the second session")
			}
		default:
		}
		l.must(l.Stop(l.t.Context(), "offsite", true))
		close(blocked)
		synctest.Wait()
		if last := l.last("offsite", catalog.SessionStopped); last.ID != second {
			l.t.Errorf("%+v", last)
		}
	})
}

// A session that is in progress when the server ends is left with a checkpoint, and the next server goes on with it at once,
// under the same boundary and from what was stored. So it is when the server ends without a word.
func TestSessionIsTakenUp(t *testing.T) {
	inBubble(t, func(l *lab) {
		done := l.add("a")
		p, blocked := l.slow("b")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		l.pass(time.Minute)
		before := l.last("offsite", catalog.SessionRunning)
		go func() {
			time.Sleep(time.Second)
			close(blocked)
		}()
		l.end()
		if left := l.last("offsite", catalog.SessionRunning); left.ID != before.ID {
			l.t.Errorf("left behind: %+v", left)
		}
		left, err := l.catalog.Tasks.Of(l.t.Context(), before.ID)
		l.must(err)
		kept := left[1].Progress.Kept
		if task := left[1]; task.State != catalog.TaskWaiting || task.Attempts != 0 || task.Progress.Total != slowSize || kept < slowSize/2 || kept >= slowSize {
			l.t.Errorf("left behind: %+v", task)
		}
		done.Read.Store(0)
		p.Read.Store(0)
		l.pass(10 * time.Second)
		l.begin()
		l.pass(time.Minute)
		after := l.last("offsite", catalog.SessionDone)
		if after.ID != before.ID || !after.Boundary.Equal(before.Boundary) || after.Counts["copied"] != 2 || after.Owner != "server 2" {
			l.t.Errorf("taken up: %+v", after)
		}
		if done.Read.Load() != 0 || p.Read.Load() == 0 || p.Read.Load() >= slowSize {
			l.t.Errorf("read again: %d of what was stored, %d of what was not", done.Read.Load(), p.Read.Load())
		}
		if read := p.Read.Load(); read > slowSize-kept {
			l.t.Errorf("%d bytes are read, and of %d %d were kept", read, slowSize, kept)
		}
		report := l.report(after)
		if !regexp.MustCompile(`taken up again at [0-9-]+ [0-9]+:[0-9]+ UTC; points`).MatchString(strings.Join(report.Warnings, " ")) || !report.Nominal.Equal(before.Boundary) {
			l.t.Errorf("report %+v", report)
		}
		if report.Copied() != 2 || len(report.Tasks) != 2 || !report.Began.Equal(before.Started) {
			l.t.Errorf("the report lacks what was copied before: began %s, %+v", report.Began, report.Tasks)
		}
		for _, of := range report.Tasks {
			if p := of.Points[0]; of.State != job.TaskCopied || len(of.Points) != 1 || p.ReadBytes == 0 || p.Attempts == 0 {
				l.t.Errorf("%+v", of)
			}
		}
		tasks, err := l.catalog.Tasks.Of(l.t.Context(), after.ID)
		l.must(err)
		for _, task := range tasks {
			if task.State != catalog.TaskDone {
				l.t.Errorf("%+v", task)
			}
		}
	})
}

// Two machines that are in progress when the server ends are both gone on with, each from what was stored of it, under the same
// boundary.
func TestTwoMachinesAreTakenUp(t *testing.T) {
	inBubble(t, func(l *lab) {
		a, blockedA := l.slow("a")
		b, blockedB := l.slow("b")
		l.job("offsite", "schedule: {every: 4h}")
		l.begin()
		l.pass(time.Minute)
		before := l.last("offsite", catalog.SessionRunning)
		tasks, err := l.catalog.Tasks.Of(l.t.Context(), before.ID)
		l.must(err)
		for _, task := range tasks {
			if task.State != catalog.TaskRunning {
				l.t.Errorf("machine %s is %s while both are read", task.Machine.Name, task.State)
			}
		}
		go func() {
			time.Sleep(time.Second)
			close(blockedA)
			close(blockedB)
		}()
		l.end()
		a.Read.Store(0)
		b.Read.Store(0)
		l.begin()
		l.pass(time.Minute)
		after := l.last("offsite", catalog.SessionDone)
		if after.ID != before.ID || !after.Boundary.Equal(before.Boundary) || after.Counts["copied"] != 2 {
			l.t.Errorf("taken up: %+v", after)
		}
		for _, read := range []int64{a.Read.Load(), b.Read.Load()} {
			if read == 0 || read >= slowSize {
				l.t.Errorf("%d bytes of %d are read again", read, slowSize)
			}
		}
	})
}

// A catalog that takes no end of a session for a while keeps no job from running ever after: the end is noted when it can be.
func TestEndIsNotedInTheEnd(t *testing.T) {
	inBubble(t, func(l *lab) {
		db, err := sql.Open("sqlite", l.path)
		l.must(err)
		defer db.Close()
		l.add("a")
		l.job("offsite", "schedule: {every: 1h}")
		_, err = db.Exec(`CREATE TRIGGER full BEFORE UPDATE OF ended_at ON sessions BEGIN SELECT RAISE(ABORT, 'no space left'); END`)
		l.must(err)
		l.begin()
		l.pass(3 * time.Minute)
		stands, began := l.last("offsite", catalog.SessionRunning), l.Ready()
		if !strings.Contains(l.notReady(), "no space left") || len(began) != 1 || began[0].Since.IsZero() || began[0].Job != "" {
			l.t.Errorf("%+v, not ready: %+v", stands, began)
		}
		l.pass(time.Minute) // it was tried again
		if still := l.Ready(); !slices.Equal(still, began) {
			l.t.Errorf("not ready %+v, before %+v", still, began)
		}
		_, err = db.Exec(`DROP TRIGGER full`)
		l.must(err)
		l.pass(time.Minute)
		if ended := l.last("offsite", catalog.SessionDone); ended.Counts["copied"] != 1 || l.notReady() != "" {
			l.t.Errorf("%+v, not ready: %q", ended, l.notReady())
		}
		l.pass(time.Hour)
		if n := len(l.sessions("offsite")); n != 2 {
			l.t.Errorf("%d sessions", n)
		}
	})
}

// slowSize is the size of a slow point's disk.
const slowSize = 24 << 20

// slow adds a point whose second half is not read before the channel is closed.
func (l *lab) slow(machine string) (*sourcetest.Point, chan struct{}) {
	p, blocked := l.addSized(machine, slowSize), make(chan struct{})
	l.with(func() {
		p.OnRead = func(_ int, offset int64, n int) (int, error) {
			if offset >= slowSize/2 {
				<-blocked
			}
			return n, nil
		}
	})
	return p, blocked
}

// A session that cannot be set up fails with the reason, and the script after the job is run and told.
func TestSessionThatCannotBeSetUp(t *testing.T) {
	inBubble(t, func(l *lab) {
		told := filepath.Join(l.t.TempDir(), "told")
		l.job("offsite", "schedule: {mode: manual}\nscripts: {post: {run: [/bin/sh, -c, 'echo \"$FERRY_JOB $FERRY_SESSION $FERRY_RESULT: $FERRY_REASON\" >>"+told+"']}}")
		l.with(func() { l.prepareErr = errors.New("no password") })
		l.begin()
		id, err := l.Start(l.t.Context(), "offsite", scheduler.Start{})
		l.must(err)
		l.pass(time.Minute)
		if last := l.last("offsite", catalog.SessionFailed); last.ID != id || last.Reason != "no password" {
			l.t.Errorf("it ended so: %+v", last)
		}
		text, err := os.ReadFile(told)
		if want := fmt.Sprintf("offsite %d failed: no password\n", id); err != nil || string(text) != want {
			l.t.Errorf("the script was told %q, not %q: %v", text, want, err)
		}
		phases, err := l.catalog.Sessions.Phases(l.t.Context(), id)
		l.must(err)
		var names []string
		for _, phase := range phases {
			names = append(names, phase.Name+" "+string(phase.State))
		}
		if got := strings.Join(names, ", "); got != "post-job script done, report done" {
			l.t.Errorf("phases: %s", got)
		}
	})
}
