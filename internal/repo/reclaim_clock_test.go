package repo_test

import (
	"testing"
	"time"

	"ferry/internal/repo"
)

// What was given up is deleted by the second run that finds its grace passed, by the storage's clock.
func TestGrace(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	now.now = time.Now()
	point, other := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: now.time, Keys: identities{testIdentity()}}))(t)
	r.SetPackTargets(smallPack, smallPack)
	defer closeRepo(t, r)
	mustCopyAll(t, r, point)
	mustCopyAll(t, r, other)
	forget(t, r, point)
	policy := repo.DefaultReclaimPolicy()
	for _, c := range []struct {
		after            time.Duration
		givenUp, deleted bool
	}{
		{0, false, false},           // too young to be given up
		{policy.Grace, true, false}, // given up
		{policy.Grace - time.Second, false, false},
		{time.Second, false, false}, // the first run that finds it old enough
		{0, false, true},
		{0, false, false},
	} {
		now.now = now.now.Add(c.after)
		report := reclaim(t, r, policy)
		if (report.GivenUp.Packs > 0) != c.givenUp || (report.Deleted.Packs > 0) != c.deleted || report.Frozen != "" {
			t.Errorf("%v later: %+v", c.after, report)
		}
		check(t, r, point, other)
	}
	if names := store.Names("packs/"); len(names) != r.State().Packs.Len() {
		t.Errorf("%d files of %d packs", len(names), r.State().Packs.Len())
	}
}

// A clock that was put back, or that differs from this machine's, freezes deletion.
func TestClockFreezesDeletion(t *testing.T) {
	for what, off := range map[string]time.Duration{"put back": -2 * time.Minute, "ahead": 3 * time.Hour} {
		store := initialized(t, repo.Options{})
		now := clocked(store)
		now.now = time.Now()
		point := onePoint("a", "a", content(1, 20*smallBlock))
		local := now.now
		r := must(repo.Open(t.Context(), store, repo.Environment{Now: func() time.Time { return local }, Keys: identities{testIdentity()}}))(t)
		mustCopyAll(t, r, point)
		forget(t, r, point)
		reclaim(t, r, atOnce())
		now.now = now.now.Add(off)
		report := reclaim(t, r, atOnce())
		if report.Frozen == "" || report.Deleted.Packs > 0 || report.GivenUp.Packs > 0 || len(store.Names("packs/")) == 0 {
			t.Errorf("%s: %+v", what, report)
		}
		now.now = local
		reclaim(t, r, atOnce()) // the first run that believes the clock
		if report := reclaim(t, r, atOnce()); report.Frozen != "" || report.Deleted.Packs == 0 {
			t.Errorf("%s, and right again: %+v", what, report)
		}
		closeRepo(t, r)
	}
}

// A run that does not believe the clock takes it for nothing: holds and unfinished copies end by the clock, too.
func TestAClockThatIsNotBelievedEndsNothing(t *testing.T) {
	store := initialized(t, repo.Options{})
	now := clocked(store)
	now.now = time.Now()
	local := now.now
	r := must(repo.Open(t.Context(), store, repo.Environment{Now: func() time.Time { return local }, Keys: identities{testIdentity()}}))(t)
	defer closeRepo(t, r)
	held, unfinished := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 3*smallBlock))
	mustCopyAll(t, r, held)
	must(r.Hold(t.Context(), held.ID(), "a restore"))(t)
	if _, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: held.ID()}}, nil); err != nil {
		t.Fatal(err)
	}
	unfinished.Revalidated = errInjected
	if err := ingest(r, repo.IngestOptions{}, unfinished); err == nil {
		t.Fatal("the copy did not fail")
	}
	later := 30 * 24 * time.Hour
	for _, c := range []struct {
		what           string
		storage, local time.Duration
		frozen         bool
	}{
		{"the storage's clock is a month ahead", later, 0, true},
		{"this machine's clock is a month ahead", 0, later, true},
		{"a month has passed", later, later, false},
	} {
		start := local
		now.now, local = start.Add(c.storage), start.Add(c.local)
		entries := r.Usage().Entries
		report := reclaim(t, r, repo.DefaultReclaimPolicy())
		if (report.Frozen != "") != c.frozen || report.PointsRemoved+report.UnfinishedEnded > 0 == c.frozen || r.Has(held.ID()) != c.frozen || (len(r.State().Partials) > 0) != c.frozen {
			t.Errorf("%s: %+v, the point is there: %v, unfinished %v", c.what, report, r.Has(held.ID()), r.State().Partials)
		}
		if c.frozen && r.Usage().Entries != entries {
			t.Errorf("%s: %d entries were written", c.what, r.Usage().Entries-entries)
		}
		now.now, local = start, start
	}
}
