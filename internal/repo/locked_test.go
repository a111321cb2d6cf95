package repo_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/repotest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// openLocked opens it as a server does that is not trusted with the key.
func (a attacked) openLocked(t *testing.T) *repo.Repository {
	t.Helper()
	r := must(repo.Open(t.Context(), a.store, repo.Environment{CacheDir: newCache(t)}))(t)
	t.Cleanup(func() { closeRepo(t, r) })
	if !r.Locked() || !errors.Is(r.NeedsKey(), repo.ErrNeedsKey) {
		t.Fatalf("locked %v, %v", r.Locked(), r.NeedsKey())
	}
	return r
}

// What needs no key works: listing with times and sizes, following trees, proof of stored bytes.
func TestLockedReads(t *testing.T) {
	a := newAttacked(t)
	with, r := a.open(t), a.openLocked(t)
	entries := r.Entries()
	if !slices.Equal(entries, with.Entries()) || len(entries) != 2 {
		t.Fatalf("lists %v", entries)
	}
	for _, entry := range entries {
		point := must(with.ReadPoint(t.Context(), entry.ID))(t)
		header := must(r.ReadHeader(t.Context(), entry.ID))(t)
		if header.ID != entry.ID || header.Machine != entry.Machine || !header.Created.Equal(point.Created) || header.Domain != point.Domain || len(header.Roots) != 1 {
			t.Fatalf("header %+v", header)
		}
		if header.Roots[0] != *point.Roots[0] || header.Size() != point.Objects[0].Size {
			t.Errorf("roots %+v, size %d", header.Roots, header.Size())
		}
		var ids [2][]repo.ID
		for i, from := range []*repo.Repository{with, r} {
			for blocks, err := range from.Leaves(t.Context(), header.Roots[0]) {
				if err != nil {
					t.Fatal(err)
				}
				for _, block := range blocks {
					ids[i] = append(ids[i], block.ID)
				}
			}
		}
		if len(ids[0]) < 40 || !slices.Equal(ids[0], ids[1]) {
			t.Errorf("%d blocks with the key, %d without", len(ids[0]), len(ids[1]))
		}
	}
	report := must(r.Verify(t.Context(), nil))(t)
	if len(report.Damage) > 0 || report.Points != 2 || report.Bytes == 0 {
		t.Errorf("verify: %+v", report)
	}
}

// What needs the key says so, and how to give one.
func TestLockedNeedsKey(t *testing.T) {
	a := newAttacked(t)
	r := a.openLocked(t)
	id := r.Entries()[0].ID
	header := must(r.ReadHeader(t.Context(), id))(t)
	_, readErr := r.ReadPoint(t.Context(), id)
	_, ingestErr := r.NewIngest(t.Context(), repo.IngestOptions{})
	for what, err := range map[string]error{
		"reading a point": readErr, "an ingest": ingestErr,
		"reading an object":                r.ReadObject(t.Context(), header.Roots[0], repotest.EachBlock(func(repo.Block, []byte) error { return nil }), func(int64) {}),
		"a claim":                          r.AppendEntry(t.Context(), &commitlog.Payload{Claims: []commitlog.Claim{{Point: id, Job: "other"}}}),
		"a pack":                           r.AppendEntry(t.Context(), &commitlog.Payload{Packs: []commitlog.Pack{{ID: format.Name{1}}}}),
		"removing a point that is claimed": r.AppendEntry(t.Context(), &commitlog.Payload{PointsRemoved: []backup.PointID{id}}),
	} {
		var hinted *backup.Error
		if !errors.Is(err, repo.ErrNeedsKey) || errors.Is(err, backup.ErrDamaged) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "--identity") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := a.lastEntry(); r.State().Head.N != got {
		t.Errorf("the log has %d entries, %d known", got, r.State().Head.N)
	}
}

