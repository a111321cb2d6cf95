package repo_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// testClock is a time that a test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *testClock { return &testClock{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)} }

func (c *testClock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *testClock) opened(t *testing.T, store *memory.Store) *repo.Repository {
	t.Helper()
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: c.read, Keys: identities{testIdentity()}}))(t)
	r.SetPackTargets(smallPack, smallPack)
	t.Cleanup(func() { closeRepo(t, r) })
	return r
}

func manyPacks(t *testing.T) (*memory.Store, []*sourcetest.Point) {
	t.Helper()
	store, points := initialized(t, repo.Options{}), threeMachines()
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, points...)
	closeRepo(t, r)
	if n := len(store.Names("packs/")); n < 8 {
		t.Fatalf("only %d packs", n)
	}
	return store, points
}

func verified(t *testing.T, r *repo.Repository, options repo.VerifyOptions) *repo.VerifyReport {
	t.Helper()
	return must(r.VerifyWith(t.Context(), options))(t)
}

// Night after night within a budget of bytes, each pack is read once in a month, the longest unread first.
func TestBudgetedVerificationReadsEachPackOnceAMonth(t *testing.T) {
	for _, level := range []repo.Level{repo.LevelStored, repo.LevelBlocks, repo.LevelPoints} {
		t.Run(level.String(), func(t *testing.T) {
			store, _ := manyPacks(t)
			total := len(store.Names("packs/"))
			time0, reads := newClock(), map[string]int{}
			month := 30 * 24 * time.Hour
			options := repo.VerifyOptions{Level: level, MaxBytes: 3 * smallPack, NotSince: month - time.Hour}
			nights := 0
			for left := 1; left > 0; nights++ {
				r := time0.opened(t, store) // each night another process
				report := verified(t, r, options)
				left = report.Unread
				if report.Packs+report.Fresh+report.Unread != total || report.Packs == 0 || len(report.Damage) > 0 || report.Cut != (left > 0) {
					t.Fatalf("night %d: %+v", nights, report)
				}
				reads["all"] += report.Packs
				time0.forward(24 * time.Hour)
			}
			if reads["all"] != total || nights < 3 {
				t.Errorf("%d packs were read in %d nights, there are %d", reads["all"], nights, total)
			}
			r := time0.opened(t, store)
			if report := verified(t, r, options); report.Packs != 0 || report.Fresh != total || report.Cut {
				t.Errorf("a night later %+v", report)
			}
			time0.forward(month - time.Duration(nights)*24*time.Hour)
			report := verified(t, time0.opened(t, store), options)
			if report.Packs == 0 || report.Packs > 8 {
				t.Errorf("a month after the first night %d packs are read", report.Packs)
			}
			proven := r.Proven(t.Context())
			if proven[0].Never != 0 || (level != repo.LevelStored) != (proven[1].Never == 0) {
				t.Errorf("proven: %+v", proven)
			}
		})
	}
}

func TestTimeBudgetEndsTheReading(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each reads a pack, and has the next one chosen
	store, _ := manyPacks(t)
	time0 := newClock()
	// Every look at a pack takes an hour.
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && strings.HasPrefix(name, "packs/") {
			time0.forward(time.Hour)
		}
		return nil
	})
	r := time0.opened(t, store)
	report := verified(t, r, repo.VerifyOptions{Level: repo.LevelBlocks, MaxTime: 2 * time.Hour})
	if !report.Cut || report.Packs < 2 || report.Packs > 6 || report.Unread == 0 {
		t.Errorf("%+v", report)
	}
}

// An interrupted verification goes on where it was, whole ones begin anew.
func TestInterruptedVerificationGoesOn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each reads a pack: with more, all that are opened before the end may be on their way
	store, _ := manyPacks(t)
	total, time0 := len(store.Names("packs/")), newClock()
	ctx, stop := context.WithCancel(t.Context())
	var opened atomic.Int64 // several packs are read at once
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && strings.HasPrefix(name, "packs/") && opened.Add(1) == int64(total/2) {
			stop()
		}
		return nil
	})
	if _, err := time0.opened(t, store).VerifyWith(ctx, repo.VerifyOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	store.SetFault(nil)
	time0.forward(time.Hour)
	report := verified(t, time0.opened(t, store), repo.VerifyOptions{})
	if report.Fresh == 0 || report.Packs+report.Fresh != total || report.Begun.IsZero() || report.Cut || report.Points != 6 {
		t.Errorf("went on: %+v", report)
	}
	if report := verified(t, time0.opened(t, store), repo.VerifyOptions{}); report.Packs != total || !report.Begun.IsZero() {
		t.Errorf("began anew: %+v", report)
	}
	// One that was left alone for long is not gone on with.
	if report := verified(t, time0.opened(t, store), repo.VerifyOptions{MaxBytes: 1}); report.Packs != 1 || !report.Cut {
		t.Errorf("%+v", report)
	}
	time0.forward(8 * 24 * time.Hour)
	if report := verified(t, time0.opened(t, store), repo.VerifyOptions{}); report.Packs != total {
		t.Errorf("after a week: %+v", report)
	}
}

