package repo_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

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