// Each bit of a pack, point or log that flips is found without the key, and noted so that no writer relies on it.
func TestLockedVerifyFindsDamage(t *testing.T) {
	original := newAttacked(t)
	for _, name := range slices.Concat(original.store.Names("packs/")[:3], original.store.Names("points/")[:1], original.store.Names("keys/")[:1]) {
		size := int(must(original.store.Stat(t.Context(), name))(t).Size)
		for at := 30; at < size-1; at += size / 7 {
			a := original.clone()
			a.tamper(t, name, func(raw []byte) []byte { raw[at] ^= 4; return raw })
			r := a.openLocked(t)
			report := must(r.Verify(t.Context(), nil))(t)
			if !slices.ContainsFunc(report.Damage, func(d repo.Damage) bool { return d.File == name }) && !strings.HasSuffix(name, ".recipient") {
				t.Errorf("%s, byte %d: %+v", name, at, report.Damage)
			}
			if strings.HasPrefix(name, "packs/") {
				with := a.open(t)
				if len(with.State().Bad) == 0 || len(with.Keyless()) == 0 || len(with.Keyless()) > 2 {
					t.Errorf("%s, byte %d: the log has %d bad places by entries %v", name, at, len(with.State().Bad), with.Keyless())
				}
			}
		}
	}
}

// A server without the key gives points up. Who has the key is told, and goes on.
func TestLockedGivesUp(t *testing.T) {
	a := newAttacked(t)
	r := a.openLocked(t)
	oldest := r.Entries()[0].ID
	done := must(r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: oldest}}, nil))(t)
	if len(done) != 1 || !done[0].Removed {
		t.Fatalf("%+v", done)
	}
	if len(r.Keyless()) != 0 {
		t.Errorf("one without the key is told of itself: %v", r.Keyless())
	}
	name, _ := a.dataPack(t, "")
	var id format.Name
	if err := id.UnmarshalText([]byte(name[len(name)-32:])); err != nil {
		t.Fatal(err)
	}
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{Condemned: []format.Name{id}}); err != nil {
		t.Fatal(err)
	}
	last := a.lastEntry()
	with := a.open(t)
	if got := with.Keyless(); !slices.Equal(got, []uint64{last - 1, last}) {
		t.Errorf("entries without the key: %v", got)
	}
	if !slices.ContainsFunc(with.Warnings(), func(w string) bool { return strings.Contains(w, "without the key") }) {
		t.Errorf("no word of them: %v", with.Warnings())
	}
	checkpointed := must(repo.Open(t.Context(), a.store, repo.Environment{Keys: identities{testIdentity()}}))(t)
	must(checkpointed.Verify(t.Context(), nil))(t)
	if got := checkpointed.Keyless(); !slices.Equal(got, []uint64{last - 1, last}) {
		t.Errorf("verify tells of %v", got)
	}
	closeRepo(t, checkpointed)
	if with.Has(oldest) || with.State().Live(id) {
		t.Error("it counts for nothing")
	}
	with.SetPackTargets(smallPack, smallPack)
	mustCopyAll(t, with, a.points...) // what was in the condemned pack is stored again
	for _, p := range a.points {
		if err := compare(t.Context(), with, p); err != nil {
			t.Error(err)
		}
	}
	if err := r.Refresh(t.Context()); err != nil || !r.Has(oldest) {
		t.Errorf("without the key: %v", err)
	}
}

// Whether a hold has ended the storage's clock says, also where the server's own is late: what it removes then nobody calls forged.
func TestLockedHoldsEndByTheStoragesClock(t *testing.T) {
	for _, late := range []time.Duration{-30 * time.Minute, 0, 30 * time.Minute} {
		a := newAttacked(t)
		now := clocked(a.store)
		now.now = time.Now()
		with := a.open(t)
		id := with.Entries()[0].ID
		must(with.Hold(t.Context(), id, "a test"))(t)
		keeper := must(repo.Open(t.Context(), a.store, repo.Environment{Now: func() time.Time { return now.now.Add(-late) }}))(t)
		for _, ended := range []bool{false, true} {
			if ended {
				now.now = *with.State().Holds[id][0].Until
			}
			done, err := keeper.Forget(t.Context(), "manual", []repo.Forgetting{{Point: id}}, nil)
			if err != nil || len(done) != 1 || done[0].Removed != ended {
				t.Errorf("%v late, hold ended: %v: %+v, %v", late, ended, done, err)
			}
			reader := a.open(t)
			if reader.Has(id) == ended {
				t.Errorf("%v late, hold ended: %v: with the key the point is there: %v", late, ended, reader.Has(id))
			}
		}
		closeRepo(t, keeper)
	}
}

