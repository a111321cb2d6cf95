package mover

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ferry/internal/source/sourcetest"
	"ferry/internal/storage/memory"
)

// both is a point with a disk read at random and one that comes as a stream.
func both() *sourcetest.Point {
	return point("both", randomDisk("vda", noise(1, 3<<20)), streamed("sda", noise(2, 3<<20)))
}

// A copy that is cancelled at any moment ends, leaves no goroutine, and the next one finishes it.
func TestCancelAtAnyMoment(t *testing.T) {
	r, store := newRepository(t, 64<<10)
	var calls atomic.Int64
	count := func(stop int64, cancel func()) *sourcetest.Point {
		p := both()
		calls.Store(0)
		step := func() {
			if calls.Add(1) == stop {
				cancel()
			}
		}
		p.OnRead = func(_ int, _ int64, n int) (int, error) { step(); return n, nil }
		p.OnPiece = func(sourcetest.Piece) error { step(); return nil }
		store.SetFault(func(memory.Op, string) error { step(); return nil })
		return p
	}
	base := store.Clone()
	if _, err := copyPoints(t.Context(), r, count(-1, nil)); err != nil {
		t.Fatal(err)
	}
	moments := calls.Load()
	for stop := int64(1); stop <= moments; stop += 1 + moments/int64(30-20*btoi(testing.Short())) {
		store = base.Clone()
		r := reopened(t, store)
		ctx, cancel := context.WithCancel(t.Context())
		p := count(stop, cancel)
		_, err := copyPoints(ctx, r, p)
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d: %v", stop, err)
		}
		if err := goleak.Find(); err != nil {
			t.Fatalf("cancelled at %d: %v", stop, err)
		}
		if p.Opened.Load() != p.Closed.Load() {
			t.Fatalf("cancelled at %d: the source is still open", stop)
		}
		store.SetFault(nil)
		next := reopened(t, store.Clone())
		again := both()
		if !next.Has(again.ID()) {
			if _, err := copyPoints(t.Context(), next, again); err != nil {
				t.Fatal(err)
			}
		}
		wantStored(t, next, again)
	}
}

// Copies go on while the storage takes its time: nobody waits for somebody who waits for him. The
// latency is real: locks are held while the storage works, which a synctest bubble cannot see through.
func TestSlowStorage(t *testing.T) {
	for _, stop := range []bool{false, true} {
		r, store := newRepository(t, 4<<10)
		store.SetLatency(func(op memory.Op, _ int) time.Duration {
			if op == memory.OpCommit || op == memory.OpPut {
				return time.Millisecond
			}
			return 0
		})
		ctx, cancel := context.WithCancel(t.Context())
		points := []*sourcetest.Point{both(), point("more", randomDisk("vda", noise(3, 3<<20)))}
		points[1].Base = points[0] // its base waits for its commit
		var pieces atomic.Int64
		points[0].OnPiece = func(sourcetest.Piece) error {
			if pieces.Add(1) == 40 && stop {
				cancel()
			}
			return nil
		}
		_, err := copyPoints(ctx, r, points...)
		cancel()
		if stop != errors.Is(err, context.Canceled) || (!stop && err != nil) {
			t.Fatalf("stopped: %v; %v", stop, err)
		}
		store.SetLatency(nil)
		if !stop {
			for _, p := range points {
				wantStored(t, r, p)
			}
		} else if r.Usage().Unfinished == 0 {
			t.Error("nothing of the copy was written down")
		}
	}
}

// An interrupted copy with random access goes on where it was; a changed source begins anew.
func TestResume(t *testing.T) {
	data := slices.Concat(noise(5, 4<<20), make([]byte, 1<<20), noise(6, 3<<20))
	r, _ := newRepository(t, 64<<10)
	var reads atomic.Int64
	p := point("p", randomDisk("vda", data))
	p.OnRead = func(_ int, _ int64, n int) (int, error) {
		if reads.Add(1) > 5 {
			return 0, errors.New("interrupted")
		}
		return n, nil
	}
	if _, err := copyPoints(t.Context(), r, p); err == nil {
		t.Fatal("the copy was not interrupted")
	}
	p.OnRead = nil
	p.Read.Store(0)
	results, err := copyPoints(t.Context(), r, p)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, r, p)
	result := results[0]
	zeros := int64(1 << 20)
	if result.Read != p.Read.Load() || result.Read+result.Resumed < int64(len(data))-zeros || result.Read+result.Resumed > int64(len(data)) {
		t.Errorf("read %d, told %d, resumed %d of %d", p.Read.Load(), result.Read, result.Resumed, len(data))
	}
	if result.Resumed == 0 {
		t.Error("nothing was resumed")
	}
	if r.Usage().Unfinished != 0 {
		t.Error("the finished copy is still unfinished")
	}
}
