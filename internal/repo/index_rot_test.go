package repo_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/index"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// rotCached flips bits in the segments that a machine has in its cache, as a disk does: size, time and inode stay.
func rotCached(t *testing.T, cache string, rot func(raw []byte) bool) {
	t.Helper()
	rotted := 0
	for _, file := range must(filepath.Glob(filepath.Join(cache, "*", "index", "*")))(t) {
		if strings.HasSuffix(file, ".checked") {
			continue
		}
		info, raw := must(os.Stat(file))(t), must(os.ReadFile(file))(t)
		if !rot(raw) {
			continue
		}
		rotted++
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	if rotted == 0 {
		t.Fatal("nothing was rotted: the test shows nothing")
	}
}

// flipID flips the last bit of an id: the order of the entries stays.
func flipID(id repo.ID) func([]byte) bool {
	return func(raw []byte) bool {
		at := bytes.Index(raw, id[:])
		if at >= 0 {
			raw[at+len(id)-1] ^= 1
		}
		return at >= 0
	}
}

// movePack flips the last bit of the number of the pack that an id is in.
func movePack(id repo.ID) func([]byte) bool {
	return func(raw []byte) bool {
		at := bytes.Index(raw, id[:])
		if at >= 0 {
			raw[at+len(id)] ^= 1
		}
		return at >= 0
	}
}

// changeLength flips the last bit of the plain length that an id has.
func changeLength(id repo.ID) func([]byte) bool {
	return func(raw []byte) bool {
		at := bytes.Index(raw, id[:])
		if at >= 0 {
			raw[at+len(id)+12] ^= 1
		}
		return at >= 0
	}
}

// aloneInAPack is a repository of a point with one block, which has a data pack of its own that a segment covers.
func aloneInAPack(t *testing.T, cache string) (open func() *repo.Repository, point *sourcetest.Point) {
	t.Helper()
	store := initialized(t, repo.Options{})
	open = func() *repo.Repository { return must(openSmall(t.Context(), store, cache))(t) }
	point = onePoint("a", "a", content(1, smallBlock))
	r := open()
	mustCopyAll(t, r, point)
	closeRepo(t, r)
	r = open()
	must(r.Reindex(t.Context(), true, nil))(t)
	closeRepo(t, r)
	return open, point
}

// Reclaim deletes what the index does not find. So it believes no page of a cached segment that it has not proven.
func TestReclaimWithARottedCache(t *testing.T) {
	for what, rot := range map[string]func(repo.ID) func([]byte) bool{"an id": flipID, "a pack's number": movePack} {
		cache := newCache(t)
		open, point := aloneInAPack(t, cache)
		r := open()
		id := r.BlockID(point.Objects[0].Data)
		rotCached(t, cache, rot(id))
		for range 3 {
			if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 || report.GivenUp.Packs > 0 {
				t.Errorf("%s: incomplete %v, given up %+v", what, report.Incomplete, report.GivenUp)
			}
		}
		check(t, r, point)
		// It rots again in a process that has proven it once.
		rotCached(t, cache, rot(id))
		for range 2 {
			reclaim(t, r, atOnce())
		}
		check(t, r, point)
		closeRepo(t, r)
	}
}

// A segment that is merged is proven before: else its rot has a good checksum from then on, on every machine.
func TestMergeWithARottedCache(t *testing.T) {
	store := initialized(t, repo.Options{})
	cache := newCache(t)
	open := func(cache string) *repo.Repository { return must(openSmall(t.Context(), store, cache))(t) }
	first := onePoint("a", "a", content(1, smallBlock))
	r := open(cache)
	mustCopyAll(t, r, first)
	must(r.Reindex(t.Context(), false, nil))(t)
	closeRepo(t, r)
	r = open(cache)
	rotten := r.State().Index
	if len(rotten) == 0 {
		t.Fatal("no segment was written")
	}
	before := map[string]bool{}
	for id := range rotten {
		before[id.String()] = true
	}
	must(r.PlacesOf(t.Context(), repo.ID{}))(t) // it has the segments open
	rotCached(t, cache, flipID(r.BlockID(first.Objects[0].Data)))
	points := []*sourcetest.Point{first}
	for i := range 4 {
		p := onePoint("b"+string(rune('0'+i)), "b", content(uint64(10+i), 3*smallBlock))
		mustCopyAll(t, r, p)
		must(r.Reindex(t.Context(), false, nil))(t)
		points = append(points, p)
	}
	for id := range r.State().Index {
		if before[id.String()] {
			t.Fatal("the segment was not merged: the test shows nothing")
		}
	}
	closeRepo(t, r)
	other := open(newCache(t))
	defer closeRepo(t, other)
	if packs := must(other.PlacesOf(t.Context(), other.BlockID(first.Objects[0].Data)))(t); len(packs) != 1 {
		t.Error("the merged segment does not have the block")
	}
	check(t, other, points...)
}

// The repository's own segment lies and has a good checksum, as one merged of rotted ones has. Packs know better.
func TestASegmentThatLiesWithAGoodChecksum(t *testing.T) {
	for what, lie := range map[string]func(e *index.Entry){
		"another id":    func(e *index.Entry) { e.ID[31] ^= 1 },
		"another place": func(e *index.Entry) { e.Offset += 8 },
	} {
		open, point := aloneInAPack(t, "")
		r := open()
		id := r.BlockID(point.Objects[0].Data)
		if err := r.ReplaceIndex(t.Context(), func(e *index.Entry) {
			if e.ID == id {
				lie(e)
			}
		}); err != nil {
			t.Fatal(err)
		}
		closeRepo(t, r)
		r = open()
		if got, err := r.ReadFrame(t.Context(), id); err != nil || !bytes.Equal(got, point.Objects[0].Data) {
			t.Errorf("%s: %v", what, err)
		}
		closeRepo(t, r)
		for range 3 {
			r = open()
			if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 || report.GivenUp.Packs > 0 {
				t.Errorf("%s: incomplete %v, given up %+v", what, report.Incomplete, report.GivenUp)
			}
			closeRepo(t, r)
		}
		r = open()
		if err := compare(t.Context(), r, point); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		closeRepo(t, r)
	}
}

// Verification does not call a point damaged because a page of the index is wrong: neither one of the cache, nor one of the
// repository that has a good checksum.
func TestVerifyWithARottedIndex(t *testing.T) {
	sound := func(what string, r *repo.Repository) {
		t.Helper()
		found := must(r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelPoints}))(t)
		for _, d := range found.Damage {
			if d.Point != "" {
				t.Errorf("%s: %+v", what, d)
			}
		}
		if state := r.State(); found.DamagedPoints > 0 || len(state.Damaged) > 0 {
			t.Errorf("%s: %d points are called damaged, %v", what, found.DamagedPoints, state.Damaged)
		}
		closeRepo(t, r)
	}
	for what, rot := range map[string]func(repo.ID) func([]byte) bool{"an id": flipID, "a pack's number": movePack, "a length": changeLength} {
		cache := newCache(t)
		open, point := aloneInAPack(t, cache)
		r := open()
		rotCached(t, cache, rot(r.BlockID(point.Objects[0].Data)))
		sound(what, r)
	}
	for what, lie := range map[string]func(e *index.Entry){
		"another id":     func(e *index.Entry) { e.ID[31] ^= 1 },
		"another place":  func(e *index.Entry) { e.Offset += 8 },
		"another length": func(e *index.Entry) { e.Plain++ },
	} {
		open, point := aloneInAPack(t, "")
		r := open()
		id := r.BlockID(point.Objects[0].Data)
		if err := r.ReplaceIndex(t.Context(), func(e *index.Entry) {
			if e.ID == id {
				lie(e)
			}
		}); err != nil {
			t.Fatal(err)
		}
		closeRepo(t, r)
		sound(what, open())
	}
}

