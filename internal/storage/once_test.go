package storage_test

import (
	"bytes"
	"context"
	"testing"

	"ferry/internal/answer"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// onceStore is a store whose readers count what is read of them once.
type onceStore struct {
	storage.Store
	once, cached int
}

func (s *onceStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	r, err := s.Store.Open(ctx, name)
	return &onceReader{r, s}, err
}

type onceReader struct {
	storage.Reader
	of *onceStore
}

func (r *onceReader) ReadAt(p []byte, offset int64) (int, error) {
	r.of.cached += len(p)
	return r.Reader.ReadAt(p, offset)
}

func (r *onceReader) ReadOnceAt(p []byte, offset int64) (int, error) {
	r.of.once += len(p)
	return r.Reader.ReadAt(p, offset)
}

// What is read once is read once through a store that may not answer and one that is paced, too, and nothing else is.
func TestReadOncePassesThrough(t *testing.T) {
	content := bytes.Repeat([]byte("once"), 1<<20+1)
	pace := func(context.Context, int) error { return nil }
	for name, wrap := range map[string]func(storage.Store) storage.Store{
		"answering": func(s storage.Store) storage.Store { return storage.Answering(s, &answer.Calls{}) },
		"paced":     func(s storage.Store) storage.Store { return storage.Paced(s, pace, pace) },
		"both": func(s storage.Store) storage.Store {
			return storage.Paced(storage.Answering(s, &answer.Calls{}), pace, pace)
		},
	} {
		t.Run(name, func(t *testing.T) {
			within := &onceStore{Store: memory.New()}
			if err := within.Put(t.Context(), "a", content); err != nil {
				t.Fatal(err)
			}
			reader, err := wrap(within).Open(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			once, ok := reader.(storage.OnceReader)
			if !ok {
				t.Fatal("it cannot be read once")
			}
			into := make([]byte, len(content))
			if n, err := once.ReadOnceAt(into, 0); n != len(into) || err != nil || !bytes.Equal(into, content) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if within.once != len(content) || within.cached != 0 {
				t.Errorf("%d bytes were read once, %d otherwise", within.once, within.cached)
			}
			if _, err := reader.ReadAt(into[:10], 0); err != nil || within.cached != 10 {
				t.Errorf("%d bytes were read otherwise, %v", within.cached, err)
			}
		})
	}
}
