package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/storage"
	"ferry/internal/storage/storagetest"
)

func TestContract(t *testing.T) {
	for _, lag := range []int{0, 3, -1} {
		t.Run(fmt.Sprintf("ListingLag%d", lag), func(t *testing.T) {
			storagetest.Run(t, func(*testing.T) storage.Store {
				store := New()
				store.SetListingLag(lag)
				return store
			})
		})
	}
}

// list returns the names that a listing shows, sorted, and its error.
func list(ctx context.Context, store *Store, prefix string) ([]string, error) {
	var names []string
	var failed error
	for info, err := range store.List(ctx, prefix) {
		if err != nil {
			failed = err
			continue
		}
		names = append(names, info.Name)
	}
	slices.Sort(names)
	return names, failed
}

func wantNames(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// must ends a test that cannot go on.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFault(t *testing.T) {
	store, ctx, broken := New(), t.Context(), errors.New("broken")
	must(t, store.Put(ctx, "packs/there", []byte("content")))
	for _, op := range []Op{OpCreate, OpWrite, OpCommit, OpPut, OpOverwrite, OpOpen, OpRead, OpStat, OpList, OpDelete, OpSync} {
		hits := 0
		store.SetFault(func(asked Op, name string) error {
			if asked != op {
				return nil
			}
			hits++
			return fmt.Errorf("%s of %s: %w", asked, name, broken)
		})
		if err := use(ctx, store, op); !errors.Is(err, broken) || hits != 1 {
			t.Errorf("%s: %v after %d faults, want one", op, err, hits)
		}
		store.SetFault(nil)
		wantNames(t, string(op), store.Names(""), "packs/there")
	}
}

// use makes a call of the given kind, and those that it needs before.
func use(ctx context.Context, store *Store, op Op) error {
	switch op {
	case OpPut:
		return store.Put(ctx, "packs/new", []byte("content"))
	case OpOverwrite:
		return store.Overwrite(ctx, "packs/new", []byte("content"))
	case OpStat:
		_, err := store.Stat(ctx, "packs/there")
		return err
	case OpList:
		_, err := list(ctx, store, "packs/")
		return err
	case OpDelete:
		return store.Delete(ctx, "packs/there")
	case OpSync:
		return store.SyncDeletes(ctx, "packs/")
	case OpOpen, OpRead:
		_, err := storage.ReadAll(ctx, store, "packs/there", 100)
		return err
	}
	w, err := store.Create(ctx, "packs/new")
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write([]byte("content")); err != nil {
		return err
	}
	return w.Commit(ctx)
}

// TestApplied: the answer to a call is lost, its effect is not.
func TestApplied(t *testing.T) {
	store, ctx, lost := New(), t.Context(), errors.New("connection lost")
	store.SetFault(func(Op, string) error { return Applied(lost) })
	if err := store.Put(ctx, "log/1", []byte("content")); err != lost {
		t.Errorf("put: %v, want the hook's error", err)
	}
	wantNames(t, "after the put", store.Names(""), "log/1")
	names, err := list(ctx, store, "")
	if err != lost {
		t.Errorf("list: %v, want the hook's error", err)
	}
	wantNames(t, "listing that broke off at its end", names, "log/1")
	if err := store.Delete(ctx, "log/1"); err != lost {
		t.Errorf("delete: %v, want the hook's error", err)
	}
	wantNames(t, "after the delete", store.Names(""))
}

// Reads give what the hook makes of them, with the name they are of; what is stored stays.
func TestSpoil(t *testing.T) {
	store, ctx := New(), t.Context()
	must(t, store.Put(ctx, "packs/there", []byte("content")))
	read := func() string {
		content, err := storage.ReadAll(ctx, store, "packs/there", 100)
		must(t, err)
		return string(content)
	}
	store.SetSpoil(func(name string, read []byte) {
		if name != "packs/there" {
			t.Errorf("a read of %s", name)
		}
		read[0] = 'C'
	})
	if got := read(); got != "Content" {
		t.Errorf("read %q through the hook", got)
	}
	store.SetSpoil(nil)
	if got := read(); got != "content" {
		t.Errorf("read %q when the hook is gone", got)
	}
}

// TestCrash: after each number of calls the survivors are a prefix of what was published, and nothing works any more.
func TestCrash(t *testing.T) {
	work := func(ctx context.Context, store *Store) error {
		if err := store.Put(ctx, "packs/1", nil); err != nil {
			return err
		}
		w, err := store.Create(ctx, "packs/2")
		if err != nil {
			return err
		}
		defer w.Abort()
		if _, err := w.Write([]byte("content")); err != nil {
			return err
		}
		if err := w.Commit(ctx); err != nil {
			return err
		}
		return store.Put(ctx, "log/1", nil)
	}
	whole := New()
	must(t, work(t.Context(), whole))
	calls := whole.Calls("")
	if calls != 5 {
		t.Fatalf("%d calls, want 5", calls)
	}
	survivors := []int{0, 1, 1, 1, 2, 3}
	for after := range calls + 1 {
		store := New()
		store.CrashAfter(after)
		err := work(t.Context(), store)
		if (after < calls) != errors.Is(err, ErrCrashed) {
			t.Errorf("crash after %d calls: %v", after, err)
		}
		if _, err := store.Stat(t.Context(), "packs/1"); !errors.Is(err, ErrCrashed) {
			t.Errorf("a call after the crash: %v", err)
		}
		next := store.Clone()
		names, err := list(t.Context(), next, "")
		if err != nil || len(names) != survivors[after] {
			t.Errorf("crash after %d calls left %q, %v, want %d objects", after, names, err, survivors[after])
		}
	}
}

