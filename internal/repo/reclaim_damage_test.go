package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// mustHeal verifies and heals with what donor has, and fails the test unless everything is whole then.
func mustHeal(t *testing.T, r *repo.Repository, donor *memory.Store) {
	t.Helper()
	found := must(r.Verify(t.Context(), nil))(t)
	from := must(openSmall(t.Context(), donor, ""))(t)
	defer closeRepo(t, from)
	must(r.Heal(t.Context(), found, []*repo.Repository{from}))(t)
	if after := must(r.Verify(t.Context(), nil))(t); len(after.Damage) > 0 {
		t.Fatalf("still damaged after healing: %+v", after.Damage)
	}
}

// filesOf are the names of the packs of a kind that the log names and does not give up.
func filesOf(r *repo.Repository, kind string) map[string]bool {
	names := map[string]bool{}
	for id, p := range r.State().Packs.All() {
		if p.Kind == kind && !r.State().Condemned[id] {
			names["packs/"+id.String()[:2]+"/"+id.String()] = true
		}
	}
	return names
}

// What only an unfinished copy needs is healed by nobody: its loss keeps nothing from being given up, and the copy goes on.
// It makes no difference whether the index still has what is lost.
func TestReclaimWhenAnUnfinishedCopyLostBlocks(t *testing.T) {
	for _, indexed := range []bool{true, false} {
		store := initialized(t, repo.Options{})
		stays, goes := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
		unfinished := onePoint("c", "c", content(3, 3*smallBlock))
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, stays)
		mustCopyAll(t, r, goes)
		before := filesOf(r, "data")
		unfinished.Revalidated = errInjected
		if err := ingest(r, repo.IngestOptions{}, unfinished); err == nil || len(r.State().Partials) != 1 {
			t.Fatalf("a copy that fails at its end: %v, %d unfinished", err, len(r.State().Partials))
		}
		donor, lost := store.Clone(), map[string]bool{}
		for name := range filesOf(r, "data") {
			if !before[name] {
				lost[name] = true
				tamper(t, store, name, func([]byte) []byte { return nil })
			}
		}
		if len(lost) == 0 {
			t.Fatal("the unfinished copy stored nothing")
		}
		if !indexed {
			for _, name := range store.Names("index/") {
				if err := store.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, ""))(t)
		}
		mustHeal(t, r, donor)
		forget(t, r, goes)
		if report := reclaim(t, r, atOnce()); len(report.Incomplete) > 0 || report.GivenUp.Packs == 0 {
			t.Errorf("%+v", report)
		}
		for range 2 {
			reclaim(t, r, atOnce())
		}
		for _, name := range store.Names("packs/") {
			if lost[name] {
				t.Errorf("%s, which nothing can be read from, is still there", name)
			}
		}
		unfinished.Revalidated = nil
		mustCopyAll(t, r, unfinished)
		check(t, r, stays, goes, unfinished)
		closeRepo(t, r)
	}
}

// A pack whose file is lost for good goes like any other, once a verification has noted it and what it held is healed.
func TestReclaimGivesUpALostPackThatWasHealed(t *testing.T) {
	for _, kind := range []string{"data", "nodes"} {
		store := initialized(t, repo.Options{})
		stays, goes := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, stays)
		lost := filesOf(r, kind)
		mustCopyAll(t, r, goes)
		donor := store.Clone()
		for name := range lost {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, ""))(t)
		if _, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}); !errors.Is(err, backup.ErrDamaged) {
			t.Fatalf("packs are missing, and nobody noted that: %v", err)
		}
		mustHeal(t, r, donor)
		forget(t, r, goes)
		for range 3 {
			reclaim(t, r, atOnce())
			check(t, r, stays)
		}
		for name := range filesOf(r, kind) {
			if lost[name] {
				t.Errorf("%s: the log still names %s", kind, name)
			}
		}
		if state := r.State(); len(state.Bad)+len(state.Condemned) > 0 || state.Packs.Len() != len(store.Names("packs/")) {
			t.Errorf("%s: %d packs, %d files, bad %v, condemned %v", kind, state.Packs.Len(), len(store.Names("packs/")), state.Bad, state.Condemned)
		}
		closeRepo(t, r)
	}
}

