package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// Keys are rotated, again and again, at any moment of opening the repository: a key that gets each new data key opens it.
func TestOpenWhileKeysAreRotated(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	base := encryptedFor(t, first, second)
	mustCopyAll(t, openAs(t, base, first), threeMachines()[0])
	for rotations := 1; rotations <= 2; rotations++ {
		met := true
		for moment := 1; met; moment++ {
			store, calls, done := base.Clone(), 0, 0
			other := openAs(t, store, first)
			hooked := &between{Store: store, when: func(memory.Op, string) bool { calls++; return calls >= moment }}
			rotate := func() { must(other.RotateKeys(t.Context(), repo.RotateOptions{}))(t) }
			hooked.do = func() {
				rotate()
				if done++; done < rotations {
					hooked.do = rotate
				}
			}
			r, err := repo.Open(t.Context(), hooked, repo.Environment{Keys: keysOf{second}})
			if met = done > 0; err != nil {
				t.Errorf("%d rotations from call %d on: %v", rotations, moment, err)
				continue
			}
			check(t, r, threeMachines()[0])
			closeRepo(t, r)
		}
	}
}

// A key that was read stays known although its file is damaged then and an older one opens still: verification looks at the key files again
// where it meets one of a data key that is not known.
func TestKeyFileIsDamagedWhileTheRepositoryIsOpen(t *testing.T) {
	holder, points := newHolder(t, "holder"), threeMachines()[:2]
	store := encryptedFor(t, holder)
	r := openAs(t, store, holder)
	mustCopyAll(t, r, points[0])
	older := map[string][]byte{}
	for _, name := range store.Names(keyring.Folder) {
		older[name] = must(storage.ReadAll(t.Context(), store, name, 1<<20))(t)
	}
	must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	mustCopyAll(t, r, points[1])
	r = openAs(t, store, holder)
	var newer keyring.File
	for _, name := range store.Names(keyring.Folder) {
		if file, is := keyring.ParseFile(name); is && file.Generation == 2 {
			newer = file
		}
	}
	if err := store.Tamper(newer.Path(), func(b []byte) []byte { b[len(b)-1] ^= 1; return b }); err != nil {
		t.Fatal(err)
	}
	newer.Generation = 3
	older[newer.Path()] = []byte("of nobody here")
	for name, content := range older {
		if err := store.Put(t.Context(), name, content); err != nil && !errors.Is(err, storage.ErrExists) {
			t.Fatal(err)
		}
	}
	if damage := must(r.VerifyWith(t.Context(), repo.VerifyOptions{}))(t).Damage; len(damage) != 2 {
		t.Errorf("%+v", damage)
	}
	for _, p := range points {
		if err := compare(t.Context(), r, p); err != nil {
			t.Error(err)
		}
	}
}

// At any moment of a rotation, and after one that was interrupted at it, whoever holds another key verifies: that key may not have the new data
// key yet, which is said, and is no damage of the note about a key that has.
func TestVerifyWhileKeysAreRotated(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	base := encryptedFor(t, first, second)
	mustCopyAll(t, openAs(t, base, first), threeMachines()[0])
	told := map[string]int{}
	for moment, met := 1, true; met; moment++ {
		store, calls := base.Clone(), 0
		met = false
		hooked := &between{Store: store, when: func(memory.Op, string) bool { calls++; return calls == moment }}
		rotator := openAs(t, hooked, second)
		look := func(when string) {
			r := openAs(t, store, first)
			report := must(r.Verify(t.Context(), nil))(t)
			if len(report.Damage) > 0 || report.DamagedPoints > 0 {
				t.Errorf("%s call %d: %+v", when, moment, report.Damage)
			}
			if slices.ContainsFunc(r.Warnings(), func(warning string) bool { return strings.Contains(warning, "newer data key") }) {
				told[when]++
			}
			closeRepo(t, r)
		}
		calls, hooked.do = 0, func() {
			met = true
			look("before")
			store.SetFault(func(memory.Op, string) error { return errInjected })
		}
		_, _ = rotator.RotateKeys(t.Context(), repo.RotateOptions{}) // it fails, but for what is not needed at its end
		store.SetFault(nil)
		look("after it was interrupted at")
		if moment%4 == 1 { // another rotation ends it
			if _, err := openAs(t, store, second).RotateKeys(t.Context(), repo.RotateOptions{}); err != nil {
				t.Errorf("call %d: once more: %v", moment, err)
			}
			r := openAs(t, store, first)
			check(t, r, threeMachines()[0])
			closeRepo(t, r)
		}
	}
	if told["before"] == 0 || told["after it was interrupted at"] == 0 {
		t.Errorf("nobody was told: %v", told)
	}
}
