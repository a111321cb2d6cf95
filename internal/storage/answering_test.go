package storage_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"ferry/internal/answer"
	"ferry/internal/idle"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
	"ferry/internal/storage/storagetest"
)

// A store whose calls can be left behind keeps the promises of a store.
func TestAnsweringStore(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return storage.Answering(memory.New(), &answer.Calls{}) })
}

// distantStore is one each of whose reads is a request.
type distantStore struct{ storage.Store }

func (distantStore) ParallelReads() int { return 8 }

// What a distant store is asked for is one request, however large.
func TestReadOfADistantStoreIsOneCall(t *testing.T) {
	for _, c := range []struct {
		distant bool
		reads   int64
	}{{true, 1}, {false, 5}} {
		within := memory.New()
		content := bytes.Repeat([]byte{7}, 4<<20+1)
		if err := within.Put(t.Context(), "a", content); err != nil {
			t.Fatal(err)
		}
		store := storage.Store(within)
		if c.distant {
			store = distantStore{within}
		}
		reader, err := storage.Answering(store, &answer.Calls{}).Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		var reads atomic.Int64
		within.SetFault(func(op memory.Op, _ string) error {
			if op == memory.OpRead {
				reads.Add(1)
			}
			return nil
		})
		into := make([]byte, len(content))
		if n, err := reader.ReadAt(into, 0); n != len(content) || err != nil || !bytes.Equal(into, content) || reads.Load() != c.reads {
			t.Errorf("distant %t: %d bytes in %d reads, %v", c.distant, n, reads.Load(), err)
		}
	}
}

// Once a call was left behind nothing more is asked through the store, and what the call was to read into is the caller's again.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		within := memory.New()
		content := bytes.Repeat([]byte{7}, 3<<20)
		if err := within.Put(t.Context(), "a", content); err != nil {
			t.Fatal(err)
		}
		answers := make(chan struct{})
		var asked atomic.Int64
		var calls answer.Calls
		store := storage.Answering(within, &calls)
		reader, err := store.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		into := make([]byte, len(content))
		if n, err := reader.ReadAt(into, 0); n != len(content) || err != nil || !bytes.Equal(into, content) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		within.SetFault(func(op memory.Op, _ string) error {
			if asked.Add(1); op == memory.OpRead {
				<-answers
			}
			return nil
		})
		work, end := context.WithCancel(t.Context())
		ctx := answer.Ending(work)
		finishing := context.WithoutCancel(ctx)
		ended := time.Now().Add(time.Hour)
		time.AfterFunc(time.Hour, end)
		clear(into)
		if n, err := storage.ReadAt(finishing, reader, into, 0); n != 0 || !errors.Is(err, answer.ErrNone) || time.Since(ended) != answer.Finishing {
			t.Errorf("%d bytes, %v, %s after the end", n, err, time.Since(ended))
		}
		if err := store.Put(t.Context(), "b", nil); !errors.Is(err, answer.ErrNone) {
			t.Errorf("put: %v", err)
		}
		if _, err := store.Stat(t.Context(), "a"); !errors.Is(err, answer.ErrNone) {
			t.Errorf("stat: %v", err)
		}
		for _, err := range store.List(t.Context(), "") {
			if !errors.Is(err, answer.ErrNone) {
				t.Errorf("list: %v", err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d calls were made", n)
		}
		close(answers)
		synctest.Wait()
		if n, _ := calls.Behind(); n != 0 || bytes.Contains(into, []byte{7}) {
			t.Errorf("%d calls are behind, or what came late was written to what is the caller's", n)
		}
	})
}

// classStore notes the classes of the threads that read.
type classStore struct {
	storage.Store
	classes []uintptr
}

func (s *classStore) note() {
	const process = 1
	class, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, process, 0, 0)
	s.classes = append(s.classes, class>>13)
}

func (s *classStore) Stat(ctx context.Context, name string) (storage.Info, error) {
	s.note()
	return s.Store.Stat(ctx, name)
}

func (s *classStore) List(context.Context, string) iter.Seq2[storage.Info, error] {
	return func(func(storage.Info, error) bool) { s.note() }
}

// Calls for work that gives way are made by threads which read and write only while nobody else does, others are not.
func TestCallsThatGiveWay(t *testing.T) {
	for name, call := range map[string]func(context.Context, storage.Store){
		"stat": func(ctx context.Context, store storage.Store) { _, _ = store.Stat(ctx, "a") },
		"list": func(ctx context.Context, store storage.Store) {
			for range store.List(ctx, "") {
			}
		},
	} {
		within := &classStore{Store: memory.New()}
		store := storage.Answering(within, &answer.Calls{})
		for _, ctx := range []context.Context{t.Context(), idle.Access(t.Context()), t.Context()} {
			call(ctx, store)
		}
		const idleClass = 3
		if c := within.classes; len(c) != 3 || c[0] == idleClass || c[1] != idleClass || c[2] == idleClass {
			t.Errorf("%s: classes %v", name, c)
		}
	}
}