// Damage that was found in one night is told in the next, too, although the pack is not read again.
func TestDamageIsToldUntilItIsHealed(t *testing.T) {
	store, points := manyPacks(t)
	time0 := newClock()
	packs := store.Names("packs/")
	pack := slices.MaxFunc(packs, func(a, b string) int { // the smallest may be all table
		return cmp.Compare(must(store.Stat(t.Context(), a))(t).Size, must(store.Stat(t.Context(), b))(t).Size)
	})
	spoilFrame(t, store, pack)
	r := time0.opened(t, store)
	first := verified(t, r, repo.VerifyOptions{Level: repo.LevelStored})
	if len(first.Damage) == 0 || first.DamagedPoints == 0 {
		t.Fatalf("%+v", first)
	}
	time0.forward(time.Hour)
	r = time0.opened(t, store)
	again := verified(t, r, repo.VerifyOptions{Level: repo.LevelStored, NotSince: 24 * time.Hour})
	if again.Packs != 0 || len(again.Damage) != len(first.Damage) || again.DamagedPoints != first.DamagedPoints {
		t.Errorf("then %+v\nnow %+v", first, again)
	}
	whole := 0
	for _, p := range points {
		damage, damaged := r.DamageOf(p.ID())
		err := compare(t.Context(), r, p)
		if damaged != (err != nil) || damaged == r.HasWhole(p.ID()) || damaged != (damage.Bytes > 0) {
			t.Errorf("%s: %+v, reading it says %v", p.Native, damage, err)
		}
		if !damaged {
			whole++
		}
	}
	if whole == 0 || whole == len(points) {
		t.Errorf("%d points are whole: the test shows little", whole)
	}
}

func spoilFrame(t *testing.T, store *memory.Store, pack string) {
	t.Helper()
	if err := store.Tamper(pack, func(b []byte) []byte { b[64+96+10] ^= 4; return b }); err != nil {
		t.Fatal(err)
	}
}

// A damaged point is copied again, and the log forgets that it was damaged.
func TestDamagedPointThatIsCopiedAgainIsWhole(t *testing.T) {
	store, first, _ := damagedRepository(t)
	for _, pack := range store.Names("packs/") {
		spoilFrame(t, store, pack)
	}
	if report := verify(t, store); report.DamagedPoints != 1 {
		t.Fatalf("%+v", report)
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	if r.HasWhole(first.ID()) {
		t.Fatal("the point counts as whole")
	}
	report := must(copyDamaged(t.Context(), r, sourcetest.Open(t, first)))(t)
	if err := stepErrors(report); err != nil || report.Copied() != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if !r.HasWhole(first.ID()) {
		t.Error("the point counts as damaged still")
	}
	after := must(r.Verify(t.Context(), nil))(t)
	if len(after.Damage) != 0 || len(after.Healed) == 0 || after.DamagedPoints != 0 {
		t.Errorf("after it was copied again: %+v", after)
	}
	check(t, r, first)
}

// Many damaged blocks next to each other are one range.
func TestDamageIsListedAsRanges(t *testing.T) {
	data := content(61, 64*smallBlock)
	for i := range data {
		data[i] |= 1 // no zeros
	}
	store := stored(t, onePoint("web", "w1", data))
	for _, pack := range store.Names("packs/") {
		if must(store.Stat(t.Context(), pack))(t).Size > 2*smallBlock {
			if err := store.Delete(t.Context(), pack); err != nil {
				t.Fatal(err)
			}
		}
	}
	report, ranges := verify(t, store), []string{}
	for _, d := range report.Damage {
		if d.Point != "" {
			ranges = append(ranges, fmt.Sprintf("%s %d+%d", d.Object, d.Offset, d.Length))
		}
	}
	if want := []string{fmt.Sprintf("vda 0+%d", len(data))}; !slices.Equal(ranges, want) {
		t.Errorf("%v, want %v", ranges, want)
	}
}

// copyDamaged copies what the repository lacks, and what it has damaged, as ferry copy does.
func copyDamaged(ctx context.Context, r *repo.Repository, from *registry.Source) (job.Report, error) {
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	return job.Copy(ctx, from, r, plan.Make(points, r.HasWhole, plan.Request{All: true}), job.Options{})
}
