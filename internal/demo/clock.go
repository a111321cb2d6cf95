package demo

import (
	"context"
	"sync"
	"time"
)

// Clock is the time of a story. It goes on as the machine's does, and is moved ahead when nothing happens for hours.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
	moved chan struct{}
	watch []func()
}

// NewClock makes a clock that shows a time.
func NewClock(at time.Time) *Clock {
	return &Clock{ahead: time.Until(at), moved: make(chan struct{})}
}

// Now is the time of the story.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Watch has a function called each time that the clock was moved.
func (c *Clock) Watch(moved func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = append(c.watch, moved)
}

// MoveTo moves the clock ahead to a time, and never back.
func (c *Clock) MoveTo(at time.Time) {
	c.mu.Lock()
	if by := at.Sub(time.Now().Add(c.ahead)); by > 0 {
		c.ahead += by
	}
	close(c.moved)
	c.moved = make(chan struct{})
	watch := c.watch
	c.mu.Unlock()
	for _, moved := range watch {
		moved()
	}
}

// Pause waits until so much time of the story has passed, or ctx ends.
func (c *Clock) Pause(ctx context.Context, d time.Duration) error {
	until := c.Now().Add(d)
	for {
		c.mu.Lock()
		left, moved := until.Sub(time.Now().Add(c.ahead)), c.moved
		c.mu.Unlock()
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-moved:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}
