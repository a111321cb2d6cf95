package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// healed verifies, heals, and verifies again. The last report is returned.
func healed(t *testing.T, store *memory.Store, donors ...*memory.Store) (*repo.HealReport, *repo.VerifyReport) {
	t.Helper()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	found := must(r.Verify(t.Context(), nil))(t)
	var from []*repo.Repository
	for _, donor := range donors {
		d := must(openSmall(t.Context(), donor, ""))(t)
		defer closeRepo(t, d)
		from = append(from, d)
	}
	report := must(r.Heal(t.Context(), found, from))(t)
	return report, must(r.Verify(t.Context(), nil))(t)
}

// twoCopies are two repositories with the same points and the same id key, each made from the source by itself.
func twoCopies(t *testing.T, options repo.Options) (store, donor *memory.Store, points []*sourcetest.Point) {
	t.Helper()
	points = threeMachines()
	store = initialized(t, options)
	for _, s := range []*memory.Store{store} {
		r := must(openSmall(t.Context(), s, ""))(t)
		mustCopyAll(t, r, points...)
		closeRepo(t, r)
	}
	donor = store.Clone() // a mirror has the same ids, also where they depend on a key
	return store, donor, points
}

func wholeAgain(t *testing.T, what string, store *memory.Store, points []*sourcetest.Point, report *repo.VerifyReport) {
	t.Helper()
	for _, d := range report.Damage {
		t.Errorf("%s: still damaged: %+v", what, d)
	}
	if report.DamagedPoints != 0 {
		t.Errorf("%s: %d points are still called damaged", what, report.DamagedPoints)
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	for _, p := range points {
		if err := compare(t.Context(), r, p); err != nil || !r.HasWhole(p.ID()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whatever one pack suffers, a second repository heals; nothing but new files is written for it.
func TestPacksHealFromASecondRepository(t *testing.T) {
	original, donor, points := twoCopies(t, repo.Options{})
	for what, damage := range map[string]func(*memory.Store, string) error{
		"a flipped bit in a frame": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { b[64+96+7] ^= 1; return b })
		},
		"a flipped bit in the table": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { b[len(b)-80] ^= 1; return b })
		},
		"zeros in the middle": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { clear(b[len(b)/3:][:min(4096, len(b)/3)]); return b })
		},
		"half of it": func(s *memory.Store, name string) error {
			return s.Tamper(name, func(b []byte) []byte { return b[:len(b)/2] })
		},
		"gone": func(s *memory.Store, name string) error { return s.Delete(context.Background(), name) },
	} {
		for _, name := range original.Names("packs/") {
			store := original.Clone()
			if err := damage(store, name); err != nil {
				t.Fatal(err)
			}
			before := map[string]bool{}
			for _, n := range store.Names("") {
				before[n] = true
			}
			store.SetFault(func(op memory.Op, n string) error {
				if (op == memory.OpOverwrite || op == memory.OpDelete) && before[n] && !strings.HasPrefix(n, "marks/") && !strings.HasPrefix(n, "checkpoints/") {
					t.Errorf("%s: %s was changed in place: %s", what, n, op)
				}
				return nil
			})
			report, after := healed(t, store, donor)
			store.SetFault(nil)
			wholeAgain(t, name+": "+what, store, points, after)
			if report.Blocks+report.Nodes == 0 {
				t.Errorf("%s: %s: nothing was stored: %+v", name, what, report)
			}
			if len(after.Healed) == 0 {
				t.Errorf("%s: %s: the damaged file is not mentioned any more", name, what)
			}
		}
	}
}

// Two copies that are damaged in different places heal each other.
func TestDamagedCopiesHealEachOther(t *testing.T) {
	one, two, points := twoCopies(t, repo.Options{})
	for i, name := range one.Names("packs/") {
		store := []*memory.Store{one, two}[i%2]
		tamper(t, store, name, func(b []byte) []byte { clear(b[len(b)/3:]); return b })
	}
	for _, of := range [][2]*memory.Store{{one, two.Clone()}, {two, one.Clone()}} {
		report, after := healed(t, of[0], of[1])
		wholeAgain(t, "from one that is damaged, too", of[0], points, after)
		if report.FromDonors == 0 {
			t.Errorf("%+v", report)
		}
	}
}

