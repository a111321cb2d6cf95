package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// fault sets one thing to go wrong in the stores of a place, at the n-th call or read that they have together.
type fault struct {
	// hasty is true if what is left is also looked at after space was given back.
	hasty bool
	// reads is true if n counts reads alone, which give wrong bytes.
	reads bool
	// alone is true if a task that nothing may run beside is not tried.
	alone bool
	set   func(t *testing.T, n int64, cancel func(), at place)
	// tells is true for the errors that a task may give.
	tells func(error) bool
}

// atCall calls hit when the n-th call begins; always, when each later one does, too.
func atCall(n int64, always bool, at place, hit func(op memory.Op, name string) error) {
	var calls atomic.Int64
	for _, s := range at.stores() {
		s.SetFault(func(op memory.Op, name string) error {
			if k := calls.Add(1); k == n || always && k > n {
				return hit(op, name)
			}
			return nil
		})
	}
}

// failing makes calls fail, by an error that names what was called as that of a real store does.
func failing(always bool, as func(error) error) fault {
	return fault{hasty: true, tells: func(err error) bool { return explained(err, false) }, set: func(_ *testing.T, n int64, _ func(), at place) {
		atCall(n, always, at, func(op memory.Op, name string) error { return as(fmt.Errorf("%s %s: %w", op, name, errInjected)) })
	}}
}

// slow makes a call last long, while others may do something in the place.
func slow(lasts time.Duration, meanwhile func(*testing.T, place)) func(*testing.T, int64, func(), place) {
	return func(t *testing.T, n int64, _ func(), at place) {
		atCall(n, false, at, func(memory.Op, string) error {
			at.passed.Add(int64(lasts))
			meanwhile(t, at)
			return nil
		})
	}
}

func faults() map[string]fault {
	asItIs := func(err error) error { return err }
	return map[string]fault{
		"fails":        failing(false, asItIs),
		"fails always": failing(true, asItIs),
		"lost":         failing(false, memory.Applied),
		// In the middle of the call its caller is told to end.
		"cancelled": {tells: func(err error) bool { return explained(err, false) }, set: func(_ *testing.T, n int64, cancel func(), at place) {
			atCall(n, false, at, func(op memory.Op, _ string) error {
				cancel()
				if op == memory.OpRead { // has no context
					return nil
				}
				return context.Canceled
			})
		}},
		// Longer than a lease or a hold counts, and than the generation of locks. That is no error.
		"slow": {tells: func(error) bool { return false }, set: slow(3*time.Hour, func(*testing.T, place) {})},
		// Longer than what nothing names is kept, too: others take the lease, and give back space.
		"overtaken": {hasty: true, alone: true, set: slow(49*time.Hour, upkeepByOther), tells: func(err error) bool {
			var inUse *repo.InUseError
			return errors.Is(err, repo.ErrCondemned) || errors.As(err, &inUse)
		}},
		"wrong bytes": {hasty: true, reads: true, tells: func(err error) bool { return explained(err, true) && located(err) }, set: func(_ *testing.T, n int64, _ func(), at place) {
			var reads atomic.Int64
			for _, s := range at.stores() {
				s.SetSpoil(func(_ string, read []byte) {
					if reads.Add(1) == n {
						read[int(n*7919)%len(read)] ^= 4
					}
				})
			}
		}},
	}
}

// located is true if an error says where something is: in which file or folder, or of which point. A refusal need not, nor what misses all files of keys.
func located(err error) bool {
	return refused(err) || errors.Is(err, repo.ErrNoKeyFiles) || slices.ContainsFunc([]string{"repository.json", "log/", "packs/", "points/", "index/", "keys/", "jobs/", "point "}, func(place string) bool {
		return strings.Contains(err.Error(), place)
	})
}

// upkeepByOther is what another machine does with the repository in an hour.
func upkeepByOther(t *testing.T, at place) {
	at = at.forgetful()
	r, err := at.open(context.Background())
	if err != nil {
		t.Errorf("another opens: %v", err)
		return
	}
	defer closeRepo(t, r)
	if r.Locked() {
		return
	}
	options := repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy(), TempDir: scratch}
	for range 2 {
		if _, err := r.Reclaim(context.Background(), options); err != nil {
			t.Errorf("another reclaims: %v", err)
		}
		at.passed.Add(int64(options.Policy.Grace))
	}
	if _, err := r.Compact(context.Background(), repo.CompactOptions{Codec: repo.CodecZstd}); err != nil {
		t.Errorf("another compacts: %v", err)
	}
}

// counted does a task where nothing goes wrong, and counts the calls that it takes, and the reads among them.
func (k task) counted(t *testing.T, what string) (calls, reads int64) {
	at := k.place(t, true)
	var all, read atomic.Int64
	err := k.perform(t.Context(), t, at, func() {
		for _, s := range at.stores() {
			s.SetFault(func(op memory.Op, _ string) error {
				all.Add(1)
				if op == memory.OpRead {
					read.Add(1)
				}
				return nil
			})
		}
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return all.Load(), read.Load()
}

// Whatever the storage does at any moment of any task: nothing that was acknowledged is lost, nothing is half there, nothing
// wrong is written, and the next process does the task.
func TestEveryTaskThroughEveryFault(t *testing.T) {
	collected := debug.SetGCPercent(800) // what is made of thousands of small stores is not kept
	t.Cleanup(func() { debug.SetGCPercent(collected) })
	random := seeded(t)
	all, ways := tasks(t), faults()
	tried := 0
	for _, what := range slices.Sorted(maps.Keys(all)) { // in one order, so that a seed repeats the moments
		k := all[what]
		calls, reads := k.counted(t, what)
		t.Logf("%s: %d calls, %d of them reads", what, calls, reads)
		k.left(t, k.place(t, true), false, true) // what it begins with, which need not be looked at again
		for _, how := range slices.Sorted(maps.Keys(ways)) {
			f, total := ways[how], calls
			if f.reads {
				total = reads
			}
			if f.alone && (k.exclusive || k.shut) {
				continue
			}
			for _, n := range moments(random, total, strings.HasPrefix(what, "key ")) {
				tried++
				t.Run(fmt.Sprintf("%s/%s/%d", what, how, n), func(t *testing.T) {
					t.Parallel()
					k.through(t, f, n)
				})
			}
		}
	}
	t.Logf("%d tasks, %d faults, at %d moments together", len(all), len(ways), tried)
}

// moments are those from 1 to total that are tried: all; or, where tests are to be short, and where an encrypted repository does what was
// tried with another one, some that are drawn anew each time, as many as FAULT_MOMENTS says.
func moments(random *rand.Rand, total int64, ofKeys bool) []int64 {
	most := total
	switch n, err := strconv.ParseInt(os.Getenv("FAULT_MOMENTS"), 10, 64); {
	case err == nil:
		most = n
	case testing.Short():
		most = 2
	case encryptAll && !ofKeys:
		most = 5
	}
	var all []int64
	for n := range total {
		all = append(all, n+1)
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(total, most)]
}

// through does the task while the fault hits it at n, and looks at what is left.
func (k task) through(t *testing.T, f fault, n int64) {
	at := k.place(t, f.reads || n%3 == 0) // what was read wrong must not be remembered; else few that remember something are enough
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := k.perform(ctx, t, at, func() { f.set(t, n, cancel, at) })
	if err != nil && !f.tells(err) {
		t.Errorf("the error does not say what happened: %v", err)
	}
	// What heals promises nothing: it heals what it can read, and verifying again says what is left.
	k.left(t, at.copied(), err == nil && !k.damaged, f.hasty)
}
