package repo_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// running does something with a repository that is open.
type running = func(ctx context.Context, t testing.TB, r *repo.Repository, at place) error

// copying is the task to copy points.
func copying(options job.Options, points ...*sourcetest.Point) running {
	return func(ctx context.Context, t testing.TB, r *repo.Repository, _ place) error {
		return copyFrom(ctx, sourcetest.Open(t, points...), r, options)
	}
}

// copyingFromDonor is the task to copy all that another repository has.
func copyingFromDonor(ctx context.Context, _ testing.TB, r *repo.Repository, at place) error {
	format := ferry.Stored{Store: at.donor, Environment: repo.Environment{Keys: identities{testIdentity()}, Now: at.now}}
	from, err := registry.Open(ctx, "memory", registry.Options{Elsewhere: true, Formats: []source.Format{format}})
	if err != nil {
		return err
	}
	defer from.Close()
	if err := errors.Join(from.Incomplete...); err != nil {
		return err
	}
	return copyFrom(ctx, from, r, job.Options{})
}

func copyFrom(ctx context.Context, from *registry.Source, r *repo.Repository, options job.Options) error {
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	options.Codec = mover.CodecAuto
	report, err := job.Copy(ctx, from, r, plan.Make(points, r.Has, plan.Request{All: true}), options)
	for _, step := range report.Steps {
		if step.Failure { // the point was listed as broken
			err = errors.Join(err, &notOffered{step.Point.Reason})
		}
	}
	return errors.Join(err, stepErrors(report))
}

// notOffered is that a source lists a point as one that cannot be read.
type notOffered struct{ reason string }

func (e *notOffered) Error() string { return "not offered: " + e.reason }

func reclaiming(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
	for range 2 {
		if _, err := r.Reclaim(ctx, repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); err != nil {
			return err
		}
	}
	return nil
}

// basis is what the tasks begin with: three states of a machine, and another one.
type basis struct {
	store  *memory.Store
	states []*sourcetest.Point
	other  *sourcetest.Point
	kept   []*sourcetest.Point
}

func newBasis(t *testing.T) basis {
	b := basis{store: initialized(t, repo.Options{}), states: manyStates(3, 12), other: onePoint("other", "other", content(31, 6*smallBlock))}
	b.kept = append(slices.Clone(b.states), b.other)
	b.fill(t, b.store)
	return b
}

// fill copies the points.
func (b basis) fill(t *testing.T, store *memory.Store) {
	r := must(openSmall(t.Context(), store, ""))(t)
	for _, p := range b.kept {
		mustCopyAll(t, r, p)
	}
	closeRepo(t, r)
}

// after is a store in which something was done more.
func (b basis) after(t *testing.T, do func(r *repo.Repository)) *memory.Store {
	store := b.store.Clone()
	r := must(openSmall(t.Context(), store, ""))(t)
	do(r)
	closeRepo(t, r)
	return store
}

// tasks are all that people do with a repository, on small ones. Those with keys are there for encrypted ones.
func tasks(t *testing.T) map[string]task {
	b := newBasis(t)
	all := b.upkeep(t)
	maps.Copy(all, b.copies(t))
	maps.Copy(all, b.others(t))
	maps.Copy(all, b.repairs(t))
	if encryptAll {
		maps.Copy(all, b.keyTasks(t))
	}
	return all
}

func (b basis) copies(t *testing.T) map[string]task {
	full := onePoint("full", "full", content(32, 10*smallBlock))
	increment := onePoint("a", "increment", changed(b.states[2].Objects[0].Data, 33, 13*smallBlock))
	increment.Base, increment.Created = b.states[2], at(9)
	kin := b.after(t, func(r *repo.Repository) { mustCopyAll(t, r, full, increment) })
	copies := map[string]task{
		"copy full":      {comes: []*sourcetest.Point{full}, run: copying(job.Options{}, full)},
		"copy increment": {comes: []*sourcetest.Point{increment}, run: copying(job.Options{}, increment)},
		"copy sealed":    {comes: []*sourcetest.Point{increment}, run: copying(job.Options{Full: true}, increment), done: sealedIs(increment)},
		"copy from kin":  {comes: []*sourcetest.Point{full, increment}, donor: kin, run: copyingFromDonor},
	}
	if encryptAll { // else all ids are alike
		stranger := basis{store: initialized(t, repo.Options{}), kept: []*sourcetest.Point{full, increment}}
		stranger.fill(t, stranger.store)
		copies["copy from stranger"] = task{comes: stranger.kept, donor: stranger.store, run: copyingFromDonor}
	}
	for what, k := range copies {
		k.store, k.kept = b.store, b.kept
		copies[what] = k
	}
	return copies
}

