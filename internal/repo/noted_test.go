package repo_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// damagedRepository holds one point, and returns another that is an increment of it: all but a few bytes are equal.
func damagedRepository(t *testing.T) (store *memory.Store, first, second *sourcetest.Point) {
	t.Helper()
	store = initialized(t, repo.Options{})
	data := content(21, 30*smallBlock)
	first = &sourcetest.Point{Machine: sourcetest.Machine("web"), Native: "1", Created: at(1), Objects: []sourcetest.Object{
		{Name: "vda", Data: data, Access: source.AccessRandom},
	}}
	second = &sourcetest.Point{Machine: first.Machine, Native: "2", Created: at(2), Base: first, Objects: []sourcetest.Object{
		{Name: "vda", Data: changed(data, 22, len(data)), Access: source.AccessRandom},
	}}
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, first)
	closeRepo(t, r)
	return store, first, second
}

// machinesDamaged counts the damage that touches points.
func machinesDamaged(report *repo.VerifyReport) int {
	n := 0
	for _, d := range report.Damage {
		if d.Machine != "" {
			n++
		}
	}
	return n
}

func verify(t *testing.T, store storage.Store) *repo.VerifyReport {
	t.Helper()
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	return must(r.Verify(t.Context(), nil))(t)
}

func TestNothingIsDeduplicatedAgainstDamageThatVerifyFound(t *testing.T) {
	for what, damage := range map[string]func(store *memory.Store, pack string) error{
		"a flipped bit in a frame": func(store *memory.Store, pack string) error {
			return store.Tamper(pack, func(raw []byte) []byte { raw[64+96+10] ^= 4; return raw })
		},
		"a flipped bit in the table": func(store *memory.Store, pack string) error {
			return store.Tamper(pack, func(raw []byte) []byte { raw[len(raw)-80] ^= 4; return raw })
		},
		"half a pack": func(store *memory.Store, pack string) error {
			return store.Tamper(pack, func(raw []byte) []byte { return raw[:len(raw)/2] })
		},
		"a pack that is gone": func(store *memory.Store, pack string) error {
			return store.Delete(context.Background(), pack)
		},
	} {
		t.Run(what, func(t *testing.T) {
			store, first, second := damagedRepository(t)
			for _, pack := range store.Names("packs/") {
				if err := damage(store, pack); err != nil {
					t.Fatal(err)
				}
			}
			report := verify(t, store)
			if report.Noted == 0 || len(report.Damage) == 0 {
				t.Fatalf("verify noted %d places of %d", report.Noted, len(report.Damage))
			}
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			mustCopyAll(t, r, second)
			if err := compare(t.Context(), r, second); err != nil {
				t.Errorf("copied after the damage was found, and not whole: %v", err)
			}
			// What both points share is healed by that, what only the first had is still missed.
			if err := compare(t.Context(), r, first); err != nil && !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("the first point: %v", err)
			}
			for _, d := range verify(t, store).Damage {
				if d.Point == second.ID().String() {
					t.Errorf("the new point is damaged: %+v", d)
				}
			}
		})
	}
}

func TestDamageThatIsMendedIsForgotten(t *testing.T) {
	store, first, second := damagedRepository(t)
	pack := store.Names("packs/")[0]
	good := must(storage.ReadAll(t.Context(), store, pack, 1<<30))(t)
	if err := store.Tamper(pack, func(raw []byte) []byte {
		raw = bytes.Clone(raw)
		raw[64+96+10] ^= 4
		return raw
	}); err != nil {
		t.Fatal(err)
	}
	if report := verify(t, store); report.Noted != 1 {
		t.Fatalf("verify noted %d places, want 1", report.Noted)
	}
	entries := len(store.Names("log/"))
	if report := verify(t, store); report.Noted != 1 || len(store.Names("log/")) != entries {
		t.Fatal("the same damage was noted twice")
	}
	if err := store.Tamper(pack, func([]byte) []byte { return good }); err != nil {
		t.Fatal(err)
	}
	if report := verify(t, store); report.Noted != 0 || len(report.Damage) != 0 {
		t.Fatalf("the file is back, and verify says %+v", report)
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	report := mustCopyAll(t, r, second)
	if report.Steps[0].Result.Base != first.ID() {
		t.Error("the increment was read whole, though nothing is damaged any more")
	}
	check(t, r, first, second)
}

func TestVerifyOfAReadOnlyRepositorySaysThatItCouldNotNote(t *testing.T) {
	store, _, _ := damagedRepository(t)
	pack := store.Names("packs/")[0]
	if err := store.Delete(t.Context(), pack); err != nil {
		t.Fatal(err)
	}
	store.SetFault(func(op memory.Op, _ string) error {
		if op == memory.OpPut || op == memory.OpCreate {
			return errors.New("read-only file system")
		}
		return nil
	})
	report := verify(t, store)
	if len(report.Damage) == 0 || machinesDamaged(report) == 0 || report.Noted != 0 {
		t.Fatalf("verify says %+v", report)
	}
	if !strings.Contains(strings.Join(report.Warnings, "\n"), "could not be noted") {
		t.Fatalf("warnings %q", report.Warnings)
	}
}

// What the log says is damaged is listed as it was when it was found: in order, neighbours as one range.
func TestDamageThatIsRecalledIsListedInOrder(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	data := make([]byte, 30*smallBlock)
	for i := range data {
		data[i] = byte(i*i>>9 ^ i) // no block of zeros, all of the same length in a pack
	}
	mustCopyAll(t, r, onePoint("a", "a", data))
	for name := range filesOf(r, "data") {
		if err := store.Tamper(name, func(raw []byte) []byte {
			for i := len(raw) / 4; i < len(raw)*3/4; i += 64 {
				raw[i] ^= 1
			}
			return raw
		}); err != nil {
			t.Fatal(err)
		}
	}
	ranges := func(report *repo.VerifyReport) (all []string) {
		for _, d := range report.Damage {
			if d.Machine == "" {
				d.Reason = ""
				all = append(all, d.Place())
			}
		}
		return all
	}
	found := ranges(must(r.Verify(t.Context(), nil))(t))
	again := must(r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelPoints, NotSince: time.Hour}))(t)
	if again.Packs != 0 || again.Noted <= len(found) || len(found) == 0 {
		t.Fatalf("%d packs were read again, %d places are noted, %q", again.Packs, again.Noted, found)
	}
	recalled := ranges(again)
	slices.Sort(found)
	slices.Sort(recalled)
	inOrder := slices.IsSortedFunc(again.Damage[:len(recalled)], func(a, b repo.Damage) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
	})
	if !inOrder || !slices.Equal(recalled, found) {
		t.Errorf("found %q\nrecalled %q, in order %v", found, recalled, inOrder)
	}
}
