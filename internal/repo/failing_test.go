package repo

import (
	"errors"
	"testing"
	"testing/synctest"

	"ferry/internal/storage/memory"
)

var errLost = errors.New("the storage is lost")

// Who waits for a block that another caller encodes is told when the ingest fails meanwhile, whatever it fails by.
func TestWhoWaitsForTheSameBlockIsToldOfAFailure(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *memory.Store, *Ingest){
		"abandoned": func(_ *testing.T, _ *memory.Store, in *Ingest) { in.Abandon(errLost) },
		"sealer": func(t *testing.T, store *memory.Store, in *Ingest) {
			other := gatedContent(2)
			if _, err := in.StoreBlock(t.Context(), in.BlockID(other), other, CodecNone); err != nil {
				t.Fatal(err)
			}
			store.SetFault(func(memory.Op, string) error { return errLost })
			if err := in.Flush(t.Context()); !errors.Is(err, errLost) {
				t.Errorf("flush: %v", err)
			}
		},
		"closed": func(t *testing.T, _ *memory.Store, in *Ingest) { _ = in.Close(t.Context(), errLost) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				r, err := Init(t.Context(), store, Environment{}, Options{BlockSize: gatedBlock})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				in, err := r.NewIngest(t.Context(), IngestOptions{})
				if err != nil {
					t.Fatal(err)
				}
				block := gatedContent(1)
				id := in.BlockID(block)
				if known, err := in.reserve(t.Context(), id); known || err != nil { // and encodes it from now on
					t.Fatal(known, err)
				}
				second := make(chan error, 1)
				go func() {
					_, err := in.StoreBlock(t.Context(), id, block, CodecNone)
					second <- err
				}()
				synctest.Wait()
				fail(t, store, in)
				if err := <-second; !errors.Is(err, errLost) { // the bubble ends as deadlocked if it sleeps on
					t.Errorf("the second was told %v", err)
				}
				store.SetFault(nil)
				_ = in.Close(t.Context(), errLost)
			})
		})
	}
}