// sealedIs wants a point to have a domain of its own.
func sealedIs(point *sourcetest.Point) func(*testing.T, *repo.Repository, place) {
	return func(t *testing.T, r *repo.Repository, _ place) {
		if p := must(r.ReadPoint(t.Context(), point.ID()))(t); !p.Sealed {
			t.Errorf("point %s is not sealed", point.Native)
		}
	}
}

func (b basis) upkeep(t *testing.T) map[string]task {
	forgot := b.after(t, func(r *repo.Repository) { forget(t, r, b.states[:2]...) })
	return map[string]task{
		"open": {store: b.store, kept: b.kept, alone: func(ctx context.Context, _ testing.TB, at place) error {
			r, err := at.open(ctx)
			if err != nil {
				return err
			}
			return r.Close()
		}},
		"forget": {store: b.store, kept: []*sourcetest.Point{b.states[2], b.other}, goes: b.states[:2], run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.Forget(ctx, "manual", []repo.Forgetting{{Point: b.states[0].ID()}, {Point: b.states[1].ID()}}, nil)
			return err
		}},
		"reclaim": {store: forgot, kept: []*sourcetest.Point{b.states[2], b.other}, run: reclaiming},
		"compact": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.Compact(ctx, repo.CompactOptions{Codec: repo.CodecZstd})
			return err
		}},
		"verify": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.Verify(ctx, nil)
			return err
		}},
		"restore": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			for _, p := range b.kept {
				if err := compare(ctx, r, p); err != nil {
					return err
				}
			}
			return nil
		}},
		"reindex": {store: b.store, kept: b.kept, exclusive: true, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.Reindex(ctx, true, nil)
			return err
		}},
	}
}

// holdsOn wants a person to hold a point, or nobody to.
func holdsOn(point *sourcetest.Point, want ...string) func(*testing.T, *repo.Repository, place) {
	return func(t *testing.T, r *repo.Repository, _ place) {
		var reasons []string
		for _, hold := range r.HoldsOn(point.ID()) {
			reasons = append(reasons, hold.Reason)
		}
		if !slices.Equal(reasons, want) {
			t.Errorf("point %s is held because of %q, want %q", point.Native, reasons, want)
		}
	}
}

// others are tasks that say something of points, or leave something beside them.
func (b basis) others(t *testing.T) map[string]task {
	point := b.states[0]
	held := b.after(t, func(r *repo.Repository) {
		if err := r.HoldForPerson(t.Context(), []backup.PointID{point.ID()}, "court", time.Time{}); err != nil {
			t.Fatal(err)
		}
	})
	record := func(document string) repo.JobRecord {
		return repo.JobRecord{Job: "nightly", Document: document, Memory: json.RawMessage("{}")}
	}
	written := b.after(t, func(r *repo.Repository) {
		if err := r.WriteJob(t.Context(), record("old")); err != nil {
			t.Fatal(err)
		}
	})
	return map[string]task{
		"claim": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.Claim(ctx, []repo.Claim{{Point: point.ID(), Job: "mapped"}})
			return err
		}, done: func(t *testing.T, r *repo.Repository, _ place) {
			if n := len(r.Claims(point.ID())); n != 2 {
				t.Errorf("%d claims, want 2", n)
			}
		}},
		"hold": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			return r.HoldForPerson(ctx, []backup.PointID{point.ID()}, "court", time.Time{})
		}, done: holdsOn(point, "court")},
		"release": {store: held, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.ReleaseForPerson(ctx, []backup.PointID{point.ID()})
			return err
		}, done: holdsOn(point)},
		"hold while it is read": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			hold, err := r.Hold(ctx, point.ID(), "restore")
			if err == nil {
				err = compare(ctx, r, point)
			}
			if err == nil {
				err = hold.Renew(ctx)
			}
			return errors.Join(err, hold.Release(ctx))
		}},
		"write job": {store: written, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			return r.WriteJob(ctx, record("new"))
		}, always: jobIs("old", "new"), done: jobIs("new")},
		"reserve": {store: b.store, kept: b.kept, run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			r.SetReservePiece(smallPack)
			return r.Reserve(ctx)
		}, done: func(t *testing.T, _ *repo.Repository, at place) {
			if n := len(at.store.Names("marks/reserve-")); n != 16 { // a listing may not show them
				t.Errorf("%d files are in reserve", n)
			}
		}},
		"adopt": {store: b.store, seen: held, kept: b.kept, shut: true, alone: adopting},
	}
}

