package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// clock is a storage's own, set by the test.
type clock struct{ now time.Time }

func (c *clock) time() time.Time { return c.now }

// clocked makes a store go by a clock of the test's.
func clocked(store *memory.Store) *clock {
	c := &clock{now: at(12)}
	store.SetClock(c.time)
	return c
}

func TestForget(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	points := threeMachines()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, points...)
	claimed, held, gone := points[0].ID(), points[1].ID(), points[2].ID()
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{Claims: []commitlog.Claim{{Point: claimed, Job: "weekly"}}}); err != nil {
		t.Fatal(err)
	}
	hold := must(r.Hold(t.Context(), held, "a test"))(t)
	entries := r.Usage().Entries
	done, err := r.Forget(t.Context(), "manual", []repo.Forgetting{
		{Point: claimed, Tombstone: true}, {Point: held}, {Point: gone, Tombstone: true, Reason: "too old"}, {Point: backup.PointID{1}},
	}, nil)
	if err != nil || len(done) != 4 || r.Usage().Entries != entries+1 {
		t.Fatalf("%+v, %v, %d entries", done, err, r.Usage().Entries-entries)
	}
	if d := done[0]; d.Removed || !slices.Equal(d.ClaimedBy, []string{"weekly"}) || !r.Has(claimed) {
		t.Errorf("a point that another job claims: %+v", d)
	}
	if d := done[1]; d.Removed || len(d.Holds) != 1 || d.Holds[0].Reason != "a test" || !d.Holds[0].Until.After(now.now) || !r.Has(held) {
		t.Errorf("a point that is held: %+v", d)
	}
	if d := done[2]; !d.Removed || r.Has(gone) {
		t.Errorf("a point that nothing keeps: %+v", d)
	}
	if _, err := r.Hold(t.Context(), gone, "a restore"); err == nil || !strings.Contains(backup.Hint(err), "given up") {
		t.Errorf("holding what is gone: %v", err)
	}
	if !done[3].Unknown || len(r.State().Tombstones) != 1 || r.State().Tombstones[gone].Reason != "too old" {
		t.Errorf("a point that is not there: %+v; tombstones %v", done[3], r.State().Tombstones)
	}
	// A hold that nobody renews ends by itself; one that is renewed does not.
	now.now = now.now.Add(40 * time.Minute)
	if err := hold.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	now.now = now.now.Add(40 * time.Minute)
	if done, err = r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: held}}, nil); err != nil || done[0].Removed {
		t.Errorf("a renewed hold: %+v, %v", done, err)
	}
	now.now = now.now.Add(time.Hour)
	if done, err = r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: held}}, nil); err != nil || !done[0].Removed {
		t.Errorf("a hold that has ended: %+v, %v", done, err)
	}
	if err := hold.Renew(t.Context()); err == nil {
		t.Error("a point that is gone can be held")
	}
	check(t, r, points...)
}

// A claim keeps the flags that were decided for it; only the job's own claims get any.
func TestForgetFlagsWhatStays(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{Claims: []commitlog.Claim{{Point: points[0].ID(), Job: "weekly"}}}); err != nil {
		t.Fatal(err)
	}
	flags := map[backup.PointID][]string{points[0].ID(): {"weekly:2026-11-01"}, points[1].ID(): {"none"}, {1}: {"none"}}
	if _, err := r.Forget(t.Context(), "manual", nil, flags); err != nil {
		t.Fatal(err)
	}
	for i, want := range []map[string][]string{{"manual": {"weekly:2026-11-01"}, "weekly": nil}, {"manual": {"none"}}, {"manual": nil}} {
		for _, claim := range r.Claims(points[i].ID()) {
			if !slices.Equal(claim.Flags, want[claim.Job]) {
				t.Errorf("point %d, job %s: %v, want %v", i, claim.Job, claim.Flags, want[claim.Job])
			}
		}
	}
	if len(r.Claims(backup.PointID{1})) != 0 {
		t.Error("a point that is not there is claimed")
	}
	entries := r.Usage().Entries
	if _, err := r.Forget(t.Context(), "manual", nil, nil); err != nil || r.Usage().Entries != entries {
		t.Errorf("nothing to do took %d entries, %v", r.Usage().Entries-entries, err)
	}
}

