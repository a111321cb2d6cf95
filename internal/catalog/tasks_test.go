package catalog

import (
	"bytes"
	"context"
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

func claim(t testing.TB, c *Catalog, owner string, slots Slots) *Claimed {
	t.Helper()
	claimed, err := c.Tasks.Claim(context.Background(), owner, time.Minute, slots)
	must(t, err)
	return claimed
}

func mustClaim(t testing.TB, c *Catalog, owner string) *Claimed {
	t.Helper()
	claimed := claim(t, c, owner, Slots{})
	if claimed == nil {
		t.Fatal("nothing to claim")
	}
	return claimed
}

func TestTasksAreClaimedInOrder(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session := beginWith(t, c, "offsite", 3)
		beginWith(t, c, "attic", 2)
		if added, err := c.Tasks.Enqueue(ctx, session, []NewTask{{Machine: machine(0), Point: ptr(pointID(0, 1)), Source: "pve", Target: "vault"}}); err != nil || added != 0 {
			t.Errorf("the same task again: %d, %v", added, err)
		}
		var got []string
		for {
			claimed := claim(t, c, "me", Slots{})
			if claimed == nil {
				break
			}
			if claimed.State != TaskRunning || claimed.Owner != "me" || !claimed.LeaseUntil.Equal(clock.now().Add(time.Minute)) || !claimed.Began.Equal(clock.now()) ||
				claimed.Lease.Epoch != 1 || claimed.TakenOver || len(claimed.Checkpoint) != 0 || claimed.Attempts != 0 || *claimed.Point != pointID(int(claimed.Order), 1) ||
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

func TestSlots(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		_, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "scheduler", MaxLease)
		must(t, err)
		var tasks []NewTask
		for i, route := range []string{"pve vault", "pve vault", "pve attic", "xen vault", "xen attic", "vault attic"} {
			source, target, _ := strings.Cut(route, " ")
			tasks = append(tasks, NewTask{Machine: machine(i), Source: source, Target: target, Order: int64(i)})
		}
		_, err = c.Tasks.Enqueue(ctx, lease, tasks)
		must(t, err)
		names := func(slots Slots) (names string, claimed []*Claimed) {
			for {
				next := claim(t, c, "me", slots)
				if next == nil {
					return strings.TrimSpace(names), claimed
				}
				names += next.Machine.Name + " "
				claimed = append(claimed, next)
			}
		}
		giveBack := func(claimed []*Claimed) {
			for _, task := range claimed {
				must(t, c.Tasks.Postpone(ctx, task.Lease, "", time.Time{}, false))
			}
		}
		for _, check := range []struct {
			slots Slots
			want  string
		}{
			{Slots{All: 2}, "vm0 vm1"},
			{Slots{Repositories: map[string]int{"pve": 1}}, "vm0 vm3 vm4 vm5"},
			{Slots{Repositories: map[string]int{"pve": 1, "vault": 1}}, "vm0 vm4"},
			{Slots{All: 3, Repositories: map[string]int{"vault": 2}}, "vm0 vm1 vm2"},
			{Slots{Repositories: map[string]int{"vault": 0}}, "vm2 vm4"},
			{Slots{Repositories: map[string]int{"elsewhere": 0}}, "vm0 vm1 vm2 vm3 vm4 vm5"},
		} {
			got, claimed := names(check.slots)
			if got != check.want {
				t.Errorf("%+v: %s, want %s", check.slots, got, check.want)
			}
			giveBack(claimed)
		}
		// A task that waits leaves its slot to the next.
		first := claim(t, c, "me", Slots{All: 1})
		must(t, c.Tasks.Postpone(ctx, first.Lease, "locked by its writer", clock.now().Add(time.Hour), false))
		if second := claim(t, c, "me", Slots{All: 1}); second == nil || second.ID == first.ID {
			t.Errorf("claimed %+v after %d was postponed", second, first.ID)
		}
		clock.move(time.Hour)
		if again := claim(t, c, "me", Slots{}); again == nil || again.ID != first.ID {
			t.Errorf("claimed %+v when the time of %d had come", again, first.ID)
		}
	})
}