// adopting is the task to go on with a repository that lacks what this machine has seen of it.
func adopting(ctx context.Context, t testing.TB, at place) error {
	r, err := at.open(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(r.Adopt(), r.Close()); err != nil {
		return err
	}
	r, err = at.copied().open(context.Background())
	if err == nil {
		err = errors.Join(r.Diverged(), r.Close())
	}
	if err != nil {
		t.Errorf("adopted: %v", err)
	}
	return nil
}

// jobIs wants the record of one job, which is one of the documents; where listings do not show it, to be told so.
func jobIs(documents ...string) func(*testing.T, *repo.Repository, place) {
	return func(t *testing.T, r *repo.Repository, at place) {
		records, unreadable, err := r.Jobs(t.Context())
		shown := must(listed(t, at.store, "jobs/"))(t)
		slices.Sort(shown)
		if !slices.Equal(shown, at.store.Names("jobs/")) && err == nil && len(records) == 0 && len(unreadable) == 1 && errors.Is(unreadable[0], storage.ErrNotExist) {
			return
		}
		if err != nil || len(unreadable) > 0 || len(records) != 1 || !slices.Contains(documents, records[0].Document) {
			t.Errorf("records %+v, unreadable %v, %v, want one of %q", records, unreadable, err, documents)
		}
	}
}

// repairs are tasks that make good what somebody else spoilt, and what keeps it from being spoilt.
func (b basis) repairs(t *testing.T) map[string]task {
	rotten := b.store.Clone()
	tamper(t, rotten, rotten.Names("packs/")[0], func(raw []byte) []byte { raw[64+96+7] ^= 1; return raw })
	found := verify(t, rotten)
	beheaded, entries := b.store.Clone(), b.store.Names("log/")
	for _, name := range []string{"repository.json", entries[1], entries[len(entries)-1]} {
		tamper(t, beheaded, name, func(raw []byte) []byte { return raw[:len(raw)/2] })
	}
	return map[string]task{
		"heal": {store: rotten, donor: b.store, kept: b.kept, damaged: true, run: func(ctx context.Context, t testing.TB, r *repo.Repository, at place) error {
			donor, err := openSmall(ctx, at.donor, "")
			if err != nil {
				return err
			}
			defer closeRepo(t, donor)
			_, err = r.Heal(ctx, found, []*repo.Repository{donor})
			return err
		}},
		"mend log": {store: beheaded, donor: b.store, seen: b.store, kept: b.kept, shut: true, alone: func(ctx context.Context, _ testing.TB, at place) error {
			_, err := repo.MendLog(ctx, at.store, repo.Environment{CacheDir: at.cache}, []storage.Store{at.donor})
			return err
		}},
		"extend locks": b.locks(t),
	}
}

// locks is the task to extend locks that were made long ago.
func (b basis) locks(t *testing.T) task {
	lock := repo.Lock{Mode: "compliance", Seconds: 3 * 3600}
	options := repo.Options{BlockSize: smallBlock, Lock: &lock}
	if encryptAll {
		options = encryptedOptions(options)
	}
	old := place{store: memory.New(), locking: true, now: func() time.Time { return at(12) }}
	old.store.SetClock(old.now)
	closeRepo(t, must(repo.Init(t.Context(), old.store.Locking(), repo.Environment{Now: old.now}, options))(t))
	r := must(old.open(t.Context()))(t)
	mustCopyAll(t, r, b.states[0], b.other)
	closeRepo(t, r)
	old.store.SetClock(time.Now)
	k := task{store: old.store, locking: true, kept: []*sourcetest.Point{b.states[0], b.other}}
	k.run = func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
		_, missing, err := r.ExtendLocks(ctx)
		if len(missing) > 0 {
			err = errors.Join(err, fmt.Errorf("%q are missing", missing))
		}
		return err
	}
	k.always = func(t *testing.T, r *repo.Repository, _ place) {
		if _, _, problems, err := r.CheckLocks(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("what the log says of locks is not so: %+v, %v", problems, err)
		}
	}
	k.done = func(t *testing.T, r *repo.Repository, _ place) {
		if until := r.LockInfo().Until; until.Before(time.Now()) {
			t.Errorf("locked until %v", until)
		}
	}
	return k
}
