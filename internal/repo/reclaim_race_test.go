package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// pausing makes one call in some wait for up to so many calls of anybody.
func pausing(p *repotest.Pauses) func(memory.Op, string) error {
	return func(memory.Op, string) error {
		if p.Call(60) {
			p.Wait(p.Draw(800), nil)
		}
		return nil
	}
}

// Several ingesters, several reclaimers without any grace, a compacter and readers at once, all paused at arbitrary calls for longer than
// it takes the others to condemn and delete: nothing is lost, and readers never fail. Every second time what is deleted is gone for
// who has it open, too, as in a bucket.
func TestReclaimBesideWritersAndReaders(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			store := initialized(t, repo.Options{})
			kept := threeMachines()
			r := must(openSmall(t.Context(), store, ""))(t)
			mustCopyAll(t, r, kept...)
			closeRepo(t, r)
			p := repotest.NewPauses(seed)
			if seed%2 == 1 {
				store.SetReadByName()
			}
			store.SetFault(pausing(p))
			var working, idle sync.WaitGroup
			var done atomic.Bool
			copied := make([]*sourcetest.Point, 3)
			for i := range copied {
				p.Run(&working, func() { copied[i] = ingestAndForget(t, store, kept[0], seed*10+uint64(i)) })
			}
			for range 2 {
				p.Run(&idle, func() {
					// Not for ever: what is not named yet is garbage to them, so that copies may never come to an end.
					for range 10 {
						reclaimBeside(t, place{store: store})
					}
				})
			}
			p.Run(&idle, func() {
				for range 4 {
					compactAsOther(t, store)
				}
			})
			for i := range 2 {
				p.Run(&idle, func() {
					reader, err := openSmall(context.Background(), store, "")
					if err != nil {
						t.Errorf("open: %v", err)
						return
					}
					for !done.Load() {
						for _, point := range kept[i:] {
							if err := compare(context.Background(), reader, point); err != nil {
								t.Errorf("a reader: %v", err)
								return
							}
						}
					}
					closeRepo(t, reader)
				})
			}
			working.Wait()
			done.Store(true)
			idle.Wait()
			store.SetFault(nil)
			last := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, last)
			all := slices.Concat(kept, copied)
			check(t, last, all...)
			for range 8 {
				reclaim(t, last, atOnce())
			}
			fresh := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, fresh)
			check(t, fresh, all...)
			for _, point := range all {
				if !fresh.Has(point.ID()) {
					t.Errorf("%s is gone", point.Native)
				}
			}
			if files, state := len(store.Names("packs/")), fresh.State(); files != state.Packs.Len() || len(state.Condemned) > 0 {
				t.Errorf("%d files of %d packs, %d of them condemned for good", files, state.Packs.Len(), len(state.Condemned))
			}
		})
	}
}

// ingestAndForget copies points that share content with another, forgets them and copies them again, and returns the one
// that is there in the end.
func ingestAndForget(t *testing.T, store *memory.Store, like *sourcetest.Point, seed uint64) *sourcetest.Point {
	point := onePoint(fmt.Sprint("m", seed), fmt.Sprint("p", seed), changed(like.Objects[0].Data, 100+seed, 30*smallBlock))
	for round := range 4 {
		r, err := openSmall(context.Background(), store, "")
		if err != nil {
			t.Errorf("open: %v", err)
			break
		}
		// Without any grace a copy can lose again and again; it says so, and another one succeeds in the end.
		for tries := 0; !r.Has(point.ID()); tries++ {
			report, err := copyAll(context.Background(), r, sourcetest.Open(t, point))
			if err = errors.Join(err, stepErrors(report)); err != nil && !errors.Is(err, repo.ErrCondemned) || tries == 100 {
				t.Errorf("copy: %v", err)
				break
			}
		}
		if err := compare(context.Background(), r, point); err != nil {
			t.Errorf("copied and not whole: %v", err)
		}
		if round < 3 {
			if _, err := r.Forget(context.Background(), "manual", []repo.Forgetting{{Point: point.ID()}}, nil); err != nil {
				t.Errorf("forget: %v", err)
			}
		}
		closeRepo(t, r)
	}
	return point
}

