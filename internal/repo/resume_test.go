package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/repo/format"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// copyFull copies a point as ferry copy --full does.
func copyFull(ctx context.Context, r *repo.Repository, from *sourcetest.Point, plain bool, t testing.TB) (job.Report, error) {
	steps := plan.Make([]backup.Point{from.Described().Point}, func(backup.PointID) bool { return false }, plan.Request{All: true})
	report, err := job.Copy(ctx, sourcetest.Open(t, from), r, steps, job.Options{Codec: mover.CodecNone, Full: true, Plain: plain})
	return report, errors.Join(err, stepErrors(report))
}

// wholePoint has two disks of that many bytes in all, a multiple of a block.
func wholePoint(size int) *sourcetest.Point {
	return &sourcetest.Point{Machine: sourcetest.Machine("m"), Native: "p", Created: at(1), Objects: []sourcetest.Object{
		{Name: "vda", Data: content(11, size-30*smallBlock), Access: source.AccessRandom}, {Name: "vdb", Data: content(12, 30*smallBlock), Access: source.AccessRandom},
	}}
}

// twoDisks is the size of most of them.
const twoDisks = 96 * smallBlock

// sealedDomain is one that is not the repository's own, zero if there are no packs of any, and how much its blocks hold.
func sealedDomain(r *repo.Repository) (domain format.Name, durable int64) {
	for id, packs := range packsByDomain(r) {
		if id.String() == r.ID() {
			continue
		}
		domain = id
		for _, p := range packs {
			if p.Kind == "data" {
				durable += int64(p.Frames) * smallBlock
			}
		}
	}
	return domain, durable
}

// goesOn finishes an interrupted sealed copy as a new process and fails the test unless that reads and stores only what was not
// there, the point is whole, by itself and stored once, and all of it goes with it.
func goesOn(t *testing.T, store *memory.Store, size int, beside *sourcetest.Point) {
	t.Helper()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	begun, durable := sealedDomain(r)
	unfinished := r.Usage().Unfinished > 0
	again := wholePoint(size)
	report, err := copyFull(t.Context(), r, again, false, t)
	if err != nil {
		t.Fatal(err)
	}
	point := must(r.ReadPoint(t.Context(), again.ID()))(t)
	if unfinished {
		if !begun.IsZero() && point.Domain != begun || len(packsByDomain(r)) != 2 {
			t.Errorf("the copy began a domain of its own")
		}
		rest := int64(size) - durable
		if again.Read.Load() > rest+smallPack || report.Stored > rest+rest/8+smallPack {
			t.Errorf("%d bytes read again, %d stored; %d were not there", again.Read.Load(), report.Stored, rest)
		}
	}
	needs(t, r, point, packsByDomain(r)[point.Domain])
	check(t, r, again, beside)
	if r.Usage().Unfinished > 0 {
		t.Errorf("the finished copy is still unfinished")
	}
	seen := map[format.ID]bool{}
	for _, p := range packsByDomain(r)[point.Domain] {
		for _, id := range must(r.FrameOrder(t.Context(), p))(t) {
			if seen[id] {
				t.Errorf("%s is stored twice", id)
			}
			seen[id] = true
		}
	}
	forget(t, r, again)
	for range 3 {
		reclaim(t, r, atOnce())
	}
	if left := packsByDomain(r); len(left) > 1 {
		t.Errorf("%d domains are left", len(left))
	}
	if files := len(store.Names("packs/")); files != r.State().Packs.Len() {
		t.Errorf("%d files of %d packs", files, r.State().Packs.Len())
	}
	check(t, r, beside)
}

// withTheSame is a repository that has the content already, in its own domain, and the point too.
func withTheSame(t *testing.T, size int) (*memory.Store, *sourcetest.Point) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	beside := onePoint("other", "o", content(11, size-30*smallBlock))
	mustCopyAll(t, r, beside, wholePoint(size))
	return store, beside
}

// A sealed copy that ends at any call of the storage goes on there.
func TestSealedCopyGoesOnAfterACrash(t *testing.T) {
	base, beside := withTheSame(t, twoDisks)
	attemptFull := func(store *memory.Store) error {
		r, err := openSmall(context.Background(), store, "")
		if err != nil {
			return err
		}
		_, err = copyFull(context.Background(), r, wholePoint(twoDisks), false, t)
		return errors.Join(err, r.Close())
	}
	whole := base.Clone()
	var calls atomic.Int64
	whole.SetFault(func(memory.Op, string) error { calls.Add(1); return nil })
	if err := attemptFull(whole); err != nil {
		t.Fatal(err)
	}
	for k := 0; k <= int(calls.Load()); k += step(int(calls.Load())) {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			store := base.Clone()
			store.CrashAfter(k)
			_ = attemptFull(store)
			goesOn(t, store.Clone(), twoDisks, beside)
		})
	}
}

