package catalog

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestOneSessionPerJobAndInterval(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		boundary := clock.now().Truncate(time.Hour)
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: boundary}, "me", time.Minute)
		must(t, err)
		got, err := c.Sessions.Get(ctx, session.ID)
		if must(t, err); !reflect.DeepEqual(got, session) || got.State != SessionRunning || !got.Boundary.Equal(boundary) || !got.Started.Equal(clock.now()) {
			t.Errorf("began %+v, read %+v", session, got)
		}
		if state, err := c.Jobs.State(ctx, "offsite"); err != nil || !state.Last.Equal(boundary) || state.Enabled {
			t.Errorf("state %+v, %v", state, err)
		}
		if _, _, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: boundary.Add(time.Hour)}, "me", time.Minute); !errors.Is(err, ErrSessionRunning) {
			t.Errorf("a second one: %v", err)
		}
		if _, _, err := c.Sessions.Begin(ctx, NewSession{Job: "other", Boundary: boundary}, "me", time.Minute); err != nil {
			t.Errorf("another job: %v", err)
		}
		for range 2 { // the second time changes nothing
			must(t, c.Sessions.End(ctx, lease, SessionPartial, "one failed", Counts{"points": 3}))
		}
		if err := c.Sessions.End(ctx, lease, SessionDone, "", nil); !errors.Is(err, ErrLostLease) {
			t.Errorf("ending it otherwise: %v", err)
		}
		if _, _, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: boundary}, "me", time.Minute); !errors.Is(err, ErrBoundaryTaken) {
			t.Errorf("the same interval again: %v", err)
		}
		for range 2 { // by hand, as often as one likes
			_, byHand, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "me", time.Minute)
			must(t, err)
			must(t, c.Sessions.End(ctx, byHand, SessionDone, "", nil))
		}
		if state, err := c.Jobs.State(ctx, "offsite"); err != nil || !state.Last.Equal(boundary) {
			t.Errorf("after a session by hand: %+v, %v", state, err)
		}
		got, err = c.Sessions.Get(ctx, session.ID)
		if must(t, err); got.State != SessionPartial || got.Reason != "one failed" || got.Counts["points"] != 3 || !got.Ended.Equal(clock.now()) {
			t.Errorf("ended %+v", got)
		}
		if _, err := c.Sessions.Get(ctx, 999999); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown session: %v", err)
		}
	})
}

// Of several servers that want to begin the same interval one does.
func TestServersBeginAnIntervalOnce(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		var begun atomic.Int64
		var group sync.WaitGroup
		for _, owner := range []string{"a", "b", "c", "d"} {
			group.Go(func() {
				_, lease, err := c.Sessions.Begin(context.Background(), NewSession{Job: "offsite", Boundary: clock.now()}, owner, time.Minute)
				if errors.Is(err, ErrSessionRunning) || errors.Is(err, ErrBoundaryTaken) {
					return
				}
				if err == nil {
					begun.Add(1)
					err = c.Sessions.End(context.Background(), lease, SessionDone, "", nil)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if begun.Load() != 1 {
			t.Errorf("%d sessions", begun.Load())
		}
	})
}

func TestMissedIntervalsAreRecorded(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		at := func(day int) time.Time { return clock.now().AddDate(0, 0, day) }
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: at(2)}, "me", time.Minute)
		must(t, err)
		for range 2 {
			must(t, c.Sessions.RecordNotRun(ctx, "offsite", []time.Time{at(1), at(2), at(3)}, "the server was off"))
		}
		list, err := c.Sessions.Of(ctx, "offsite", 0, 10)
		must(t, err)
		notRun := 0
		for _, s := range list {
			if s.State == SessionNotRun && s.Reason == "the server was off" && !s.Ended.IsZero() {
				notRun++
			}
		}
		if len(list) != 3 || notRun != 2 {
			t.Errorf("%d sessions, %d not run", len(list), notRun)
		}
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		page, err := c.Sessions.Of(ctx, "offsite", list[0].ID, 1)
		if must(t, err); len(page) != 1 || page[0].ID != list[1].ID {
			t.Errorf("the page after %d: %+v", list[0].ID, page)
		}
		other, _, err := c.Sessions.Begin(ctx, NewSession{Job: "attic"}, "me", time.Minute)
		must(t, err)
		all, err := c.Sessions.Of(ctx, "", 0, 10)
		if must(t, err); len(all) != 4 || all[0].ID != other.ID {
			t.Errorf("of all jobs: %+v", all)
		}
		before, err := c.Sessions.Of(ctx, "", other.ID, 10)
		if must(t, err); len(before) != 3 || before[0].ID != list[0].ID {
			t.Errorf("of all jobs before that: %+v", before)
		}
		if err := c.Sessions.RecordNotRun(ctx, "offsite", make([]time.Time, boundaryLimit+1), ""); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many: %v", err)
		}
	})
}

