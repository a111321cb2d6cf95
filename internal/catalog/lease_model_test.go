package catalog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// taskModel is what a task should be.
type taskModel struct {
	id, order, epoch, attempts, cancel, kept int64
	state, owner                             string
	until                                    time.Time
}

func (m taskModel) String() string {
	return fmt.Sprintf("task %d %s, owner %q, epoch %d until %v, attempts %d, cancel %d, kept %d",
		m.id, m.state, m.owner, m.epoch, maybe(stamp(m.until)), m.attempts, m.cancel, m.kept)
}

// ownerModel is a process: its own connections, its own clock, and every lease that it was ever given. It may be paused at any
// time: it then comes back with leases that are no longer its own.
type ownerModel struct {
	catalog *Catalog
	clock   *clock
	name    string
	leases  []TaskLease
}

// leaseModel checks leases against the rules in a few lines of Go.
type leaseModel struct {
	owners []*ownerModel
	tasks  []*taskModel
	writes int
	// session that the tasks are of.
	session int64
}

func (m *leaseModel) find(id int64) *taskModel {
	return m.tasks[slices.IndexFunc(m.tasks, func(task *taskModel) bool { return task.id == id })]
}

func (m *leaseModel) take(t *rapid.T) {
	o := rapid.SampledFrom(m.owners).Draw(t, "owner")
	want := rapid.SampledFrom(m.tasks).Draw(t, "task")
	length := rapid.SampledFrom([]time.Duration{time.Second, time.Minute, MaxLease}).Draw(t, "length")
	now := o.clock.now()
	takeOver := want.state == "running" && want.owner != o.name && (!want.until.After(now) || want.until.After(now.Add(2*MaxLease)))
	got, err := o.catalog.Tasks.Take(context.Background(), want.id, o.name, length)
	if err != nil {
		t.Fatal(err)
	}
	if (got != nil) != (want.state == "waiting" || takeOver) {
		t.Fatalf("%s took %v, of %v", o.name, got, want)
	}
	if got == nil {
		return
	}
	want.epoch++
	want.state, want.owner, want.until = "running", o.name, now.Add(length)
	if got.ID != want.id || got.Lease.Epoch != want.epoch || got.Progress.Kept != want.kept || int64(got.Cancel) != want.cancel {
		t.Fatalf("%s took %+v, want %v", o.name, got, want)
	}
	o.leases = append(o.leases, got.Lease)
}

// write does something under a lease that an owner has or had, and says whether it should work.
func (m *leaseModel) write(t *rapid.T, doing string, do func(o *ownerModel, lease TaskLease) error, change func(task *taskModel)) {
	o := rapid.SampledFrom(m.owners).Draw(t, "owner")
	if len(o.leases) == 0 {
		return
	}
	lease := rapid.SampledFrom(o.leases).Draw(t, "lease")
	task := m.find(lease.ID)
	held := task.state == "running" && task.epoch == lease.Epoch
	switch err := do(o, lease); {
	case held && err != nil:
		t.Fatalf("%s by the holder: %v; %v", doing, err, task)
	case held:
		change(task)
		m.writes++
	case !errors.Is(err, ErrLostLease):
		t.Fatalf("%s by a former owner at epoch %d: %v; %v", doing, lease.Epoch, err, task)
	}
}

