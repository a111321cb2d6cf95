package repo

import (
	"context"
	"errors"
	"iter"

	"ferry/internal/repo/commitlog"
	"ferry/internal/storage"
)

// Parts of unfinished copies, read ahead. A copy has one for each of its packs: of terabytes they are tens of thousands, and from a
// distant storage each takes the time of its round trip.
//
//  1. The first is read alone: often it says that the others are of no use.
//  2. The others are asked for in their order, and as many of all copies at once as pay off. What has come waits for its turn.
//  3. What has come and waits counts, so that memory is bounded. One that is larger than any that Ferry writes does not wait: it
//     is read when it is its turn.

// partialAhead is the size of a part up to which it is read ahead, in bytes: more than recordsLimit.
const partialAhead = 2 << 20

// partialRead is a part of an unfinished copy, or why it cannot be read.
type partialRead struct {
	commitlog.Partial
	header  partialHeader
	records []byte
	err     error
}

// readPartials yields parts of unfinished copies in their order.
func (r *Repository) readPartials(ctx context.Context, partials []commitlog.Partial) iter.Seq[partialRead] {
	return func(yield func(partialRead) bool) {
		if len(partials) > 0 && yield(r.readPartial(ctx, partials[0], partialLimit)) {
			r.readPartialsAhead(ctx, partials[1:], yield)
		}
	}
}

func (r *Repository) readPartial(ctx context.Context, partial commitlog.Partial, limit int64) partialRead {
	header, records, err := r.loadPartial(ctx, partial, limit)
	return partialRead{partial, header, records, err}
}

func (r *Repository) readPartialsAhead(ctx context.Context, partials []commitlog.Partial, yield func(partialRead) bool) {
	ctx, cancel := context.WithCancel(ctx)
	coming := make(chan chan partialRead, cap(r.partialsAhead))
	go func() {
		defer close(coming)
		for _, partial := range partials {
			select {
			case r.partialsAhead <- struct{}{}:
			case <-ctx.Done():
				return
			}
			one := make(chan partialRead, 1)
			go func() { one <- r.readPartial(ctx, partial, partialAhead) }()
			coming <- one
		}
	}()
	came := 0
	defer func() {
		cancel()
		for one := range coming {
			<-one
			<-r.partialsAhead
		}
	}()
	for one := range coming {
		read := <-one
		if errors.Is(read.err, storage.ErrTooLarge) {
			read = r.readPartial(ctx, read.Partial, partialLimit)
		}
		came++
		goOn := yield(read)
		<-r.partialsAhead
		if !goOn {
			return
		}
	}
	for _, partial := range partials[came:] { // ctx has ended
		if !yield(partialRead{Partial: partial, err: ctx.Err()}) {
			return
		}
	}
}
