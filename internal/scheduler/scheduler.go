// Package scheduler begins the sessions of jobs when they are due, carries them out, and keeps their record.
//
// What is to happen is decided by package policy, and done by package job; the state between two sessions is the catalog's. So
// the scheduler itself remembers nothing that a crash could take:
//
//  1. It looks at each enabled job: [policy.Schedule.Due] says from what the catalog keeps of it whether an interval begins.
//  2. A session is begun in the catalog under a lease, and carried out by [job.Run]. What it does is noted as it happens.
//  3. When it has ended, what the catalog says of repositories and machines is brought up to date, and jobs that come after it
//     are asked to run.
//  4. A session that was not ended, because the server went or was killed, is taken over by the next one, and its interval is
//     run again: what is stored is not stored twice, and copies go on from what the target has of them.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// Conditions on which callers decide.
var (
	// ErrUnknownJob: there is no job of that name.
	ErrUnknownJob = errors.New("there is no such job")
	// ErrUnknownRepository: no job has a target of that name.
	ErrUnknownRepository = errors.New("no job has it as its target")
	// ErrRunning: the job has a session that has not ended.
	ErrRunning = errors.New("a session of the job is in progress")
	// ErrNotRunning: the job has no session that could be stopped.
	ErrNotRunning = errors.New("no session of the job is in progress")
	// ErrNothingToRetry: the last session left nothing undone.
	ErrNothingToRetry = errors.New("the last session left nothing undone")
	// ErrNotReady: the scheduler does not run, or no longer begins anything.
	ErrNotReady = errors.New("the server is not ready")
)

// Prepare makes what a session of a job needs from the machine that runs it. It must not ask a person. With an error the setup has
// the job if its script after the job may be run all the same, and what that needs.
type Prepare func(ctx context.Context, resources policy.Resources, job string) (job.Setup, error)

// Options of a scheduler.
type Options struct {
	Prepare Prepare
	// Configured, if not nil, is told of the resources when they have changed.
	Configured func(policy.Resources)
	// Owner names this process among those that share the catalog; each process that starts is another one.
	Owner string
	// Sole: no other process works on the catalog, so that sessions of former ones are taken over at once.
	Sole bool
	// Slots is how many machines are copied at once in all, 0: any number.
	Slots int
	// Now is the clock; nil is the machine's.
	Now func() time.Time
	// Log is told what a person wants to know; nil: nobody is told.
	Log *slog.Logger
}

const (
	// leaseLength is how long work is this process's without being renewed. How far copies are is told every tellEvery, and noted,
	// with their leases renewed, every so many times.
	leaseLength = time.Minute
	tellEvery   = 5 * time.Second
	renewEvery  = 4
	// longestSleep is how long the loop sleeps at most: the clock may be set, or the machine have been asleep. longestRest is how long
	// it leaves the jobs alone at most though nothing is due, and clockDrift what a clock that nobody sets may go wrong meanwhile.
	longestSleep = 30 * time.Second
	longestRest  = time.Hour
	clockDrift   = time.Second
	// aliveFor is how long one look at all jobs may take before the scheduler counts as stuck.
	aliveFor = 5 * time.Minute
)

// Scheduler runs the jobs of a catalog.
type Scheduler struct {
	catalog *catalog.Catalog
	options Options
	log     *slog.Logger
	events  broker
	slots   *job.Slots
	// wake makes the loop look again.
	wake chan struct{}
	// work are the goroutines that carry sessions out and look at sources. Run waits for them.
	work sync.WaitGroup
	// read is what resources said when they were read last.
	read policy.Memory
	// pruned is when the history was pruned last; only the loop knows it.
	pruned time.Time

	// turned is when the loop looked at the jobs last, by the clock of the process.
	turned atomic.Pointer[time.Time]

	mu sync.Mutex
	// base is what sessions' contexts come from; nil while Run does not run, or begins nothing any more.
	base context.Context
	// known are the resources as they were read last; nil: they are to be read.
	known *policy.Resources
	// changes counts how often they were changed: what was read before the last change is not kept.
	changes int
	// running are the sessions that this process carries out, by job.
	running map[string]*run
	// watches are what is known of the sources of jobs that are to begin when these have something new.
	watches map[string]*watch
	// locks are what this process has seen of locked points in the sources of jobs.
	locks map[string]*job.Locks
	// troubles are what keeps the scheduler from its work, by what cannot be done.
	troubles map[string]Trouble
}