func (m *leaseModel) actions() map[string]func(*rapid.T) {
	ctx := context.Background()
	return map[string]func(*rapid.T){
		"take": m.take,
		"time passes": func(t *rapid.T) {
			by := rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, MaxLease, time.Hour}).Draw(t, "by")
			for _, o := range m.owners {
				o.clock.move(by)
			}
		},
		"a clock jumps": func(t *rapid.T) {
			rapid.SampledFrom(m.owners).Draw(t, "owner").clock.move(time.Duration(rapid.IntRange(-4000, 4000).Draw(t, "seconds")) * time.Second)
		},
		"renew": func(t *rapid.T) {
			length, kept := rapid.SampledFrom([]time.Duration{time.Second, MaxLease}).Draw(t, "length"), rapid.Int64Range(0, 9).Draw(t, "kept")
			var until time.Time
			m.write(t, "renew", func(o *ownerModel, lease TaskLease) error {
				until = o.clock.now().Add(length)
				cancel, err := o.catalog.Tasks.Renew(ctx, &lease, length, Progress{Kept: kept})
				if want := m.find(lease.ID).cancel; err == nil && int64(cancel) != want {
					t.Fatalf("told %d, want %d", cancel, want)
				}
				return err
			}, func(task *taskModel) { task.until, task.kept = until, kept })
		},
		"postpone": func(t *rapid.T) {
			failed, kept := rapid.Bool().Draw(t, "failed"), rapid.Int64Range(0, 9).Draw(t, "kept")
			m.write(t, "postpone", func(o *ownerModel, lease TaskLease) error {
				return o.catalog.Tasks.Postpone(ctx, lease, "", Progress{Kept: kept}, failed)
			}, func(task *taskModel) {
				task.owner, task.until, task.kept = "", time.Time{}, kept
				task.attempts += flag(failed)
				task.state = map[bool]string{false: "waiting", true: "stopped"}[task.cancel > 0]
			})
		},
		"finish": func(t *rapid.T) {
			state := rapid.SampledFrom([]TaskState{TaskDone, TaskFailed}).Draw(t, "state")
			m.write(t, "finish", func(o *ownerModel, lease TaskLease) error {
				err := o.catalog.Tasks.Finish(ctx, lease, state, "", Progress{})
				task := m.find(lease.ID)
				if task.epoch == lease.Epoch && task.owner == lease.Owner && task.state == string(state) {
					if err != nil {
						t.Fatalf("finishing again: %v", err)
					}
					return ErrLostLease // what else this lease gets from now on
				}
				return err
			}, func(task *taskModel) { task.state, task.until, task.kept = string(state), time.Time{}, 0 })
		},
		"cancel": func(t *rapid.T) {
			how := rapid.SampledFrom([]Cancel{CancelGracefully, CancelNow}).Draw(t, "how")
			if err := m.owners[0].catalog.Sessions.Cancel(ctx, m.session, how); err != nil {
				t.Fatal(err)
			}
			for _, task := range m.tasks {
				if task.state == "waiting" || task.state == "running" {
					task.cancel = max(task.cancel, int64(how))
				}
				if task.state == "waiting" {
					task.state = "stopped"
				}
			}
		},
		"a process starts anew": func(t *rapid.T) {
			o := rapid.SampledFrom(m.owners).Draw(t, "owner")
			o.name += "'"
			if !rapid.Bool().Draw(t, "alone") {
				return
			}
			if _, err := o.catalog.Tasks.ExpireOthers(ctx, o.name); err != nil {
				t.Fatal(err)
			}
			for _, task := range m.tasks {
				if task.state == "running" && task.owner != o.name {
					task.until = time.Time{}
				}
			}
		},
		"": m.check,
	}
}

// check compares all tasks with the model.
func (m *leaseModel) check(t *rapid.T) {
	var got []string
	err := each(context.Background(), m.owners[0].catalog.db.reader, func(rows *sql.Rows) error {
		var task taskModel
		var until int64
		var text string
		err := rows.Scan(&task.id, &task.state, &task.owner, &task.epoch, &until, &task.attempts, &task.cancel, &text)
		if err != nil {
			return err
		}
		var progress Progress
		err = fromJSON(text, &progress)
		task.until, task.kept = maybe(until), progress.Kept
		got = append(got, task.String())
		return err
	}, `SELECT id, state, owner, epoch, lease_until, attempts, cancel, progress FROM tasks ORDER BY ordinal, id`)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, task := range m.tasks {
		want = append(want, task.String())
	}
	if !slices.Equal(got, want) {
		t.Fatalf("tasks\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Whatever several owners do, with clocks that differ and jump, paused and started anew: a task has one holder, only the holder
// writes, and a new holder sees exactly what the last one has written.
func TestLeasesAgainstAModel(t *testing.T) {
	onBoth(t, func(t *testing.T, at place) {
		var owners []*ownerModel
		for _, name := range []string{"a", "b", "c"} {
			clock := newClock()
			owners = append(owners, &ownerModel{catalog: at.open(t, clock), clock: clock, name: name})
		}
		writes := 0
		rapid.Check(t, func(t *rapid.T) {
			m := &leaseModel{}
			for i, o := range owners {
				_, err := o.catalog.db.writer.Exec(`DELETE FROM sessions`)
				if err != nil {
					t.Fatal(err)
				}
				o.clock.at = newClock().at.Add(time.Duration(rapid.IntRange(-900, 900).Draw(t, "skew")) * time.Second)
				m.owners = append(m.owners, &ownerModel{catalog: o.catalog, clock: o.clock, name: string(rune('a' + i))})
			}
			_, session, err := owners[0].catalog.Sessions.Begin(context.Background(), NewSession{Job: "offsite"}, "scheduler", MaxLease)
			if err != nil {
				t.Fatal(err)
			}
			m.session = session.ID
			var tasks []NewTask
			for i := range 4 {
				tasks = append(tasks, NewTask{Machine: machine(i), Source: "pve", Target: "vault", Order: int64(i)})
			}
			if _, err := owners[0].catalog.Tasks.Enqueue(context.Background(), session, tasks); err != nil {
				t.Fatal(err)
			}
			list, err := owners[0].catalog.Tasks.Of(context.Background(), session.ID)
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range list {
				m.tasks = append(m.tasks, &taskModel{id: task.ID, order: task.Order, state: "waiting"})
			}
			slices.SortFunc(m.tasks, func(a, b *taskModel) int { return cmp.Compare(a.order, b.order) })
			t.Repeat(m.actions())
			writes += m.writes
		})
		if writes == 0 {
			t.Error("no owner ever wrote anything")
		}
	})
}