func TestPhases(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: clock.now()}, "me", time.Minute)
		must(t, err)
		enter := func(name string) int64 {
			number, err := c.Sessions.Enter(ctx, lease, name)
			must(t, err)
			return number
		}
		begin := clock.now()
		script := enter("pre-job")
		clock.move(time.Second)
		for range 2 {
			must(t, c.Sessions.Leave(ctx, lease, script, PhaseDone, "", Counts{"exit": 0}))
		}
		_, err = c.Sessions.Skip(ctx, lease, "health check", "it is not due")
		must(t, err)
		if s, err := c.Sessions.Get(ctx, session.ID); err != nil || s.Phase != "pre-job" {
			t.Errorf("a phase that was skipped is the session's: %+v, %v", s, err)
		}
		enter("synchronize") // and never left
		clock.move(time.Second)
		must(t, c.Sessions.Wait(ctx, lease, Blocked{Kind: "window"}, "window closed until 20:00"))
		if s, err := c.Sessions.Get(ctx, session.ID); err != nil || s.State != SessionWaiting || s.Phase != "synchronize" || s.Reason != "window closed until 20:00" || s.Wait.Kind != "window" {
			t.Errorf("waiting: %+v, %v", s, err)
		}
		must(t, c.Sessions.Wait(ctx, lease, Blocked{}, ""))
		enter("synchronize")
		clock.move(time.Second)
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		got, err := c.Sessions.Phases(ctx, session.ID)
		want := []Phase{
			{1, "pre-job", begin, begin.Add(time.Second), PhaseDone, "", Counts{"exit": 0}},
			{2, "health check", begin.Add(time.Second), begin.Add(time.Second), PhaseSkipped, "it is not due", Counts{}},
			{3, "synchronize", begin.Add(time.Second), begin.Add(2 * time.Second), PhaseInterrupted, "", Counts{}},
			{4, "synchronize", begin.Add(2 * time.Second), begin.Add(3 * time.Second), PhaseInterrupted, "", Counts{}},
		}
		if must(t, err); !reflect.DeepEqual(got, want) {
			t.Errorf("phases\n%+v\nwant\n%+v", got, want)
		}
		many := Counts{}
		for i := range countsLimit + 1 {
			many[itoa(int64(i))] = 1
		}
		if err := c.Sessions.Leave(ctx, lease, 3, PhaseDone, "", many); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many counts: %v", err)
		}
	})
}