// A commit that another writer overtakes decides anew: a point that was held meanwhile stays.
func TestForgetSeesAHoldThatComesBetween(t *testing.T) {
	store := initialized(t, repo.Options{})
	point := onePoint("a", "a", content(1, 8*smallBlock))
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, point)
	other := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, other)
	if _, err := other.Hold(t.Context(), point.ID(), "restored"); err != nil {
		t.Fatal(err)
	}
	done, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: point.ID()}}, nil)
	if err != nil || done[0].Removed || !r.Has(point.ID()) {
		t.Fatalf("%+v, %v", done, err)
	}
}

// unnamed are the files of a folder that the log does not name.
func unnamed(t testing.TB, store *memory.Store, folder string) []string {
	r := must(openSmall(context.Background(), store, ""))(t)
	defer closeRepo(t, r)
	state, named := r.State(), map[string]bool{}
	for id := range state.Packs.All() {
		named["packs/"+id.String()[:2]+"/"+id.String()] = true
	}
	for id := range state.Index {
		named["index/"+id.String()] = true
	}
	for p := range state.Points.All() {
		named[p.File()] = true
	}
	for _, partials := range state.Partials {
		for _, p := range partials {
			named[p.File] = true
		}
	}
	return slices.DeleteFunc(store.Names(folder), func(name string) bool { return named[name] })
}

// A writer wakes up to find that its own packs and files, which no entry names yet, were taken for garbage and are gone.
func TestOwnFilesCondemned(t *testing.T) {
	for _, folder := range []string{"packs/", "points/", "partials/", "index/"} {
		for _, deleted := range []bool{false, true} {
			t.Run(fmt.Sprint(folder, deleted), func(t *testing.T) {
				store := initialized(t, repo.Options{})
				points := threeMachines()
				r := must(openSmall(t.Context(), store, newCache(t)))(t)
				defer closeRepo(t, r)
				var condemned atomic.Int32
				store.SetFault(func(op memory.Op, name string) error {
					if op != memory.OpPut || !strings.HasPrefix(name, "log/") || !condemned.CompareAndSwap(0, 1) {
						return nil
					}
					garbage := unnamed(t, store, folder)
					if len(garbage) == 0 {
						condemned.Store(0)
						return nil
					}
					payload := commitlog.Payload{CondemnedFiles: garbage}
					if folder == "packs/" {
						payload.CondemnedFiles = nil
						for _, name := range garbage {
							payload.Condemned = append(payload.Condemned, packNamed(t, name))
						}
					}
					condemn(t, store, payload)
					if deleted { // then the state says nothing of it any more
						for _, name := range garbage {
							_ = store.Delete(context.Background(), name)
						}
						condemn(t, store, commitlog.Payload{Deleted: payload.Condemned, DeletedFiles: payload.CondemnedFiles})
					}
					return nil
				})
				mustCopyAll(t, r, points...) // copies again what was lost
				store.SetFault(nil)
				if condemned.Load() == 0 {
					t.Fatal("nothing was condemned")
				}
				check(t, r, points...)
				fresh := must(openSmall(t.Context(), store, ""))(t)
				defer closeRepo(t, fresh)
				check(t, fresh, points...)
				if len(fresh.Entries()) != len(points) {
					t.Errorf("%d points", len(fresh.Entries()))
				}
			})
		}
	}
}

