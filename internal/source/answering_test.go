package source_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/source"
)

// hanging is content that answers nothing until it is told to.
type hanging struct {
	answers chan struct{}
	given   int // extents that were given before it hangs
	closed  bool
	sink    error // what the sink said to what came late
}

func (h *hanging) Open(context.Context) (source.Content, error) { return h, nil }
func (h *hanging) Objects() []source.Object                     { return nil }
func (h *hanging) Validator() []byte                            { return nil }
func (h *hanging) SourceVerified() bool                         { return false }
func (h *hanging) Ancestors() []backup.PointID                  { return nil }
func (h *hanging) Disk(int) (source.Disk, error)                { return h, nil }
func (h *hanging) Size() int64                                  { return 1 << 30 }
func (h *hanging) Close() error                                 { h.closed = true; return nil }

func (h *hanging) Stream(_ context.Context, sink source.Sink) error {
	if err := sink.Data(0, 0, nil); err != nil {
		return err
	}
	<-h.answers
	h.sink = errors.Join(sink.Data(0, 0, nil), sink.Zero(0, 0, 0), sink.End(0, 0))
	return h.sink
}

func (h *hanging) Revalidate(context.Context) error { <-h.answers; return nil }

func (h *hanging) ReadAt([]byte, int64) (int, error) { <-h.answers; return 0, io.EOF }

func (h *hanging) Extents(context.Context, *backup.Base) iter.Seq2[backup.Extent, error] {
	return func(yield func(backup.Extent, error) bool) {
		for i := range h.given {
			if !yield(backup.Extent{Offset: int64(i), Length: 1}, nil) {
				return
			}
		}
		<-h.answers
	}
}

// counting is a sink that counts what it is given.
type counting struct{ given int }

func (c *counting) Data(int, int64, []byte) error { c.given++; return nil }
func (c *counting) Zero(int, int64, int64) error  { c.given++; return nil }
func (c *counting) End(int, int64) error          { c.given++; return nil }

// Whatever of a point does not answer, the one who waits for it is let go, is given nothing any more, and the point is closed when
// it answers.
func TestContentThatDoesNotAnswer(t *testing.T) {
	sink := &counting{}
	extents := func(ctx context.Context, d source.Disk) (n int, err error) {
		for _, err := range d.Extents(ctx, nil) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	for name, use := range map[string]func(context.Context, source.Content) error{
		"revalidate": func(ctx context.Context, c source.Content) error { return c.Revalidate(ctx) },
		"stream":     func(ctx context.Context, c source.Content) error { return c.Stream(ctx, sink) },
		"read": func(_ context.Context, c source.Content) error {
			disk, _ := c.Disk(0)
			_, err := disk.ReadAt(make([]byte, 1), 0)
			return err
		},
		"extents": func(ctx context.Context, c source.Content) error {
			disk, _ := c.Disk(0)
			n, err := extents(ctx, disk)
			if n != 1023 { // handed over as 1, 2, 4 ... 512; the rest is not handed over yet
				t.Errorf("%d extents came", n)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hanging{answers: make(chan struct{}), given: 1500}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var calls answer.Calls
				content, err := source.OpenAnswering(ctx, &calls, h)
				if err != nil {
					t.Fatal(err)
				}
				if source.Opened(content) != source.Content(h) {
					t.Error("not what was opened")
				}
				began := time.Now()
				if err := use(ctx, content); !errors.Is(err, answer.ErrNone) || time.Since(began) != time.Minute+answer.Patience {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
				if err := content.Close(); err != nil || h.closed {
					t.Errorf("closed: %v, %v", h.closed, err)
				}
				close(h.answers)
				synctest.Wait()
				if n, _ := calls.Behind(); !h.closed || n != 0 {
					t.Errorf("it has answered, closed: %v, %d left behind", h.closed, n)
				}
				if name == "stream" && (!errors.Is(h.sink, answer.ErrNone) || sink.given != 1) {
					t.Errorf("the sink was given %d, and said %v", sink.given, h.sink)
				}
			})
		})
	}
}

// Extents come as the format gives them, with its error at the end, and end early when no more are wanted.
func TestExtentsAhead(t *testing.T) {
	answered := make(chan struct{})
	close(answered)
	var calls answer.Calls
	content, err := source.OpenAnswering(t.Context(), &calls, &hanging{answers: answered, given: 5000})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := content.Disk(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{1, 700, 5000, 9000} {
		n := 0
		for e, err := range disk.Extents(t.Context(), nil) {
			if err != nil || e.Offset != int64(n) {
				t.Fatalf("extent %d: %+v %v", n, e, err)
			}
			if n++; n == most {
				break
			}
		}
		if n != min(most, 5000) {
			t.Errorf("%d extents, not %d", n, min(most, 5000))
		}
	}
}
