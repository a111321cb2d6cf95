package repo_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// atOnce gives up and deletes without grace.
func atOnce() repo.ReclaimPolicy {
	policy := repo.DefaultReclaimPolicy()
	policy.Grace = 0
	return policy
}

func reclaim(t testing.TB, r *repo.Repository, policy repo.ReclaimPolicy) *repo.ReclaimReport {
	t.Helper()
	report, err := r.Reclaim(context.Background(), repo.ReclaimOptions{Policy: policy, TempDir: scratch})
	if err != nil {
		t.Fatalf("reclaim: %v", err)
	}
	return report
}

func forget(t testing.TB, r *repo.Repository, points ...*sourcetest.Point) {
	t.Helper()
	var all []repo.Forgetting
	for _, p := range points {
		all = append(all, repo.Forgetting{Point: p.ID()})
	}
	done, err := r.Forget(context.Background(), "manual", all, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range done {
		if !d.Removed {
			t.Fatalf("not removed: %+v", d)
		}
	}
}

func bytesOf(t testing.TB, store *memory.Store, folder string) int64 {
	total := int64(0)
	for _, name := range store.Names(folder) {
		total += must(store.Stat(context.Background(), name))(t).Size
	}
	return total
}

// Points go one by one, and the space of each with it; what is left is whole at every step.
func TestReclaimGivesSpaceBack(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := threeMachines()
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	for _, p := range points { // each with packs of its own
		mustCopyAll(t, r, p)
	}
	before := bytesOf(t, store, "packs/")
	for i, p := range points {
		forget(t, r, p)
		for range 2 { // the first gives up, the second deletes
			reclaim(t, r, atOnce())
			fresh := must(openSmall(t.Context(), store, ""))(t)
			check(t, fresh, points[i+1:]...)
			closeRepo(t, fresh)
		}
		check(t, r, points[i+1:]...)
		after := bytesOf(t, store, "packs/")
		t.Logf("%d points left: %d bytes of %d", len(points)-i-1, after, before)
	}
	if left := store.Names("packs/"); len(left) > 0 {
		t.Errorf("packs are left: %v", left)
	}
	for _, folder := range []string{"points/", "partials/"} {
		if left := store.Names(folder); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
	}
	if state := r.State(); len(state.Condemned)+len(state.CondemnedFiles) > 0 {
		t.Errorf("still condemned: %v %v", state.Condemned, state.CondemnedFiles)
	}
	mustCopyAll(t, r, points...)
	check(t, r, points...)
}

// Dropping points and marking read no data pack.
func TestMarkingReadsNodesOnly(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := threeMachines()
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	mustCopyAll(t, r, points...)
	closeRepo(t, r)
	r = must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	if _, err := r.PlacesOf(t.Context(), repo.ID{}); err != nil { // the index is made of pack tables, which is not marking
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for id, p := range r.State().Packs.All() {
		kinds["packs/"+id.String()[:2]+"/"+id.String()] = p.Kind
	}
	var mu sync.Mutex
	reads := map[string]int{}
	store.SetFault(func(op memory.Op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == memory.OpOpen || op == memory.OpRead {
			reads[kinds[name]]++
		}
		return nil
	})
	forget(t, r, points[0])
	report, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy(), DryRun: true})
	if err != nil || report.Use.Live == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	if reads["data"] != 0 || reads["nodes"] == 0 {
		t.Errorf("reads by kind of pack: %v", reads)
	}
}

// oneForgotten is a repository of two machines with nothing in common: the larger one's point is forgotten, that of ten blocks stays.
func oneForgotten(t *testing.T) (*memory.Store, *repo.Repository) {
	t.Helper()
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	t.Cleanup(func() { closeRepo(t, r) })
	goes := onePoint("a", "a", content(1, 20*smallBlock))
	mustCopyAll(t, r, goes)
	mustCopyAll(t, r, onePoint("b", "b", content(2, 10*smallBlock)))
	forget(t, r, goes)
	return store, r
}

// Packs that the log names and the storage lacks are damage: nothing is given up.
func TestReclaimRefusesMissingPacks(t *testing.T) {
	store, r := oneForgotten(t)
	if err := store.Delete(t.Context(), store.Names("packs/")[0]); err != nil {
		t.Fatal(err)
	}
	entries := r.Usage().Entries
	_, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce()})
	if err == nil || !strings.Contains(err.Error(), "missing") || r.Usage().Entries != entries {
		t.Errorf("%v, %d entries more", err, r.Usage().Entries-entries)
	}
}

// beforeNext calls meanwhile once, before the next entry of the log is written.
func beforeNext(store *memory.Store, r *repo.Repository, meanwhile func()) {
	next := commitlog.EntryName(r.Usage().Entries + 1)
	var done atomic.Bool
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpPut && name == next && done.CompareAndSwap(false, true) {
			meanwhile()
		}
		return nil
	})
}

