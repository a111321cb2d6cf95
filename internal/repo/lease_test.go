package repo_test

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

const leaseMark = "marks/reclaim-lease"

// leftBy leaves a lease as it was taken here, with what change makes of what it says of its process.
func leftBy(t *testing.T, store *memory.Store, r *repo.Repository, change func(said map[string]any)) {
	t.Helper()
	release := must(r.TakeLease(t.Context(), "compact"))(t)
	content := must(storage.ReadAll(t.Context(), store, leaseMark, 1<<16))(t)
	release()
	var said map[string]any
	if err := json.Unmarshal(content, &said); err != nil {
		t.Fatal(err)
	}
	change(said)
	if err := store.Overwrite(t.Context(), leaseMark, must(json.Marshal(said))(t)); err != nil {
		t.Fatal(err)
	}
}

// keptOut reclaims beside a lease, which must keep it from that, and returns the error.
func keptOut(t *testing.T, r *repo.Repository) error {
	t.Helper()
	_, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch})
	var inUse *repo.InUseError
	if !errors.As(err, &inUse) || inUse.What != "compact" || inUse.PID == 0 {
		t.Fatalf("beside a lease: %v", err)
	}
	return err
}

// A process that is killed leaves its lease. While it lives, and while its parent has not asked for it, it holds the lease; when it is gone
// the next one goes on at once.
func TestLeaseOfAKilledProcess(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	child := exec.Command("cat")
	input := must(child.StdinPipe())(t)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	started := must(repo.ProcessStarted(child.Process.Pid))(t)
	leftBy(t, store, r, func(said map[string]any) { said["pid"], said["started"] = child.Process.Pid, started })
	err := keptOut(t, r)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if hint := backup.Hint(err); !strings.Contains(hint, "dead") || !strings.Contains(hint, "wait until") {
		t.Errorf("it is not said what to do: %q", hint)
	}
	keptOut(t, r) // its parent has not asked for it
	_ = child.Wait()
	reclaim(t, r, atOnce())
	if len(store.Names(leaseMark)) != 0 {
		t.Error("the lease is left")
	}
}

// Only of its own boot, namespace and start can a process be said to be gone: containers share the names of hosts and the kernel, and ids of
// processes are given again.
func TestLeaseInDoubt(t *testing.T) {
	none := exec.Command("true")
	if err := none.Run(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(said map[string]any)
		taken  bool
	}{
		"this process":      {change: func(map[string]any) {}},
		"gone":              {func(said map[string]any) { said["pid"] = none.Process.Pid }, true},
		"another's id":      {func(said map[string]any) { said["started"] = 1 }, true},
		"other table":       {change: func(said map[string]any) { said["pid"], said["processes"] = none.Process.Pid, "0123456789abcdef" }},
		"no table":          {change: func(said map[string]any) { said["pid"] = none.Process.Pid; delete(said, "processes") }},
		"no start":          {change: func(said map[string]any) { said["pid"] = none.Process.Pid; delete(said, "started") }},
		"no process at all": {change: func(said map[string]any) { said["pid"] = -5 }},
	} {
		t.Run(name, func(t *testing.T) {
			store := initialized(t, repo.Options{})
			now := clocked(store)
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			leftBy(t, store, r, test.change)
			if test.taken {
				reclaim(t, r, atOnce())
				return
			}
			keptOut(t, r)
			now.now = now.now.Add(11 * time.Minute)
			reclaim(t, r, atOnce())
		})
	}
}

// Who is refused is told until when at most: when the lease was renewed last, by the storage's clock, and ten minutes.
func TestLeaseSaysWhenItEnds(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	leftBy(t, store, r, func(map[string]any) {})
	now.now = now.now.Add(7 * time.Minute)
	began := time.Now()
	err := keptOut(t, r)
	var inUse *repo.InUseError
	errors.As(err, &inUse)
	if left := inUse.Until.Sub(began); left < 3*time.Minute || inUse.Until.After(time.Now().Add(3*time.Minute+time.Second)) {
		t.Errorf("it is said to last another %v", left)
	}
	if ends := inUse.Until.Local().Format("15:04:05"); !strings.Contains(err.Error(), ends) || !strings.Contains(backup.Hint(err), ends) {
		t.Errorf("neither %q nor %q says %s", err, backup.Hint(err), ends)
	}
}

// A lease that was last renewed before the storage's clock was put back ends by the new time, too.
func TestLeaseWithTheClockPutBack(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	leftBy(t, store, r, func(map[string]any) {})
	now.now = now.now.Add(-30 * time.Second) // so much, clocks of one storage may differ
	keptOut(t, r)
	now.now = now.now.Add(-time.Minute)
	reclaim(t, r, atOnce())
	if len(store.Names(leaseMark)) != 0 {
		t.Error("the lease is left")
	}
}
