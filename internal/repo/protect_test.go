package repo_test

import (
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage/memory"
)

func TestEachPackHasItsParityBeforeTheLogNamesIt(t *testing.T) {
	store := initialized(t, repo.Options{Parity: &repo.Parity{Data: 20, Parity: 2}})
	store.SetFault(func(op memory.Op, name string) error {
		if (op == memory.OpPut || op == memory.OpCreate) && len(name) > 4 && name[:4] == "log/" {
			if packs, files := len(store.Names("packs/")), len(store.Names("parity/")); packs != files {
				t.Errorf("%d packs and %d parity files before %s", packs, files, name)
			}
		}
		return nil
	})
	r := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, r)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	check(t, r, points...)
	files, size := store.Names("parity/"), int64(0)
	for _, name := range files {
		size += must(store.Stat(t.Context(), name))(t).Size
	}
	if usage := r.Usage(); usage.Packs != len(files) || len(files) < 4 || usage.ParityBytes != size {
		t.Errorf("%d parity files of %d bytes, usage says %+v", len(files), size, usage)
	}
}
