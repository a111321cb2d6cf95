package storage_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"ferry/internal/storage"
	"ferry/internal/storage/memory"
	"ferry/internal/storage/storagetest"
)

// counted is a pace that lets everything pass, and how much that was.
func counted(total, largest *atomic.Int64) storage.Pace {
	return func(_ context.Context, n int) error {
		total.Add(int64(n))
		largest.Store(max(largest.Load(), int64(n)))
		return nil
	}
}

// A store at a pace promises what any store does.
func TestPacedContract(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store {
		var total, largest atomic.Int64
		return storage.Paced(memory.New(), counted(&total, &largest), counted(&total, &largest))
	})
}

// Every byte of an object that is written or read is told of, in pieces, and an error of the pace is that of the call.
func TestPaced(t *testing.T) {
	var sent, received, largest atomic.Int64
	inner, ctx := memory.New(), t.Context()
	store := storage.Paced(inner, counted(&sent, &largest), counted(&received, &largest))
	content := bytes.Repeat([]byte("content "), 40_000)
	w, err := store.Create(ctx, "a")
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Commit(ctx)
	}
	if err = errors.Join(err, store.Put(ctx, "b", content), store.Overwrite(ctx, "marks/c", content)); err != nil {
		t.Fatal(err)
	}
	if want := int64(3 * len(content)); sent.Load() != want || received.Load() != 0 {
		t.Errorf("%d bytes sent, %d received, want %d and none", sent.Load(), received.Load(), want)
	}
	got, err := storage.ReadAll(ctx, store, "a", 1<<20)
	if err != nil || !bytes.Equal(got, content) || received.Load() != int64(len(content)) {
		t.Errorf("read %d bytes, %d received, %v", len(got), received.Load(), err)
	}
	if largest.Load() > 64<<10 {
		t.Errorf("%d bytes passed at once", largest.Load())
	}

	stopped := errors.New("stopped")
	refuses := func(context.Context, int) error { return stopped }
	store = storage.Paced(inner, refuses, refuses)
	w, err = store.Create(ctx, "d")
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.Write(content)
	w.Abort()
	if n != 0 || !errors.Is(err, stopped) {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
	if err := store.Put(ctx, "d", content); !errors.Is(err, stopped) {
		t.Error(err)
	}
	if _, err := storage.ReadAll(ctx, store, "a", 1<<20); !errors.Is(err, stopped) {
		t.Error(err)
	}
	if storage.Paced(inner, nil, nil) != storage.Store(inner) {
		t.Error("without a pace the store is another one")
	}
	if told := map[storage.Store]bool{store: true}; !told[store] { // as those who mend keep what each copy said
		t.Error("it is no key of a map")
	}
}

// asked counts the calls by which objects are read.
type asked struct {
	storage.Store
	wholes, opens atomic.Int64
}

func (s *asked) ReadAll(ctx context.Context, name string, limit int64) ([]byte, error) {
	s.wholes.Add(1)
	return storage.ReadAll(ctx, s.Store, name, limit)
}

func (s *asked) Open(ctx context.Context, name string) (storage.Reader, error) {
	s.opens.Add(1)
	return s.Store.Open(ctx, name)
}

// What is small is read by one call and told of; what is not is opened, and passes in pieces; a limit and an error of the pace hold.
func TestPacedReadsSmallObjectsByOneCall(t *testing.T) {
	var received, largest atomic.Int64
	inner, ctx := &asked{Store: memory.New()}, t.Context()
	store := storage.Paced(inner, nil, counted(&received, &largest))
	for name, size := range map[string]int{"small": 64 << 10, "large": 64<<10 + 1} {
		if err := store.Put(ctx, name, bytes.Repeat([]byte("a"), size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name            string
		limit           int64
		size            int
		received, opens int64
		err             error
	}{
		{"small", 1 << 20, 64 << 10, 64 << 10, 0, nil},
		{"small", 100, 0, 64 << 10, 0, storage.ErrTooLarge},
		{"large", 1 << 20, 64<<10 + 1, 128<<10 + 1, 1, nil},
		{"large", 64 << 10, 0, 128<<10 + 1, 1, storage.ErrTooLarge},
		{"missing", 1 << 20, 0, 128<<10 + 1, 1, storage.ErrNotExist},
	} {
		got, err := storage.ReadAll(ctx, store, c.name, c.limit)
		if len(got) != c.size || !errors.Is(err, c.err) || received.Load() != c.received || inner.opens.Load() != c.opens {
			t.Errorf("%+v: %d bytes, %v; %d received, %d opened", c, len(got), err, received.Load(), inner.opens.Load())
		}
	}
	if largest.Load() > 64<<10 {
		t.Errorf("%d bytes passed at once", largest.Load())
	}
	stopped := errors.New("stopped")
	refused := storage.Paced(inner, nil, func(context.Context, int) error { return stopped })
	for _, name := range []string{"small", "large"} {
		if got, err := storage.ReadAll(ctx, refused, name, 1<<20); got != nil || !errors.Is(err, stopped) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
