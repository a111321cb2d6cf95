package cli

import (
	"context"
	"sync"
	"time"

	"ferry/internal/policy"
	"ferry/internal/storage"
	"ferry/internal/storage/s3"
)

// leastRate is the lowest limit that a bucket can be kept to: parts that take longer than their time are sent again.
const leastRate policy.Rate = 4e6 / 8

// paceSlack is how much of what was not used is made up for: so much of a second at the limit.
const paceSlack = 200 * time.Millisecond

// pacer lets bytes pass at no more than the limit that holds by the calendar. The zero value lets all pass.
type pacer struct {
	limits policy.Bandwidth

	mu sync.Mutex
	// free is when what was let pass so far is through.
	free time.Time
}

// wait returns when so many bytes may pass.
func (p *pacer) wait(ctx context.Context, bytes int) error {
	now := time.Now()
	limit := p.limits.LimitAt(now)
	if limit == 0 {
		return nil
	}
	p.mu.Lock()
	if earliest := now.Add(-paceSlack); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(bytes) / float64(limit) * float64(time.Second)))
	left := p.free.Sub(now)
	p.mu.Unlock()
	return storage.Sleep(ctx, left)
}

// paceOf is the pace of several limits, each of which is kept; nil if there are none.
func paceOf(pacers ...*pacer) s3.Pace {
	limited := false
	for _, p := range pacers {
		limited = limited || len(p.limits) > 0
	}
	if !limited {
		return nil
	}
	return func(ctx context.Context, bytes int) error {
		for _, p := range pacers {
			if err := p.wait(ctx, bytes); err != nil {
				return err
			}
		}
		return nil
	}
}
