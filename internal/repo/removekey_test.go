package repo_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"ferry/internal/repo"
)

// A power cut while a key is removed, at whichever call, leaves it as it was or gone: not a key file of which nobody knows whose it is.
func TestPowerCutWhileAKeyIsRemoved(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	base := encryptedFor(t, first, second)
	mustCopyAll(t, openAs(t, base, first), threeMachines()[:1]...)
	outcomes := map[int]int{}
	for calls, done := 0, false; !done; calls++ {
		for chance := range uint64(12) {
			store := base.Clone()
			r := openAs(t, store, first)
			id := must(idOf(t.Context(), r, second))(t)
			store.CrashAfter(calls)
			_, err := r.RemoveKey(t.Context(), id)
			done = err == nil
			next := openAs(t, store.PowerCut(rand.New(rand.NewPCG(chance, 1))), first)
			list := must(next.ListKeys(t.Context()))(t)
			for _, key := range list {
				if !key.Known {
					t.Errorf("call %d, %d: nothing is known of key %s", calls, chance, key.ID)
				}
			}
			if damage := verified(t, next, repo.VerifyOptions{}).Damage; len(damage) > 0 || done && len(list) != 1 {
				t.Errorf("call %d, %d: %d keys, damage %+v", calls, chance, len(list), damage)
			}
			outcomes[len(list)]++
		}
	}
	if outcomes[1] == 0 || outcomes[2] == 0 {
		t.Errorf("not everything was met: %v", outcomes)
	}
}

// Whoever has the repository open since before a rotation removes no more than others: not the last key there is.
func TestRemoveKeyAfterAnothersRotation(t *testing.T) {
	stays, goes := newHolder(t, "stays"), newHolder(t, "goes")
	store := encryptedFor(t, stays, goes)
	late, rotator := openAs(t, store, stays), openAs(t, store, stays)
	var drop []string
	for _, key := range must(rotator.ListKeys(t.Context()))(t) {
		if key.Label == "goes" {
			drop = append(drop, key.ID)
		}
	}
	list := must(rotator.RotateKeys(t.Context(), repo.RotateOptions{Drop: drop}))(t)
	if _, err := late.RemoveKey(t.Context(), list[0].ID); !errors.Is(err, repo.ErrLastRecipient) {
		t.Errorf("the last key: %v", err)
	}
	mustCopyAll(t, openAs(t, store, stays), threeMachines()[:1]...)
}
