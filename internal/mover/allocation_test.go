package mover_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"

	"ferry/internal/mover"
	"ferry/internal/repo"
	"ferry/internal/repotest"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// mallocs counts what a function allocates, in all goroutines.
func mallocs(do func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int64(after.Mallocs - before.Mallocs)
}

// halfNoise is content of which each block is its own, and that codecs make smaller.
func halfNoise(blocks int) []byte {
	const block = 4 << 10
	data := make([]byte, blocks*block)
	random := rand.NewChaCha8([32]byte{9})
	for at := 0; at < len(data); at += block {
		_, _ = random.Read(data[at : at+block/2])
	}
	return data
}

// Copying and reading allocate for a point, a pack, a leaf; not for a block. Two sizes are compared, so that what does not grow
// with the number of blocks cancels out.
func TestNothingIsAllocatedForABlock(t *testing.T) {
	if raceEnabled {
		t.Skip("pools drop what is put in them under the race detector")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each processor has pools of its own, which fill as it goes
	const few, many = 2000, 8000
	for _, codec := range []mover.Codec{mover.CodecNone, mover.CodecS2, mover.CodecZstd} {
		var copied, read [2]int64
		for i, blocks := range []int{few, many} {
			p := &sourcetest.Point{Machine: sourcetest.Machine("m"), Native: "1", Objects: []sourcetest.Object{
				{Name: "sda", Data: halfNoise(blocks), Access: source.AccessRandom},
			}}
			ctx := context.Background()
			r, err := repo.Init(ctx, memory.New(), repo.Environment{}, repo.Options{BlockSize: 4 << 10})
			if err != nil {
				t.Fatal(err)
			}
			ingest, err := r.NewIngest(ctx, repo.IngestOptions{})
			if err != nil {
				t.Fatal(err)
			}
			m := mover.New(ingest, mover.Options{Job: "manual", Codec: codec, TempDir: t.TempDir()})
			copied[i] = mallocs(func() {
				if err := m.Copy(ctx, p.Described(), func(mover.Result, error) {}); err != nil {
					t.Fatal(err)
				}
			})
			if err := ingest.Close(ctx, nil); err != nil {
				t.Fatal(err)
			}
			stored, err := r.ReadPoint(ctx, p.ID())
			if err != nil {
				t.Fatal(err)
			}
			read[i] = mallocs(func() {
				err := r.ReadObject(ctx, *stored.Roots[0], repotest.EachBlock(func(repo.Block, []byte) error { return nil }), func(int64) {})
				if err != nil {
					t.Fatal(err)
				}
			})
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for what, counts := range map[string][2]int64{"copying": copied, "reading": read} {
			if per := float64(counts[1]-counts[0]) / (many - few); per > 0.2 {
				t.Errorf("%s with %s: %.2f allocations for a block", what, codec, per)
			} else {
				t.Logf("%s with %s: %.3f allocations for a block", what, codec, per)
			}
		}
	}
}
