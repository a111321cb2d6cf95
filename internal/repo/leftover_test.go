package repo_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"ferry/internal/repo"
)

// After a power cut, key files that a rotation deleted are back, with or without their notes. They harm nobody, and the next
// rotation or removal deletes them.
func TestKeyFilesThatAPowerCutBringsBack(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	rotated := encryptedFor(t, first, second)
	must(openAs(t, rotated, first).RotateKeys(t.Context(), repo.RotateOptions{}))(t)
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
