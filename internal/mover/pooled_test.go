package mover

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
)

// What a copy gives back to be used again it does not use any more: others write into it at once.
func TestMemoryThatWasGivenBackIsNotUsed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6))
	const size = 3 << 20
	for _, machines := range []int{1, 3} {
		r, _ := newRepository(t, 64<<10)
		ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m := New(ingest, Options{Job: "manual", AtOnce: machines, TempDir: t.TempDir()})
		stop := make(chan struct{})
		var others, copies sync.WaitGroup
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					useAgain(t, m, n)
				}
			}
		})
		var points []*sourcetest.Point
		for i := range machines {
			before := point("before", randomDisk("vda", noise(uint64(i), size)), streamed("vdb", noise(uint64(i+10), size)))
			next := point("next", randomDisk("vda", noise(uint64(i), size)), streamed("vdb", noise(uint64(i+20), size)))
			for at := 100; at < size; at += 150_000 { // blocks that are put together
				next.Objects[0].Data[at]++
			}
			next.Base, next.Grain = before, 4096
			for _, p := range []*sourcetest.Point{before, next} {
				p.Machine = sourcetest.Machine(fmt.Sprint("m", i))
				p.Objects = append(p.Objects, sourcetest.Object{Name: "tar", Data: noise(uint64(i+30), size), Access: source.AccessRandom, Shifting: true})
			}
			points = append(points, before, next)
			copies.Go(func() {
				for _, p := range []*sourcetest.Point{before, next} {
					if err := m.Copy(t.Context(), p.Described(), func(_ Result, err error) {
						if err != nil {
							t.Error(err)
						}
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		copies.Wait()
		close(stop)
		others.Wait()
		if err := ingest.Close(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			wantStored(t, r, p)
		}
	}
}

// useAgain takes memory that was given back, writes into all of it, and gives it back.
func useAgain(t *testing.T, m *Mover, n int) {
	buffer := m.buffers.Get().(*[]byte)
	all := (*buffer)[:cap(*buffer)]
	for i := range all {
		all[i] = byte(n)
	}
	encoded := m.encoded.Get().(*repo.Encoded)
	encoded.Reset()
	for range 3 {
		if err := m.ingest.Encode(t.Context(), encoded, -1, all[:1000+n%1000], repo.CodecNone); err != nil {
			t.Error(err)
		}
	}
	if p, ok := m.patches.Get().(*patch); ok {
		clear(p.numbers[:cap(p.numbers)])
		clear(p.parts[:cap(p.parts)])
		m.patches.Put(p)
	}
	runtime.Gosched()
	m.encoded.Put(encoded)
	m.buffers.Put(buffer)
}