// All packs of a folder gone, or all data.
func TestEverythingHealsFromASecondRepository(t *testing.T) {
	original, donor, points := twoCopies(t, repo.Options{})
	for _, prefix := range []string{"packs/", "points/"} {
		store := original.Clone()
		for _, name := range store.Names(prefix) {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		report, after := healed(t, store, donor)
		wholeAgain(t, "all of "+prefix+" gone", store, points, after)
		if prefix == "points/" && report.Points != len(points) {
			t.Errorf("%d points were written again, of %d", report.Points, len(points))
		}
	}
}

func TestClaimsStayWhenAPointIsHealed(t *testing.T) {
	store, donor, points := twoCopies(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	id := points[0].ID()
	if err := r.AppendEntry(t.Context(), &commitlog.Payload{
		Claims: []commitlog.Claim{{Point: id, Job: "offsite", Reason: "weekly"}}, ClaimsWithdrawn: []commitlog.Claim{{Point: id, Job: "manual"}},
	}); err != nil {
		t.Fatal(err)
	}
	file := r.State().Points.Of(id).File()
	closeRepo(t, r)
	if err := store.Delete(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	_, after := healed(t, store, donor)
	wholeAgain(t, "claimed point", store, points, after)
	r = must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	if claims := r.State().Claims.Of(id); len(claims) != 1 || claims[0].Job != "offsite" || claims[0].Reason != "weekly" {
		t.Errorf("claims %+v", claims)
	}
	stored := must(r.ReadPoint(t.Context(), id))(t)
	if len(stored.Hops) != 0 {
		t.Errorf("the point came by %+v", stored.Hops)
	}
}

// Parity heals as many damaged shards of each pack as there are parity shards, and not one more; the rest is told.
func TestPacksHealFromParity(t *testing.T) {
	original, _, points := twoCopies(t, repo.Options{Parity: &repo.Parity{Data: 8, Parity: 2}})
	for _, name := range original.Names("packs/") {
		size := int(must(original.Stat(t.Context(), name))(t).Size)
		data := min(8, (size+4095)/4096)
		shard, shards := ((size+data-1)/data+63)/64*64, (2*data+7)/8
		for damaged := 1; damaged <= shards+1 && damaged <= data; damaged++ {
			store := original.Clone()
			err := store.Tamper(name, func(b []byte) []byte {
				for i := range damaged {
					clear(b[i*shard : min((i+1)*shard, len(b))])
				}
				return b
			})
			if err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("%s, %d of %d shards with %d of parity", name, damaged, data, shards)
			report, after := healed(t, store)
			if damaged <= shards {
				wholeAgain(t, what, store, points, after)
				if report.FromParity == 0 {
					t.Errorf("%s: %+v", what, report)
				}
			} else if len(after.Damage) == 0 {
				t.Errorf("%s: nothing is damaged: %+v", what, report)
			}
		}
	}
}

func TestDamagedParityIsMadeAgain(t *testing.T) {
	original, _, _ := twoCopies(t, repo.Options{Parity: &repo.Parity{Data: 8, Parity: 2}})
	name := original.Names("parity/")[1]
	good := must(storage.ReadAll(t.Context(), original, name, 1<<30))(t)
	other := must(storage.ReadAll(t.Context(), original, original.Names("parity/")[2], 1<<30))(t)
	for what, tamper := range map[string]func([]byte) []byte{
		"flipped in the head": func(b []byte) []byte { b[30] ^= 1; return b },
		"flipped in a shard":  func(b []byte) []byte { b[len(b)-9] ^= 1; return b },
		"cut":                 func(b []byte) []byte { return b[:len(b)-1] },
		"that of another":     func([]byte) []byte { return other },
		"gone":                nil,
	} {
		store := original.Clone()
		var err error
		if tamper == nil {
			err = store.Delete(t.Context(), name)
		} else {
			err = store.Tamper(name, tamper)
		}
		if err != nil {
			t.Fatal(err)
		}
		report := verify(t, store)
		again, err := storage.ReadAll(t.Context(), store, name, 1<<30)
		if err != nil || string(again) != string(good) || len(report.Remade) != 1 || len(report.Damage) != 0 {
			t.Errorf("%s: %v, %+v", what, err, report)
		}
	}
}

// Blocks that two domains hold are healed in each: what belongs to one must not depend on the other.
func TestHealingKeepsDomainsApart(t *testing.T) {
	store, data := initialized(t, repo.Options{}), content(91, 12*smallBlock)
	shared, sealed := onePoint("web", "w1", data), onePoint("web", "w2", data)
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, shared)
	before := map[string]bool{}
	for _, name := range store.Names("packs/") {
		before[name] = true
	}
	copyInto(t, r, repo.IngestOptions{Sealed: true}, sealed)
	for _, name := range store.Names("packs/") {
		if !before[name] {
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeRepo(t, r)
	report, after := healed(t, store)
	wholeAgain(t, "the sealed domain gone", store, []*sourcetest.Point{shared, sealed}, after)
	if report.Blocks == 0 || report.FromDonors != 0 {
		t.Errorf("%+v", report)
	}
	// Now the other domain goes: the sealed one stands by itself.
	for name := range before {
		if err := store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r = must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	if err := compare(t.Context(), r, sealed); err != nil {
		t.Error(err)
	}
	if err := compare(t.Context(), r, shared); err != nil && !errors.Is(err, backup.ErrDamaged) {
		t.Error(err)
	}
}

// Healing that ends between a point's file and its blocks leaves no point that is called whole and is not.
func TestHealingThatIsCutShortCallsNothingWhole(t *testing.T) {
	original, donor, points := twoCopies(t, repo.Options{})
	for _, name := range append(original.Names("points/"), original.Names("packs/")...) {
		if err := original.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, original)
	for after := 1; after <= len(points)+1; after++ {
		store := original.Clone()
		r := must(openSmall(t.Context(), store, ""))(t)
		d := must(openSmall(t.Context(), donor, ""))(t)
		entries := 0
		store.SetFault(memory.InTurn(func(op memory.Op, name string) error {
			writes := op == memory.OpPut || op == memory.OpCreate || op == memory.OpOverwrite
			if writes && entries >= after {
				return errInjected
			}
			if writes && strings.HasPrefix(name, "log/") {
				entries++ // this one is still written
			}
			return nil
		}))
		if _, err := r.Heal(t.Context(), &repo.VerifyReport{}, []*repo.Repository{d}); err == nil {
			t.Fatalf("after %d entries: healing was not cut short", after)
		}
		store.SetFault(nil)
		closeRepo(t, d)
		closeRepo(t, r)
		r = must(openSmall(t.Context(), store, ""))(t)
		for _, p := range points {
			if err := compare(t.Context(), r, p); r.HasWhole(p.ID()) && err != nil {
				t.Errorf("after %d entries %s is called whole: %v", after, p.Native, err)
			}
		}
		closeRepo(t, r)
		_, again := healed(t, store, donor)
		wholeAgain(t, "healed again", store, points, again)
	}
}