// A sealed copy whose source breaks off at any byte goes on there, also after reclaim ran: that the point is there, in another
// domain, does not make it needless.
func TestSealedCopyGoesOnAfterItsSourceBreaks(t *testing.T) {
	const size = 1000 * smallBlock // several reads
	base, beside := withTheSame(t, size)
	for position := int64(1); position < size; position += size / 9 {
		t.Run(fmt.Sprint(position), func(t *testing.T) {
			t.Parallel()
			store := base.Clone()
			r := must(openSmall(t.Context(), store, ""))(t)
			left := position
			logged, once := make(chan struct{}), sync.Once{}
			store.SetFault(func(op memory.Op, name string) error {
				if op == memory.OpPut && strings.HasPrefix(name, "log/") {
					once.Do(func() { close(logged) })
				}
				return nil
			})
			broken := wholePoint(size)
			broken.OnRead = func(_ int, _ int64, n int) (int, error) { // a sealed copy reads with one goroutine
				given := min(int64(n), left)
				if left -= given; given < int64(n) {
					if position > size/2 {
						<-logged // something is on its way by then
					}
					return int(given), errInjected
				}
				return n, nil
			}
			if _, err := copyFull(t.Context(), r, broken, false, t); err == nil {
				t.Fatal("the source did not break")
			}
			for range 3 {
				reclaim(t, r, atOnce())
			}
			if _, durable := sealedDomain(r); durable == 0 && position > size/2 {
				t.Errorf("nothing of the copy is left")
			}
			closeRepo(t, r)
			goesOn(t, store, size, beside)
		})
	}
}

// interruptedFull leaves a sealed copy of wholePoint unfinished, and returns its domain.
func interruptedFull(t *testing.T, r *repo.Repository, plain bool) format.Name {
	t.Helper()
	broken := wholePoint(twoDisks)
	broken.Revalidated = errInjected
	if _, err := copyFull(t.Context(), r, broken, plain, t); err == nil || r.Usage().Unfinished != 1 {
		t.Fatalf("a copy that fails at its end: %v, %d unfinished", err, r.Usage().Unfinished)
	}
	domain, _ := sealedDomain(r)
	return domain
}

// What a sealed copy may not go on from it does not: another source, blocks that are encrypted otherwise, a copy that is
// finished. The copy that it leaves behind ends with its own.
func TestSealedCopyBeginsAnew(t *testing.T) {
	for what, c := range map[string]struct {
		plain bool
		again func(*sourcetest.Point)
		same  bool
	}{
		"the same":       {same: true},
		"changed":        {again: func(p *sourcetest.Point) { p.Validator = []byte("another") }},
		"no validator":   {again: func(p *sourcetest.Point) { p.Validator = []byte{} }},
		"plain, now not": {plain: true, same: !encryptAll},
	} {
		store := initialized(t, repo.Options{})
		r := must(openSmall(t.Context(), store, ""))(t)
		begun := interruptedFull(t, r, c.plain)
		again := wholePoint(twoDisks)
		if c.again != nil {
			c.again(again)
		}
		if _, err := copyFull(t.Context(), r, again, false, t); err != nil {
			t.Fatal(err)
		}
		point := must(r.ReadPoint(t.Context(), again.ID()))(t)
		if (point.Domain == begun) != c.same || (again.Read.Load() == 0) != c.same {
			t.Errorf("%s: went on: %v, %d bytes read", what, point.Domain == begun, again.Read.Load())
		}
		if r.Usage().Unfinished > 0 {
			t.Errorf("%s: %d unfinished", what, r.Usage().Unfinished)
		}
		for range 3 {
			reclaim(t, r, atOnce())
		}
		if left := packsByDomain(r)[begun]; len(left) > 0 != c.same {
			t.Errorf("%s: %d packs of the domain that was begun", what, len(left))
		}
		needs(t, r, point, packsByDomain(r)[point.Domain])
		check(t, r, again)

		// What is finished is no part of a copy that is made again.
		third := wholePoint(twoDisks)
		if _, err := copyFull(t.Context(), r, third, false, t); err != nil {
			t.Fatal(err)
		}
		if moved := must(r.ReadPoint(t.Context(), third.ID()))(t); moved.Domain == point.Domain || third.Read.Load() < twoDisks {
			t.Errorf("%s: copied once more, %d bytes were read", what, third.Read.Load())
		}
		closeRepo(t, r)
	}
}

