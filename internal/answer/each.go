package answer

import (
	"context"
	"iter"
)

// mostAtOnce is how many values are handed over at once. The first few come at once, so that work begins.
const mostAtOnce = 512

type found[T any] struct {
	value T
	err   error
}

// Each gives what a sequence does, which is run in a call of its own, some values ahead of who asks. If the call is left behind
// the last error wraps ErrNone.
func Each[T any](ctx context.Context, c *Calls, sequence func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		handed, ended := make(chan []found[T]), make(chan struct{})
		var err error // of the call, once it has ended
		go func() {
			defer close(ended)
			err = c.Do(ctx, func() error { return collect(ctx, c, sequence(ctx), handed) })
		}()
		defer func() {
			cancel()
			<-ended
		}()
		for {
			select {
			case some := <-handed:
				for _, f := range some {
					if !yield(f.value, f.err) {
						return
					}
				}
			case <-ended:
				if err != nil {
					var none T
					yield(none, err)
				}
				return
			}
		}
	}
}

// collect hands values over until there are no more, or nobody wants them.
func collect[T any](ctx context.Context, c *Calls, values iter.Seq2[T, error], handed chan<- []found[T]) error {
	var some []found[T]
	atOnce := 1
	hand := func() error {
		return c.Meanwhile(func() error {
			select {
			case handed <- some:
				some, atOnce = nil, min(2*atOnce, mostAtOnce)
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	for value, err := range values {
		if some = append(some, found[T]{value, err}); len(some) >= atOnce {
			if err := hand(); err != nil {
				return err
			}
		}
	}
	if len(some) == 0 {
		return nil
	}
	return hand()
}
