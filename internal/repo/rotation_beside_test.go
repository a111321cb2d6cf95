package repo_test

import (
	"testing"

	"ferry/internal/repo"
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
