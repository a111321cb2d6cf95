package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Patience is how long a call is waited for after its context has ended, before it is left behind.
const Patience = 10 * time.Second

// ErrNoAnswer is the error of a call that was left behind.
var ErrNoAnswer = errors.New("the source does not answer")

// Calls are the calls that read a source, any of which may hang: a read of a share whose server does not answer stands in the
// kernel, and nothing cancels it. So a call runs in a goroutine of its own:
//
//	its context ends -> it is waited for for Patience -> it is left behind, with the memory that it was given
//	  -> when it returns, if ever, nobody looks at its answer; what waited for it, WhenBack, is closed
//
// What a call is given must not be used by others until it returns, so who gets ErrNoAnswer gives it up as well. The zero value
// is ready.
type Calls struct {
	mu sync.Mutex
	// left counts calls that are left behind, since is when the first of them was, and then is what waits for the last.
	left  int
	since time.Time
	then  []func()
}

// Call makes a call and returns its answer, or an error that wraps ErrNoAnswer and that of ctx if it is left behind. What it
// returns then without an error is given to drop, if that is not nil.
func Call[T any](ctx context.Context, c *Calls, call func() (T, error), drop func(T)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	left := false // guarded by c.mu
	go func() {
		value, err := call()
		c.mu.Lock()
		behind := left
		if !behind {
			answers <- answer{value, err}
		}
		c.mu.Unlock()
		if behind {
			if err == nil && drop != nil {
				drop(value)
			}
			c.back()
		}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case a := <-answers:
		return a.value, a.err
	default:
	}
	left = true
	if c.left++; c.left == 1 {
		c.since = time.Now()
	}
	var none T
	return none, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
}

// Do makes a call that returns nothing but an error.
func (c *Calls) Do(ctx context.Context, call func() error) error {
	_, err := Call(ctx, c, func() (struct{}, error) { return struct{}{}, call() }, nil)
	return err
}

// back notes that a call that was left behind has returned.
func (c *Calls) back() {
	c.mu.Lock()
	var then []func()
	if c.left--; c.left == 0 {
		then, c.then = c.then, nil
	}
	c.mu.Unlock()
	for _, run := range then {
		run()
	}
}

// Behind returns how many calls are left behind, and since when.
func (c *Calls) Behind() (calls int, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left, c.since
}

// WhenBack runs what closes something that calls use: at once, or else when the last that is left behind returns.
func (c *Calls) WhenBack(run func() error) error {
	c.mu.Lock()
	if c.left > 0 {
		c.then = append(c.then, func() { _ = run() }) // nobody is there any more whom an error would tell anything
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	return run()
}