// A block that points need is in no pack: perhaps something is wrong that nobody thought of, and no time to give up any.
func TestNothingIsGivenUpWhileABlockIsMissing(t *testing.T) {
	cache := newCache(t)
	open, point := aloneInAPack(t, cache)
	r := open()
	other := onePoint("b", "b", content(2, 3*smallBlock))
	mustCopyAll(t, r, other)
	forget(t, r, other)
	packs := must(r.PlacesOf(t.Context(), r.BlockID(point.Objects[0].Data)))(t)
	if err := r.LosePack(t.Context(), packs[0]); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		report := reclaim(t, r, atOnce())
		if len(report.Incomplete) != 1 || !strings.Contains(report.Incomplete[0], "blocks or nodes") || report.GivenUp.Packs+report.Deleted.Packs > 0 {
			t.Errorf("incomplete %v, given up %+v, deleted %+v", report.Incomplete, report.GivenUp, report.Deleted)
		}
	}
	forget(t, r, point) // nothing needs it any more
	if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 || report.GivenUp.Packs == 0 {
		t.Errorf("incomplete %v, given up %+v", report.Incomplete, report.GivenUp)
	}
	closeRepo(t, r)
}

// A segment is damaged in the repository, and good in the caches of machines that have it open. Healing gives it up: what it covered is found all
// the same, by the process that heals and by others.
func TestHealingGivesUpASegmentThatIsOpen(t *testing.T) {
	for what, spoil := range map[string]func(store *memory.Store, name string) error{
		"rotted": func(store *memory.Store, name string) error {
			return store.Tamper(name, func(raw []byte) []byte { raw[len(raw)/2] ^= 4; return raw })
		},
		"lost": func(store *memory.Store, name string) error { return store.Delete(t.Context(), name) },
	} {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		point := onePoint("a", "a", content(1, 40*smallBlock))
		r := must(openSmall(t.Context(), store, cache))(t)
		mustCopyAll(t, r, point)
		must(r.Reindex(t.Context(), false, nil))(t)
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, cache))(t)
		other := must(openSmall(t.Context(), store, newCache(t)))(t)
		check(t, r, point)
		check(t, other, point)
		names := store.Names("index/")
		for _, name := range names {
			if err := spoil(store, name); err != nil {
				t.Fatal(err)
			}
		}
		found := must(r.Verify(t.Context(), nil))(t)
		healed := must(r.Heal(t.Context(), found, nil))(t)
		if len(names) == 0 || len(found.Damage) != len(names) || len(healed.Remade) != len(names) || len(r.State().Index) > 0 {
			t.Errorf("%s: of %q are damaged %+v, and healed %q", what, names, found.Damage, healed.Remade)
		}
		for _, process := range []*repo.Repository{r, other} {
			check(t, process, point)
			if report := must(process.Verify(t.Context(), nil))(t); report.DamagedPoints > 0 {
				t.Errorf("%s: %d points are called damaged", what, report.DamagedPoints)
			}
			closeRepo(t, process)
		}
	}
}

