// Package answer makes calls that may never return. A call of a share whose server is away stands in the kernel, and nothing
// cancels it. So whoever waits for it is let go when the work that it is for is to end, and people are told that there is no answer.
//
// How long an answer takes ends nothing by itself: storage that is merely slow is waited for.
package answer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

const (
	// Patience is how long a call is waited for after its context has ended, before it is left behind.
	Patience = 10 * time.Second
	// Finishing is how long after work was told to end calls are waited for that finish it, such as those that write a checkpoint.
	// One that begins late has at least Patience.
	Finishing = 25 * time.Second
	// TellAfter is how long nothing is answered before that is worth telling.
	TellAfter = 2 * time.Minute
)

// ErrNone is the error of a call that was left behind, and of one that is not made because it would not return either.
var ErrNone = errors.New("it does not answer")

// Calls are the calls into one place. Each runs in a goroutine of its own:
//
//	its context ends, or the work of Ending -> it is waited for a while -> it is left behind, with the memory that it was given
//	  -> when it returns, if ever, nobody looks at its answer; what waited for it, WhenBack, is closed
//
// What a call is given must not be used by others until it returns, so who gets ErrNone gives it up as well. The zero value is
// ready.
type Calls struct {
	mu sync.Mutex
	// out counts calls that have not returned. heard is when one last did, or when the first of them began.
	out   int
	heard time.Time
	// left counts those that are left behind, since is when the first of them was, and then is what waits for the last.
	left  int
	since time.Time
	then  []func()
}

// places has the calls into every place that was opened in this process: what hangs does so for all who open it.
var places sync.Map // of the cleaned location to *Calls

// Of are the calls into the place at a location.
func Of(location string) *Calls {
	calls, _ := places.LoadOrStore(filepath.Clean(location), &Calls{})
	return calls.(*Calls)
}

// ending is the end of work: done is closed then, and at says when that was.
type ending struct {
	done chan struct{}
	at   time.Time
}

type endingKey struct{}

// Ending is ctx for work that is to end when it does: calls are left behind a while later, also those whose context outlives it,
// by context.WithoutCancel, to finish the work.
func Ending(ctx context.Context) context.Context {
	e := &ending{done: make(chan struct{})}
	context.AfterFunc(ctx, func() {
		e.at = time.Now()
		close(e.done)
	})
	return context.WithValue(ctx, endingKey{}, e)
}

// outlasts waits until a call has returned, or is to be left behind: then it is true.
func outlasts(ctx context.Context, returned <-chan struct{}) bool {
	work, is := ctx.Value(endingKey{}).(*ending)
	if !is {
		work = &ending{}
	}
	ended, told := ctx.Done(), work.done
	var overdue, unfinished <-chan time.Time
	for {
		select {
		case <-returned:
			return false
		case <-ended:
			ended, overdue = nil, time.After(Patience)
		case <-told:
			told, unfinished = nil, time.After(max(Patience, Finishing-time.Since(work.at)))
		case <-overdue:
			return true
		case <-unfinished:
			return true
		}
	}
}

// Call makes a call and returns its answer, or an error that wraps ErrNone if it is left behind. What it returns then without an
// error is given to drop, if that is not nil.
func Call[T any](ctx context.Context, c *Calls, call func() (T, error), drop func(T)) (T, error) {
	var value T
	var err error
	returned := make(chan struct{})
	left := false // guarded by c.mu
	c.begin()
	go func() {
		value, err = call()
		c.mu.Lock()
		c.out--
		c.heard = time.Now()
		behind := left
		close(returned)
		c.mu.Unlock()
		if behind {
			if err == nil && drop != nil {
				drop(value)
			}
			c.back()
		}
	}()
	if !outlasts(ctx, returned) {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-returned: // just now
		return value, err
	default:
	}
	left = true
	if c.left++; c.left == 1 {
		c.since = time.Now()
	}
	var none T
	if ctx.Err() != nil {
		return none, fmt.Errorf("%w: %w", ErrNone, ctx.Err())
	}
	return none, ErrNone
}

// Do makes a call that returns nothing but an error.
func (c *Calls) Do(ctx context.Context, call func() error) error {
	_, err := Call(ctx, c, func() (struct{}, error) { return struct{}{}, call() }, nil)
	return err
}

// Open opens the place at a location by a call into it. One that calls are left behind in, or that has answered nothing for
// TellAfter, is not opened before it answers: more calls would hang as well, and nothing would bound them. Then the error wraps
// ErrNone.
func Open[T any](ctx context.Context, location string, open func() (T, error), drop func(T)) (T, error) {
	calls := Of(location)
	if since := calls.hangs(); !since.IsZero() {
		var none T
		return none, fmt.Errorf("%w: what was asked of it %s has not come back", ErrNone, since.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return Call(ctx, calls, open, drop)
}

// hangs is since when the place is known not to answer; zero: it is not.
func (c *Calls) hangs() time.Time {
	if behind, since := c.Behind(); behind > 0 {
		return since
	}
	return c.Silent()
}

func (c *Calls) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out++; c.out == 1 {
		c.heard = time.Now()
	}
}

// Heard says that something was answered within a call that goes on.
func (c *Calls) Heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = time.Now()
}

// Meanwhile does something within a call that goes on, and that waits for no answer while it is done.
func (c *Calls) Meanwhile(do func() error) error {
	c.mu.Lock()
	c.out--
	c.heard = time.Now()
	c.mu.Unlock()
	defer c.begin()
	return do()
}

// Silent is since when nothing has been answered, if that is TellAfter or longer; zero: it is not, or nothing is waited for.
func (c *Calls) Silent() (since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out == 0 || time.Since(c.heard) < TellAfter {
		return time.Time{}
	}
	return c.heard
}

// Lively is true if something was answered, or begun to be waited for, within TellAfter.
func (c *Calls) Lively() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.heard) < TellAfter
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
