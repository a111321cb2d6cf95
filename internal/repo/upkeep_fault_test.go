package repo_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// task is something that is done with a repository, and what it may change.
type task struct {
	store, donor *memory.Store
	run          func(ctx context.Context, t testing.TB, r, donor *repo.Repository) error
	// kept are points that are there before, and whatever happens; goes and comes are those that the task removes and adds.
	kept  []*sourcetest.Point
	goes  []*sourcetest.Point
	comes []*sourcetest.Point
	// damaged is true if something may be called damaged until the task is done.
	damaged bool
	// done looks at what the task promised, in a repository of a new process.
	done func(t *testing.T, store *memory.Store)
}

// perform is one process that does the task. Everything may go wrong.
func (k task) perform(ctx context.Context, t testing.TB, store, donor *memory.Store, cache string) error {
	r, err := openSmall(ctx, store, cache)
	if err != nil {
		return err
	}
	var d *repo.Repository
	if donor != nil {
		if d, err = openSmall(ctx, donor, ""); err != nil {
			return errors.Join(err, r.Close())
		}
		defer d.Close()
	}
	err = k.run(ctx, t, r, d)
	return errors.Join(err, r.Close())
}

func (k task) clone() (store, donor *memory.Store) {
	if k.donor != nil {
		donor = k.donor.Clone()
	}
	return k.store.Clone(), donor
}

// copying is the task to copy points.
func copying(points ...*sourcetest.Point) func(context.Context, testing.TB, *repo.Repository, *repo.Repository) error {
	return func(ctx context.Context, t testing.TB, r, _ *repo.Repository) error {
		report, err := copyAll(ctx, r, sourcetest.Open(t, points...))
		return errors.Join(err, stepErrors(report))
	}
}

func reclaiming(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
	for range 2 {
		if _, err := r.Reclaim(ctx, repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); err != nil {
			return err
		}
	}
	return nil
}

