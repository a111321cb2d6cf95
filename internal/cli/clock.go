package cli

import (
	"context"
	"time"
)

// clock is what a server goes by instead of the machine's clock: that of a demonstration, in which days pass in seconds.
type clock interface {
	Now() time.Time
	// Pause waits until so much time has passed, or ctx ends.
	Pause(ctx context.Context, d time.Duration) error
	// Watch has a function called each time that the clock was moved.
	Watch(moved func())
}

// now is the clock; nil is the machine's.
func (a *app) now() func() time.Time {
	if a.clock == nil {
		return nil
	}
	return a.clock.Now
}