// A session whose owner is gone goes on under another; the former owner can write nothing more.
func TestSessionsAreTakenOver(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session, old, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: clock.now()}, "old", time.Minute)
		must(t, err)
		phase, err := c.Sessions.Enter(ctx, old, "synchronize")
		must(t, err)
		must(t, c.Sessions.Wait(ctx, old, Blocked{Kind: "target", State: "offline", Reason: "nothing there"}, "target offline: nothing there"))
		take := func(owner string) (SessionLease, bool) {
			t.Helper()
			session, lease, found, err := c.Sessions.Take(ctx, owner, time.Minute)
			if must(t, err); found && (session.State != SessionRunning || session.Reason != "" || session.Wait != Blocked{}) {
				t.Errorf("whoever takes it over waits for what its former owner did: %+v", session)
			}
			return lease, found
		}
		if _, found := take("new"); found {
			t.Error("taken over from a living owner")
		}
		clock.move(59 * time.Second)
		cancel, err := c.Sessions.Renew(ctx, &old, time.Minute)
		if must(t, err); cancel != CancelNone || !old.Until.Equal(clock.now().Add(time.Minute)) {
			t.Errorf("renewed: %v, %+v", cancel, old)
		}
		clock.move(time.Minute)
		if _, found := take("old"); found {
			t.Error("taken over from itself")
		}
		lease, found := take("new")
		if !found || lease.Epoch != old.Epoch+1 || lease.ID != session.ID {
			t.Fatalf("taken over as %+v: %v", lease, found)
		}
		if _, found := take("third"); found {
			t.Error("taken over twice")
		}
		_, renew := c.Sessions.Renew(ctx, &old, time.Minute)
		_, enter := c.Sessions.Enter(ctx, old, "transform")
		_, enqueue := c.Tasks.Enqueue(ctx, old, []NewTask{{Machine: machine(1), Source: "pve", Target: "vault"}})
		for doing, err := range map[string]error{
			"renew": renew, "enter": enter, "enqueue": enqueue, "wait": c.Sessions.Wait(ctx, old, Blocked{Kind: "lock"}, "x"),
			"leave": c.Sessions.Leave(ctx, old, phase, PhaseDone, "", nil), "end": c.Sessions.End(ctx, old, SessionDone, "", nil),
		} {
			if !errors.Is(err, ErrLostLease) {
				t.Errorf("the former owner's %s: %v", doing, err)
			}
		}
		phases, err := c.Sessions.Phases(ctx, session.ID)
		if must(t, err); len(phases) != 1 || phases[0].State != PhaseRunning {
			t.Errorf("phases %+v", phases)
		}
		if live, err := c.Sessions.Live(ctx); err != nil || len(live) != 1 || live[0].Owner != "new" || live[0].State != SessionRunning || live[0].Phase != "synchronize" {
			t.Errorf("live %+v, %v", live, err)
		}
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		if live, err := c.Sessions.Live(ctx); err != nil || len(live) != 0 {
			t.Errorf("live after the end %+v, %v", live, err)
		}
	})
}

func TestHistoryIsPruned(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		const days = 150 // more than one batch is removed
		for day := range days {
			_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "daily", Boundary: clock.now()}, "me", time.Minute)
			must(t, err)
			_, err = c.Sessions.Enter(ctx, lease, "synchronize")
			must(t, err)
			_, err = c.Tasks.Enqueue(ctx, lease, []NewTask{{Machine: machine(1), Source: "pve", Target: "vault"}})
			must(t, err)
			must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
			must(t, c.Figures.Record(ctx, "vault", Figure{At: clock.now()}))
			if day == 0 {
				_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "once", Boundary: clock.now()}, "me", time.Minute)
				must(t, err)
				must(t, c.Sessions.End(ctx, lease, SessionFailed, "", nil))
				_, _, err = c.Sessions.Begin(ctx, NewSession{Job: "long", Boundary: clock.now()}, "me", time.Minute)
				must(t, err)
			}
			clock.move(24 * time.Hour)
		}
		pruned, err := c.PruneHistory(ctx, clock.now().AddDate(0, 0, -30))
		if must(t, err); pruned != (Pruned{Sessions: days - 30, Figures: days - 30}) {
			t.Errorf("pruned %+v", pruned)
		}
		for table, want := range map[string]int{"sessions": 32, "phases": 30, "tasks": 30, "figures": 30} {
			if n := countRows(t, c, table); n != want {
				t.Errorf("%d rows in %s, want %d", n, table, want)
			}
		}
		if pruned, err = c.PruneHistory(ctx, clock.now().AddDate(10, 0, 0)); err != nil || pruned.Sessions != 29 {
			t.Errorf("pruned %+v, %v: the last session of each job stays", pruned, err)
		}
	})
}