// A point that comes between the mark and the commit, and re-uses blocks of packs that are about to be condemned, keeps them.
func TestReclaimSparesWhatCameSince(t *testing.T) {
	for _, partly := range []bool{false, true} { // dead packs, and packs that are moved
		store := initialized(t, repo.Options{})
		shared := content(1, 40*smallBlock)
		gone, stays := onePoint("a", "a", shared), onePoint("b", "b", changed(shared[:8*smallBlock], 3, 8*smallBlock))
		again := onePoint("c", "c", shared)
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, gone)
		if partly {
			mustCopyAll(t, r, stays)
		}
		forget(t, r, gone)
		beforeNext(store, r, func() {
			other := must(openSmall(context.Background(), store, ""))(t)
			if report := mustCopyAll(t, other, again); report.Stored > 20*smallBlock {
				t.Errorf("%d bytes were stored again", report.Stored)
			}
			closeRepo(t, other)
		})
		for range 4 {
			reclaim(t, r, atOnce())
		}
		store.SetFault(nil)
		fresh := must(openSmall(t.Context(), store, ""))(t)
		check(t, fresh, again, stays)
		if !fresh.Has(again.ID()) || len(fresh.State().Condemned) > 0 {
			t.Errorf("the point is there: %v; condemned and not deleted: %v", fresh.Has(again.ID()), fresh.State().Condemned)
		}
		closeRepo(t, fresh)
		closeRepo(t, r)
	}
}

// Of a block that two packs have, the place that is kept turns out damaged between the mark and the commit: then the other
// must not go.
func TestReclaimDoesNotRelyOnWhatIsFoundDamaged(t *testing.T) {
	store := initialized(t, repo.Options{})
	point := onePoint("a", "a", content(1, 4*smallBlock))
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	// Two writers that know nothing of each other store the same.
	one := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, one)
	two := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, two)
	twin := onePoint("b", "b", point.Objects[0].Data)
	beforeNext(store, r, func() { mustCopyAll(t, two, twin) })
	mustCopyAll(t, one, point)
	var newest, data []commitlog.Pack
	for _, p := range one.State().Packs.All() {
		if p.Kind == "data" {
			data = append(data, p)
			if p.Entry == one.State().Head.N {
				newest = append(newest, p)
			}
		}
	}
	if len(data) != 2 || len(newest) != 1 {
		t.Fatalf("packs %+v", data)
	}
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	beforeNext(store, r, func() {
		condemn(t, store, commitlog.Payload{Bad: []commitlog.Bad{{Pack: newest[0].ID, Length: newest[0].Size}}})
	})
	if report := reclaim(t, r, atOnce()); report.Stopped == "" || report.GivenUp.Packs > 0 {
		t.Errorf("%+v", report)
	}
	store.SetFault(nil)
	for range 3 {
		reclaim(t, r, atOnce())
	}
	check(t, r, point, twin)
	if there := r.State().Packs.Has(newest[0].ID); there {
		t.Error("the damaged pack is still there though nothing needs it")
	}
}

// Frames that rotted are not moved; what is good stays readable, and the log learns of the damage.
func TestRepackLeavesDamage(t *testing.T) {
	store := initialized(t, repo.Options{})
	data := content(1, 6*smallBlock)
	gone, stays := onePoint("a", "a", data), onePoint("b", "b", data[:2*smallBlock])
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, gone)
	mustCopyAll(t, r, stays)
	forget(t, r, gone)
	for id, p := range r.State().Packs.All() {
		if p.Kind == "data" {
			name := "packs/" + id.String()[:2] + "/" + id.String()
			if err := store.Tamper(name, func(raw []byte) []byte { // in every frame
				for at := 64 + 200; at < len(raw)-1000; at += smallBlock {
					raw[at] ^= 1
				}
				return raw
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	report := reclaim(t, r, atOnce())
	if len(r.State().Bad) == 0 || report.Moved.Packs > 0 && report.Written.Packs == 0 {
		t.Errorf("%+v, bad %v", report, r.State().Bad)
	}
	again := onePoint("c", "c", data[:2*smallBlock]) // stored again: what is damaged is not relied on
	mustCopyAll(t, r, again)
	for range 4 {
		reclaim(t, r, atOnce())
	}
	check(t, r, stays, again)
}

// Blocks of an interrupted copy are kept as long as it can go on, and given up later.
func TestUnfinishedCopiesAreRoots(t *testing.T) {
	point := onePoint("a", "a", content(1, 60*smallBlock))
	base := initialized(t, repo.Options{})
	calls := callsOf(t, base, []*sourcetest.Point{point})
	store := base.Clone()
	store.CrashAfter(calls / 2)
	_ = attempt(store, "", []*sourcetest.Point{point}, t)
	store = store.Clone()
	now := clocked(store)
	now.now = time.Now()
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: now.time, Keys: identities{testIdentity()}}))(t)
	defer closeRepo(t, r)
	if r.Usage().Unfinished != 1 {
		t.Fatal("no copy was interrupted")
	}
	now.now = now.now.Add(13 * 24 * time.Hour)
	stored := bytesOf(t, store, "packs/")
	for range 3 {
		reclaim(t, r, atOnce())
	}
	if r.Usage().Unfinished != 1 {
		t.Fatal("the copy cannot go on any more")
	}
	resumed := store.Clone()
	fresh := must(openSmall(t.Context(), resumed, ""))(t)
	if report := mustCopyAll(t, fresh, point); report.Stored > 40*smallBlock {
		t.Errorf("%d bytes were stored again; %d were there", report.Stored, stored)
	}
	check(t, fresh, point)
	closeRepo(t, fresh)
	now.now = now.now.Add(2 * 24 * time.Hour)
	for range 3 {
		reclaim(t, r, atOnce())
	}
	if left := append(store.Names("packs/"), store.Names("partials/")...); len(left) > 0 || r.Usage().Unfinished > 0 {
		t.Errorf("left: %v", left)
	}
}

