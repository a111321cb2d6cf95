package repo_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// misstored is a repository with one point, of which one block, or node, was stored wrong: all checksums hold, the content is not
// its id's.
func misstored(t *testing.T, kind pack.Kind) (store *memory.Store, point *sourcetest.Point) {
	t.Helper()
	point = onePoint("web", "w1", content(91, 12*smallBlock))
	store = stored(t, point)
	a := attacked{store: store, hasher: format.NewHasher(format.HashBLAKE3, [32]byte{})}
	for _, name := range store.Names("packs/") {
		raw := must(storage.ReadAll(t.Context(), store, name, 1<<30))(t)
		table := must(pack.ReadTable(bytes.NewReader(raw), int64(len(raw)), a.hasher))(t)
		if table.Header.Kind != kind {
			continue
		}
		e := table.Entries[0]
		var root format.ID
		a.tamper(t, name, func(raw []byte) []byte {
			raw[int(e.Offset)+e.FrameSize()-1] ^= 1
			raw = a.mend(raw, table.Entries)
			root = format.ID(raw[len(raw)-32:])
			return raw
		})
		r := must(openSmall(t.Context(), store, ""))(t)
		defer closeRepo(t, r)
		named := r.State().Packs.Of(table.Header.ID)
		named.Root = root
		if err := r.AppendEntry(t.Context(), &commitlog.Payload{Packs: []commitlog.Pack{named}}); err != nil {
			t.Fatal(err)
		}
		return store, point
	}
	t.Fatal("no such pack")
	return nil, nil
}

// What only the content shows is not withdrawn by a verification that compares checksums.
func TestStoredBytesDoNotWithdrawWhatContentShows(t *testing.T) {
	store, point := misstored(t, pack.KindBlock)
	time0 := newClock()
	if report := verified(t, time0.opened(t, store), repo.VerifyOptions{Level: repo.LevelStored}); len(report.Damage) != 0 {
		t.Fatalf("the checksums do not hold, the test shows nothing: %+v", report.Damage)
	}
	deep := verified(t, time0.opened(t, store), repo.VerifyOptions{Level: repo.LevelBlocks})
	if len(deep.Damage) == 0 || deep.Noted != 1 || deep.DamagedPoints != 1 {
		t.Fatalf("%+v", deep)
	}
	r := time0.opened(t, store)
	shallow := verified(t, r, repo.VerifyOptions{Level: repo.LevelStored})
	if len(shallow.Damage) != len(deep.Damage) || shallow.DamagedPoints != 1 || len(r.State().Bad) != 1 || r.HasWhole(point.ID()) {
		t.Errorf("%d damaged, was %d; %d points, %d places noted", len(shallow.Damage), len(deep.Damage), shallow.DamagedPoints, len(r.State().Bad))
	}
}

// A frame whose content is not what it should be is read once more: with a key in the repository, and a checksum that holds, that is
// no disk's doing, and called forged.
func TestContentThatWasStoredWrongIsForgedWhereThereIsAKey(t *testing.T) {
	for _, kind := range []pack.Kind{pack.KindNode, pack.KindBlock} {
		store, _ := misstored(t, kind)
		report := verified(t, newClock().opened(t, store), repo.VerifyOptions{Level: repo.LevelBlocks})
		if len(report.Damage) == 0 {
			t.Fatalf("%s: nothing is damaged", kind)
		}
		for _, d := range report.Damage {
			if strings.Contains(d.Reason, "forged: ") != encryptAll || !strings.Contains(d.Reason, "corrupt: ") && !encryptAll {
				t.Errorf("%s: %+v", kind, d)
			}
		}
	}
}

// A proof from the future is none: a clock that ran ahead for a day must not keep packs from being read for years.
func TestProofsFromTheFutureAreNone(t *testing.T) {
	store, _ := manyPacks(t)
	total, ahead, right := len(store.Names("packs/")), newClock(), newClock()
	ahead.forward(10 * 365 * 24 * time.Hour)
	verified(t, ahead.opened(t, store), repo.VerifyOptions{Level: repo.LevelBlocks})
	options := repo.VerifyOptions{Level: repo.LevelBlocks, NotSince: 30 * 24 * time.Hour}
	r := right.opened(t, store)
	for _, proven := range r.Proven(t.Context()) {
		if proven.Never != total {
			t.Errorf("%s: %+v, want all %d never", proven.Level, proven, total)
		}
	}
	if report := verified(t, r, options); report.Packs != total || report.Fresh != 0 {
		t.Errorf("%d packs read, %d passed over, want all %d read", report.Packs, report.Fresh, total)
	}
	right.forward(time.Hour)
	if report := verified(t, right.opened(t, store), options); report.Fresh != total {
		t.Errorf("then %d of %d are fresh", report.Fresh, total)
	}
	// So it is with a round that was cut short.
	verified(t, ahead.opened(t, store), repo.VerifyOptions{Level: repo.LevelBlocks, MaxBytes: 1})
	if report := verified(t, right.opened(t, store), repo.VerifyOptions{Level: repo.LevelBlocks}); report.Packs != total || !report.Begun.IsZero() {
		t.Errorf("%d of %d packs read, begun %s", report.Packs, total, report.Begun)
	}
}

// A copy in a pack that is given up is none: the file is there today, and will be deleted. Healing stores it again.
func TestCopiesInPacksThatAreGivenUpDoNotCount(t *testing.T) {
	store, points := manyPacks(t)
	time0 := newClock()
	r := time0.opened(t, store)
	if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) > 0 {
		t.Fatalf("%+v", report)
	}
	given := packNamed(t, store.Names("packs/")[0])
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{Condemned: []format.Name{given}}); err != nil {
		t.Fatal(err)
	}
	found := verified(t, r, repo.VerifyOptions{})
	if found.DamagedPoints == 0 || machinesDamaged(found) == 0 {
		t.Fatalf("nothing is said of the blocks of a pack that will be deleted: %+v", found)
	}
	for _, d := range found.Damage {
		if !strings.Contains(d.Reason, "given up") {
			t.Errorf("%+v", d)
		}
	}
	healing := must(r.Heal(t.Context(), found, nil))(t)
	if healing.Blocks+healing.Nodes == 0 {
		t.Errorf("nothing was stored again: %+v", healing)
	}
	if err := store.Delete(t.Context(), pack.ObjectName(given)); err != nil {
		t.Fatal(err)
	}
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{Deleted: []format.Name{given}}); err != nil {
		t.Fatal(err)
	}
	wholeAgain(t, "after it was deleted", store, points, verified(t, r, repo.VerifyOptions{}))
}