func TestSpace(t *testing.T) {
	store, ctx := New(), t.Context()
	store.SetSpace(10)
	must(t, store.Put(ctx, "a", make([]byte, 4)))
	if free, known, err := store.Free(ctx); free != 6 || !known || err != nil {
		t.Errorf("%d bytes free, known %v, %v", free, known, err)
	}
	w, err := store.Create(ctx, "b")
	must(t, err)
	if n, err := w.Write(make([]byte, 8)); n != 6 || !errors.Is(err, storage.ErrFull) {
		t.Errorf("write of 8 bytes where 6 fit: %d, %v", n, err)
	}
	if err := store.Put(ctx, "c", make([]byte, 1)); !errors.Is(err, storage.ErrFull) {
		t.Errorf("put into a full store: %v", err)
	}
	if err := w.Commit(ctx); !errors.Is(err, storage.ErrFull) {
		t.Errorf("commit after a failed write: %v", err)
	}
	wantNames(t, "full", store.Names(""), "a")
	must(t, store.Put(ctx, "c", make([]byte, 6)))
	must(t, store.Delete(ctx, "a"))
	if err := store.Overwrite(ctx, "c", make([]byte, 5)); !errors.Is(err, storage.ErrFull) {
		t.Errorf("overwrite needs space beside the old content: %v", err)
	}
	must(t, store.Overwrite(ctx, "c", make([]byte, 4)))
	must(t, store.Put(ctx, "a", make([]byte, 6)))
	store.SetSpace(-1)
	must(t, store.Put(ctx, "d", make([]byte, 100)))
}

func TestListingLag(t *testing.T) {
	store, ctx := New(), t.Context()
	store.SetListingLag(2)
	must(t, store.Put(ctx, "a", nil))
	for i, want := range [][]string{nil, nil, {"a"}} {
		names, err := list(ctx, store, "")
		must(t, err)
		wantNames(t, fmt.Sprintf("listing %d", i), names, want...)
	}
	if _, err := store.Stat(ctx, "a"); err != nil {
		t.Error(err)
	}
	store.SetListingLag(-1)
	must(t, store.Delete(ctx, "a"))
	must(t, store.Put(ctx, "b", nil))
	for range 5 {
		names, err := list(ctx, store, "")
		must(t, err)
		wantNames(t, "before it settled", names, "a")
	}
	wantNames(t, "objects", store.Names(""), "b")
	store.Settle()
	names, err := list(ctx, store, "")
	must(t, err)
	wantNames(t, "settled", names, "b")
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, begin := New(), time.Now()
		store.SetLatency(func(op Op, size int) time.Duration {
			if op != OpPut {
				return 0
			}
			return time.Second + time.Duration(size)*time.Minute
		})
		must(t, store.Put(t.Context(), "a", make([]byte, 2)))
		info, err := store.Stat(t.Context(), "a")
		must(t, err)
		if took := info.Modified.Sub(begin); took != 2*time.Minute+time.Second {
			t.Errorf("published after %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := store.Put(ctx, "b", make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put that takes longer than its context: %v", err)
		}
		wantNames(t, "objects", store.Names(""), "a")
	})
}

func TestClock(t *testing.T) {
	store, now := New(), time.Date(2031, 5, 6, 7, 8, 9, 10, time.UTC)
	store.SetClock(func() time.Time { return now })
	must(t, store.Put(t.Context(), "a", nil))
	info, err := store.Clone().Stat(t.Context(), "a")
	if err != nil || !info.Modified.Equal(now) {
		t.Errorf("%+v, %v, want the storage's time", info, err)
	}
}

