package repo_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// holder has a key, and can be given a repository.
type holder struct {
	identity age.Identity
	to       repo.KeyRecipient
}

func newHolder(t testing.TB, label string) holder {
	identity := must(age.GenerateX25519Identity())(t)
	return holder{identity, must(repo.ParseRecipient(identity.Recipient().String(), label))(t)}
}

// keysOf gives the keys of holders, once.
type keysOf []holder

func (k keysOf) Identities(_ context.Context, request repo.KeyRequest) (identities []age.Identity, err error) {
	for _, h := range k {
		if request.Try == 0 {
			identities = append(identities, h.identity)
		}
	}
	return identities, nil
}

// encryptedFor is a store with an empty repository of small blocks: encrypted if anybody holds it.
func encryptedFor(t testing.TB, holders ...holder) *memory.Store {
	t.Helper()
	store, options := memory.New(), repo.Options{BlockSize: smallBlock}
	for _, h := range holders {
		options.Encrypt = append(options.Encrypt, h.to)
	}
	closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, options))(t))
	return store
}

func openAs(t testing.TB, store storage.Store, holders ...holder) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), store, repo.Environment{Keys: keysOf(holders)})
	if err != nil {
		t.Fatal(err)
	}
	r.SetPackTargets(smallPack, smallPack)
	t.Cleanup(func() { closeRepo(t, r) })
	return r
}

func mustBeShutOut(t testing.TB, store storage.Store, who holder) {
	t.Helper()
	if _, err := repo.Open(t.Context(), store, repo.Environment{Keys: keysOf{who}}); !errors.Is(err, repo.ErrWrongKey) {
		t.Errorf("opened by somebody whose key was taken away: %v", err)
	}
}

func contentOf(t testing.TB, store storage.Store) map[string]string {
	t.Helper()
	content := map[string]string{}
	for info, err := range store.List(t.Context(), "") {
		content[info.Name] = string(must(storage.ReadAll(t.Context(), store, info.Name, 1<<30))(t))
		if err != nil {
			t.Fatal(err)
		}
	}
	return content
}

