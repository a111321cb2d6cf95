package catalog

import (
	"errors"
	"testing"
	"time"
)

// What asked for an interval is kept until one begins, whatever begins it; the first to ask counts.
func TestWhatAskedIsKept(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		must(t, c.Jobs.Ask(ctx, "offsite"))
		if state, err := c.Jobs.State(ctx, "offsite"); err != nil || !state.Asked.IsZero() {
			t.Errorf("a job that is not enabled: %+v, %v", state, err)
		}
		must(t, c.Jobs.Enable(ctx, "offsite"))
		asked := clock.now()
		for range 2 {
			must(t, c.Jobs.Ask(ctx, "offsite"))
			clock.move(time.Minute)
		}
		if state, err := c.Jobs.State(ctx, "offsite"); err != nil || !state.Asked.Equal(asked) {
			t.Errorf("asked at %s, kept %+v, %v", asked, state, err)
		}
		boundary := clock.now().Truncate(time.Hour)
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: boundary}, "me", time.Minute)
		must(t, err)
		state, err := c.Jobs.State(ctx, "offsite")
		if must(t, err); !state.Asked.IsZero() || !state.Last.Equal(boundary) {
			t.Errorf("after the session began: %+v", state)
		}
		must(t, c.Jobs.Ask(ctx, "offsite"))
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		if state, err := c.Jobs.State(ctx, "offsite"); err != nil || state.Asked.IsZero() {
			t.Errorf("asked for while one ran: %+v, %v", state, err)
		}
		must(t, c.Jobs.Correct(ctx, "offsite", asked, asked.Add(time.Hour), time.Time{}))
		state, err = c.Jobs.State(ctx, "offsite")
		if must(t, err); !state.Start.Equal(asked) || !state.Last.Equal(asked.Add(time.Hour)) || !state.Asked.IsZero() || !state.Enabled {
			t.Errorf("corrected: %+v", state)
		}
	})
}

// An interval that was recorded as not run can still begin: a clock may have been ahead. One that had its session cannot.
func TestIntervalThatWasNotRunBegins(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		first, second := clock.now().Truncate(time.Hour), clock.now().Truncate(time.Hour).Add(time.Hour)
		must(t, c.Sessions.RecordNotRun(ctx, "offsite", []time.Time{first, second}, "nothing ran"))
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: second}, "me", time.Minute)
		must(t, err)
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		if _, _, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Boundary: second}, "me", time.Minute); !errors.Is(err, ErrBoundaryTaken) {
			t.Errorf("again: %v", err)
		}
		list, err := c.Sessions.Of(ctx, "offsite", 0, 10)
		if must(t, err); len(list) != 2 || list[0].ID != session.ID || list[1].State != SessionNotRun || !list[1].Boundary.Equal(first) {
			t.Errorf("sessions %+v", list)
		}
	})
}

// A session's report is kept by its holder and by nobody else, and outlives its end.
func TestReportOfASession(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session, old, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite", Full: true}, "old", time.Minute)
		must(t, err)
		if report, err := c.Sessions.Report(ctx, session.ID); err != nil || report != nil {
			t.Errorf("before there is one: %s, %v", report, err)
		}
		clock.move(2 * time.Minute)
		taken, lease, found, err := c.Sessions.Take(ctx, "new", time.Minute)
		if must(t, err); !found || !taken.Full {
			t.Errorf("taken over: %+v, %v", taken, found)
		}
		if err := c.Sessions.SetReport(ctx, old, []byte(`{"by":"old"}`)); !errors.Is(err, ErrLostLease) {
			t.Errorf("by its former owner: %v", err)
		}
		if err := c.Sessions.SetReport(ctx, lease, []byte(`{`)); !errors.Is(err, ErrInvalid) {
			t.Errorf("what is not JSON: %v", err)
		}
		must(t, c.Sessions.SetReport(ctx, lease, []byte(`{"by":"new"}`)))
		must(t, c.Sessions.End(ctx, lease, SessionDone, "", nil))
		if report, err := c.Sessions.Report(ctx, session.ID); err != nil || string(report) != `{"by":"new"}` {
			t.Errorf("kept %s, %v", report, err)
		}
		if _, err := c.Sessions.Report(ctx, session.ID+1); !errors.Is(err, ErrNotFound) {
			t.Errorf("of an unknown session: %v", err)
		}
	})
}

// A certain task is taken when it waits or its owner has gone, and not from one that works on it.
func TestTakeACertainTask(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "me", MaxLease)
		must(t, err)
		var tasks []NewTask
		for n := range 3 {
			id := pointID(n, 1)
			tasks = append(tasks, NewTask{Machine: machine(n), Point: &id, Created: clock.now(), Source: "pve", Target: "vault", Order: int64(n)})
		}
		_, err = c.Tasks.Enqueue(ctx, lease, tasks)
		must(t, err)
		opens := clock.now().Add(time.Hour)
		must(t, c.Sessions.Wait(ctx, lease, Blocked{Kind: "window", Until: opens}, "the window is closed"))
		if waits, err := c.Status.Waits(ctx, 10); err != nil || len(waits) != 1 || waits[0] != (Wait{Job: "offsite", Reason: "the window is closed", Tasks: 3, Until: opens}) {
			t.Errorf("waits %+v, %v", waits, err)
		}
		must(t, c.Sessions.Wait(ctx, lease, Blocked{Kind: "slot"}, "no slot"))
		rows, err := c.Tasks.Of(ctx, session.ID)
		must(t, err)
		for _, row := range rows {
			if row.State != TaskWaiting || row.Reason != "no slot" {
				t.Errorf("while the session waits: %+v", row)
			}
		}
		last := rows[2]
		taken, err := c.Tasks.Take(ctx, last.ID, "me", time.Minute)
		if must(t, err); taken == nil || *taken.Point != pointID(2, 1) || taken.Attempts != 0 || taken.Reason != "" {
			t.Fatalf("took %+v", taken)
		}
		for _, owner := range []string{"me", "other"} {
			if again, err := c.Tasks.Take(ctx, last.ID, owner, time.Minute); err != nil || again != nil {
				t.Errorf("%s takes it while it is worked on: %+v, %v", owner, again, err)
			}
		}
		clock.move(2 * time.Minute)
		over, err := c.Tasks.Take(ctx, last.ID, "other", time.Minute)
		if must(t, err); over == nil || over.Attempts != 0 || over.Lease.Epoch <= taken.Lease.Epoch {
			t.Fatalf("taken over: %+v", over)
		}
		if err := c.Tasks.Finish(ctx, taken.Lease, TaskDone, "", Progress{}); !errors.Is(err, ErrLostLease) {
			t.Errorf("finished by its former owner: %v", err)
		}
		must(t, c.Tasks.Finish(ctx, over.Lease, TaskDone, "", Progress{}))
		if again, err := c.Tasks.Take(ctx, last.ID, "me", time.Minute); err != nil || again != nil {
			t.Errorf("one that has ended: %+v, %v", again, err)
		}
	})
}
