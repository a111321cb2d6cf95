package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// A pack is moved and deleted by others after somebody has opened it and before that one reads it. In a bucket it is gone then.
// That is no failure, and no damage.
func TestPackGoneOnceItIsOpen(t *testing.T) {
	whole := onePoint("m", "p", content(90, 60*smallBlock))
	part := onePoint("m", "q", slices.Clone(whole.Objects[0].Data))
	for i := range 60 {
		if i%4 != 1 {
			clear(part.Objects[0].Data[i*smallBlock : (i+1)*smallBlock])
		}
	}
	base := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), base, ""))(t)
	mustCopyAll(t, r, whole)
	mustCopyAll(t, r, part)
	forget(t, r, whole) // a quarter of each pack is needed
	data := map[string]bool{}
	for name, p := range r.State().Packs.All() {
		if p.Kind == "data" {
			data["packs/"+name.String()[:2]+"/"+name.String()] = true
		}
	}
	closeRepo(t, r)
	for what, do := range map[string]func(*repo.Repository) error{
		"reclaim": func(r *repo.Repository) error {
			r.IgnoreLease()
			_, err := r.Reclaim(t.Context(), repo.ReclaimOptions{Policy: atOnce(), TempDir: scratch})
			return err
		},
		"compact": func(r *repo.Repository) error {
			r.IgnoreLease()
			_, err := r.Compact(t.Context(), repo.CompactOptions{Codec: repo.CodecZstd})
			return err
		},
		"verify": verifying(t, repo.LevelPoints),
		"prove":  verifying(t, repo.LevelStored),
	} {
		t.Run(what, func(t *testing.T) {
			store := base.Clone()
			store.SetReadByName()
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			if err := compare(t.Context(), r, part); err != nil { // and the packs' tables are known then
				t.Fatal(err)
			}
			var once sync.Once
			gone := ""
			opened := map[string]bool{}
			var mu sync.Mutex
			store.SetFault(func(op memory.Op, name string) error {
				mu.Lock()
				first := op == memory.OpRead && opened[name]
				opened[name] = opened[name] || op == memory.OpOpen && data[name]
				mu.Unlock()
				if first {
					once.Do(func() {
						store.SetFault(nil)
						for range 4 {
							reclaimBeside(t, place{store: store})
						}
						gone = name
					})
				}
				return nil
			})
			if err := do(r); err != nil {
				t.Errorf("beside others: %v", err)
			}
			store.SetFault(nil)
			if gone == "" || slices.Contains(store.Names("packs/"), gone) {
				t.Fatalf("%q is there: the test is wrong", gone)
			}
			then := must(openSmall(context.Background(), store, ""))(t)
			defer closeRepo(t, then)
			check(t, then, part)
		})
	}
}

// A pack is moved and deleted by others before it is read, and the log cannot be read for a moment to learn of that: that is an
// error of the storage, and no damage.
func TestPackGoneAndTheLogCannotBeRead(t *testing.T) {
	point := onePoint("m", "p", content(91, 60*smallBlock))
	base := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), base, ""))(t)
	mustCopyAll(t, r, point)
	closeRepo(t, r)
	for name, op := range map[string]memory.Op{"opened": memory.OpOpen, "read": memory.OpRead} {
		t.Run(name, func(t *testing.T) {
			store := base.Clone()
			r := must(openSmall(t.Context(), store, ""))(t)
			defer closeRepo(t, r)
			var gone, failed atomic.Bool
			store.SetFault(func(now memory.Op, name string) error {
				if now == op && strings.HasPrefix(name, "packs/") && gone.CompareAndSwap(false, true) {
					return storage.ErrNotExist
				}
				if gone.Load() && strings.HasPrefix(name, "log") && failed.CompareAndSwap(false, true) {
					return errInjected
				}
				return nil
			})
			report, err := r.VerifyWith(t.Context(), repo.VerifyOptions{Level: repo.LevelStored})
			if !errors.Is(err, errInjected) {
				t.Errorf("%+v, %v", report, err)
			}
			store.SetFault(nil)
			check(t, r, point)
		})
	}
}

// verifying is an error where damage is found.
func verifying(t *testing.T, level repo.Level) func(*repo.Repository) error {
	return func(r *repo.Repository) error {
		report, err := r.VerifyWith(t.Context(), repo.VerifyOptions{Level: level})
		if err == nil && len(report.Damage)+len(report.Healed) > 0 {
			err = fmt.Errorf("damage: %+v, healed %+v", report.Damage, report.Healed)
		}
		return err
	}
}