// compactAsOther compacts in a process of its own. What it writes may be taken for garbage at once.
func compactAsOther(t *testing.T, store *memory.Store) {
	r, err := openSmall(context.Background(), store, "")
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	defer closeRepo(t, r)
	r.IgnoreLease()
	if _, err := r.Compact(context.Background(), repo.CompactOptions{Codec: repo.CodecZstd}); err != nil {
		t.Errorf("compact: %v", err)
	}
}

// A reclaim that dies at any call, or of which a call fails, leaves everything whole, and the next ones finish.
func TestReclaimCrashAtEveryCall(t *testing.T) {
	points := threeMachines()
	base := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), base, ""))(t)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	forget(t, r, points[0], points[3])
	reclaim(t, r, atOnce()) // so that the next one has something to delete
	forget(t, r, points[1])
	closeRepo(t, r)
	left := []*sourcetest.Point{points[2], points[4], points[5]}
	attempt := func(store *memory.Store) error {
		r, err := openSmall(context.Background(), store, "")
		if err != nil {
			return err
		}
		_, err = r.Reclaim(context.Background(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch})
		return errors.Join(err, r.Close())
	}
	counting := base.Clone()
	var calls atomic.Int64
	counting.SetFault(func(memory.Op, string) error { calls.Add(1); return nil })
	if err := attempt(counting); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d calls", calls.Load())
	finish := func(t *testing.T, store *memory.Store) {
		r := must(openSmall(t.Context(), store.Clone(), ""))(t)
		defer closeRepo(t, r)
		check(t, r, left...)
		if len(r.Entries()) != len(left) {
			t.Errorf("%d points are left", len(r.Entries()))
		}
	}
	for k := int64(0); k <= calls.Load(); k += int64(step(int(calls.Load()))) {
		for what, fault := range map[string]error{"crash": nil, "fails": errInjected, "lost": memory.Applied(errInjected)} {
			t.Run(fmt.Sprint(what, k), func(t *testing.T) {
				t.Parallel()
				store := base.Clone()
				var count atomic.Int64
				if fault == nil {
					store.CrashAfter(int(k))
				} else {
					store.SetFault(func(memory.Op, string) error {
						if count.Add(1) == k {
							return fault
						}
						return nil
					})
				}
				_ = attempt(store)
				store = store.Clone()
				finish(t, store)
				if err := store.Delete(t.Context(), "marks/reclaim-lease"); err != nil { // it would end by itself
					t.Fatal(err)
				}
				for range 4 {
					if err := attempt(store); err != nil {
						t.Fatalf("the next run: %v", err)
					}
				}
				finish(t, store)
				r := must(openSmall(t.Context(), store, ""))(t)
				defer closeRepo(t, r)
				if files, packs := len(store.Names("packs/")), r.State().Packs.Len(); files != packs {
					t.Errorf("%d files of %d packs", files, packs)
				}
			})
		}
	}
}

// The second of two is refused with who runs the first; a lease that is not renewed ends.
func TestOneReclaimAtATime(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	release, err := r.TakeLease(t.Context(), "compact")
	if err != nil {
		t.Fatal(err)
	}
	var inUse *repo.InUseError
	if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce()}); !errors.As(err, &inUse) || inUse.What != "compact" || inUse.PID == 0 || inUse.Since.IsZero() {
		t.Errorf("beside another: %v", err)
	}
	if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), DryRun: true}); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	now.now = now.now.Add(11 * 60e9)
	if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce()}); err != nil {
		t.Errorf("when the lease has ended: %v", err)
	}
	release()
	if len(store.Names("marks/reclaim-lease")) != 0 {
		t.Error("the lease is left")
	}
}