// A segment that a process cannot use is given up by healing. From then on the process follows again what others do with segments: those
// that they replace do not stay open.
func TestSegmentsAreReplacedAfterOneWasGivenUp(t *testing.T) {
	store := initialized(t, repo.Options{})
	points := []*sourcetest.Point{onePoint("a", "a", content(1, 40*smallBlock)), onePoint("b", "b", content(2, 40*smallBlock))}
	other := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, other)
	mustCopyAll(t, other, points[0])
	must(other.Reindex(t.Context(), false, nil))(t)
	rotten := store.Names("index/")
	mustCopyAll(t, other, points[1])
	must(other.Reindex(t.Context(), false, nil))(t)
	for _, name := range rotten {
		if err := store.Tamper(name, func(raw []byte) []byte { raw[len(raw)/2] ^= 4; return raw }); err != nil {
			t.Fatal(err)
		}
	}
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	healed := must(r.Heal(t.Context(), must(r.Verify(t.Context(), nil))(t), nil))(t)
	if len(rotten) != 1 || len(healed.Remade) != 1 || len(r.State().Index) != 1 {
		t.Fatalf("of %q are healed %q, the log names %d segments", rotten, healed.Remade, len(r.State().Index))
	}
	must(other.Reindex(t.Context(), true, nil))(t)
	check(t, r, points...)
	if open := r.OpenSegments(); len(open) != 1 || len(r.State().Index) != 1 || r.State().Index[open[0]].ID != open[0] {
		t.Errorf("segments %v are open, the log names %v", open, r.State().Index)
	}
}

// A process cannot read the segment that replaces others, once: it goes on with those, and reads the tables of their packs when one of them rots.
// They stay open no longer than until the log names what it can read.
func TestReplacedSegmentsAreKeptForOneThatCannotBeUsed(t *testing.T) {
	for _, rots := range []bool{false, true} {
		store, cache := initialized(t, repo.Options{}), newCache(t)
		points := []*sourcetest.Point{onePoint("a", "a", content(1, 40*smallBlock)), onePoint("b", "b", content(2, 40*smallBlock))}
		other := must(openSmall(t.Context(), store, newCache(t)))(t)
		for _, point := range points {
			mustCopyAll(t, other, point)
			must(other.Reindex(t.Context(), false, nil))(t)
		}
		r := must(openSmall(t.Context(), store, cache))(t)
		check(t, r, points...)
		before := r.OpenSegments()

		must(other.Reindex(t.Context(), true, nil))(t)
		store.SetFault(func(op memory.Op, name string) error {
			if strings.HasPrefix(name, "index/") && op != memory.OpDelete {
				return errors.New("the storage fails")
			}
			return nil
		})
		if err := errors.Join(r.Refresh(t.Context()), compare(t.Context(), r, points[0]), compare(t.Context(), r, points[1])); err != nil {
			t.Fatal(err)
		}
		store.SetFault(nil)
		if open := r.OpenSegments(); len(before) != 2 || len(open) != 2 || !slices.Contains(before, open[0]) || !slices.Contains(before, open[1]) {
			t.Fatalf("segments %v are open, before %v", open, before)
		}
		if rots {
			rotCached(t, cache, func(raw []byte) bool { raw[len(raw)/2] ^= 4; return true })
		}
		if err := r.SettleAnew(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, r, points...)
		for range 2 {
			must(other.Reindex(t.Context(), true, nil))(t)
			check(t, r, points...)
			if open := r.OpenSegments(); len(open) != 1 || r.State().Index[open[0]].ID != open[0] {
				t.Errorf("segments %v are open, the log names %v", open, r.State().Index)
			}
		}
		closeRepo(t, r)
		closeRepo(t, other)
	}
}
