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
// again. Nothing ends by that: what is merely slow is waited for. Only the session's slots are lent meanwhile, if it stands still.
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
				wait, still := r.silence()
				r.Host.Slots.lend(r.Job.Name, still)
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

// silence is the wait for a place that has not answered for long, and whether the session stands still by that: machines of other
// sources may still be copied.
func (r *runner) silence() (wait Wait, still bool) {
	if since := answer.Of(r.Target.Location).Silent(); !since.IsZero() {
		reason := "it does not answer since " + r.show(since)
		return Wait{Kind: WaitTarget, Text: fmt.Sprintf("target %s: %s", StateUnreadable, reason), State: StateUnreadable, Reason: reason}, true
	}
	lively := false
	for _, place := range r.Sources {
		calls := answer.Of(place.Origin.Repository.Location)
		lively = lively || calls.Lively()
		if since := calls.Silent(); !since.IsZero() && wait == (Wait{}) {
			name := place.Origin.Repository.Name
			wait = waitFor(WaitSource, fmt.Sprintf("source %s is %s: it does not answer since %s", backup.SafeText(name), StateUnreadable, r.show(since)))
			wait.Source = name
		}
	}
	return wait, wait != Wait{} && !lively
}
