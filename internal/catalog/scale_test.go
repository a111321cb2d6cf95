package catalog

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
)

// fillAtScale makes a job with many machines and a target with many points: half of the points are another job's. A few
// machines have no copy, or only a damaged one.
func fillAtScale(t *testing.T, c *Catalog, clock *clock, machines, pointsEach int) {
	t.Helper()
	var selection []backup.Machine
	for i := range machines {
		selection = append(selection, machine(i))
	}
	must(t, c.Jobs.Select(t.Context(), "offsite", selection))
	must(t, c.Mirror.Replace(t.Context(), "vault", head(1), func(yield func(MirrorPoint, error) bool) {
		for i := range machines {
			for n := range pointsEach {
				p := testPoint(i, n, clock.now().Add(time.Duration(n-pointsEach)*24*time.Hour+time.Duration(i)*time.Second))
				p.Damaged = i == 7 && n == pointsEach-1 || i == 8
				if n%2 == 0 || i == 9 {
					p.Claims[0].Job = "attic"
				}
				if !yield(p, nil) {
					return
				}
			}
		}
	}))
	beginWith(t, c, "offsite", machines)
	// Other sessions with as many tasks, which have ended.
	for n := range 20 {
		for _, statement := range []string{
			`INSERT INTO sessions (` + sessionColumns + `, lease_until, epoch) SELECT id + $1, job || CAST($1 AS TEXT), $1, $1, $1, 'done', '', '', '{}', 0, '', 0, '', 0, 1
				FROM sessions WHERE job = 'offsite'`,
			`INSERT INTO tasks SELECT id + $1, session + $1, machine, point, point_at, source, target, ordinal, 'done', '', 0, 0, 0, '', 0, 1, progress, $1, $1, $1 FROM tasks WHERE state = 'waiting'`,
		} {
			_, err := c.db.writer.Exec(statement, (n+1)*1_000_000)
			must(t, err)
		}
	}
	for range 8 {
		mustClaim(t, c, "me")
	}
	if c.db.reader == c.db.writer { // PostgreSQL does so by itself, some time later
		_, err := c.db.writer.Exec("ANALYZE")
		must(t, err)
	}
}

func TestStatusAnswers(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		const machines, each = 12, 6
		fillAtScale(t, c, clock, machines, each)
		must(t, c.Jobs.Select(ctx, "offsite", append(must1(c.Jobs.Selected(ctx, "offsite"))(t), machine(50))))
		ages, err := c.Status.OldestCopies(ctx, "offsite", "vault", 100)
		must(t, err)
		if len(ages) != machines+1 {
			t.Fatalf("%d ages", len(ages))
		}
		// Machine 50 was never copied, 8 has damaged points only, 9 only another job's: they come first. Then 7, whose newest
		// point is damaged: the one before is another job's, so that the copy that counts is two days older. Then by age.
		var order []string
		for i, age := range ages {
			order = append(order, age.Machine.Name)
			if (age.Point == nil) != (i < 3) {
				t.Errorf("%s: %+v", age.Machine.Name, age)
			}
		}
		if got := strings.Join(order[3:], " "); got != "vm7 vm0 vm1 vm2 vm3 vm4 vm5 vm6 vm10 vm11" {
			t.Errorf("order %s", got)
		}
		if ages[3].Point == nil || *ages[3].Point != pointID(7, each-3) || *ages[4].Point != pointID(0, each-1) || !ages[4].Created.Equal(clock.now().AddDate(0, 0, -1)) {
			t.Errorf("vm7 %+v, vm0 %+v", ages[3], ages[4])
		}
		if few, err := c.Status.OldestCopies(ctx, "offsite", "vault", 4); err != nil || len(few) != 4 || few[3].Machine.Name != "vm7" {
			t.Errorf("the first four: %+v, %v", few, err)
		}
		if none, err := c.Status.OldestCopies(ctx, "offsite", "elsewhere", 100); err != nil || len(none) != machines+1 || none[machines].Point != nil {
			t.Errorf("in another repository: %+v, %v", none, err)
		}
		running, err := c.Status.Running(ctx, 5)
		if must(t, err); len(running) != 5 || running[0].Machine.Name != "vm0" || running[0].Job != "offsite" {
			t.Errorf("running %+v", running)
		}
		for _, task := range must1(c.Status.Running(ctx, 100))(t)[:3] {
			claimed := TaskLease{Lease{ID: task.ID, Owner: "me", Epoch: 1}}
			must(t, c.Tasks.Postpone(ctx, claimed, "locked by its writer", Progress{}, false))
		}
		waits, err := c.Status.Waits(ctx, 10)
		want := []Wait{{"offsite", "", false, machines - 8, time.Time{}}, {"offsite", "locked by its writer", false, 3, time.Time{}}}
		if must(t, err); fmt.Sprint(waits) != fmt.Sprint(want) {
			t.Errorf("waits %+v, want %+v", waits, want)
		}
	})
}

