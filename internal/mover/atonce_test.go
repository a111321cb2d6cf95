package mover

import (
	"runtime"
	"sync"
	"testing"

	"ferry/internal/processors"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// alike are points of machines whose disks are the same but for an eighth of each.
func alike(names ...string) []*sourcetest.Point {
	const size = 8 << 20
	common := noise(1, size)
	var points []*sourcetest.Point
	for i, name := range names {
		data := append(append([]byte{}, common[:size-size/8]...), noise(uint64(i+2), size/8)...)
		p := point(name, randomDisk("vda", data))
		p.Machine = sourcetest.Machine(name)
		points = append(points, p)
	}
	return points
}

// together copies points at once: none is read before all have begun to be.
func together(t *testing.T, r *repo.Repository, options Options, points ...*sourcetest.Point) ([]Result, *repo.Stats) {
	t.Helper()
	ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	options.AtOnce = len(points)
	m := New(ingest, options)
	results := make([]Result, len(points))
	var begun, work sync.WaitGroup
	begun.Add(len(points))
	for i, p := range points {
		first := sync.OnceFunc(begun.Done)
		p.OnRead = func(_ int, _ int64, n int) (int, error) {
			first()
			begun.Wait()
			return n, nil
		}
		work.Go(func() {
			err := m.Copy(t.Context(), p.Described(), func(result Result, err error) {
				results[i] = result
				if err != nil {
					t.Errorf("%s: %v", p.Native, err)
				}
			})
			if err != nil {
				t.Errorf("%s: %v", p.Native, err)
			}
		})
	}
	work.Wait()
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(m.processors) > 0 {
		t.Errorf("%d processors are still taken", len(m.processors))
	}
	return results, ingest.Stats()
}

// What machines share is stored once, also if they are copied at once; what each of them brought is counted with it alone.
func TestMachinesAtOnceShareWhatIsEqual(t *testing.T) {
	options := Options{Job: "manual", Codec: CodecNone}
	stored := func(r *repo.Repository, results []Result) (blocks, bytes int64) {
		for _, result := range results {
			if result.Read != result.Logical || result.NewBytes == 0 {
				t.Errorf("%+v", result)
			}
			blocks, bytes = blocks+result.NewBlocks, bytes+result.Stored
		}
		return blocks, bytes
	}
	apart, _ := newRepository(t, 64<<10)
	one, err := copyAll(t.Context(), apart, options, alike("a", "b", "c")...)
	if err != nil {
		t.Fatal(err)
	}
	wantBlocks, wantBytes := stored(apart, one)
	atOnce, _ := newRepository(t, 64<<10)
	points := alike("a", "b", "c")
	results, stats := together(t, atOnce, options, points...)
	blocks, bytes := stored(atOnce, results)
	if blocks != wantBlocks || bytes != wantBytes {
		t.Errorf("at once %d blocks of %d bytes are stored, one after the other %d of %d", blocks, bytes, wantBlocks, wantBytes)
	}
	if stats.NewBlocks.Load() != blocks || stats.Stored.Load() != bytes {
		t.Errorf("the points count %d blocks of %d bytes, the ingest %d of %d", blocks, bytes, stats.NewBlocks.Load(), stats.Stored.Load())
	}
	for _, p := range points {
		p.OnRead = nil
		wantStored(t, atOnce, p)
	}
}

// A point's figures are its own while another one is stored that has nothing to do with it.
func TestCountsOfAPointAreItsOwn(t *testing.T) {
	r, _ := newRepository(t, 64<<10)
	small, large := point("small", randomDisk("vda", noise(1, 1<<20))), point("large", randomDisk("vda", noise(2, 8<<20)))
	small.Machine, large.Machine = sourcetest.Machine("s"), sourcetest.Machine("l")
	results, _ := together(t, r, Options{Job: "manual"}, small, large)
	if results[0].NewBytes != 1<<20 || results[1].NewBytes != 8<<20 || results[0].NewBlocks != 16 {
		t.Errorf("%+v", results)
	}
}

// Threads that run Go beyond one for each processor are for those that stand in the kernel: no worker, with what it holds of memory, is
// there for them.
func TestWorkersAreAsManyAsProcessors(t *testing.T) {
	number := runtime.GOMAXPROCS(0)
	t.Cleanup(func() {
		processors.RunBeyond(0)
		runtime.GOMAXPROCS(number)
	})
	processors.RunBeyond(2)
	r, _ := newRepository(t, 64<<10)
	ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if m := New(ingest, Options{}); m.workers != number || cap(m.processors) != number {
		t.Errorf("%d workers and %d that encode at once, with %d processors", m.workers, cap(m.processors), number)
	}
	if err := ingest.Close(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