// tasks are all that people do with a repository, on small ones.
func tasks(t *testing.T) map[string]task {
	states := manyStates(3, 12)
	other := onePoint("other", "other", content(31, 6*smallBlock))
	full := onePoint("full", "full", content(32, 10*smallBlock))
	increment := onePoint("a", "increment", changed(states[2].Objects[0].Data, 33, 13*smallBlock))
	increment.Base, increment.Created = states[2], at(9)
	kept := append(slices.Clone(states), other)

	base := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), base, ""))(t)
	for _, p := range kept {
		mustCopyAll(t, r, p)
	}
	closeRepo(t, r)

	forgot := base.Clone()
	r = must(openSmall(t.Context(), forgot, ""))(t)
	forget(t, r, states[:2]...)
	reclaim(t, r, atOnce()) // so that the next one has something to delete
	closeRepo(t, r)

	rotten := base.Clone()
	tamper(t, rotten, rotten.Names("packs/")[0], func(raw []byte) []byte { raw[64+96+7] ^= 1; return raw })
	verify(t, rotten)

	encrypted := base
	if !encryptAll {
		encrypted = initialized(t, encryptedOptions(repo.Options{}))
		r = must(openSmall(t.Context(), encrypted, ""))(t)
		mustCopyAll(t, r, other)
		closeRepo(t, r)
	}
	next := newHolder(t, "next")
	// Who rotates has the new data key first: no fault keeps that one from rotating again.
	keys := task{store: encrypted, kept: []*sourcetest.Point{other}}
	if encryptAll {
		keys.kept = kept
	}
	keys.run = func(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
		_, err := r.AddKey(ctx, next.to)
		if err != nil && !errors.Is(err, repo.ErrSameKey) {
			return err
		}
		_, err = r.RotateKeys(ctx, repo.RotateOptions{})
		return err
	}
	keys.done = func(t *testing.T, store *memory.Store) { openAs(t, store, next) }

	return map[string]task{
		"copy full":      {store: base, kept: kept, comes: []*sourcetest.Point{full}, run: copying(full)},
		"copy increment": {store: base, kept: kept, comes: []*sourcetest.Point{increment}, run: copying(increment)},
		"forget": {store: base, kept: []*sourcetest.Point{states[2], other}, goes: states[:2], run: func(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
			_, err := r.Forget(ctx, "manual", []repo.Forgetting{{Point: states[0].ID()}, {Point: states[1].ID()}}, nil)
			return err
		}},
		"reclaim": {store: forgot, kept: []*sourcetest.Point{states[2], other}, run: reclaiming},
		"compact": {store: base, kept: kept, run: func(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
			_, err := r.Compact(ctx, repo.CompactOptions{Codec: repo.CodecZstd})
			return err
		}},
		"verify": {store: base, kept: kept, run: func(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
			_, err := r.Verify(ctx, nil)
			return err
		}},
		"heal": {store: rotten, donor: base, kept: kept, damaged: true, run: func(ctx context.Context, _ testing.TB, r, donor *repo.Repository) error {
			found, err := r.Verify(ctx, nil)
			if err == nil {
				_, err = r.Heal(ctx, found, []*repo.Repository{donor})
			}
			return err
		}},
		"keys": keys,
		"restore": {store: base, kept: kept, run: func(ctx context.Context, _ testing.TB, r, _ *repo.Repository) error {
			for _, p := range kept {
				if err := compare(ctx, r, p); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

// fault sets one thing to go wrong in stores, at the n-th call or read that they have together.
type fault struct {
	// reads is true if n counts reads alone, which give wrong bytes.
	reads bool
	set   func(n int64, cancel func(), stores ...*memory.Store)
}

func failing(err error, always bool) fault {
	return fault{set: func(n int64, _ func(), stores ...*memory.Store) {
		var calls atomic.Int64
		for _, s := range stores {
			s.SetFault(func(memory.Op, string) error {
				if k := calls.Add(1); k == n || always && k > n {
					return err
				}
				return nil
			})
		}
	}}
}

func faults() map[string]fault {
	return map[string]fault{
		"fails":        failing(errInjected, false),
		"fails always": failing(errInjected, true),
		"lost":         failing(memory.Applied(errInjected), false),
		// A slow call, in the middle of which its caller is told to end.
		"cancelled": {set: func(n int64, cancel func(), stores ...*memory.Store) {
			var calls atomic.Int64
			for _, s := range stores {
				s.SetFault(func(op memory.Op, _ string) error {
					if calls.Add(1) != n {
						return nil
					}
					cancel()
					if op == memory.OpRead { // has no context
						return nil
					}
					return context.Canceled
				})
			}
		}},
		"wrong bytes": {reads: true, set: func(n int64, _ func(), stores ...*memory.Store) {
			var reads atomic.Int64
			for _, s := range stores {
				s.SetSpoil(func(_ string, read []byte) {
					if reads.Add(1) == n {
						read[int(n*7919)%len(read)] ^= 4
					}
				})
			}
		}},
	}
}

// explained is true if an error says that the storage failed or that somebody ended it; after wrong bytes, that something
// is damaged, unknown, or refused before anything was done.
func explained(err error, wrongBytes bool) bool {
	reasons := []error{errInjected, context.Canceled}
	if wrongBytes {
		reasons = []error{repo.ErrCorrupt, backup.ErrDamaged, repo.ErrNewer, repo.ErrNoKeyFiles}
	}
	if wrongBytes && errors.Is(err, repo.ErrWrongKey) && strings.Contains(err.Error(), "repository.json was made with; that is damaged") {
		return true // the check of the keys, which stands there
	}
	var refused *repo.CannotRotateError
	var inUse *repo.InUseError // the lease that could not be given back ends by itself
	return slices.ContainsFunc(reasons, func(why error) bool { return errors.Is(err, why) }) || errors.As(err, &inUse) || wrongBytes && errors.As(err, &refused)
}

// Whatever the storage does at any moment of any task: nothing that was acknowledged is lost, nothing is half there, nothing
// wrong is written, and the next process does the task.
func TestEveryTaskThroughEveryFault(t *testing.T) {
	random := seeded(t)
	all, ways := tasks(t), faults()
	for _, what := range slices.Sorted(maps.Keys(all)) { // in one order, so that a seed repeats the moments
		k := all[what]
		store, donor := k.clone()
		var calls, reads atomic.Int64
		for _, s := range slices.DeleteFunc([]*memory.Store{store, donor}, func(s *memory.Store) bool { return s == nil }) {
			s.SetFault(func(op memory.Op, _ string) error {
				calls.Add(1)
				if op == memory.OpRead {
					reads.Add(1)
				}
				return nil
			})
		}
		if err := k.perform(t.Context(), t, store, donor, newCache(t)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %d calls, %d of them reads", what, calls.Load(), reads.Load())
		for _, how := range slices.Sorted(maps.Keys(ways)) {
			f := ways[how]
			total := calls.Load()
			if f.reads {
				total = reads.Load()
			}
			for _, n := range moments(random, total) {
				t.Run(fmt.Sprintf("%s/%s/%d", what, how, n), func(t *testing.T) {
					t.Parallel()
					k.through(t, f, n)
				})
			}
		}
	}
}

// moments are some from 1 to total, drawn anew each time; as many as FAULT_MOMENTS says at most.
func moments(random *rand.Rand, total int64) []int64 {
	most := 12
	if testing.Short() {
		most = 2
	}
	if n, err := strconv.Atoi(os.Getenv("FAULT_MOMENTS")); err == nil {
		most = n
	}
	var all []int64
	for n := range total {
		all = append(all, n+1)
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(len(all), most)]
}

// through does the task while the fault hits it at n, and looks at what is left.
func (k task) through(t *testing.T, f fault, n int64) {
	store, donor := k.clone()
	stores := []*memory.Store{store}
	if donor != nil {
		stores = append(stores, donor)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f.set(n, cancel, stores...)
	cache := newCache(t)
	err := k.perform(ctx, t, store, donor, cache)
	if err != nil && !explained(err, f.reads) {
		t.Errorf("the error does not say what happened: %v", err)
	}
	// What heals promises nothing: it heals what it can read, and verifying again says what is left.
	k.left(t, store.Clone(), cache, err == nil && k.donor == nil)
}

// left fails the test unless a store holds what it must after the task was tried, and the task can be done then.
func (k task) left(t *testing.T, store *memory.Store, cache string, done bool) {
	t.Helper()
	if done && k.done != nil {
		k.done(t, store)
	}
	// Space is given back before anybody looks for mistakes: it must not be that of good data.
	hasty := store.Clone()
	_ = hasty.Delete(context.Background(), "marks/reclaim-lease") // it would end by itself
	r := must(openSmall(context.Background(), hasty, ""))(t)
	if err := reclaiming(context.Background(), t, r, nil); err != nil {
		t.Errorf("reclaim: %v", err)
	}
	k.sound(t, r, done)
	closeRepo(t, r)

	r = must(openSmall(context.Background(), store, cache))(t)
	if err := r.Diverged(); err != nil {
		t.Error(err)
	}
	k.sound(t, r, done)
	closeRepo(t, r)
	_ = store.Delete(context.Background(), "marks/reclaim-lease")
	var donor *memory.Store
	if k.donor != nil {
		donor = k.donor.Clone()
	}
	if err := k.perform(context.Background(), t, store, donor, cache); err != nil {
		t.Errorf("the next time: %v", err)
	}
	r = must(openSmall(context.Background(), store, cache))(t)
	k.sound(t, r, true)
	closeRepo(t, r)
}

// sound fails the test unless the repository has what it must, whole, and nothing that is good is called damaged for
// longer than until the next verification.
func (k task) sound(t *testing.T, r *repo.Repository, done bool) {
	t.Helper()
	if done || !k.damaged {
		check(t, r, slices.Concat(k.kept, k.goes, k.comes)...)
		state := r.State()
		if len(state.Damaged) > 0 || !k.damaged && len(state.Bad) > 0 {
			t.Errorf("still called damaged: %v, %v", state.Damaged, state.Bad)
		}
	}
	for _, p := range k.kept {
		if !r.Has(p.ID()) {
			t.Errorf("point %s is lost", p.Native)
		} else if k.donor == nil {
			if err := compare(context.Background(), r, p); err != nil {
				t.Errorf("point %s: %v", p.Native, err)
			}
		}
	}
	for _, p := range k.goes {
		if done && r.Has(p.ID()) {
			t.Errorf("point %s is there though it was forgotten", p.Native)
		}
	}
	for _, p := range k.comes {
		if done && !r.Has(p.ID()) {
			t.Errorf("point %s is not there though it was acknowledged", p.Native)
		}
	}
}

// Listings that show nothing of what happens, or show it late, mislead nobody: not the task, nor the next processes.
func TestEveryTaskWithStaleListings(t *testing.T) {
	for what, k := range tasks(t) {
		for _, lag := range []int{1, 15, -1} {
			t.Run(fmt.Sprint(what, lag), func(t *testing.T) {
				t.Parallel()
				k := k // the tests that run beside this one have k too
				store, donor := k.clone()
				store.SetListingLag(lag)
				cache := newCache(t)
				var beside sync.WaitGroup
				if what != "keys" { // see below
					// A reclaim of another machine sees files that are named only now.
					beside.Go(func() { reclaimAsOther(t, store) })
				}
				err := k.perform(t.Context(), t, store, donor, cache)
				beside.Wait()
				var inUse *repo.InUseError
				if err != nil && !errors.As(err, &inUse) && !errors.Is(err, repo.ErrCondemned) {
					t.Error(err)
				}
				r, openErr := openSmall(t.Context(), store, cache)
				switch {
				case what == "keys" && (openErr != nil || r.Locked()):
					// Key files are found by listing alone: new ones open the repository when they show.
					if openErr != nil && !errors.Is(openErr, repo.ErrWrongKey) {
						t.Error(openErr)
					}
				case openErr != nil:
					t.Fatal(openErr)
				default:
					k.sound(t, r, err == nil)
				}
				if openErr == nil {
					closeRepo(t, r)
				}
				if what == "keys" {
					k.done = nil // a rotation leaves out whose key file does not show yet
				}
				store.Settle()
				k.left(t, store.Clone(), cache, err == nil)
			})
		}
	}
}