// Parity goes with its pack, and comes with a pack that reclaim or compact writes.
func TestReclaimAndCompactKeepParity(t *testing.T) {
	store := initialized(t, repo.Options{Parity: &repo.Parity{Data: 20, Parity: 2}})
	points := manyStates(4, 40)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	forget(t, r, points[:3]...)
	compact(t, r, repo.CompactOptions{})
	moved := 0
	for range 6 {
		moved += reclaim(t, r, atOnce()).Written.Packs
	}
	if packs, parity := len(store.Names("packs/")), len(store.Names("parity/")); packs != parity || packs == 0 {
		t.Errorf("%d packs, %d parity files", packs, parity)
	}
	check(t, r, points[3])
}

// A process that read the log long ago finds blocks that were moved since, whose packs are deleted.
func TestReadersFindWhatWasMoved(t *testing.T) {
	store, points, r := fourStates(t)
	reader := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, reader)
	before := must(reader.PlacesOf(t.Context(), reachable(t, r, points[3].ID())[5]))(t)
	forget(t, r, points[:3]...)
	compact(t, r, repo.CompactOptions{})
	for range 6 {
		reclaim(t, r, atOnce())
	}
	if there := r.State().Packs.Has(before[0]); there {
		t.Fatal("nothing was moved")
	}
	if err := compare(t.Context(), reader, points[3]); err != nil {
		t.Errorf("a reader: %v", err)
	}
}

// lockedStore keeps all packs until a time, as an object store with object lock does.
type lockedStore struct {
	*memory.Store
	until time.Time
}

func (s lockedStore) CheckLock(context.Context, storage.Immutability) error               { return nil }
func (s lockedStore) LockNew(storage.Immutability, func(name string) time.Time) error     { return nil }
func (s lockedStore) Lock(context.Context, string, storage.Immutability, time.Time) error { return nil }
func (s lockedStore) LockedUntil(context.Context, string) (time.Time, error)              { return s.until, nil }

func (s lockedStore) Delete(ctx context.Context, name string) error {
	if strings.HasPrefix(name, "packs/") {
		return &storage.LockedError{Name: name, Until: s.until}
	}
	return s.Store.Delete(ctx, name)
}

// What the storage has locked is not moved, and waits to be deleted; the report says until when.
func TestReclaimWaitsForLocks(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := manyStates(4, 40)
	r := must(openSmall(t.Context(), lockedStore{store, time.Now().Add(time.Hour)}, ""))(t)
	defer closeRepo(t, r)
	for _, p := range points {
		mustCopyAll(t, r, p)
	}
	forget(t, r, points[:3]...)
	packs := len(store.Names("packs/"))
	reclaim(t, r, atOnce())
	report := reclaim(t, r, atOnce())
	if report.Moved.Packs > 0 || report.Deleted.Packs > 0 || report.Locked.Packs == 0 || report.LockedUntil.IsZero() || len(store.Names("packs/")) != packs {
		t.Errorf("%+v", report)
	}
	if condemned := len(r.State().Condemned); report.Locked.Packs > condemned {
		t.Errorf("%d locked packs of %d that are given up", report.Locked.Packs, condemned)
	}
	check(t, r, points[3])
}

// What a reclaim leaves for others to read: what it has given up is not called dead any more, and ratios are of the points that were there.
func TestLastUseIsAsReclaimHasLeftIt(t *testing.T) {
	_, r := oneForgotten(t)
	found := reclaim(t, r, atOnce())
	last, condemned := r.LastUse(t.Context()), r.CondemnedBytes()
	if found.Use.Dead == 0 || last.Dead != 0 || condemned < found.Use.Dead || last.Logical != 10*smallBlock || last.Live != found.Use.Live {
		t.Errorf("found %+v; then %+v and %d bytes given up", found.Use, last, condemned)
	}
	if found := reclaim(t, r, atOnce()); found.Deleted.Packs == 0 || r.CondemnedBytes() != 0 {
		t.Errorf("%+v is deleted, and %d bytes are given up", found.Deleted, r.CondemnedBytes())
	}
	mustCopyAll(t, r, onePoint("c", "c", content(3, 10*smallBlock)))
	if last := r.LastUse(t.Context()); last.Logical != 10*smallBlock || last.Content != found.Use.Content {
		t.Errorf("%+v", last)
	}
}