// A pack that was noted as missing and whose content is nowhere else stays in the log: its file may come back.
func TestReclaimKeepsALostPackThatWasNotHealed(t *testing.T) {
	for _, kind := range []string{"data", "nodes"} {
		store := initialized(t, repo.Options{})
		stays, goes := onePoint("a", "a", content(1, 20*smallBlock)), onePoint("b", "b", content(2, 20*smallBlock))
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, stays)
		lost := filesOf(r, kind)
		mustCopyAll(t, r, goes)
		whole := store.Clone()
		for name := range lost {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		must(r.Verify(t.Context(), nil))(t)
		forget(t, r, goes)
		for range 3 {
			reclaim(t, r, atOnce())
		}
		for name := range lost {
			content := must(storage.ReadAll(t.Context(), whole, name, 1<<30))(t)
			if err := store.Put(t.Context(), name, content); err != nil {
				t.Fatal(err)
			}
		}
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, ""))(t)
		check(t, r, stays)
		closeRepo(t, r)
	}
}

// twins copies two points of equal content by two writers that know nothing of each other. It returns the names of the two data
// packs that have it, that first which was named first.
func twins(t *testing.T, store *memory.Store, a, b *sourcetest.Point) (first, second string) {
	t.Helper()
	one, two := must(openSmall(t.Context(), store, ""))(t), must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, one)
	defer closeRepo(t, two)
	before := filesOf(one, "data")
	beforeNext(store, one, func() { mustCopyAll(t, two, a) })
	mustCopyAll(t, one, b)
	store.SetFault(nil)
	for id, p := range one.State().Packs.All() {
		switch name := "packs/" + id.String()[:2] + "/" + id.String(); {
		case p.Kind != "data" || before[name]:
		case p.Entry == one.State().Head.N:
			second = name
		default:
			first = name
		}
	}
	if first == "" || second == "" {
		t.Fatalf("packs %+v", one.State().Packs)
	}
	return first, second
}

// Damage that shows only while packs are moved is found before the other copies of what is damaged are given up.
func TestDamageFoundWhileMovingKeepsTheOtherCopies(t *testing.T) {
	for what, change := range map[string]func([]byte) []byte{
		"a frame":   func(b []byte) []byte { b[64+200] ^= 1; return b },
		"the table": func(b []byte) []byte { b[len(b)-80] ^= 1; return b },
	} {
		store := initialized(t, repo.Options{})
		small := onePoint("c", "c", content(3, 2*smallBlock))
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, small)
		a, b := onePoint("a", "a", content(1, 3*smallBlock)), onePoint("b", "b", content(1, 3*smallBlock))
		good, rotten := twins(t, store, a, b)
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(r.PlacesOf(t.Context(), repo.ID{}))(t) // the index has the table before it rots
		tamper(t, store, rotten, change)
		policy := atOnce()
		policy.MergeAtLeast, policy.SmallShare = 2, 1
		report := reclaim(t, r, policy)
		if report.Stopped == "" || report.GivenUp.Packs > 0 || !filesOf(r, "data")[good] || len(r.State().Bad) == 0 {
			t.Errorf("%s: %+v, bad %v", what, report, r.State().Bad)
		}
		for range 4 {
			if report := reclaim(t, r, policy); report.Stopped != "" || len(report.Incomplete) > 0 {
				t.Errorf("%s: %+v", what, report)
			}
			check(t, r, small, a, b)
		}
		if state := r.State(); len(state.Bad)+len(state.Condemned) > 0 || filesOf(r, "data")[rotten] {
			t.Errorf("%s: bad %v, condemned %v", what, state.Bad, state.Condemned)
		}
		closeRepo(t, r)
	}
}

