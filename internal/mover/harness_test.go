package mover

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRepository is an empty one in memory.
func newRepository(t testing.TB, blockSize int) (*repo.Repository, *memory.Store) {
	t.Helper()
	store := memory.New()
	r, err := repo.Init(t.Context(), store, repo.Environment{}, repo.Options{BlockSize: blockSize})
	if err != nil {
		t.Fatal(err)
	}
	return r, store
}

// copyPoints copies points one after the other through one ingest, and returns the results and the first error.
func copyPoints(ctx context.Context, r *repo.Repository, points ...*sourcetest.Point) ([]Result, error) {
	return copyAll(ctx, r, Options{Job: "manual"}, points...)
}

func copyAll(ctx context.Context, r *repo.Repository, options Options, points ...*sourcetest.Point) ([]Result, error) {
	ingest, err := r.NewIngest(ctx, repo.IngestOptions{})
	if err != nil {
		return nil, err
	}
	m := New(ingest, options)
	var mu sync.Mutex
	var results []Result
	for _, p := range points {
		copyErr := m.Copy(ctx, p.Described(), func(result Result, commitErr error) {
			mu.Lock()
			defer mu.Unlock()
			results, err = append(results, result), errors.Join(err, commitErr)
		})
		mu.Lock()
		err = errors.Join(err, copyErr)
		mu.Unlock()
	}
	closeErr := ingest.Close(context.WithoutCancel(ctx), nil)
	mu.Lock()
	defer mu.Unlock()
	return results, errors.Join(err, closeErr)
}

// wantStored fails the test unless the repository has the point, equal to the source.
func wantStored(t testing.TB, r *repo.Repository, p *sourcetest.Point) {
	t.Helper()
	stored, err := r.ReadPoint(t.Context(), p.ID())
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range p.Objects {
		content, err := repotest.ReadObject(t.Context(), r, stored, i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content, o.Data) {
			at := 0
			for at < min(len(content), len(o.Data)) && content[at] == o.Data[at] {
				at++
			}
			t.Fatalf("%s: %d bytes stored, %d given, which differ from byte %d", o.Name, len(content), len(o.Data), at)
		}
	}
}

func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data)
	return data
}

func point(native string, objects ...sourcetest.Object) *sourcetest.Point {
	return &sourcetest.Point{
		Machine: sourcetest.Machine("m"), Native: native, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Objects: objects,
	}
}

func randomDisk(name string, data []byte) sourcetest.Object {
	return sourcetest.Object{Name: name, Data: data, Access: source.AccessRandom}
}

func streamed(name string, data []byte) sourcetest.Object {
	return sourcetest.Object{Name: name, Data: data, Access: source.AccessOnePass}
}

// reopened is the repository as another process sees it.
func reopened(t testing.TB, store *memory.Store) *repo.Repository {
	t.Helper()
	r, err := repo.Open(t.Context(), store, repo.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
