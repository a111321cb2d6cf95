package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"ferry/internal/backup"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// gatedStore is a storage whose writes to packs wait for the gate. It notes what the storage is asked for.
type gatedStore struct {
	*memory.Store
	gate chan struct{}

	mu sync.Mutex
	// created counts packs, writing those that are written to now, and most is how many there were at once.
	created, writing, most int
	// puts counts what is put or committed now, mostPuts how many there were at once; alone is false if something was on its way
	// when an entry of the log was put.
	puts, mostPuts int
	alone          bool
}

// newGatedStore is one with a repository, whose gate is shut, and an ingest of it.
func newGatedStore(t *testing.T, written, put int, options IngestOptions) (*gatedStore, *Ingest) {
	t.Helper()
	s := &gatedStore{Store: memory.New(), gate: make(chan struct{}), alone: true}
	s.SetParallelWrites(written, put)
	close(s.gate)
	in := ingestInto(t, s, options)
	s.gate = make(chan struct{})
	return s, in
}

// ingestInto is an ingest of a repository that is made in a storage, and closed at the test's end.
func ingestInto(t *testing.T, store storage.Store, options IngestOptions) *Ingest {
	t.Helper()
	r, err := Init(t.Context(), store, Environment{}, Options{BlockSize: gatedBlock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	in, err := r.NewIngest(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

const gatedBlock = 1 << 20

func (s *gatedStore) Create(ctx context.Context, name string) (storage.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created++
	return &gatedWriter{w, s}, err
}

type gatedWriter struct {
	storage.Writer
	store *gatedStore
}

func (w *gatedWriter) Write(p []byte) (int, error) {
	s := w.store
	s.mu.Lock()
	s.writing++
	s.most = max(s.most, s.writing)
	s.mu.Unlock()
	<-s.gate
	s.mu.Lock()
	s.writing--
	s.mu.Unlock()
	return w.Writer.Write(p)
}

func (w *gatedWriter) Commit(ctx context.Context) error {
	defer w.store.put("packs/")()
	return w.Writer.Commit(ctx)
}

func (s *gatedStore) Put(ctx context.Context, name string, content []byte) error {
	defer s.put(name)()
	return s.Store.Put(ctx, name, content)
}

// put notes that something is made durable, until what it returns is called: when all others have begun that can.
func (s *gatedStore) put(name string) (done func()) {
	s.mu.Lock()
	s.puts++
	s.mostPuts = max(s.mostPuts, s.puts)
	if strings.HasPrefix(name, "log/") && s.puts > 1 {
		s.alone = false
	}
	s.mu.Unlock()
	<-s.gate
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.puts--
	}
}

func gatedContent(i int) []byte {
	block := bytes.Repeat([]byte("a block that is stored as it is. "), gatedBlock/32)[:gatedBlock]
	binary.LittleEndian.PutUint64(block, uint64(i))
	return block
}

// While the storage takes nothing those who store new blocks wait for it, in bounded memory, and nobody else does. Several packs
// are written at once where the storage says that it pays off, and never in a sealed domain.
func TestNobodyElseWaitsForTheStorage(t *testing.T) {
	for _, c := range []struct {
		written, packs int
		options        IngestOptions
	}{{1, 1, IngestOptions{}}, {4, 4, IngestOptions{}}, {4, 1, IngestOptions{Sealed: true}}} {
		synctest.Test(t, func(t *testing.T) {
			store, in := newGatedStore(t, c.written, 8, c.options)
			defer in.repo.Close()
			known := gatedContent(-1)
			if _, err := in.StoreBlock(t.Context(), in.BlockID(known), known, CodecNone); err != nil {
				t.Fatal(err)
			}
			const blocks = 100
			var storing sync.WaitGroup
			for i := range blocks {
				storing.Go(func() {
					block := gatedContent(i)
					if _, err := in.StoreBlock(t.Context(), in.BlockID(block), block, CodecNone); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if !in.mu.TryLock() {
				t.Fatal("the lock is held while the storage is waited for")
			}
			in.mu.Unlock()
			if !in.Behind() {
				t.Error("the storage is not behind")
			}
			if _, err := in.StoreBlock(t.Context(), in.BlockID(known), known, CodecNone); err != nil {
				t.Error(err)
			}
			if store.created != c.packs || store.most != c.packs {
				t.Errorf("%d packs were begun and %d written to at once, want %d", store.created, store.most, c.packs)
			}
			if waiting, most := in.Stats().Stored.Load(), int64(c.packs*(chunksBehind+3)*chunkSize); waiting > most {
				t.Errorf("%d bytes wait for the storage, want at most %d", waiting, most)
			}
			close(store.gate)
			storing.Wait()
			if err := in.Close(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if got := in.Stats().NewBlocks.Load(); got != blocks+1 {
				t.Errorf("%d blocks were stored", got)
			}
			if packs := int64(len(store.Names("packs/"))); packs != in.Stats().Packs.Load() || in.repo.state.Packs.Len() != int(packs) {
				t.Errorf("%d packs lie there, %d were sealed, the log has %d", packs, in.Stats().Packs.Load(), in.repo.state.Packs.Len())
			}
			report, err := in.repo.VerifyWith(t.Context(), VerifyOptions{Level: LevelBlocks})
			if err != nil || len(report.Damage) > 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

// Who gives up while the storage is behind is let go at once, and ends nothing for the others: one of those who wait for the same block
// stores it.
func TestWhoGivesUpDoesNotWaitForTheStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, in := newGatedStore(t, 1, 8, IngestOptions{})
		defer in.repo.Close()
		filled := 0
		for ; !in.Behind(); filled++ {
			block := gatedContent(filled)
			if _, err := in.StoreBlock(t.Context(), in.BlockID(block), block, CodecNone); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		block := gatedContent(-1)
		begin := func(ctx context.Context) chan error { // first come, first to store it
			ended := make(chan error, 1)
			go func() {
				_, err := in.StoreBlock(ctx, in.BlockID(block), block, CodecNone)
				ended <- err
			}()
			synctest.Wait()
			return ended
		}
		ctx, cancel := context.WithCancel(t.Context())
		storing, alike, staying := begin(ctx), begin(ctx), begin(t.Context())
		cancel()
		synctest.Wait()
		for _, ended := range []chan error{storing, alike} {
			select {
			case err := <-ended:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("who gave up has %v", err)
				}
			default:
				t.Error("who gave up waits still")
			}
		}
		if err := in.Failed(); err != nil || len(staying) > 0 {
			t.Errorf("the others do not go on: %v", err)
		}
		close(store.gate)
		if err := <-staying; err != nil {
			t.Error(err)
		}
		if err := in.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := in.Stats().NewBlocks.Load(); got != int64(filled+1) {
			t.Errorf("%d blocks were stored, not %d", got, filled+1)
		}
		report, err := in.repo.VerifyWith(t.Context(), VerifyOptions{Level: LevelBlocks})
		if err != nil || len(report.Damage) > 0 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// What a seal makes durable is put at once, as far as that pays off, and the entry of the log that names it when all of it is there.
func TestWhatASealHasIsPutAtOnce(t *testing.T) {
	for _, put := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			store, in := newGatedStore(t, 1, put, IngestOptions{})
			defer in.repo.Close()
			key := backup.NewMachineKey(backup.PlatformImage, "vm", "", "source")
			const tasks = 5
			for i := range tasks {
				task, err := in.BeginTask(t.Context(), backup.NewPointID(key, strconv.Itoa(i)), key, []byte("v"), nil)
				if err != nil {
					t.Fatal(err)
				}
				block := gatedContent(i)
				id := in.BlockID(block)
				if _, err := in.StoreBlock(t.Context(), id, block, CodecNone); err != nil {
					t.Fatal(err)
				}
				task.Stored(0, 0, gatedBlock, id)
			}
			ended := make(chan error, 1)
			go func() { ended <- in.Close(t.Context(), nil) }()
			for {
				synctest.Wait()
				waiting := store.puts + store.writing
				if waiting == 0 {
					break
				}
				for range waiting {
					store.gate <- struct{}{}
				}
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			if store.mostPuts != put || !store.alone {
				t.Errorf("%d at once, want %d; the log's entry came after all: %v", store.mostPuts, put, store.alone)
			}
			if got := len(in.repo.state.Partials); got != tasks {
				t.Errorf("the log has %d unfinished copies", got)
			}
		})
	}
}