// Damage found while moving also keeps what earlier runs condemned, and is what the report says.
func TestDamageFoundWhileMovingKeepsWhatWasCondemned(t *testing.T) {
	store := initialized(t, repo.Options{})
	small := onePoint("c", "c", content(3, 2*smallBlock))
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, small)
	a, b := onePoint("a", "a", content(1, 3*smallBlock)), onePoint("b", "b", content(1, 3*smallBlock))
	condemned, rotten := twins(t, store, a, b)
	reclaim(t, r, atOnce())
	if filesOf(r, "data")[condemned] || !filesOf(r, "data")[rotten] {
		t.Fatalf("condemned %v", r.State().Condemned)
	}
	tamper(t, store, rotten, func(b []byte) []byte { b[64+200] ^= 1; return b })
	moving := false
	store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
		moving = moving || op == memory.OpCreate && strings.HasPrefix(name, "packs/")
		if op == memory.OpDelete && !moving { // locked until then
			return &storage.LockedError{Name: name}
		}
		return nil
	}))
	policy := atOnce()
	policy.MergeAtLeast, policy.SmallShare = 2, 1
	report := reclaim(t, r, policy)
	if !moving || report.Deleted.Packs > 0 || !strings.Contains(report.Stopped, "damage was found in what was to be moved") {
		t.Errorf("%+v", report)
	}
	store.SetFault(nil)
	for range 4 {
		reclaim(t, r, policy)
		check(t, r, small, a, b)
	}
	if state := r.State(); len(state.Bad)+len(state.Condemned) > 0 {
		t.Errorf("bad %v, condemned %v", state.Bad, state.Condemned)
	}
}

// What only a pack still has that was given up is stored again, and then the pack goes.
func TestWhatOnlyACondemnedPackHasIsStoredAgain(t *testing.T) {
	store := initialized(t, repo.Options{})
	a, b := onePoint("a", "a", content(1, 3*smallBlock)), onePoint("b", "b", content(1, 3*smallBlock))
	condemned, rotten := twins(t, store, a, b)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for id := range r.State().Packs.All() {
		if strings.HasSuffix(condemned, id.String()) {
			condemn(t, store, commitlog.Payload{Condemned: []format.Name{id}})
		}
	}
	tamper(t, store, rotten, func(b []byte) []byte { b[64+200] ^= 1; return b })
	if found := must(r.Verify(t.Context(), nil))(t); len(found.Damage) == 0 {
		t.Fatal("what is only in a pack that is given up is not called damaged")
	}
	for _, options := range []repo.ReclaimOptions{{MaxBytes: 1}, {MaxTime: 1}} {
		bounded := must(openSmall(t.Context(), store.Clone(), ""))(t)
		options.Policy, options.TempDir = atOnce(), scratch
		if report := must(bounded.Reclaim(t.Context(), options))(t); report.Written.Packs > 0 || !strings.Contains(report.Stopped, "used up") {
			t.Errorf("with one byte to move, or a nanosecond: %+v", report)
		}
		closeRepo(t, bounded)
	}
	before := len(r.Warnings())
	if err := r.Reserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	fullBut(store, "packs/", 1)
	report := reclaim(t, r, atOnce())
	if report.Written.Packs != 1 || report.Deleted.Packs > 0 || !report.NextRun || !slices.Contains(store.Names("packs/"), condemned) {
		t.Errorf("%+v", report)
	}
	if warnings := r.Warnings()[before:]; len(warnings) != 1 || !strings.Contains(warnings[0], "stored again") {
		t.Errorf("warnings %q", warnings)
	}
	for range 4 {
		reclaim(t, r, atOnce())
		check(t, r, a, b)
		if slices.Contains(store.Names("packs/"), condemned) {
			t.Error("the next run was to delete it")
		}
	}
	if names := store.Names("packs/"); slices.Contains(names, rotten) || len(names) != r.State().Packs.Len() {
		t.Errorf("%s and %s are to go: %v", condemned, rotten, names)
	}
	if state := r.State(); len(state.Bad)+len(state.Condemned) > 0 {
		t.Errorf("bad %v, condemned %v", state.Bad, state.Condemned)
	}
}