// Many who claim at once never have more than there are slots, and no task twice.
func TestClaimsAtOnce(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		const tasks, slots = 40, 3
		beginWith(t, c, "offsite", tasks)
		var mutex sync.Mutex
		running, most := 0, 0
		done := map[int64]int{}
		var group sync.WaitGroup
		for worker := range 6 {
			group.Go(func() {
				for {
					claimed, err := c.Tasks.Claim(context.Background(), fmt.Sprint("worker ", worker), time.Minute, Slots{All: slots, Repositories: map[string]int{"vault": slots}})
					if err != nil {
						t.Error(err)
						return
					}
					mutex.Lock()
					if claimed == nil {
						finished := len(done) == tasks
						mutex.Unlock()
						if finished {
							return
						}
						continue
					}
					running++
					most = max(most, running)
					mutex.Unlock()
					if err := c.Tasks.Checkpoint(context.Background(), claimed.Lease, []byte("x")); err != nil {
						t.Error(err)
					}
					mutex.Lock()
					running--
					done[claimed.ID]++
					mutex.Unlock()
					if err := c.Tasks.Finish(context.Background(), claimed.Lease, TaskDone, "", Progress{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if most > slots || len(done) != tasks {
			t.Errorf("%d at once with %d slots, %d tasks done", most, slots, len(done))
		}
		for id, times := range done {
			if times != 1 {
				t.Errorf("task %d was done %d times", id, times)
			}
		}
	})
}

func TestTasksGoOnAtTheirCheckpoint(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		beginWith(t, c, "offsite", 1)
		first := mustClaim(t, c, "first")
		largest := bytes.Repeat([]byte{0, 0xff, 'x'}, CheckpointLimit/3)
		must(t, c.Tasks.Checkpoint(ctx, first.Lease, largest))
		if err := c.Tasks.Checkpoint(ctx, first.Lease, make([]byte, CheckpointLimit+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		until := clock.now().Add(time.Hour)
		must(t, c.Tasks.Postpone(ctx, first.Lease, "window closed", until, false))
		got, err := c.Tasks.Get(ctx, first.ID)
		if must(t, err); got.State != TaskWaiting || got.Reason != "window closed" || !got.Next.Equal(until) || got.Owner != "" || got.Attempts != 0 {
			t.Errorf("postponed %+v", got)
		}
		if next := claim(t, c, "second", Slots{}); next != nil {
			t.Errorf("claimed before its time: %+v", next)
		}
		clock.move(time.Hour)
		second := mustClaim(t, c, "second")
		if !bytes.Equal(second.Checkpoint, largest) || second.Lease.Epoch != 2 || second.TakenOver || second.Reason != "" {
			t.Errorf("claimed at epoch %d with %d bytes", second.Lease.Epoch, len(second.Checkpoint))
		}
		must(t, c.Tasks.Postpone(ctx, second.Lease, "connection lost", time.Time{}, true))
		third := mustClaim(t, c, "third")
		if third.Attempts != 1 {
			t.Errorf("%d attempts", third.Attempts)
		}
		must(t, c.Tasks.Checkpoint(ctx, third.Lease, nil))
		for range 2 {
			must(t, c.Tasks.Finish(ctx, third.Lease, TaskFailed, "bad\x00sector", Progress{Done: 5, Total: 10, Read: 3, Written: 1}))
		}
		got, err = c.Tasks.Get(ctx, first.ID)
		if must(t, err); got.State != TaskFailed || got.Reason != "bad%00sector" || got.Progress != (Progress{5, 10, 3, 1}) || !got.Ended.Equal(clock.now()) {
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
		must(t, c.Tasks.Checkpoint(ctx, old.Lease, []byte("half")))
		clock.move(59 * time.Second)
		if taken := claim(t, c, "new", Slots{}); taken != nil {
			t.Fatalf("taken over within its lease: %+v", taken)
		}
		clock.move(time.Second)
		if taken := claim(t, c, "old", Slots{}); taken != nil {
			t.Fatalf("taken over from itself: %+v", taken)
		}
		// Expired, and nobody wanted it: it goes on.
		_, err := c.Tasks.Renew(ctx, &old.Lease, time.Minute, Progress{Done: 1})
		must(t, err)
		clock.move(time.Minute)
		taken := mustClaim(t, c, "new")
		if !taken.TakenOver || taken.Lease.Epoch != old.Lease.Epoch+1 || string(taken.Checkpoint) != "half" || taken.Attempts != 1 || taken.Progress.Done != 1 {
			t.Errorf("taken over %+v", taken)
		}
		_, renewed := c.Tasks.Renew(ctx, &old.Lease, time.Minute, Progress{Done: 99})
		for doing, err := range map[string]error{
			"renew": renewed, "checkpoint": c.Tasks.Checkpoint(ctx, old.Lease, []byte("stale")), "finish": c.Tasks.Finish(ctx, old.Lease, TaskDone, "", Progress{}),
			"postpone": c.Tasks.Postpone(ctx, old.Lease, "", time.Time{}, true),
		} {
			if !errors.Is(err, ErrLostLease) || !strings.Contains(err.Error(), "new has it at epoch 2") {
				t.Errorf("%s: %v", doing, err)
			}
		}
		clock.move(time.Minute)
		third := mustClaim(t, c, "third")
		if string(third.Checkpoint) != "half" || third.Progress.Done != 1 {
			t.Errorf("the paused owner has written: %q, %+v", third.Checkpoint, third.Progress)
		}
	})
}

// A clock that is set back by days does not keep a dead owner's lease alive.
func TestClockSetBack(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		beginWith(t, c, "offsite", 1)
		mustClaim(t, c, "dead")
		clock.move(-48 * time.Hour)
		if taken := mustClaim(t, c, "new"); !taken.TakenOver {
			t.Errorf("claimed %+v", taken)
		}
	})
}

func TestLeasesAreBounded(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, _ *clock) {
		for _, length := range []time.Duration{0, -time.Second, MaxLease + 1} {
			_, claimErr := c.Tasks.Claim(t.Context(), "me", length, Slots{})
			_, _, beginErr := c.Sessions.Begin(t.Context(), NewSession{Job: "offsite"}, "me", length)
			_, _, _, takeErr := c.Sessions.Take(t.Context(), "me", length)
			for _, err := range []error{claimErr, beginErr, takeErr} {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("a lease of %v: %v", length, err)
				}
			}
		}
		if _, err := c.Tasks.Claim(t.Context(), "", time.Minute, Slots{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("an owner without a name: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		session := beginWith(t, c, "offsite", 3)
		running := mustClaim(t, c, "me")
		tasks, err := c.Tasks.Of(ctx, session.ID)
		must(t, err)
		must(t, c.Tasks.Cancel(ctx, tasks[1].ID, CancelGracefully)) // waits: stopped at once
		must(t, c.Sessions.Cancel(ctx, session.ID, CancelNow))
		must(t, c.Sessions.Cancel(ctx, session.ID, CancelGracefully)) // the weaker one does not count
		tasks, err = c.Tasks.Of(ctx, session.ID)
		must(t, err)
		for i, want := range []struct {
			state  TaskState
			cancel Cancel
		}{{TaskRunning, CancelNow}, {TaskStopped, CancelGracefully}, {TaskStopped, CancelNow}} {
			if tasks[i].State != want.state || tasks[i].Cancel != want.cancel || tasks[i].Ended.IsZero() != (want.state == TaskRunning) {
				t.Errorf("task %d: %+v, want %+v", i, tasks[i], want)
			}
		}
		if claimed := claim(t, c, "me", Slots{}); claimed != nil {
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
		must(t, c.Tasks.Postpone(ctx, taken.Lease, "asked to", clock.now().Add(time.Hour), false))
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
		if claimed := claim(t, c, "me", Slots{}); claimed != nil {
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
		if taken := mustClaim(t, c, "after"); !taken.TakenOver || taken.ID == mine.ID {
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
