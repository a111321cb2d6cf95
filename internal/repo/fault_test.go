package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/pack"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

var errInjected = errors.New("injected")

// attempt is one process: it opens, copies all it can, and ends. Everything may go wrong.
func attempt(store *memory.Store, cache string, points []*sourcetest.Point, t testing.TB) error {
	r, err := openSmall(context.Background(), store, cache)
	if err != nil {
		return err
	}
	report, err := copyAll(context.Background(), r, sourcetest.Open(t, points...))
	return errors.Join(err, stepErrors(report), r.Close())
}

// recovers fails the test unless what the store holds now is sound, to a process with a new cache and to one with the old,
// and the next copy finishes.
func recovers(t *testing.T, store *memory.Store, cache string, points []*sourcetest.Point) {
	t.Helper()
	for _, dir := range []string{newCache(t), cache} {
		next := store.Clone()
		r := must(openSmall(context.Background(), next, dir))(t)
		if err := r.Diverged(); err != nil {
			t.Errorf("after an interruption: %v", err)
		}
		check(t, r, points...)
		mustCopyAll(t, r, points...)
		check(t, r, points...)
		if unfinished := r.Usage().Unfinished; unfinished != 0 {
			t.Errorf("%d unfinished copies are left though all are done", unfinished)
		}
		closeRepo(t, r)
	}
}

// callsOf counts the calls that a copy of everything takes.
func callsOf(t *testing.T, base *memory.Store, points []*sourcetest.Point) int {
	store := base.Clone()
	var calls atomic.Int64
	store.SetFault(func(memory.Op, string) error { calls.Add(1); return nil })
	if err := attempt(store, newCache(t), points, t); err != nil {
		t.Fatal(err)
	}
	return int(calls.Load())
}

// step is 1: every call is tried. Where tests are to be short it is every few.
func step(calls int) int {
	if testing.Short() {
		return max(1, calls/12)
	}
	return 1
}

func TestCrashAtEveryCall(t *testing.T) {
	points := threeMachines()
	base := initialized(t, repo.Options{})
	calls := callsOf(t, base, points)
	t.Logf("%d calls", calls)
	for k := 0; k <= calls; k += step(calls) {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			store, cache := base.Clone(), newCache(t)
			store.CrashAfter(k)
			_ = attempt(store, cache, points, t)
			recovers(t, store, cache, points)
		})
	}
}

// Each call in turn fails, or its answer is lost: in the same process a second copy goes on, then a new one.
func TestFaultAtEveryCall(t *testing.T) {
	points := threeMachines()
	base := initialized(t, repo.Options{})
	calls := callsOf(t, base, points)
	for what, fault := range map[string]error{
		"fails": errInjected, "lost": memory.Applied(errInjected), "full": fmt.Errorf("injected: %w", storage.ErrFull),
	} {
		for k := 1; k <= calls; k += step(calls) {
			t.Run(fmt.Sprint(what, k), func(t *testing.T) {
				t.Parallel()
				store, cache := base.Clone(), newCache(t)
				var count atomic.Int64
				store.SetFault(func(op memory.Op, _ string) error {
					if count.Add(1) == int64(k) {
						return fault
					}
					return nil
				})
				r, err := openSmall(context.Background(), store, cache)
				if err != nil {
					return // nothing has begun
				}
				_, _ = copyAll(context.Background(), r, sourcetest.Open(t, points...))
				store.SetFault(nil)
				mustCopyAll(t, r, points...)
				check(t, r, points...)
				closeRepo(t, r)
				recovers(t, store, cache, points)
			})
		}
	}
}

func TestFullStorage(t *testing.T) {
	points := threeMachines()
	base := initialized(t, repo.Options{})
	whole := base.Clone()
	if err := attempt(whole, newCache(t), points, t); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, name := range whole.Names("") {
		total += must(whole.Stat(t.Context(), name))(t).Size
	}
	for space := int64(0); space < total; space += total / int64(60/(1+2*boolInt(testing.Short()))) {
		store, cache := base.Clone(), newCache(t)
		store.SetSpace(space)
		if err := attempt(store, cache, points, t); space < total/2 && !errors.Is(err, storage.ErrFull) {
			t.Errorf("with %d bytes of space: %v", space, err)
		}
		store.SetSpace(-1)
		recovers(t, store, cache, points)
	}
}

