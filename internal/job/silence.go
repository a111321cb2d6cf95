package job

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
)

// listenEvery is how often it is looked whether sources and target answer.
const listenEvery = 15 * time.Second

// listen tells, until the function that it returns is called, that the target or a source has not answered for long, and when it does
// again. Nothing ends by that: what is merely slow is waited for. Only the session's slots are lent meanwhile.
func (r *runner) listen(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		ticker := time.NewTicker(listenEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				wait := r.silence()
				r.Host.Slots.lend(r.Job.Name, wait != Wait{})
				r.tell(func() { r.silent = wait })
			}
		}
	})
	return func() {
		cancel()
		listening.Wait()
		r.Host.Slots.lend(r.Job.Name, false)
		r.tell(func() { r.silent = Wait{} })
	}
}

// silence is the wait for a place that has not answered for long.
func (r *runner) silence() Wait {
	if since := answer.Of(r.Target.Location).Silent(); long(since) {
		reason := "it does not answer since " + r.show(since)
		return Wait{Kind: WaitTarget, Text: fmt.Sprintf("target %s: %s", StateUnreadable, reason), State: StateUnreadable, Reason: reason}
	}
	for _, place := range r.Sources {
		if since := answer.Of(place.Origin.Repository.Location).Silent(); long(since) {
			name := place.Origin.Repository.Name
			wait := waitFor(WaitSource, fmt.Sprintf("source %s is %s: it does not answer since %s", backup.SafeText(name), StateUnreadable, r.show(since)))
			wait.Source = name
			return wait
		}
	}
	return Wait{}
}

func long(since time.Time) bool { return !since.IsZero() && time.Since(since) >= answer.TellAfter }