// What was given up is never named again.
func TestCommitRefusesWhatIsGivenUp(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	condemn(t, store, commitlog.Payload{CondemnedFiles: []string{"points/x"}})
	condemn(t, store, commitlog.Payload{DeletedFiles: []string{"points/x"}})
	entries := r.Usage().Entries
	err := r.AppendEntry(t.Context(), &commitlog.Payload{Points: []commitlog.Point{commitlog.Point{ID: backup.PointID{1}}.WithFile("points/x")}})
	if !errors.Is(err, repo.ErrCondemned) || len(r.Entries()) != 0 || r.Usage().Entries != entries+2 {
		t.Fatalf("%v, %d entries more", err, r.Usage().Entries-entries)
	}
}

// packNamed is the id of the pack with that file.
func packNamed(t testing.TB, name string) format.Name {
	t.Helper()
	var id format.Name
	if err := id.UnmarshalText([]byte(name[strings.LastIndex(name, "/")+1:])); err != nil {
		t.Fatal(err)
	}
	return id
}

// A process that has the repository open knows of points that another has added since.
func TestForgetAndHoldKnowWhatOthersAdded(t *testing.T) {
	store := initialized(t, repo.Options{})
	behind := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, behind)
	p, q := onePoint("a", "a", content(1, 9*smallBlock)), onePoint("b", "b", content(2, 9*smallBlock))
	for _, added := range []*sourcetest.Point{p, q} {
		other := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, other, added)
		closeRepo(t, other)
		if added == p {
			if _, err := behind.Hold(t.Context(), p.ID(), "a test"); err != nil {
				t.Errorf("hold of a point that another process has added: %v", err)
			}
		}
	}
	done, err := behind.Forget(t.Context(), "manual", []repo.Forgetting{{Point: q.ID()}}, nil)
	if err != nil || done[0].Unknown || !done[0].Removed {
		t.Errorf("forget of a point that another process has added: %+v, %v", done, err)
	}
}

// A person's hold: all points or none, one for each point, and a reader's does not end with it. It ends by itself at its time.
func TestHoldForPerson(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	points := threeMachines()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, points...)
	a, b := points[0].ID(), points[1].ID()
	on := func(id backup.PointID) []commitlog.Hold { return r.State().Holds[id] }
	if err := r.HoldForPerson(t.Context(), []backup.PointID{a, {1}}, "audit", time.Time{}); !errors.Is(err, repo.ErrNoPoint) || len(on(a)) != 0 {
		t.Errorf("one that is not there: %v, %v", err, on(a))
	}
	for _, reason := range []string{"", "\xff", strings.Repeat("x", repo.MaxHoldReason+1)} {
		if err := r.HoldForPerson(t.Context(), []backup.PointID{a}, reason, time.Time{}); err == nil {
			t.Errorf("%.10q is a reason", reason)
		}
	}
	must(r.Hold(t.Context(), a, "restore"))(t)
	end := now.now.Add(24 * time.Hour)
	for _, reason := range []string{"a mistake", "audit"} {
		if err := r.HoldForPerson(t.Context(), []backup.PointID{a, b}, reason, end); err != nil {
			t.Fatal(err)
		}
	}
	if holds := on(a); len(holds) != 2 || holds[0].Reason != "restore" || holds[1].Reason != "audit" || !holds[1].Until.Equal(end) {
		t.Errorf("held: %+v", holds)
	}
	released, err := r.ReleaseForPerson(t.Context(), []backup.PointID{a, points[2].ID()})
	if err != nil || !slices.Equal(released, []backup.PointID{a}) || len(on(a)) != 1 || len(on(b)) != 1 {
		t.Errorf("released %v, %v: %+v", released, err, on(a))
	}
	entries := r.Usage().Entries
	if released, err = r.ReleaseForPerson(t.Context(), []backup.PointID{a}); err != nil || len(released) != 0 || r.Usage().Entries != entries {
		t.Errorf("released again: %v, %v", released, err)
	}
	now.now = end
	if done, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: b}}, nil); err != nil || !done[0].Removed {
		t.Errorf("a hold whose time has come: %+v, %v", done, err)
	}
}