// Of two copies that go on at once one is finished first. What the other leaves in that domain is nothing to go on from.
func TestNothingGoesOnInADomainThatHoldsThePoint(t *testing.T) {
	store := initialized(t, repo.Options{})
	r, other := must(openSmall(t.Context(), store, ""))(t), must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	begun := interruptedFull(t, r, false)
	late := must(other.NewIngest(t.Context(), repo.IngestOptions{Sealed: true}))(t)
	nothing := func(repo.Done) error { return nil }
	task := must(late.BeginTask(t.Context(), wholePoint(twoDisks).ID(), wholePoint(twoDisks).Machine.Key, []byte("validator of p"), nothing))(t)
	if domain, _ := late.Domain(); domain != begun {
		t.Fatal("the second copy does not go on")
	}
	if _, err := copyFull(t.Context(), r, wholePoint(twoDisks), false, t); err != nil {
		t.Fatal(err)
	}
	task.Stored(0, 3, 0, format.ID{})
	if err := errors.Join(late.Close(t.Context(), nil), other.Close(), r.Refresh(t.Context())); err != nil || r.Usage().Unfinished != 1 {
		t.Fatalf("%v, %d unfinished", err, r.Usage().Unfinished)
	}
	again := wholePoint(twoDisks)
	if _, err := copyFull(t.Context(), r, again, false, t); err != nil {
		t.Fatal(err)
	}
	if moved := must(r.ReadPoint(t.Context(), again.ID()))(t); moved.Domain == begun || again.Read.Load() < twoDisks {
		t.Errorf("%d bytes were read", again.Read.Load())
	}
}

// A copy into the domain that points share neither goes on from a sealed one nor ends it. Nobody goes on with it: it goes whole.
func TestAnOrdinaryCopyLeavesASealedOne(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	now.now = time.Now()
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: now.time, Keys: identities{testIdentity()}}))(t)
	r.SetPackTargets(smallPack, smallPack)
	defer closeRepo(t, r)
	begun := interruptedFull(t, r, false)
	ordinary := wholePoint(twoDisks)
	mustCopyAll(t, r, ordinary)
	if ordinary.Read.Load() < twoDisks || r.Usage().Unfinished != 1 {
		t.Errorf("%d bytes read, %d unfinished", ordinary.Read.Load(), r.Usage().Unfinished)
	}
	policy := atOnce()
	for _, after := range []time.Duration{0, policy.UnfinishedFor - time.Minute} {
		now.now = now.now.Add(after)
		reclaim(t, r, policy)
		if left := packsByDomain(r)[begun]; len(left) == 0 || r.Usage().Unfinished != 1 {
			t.Errorf("%v later: %d packs of the domain, %d unfinished", after, len(left), r.Usage().Unfinished)
		}
	}
	now.now = now.now.Add(2 * time.Minute)
	for range 3 {
		reclaim(t, r, policy)
	}
	if left := packsByDomain(r)[begun]; len(left) > 0 {
		t.Errorf("%d packs of a copy that was given up", len(left))
	}
	if files := len(store.Names("packs/")); r.Usage().Unfinished > 0 || files != r.State().Packs.Len() {
		t.Errorf("%d unfinished, %d files of %d packs", r.Usage().Unfinished, files, r.State().Packs.Len())
	}
	check(t, r, ordinary)
}

// From a source that gives a block now and then no pack is ever full: what is stored is written down every half a minute all the
// same, and only that often.
func TestWhatIsStoredIsWrittenDownInTime(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		store := initialized(t, repo.Options{})
		synctest.Test(t, func(t *testing.T) {
			r := must(repo.Open(t.Context(), store, repo.Environment{Keys: identities{testIdentity()}}))(t)
			defer closeRepo(t, r)
			slow := onePoint("m", "p", content(3, 40<<20)) // forty reads
			slow.OnRead = func(_ int, _ int64, n int) (int, error) {
				time.Sleep(10 * time.Second)
				return n, nil
			}
			began, first := time.Now(), r.State().Head.N
			in := must(r.NewIngest(t.Context(), repo.IngestOptions{Sealed: sealed}))(t)
			m := mover.New(in, mover.Options{Job: "manual", Codec: mover.CodecNone})
			if err := m.Copy(t.Context(), slow.Described(), func(mover.Result, error) {}); err != nil {
				t.Fatal(err)
			}
			// The first read takes its time, and half a minute counts from when something waits.
			written, half := int64(r.State().Head.N-first), int64(time.Since(began)/(30*time.Second))
			if half < 3 || written < half/2 || written > half || r.Usage().Unfinished != 1 {
				t.Errorf("sealed %v: written down %d times in %d half minutes", sealed, written, half)
			}
			time.Sleep(31 * time.Second) // the point waits no longer either
			synctest.Wait()
			if !r.Has(slow.ID()) {
				t.Error("the point waits for a pack that nothing fills")
			}
			after := r.State().Head.N
			time.Sleep(time.Hour)
			synctest.Wait()
			if r.State().Head.N != after {
				t.Error("something is written down while nothing is stored")
			}
			if err := in.Close(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Something is due at almost any moment, while packs fill and points are committed: nothing is lost.
func TestSomethingIsAlwaysDue(t *testing.T) {
	store, points := initialized(t, repo.Options{}), threeMachines()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	r.SetWrittenDownWithin(time.Nanosecond)
	mustCopyAll(t, r, points...)
	if _, err := copyFull(t.Context(), r, points[1], false, t); err != nil {
		t.Fatal(err)
	}
	check(t, r, points...)
	if r.Usage().Unfinished > 0 {
		t.Errorf("%d unfinished", r.Usage().Unfinished)
	}
}