// New makes a scheduler for the jobs of a catalog. It does nothing until Run.
func New(c *catalog.Catalog, o Options) *Scheduler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{
		catalog: c, options: o, log: o.Log, slots: job.NewSlots(o.Slots), wake: make(chan struct{}, 1),
		running: map[string]*run{}, watches: map[string]*watch{}, locks: map[string]*job.Locks{}, troubles: map[string]Trouble{},
	}
	s.trouble(notStarted, errors.New(notStarted))
	return s
}

// notStarted is what is not ready before Run, and after it.
const notStarted = "the scheduler does not run"

// Run begins and carries out sessions until ctx ends. Then those in progress write a checkpoint and are left in the catalog,
// for the next process to take up; Run returns when they have.
func (s *Scheduler) Run(ctx context.Context) error {
	base, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.base = base
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.base = nil
		s.mu.Unlock()
		s.trouble(notStarted, errors.New(notStarted))
		leave(job.ErrLeft)
		s.work.Wait()
	}()
	if s.options.Sole {
		if _, err := s.catalog.Tasks.ExpireOthers(ctx, s.options.Owner); err != nil {
			return fmt.Errorf("taking up what the last server left: %w", err)
		}
	}
	s.trouble(notStarted, nil)
	for ctx.Err() == nil {
		s.rest(ctx, s.turn(ctx))
	}
	return nil
}

// rest returns when the jobs are to be looked at: at the time given, when something wakes the loop, or ctx ends; and when the clock
// was set or the machine has been asleep, which it looks for every longestSleep. Where other processes work on the catalog too it
// rests no longer than that.
func (s *Scheduler) rest(ctx context.Context, next time.Time) {
	for {
		began, clock := time.Now(), s.options.Now()
		s.turned.Store(&began)
		sleep := time.NewTimer(min(max(next.Sub(clock), 0), longestSleep))
		select {
		case <-ctx.Done():
			sleep.Stop()
			return
		case <-s.wake:
			sleep.Stop()
			return
		case <-sleep.C:
		}
		now := s.options.Now()
		set := now.Round(0).Sub(clock.Round(0)) - time.Since(began) // what the wall's clock went, beside what has passed
		if !s.options.Sole || !now.Before(next) || set.Abs() > clockDrift {
			return
		}
	}
}

// Alive is true as long as the scheduler looks at its jobs again and again.
func (s *Scheduler) Alive() bool {
	last := s.turned.Load()
	return last == nil || time.Since(*last) < aliveFor
}

// Changed says that resources or jobs were changed: the scheduler looks at them again.
func (s *Scheduler) Changed() {
	s.mu.Lock()
	s.known = nil
	s.changes++
	maps.DeleteFunc(s.watches, func(_ string, w *watch) bool { return w.awaited == nil }) // what was seen may not be what is to be copied now
	s.mu.Unlock()
	s.lookAgain()
}

// lookAgain wakes the loop.
func (s *Scheduler) lookAgain() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Trouble is what keeps the scheduler from its work.
type Trouble struct {
	// Job is the one whose sources cannot be looked at between its sessions; empty: it is the scheduler's own.
	Job string
	// Text says what cannot be done, and why.
	Text  string
	Since time.Time
}

// Ready says what is not ready, sorted by its text; empty: everything is.
func (s *Scheduler) Ready() []Trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.troubles))
	for of, w := range s.watches {
		if text, since := w.trouble(); text != "" && w.awaited == nil { // else the next boundary's session finds out
			list = append(list, Trouble{of, lookFailed(of) + ": " + text, since.UTC()})
		}
	}
	slices.SortFunc(list, func(a, b Trouble) int { return strings.Compare(a.Text, b.Text) })
	return list
}

// trouble notes what cannot be done, or with nil that it can be again. It is logged when it changes.
func (s *Scheduler) trouble(what string, err error) {
	now := s.options.Now()
	s.mu.Lock()
	before, known := s.troubles[what]
	var text string
	if err == nil {
		delete(s.troubles, what)
	} else {
		if text = what; err.Error() != what {
			text += ": " + err.Error()
		}
		since := now.UTC()
		if known {
			since = before.Since
		}
		s.troubles[what] = Trouble{Text: text, Since: since}
	}
	s.mu.Unlock()
	if err != nil && text != before.Text && what != notStarted {
		s.log.Error(what, "error", err)
	}
}
