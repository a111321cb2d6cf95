package repo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

// After a power cut, key files that a rotation deleted just before are back, with or without their notes. They harm nobody,
// and the next rotation or removal deletes them.
func TestKeyFilesThatAPowerCutBringsBack(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	rotated := encryptedFor(t, first, second)
	rotated.SetFault(func(op memory.Op, _ string) error {
		if op == memory.OpSync {
			return errInjected
		}
		return nil
	})
	if _, err := openAs(t, rotated, first).RotateKeys(t.Context(), repo.RotateOptions{}); !errors.Is(err, errInjected) {
		t.Fatalf("the folder was not synced, and: %v", err)
	}
	noteless := 0
	for seed := range uint64(16) {
		store := rotated.PowerCut(rand.New(rand.NewPCG(seed, 0)))
		for _, name := range store.Names("keys/000001-") {
			if _, err := store.Stat(t.Context(), name+".recipient"); err != nil && !strings.HasSuffix(name, ".recipient") {
				noteless++
			}
		}
		r := openAs(t, store, first)
		if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) > 0 {
			t.Errorf("%d: %+v", seed, report.Damage)
		}
		list := must(r.ListKeys(t.Context()))(t)
		if len(list) != 2 || list[0].Generation != 2 || list[1].Generation != 2 || !list[0].Known || !list[1].Known {
			t.Errorf("%d: listed %+v", seed, list)
		}
		for what, change := range map[string]func(*repo.Repository) error{
			"rotation": func(r *repo.Repository) error {
				_, err := r.RotateKeys(t.Context(), repo.RotateOptions{})
				return err
			},
			"removal": func(r *repo.Repository) error {
				_, err := r.RemoveKey(t.Context(), list[0].ID)
				return err
			},
		} {
			after := store.Clone()
			if err := change(openAs(t, after, first, second)); err != nil {
				t.Errorf("%d: %s: %v", seed, what, err)
			}
			for _, name := range after.Names("keys/000001-") {
				if _, err := after.Stat(t.Context(), strings.TrimSuffix(name, ".recipient")); err == nil {
					t.Errorf("%d: the %s left %s", seed, what, name)
				}
			}
		}
	}
	if noteless == 0 {
		t.Error("no file was back without its note")
	}
}

// A key file that was removed is gone for good, whatever happens to the power afterwards.
func TestRemovedKeyFilesStayGone(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	for what, change := range map[string]func(*repo.Repository) error{
		"rotation": func(r *repo.Repository) error {
			_, err := r.RotateKeys(t.Context(), repo.RotateOptions{})
			return err
		},
		"removal": func(r *repo.Repository) error {
			list := must(r.ListKeys(t.Context()))(t)
			_, err := r.RemoveKey(t.Context(), list[0].ID)
			return err
		},
	} {
		store := encryptedFor(t, first, second)
		if err := change(openAs(t, store, first, second)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for seed := range uint64(16) {
			if after := store.PowerCut(rand.New(rand.NewPCG(seed, 0))).Names("keys/"); !slices.Equal(after, store.Names("keys/")) {
				t.Errorf("%s: after a power cut there are %v", what, after)
			}
		}
	}
}

// interruptRotation rotates, and lets so many new key files be written and no more.
func interruptRotation(t testing.TB, store *memory.Store, r *repo.Repository, files int) {
	t.Helper()
	written, stopped := 0, false
	store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
		if op == memory.OpPut && strings.HasPrefix(name, "keys/") && strings.Contains(name, "-") && !strings.HasSuffix(name, ".recipient") {
			stopped = stopped || written == files
			written++
		}
		if stopped {
			return errInjected
		}
		return nil
	}))
	defer store.SetFault(nil)
	if _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); !errors.Is(err, errInjected) {
		t.Fatalf("interrupted after %d key files: %v", files, err)
	}
}

// After an interrupted rotation one recipient copies, so that the log goes on with the new data key, which others do not have.
// Their old key files are the only ones they have: no list leaves them out, no removal deletes them, and running the rotation
// again gives them the new key.
func TestCopyAfterAnInterruptedRotation(t *testing.T) {
	for people := 2; people <= 4; people++ {
		for files := 1; files < people; files++ {
			t.Run(fmt.Sprintf("%d of %d", files, people), func(t *testing.T) { copyAfterInterruptedRotation(t, people, files) })
		}
	}
}

