package catalog

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// childVariable makes the test program a process that works on the catalog that it names, until it is killed. What was
// acknowledged it says on standard output, a line at a time.
const childVariable = "FERRY_CATALOG_CHILD"

func runChild() int {
	ctx := context.Background()
	c, err := Open(ctx, os.Getenv(childVariable), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	failed := make(chan error)
	go func() { failed <- childMirrors(ctx, c) }()
	go func() { failed <- childWorks(ctx, c, fmt.Sprint("process ", os.Getpid())) }()
	fmt.Fprintln(os.Stderr, <-failed)
	return 1
}

// childPoints is how many points the mirror has at a head.
func childPoints(head uint64) int { return batchSize + int(head) }

func childMirrors(ctx context.Context, c *Catalog) error {
	at, _ := c.Mirror.Head(ctx, "vault")
	for n := at.Number + 1; ; n++ {
		err := c.Mirror.Replace(ctx, "vault", head(n), func(yield func(MirrorPoint, error) bool) {
			for i := range childPoints(n) {
				if !yield(testPoint(0, i, time.Unix(int64(n), 0)), nil) {
					return
				}
			}
		})
		if err != nil {
			return err
		}
		fmt.Println("mirror", n, 0, 0)
	}
}

func childWorks(ctx context.Context, c *Catalog, owner string) error {
	if _, err := c.Tasks.ExpireOthers(ctx, owner); err != nil {
		return err
	}
	_, session, found, err := c.Sessions.Take(ctx, owner, MaxLease)
	if err == nil && !found {
		_, session, err = c.Sessions.Begin(ctx, NewSession{Job: "offsite"}, owner, MaxLease)
	}
	if err != nil {
		return err
	}
	for {
		claimed, err := childTakes(ctx, c, session, owner)
		if err != nil {
			return err
		}
		fmt.Println("claimed", claimed.ID, claimed.Lease.Epoch, 0)
		step := claimed.Progress.Kept
		for range 5 {
			step++
			if _, err := c.Tasks.Renew(ctx, &claimed.Lease, MaxLease, Progress{Kept: step}); err != nil {
				return err
			}
			fmt.Println("checkpoint", claimed.ID, claimed.Lease.Epoch, step)
		}
		if err := c.Tasks.Finish(ctx, claimed.Lease, TaskDone, "", Progress{Kept: step}); err != nil {
			return err
		}
		fmt.Println("finished", claimed.ID, claimed.Lease.Epoch, step)
	}
}

// childTakes takes the session's first task that can be had, or a new one.
func childTakes(ctx context.Context, c *Catalog, session SessionLease, owner string) (*Taken, error) {
	for {
		rows, err := c.Tasks.Of(ctx, session.ID)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if row.State == TaskWaiting || row.State == TaskRunning {
				if claimed, err := c.Tasks.Take(ctx, row.ID, owner, MaxLease); err != nil || claimed != nil {
					return claimed, err
				}
			}
		}
		point := pointID(rand.IntN(1000), rand.Int())
		if _, err := c.Tasks.Enqueue(ctx, session, []NewTask{{Machine: machine(rand.IntN(1000)), Point: &point, Source: "pve", Target: "vault"}}); err != nil {
			return nil, err
		}
	}
}

// acknowledged is what a child said of a task last.
type acknowledged struct {
	what        string
	epoch, step int64
}

// Whenever a process is killed, everything that it was told is done is there when the catalog is opened again, and the next
// process goes on where it was.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	said := map[int64]acknowledged{}
	var mirrored uint64
	goneOn := 0
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		lines := readAndKill(t, path, 5+rand.IntN(60))
		for _, line := range lines {
			var what string
			var id, epoch, step int64
			if _, err := fmt.Sscan(line, &what, &id, &epoch, &step); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			switch what {
			case "mirror":
				mirrored = max(mirrored, uint64(id))
			case "claimed":
				if before := said[id]; before.step > 0 {
					goneOn++
				}
				said[id] = acknowledged{what, epoch, said[id].step}
			default:
				said[id] = acknowledged{what, epoch, step}
			}
		}
		c, err := Open(t.Context(), path, Options{})
		must(t, err)
		must(t, c.Check(t.Context()))
		checkAcknowledged(t, c, round, said)
		if mirrored > 0 {
			at, err := c.Mirror.Head(t.Context(), "vault")
			must(t, err)
			points, err := c.Mirror.Points(t.Context(), "vault", machine(0).Key)
			if must(t, err); at.Number < mirrored || len(points) != childPoints(at.Number) {
				t.Errorf("round %d: mirror at %d with %d points, %d was acknowledged", round, at.Number, len(points), mirrored)
			}
		}
		must(t, c.Close())
	}
	if len(said) < rounds/2 || mirrored == 0 {
		t.Errorf("only %d tasks, %d mirrors", len(said), mirrored)
	}
	t.Logf("%d tasks, %d mirrors, %d tasks went on at their checkpoint", len(said), mirrored, goneOn)
}

// readAndKill runs a child until it has said so many lines, and returns all that it said before it was killed.
func readAndKill(t *testing.T, path string, count int) (lines []string) {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	child := exec.Command(program)
	child.Env = append(os.Environ(), childVariable+"="+path)
	child.Stderr = os.Stderr
	output, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	for scanner := bufio.NewScanner(output); scanner.Scan(); {
		if lines = append(lines, scanner.Text()); len(lines) == count {
			must(t, child.Process.Kill())
		}
	}
	if err := child.Wait(); err == nil || len(lines) < count {
		t.Fatalf("the process ended by itself after %d lines: %v", len(lines), err)
	}
	return lines
}

func checkAcknowledged(t *testing.T, c *Catalog, round int, said map[int64]acknowledged) {
	t.Helper()
	for id, last := range said {
		var state string
		var epoch, step int64
		must(t, c.db.reader.QueryRow(`SELECT t.state, t.epoch, COALESCE(json_extract(t.progress, '$.kept'), 0) FROM tasks t WHERE t.id = $1`,
			id).Scan(&state, &epoch, &step))
		// It may be further than what was said: killed between the commit and saying so.
		switch {
		case state == string(TaskDone) && step >= last.step && epoch >= last.epoch:
		case state == string(TaskRunning) && step >= last.step && epoch >= last.epoch && last.what != "finished":
		default:
			t.Errorf("round %d: task %d is %s at epoch %d, step %d; acknowledged was %+v", round, id, state, epoch, step, last)
		}
	}
}