// What a source has that is newer than the copy counts; what the target has of another job, or damaged, is no copy.
func TestNewerAtTheSource(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		must(t, c.Jobs.Select(ctx, "offsite", []backup.Machine{machine(0), machine(1), machine(2), machine(3)}))
		at := func(n int) time.Time { return clock.now().Add(time.Duration(n) * time.Hour) }
		var source []MirrorPoint
		for i := range 4 {
			for n := range 3 {
				p := testPoint(i, n, at(n))
				p.Size = 10 * int64(n+1)
				source = append(source, p)
			}
		}
		source[3*3+2].Damaged = true            // the newest of machine 3
		source[3*3+1].Size = backup.UnknownSize // and the one before is of no known size
		foreign, damaged := testPoint(2, 2, at(2)), testPoint(2, 1, at(1))
		foreign.Claims[0].Job, damaged.Damaged = "attic", true
		must(t, replaceWith(c, "pve", head(1), source...))
		must(t, replaceWith(c, "vault", head(1), testPoint(0, 2, at(2)), testPoint(1, 0, at(0)), testPoint(2, 0, at(0)), damaged, foreign))
		lags := map[string]Lag{}
		for _, lag := range must1(c.Status.Newer(ctx, "offsite", "vault", "pve"))(t) {
			lags[lag.Machine.NativeID] = lag
		}
		for native, want := range map[string][3]int64{"100": {}, "101": {2, 50, 30}, "102": {2, 50, 30}, "103": {2, 10, 0}} {
			if got := lags[native]; [3]int64{got.Points, got.Bytes, got.Newest} != want {
				t.Errorf("machine %s: %+v, want %v", native, got, want)
			}
		}
		if len(lags) != 3 {
			t.Errorf("%d machines", len(lags))
		}
	})
}

// What a session has left are the points that are not done, each without what is dealt with of it.
func TestWhatASessionHasLeft(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		ctx := t.Context()
		beginWith(t, c, "near", 1)
		session, lease, err := c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, "me", MaxLease)
		must(t, err)
		want := func(want Left) {
			t.Helper()
			if got, err := c.Status.Left(ctx, session.ID); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
		}
		want(Left{})
		var tasks []NewTask
		for i := range 4 {
			point := pointID(i, 1)
			tasks = append(tasks, NewTask{Machine: machine(i), Point: &point, Source: "pve", Target: "vault", Size: 100})
		}
		_, err = c.Tasks.Enqueue(ctx, lease, tasks)
		must(t, err)
		want(Left{Planned: true, Points: 4, Bytes: 400})
		rows := must1(c.Tasks.Of(ctx, session.ID))(t)
		began := clock.now()
		for i, progress := range []Progress{{Done: 100, Total: 100}, {Done: 30, Total: 100}, {Done: 60, Total: 120}} {
			taken := must1(c.Tasks.Take(ctx, rows[i].ID, "me", time.Minute))(t)
			if taken.Progress.Total != 100 {
				t.Errorf("it begins with %+v", taken.Progress)
			}
			switch i {
			case 0:
				must(t, c.Tasks.Finish(ctx, taken.Lease, TaskDone, "", progress))
			case 1:
				must(t, c.Tasks.Postpone(ctx, taken.Lease, "the window is closed", progress, false))
			default:
				must1(c.Tasks.Renew(ctx, &taken.Lease, time.Minute, progress))(t)
			}
			clock.move(time.Second)
		}
		want(Left{Planned: true, Points: 3, Bytes: 70 + 60 + 100, Begun: []Begun{
			{From: began, Ended: began, State: TaskDone, Done: 100}, {From: began.Add(time.Second), State: TaskWaiting, Done: 30},
			{From: began.Add(2 * time.Second), State: TaskRunning, Done: 60},
		}})
	})
}

func must1[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T { t.Helper(); must(t, err); return value }
}

// question is a query that people or the scheduler ask all the time, with the most rows of a table that it may look at, where
// that is bounded.
type question struct {
	name, query string
	args        []any
	most        map[string]int
}

