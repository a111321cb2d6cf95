package repo_test

import (
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/storage"
)

// A pack in which damage was found is read again, however lately it was proven: as where another process found the damage after that.
func TestAProofBeforeTheDamageSaysNothing(t *testing.T) {
	store, clock := stored(t, threeMachines()...), newClock()
	total := verified(t, clock.opened(t, store), repo.VerifyOptions{}).Packs
	proofs := must(storage.ReadAll(t.Context(), store, "marks/verified", 1<<20))(t)
	rotten := store.Names("packs/")[0]
	tamper(t, store, rotten, func(raw []byte) []byte { raw[64+96+7] ^= 1; return raw })
	if found := verified(t, clock.opened(t, store), repo.VerifyOptions{}); len(found.Damage) == 0 {
		t.Fatal("the damage is not found")
	}
	if err := store.Overwrite(t.Context(), "marks/verified", proofs); err != nil {
		t.Fatal(err)
	}
	options := repo.VerifyOptions{NotSince: time.Hour}
	if again := verified(t, clock.opened(t, store), options); again.Packs != 1 || again.Fresh != total-1 || len(again.Damage) == 0 {
		t.Errorf("%d packs read, %d passed over, damage %+v", again.Packs, again.Fresh, again.Damage)
	}
	tamper(t, store, rotten, func(raw []byte) []byte { raw[64+96+7] ^= 1; return raw })
	if mended := verified(t, clock.opened(t, store), options); mended.Packs != 1 || len(mended.Damage) != 0 {
		t.Errorf("where it is good again: %d packs read, damage %+v", mended.Packs, mended.Damage)
	}
}