// What a copy into a full storage reports as stored is what the log has afterwards: what no finished pack holds is lost, and is said to be.
func TestFullStorageSaysWhatIsKept(t *testing.T) {
	points := threeMachines()
	base := initialized(t, repo.Options{})
	nothing, something := 0, 0
	for space := int64(1 << 10); ; space += 24 << 10 {
		store := base.Clone()
		store.SetSpace(space)
		r := must(openSmall(t.Context(), store, ""))(t)
		report, err := copyAll(t.Context(), r, sourcetest.Open(t, points...))
		closeRepo(t, r)
		store.SetSpace(-1)
		again := must(openSmall(t.Context(), store, ""))(t)
		kept := int64(0)
		for _, p := range again.State().Packs.All() {
			kept += p.Size - pack.Overhead(p.Frames)
		}
		closeRepo(t, again)
		if report.Stored+report.Nodes != kept {
			t.Errorf("with %d bytes of space %d bytes of blocks and nodes are kept, and %d are said to be stored", space, kept, report.Stored+report.Nodes)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, storage.ErrFull) || strings.Contains(err.Error(), "nothing new is kept") != (kept == 0) || strings.Contains(err.Error(), "will not be stored again") != (kept > 0) {
			t.Errorf("with %d bytes kept it is said: %v", kept, err)
		}
		for _, step := range report.Steps {
			if step.Err != nil && step.Result.Stored+step.Result.NewBytes > 0 {
				t.Errorf("a point that failed is said to have stored %d bytes: %v", step.Result.Stored, step.Err)
			}
		}
		nothing, something = nothing+boolInt(kept == 0), something+boolInt(kept > 0)
	}
	if nothing == 0 || something == 0 {
		t.Errorf("%d times nothing was kept, %d times something", nothing, something)
	}
}

// The storage is full when what has just become durable is to be written down, because the packs after it have taken all there was:
// those give their space back for it, and it is kept.
func TestFullStorageKeepsWhatIsDurable(t *testing.T) {
	const target = 3 << 20 // more than a chunk, so that an open pack takes space
	point := &sourcetest.Point{
		Machine: sourcetest.Machine("m"), Native: "p", Created: at(1), Objects: []sourcetest.Object{{Name: "vda", Data: content(12, 4*target), Access: source.AccessRandom}},
	}
	store, cache := initialized(t, repo.Options{}), newCache(t)
	var first, full sync.Once
	var packs sync.Map
	others := make(chan struct{})
	store.SetFault(func(op memory.Op, name string) error {
		switch {
		case op == memory.OpWrite && strings.HasPrefix(name, "packs/"):
			packs.Store(name, true)
			written := 0
			packs.Range(func(any, any) bool { written++; return true })
			if written > 2 {
				first.Do(func() { close(others) })
			}
		case op == memory.OpPut && strings.HasPrefix(name, "partials/"):
			<-others
			full.Do(func() { store.SetSpace(0) })
		}
		return nil
	})
	r := must(openSmall(t.Context(), store, cache))(t)
	r.SetPackTargets(target, target)
	if _, err := copyAll(t.Context(), r, sourcetest.Open(t, point)); !errors.Is(err, storage.ErrFull) {
		t.Errorf("%v", err)
	}
	store.SetFault(nil)
	store.SetSpace(-1)
	again := must(openSmall(t.Context(), store.Clone(), newCache(t)))(t)
	durable := int64(0)
	for _, p := range again.State().Packs.All() {
		durable += p.Size
	}
	if durable < target {
		t.Errorf("%d bytes are in packs that the log names", durable)
	}
	recovers(t, store, cache, []*sourcetest.Point{point})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// After a crash little is read again from a source with random access, and little is stored again from any.
func TestResumeReadsAndStoresLittle(t *testing.T) {
	data := content(11, 256*smallBlock)
	for _, c := range []struct {
		what   string
		object sourcetest.Object
	}{
		{"random", sourcetest.Object{Name: "vda", Data: data}},
		{"one pass", sourcetest.Object{Name: "vda", Data: data}},
	} {
		random := c.what == "random"
		c.object.Access = source.AccessOnePass
		if random {
			c.object.Access = source.AccessRandom
		}
		point := func() *sourcetest.Point {
			return &sourcetest.Point{Machine: sourcetest.Machine("m"), Native: "p", Created: at(1), Objects: []sourcetest.Object{c.object}}
		}
		base := initialized(t, repo.Options{})
		calls := callsOf(t, base, []*sourcetest.Point{point()})
		for k := calls / 8; k < calls; k += max(1, calls/10) {
			store := base.Clone()
			store.CrashAfter(k)
			_ = attempt(store, newCache(t), []*sourcetest.Point{point()}, t)
			next := store.Clone()
			r := must(openSmall(t.Context(), next, ""))(t)
			durable := int64(0) // content in packs that the log names
			for _, p := range r.State().Packs.All() {
				if p.Kind == "data" {
					durable += int64(p.Frames) * smallBlock
				}
			}
			again := point()
			report := mustCopyAll(t, r, again)
			check(t, r, again)
			rest, packs := int64(len(data))-durable, int64(2*smallPack) // a pack on its way, and what waits for the log
			if random && again.Read.Load() > rest+packs {
				t.Errorf("crash at %d: %d bytes read again, %d were not stored", k, again.Read.Load(), rest)
			}
			if stored := report.Stored; stored > rest+rest/8+packs {
				t.Errorf("%s, crash at %d: %d bytes stored, %d were not", c.what, k, stored, rest)
			}
			seen := map[string]int{}
			for _, name := range next.Names("packs/") {
				seen[name[strings.LastIndex(name, "/")+1:]]++
			}
			closeRepo(t, r)
		}
	}
}
