package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// beginWith begins a session with tasks for machines 0 to n-1, all from pve to vault.
func beginWith(t testing.TB, c *Catalog, job string, n int) SessionLease {
	t.Helper()
	_, lease, err := c.Sessions.Begin(context.Background(), NewSession{Job: job}, "scheduler", MaxLease)
	must(t, err)
	enqueue(t, c, lease, n)
	return lease
}

func enqueue(t testing.TB, c *Catalog, lease SessionLease, n int) {
	t.Helper()
	var tasks []NewTask
	for i := range n {
		point := pointID(i, 1)
		tasks = append(tasks, NewTask{Machine: machine(i), Point: &point, Created: time.Unix(int64(i), 0).UTC(), Source: "pve", Target: "vault", Order: int64(i)})
	}
	added, err := c.Tasks.Enqueue(context.Background(), lease, tasks)
	if must(t, err); added != n {
		t.Fatalf("%d tasks added", added)
	}
}

// claim takes the first task that an owner can have; nil if there is none.
func claim(t testing.TB, c *Catalog, owner string) *Taken {
	t.Helper()
	ctx := context.Background()
	var ids []int64
	must(t, each(ctx, c.db.reader, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT id FROM tasks WHERE state IN ('waiting', 'running') ORDER BY ordinal, id`))
	for _, id := range ids {
		claimed, err := c.Tasks.Take(ctx, id, owner, time.Minute)
		if must(t, err); claimed != nil {
			return claimed
		}
	}
	return nil
}

func mustClaim(t testing.TB, c *Catalog, owner string) *Taken {
	t.Helper()
	claimed := claim(t, c, owner)
	if claimed == nil {
		t.Fatal("nothing to claim")
	}
	return claimed
}

func TestTasksHaveAnOrder(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session := beginWith(t, c, "offsite", 3)
		beginWith(t, c, "attic", 2)
		if added, err := c.Tasks.Enqueue(ctx, session, []NewTask{{Machine: machine(0), Point: ptr(pointID(0, 1)), Source: "pve", Target: "vault"}}); err != nil || added != 0 {
			t.Errorf("the same task again: %d, %v", added, err)
		}
		var got []string
		for {
			claimed := claim(t, c, "me")
			if claimed == nil {
				break
			}
			if claimed.State != TaskRunning || claimed.Owner != "me" || !claimed.LeaseUntil.Equal(clock.now().Add(time.Minute)) || !claimed.Began.Equal(clock.now()) ||
				claimed.Lease.Epoch != 1 || claimed.Progress != (Progress{}) || claimed.Attempts != 0 || *claimed.Point != pointID(int(claimed.Order), 1) ||
				!claimed.Created.Equal(time.Unix(claimed.Order, 0)) {
				t.Errorf("claimed %+v", claimed)
			}
			got = append(got, claimed.Job+" "+claimed.Machine.Name)
		}
		if want := []string{"offsite vm0", "attic vm0", "offsite vm1", "attic vm1", "offsite vm2"}; !slices.Equal(got, want) {
			t.Errorf("claimed %v, want %v", got, want)
		}
	})
}

func ptr[T any](v T) *T { return &v }

// Many who take at once never have a task at the same time.
func TestTakesAtOnce(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		const tasks = 20
		session := beginWith(t, c, "offsite", tasks)
		rows, err := c.Tasks.Of(t.Context(), session.ID)
		must(t, err)
		var mutex sync.Mutex
		taken := map[int64]int{}
		var group sync.WaitGroup
		for worker := range 6 {
			group.Go(func() {
				for _, row := range rows {
					claimed, err := c.Tasks.Take(context.Background(), row.ID, fmt.Sprint("worker ", worker), time.Minute)
					if err != nil {
						t.Error(err)
					}
					if claimed != nil {
						mutex.Lock()
						taken[row.ID]++
						mutex.Unlock()
					}
				}
			})
		}
		group.Wait()
		if len(taken) != tasks {
			t.Errorf("%d tasks were taken", len(taken))
		}
		for id, times := range taken {
			if times != 1 {
				t.Errorf("task %d was taken %d times", id, times)
			}
		}
	})
}

// Whoever takes a task sees how far it is, and its reason until it does.
func TestTasksGoOn(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		beginWith(t, c, "offsite", 1)
		first := mustClaim(t, c, "first")
		half := Progress{Done: 5, Total: 10, Kept: 4}
		must(t, c.Tasks.Postpone(ctx, first.Lease, "window closed", half, false))
		got, err := c.Tasks.Get(ctx, first.ID)
		if must(t, err); got.State != TaskWaiting || got.Reason != "window closed" || got.Owner != "" || got.Attempts != 0 || got.Progress != half {
			t.Errorf("postponed %+v", got)
		}
		second := mustClaim(t, c, "second")
		if second.Progress != half || second.Lease.Epoch != 2 || second.Attempts != 0 || second.Reason != "" {
			t.Errorf("taken at epoch %d: %+v", second.Lease.Epoch, second)
		}
		must(t, c.Tasks.Postpone(ctx, second.Lease, "connection lost", half, true))
		third := mustClaim(t, c, "third")
		if third.Attempts != 1 {
			t.Errorf("%d attempts", third.Attempts)
		}
		for range 2 {
			must(t, c.Tasks.Finish(ctx, third.Lease, TaskFailed, "bad\x00sector", Progress{Done: 5, Total: 10, Read: 3, Written: 1}))
		}
		got, err = c.Tasks.Get(ctx, first.ID)
		if must(t, err); got.State != TaskFailed || got.Reason != "bad%00sector" || got.Progress != (Progress{Done: 5, Total: 10, Read: 3, Written: 1}) || !got.Ended.Equal(clock.now()) {
			t.Errorf("finished %+v", got)
		}
		for _, lease := range []TaskLease{first.Lease, second.Lease, third.Lease} {
			if err := c.Tasks.Finish(ctx, lease, TaskDone, "", Progress{}); !errors.Is(err, ErrLostLease) {
				t.Errorf("epoch %d finishes after the end: %v", lease.Epoch, err)
			}
		}
		if _, err := c.Tasks.Get(ctx, 99999); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown task: %v", err)
		}
	})
}

// An owner that was paused while another took its task over can write nothing more.
func TestAPausedOwnerLosesItsLease(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		beginWith(t, c, "offsite", 1)
		old := mustClaim(t, c, "old")
		clock.move(59 * time.Second)
		if taken := claim(t, c, "new"); taken != nil {
			t.Fatalf("taken over within its lease: %+v", taken)
		}
		clock.move(time.Second)
		if taken := claim(t, c, "old"); taken != nil {
			t.Fatalf("taken over from itself: %+v", taken)
		}
		// Expired, and nobody wanted it: it goes on.
		_, err := c.Tasks.Renew(ctx, &old.Lease, time.Minute, Progress{Done: 2, Kept: 1})
		must(t, err)
		clock.move(time.Minute)
		taken := mustClaim(t, c, "new")
		if taken.Lease.Epoch != old.Lease.Epoch+1 || taken.Attempts != 0 || taken.Progress != (Progress{Done: 2, Kept: 1}) {
			t.Errorf("taken over %+v", taken)
		}
		_, renewed := c.Tasks.Renew(ctx, &old.Lease, time.Minute, Progress{Done: 99})
		for doing, err := range map[string]error{
			"renew": renewed, "finish": c.Tasks.Finish(ctx, old.Lease, TaskDone, "", Progress{}),
			"postpone": c.Tasks.Postpone(ctx, old.Lease, "", Progress{Done: 99}, true),
		} {
			if !errors.Is(err, ErrLostLease) || !strings.Contains(err.Error(), "new has it at epoch 2") {
				t.Errorf("%s: %v", doing, err)
			}
		}
		clock.move(time.Minute)
		third := mustClaim(t, c, "third")
		if third.Progress != (Progress{Done: 2, Kept: 1}) {
			t.Errorf("the paused owner has written: %+v", third.Progress)
		}
	})
}

// A clock that is set back by days does not keep a dead owner's lease alive.
func TestClockSetBack(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		beginWith(t, c, "offsite", 1)
		mustClaim(t, c, "dead")
		clock.move(-48 * time.Hour)
		if taken := mustClaim(t, c, "new"); taken.Attempts != 0 {
			t.Errorf("claimed %+v", taken)
		}
	})
}

func TestLeasesAreBounded(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		for _, length := range []time.Duration{0, -time.Second, MaxLease + 1} {
			_, claimErr := c.Tasks.Take(t.Context(), 1, "me", length)
			_, _, beginErr := c.Sessions.Begin(t.Context(), NewSession{Job: "offsite"}, "me", length)
			_, _, _, takeErr := c.Sessions.Take(t.Context(), "me", length)
			for _, err := range []error{claimErr, beginErr, takeErr} {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("a lease of %v: %v", length, err)
				}
			}
		}
		if _, err := c.Tasks.Take(t.Context(), 1, "", time.Minute); !errors.Is(err, ErrInvalid) {
			t.Errorf("an owner without a name: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session := beginWith(t, c, "offsite", 3)
		running := mustClaim(t, c, "me")
		must(t, c.Sessions.Cancel(ctx, session.ID, CancelGracefully)) // what waits is stopped at once
		must(t, c.Sessions.Cancel(ctx, session.ID, CancelNow))
		must(t, c.Sessions.Cancel(ctx, session.ID, CancelGracefully)) // the weaker one does not count
		tasks, err := c.Tasks.Of(ctx, session.ID)
		must(t, err)
		for i, want := range []struct {
			state  TaskState
			cancel Cancel
		}{{TaskRunning, CancelNow}, {TaskStopped, CancelGracefully}, {TaskStopped, CancelGracefully}} {
			if tasks[i].State != want.state || tasks[i].Cancel != want.cancel || tasks[i].Ended.IsZero() != (want.state == TaskRunning) {
				t.Errorf("task %d: %+v, want %+v", i, tasks[i], want)
			}
		}
		if claimed := claim(t, c, "me"); claimed != nil {
			t.Errorf("a stopped task was claimed: %+v", claimed)
		}
		// What is added now stops at once as well.
		if _, err := c.Tasks.Enqueue(ctx, session, []NewTask{{Machine: machine(9), Source: "pve", Target: "vault", Order: 9}}); err != nil {
			t.Error(err)
		}
		late := mustClaim(t, c, "me")
		if late.Cancel != CancelNow {
			t.Errorf("a task of a session that is to stop: %+v", late)
		}
		must(t, c.Tasks.Finish(ctx, late.Lease, TaskStopped, "", Progress{}))
		if cancel, err := c.Sessions.Renew(ctx, &session, time.Minute); err != nil || cancel != CancelNow {
			t.Errorf("the session is told %v, %v", cancel, err)
		}
		// Who takes it over is told as well.
		clock.move(time.Minute)
		taken := mustClaim(t, c, "other")
		if taken.Cancel != CancelNow || taken.ID != running.ID {
			t.Errorf("taken over %+v", taken)
		}
		if cancel, err := c.Tasks.Renew(ctx, &taken.Lease, time.Minute, Progress{}); err != nil || cancel != CancelNow {
			t.Errorf("the task is told %v, %v", cancel, err)
		}
		if err := c.Sessions.End(ctx, session, SessionStopped, "", nil); !errors.Is(err, ErrTasksRunning) {
			t.Errorf("ended with a running task: %v", err)
		}
		must(t, c.Tasks.Postpone(ctx, taken.Lease, "asked to", Progress{}, false))
		if got, err := c.Tasks.Get(ctx, taken.ID); err != nil || got.State != TaskStopped || got.Ended.IsZero() {
			t.Errorf("given back %+v, %v", got, err)
		}
		must(t, c.Sessions.End(ctx, session, SessionStopped, "", nil))
		if err := c.Sessions.Cancel(ctx, session.ID, CancelNow); !errors.Is(err, ErrNotFound) {
			t.Errorf("cancelling what has ended: %v", err)
		}
	})
}

func TestAnEndedSessionHasNoTasksLeft(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session := beginWith(t, c, "offsite", 2)
		first := mustClaim(t, c, "me")
		must(t, c.Tasks.Finish(ctx, first.Lease, TaskDone, "", Progress{}))
		must(t, c.Sessions.End(ctx, session, SessionPartial, "expired", nil))
		tasks, err := c.Tasks.Of(ctx, session.ID)
		if must(t, err); tasks[0].State != TaskDone || tasks[1].State != TaskStopped || !tasks[1].Ended.Equal(clock.now()) {
			t.Errorf("tasks %+v", tasks)
		}
		if claimed := claim(t, c, "me"); claimed != nil {
			t.Errorf("claimed %+v", claimed)
		}
		if _, err := c.Tasks.Enqueue(ctx, session, []NewTask{{Machine: machine(9), Source: "pve", Target: "vault"}}); !errors.Is(err, ErrLostLease) {
			t.Errorf("a task for an ended session: %v", err)
		}
	})
}

// A server that was killed and starts again waits for no lease.
func TestExpireOthers(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		ctx := t.Context()
		beginWith(t, c, "offsite", 2)
		mustClaim(t, c, "before")
		mine := mustClaim(t, c, "after")
		n, err := c.Tasks.ExpireOthers(ctx, "after")
		if must(t, err); n != 2 {
			t.Errorf("%d leases ended: one task, one session", n)
		}
		if taken := mustClaim(t, c, "after"); taken.Attempts != 0 || taken.ID == mine.ID {
			t.Errorf("taken %+v", taken)
		}
		if _, _, found, err := c.Sessions.Take(ctx, "after", time.Minute); err != nil || !found {
			t.Errorf("the session: %v, %v", found, err)
		}
		if _, err := c.Tasks.Renew(ctx, &mine.Lease, time.Minute, Progress{}); err != nil {
			t.Errorf("its own lease: %v", err)
		}
	})
}

func TestEnqueueIsBoundedAndWhole(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		session := beginWith(t, c, "offsite", 0)
		if _, err := c.Tasks.Enqueue(t.Context(), session, make([]NewTask, taskLimit+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too many: %v", err)
		}
		if _, err := c.Tasks.Enqueue(t.Context(), session, []NewTask{{Machine: machine(1), Source: "pve", Target: "vault"}, {Machine: machine(2), Source: "pve"}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("without a target: %v", err)
		}
		if tasks, err := c.Tasks.Of(t.Context(), session.ID); err != nil || len(tasks) != 0 {
			t.Errorf("there: %+v, %v", tasks, err)
		}
	})
}
