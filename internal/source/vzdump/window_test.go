package vzdump

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"

	"ferry/internal/source"
)

// largeFrame is a frame whose window is larger than usual.
func largeFrame(t *testing.T, raw []byte, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(size), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw[:len(raw)/2]); err != nil { // a frame that was written at once has a window of its content
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), func() error { _, err := w.Write(raw[len(raw)/2:]); return err }(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Of archives that want a large window one is open at a time, so that memory does not grow with the machines that are copied at
// once; others wait, until it is closed or they are to end. Usual ones, and who lists, wait for nobody.
func TestLargeWindowsAreKeptOneAtATime(t *testing.T) {
	archive, _ := testVMA(conf)
	raw := encodeVMA(t, archive)
	point := onePoint(t, qemuBase+".vma.zst", largeFrame(t, raw, 2*usualWindow))
	usual := onePoint(t, qemuBase+".vma.zst", largeFrame(t, raw, usualWindow))
	places := large
	defer func() { large = places }()
	synctest.Test(t, func(t *testing.T) {
		large = make(chan struct{}, 1)
		first, err := point.Opener.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := tryPoint(t, usual); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		type opened struct {
			content source.Content
			err     error
		}
		stopped, waits := make(chan opened, 1), make(chan opened, 1)
		go func() {
			content, err := point.Opener.Open(ctx)
			stopped <- opened{content, err}
		}()
		synctest.Wait()
		go func() {
			content, err := point.Opener.Open(t.Context())
			waits <- opened{content, err}
		}()
		synctest.Wait()
		if len(stopped)+len(waits) > 0 {
			t.Fatalf("several are open")
		}
		cancel()
		if o := <-stopped; !errors.Is(o.err, context.Canceled) {
			t.Errorf("stopped: %v", o.err)
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		o := <-waits
		if o.err != nil {
			t.Fatal(o.err)
		}
		if err := o.content.Close(); err != nil || len(large) > 0 {
			t.Errorf("%v, %d places are still taken", err, len(large))
		}
	})
}