// changedFiles are the names that two states of a store differ in.
func changedFiles(before, after map[string]string) (names []string) {
	for name := range maps.Keys(after) {
		if was, there := before[name]; !there || was != after[name] {
			names = append(names, name)
		}
	}
	for name := range maps.Keys(before) {
		if _, there := after[name]; !there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestAddAndRemoveKeys(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	store := encryptedFor(t, first)
	points := threeMachines()
	r := openAs(t, store, first)
	mustCopyAll(t, r, points...)
	mustBeShutOut(t, store, second)

	before := contentOf(t, store)
	added := must(r.AddKey(t.Context(), second.to))(t)
	for _, name := range changedFiles(before, contentOf(t, store)) {
		if !strings.HasPrefix(name, "keys/") && name != "marks/keys-000003" && name != "marks/keys-000004" {
			t.Errorf("adding a key changed %s", name)
		}
	}
	check(t, openAs(t, store, second), points...)
	if _, err := r.AddKey(t.Context(), second.to); !errors.Is(err, repo.ErrSameKey) {
		t.Errorf("the same key again: %v", err)
	}
	list := must(r.ListKeys(t.Context()))(t)
	if len(list) != 2 || repo.PostQuantum(list) || !slices.Contains(list, added) || added.Label != "second" || added.PublicKey != second.to.PublicKey || added.Kind != repo.KeyX25519 {
		t.Errorf("listed: %+v", list)
	}

	for _, id := range []string{"", "abc", "zzzzzz", added.ID + "0"} {
		if _, err := r.RemoveKey(t.Context(), id); !errors.Is(err, repo.ErrNoSuchKey) {
			t.Errorf("remove %q: %v", id, err)
		}
	}
	before = contentOf(t, store)
	if removed := must(r.RemoveKey(t.Context(), added.ID[:8]))(t); removed != added {
		t.Errorf("removed %+v", removed)
	}
	changed := changedFiles(before, contentOf(t, store))
	if len(changed) != 4 || !strings.HasPrefix(changed[0], "keys/") || !strings.HasPrefix(changed[1], "keys/") || changed[2] != "marks/keys-000005" {
		t.Errorf("removing a key changed %q", changed)
	}
	mustBeShutOut(t, store, second)
	check(t, openAs(t, store, first), points...)
	last := must(r.ListKeys(t.Context()))(t)[0]
	if _, err := r.RemoveKey(t.Context(), last.ID); !errors.Is(err, repo.ErrLastRecipient) {
		t.Errorf("the last key: %v", err)
	}
}

func TestKeyOperationsNeedTheKey(t *testing.T) {
	h := newHolder(t, "")
	store := encryptedFor(t, h)
	locked := openAs(t, store)
	if !locked.Locked() {
		t.Fatal("open without a key")
	}
	list := must(locked.ListKeys(t.Context()))(t)
	if len(list) != 1 || list[0].Known || list[0].Kind != repo.KeyX25519 || list[0].PublicKey != "" {
		t.Errorf("without a key: %+v", list)
	}
	_, addErr := locked.AddKey(t.Context(), h.to)
	_, removeErr := locked.RemoveKey(t.Context(), list[0].ID)
	_, rotateErr := locked.RotateKeys(t.Context(), repo.RotateOptions{})
	_, exportErr := locked.ExportKit("", repo.Passphrase{})
	for _, err := range []error{addErr, removeErr, rotateErr, exportErr} {
		if !errors.Is(err, repo.ErrNeedsKey) {
			t.Errorf("without a key: %v", err)
		}
	}
	plain := openAs(t, encryptedFor(t), h)
	_, addErr = plain.AddKey(t.Context(), h.to)
	_, listErr := plain.ListKeys(t.Context())
	_, exportErr = plain.ExportKit("", repo.Passphrase{})
	for _, err := range []error{addErr, listErr, exportErr} {
		if !errors.Is(err, repo.ErrNotEncrypted) {
			t.Errorf("not encrypted: %v", err)
		}
	}
}

func TestRotateKeys(t *testing.T) {
	stays, goes := newHolder(t, "stays"), newHolder(t, "goes")
	store := encryptedFor(t, stays, goes)
	points := threeMachines()
	r, bystander := openAs(t, store, stays), openAs(t, store, stays)
	left := openAs(t, store, goes)
	mustCopyAll(t, r, points[:2]...)
	var drop string
	for _, key := range must(r.ListKeys(t.Context()))(t) {
		if key.Label == "goes" {
			drop = key.ID
		}
	}
	before := contentOf(t, store)
	list := must(r.RotateKeys(t.Context(), repo.RotateOptions{Drop: []string{drop}}))(t)
	if len(list) != 1 || list[0].Label != "stays" || list[0].Generation != 2 || r.KeyGeneration() != 2 {
		t.Errorf("rotated: %+v", list)
	}
	for _, name := range changedFiles(before, contentOf(t, store)) {
		if !strings.HasPrefix(name, "keys/") && !strings.HasPrefix(name, "log/") && !strings.HasPrefix(name, "marks/keys-") {
			t.Errorf("rotation changed %s", name)
		}
	}
	mustCopyAll(t, r, points...)
	check(t, openAs(t, store, stays), points...)
	mustBeShutOut(t, store, goes)

	// Who had it open goes on: with the new key, or not at all if there is none for them.
	if err := bystander.Refresh(t.Context()); err != nil || bystander.KeyGeneration() != 2 {
		t.Errorf("opened before the rotation: %v, generation %d", err, bystander.KeyGeneration())
	}
	check(t, bystander, points...)
	if err := left.Refresh(t.Context()); !errors.Is(err, repo.ErrWrongKey) {
		t.Errorf("opened before the rotation by one who was dropped: %v", err)
	}
	// And again.
	must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	if r.KeyGeneration() != 3 {
		t.Errorf("generation %d", r.KeyGeneration())
	}
	check(t, openAs(t, store, stays), points...)
}

// Somebody who can write to the storage and knows a public key puts a ring of their own making there, or that of another
// repository. Nothing is written with it.
func TestForgedRing(t *testing.T) {
	h := newHolder(t, "")
	store, other := encryptedFor(t, h), encryptedFor(t, h)
	own := store.Names("keys/")
	for _, name := range other.Names("keys/") {
		if err := store.Put(t.Context(), name, must(storage.ReadAll(t.Context(), other, name, 1<<20))(t)); err != nil {
			t.Fatal(err)
		}
	}
	mustCopyAll(t, openAs(t, store, h), threeMachines()...)
	r := openAs(t, store, h)
	for _, p := range threeMachines() {
		if err := compare(t.Context(), r, p); err != nil {
			t.Error(err)
		}
	}
	report := must(r.Verify(t.Context(), nil))(t)
	if len(report.Damage) == 0 {
		t.Error("verify does not tell of the key file that does not belong there")
	}
	for _, d := range report.Damage {
		if !strings.HasPrefix(d.File, "keys/") {
			t.Errorf("damage: %+v", d)
		}
	}
	// Without the right one it does not open at all.
	deleteKeys(t, store, own)
	mustBeShutOut(t, store, h)
}

func deleteKeys(t testing.TB, store storage.Store, names []string) {
	t.Helper()
	for _, name := range names {
		if err := store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}

// Somebody who had the keys before a rotation, can write to the storage and knows a public key puts a ring there that goes on
// from the old one. What is written from then on is not for them.
func TestFormerHolder(t *testing.T) {
	stays, goes := newHolder(t, "stays"), newHolder(t, "goes")
	store := encryptedFor(t, stays, goes)
	points := threeMachines()
	mustCopyAll(t, openAs(t, store, stays), points[:1]...)
	theirs := store.Clone() // where they make their own next generation, of a number that is free
	for _, number := range []string{"2", "3"} {
		if err := theirs.Put(t.Context(), "keys/00000"+number, nil); err != nil {
			t.Fatal(err)
		}
	}
	must(openAs(t, theirs, goes).RotateKeys(t.Context(), repo.RotateOptions{}))(t)

	r := openAs(t, store, stays)
	var drop string
	for _, key := range must(r.ListKeys(t.Context()))(t) {
		if key.Label == "goes" {
			drop = key.ID
		}
	}
	must(r.RotateKeys(t.Context(), repo.RotateOptions{Drop: []string{drop}}))(t)
	for _, name := range theirs.Names("keys/000004-") {
		if err := store.Put(t.Context(), name, must(storage.ReadAll(t.Context(), theirs, name, 1<<20))(t)); err != nil {
			t.Fatal(err)
		}
	}
	r = openAs(t, store, stays)
	if r.KeyGeneration() != 2 {
		t.Fatalf("goes on with generation %d", r.KeyGeneration())
	}
	mustCopyAll(t, r, points...)
	for _, p := range points {
		if err := compare(t.Context(), openAs(t, store, stays), p); err != nil {
			t.Error(err)
		}
	}
	// Their key file opens what there was before, and the log that goes on is not for them.
	if _, err := repo.Open(t.Context(), store, repo.Environment{Keys: keysOf{goes}}); err == nil {
		t.Error("opened by somebody who was dropped")
	}
}

// kitOf is a recovery kit of a repository.
func kitOf(t testing.TB, r *repo.Repository, passphrase repo.Passphrase) repo.Kit {
	t.Helper()
	return repo.Kit{Name: "kit.txt", Content: must(r.ExportKit("", passphrase))(t)}
}

func TestRecoverFromKit(t *testing.T) {
	first := newHolder(t, "first")
	store := encryptedFor(t, first)
	points := threeMachines()
	r := openAs(t, store, first)
	mustCopyAll(t, r, points[:3]...)
	secret := repo.NewPassphrase("the passphrase of the kit")
	kits := []repo.Kit{kitOf(t, r, repo.Passphrase{}), kitOf(t, r, secret)}
	mustCopyAll(t, r, points...)
	for i, kit := range kits {
		lost := store.Clone()
		deleteKeys(t, lost, lost.Names("keys/"))
		if i == 1 { // else a list is left that names them
			deleteKeys(t, lost, lost.Names("marks/keys-"))
		}
		if r := openAs(t, lost, first); !r.Locked() || !errors.Is(r.NeedsKey(), repo.ErrNoKeyFiles) {
			t.Fatalf("opened without key files: %v", r.NeedsKey())
		}
		if i == 1 {
			if _, err := repo.OpenWithKit(t.Context(), lost, repo.Environment{}, kit, nil); !errors.Is(err, repo.ErrKitPassphrase) {
				t.Errorf("an encrypted kit without its passphrase: %v", err)
			}
		}
		recovered := must(repo.OpenWithKit(t.Context(), lost, repo.Environment{}, kit, []repo.Passphrase{secret}))(t)
		if warnings := recovered.Warnings(); len(warnings) > 0 {
			t.Errorf("warnings: %q", warnings)
		}
		if damage := verified(t, recovered, repo.VerifyOptions{}).Damage; len(damage) != 1 || damage[0].File != "keys/" {
			t.Errorf("verified without key files: %+v", damage)
		}
		next := newHolder(t, "next")
		must(recovered.AddKey(t.Context(), next.to))(t)
		closeRepo(t, recovered)
		again := openAs(t, lost, next)
		check(t, again, points...)
		if len(again.Entries()) != len(points) {
			t.Errorf("%d points of %d", len(again.Entries()), len(points))
		}
		mustBeShutOut(t, lost, first)
	}
}

func TestWrongKit(t *testing.T) {
	h := newHolder(t, "")
	store := encryptedFor(t, h)
	r := openAs(t, store, h)
	kit := kitOf(t, r, repo.Passphrase{})
	rolledBack := store.Clone()
	mustCopyAll(t, r, threeMachines()[:1]...)
	later := kitOf(t, r, repo.Passphrase{})

	other := encryptedFor(t, h)
	if _, err := repo.OpenWithKit(t.Context(), other, repo.Environment{}, kit, nil); err == nil || !strings.Contains(err.Error(), r.ID()) {
		t.Errorf("the kit of another repository: %v", err)
	}
	if _, err := repo.OpenWithKit(t.Context(), encryptedFor(t), repo.Environment{}, kit, nil); !errors.Is(err, repo.ErrNotEncrypted) {
		t.Errorf("not encrypted: %v", err)
	}
	if _, err := repo.OpenWithKit(t.Context(), store, repo.Environment{}, repo.Kit{Content: bytes.Replace(kit.Content, []byte(`"key"`), []byte(`"kay"`), 1)}, nil); !errors.Is(err, repo.ErrCorrupt) {
		t.Errorf("a kit that was changed: %v", err)
	}
	old := must(repo.OpenWithKit(t.Context(), rolledBack, repo.Environment{}, later, nil))(t)
	if warnings := old.Warnings(); len(warnings) != 1 || !strings.Contains(warnings[0], "rolled back") {
		t.Errorf("rolled back since the kit was made: %q", warnings)
	}
	closeRepo(t, old)

	must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	_, err := repo.OpenWithKit(t.Context(), store, repo.Environment{}, later, nil)
	if !errors.Is(err, repo.ErrKitTooOld) || !strings.HasPrefix(err.Error(), store.Location()+": ") || !strings.Contains(backup.Hint(err), "after the rotation") {
		t.Errorf("a kit from before the rotation: %v; %s", err, backup.Hint(err))
	}
}

// Making an encrypted repository that fails leaves no key files; one that is interrupted, nothing that cannot be gone on with.
func TestInitEncryptedIsInterrupted(t *testing.T) {
	h := newHolder(t, "")
	options := repo.Options{BlockSize: smallBlock, Encrypt: []repo.KeyRecipient{h.to}}
	for calls := 0; ; calls++ {
		store := memory.New()
		store.CrashAfter(calls)
		r, err := repo.Init(t.Context(), store, repo.Environment{}, options)
		store.CrashAfter(-1)
		if err == nil {
			closeRepo(t, r)
			if calls < 4 {
				t.Errorf("made with %d calls", calls)
			}
			return
		}
		if _, err := store.Stat(t.Context(), "repository.json"); errors.Is(err, storage.ErrNotExist) {
			closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, options))(t))
		}
		r = openAs(t, store, h)
		mustCopyAll(t, r, threeMachines()[:1]...)
	}
}

func TestInitEncryptedFails(t *testing.T) {
	h := newHolder(t, "")
	store := encryptedFor(t, h)
	before := contentOf(t, store)
	if _, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{Encrypt: []repo.KeyRecipient{h.to}}); !errors.Is(err, repo.ErrExists) {
		t.Errorf("made where there is one: %v", err)
	}
	if changed := changedFiles(before, contentOf(t, store)); len(changed) > 0 {
		t.Errorf("changed %q", changed)
	}
}

// A rotation during which the storage fails to give a note says that, not that somebody cannot get the new key.
func TestRotationTellsOfTheStorage(t *testing.T) {
	h := newHolder(t, "")
	store := encryptedFor(t, h)
	r := openAs(t, store, h)
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && strings.HasSuffix(name, ".recipient") {
			return errInjected
		}
		return nil
	})
	if _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); !errors.Is(err, errInjected) {
		t.Errorf("%v", err)
	}
	store.SetFault(nil)
	if _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); err != nil {
		t.Errorf("when the storage is well again: %v", err)
	}
}
