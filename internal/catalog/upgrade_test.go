package catalog

import (
	"context"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
)

// A database of schema 4 with sessions and tasks in every state, checkpoints among them, is brought to this program's, and nothing
// is lost but the checkpoints.
func TestUpgradeKeepsSessionsAndTasks(t *testing.T) {
	onBoth(t, func(t *testing.T, at place) {
		clock := newClock()
		ctx := context.Background()
		made, err := Open(ctx, at.location, Options{Now: clock.now})
		must(t, err)
		session, lease, err := made.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "old", time.Minute)
		must(t, err)
		var tasks []NewTask
		for n := range 3 {
			id := pointID(n, 1)
			tasks = append(tasks, NewTask{Machine: machine(n), Point: &id, Created: clock.now(), Source: "pve", Target: "vault", Order: int64(n)})
		}
		_, err = made.Tasks.Enqueue(ctx, lease, tasks)
		must(t, err)
		of, err := made.Tasks.Of(ctx, session.ID)
		must(t, err)
		taken, err := made.Tasks.Take(ctx, of[0].ID, "old", time.Minute)
		must(t, err)
		must(t, made.Tasks.Finish(ctx, taken.Lease, TaskDone, "", Progress{Done: 5, Total: 5}))
		taken, err = made.Tasks.Take(ctx, of[1].ID, "old", time.Minute)
		must(t, err)
		must(t, made.Tasks.Postpone(ctx, taken.Lease, "interrupted", Progress{Done: 2, Total: 5}, true))
		stands := (endings{
			{SessionPartial, Counts{"copied": 0}}, {SessionExpired, Counts{"claimed": 0, "copied": 20}}, {SessionFailed, nil}, {SessionStopped, nil},
			{SessionExpired, Counts{"claimed": 0, "copied": 0}}, {SessionNotRun, nil},
		}).run(t, made, clock, "near")
		before, err := made.Tasks.Of(ctx, session.ID)
		must(t, err)
		// Back to schema 4, whose session waits as its sessions did.
		for _, statement := range []string{
			`ALTER TABLE tasks ADD COLUMN checkpoint BYTEA`, `UPDATE tasks SET checkpoint = CAST('where it was' AS BYTEA)`,
			`DROP INDEX points_damaged`, `DROP INDEX sessions_sources`, `DROP INDEX sessions_target`, `DROP INDEX sessions_outcome`, `ALTER TABLE sessions DROP COLUMN sources`, `ALTER TABLE sessions DROP COLUMN target`, `ALTER TABLE sessions DROP COLUMN outcome`,
			`ALTER TABLE sessions DROP COLUMN wait`, `UPDATE sessions SET state = 'waiting', reason = 'target offline: is the disk mounted?' WHERE job = 'offsite'`,
			`UPDATE tasks SET next_at = 1 WHERE state = 'waiting'`, `DELETE FROM ` + schemaTable + ` WHERE version_id > 4`,
		} {
			_, err := made.db.writer.Exec(statement)
			must(t, err)
		}
		must(t, made.Close())
		c := at.open(t, clock)
		latest, err := latestSchema(map[bool]goose.Dialect{false: goose.DialectSQLite3, true: goose.DialectPostgres}[at.postgres], c.db.writer)
		must(t, err)
		var version int64
		must(t, c.db.writer.QueryRow(`SELECT MAX(version_id) FROM `+schemaTable).Scan(&version))
		if version != latest || latest < 8 {
			t.Errorf("schema %d of %d", version, latest)
		}
		must(t, c.Check(ctx))
		wantStanding(t, c, "near", stands, 4, 0, 0, 4, 2, 1, 0)
		after, err := c.Tasks.Of(ctx, session.ID)
		must(t, err)
		if len(after) != len(before) {
			t.Fatalf("%d tasks of %d", len(after), len(before))
		}
		for i := range after {
			if a, b := after[i], before[i]; a.State != b.State || a.Progress != b.Progress || a.Reason != b.Reason || a.Attempts != b.Attempts {
				t.Errorf("task %d was %+v, is %+v", i, b, a)
			}
		}
		clock.move(2 * time.Minute)
		got, _, found, err := c.Sessions.Take(ctx, "new", time.Minute)
		if must(t, err); !found || got.State != SessionRunning || got.Wait != (Blocked{}) {
			t.Errorf("taken over: %v, %+v", found, got)
		}
	})
}