func TestCounts(t *testing.T) {
	store, ctx := New(), t.Context()
	must(t, store.Put(ctx, "log/1", make([]byte, 10)))
	must(t, store.Put(ctx, "packs/ab/1", make([]byte, 20)))
	if err := store.Put(ctx, "log/1", make([]byte, 10)); !errors.Is(err, storage.ErrExists) {
		t.Fatal(err)
	}
	w, err := store.Create(ctx, "packs/ab/2")
	must(t, err)
	for range 3 {
		if _, err := w.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.Commit(ctx))
	reader, err := store.Open(ctx, "packs/ab/2")
	must(t, err)
	defer reader.Close()
	if n, err := reader.ReadAt(make([]byte, 50), 290); n != 10 || err != io.EOF {
		t.Fatal(n, err)
	}
	for _, c := range []struct {
		op    Op
		kinds []string
		calls int
		bytes int64
	}{
		{OpPut, nil, 3, 30},
		{OpPut, []string{"log"}, 2, 10},
		{OpPut, []string{"log", "packs"}, 3, 30},
		{OpWrite, []string{"packs"}, 3, 300},
		{OpCommit, nil, 1, 0},
		{OpRead, []string{"packs"}, 1, 10},
		{OpRead, []string{"log"}, 0, 0},
		{"", []string{"log"}, 2, 10},
		{"", nil, 10, 340},
	} {
		if calls, bytes := store.Calls(c.op, c.kinds...), store.Bytes(c.op, c.kinds...); calls != c.calls || bytes != c.bytes {
			t.Errorf("%q of %q: %d calls and %d bytes, want %d and %d", c.op, c.kinds, calls, bytes, c.calls, c.bytes)
		}
	}
	store.ResetCounts()
	if store.Calls("") != 0 {
		t.Error("counts after a reset")
	}
}

func TestTamperAndClone(t *testing.T) {
	store, ctx := New(), t.Context()
	must(t, store.Put(ctx, "packs/1", []byte("good")))
	clone := store.Clone()
	must(t, store.Tamper("packs/1", func(content []byte) []byte { content[0] ^= 1; return content[:3] }))
	must(t, clone.Put(ctx, "packs/2", nil))
	for _, c := range []struct {
		store *Store
		want  string
	}{{store, "foo"}, {clone, "good"}} {
		content, err := storage.ReadAll(ctx, c.store, "packs/1", 10)
		if err != nil || string(content) != c.want {
			t.Errorf("%q, %v, want %q", content, err, c.want)
		}
	}
	wantNames(t, "the original", store.Names(""), "packs/1")
	if err := store.Tamper("packs/9", func(content []byte) []byte { return content }); !errors.Is(err, storage.ErrNotExist) {
		t.Error(err)
	}
	must(t, store.Close())
	if _, err := store.Stat(ctx, "packs/1"); err == nil {
		t.Error("a closed store answers")
	}
}

// TestPowerCut: what was published stays; what was deleted or overwritten may come back until its folder is synced; the
// call that is interrupted happens or not.
func TestPowerCut(t *testing.T) {
	found := map[string]map[string]int{"deleted": {}, "synced": {}, "deletes synced": {}, "interrupted": {}, "overwritten": {}, "interrupted delete": {}}
	for seed := range uint64(40) {
		for what, counts := range found {
			store, ctx := New(), t.Context()
			for _, name := range []string{"packs/a/1", "packs/b/2", "log/1"} {
				must(t, store.Put(ctx, name, []byte("old")))
			}
			switch what {
			case "deleted":
				must(t, store.Delete(ctx, "packs/a/1"))
				must(t, store.Put(ctx, "packs/b/3", nil)) // syncs another folder
			case "synced":
				must(t, store.Delete(ctx, "packs/a/1"))
				w, err := store.Create(ctx, "packs/a/3")
				must(t, err)
				must(t, w.Commit(ctx))
			case "deletes synced":
				must(t, store.Delete(ctx, "packs/a/1"))
				must(t, store.Delete(ctx, "packs/b/2"))
				must(t, store.SyncDeletes(ctx, "packs/a/"))
			case "interrupted":
				store.CrashAfter(0)
				if err := store.Put(ctx, "log/2", []byte("new")); !errors.Is(err, ErrCrashed) {
					t.Fatal(err)
				}
				_ = store.Put(ctx, "log/3", nil)
			case "interrupted delete":
				store.CrashAfter(0)
				_ = store.Delete(ctx, "log/1")
			case "overwritten":
				must(t, store.Overwrite(ctx, "log/1", []byte("new")))
			}
			next := store.PowerCut(rand.New(rand.NewPCG(seed, 1)))
			listed, err := list(ctx, next, "")
			must(t, err)
			slices.Sort(listed)
			wantNames(t, "listed", next.Names(""), listed...)
			content, _ := storage.ReadAll(ctx, next, "log/1", 10)
			counts[fmt.Sprint(listed, " ", string(content))]++
		}
	}
	for what, want := range map[string][]string{
		"deleted":            {"[log/1 packs/a/1 packs/b/2 packs/b/3] old", "[log/1 packs/b/2 packs/b/3] old"},
		"synced":             {"[log/1 packs/a/3 packs/b/2] old"},
		"deletes synced":     {"[log/1 packs/b/2] old", "[log/1] old"},
		"interrupted":        {"[log/1 log/2 packs/a/1 packs/b/2] old", "[log/1 packs/a/1 packs/b/2] old"},
		"overwritten":        {"[log/1 packs/a/1 packs/b/2] new", "[log/1 packs/a/1 packs/b/2] old"},
		"interrupted delete": {"[log/1 packs/a/1 packs/b/2] old", "[packs/a/1 packs/b/2] "},
	} {
		if got := slices.Sorted(maps.Keys(found[what])); !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", what, got, want)
		}
	}
}