func copyAfterInterruptedRotation(t *testing.T, people, files int) {
	var holders []holder
	for i := range people {
		holders = append(holders, newHolder(t, fmt.Sprint(i)))
	}
	store, points := encryptedFor(t, holders...), threeMachines()
	r := openAs(t, store, holders[0])
	mustCopyAll(t, r, points[:1]...)
	interruptRotation(t, store, r, files)
	closeRepo(t, r)
	r = openAs(t, store, holders[0])
	mustCopyAll(t, r, points...)
	if r.KeyGeneration() != 2 {
		t.Fatalf("the copy was made with generation %d: nothing is tested", r.KeyGeneration())
	}
	list := must(r.ListKeys(t.Context()))(t)
	if len(list) != people || list[files-1].Generation != 2 || list[files].Generation != 1 {
		t.Fatalf("listed %+v", list)
	}
	if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) > 0 {
		t.Errorf("damage %+v", report.Damage)
	}

	t.Run("damage", func(t *testing.T) {
		after := store.Clone()
		if err := after.Tamper("keys/000001-"+list[files].ID, func(content []byte) []byte { return content[1:] }); err != nil {
			t.Fatal(err)
		}
		if report := verified(t, openAs(t, after, holders[0]), repo.VerifyOptions{}); len(report.Damage) != 1 {
			t.Errorf("the only key file of somebody is damaged: %+v", report.Damage)
		}
	})
	gone := list[len(list)-1]
	if files > 1 { // somebody else who has the new key
		gone = list[0]
		if gone.PublicKey == holders[0].to.PublicKey {
			gone = list[1]
		}
		t.Run("damage of the new file", func(t *testing.T) {
			after := store.Clone()
			if err := after.Tamper("keys/000002-"+gone.ID, func(content []byte) []byte { return content[1:] }); err != nil {
				t.Fatal(err)
			}
			if list := must(openAs(t, after, holders[0]).ListKeys(t.Context()))(t); len(list) != people+1 {
				t.Errorf("the old file of one whose new one is damaged is the only good one: %+v", list)
			}
		})
	}
	t.Run("removal", func(t *testing.T) {
		after := store.Clone()
		must(openAs(t, after, holders[0]).RemoveKey(t.Context(), gone.ID))(t)
		for _, h := range holders {
			if h.to.PublicKey == gone.PublicKey {
				mustBeShutOut(t, after, h)
			}
		}
		var want []string
		for _, key := range list {
			if key != gone {
				want = append(want, fmt.Sprintf("keys/%06d-%s", key.Generation, key.ID))
			}
		}
		slices.Sort(want)
		if left := keyFilesOf(after); !slices.Equal(left, want) {
			t.Errorf("left are %q, want those of everybody else and no leftovers: %q", left, want)
		}
	})
	t.Run("removal while notes cannot be read", func(t *testing.T) {
		after := store.Clone()
		r := openAs(t, after, holders[0])
		after.SetFault(func(op memory.Op, name string) error {
			if op == memory.OpOpen && strings.HasPrefix(name, "keys/000001-") && strings.HasSuffix(name, ".recipient") {
				return errInjected
			}
			return nil
		})
		before := keyFilesOf(after)
		if list, err := r.ListKeys(t.Context()); !errors.Is(err, errInjected) || len(list) == 0 {
			t.Errorf("keys are listed as if all were known that is: %+v, %v", list, err)
		}
		if _, err := r.RemoveKey(t.Context(), gone.ID); !errors.Is(err, errInjected) || !slices.Equal(keyFilesOf(after), before) {
			t.Errorf("nobody knows which files are the same recipient's, and: %v", err)
		}
		another := must(age.GenerateX25519Identity())(t)
		must(r.AddKey(t.Context(), repo.KeyRecipient{To: another.Recipient(), PublicKey: another.Recipient().String()}))(t)
	})
	again := must(openAs(t, store, holders[0]).RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	if len(again) != people {
		t.Errorf("run again, it went to %+v", again)
	}
	for _, h := range holders {
		check(t, openAs(t, store, h), points...)
	}
	if left := keyFilesOf(store); len(left) != people || !strings.HasPrefix(left[0], "keys/000003-") {
		t.Errorf("left are %q", left)
	}
}

// keyFilesOf are the names of the key files that there are, without their notes and without what claims a generation.
func keyFilesOf(store *memory.Store) []string {
	return slices.DeleteFunc(store.Names("keys/"), func(name string) bool {
		return strings.HasSuffix(name, ".recipient") || !strings.Contains(name, "-")
	})
}

// Of two rotations at once the second says so, and its entry does not tell that it is done. Nobody is left out, and the next
// one cleans up.
func TestTwoRotationsAtOnce(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	store := encryptedFor(t, first, second)
	other := openAs(t, store, second)
	r := openAs(t, &between{
		Store: store,
		when: func(op memory.Op, name string) bool {
			return op == memory.OpPut && strings.HasPrefix(name, "keys/000002-")
		},
		do: func() { must(other.RotateKeys(t.Context(), repo.RotateOptions{}))(t) },
	}, first)
	if _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); err == nil || !strings.Contains(err.Error(), "at the same time") {
		t.Fatalf("the second of two rotations: %v", err)
	}
	if state := r.State(); state.Rotated != 3 || state.Head != other.State().Head {
		t.Errorf("the log says that generation %d is everybody's, at %+v, was %+v", state.Rotated, state.Head, other.State().Head)
	}
	for _, h := range []holder{first, second} {
		mustCopyAll(t, openAs(t, store, h), threeMachines()[0])
	}
	if list := must(openAs(t, store, first).RotateKeys(t.Context(), repo.RotateOptions{}))(t); len(list) != 2 {
		t.Errorf("the next one went to %+v", list)
	}
	if left := keyFilesOf(store); len(left) != 2 || !strings.HasPrefix(left[0], "keys/000004-") {
		t.Errorf("left are %q", left)
	}
}
