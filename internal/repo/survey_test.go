package repo_test

import (
	"slices"
	"testing"

	"ferry/internal/repo"
)

// A survey tells lost and foreign files from those that the log names, and index segments that can be made again.
func TestSurvey(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, newCache(t)))(t)
	defer closeRepo(t, r)
	mustCopyAll(t, r, threeMachines()...)
	survey := func() *repo.Survey { return must(r.Survey(t.Context()))(t) }
	whole := survey()
	if len(whole.Missing)+len(whole.Other)+len(whole.Unnamed)+whole.LostIndex != 0 || whole.Named == 0 || whole.Bytes == 0 {
		t.Fatalf("%+v", whole)
	}
	remove := func(names ...string) []string {
		t.Helper()
		for _, name := range names {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		return names
	}
	index := remove(store.Names("index/")...)
	if s := survey(); s.LostIndex != len(index) || len(index) == 0 || len(s.Missing) != 0 {
		t.Errorf("%d of %d segments lost: %+v", s.LostIndex, len(index), s)
	}
	if err := store.Put(t.Context(), "points/stranger", []byte("x")); err != nil {
		t.Fatal(err)
	}
	packs := store.Names("packs/")
	if err := store.Tamper(packs[0], func(content []byte) []byte { return content[:len(content)-1] }); err != nil {
		t.Fatal(err)
	}
	lost := remove(packs[1], store.Names("log/")[0])
	s := survey()
	if slices.Sort(lost); !slices.Equal(s.Missing, lost) || !slices.Equal(s.Other, packs[:1]) {
		t.Errorf("missing %v, not %v; other %v, not %v", s.Missing, lost, s.Other, packs[:1])
	}
	if len(s.Unnamed) != 1 || s.Unnamed[0].Name != "points/stranger" || s.UnnamedBytes() != 1 {
		t.Errorf("unnamed %+v", s.Unnamed)
	}
}