func questions(c *Catalog, clock *clock, machines int) []question {
	id := pointID(3, 3).String()
	few := map[string]int{"points": 200, "claims": 200, "tasks": 50, "sessions": 50}
	// For each machine one point is looked at, or a few where the newest is not the job's; and the job's claim of it.
	ages := map[string]int{"points": 4 * machines, "claims": 4 * machines}
	live := map[string]int{"points": 0, "claims": 0, "tasks": 2 * machines}
	return []question{
		{"ages of copies", newestCopies, []any{"offsite", "vault", int64(-1), 100, "offsite"}, ages},
		{"newer at the source", newerPoints, []any{"offsite", "vault", "vault", int64(-1), "offsite"}, map[string]int{"points": 8 * machines, "claims": 4 * machines}},
		{"left of a session", leftOfSession, []any{1}, map[string]int{"points": 0, "claims": 0, "tasks": machines}},
		{"running", runningTasks, []any{20}, few},
		{"waits", waitReasons, []any{20}, live},
		{"points of a machine", pointQuery + `AND p.machine = $2 ORDER BY p.created_at, p.id`, []any{"vault", machineID(machine(3).Key)}, few},
		{"a point", pointQuery + `AND p.id = $2`, []any{"vault", id}, few},
		{"where a point is", `SELECT r.repository FROM points p JOIN mirrors r ON r.edition = p.edition WHERE p.id = $1`, []any{id}, few},
		{"damaged points", damagedOf, []any{"vault"}, map[string]int{"points": 100, "claims": 100}},
		{"due jobs", `SELECT ` + jobColumns + ` FROM jobs WHERE next_at <> 0 AND next_at <= $1`, []any{stamp(clock.now())}, few},
		{"live sessions", `SELECT ` + sessionColumns + ` FROM sessions WHERE ended_at = 0 ORDER BY id`, nil, few},
		{"sessions of a job", `SELECT ` + sessionColumns + ` FROM sessions WHERE job = $1 AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, []any{"old1", 0, 10}, few},
		{"sessions of a job that copied", copiedSessions, []any{"old1", copiedWithin, 10}, map[string]int{"points": 0, "claims": 0, "tasks": 0, "sessions": copiedWithin}},
		{"sessions that a job stands by", newestBy, []any{"old1", 10}, map[string]int{"points": 0, "claims": 0, "tasks": 0, "sessions": 5 * few["sessions"]}},
		{"sessions of all jobs", allSessions, []any{int64(math.MaxInt64), 10}, few},
	}
}

// With 2,000 machines and 100,000 points no question reads all points, nor all tasks: SQLite says by its plan that it enters
// an index, PostgreSQL counts the rows that it looked at.
func TestQuestionsUseIndexes(t *testing.T) {
	opened(t, func(t *testing.T, c *Catalog, clock *clock) {
		machines, each := 2000, 50
		if testing.Short() {
			machines, each = 40, 10
			if c.db.reader == c.db.writer {
				t.Skip("PostgreSQL reads small tables whole")
			}
		}
		fillAtScale(t, c, clock, machines, each)
		for _, q := range questions(c, clock, machines) {
			if c.db.reader != c.db.writer {
				checkSQLitePlan(t, c, q)
			} else {
				checkPostgresRows(t, c, q)
			}
		}
	})
}

// checkSQLitePlan fails if a large table is read from one end to the other.
func checkSQLitePlan(t *testing.T, c *Catalog, q question) {
	t.Helper()
	rows, err := c.db.reader.Query("EXPLAIN QUERY PLAN "+q.query, q.args...)
	must(t, err)
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		must(t, rows.Scan(&id, &parent, &unused, &detail))
		plan = append(plan, detail)
		words := strings.Fields(detail)
		if words[0] != "SCAN" {
			continue
		}
		// The names that queries give to these tables.
		for _, large := range []string{"p", "q", "points", "c", "claims", "t", "tasks", "s", "sessions", "m", "machines"} {
			if words[1] == large {
				t.Errorf("%s: %s", q.name, detail)
			}
		}
	}
	if must(t, rows.Err()); len(plan) == 0 {
		t.Errorf("%s has no plan", q.name)
	}
}

// planNode is a part of the plan that PostgreSQL has carried out.
type planNode struct {
	Type    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []planNode
}

// looked adds up the rows of each table that were looked at.
func (n planNode) looked(at map[string]float64) {
	if n.Table != "" {
		at[n.Table] += (n.Rows + n.Removed) * n.Loops
	}
	for _, below := range n.Plans {
		below.looked(at)
	}
}

func checkPostgresRows(t *testing.T, c *Catalog, q question) {
	t.Helper()
	// Arguments become part of the text: EXPLAIN has none of its own.
	query := q.query
	for i := len(q.args); i > 0; i-- {
		literal := fmt.Sprint(q.args[i-1])
		if text, is := q.args[i-1].(string); is {
			literal = "'" + text + "'"
		}
		query = strings.ReplaceAll(query, fmt.Sprint("$", i), literal)
	}
	var text string
	must(t, c.db.reader.QueryRow("EXPLAIN (ANALYZE, FORMAT JSON) "+query).Scan(&text))
	var plans []struct{ Plan planNode }
	must(t, json.Unmarshal([]byte(text), &plans))
	looked := map[string]float64{}
	plans[0].Plan.looked(looked)
	for table, most := range q.most {
		if looked[table] > float64(most) {
			t.Errorf("%s looks at %.0f rows of %s, more than %d%s", q.name, looked[table], table, most, summary(plans[0].Plan, 0))
		}
	}
}

// summary of a plan, a line for each part.
func summary(n planNode, depth int) string {
	text := fmt.Sprintf("\n%s%s %s: %.0f rows, %.0f removed, %.0f times", strings.Repeat("  ", depth), n.Type, n.Table, n.Rows, n.Removed, n.Loops)
	for _, below := range n.Plans {
		text += summary(below, depth+1)
	}
	return text
}
