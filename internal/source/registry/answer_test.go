package registry_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ferry/internal/answer"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// slow is a format whose look does not return before it is let.
type slow struct {
	named
	answers chan struct{}
	looks   *atomic.Int32
	closed  *atomic.Bool
}

func (s slow) Scan(ctx context.Context, listing *source.Listing) ([]source.Point, error) {
	s.looks.Add(1)
	listing.CloseWith(closing(func() { s.closed.Store(true) }))
	<-s.answers
	return s.named.Scan(ctx, listing)
}

type closing func()

func (c closing) Close() error { c(); return nil }

// A folder that does not answer is let go when the context has ended, and is not looked into again before it has answered: however
// many look, no more than one hangs.
func TestFolderThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		var closed atomic.Bool
		format := slow{answers: make(chan struct{}), looks: &looks, closed: &closed}
		options := registry.Options{Formats: []source.Format{format}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		open := func(ctx context.Context) (*registry.Source, error) {
			return registry.Answering(ctx, dir, func() (*registry.Source, error) { return registry.Open(ctx, dir, options) })
		}
		if _, err := open(ctx); !errors.Is(err, answer.ErrNone) {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := open(t.Context()); !errors.Is(err, answer.ErrNone) || !strings.Contains(err.Error(), "2000-01-01 00:01:10 UTC") {
				t.Error(err)
			}
		}
		if n := looks.Load(); n != 1 {
			t.Errorf("looked %d times", n)
		}
		close(format.answers)
		synctest.Wait()
		if !closed.Load() {
			t.Error("what came too late was not closed")
		}
		opened, err := open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		opened.Close()
	})
}
