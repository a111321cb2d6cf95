package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// Others work at any moment of a verification: what they make and what they remove meanwhile is no damage.
func TestVerifyBesideOthers(t *testing.T) {
	first, second := newHolder(t, "first"), newHolder(t, "second")
	var points []*sourcetest.Point
	for day := 1; day <= 4; day++ {
		point := onePoint("m", string(rune('a'+day)), content(uint64(day), 6*smallBlock))
		point.Created = at(day)
		points = append(points, point)
	}
	base := encryptedFor(t, first, second)
	r := must(repo.Open(t.Context(), base, repo.Environment{Keys: keysOf{first}, CacheDir: t.TempDir()}))(t)
	mustCopyAll(t, r, points...)
	nightly := repo.JobRecord{Job: "nightly", Memory: []byte("{}")}
	if err := errors.Join(r.WriteCheckpoint(t.Context()), r.WriteJob(t.Context(), nightly)); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	for what, do := range map[string]func(testing.TB, *repo.Repository){
		"keys are rotated": func(t testing.TB, other *repo.Repository) {
			must(other.RotateKeys(t.Context(), repo.RotateOptions{}))(t) // writes a checkpoint, too
			if err := other.WriteJob(t.Context(), nightly); err != nil {
				t.Error(err)
			}
		},
		"points are removed": func(t testing.TB, other *repo.Repository) {
			forget(t, other, points[1:3]...)
			for range 3 {
				must(other.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch}))(t)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			met := true
			for moment := 1; met; moment++ {
				store, calls := base.Clone(), 0
				hooked := &between{Store: store, when: func(memory.Op, string) bool { calls++; return calls == moment }}
				r := openAs(t, hooked, second)
				other := openAs(t, store, first)
				met, calls, hooked.do = false, 0, func() { met = true; do(t, other) }
				report, err := r.VerifyWith(t.Context(), repo.VerifyOptions{})
				if err != nil || len(report.Damage) > 0 {
					t.Errorf("call %d: damage %+v, %v", moment, report, err)
				}
				if list := must(openAs(t, store, second).VerifyWith(t.Context(), repo.VerifyOptions{}))(t).Damage; len(list) > 0 {
					t.Errorf("call %d: %+v afterwards", moment, list)
				}
			}
		})
	}
}

// A storage that fails while points are read and followed, whose packs were proven before, is an error of the storage and no damage. One
// that answers, and has a place that cannot be read, is damage. Of a point's file it is not noted: another time it may be read. So it is
// of what is derived.
func TestVerifyWhileTheStorageFails(t *testing.T) {
	for what, fails := range map[string]map[memory.Op]bool{
		"of all":       {memory.OpOpen: true, memory.OpRead: true, memory.OpStat: true},
		"of its reads": {memory.OpRead: true},
	} {
		for _, folder := range []string{"packs/", "points/", "index/"} {
			store, cache := initialized(t, repo.Options{}), newCache(t)
			r := must(openSmall(t.Context(), store, cache))(t)
			mustCopyAll(t, r, threeMachines()...)
			must(r.Reindex(t.Context(), false, nil))(t)
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, cache))(t)
			verified(t, r, repo.VerifyOptions{})
			closeRepo(t, r)
			r = must(openSmall(t.Context(), store, cache))(t)
			defer closeRepo(t, r)
			store.SetFault(func(op memory.Op, name string) error {
				if fails[op] && strings.HasPrefix(name, folder) {
					return errInjected
				}
				return nil
			})
			report, err := r.VerifyWith(t.Context(), repo.VerifyOptions{NotSince: time.Hour})
			store.SetFault(nil)
			switch noted := len(r.State().Damaged) > 0; {
			case fails[memory.OpStat] && (!errors.Is(err, errInjected) || noted):
				t.Errorf("%s, %s: %+v, %v, points noted as damaged: %v", what, folder, report, err, noted)
			case !fails[memory.OpStat] && (err != nil || len(report.Damage) == 0 || noted != (folder == "packs/")):
				t.Errorf("%s, %s: %+v, %v, points noted as damaged: %v", what, folder, report, err, noted)
			}
		}
	}
}