// What several packs have that were given up is stored again in one, with one entry; that one of them cannot be opened costs
// the others nothing.
func TestWhatCondemnedPacksHaveIsStoredAgainTogether(t *testing.T) {
	store := initialized(t, repo.Options{})
	var points []*sourcetest.Point
	var condemned []string
	for n := range 3 {
		data := content(uint64(n), 3*smallBlock)
		a, b := onePoint(fmt.Sprint("a", n), fmt.Sprint("a", n), data), onePoint(fmt.Sprint("b", n), fmt.Sprint("b", n), data)
		first, rotten := twins(t, store, a, b)
		tamper(t, store, rotten, func(b []byte) []byte { b[64+200] ^= 1; return b })
		points, condemned = append(points, a, b), append(condemned, first)
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	var ids []format.Name
	for id := range r.State().Packs.All() {
		if slices.ContainsFunc(condemned, func(name string) bool { return strings.HasSuffix(name, id.String()) }) {
			ids = append(ids, id)
		}
	}
	condemn(t, store, commitlog.Payload{Condemned: ids})
	must(r.Verify(t.Context(), nil))(t)
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && name == condemned[1] {
			return storage.ErrNotExist
		}
		return nil
	})
	if report := reclaim(t, r, atOnce()); report.Written.Packs != 1 || report.Stopped != "" {
		t.Errorf("%+v", report)
	}
	store.SetFault(nil)
	reclaim(t, r, atOnce())
	if !slices.Contains(store.Names("packs/"), condemned[1]) {
		t.Errorf("%s was deleted by the run that stored again what was needed of it", condemned[1])
	}
	var told []string
	for _, warning := range r.Warnings() {
		if frames, what, _ := strings.Cut(warning, " "); strings.HasSuffix(what, "they are stored again") {
			told = append(told, frames)
		}
	}
	if !slices.Equal(told, []string{"2", "1"}) {
		t.Errorf("%q: %q", told, r.Warnings())
	}
	for range 4 {
		check(t, r, points...)
		reclaim(t, r, atOnce())
	}
	check(t, r, points...)
	if state := r.State(); len(state.Bad)+len(state.Condemned) > 0 {
		t.Errorf("bad %v, condemned %v", state.Bad, state.Condemned)
	}
}

// Damage that another program notes between the mark and the deletion keeps what was condemned before: it may be all that is left.
func TestNothingIsDeletedWhenDamageWasNotedSinceTheMark(t *testing.T) {
	store := initialized(t, repo.Options{})
	a, b := onePoint("a", "a", content(1, 3*smallBlock)), onePoint("b", "b", content(1, 3*smallBlock))
	condemned, rotten := twins(t, store, a, b)
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	reclaim(t, r, atOnce())
	if len(r.State().Condemned) == 0 || filesOf(r, "data")[condemned] {
		t.Fatalf("condemned %v", r.State().Condemned)
	}
	tamper(t, store, rotten, func(b []byte) []byte { b[64+200] ^= 1; return b })
	var once sync.Once
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOverwrite && name == "marks/reclaim" {
			once.Do(func() {
				other := must(openSmall(context.Background(), store, ""))(t)
				defer closeRepo(t, other)
				must(other.Verify(context.Background(), nil))(t)
			})
		}
		return nil
	})
	if report := reclaim(t, r, atOnce()); report.Deleted.Packs > 0 || report.Stopped == "" {
		t.Errorf("%+v", report)
	}
	store.SetFault(nil)
	for range 4 {
		reclaim(t, r, atOnce())
	}
	check(t, r, a, b)
	if names := store.Names("packs/"); slices.Contains(names, condemned) || slices.Contains(names, rotten) {
		t.Errorf("%s and %s are to go: %v", condemned, rotten, names)
	}
}
