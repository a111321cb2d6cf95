//go:build integration

package s3

import (
	"testing"
	"time"

	"ferry/internal/storage"
	"ferry/internal/storage/s3"
	"ferry/internal/storage/storagetest"
)

// open opens the store at a location of the server.
func open(t *testing.T, text string) *s3.Store {
	t.Helper()
	location, err := s3.ParseLocation(text)
	if err != nil {
		t.Fatal(err)
	}
	store, err := s3.Open(location, s3.Options{Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func TestContract(t *testing.T) {
	for _, k := range []kind{plain, versioned, locking} {
		t.Run([]string{"plain", "versioned", "locking"}[k], func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storage.Store { return open(t, shared.location(shared.bucket(t, k))) })
		})
	}
}

func TestProbe(t *testing.T) {
	for _, k := range []kind{plain, versioned, locking} {
		store := open(t, shared.location(shared.bucket(t, k)))
		if err := store.Probe(t.Context()); err != nil {
			t.Error(err)
		}
		for info, err := range store.List(t.Context(), "") {
			t.Errorf("the probe left %s, %v", info.Name, err)
		}
	}
}
