package mover

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// Copies at once have no more on their way than one alone may have, but for what their readers hold and what each keeps to store it at
// once: also where the storage takes nothing.
func TestRunsOnTheWayOfMachinesAtOnce(t *testing.T) {
	const processors, machines, size = 8, 8, 32 << 20
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	content := noise(1, size+machines)
	synctest.Test(t, func(t *testing.T) {
		r, store := newRepository(t, 128<<10)
		ingest, err := r.NewIngest(t.Context(), repo.IngestOptions{})
		if err != nil {
			t.Fatal(err)
		}
		goOn := make(chan struct{})
		store.SetFault(func(op memory.Op, _ string) error {
			if op == memory.OpWrite {
				<-goOn
			}
			return nil
		})
		var reads, noted atomic.Int64
		var mu sync.Mutex
		var tasks []*Progress
		m := New(ingest, Options{Codec: CodecNone, AtOnce: machines, TempDir: t.TempDir(), Progress: func(_ source.Point, p *Progress) {
			mu.Lock()
			defer mu.Unlock()
			tasks = append(tasks, p)
		}})
		var copies sync.WaitGroup
		for i := range machines {
			p := point("1", randomDisk("vda", content[i:i+size]))
			p.Machine = sourcetest.Machine(fmt.Sprint("m", i))
			p.Objects[0].Extents = func(*backup.Base) []backup.Extent {
				return []backup.Extent{{Length: size, Kind: backup.ExtentData}}
			}
			p.OnRead = func(_ int, _ int64, n int) (int, error) {
				reads.Add(1)
				return n, nil
			}
			copies.Go(func() {
				_ = m.Copy(t.Context(), p.Described(), func(Result, error) {})
			})
		}
		synctest.Wait()
		for _, p := range tasks {
			noted.Add(p.gained.Load() * (128 << 10))
		}
		onTheWay := reads.Load() - noted.Load()/runBytes
		alone := int64(processors * (1 + aheadInTurn + queuedPerProcessor))
		kept := int64(machines * (m.gather/runBytes + 1))
		t.Logf("%d runs are on their way", onTheWay)
		if onTheWay < alone || onTheWay > alone+machines*readers+kept {
			t.Errorf("%d runs are on their way of %d that were read, one alone has %d", onTheWay, reads.Load(), alone)
		}
		enough := errors.New("enough")
		ingest.Abandon(enough)
		close(goOn)
		copies.Wait()
		if n := len(m.onTheWay); n > 0 {
			t.Errorf("%d runs are still on their way", n)
		}
		if err := ingest.Close(t.Context(), enough); err != nil {
			t.Error(err)
		}
	})
}
