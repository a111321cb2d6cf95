// Package pace keeps what crosses a link within limits that follow a calendar: those of a job, of a repository, and of a
// program in all. Limits are had by name, so that all who use a link share them, and can be changed while bytes pass.
package pace

import (
	"context"
	"sync"
	"time"

	"ferry/internal/policy"
	"ferry/internal/storage"
)

// slack is how much of what was not used is made up for: so much of a second at the limit.
const slack = 200 * time.Millisecond

// Limits are those of a program, by name. The zero value has none.
type Limits struct {
	mu sync.Mutex
	of map[string]*Limit
}

// Limit is the one of a name, which from now on is as given, unless it was set. All who have it under this name share it.
func (l *Limits) Limit(name string, bandwidth policy.Bandwidth) *Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.named(name)
	if !limit.fixed {
		limit.set(bandwidth)
	}
	return limit
}

// Set makes the limit of a name another one, also for those who have it already; what they give for it counts no more.
func (l *Limits) Set(name string, bandwidth policy.Bandwidth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.named(name)
	limit.fixed = true
	limit.set(bandwidth)
}

func (l *Limits) named(name string) *Limit {
	if l.of == nil {
		l.of = map[string]*Limit{}
	}
	if l.of[name] == nil {
		l.of[name] = &Limit{}
	}
	return l.of[name]
}

// Limit lets bytes pass at no more than the rate that holds by the calendar. The zero value lets all pass.
type Limit struct {
	// fixed is true once it was set; Limits guards it.
	fixed     bool
	mu        sync.Mutex
	bandwidth policy.Bandwidth
	// free is when what was let pass so far is through.
	free time.Time
}

func (l *Limit) set(bandwidth policy.Bandwidth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bandwidth = bandwidth
}

// pass returns when so many bytes may pass.
func (l *Limit) pass(ctx context.Context, bytes int) error {
	now := time.Now()
	l.mu.Lock()
	rate := l.bandwidth.LimitAt(now)
	if rate == 0 {
		l.mu.Unlock()
		return nil
	}
	if earliest := now.Add(-slack); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
	left := l.free.Sub(now)
	l.mu.Unlock()
	return storage.Sleep(ctx, left)
}

// Of is the pace of several limits, each of which is kept.
func Of(limits ...*Limit) storage.Pace {
	return func(ctx context.Context, bytes int) error {
		for _, l := range limits {
			if err := l.pass(ctx, bytes); err != nil {
				return err
			}
		}
		return nil
	}
}

// Rate is the lowest of the rates that limits hold at the moment, in bytes a second; 0: there is none.
func Rate(limits ...*Limit) func() int64 {
	return func() (lowest int64) {
		for _, l := range limits {
			l.mu.Lock()
			rate := int64(l.bandwidth.LimitAt(time.Now()))
			l.mu.Unlock()
			if rate > 0 && (lowest == 0 || rate < lowest) {
				lowest = rate
			}
		}
		return lowest
	}
}
