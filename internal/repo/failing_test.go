package repo

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"ferry/internal/repo/pack"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

var errLost = errors.New("the storage is lost")

// Who waits for a block that another caller encodes is told when the ingest fails meanwhile, whatever it fails by.
func TestWhoWaitsForTheSameBlockIsToldOfAFailure(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *memory.Store, *Ingest){
		"abandoned": func(_ *testing.T, _ *memory.Store, in *Ingest) { in.Abandon(errLost) },
		"sealer": func(t *testing.T, store *memory.Store, in *Ingest) {
			other := gatedContent(2)
			if _, err := in.store(t.Context(), pack.KindBlock, in.BlockID(other), other, CodecNone); err != nil { // as healing does
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
				in := ingestInto(t, store, IngestOptions{})
				block := gatedContent(1)
				id := in.BlockID(block)
				if known, err := in.reserve(t.Context(), id, notLooked); known || err != nil { // and encodes it from now on
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

// An ingest that is abandoned while it writes down ends with why it was, and not with the interruption that this is.
func TestAbandonedIngestEndsWithItsCause(t *testing.T) {
	store := memory.New()
	in := ingestInto(t, store, IngestOptions{})
	block := gatedContent(1)
	if _, err := in.StoreBlock(t.Context(), in.BlockID(block), block, CodecNone); err != nil {
		t.Fatal(err)
	}
	store.SetFault(func(op memory.Op, _ string) error {
		if op == memory.OpCommit {
			in.Abandon(errLost)
		}
		return in.ctx.Err()
	})
	if err := in.Close(t.Context(), nil); !errors.Is(err, errLost) {
		t.Errorf("close: %v", err)
	}
}

// Of the packs of a seal that are made durable at once one fails: those that are durable are named in the log, the others leave
// nothing behind.
func TestPacksThatAreDurableAreKeptThoughAnotherFails(t *testing.T) {
	const packs = 4
	for fails := range packs {
		t.Run(strconv.Itoa(fails), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, in := newGatedStore(t, packs, packs, IngestOptions{})
				var storing sync.WaitGroup
				for i := range 100 {
					storing.Go(func() {
						block := gatedContent(i)
						_, _ = in.StoreBlock(t.Context(), in.BlockID(block), block, CodecNone)
					})
				}
				synctest.Wait() // until no pack takes more
				var commits atomic.Int64
				store.SetFault(func(op memory.Op, name string) error {
					if op == memory.OpCommit && strings.HasPrefix(name, "packs/") && commits.Add(1) == int64(fails+1) {
						return fmt.Errorf("injected: %w", storage.ErrFull)
					}
					return nil
				})
				flushed := make(chan error, 1)
				go func() { flushed <- in.Flush(t.Context()) }()
				synctest.Wait()
				close(store.gate)
				if err := <-flushed; !errors.Is(err, storage.ErrFull) {
					t.Errorf("flush: %v", err)
				}
				storing.Wait()
				if err := in.Close(t.Context(), nil); !errors.Is(err, storage.ErrFull) {
					t.Errorf("close: %v", err)
				}
				lie, named := len(store.Names("packs/")), in.repo.state.Packs.Len()
				if lie != packs-1 || named != packs-1 {
					t.Errorf("%d packs lie there, the log has %d, want %d", lie, named, packs-1)
				}
				if err := in.repo.Close(); err != nil {
					t.Error(err)
				}
				store.SetFault(nil)
				r, err := Open(t.Context(), store, Environment{})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				report, err := r.VerifyWith(t.Context(), VerifyOptions{Level: LevelBlocks})
				if err != nil || len(report.Damage) > 0 || report.Packs != packs-1 {
					t.Errorf("%+v, %v", report, err)
				}
			})
		})
	}
}

// A pack that the storage gives when the ingest has failed and closed meanwhile is dropped.
func TestPackThatComesTooLateIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		in := ingestInto(t, store, IngestOptions{})
		asked := make(chan struct{})
		store.SetFault(func(op memory.Op, _ string) error {
			if op == memory.OpCreate {
				<-asked
			}
			return nil
		})
		stored := make(chan error, 1)
		go func() {
			block := gatedContent(1)
			_, err := in.StoreBlock(t.Context(), in.BlockID(block), block, CodecNone)
			stored <- err
		}()
		synctest.Wait()
		in.fail(errLost)
		in.mu.Lock()
		in.data.take() // as withRoom and Close do
		in.mu.Unlock()
		close(asked)
		if err := <-stored; !errors.Is(err, errLost) {
			t.Errorf("stored: %v", err)
		}
		if left := len(in.data.packs); left > 0 {
			t.Errorf("%d packs are left open", left)
		}
		_ = in.Close(t.Context(), errLost)
	})
}
