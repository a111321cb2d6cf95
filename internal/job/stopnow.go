package job

import (
	"context"
	"errors"
	"slices"
	"sync"

	"ferry/internal/repo"
)

// stopNow lets go of what is on its way to the target when a person wants a copy to end at once. The zero value is ready.
type stopNow struct {
	mu  sync.Mutex
	yes bool
	// open are the ingests that are not closed.
	open []*repo.Ingest
}

// watch has what is open let go of when ctx ends for that reason. It is to be called back when the copy is done.
func (s *stopNow) watch(ctx context.Context) (done func() bool) {
	return context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), ErrStopNow) {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.yes = true
		for _, ingest := range s.open {
			ingest.Abandon(ErrStopNow)
		}
	})
}

func (s *stopNow) add(ingest *repo.Ingest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, ingest)
	if s.yes {
		ingest.Abandon(ErrStopNow)
	}
}

func (s *stopNow) remove(ingest *repo.Ingest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = slices.DeleteFunc(s.open, func(open *repo.Ingest) bool { return open == ingest })
}

// asked is true once it was asked for.
func (s *stopNow) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.yes
}
