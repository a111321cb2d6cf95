package storage

import (
	"context"
	"time"
)

// Sleep waits, unless ctx is cancelled: between attempts, for a limit on what may cross the network, or before a place is
// looked at again. The error is that of ctx; no time at all is over at once.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
