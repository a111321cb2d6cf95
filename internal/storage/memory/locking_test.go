package memory

import (
	"errors"
	"testing"
	"time"

	"ferry/internal/storage"
)

// What is locked, as it is published or later, is neither deleted nor replaced before its time, also by who cannot lock; a lock is
// never shortened.
func TestLocking(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 10, time.UTC)
	store, ctx := New(), t.Context()
	store.SetClock(func() time.Time { return now })
	locking, soon, late := store.Locking(), now.Add(time.Hour), now.Add(2*time.Hour)
	must(t, locking.LockNew(storage.Compliance, func(name string) time.Time {
		if name == "marks/free" {
			return time.Time{}
		}
		return soon
	}))
	must(t, locking.Put(ctx, "log/1", []byte("content")))
	must(t, locking.Put(ctx, "marks/free", nil))
	w, err := locking.Create(ctx, "packs/1")
	must(t, err)
	must(t, w.Commit(ctx))
	must(t, store.Put(ctx, "packs/2", nil))
	for _, name := range []string{"packs/1", "packs/2"} {
		must(t, locking.Lock(ctx, name, storage.Compliance, late))
		must(t, locking.Lock(ctx, name, storage.Compliance, soon))
	}
	if err := locking.Lock(ctx, "packs/9", storage.Compliance, late); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("locking what is not there: %v", err)
	}
	must(t, locking.Delete(ctx, "marks/free"))
	clone := store.Clone()
	for name, want := range map[string]time.Time{"log/1": soon, "packs/1": late, "packs/2": late} {
		if until, err := locking.LockedUntil(ctx, name); err != nil || !until.Equal(want) {
			t.Errorf("%s is locked until %v, %v, want %v", name, until, err, want)
		}
		for _, err := range []error{store.Delete(ctx, name), clone.Overwrite(ctx, name, nil)} {
			var locked *storage.LockedError
			if !errors.As(err, &locked) || !locked.Until.Equal(want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	now = late
	must(t, store.Delete(ctx, "packs/1"))
}