// A server without the key gives points up and their space back, until nothing is left, and harms nothing else at any step.
func TestLockedReclaim(t *testing.T) {
	store := memory.New()
	closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, encryptedOptions(repo.Options{BlockSize: smallBlock})))(t))
	points := threeMachines()
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	for _, p := range points { // each with packs of its own
		mustCopyAll(t, r, p)
	}
	closeRepo(t, r)
	before := bytesOf(t, store, "packs/")
	for i, p := range points {
		keeper := must(repo.Open(t.Context(), store, repo.Environment{CacheDir: newCache(t)}))(t)
		if !keeper.Locked() {
			t.Fatal("not locked")
		}
		forget(t, keeper, p)
		for range 3 {
			report := reclaim(t, keeper, atOnce())
			if report.Frozen != "" || len(report.Incomplete) > 0 {
				t.Errorf("%d points left: %+v", len(points)-i-1, report)
			}
		}
		if damage := must(keeper.Verify(t.Context(), nil))(t).Damage; len(damage) > 0 {
			t.Errorf("%d points left: %+v", len(points)-i-1, damage)
		}
		closeRepo(t, keeper)
		with := must(openSmall(t.Context(), store, ""))(t)
		check(t, with, points[i+1:]...)
		if len(with.Keyless()) == 0 {
			t.Error("nobody tells what was done without the key")
		}
		closeRepo(t, with)
		after := bytesOf(t, store, "packs/")
		if after > before {
			t.Errorf("%d points left: %d bytes, %d before", len(points)-i-1, after, before)
		}
		before = after
	}
	if left := store.Names("packs/"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// rotate rotates the data key and returns what somebody has who lost access with that.
func (a attacked) rotate(t *testing.T) *format.Hasher {
	t.Helper()
	description := describe(t, a)
	identify := func(_ context.Context, _ int, _ []keyring.Kind) ([]age.Identity, error) {
		return []age.Identity{testIdentity()}, nil
	}
	ring, _, err := keyring.Load(t.Context(), a.store, description.ID, description.KeyCheck, identify)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = keyring.Rotate(t.Context(), a.store, ring, keyring.Rotation{Now: time.Now(), Commit: func(next *keyring.Ring) error {
		a.append(t, format.NewEncryptedHasher(format.HashBLAKE3, next.IDKey, ringKeys{next}), &commitlog.Payload{})
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return format.NewEncryptedHasher(format.HashBLAKE3, ring.IDKey, ringKeys{ring})
}

// Who had the key before a rotation, and can write, does not go on with the log.
func TestReplacedKey(t *testing.T) {
	a := newAttacked(t)
	before := a.lastEntry()
	old := a.rotate(t)
	checkpoint := func(n uint64) {
		raw := must(storage.ReadAll(t.Context(), a.store, commitlog.EntryName(n), commitlog.MaxSize))(t)
		raw = must(commitlog.EncodeCheckpoint(old, commitlog.Head{N: n, Checksum: format.ID(raw[len(raw)-32:])}, commitlog.NewState().Payload()))(t)
		if err := a.store.Put(t.Context(), commitlog.CheckpointName(n), raw); err != nil {
			t.Fatal(err)
		}
	}
	// One with the old key where it was the current one could have been made then: what it says is not believed any more.
	checkpoint(before)
	r := a.open(t)
	if len(r.Entries()) != 2 {
		t.Fatalf("%d points", len(r.Entries()))
	}
	r.SetPackTargets(smallPack, smallPack)
	mustCopyAll(t, r, onePoint("web", "w3", content(95, 9*smallBlock))) // writes a checkpoint with the new key
	if names := a.store.Names("checkpoints/"); len(names) != 2 {
		t.Errorf("checkpoints %v", names)
	}
	if again := a.open(t); len(again.Entries()) != 3 || len(again.Warnings()) > 0 {
		t.Errorf("%d points, %v", len(again.Entries()), again.Warnings())
	}
	a.append(t, old, &commitlog.Payload{})
	checkpoint(a.lastEntry())
	a.refused(t, "", repo.ErrForged, commitlog.EntryName(a.lastEntry()))
}

// A key file from before a rotation, put back by somebody who can write: it opens, and not what was said since.
func TestKeyFilePutBack(t *testing.T) {
	a := newAttacked(t)
	before := a.store.Clone()
	a.rotate(t)
	for _, name := range a.store.Names("keys/") {
		if err := a.store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range before.Names("keys/") {
		if err := a.store.Put(t.Context(), name, must(storage.ReadAll(t.Context(), before, name, 1<<20))(t)); err != nil {
			t.Fatal(err)
		}
	}
	a.refused(t, "", repo.ErrWrongKey, commitlog.EntryName(a.lastEntry()))
	if _, err := openSmall(t.Context(), a.store, ""); errors.Is(err, repo.ErrCorrupt) || !strings.Contains(backup.Hint(err), "rotated") {
		t.Errorf("%v; %s", err, backup.Hint(err))
	}
}

// A data key that is rotated while a writer is at work: it reads the new ring and goes on.
func TestRotationWhileOpen(t *testing.T) {
	a := newAttacked(t)
	r := a.open(t)
	r.SetPackTargets(smallPack, smallPack)
	in := must(r.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	a.rotate(t)
	block := content(93, smallBlock)
	must(in.StoreBlock(t.Context(), in.BlockID(block), block, repo.CodecNone))(t)
	if err := in.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	mustCopyAll(t, r, onePoint("web", "w3", content(94, 9*smallBlock)))
	generations := map[uint32]bool{}
	for _, name := range a.store.Names("packs/") {
		raw := must(storage.ReadAll(t.Context(), a.store, name, 1<<30))(t)
		table := must(pack.ReadTable(strings.NewReader(string(raw)), int64(len(raw)), a.hasher))(t)
		generations[table.Header.Generation] = true
	}
	if !generations[1] || !generations[2] {
		t.Errorf("packs of generations %v", generations)
	}
	again := a.open(t)
	if report := must(again.Verify(t.Context(), nil))(t); len(report.Damage) > 0 {
		t.Errorf("%+v", report.Damage)
	}
}

// A process that learns of two rotations at once, and is cut short between their entries, does not remember a state of which the
// second key vouches: what others wrote with the first one would be called forged by it ever after.
func TestStateRememberedAmidRotations(t *testing.T) {
	a, cache := newAttacked(t), newCache(t)
	behind := must(openSmall(t.Context(), a.store, cache))(t)
	other := a.open(t)
	for i := range 2 {
		if _, err := other.RotateKeys(t.Context(), repo.RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			mustCopyAll(t, other, onePoint("db", "d1", content(5, smallBlock)))
		}
	}
	unread := commitlog.EntryName(behind.State().Head.N + 2)
	a.store.SetFault(func(_ memory.Op, name string) error {
		if name == unread {
			return errInjected
		}
		return nil
	})
	if err := behind.Refresh(t.Context()); !errors.Is(err, errInjected) {
		t.Fatalf("it read on: %v", err)
	}
	closeRepo(t, behind)
	a.store.SetFault(nil)
	again := must(openSmall(t.Context(), a.store, cache))(t)
	defer closeRepo(t, again)
	check(t, again, append(a.points, onePoint("db", "d1", content(5, smallBlock)))...)
}
