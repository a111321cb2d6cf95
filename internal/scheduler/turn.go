package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// turn looks at all jobs once, and returns when to look again at the latest.
func (s *Scheduler) turn(ctx context.Context) (next time.Time) {
	now := s.options.Now()
	resources, err := s.resources(ctx)
	s.trouble("the jobs cannot be read", err)
	if err != nil {
		return now.Add(longestSleep)
	}
	next = now.Add(longestRest)
	err = s.takeUp(ctx, resources)
	var states []catalog.JobState
	if err == nil {
		states, err = s.catalog.Jobs.List(ctx)
	}
	if err == nil {
		for _, state := range states {
			of, there := resources.Job(state.Job)
			if !there || !state.Enabled {
				s.unwatch(state.Job)
				continue
			}
			look, failed := s.decide(ctx, resources, of.Effective(), state)
			err = errors.Join(err, failed)
			if !look.IsZero() && look.Before(next) {
				next = look
			}
		}
	}
	if err == nil {
		err = s.prune(ctx)
	}
	if ctx.Err() == nil {
		s.trouble("the jobs cannot be looked at", err)
	}
	if err != nil {
		return now.Add(longestSleep)
	}
	return next
}

// resources are what people configured. They are read when they were changed. A job that is new is enabled, and what the catalog
// keeps of the schedule of one that has gone is forgotten, as is what is known of its sources.
func (s *Scheduler) resources(ctx context.Context) (policy.Resources, error) {
	s.mu.Lock()
	known, changes := s.known, s.changes
	s.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	read, err := s.readResources(ctx)
	if err != nil {
		return policy.Resources{}, err
	}
	states, err := s.catalog.Jobs.List(ctx)
	if err != nil {
		return policy.Resources{}, err
	}
	started := map[string]bool{}
	for _, state := range states {
		started[state.Job] = !state.Start.IsZero()
		if _, there := read.Job(state.Job); !there {
			if err := s.catalog.Jobs.Forget(ctx, state.Job); err != nil {
				return policy.Resources{}, err
			}
		}
	}
	for _, of := range read.Jobs {
		if !started[of.Name] {
			if err := s.catalog.Jobs.EnableNew(ctx, of.Name); err != nil {
				return policy.Resources{}, err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes {
		s.known = &read
		gone := func(of string) bool { _, there := read.Job(of); return !there }
		maps.DeleteFunc(s.watches, func(of string, _ *watch) bool { return gone(of) })
		maps.DeleteFunc(s.locks, func(of string, _ *job.Locks) bool { return gone(of) })
		if s.options.Configured != nil {
			s.options.Configured(read)
		}
	}
	return read, nil
}

func (s *Scheduler) readResources(ctx context.Context) (policy.Resources, error) {
	list, err := s.catalog.Resources.List(ctx, false, "Repository", "Job")
	if err != nil {
		return policy.Resources{}, err
	}
	var files []policy.File
	for _, r := range list {
		files = append(files, policy.File{Name: strings.ToLower(r.Kind) + " " + r.Name, Content: []byte(r.Document)})
	}
	return policy.Rules{Memory: &s.read}.Parse(files...)
}

// takeUp takes over sessions whose owner has gone, and carries them on.
func (s *Scheduler) takeUp(ctx context.Context, resources policy.Resources) error {
	for {
		session, lease, found, err := s.catalog.Sessions.Take(ctx, s.options.Owner, leaseLength)
		if err != nil || !found {
			return err
		}
		r := s.begin(session, lease, resources)
		if r == nil {
			return ErrNotReady
		}
		s.log.Info("session taken up", "job", session.Job, "session", session.ID, "began", session.Started)
		r.takenUp = true
		s.launch(r)
	}
}

// decide does what a job's schedule says now, and returns when to look at it again; zero: when something asks.
func (s *Scheduler) decide(ctx context.Context, resources policy.Resources, of policy.Job, state catalog.JobState) (time.Time, error) {
	history := policy.History{Start: state.Start, Last: state.Last, Running: s.isRunning(of.Name), Asked: state.Asked}
	d := of.Schedule.Due(history, s.options.Now())
	byBoundary := of.Schedule.Mode == policy.Periodic && d.Action == policy.Begin && d.Begins.After(history.Last) && !d.Begins.Before(d.History.Start)
	if d.Action == policy.End {
		s.endInterval(of.Name)
	}
	corrected := d.History
	if d.Action == policy.Begin {
		corrected.Asked = history.Asked // beginning the session answers it
		if byBoundary {
			corrected.Last = history.Last // and notes its boundary
		}
	}
	if !corrected.Start.Equal(history.Start) || !corrected.Last.Equal(history.Last) || !corrected.Asked.Equal(history.Asked) {
		if err := s.catalog.Jobs.Correct(ctx, of.Name, corrected.Start, corrected.Last, corrected.Asked); err != nil {
			return time.Time{}, err
		}
	}
	if d.Action == policy.Begin {
		if err := s.beginDue(ctx, resources, of, d, byBoundary); err != nil {
			return time.Time{}, err
		}
	}
	if !d.Look.Equal(state.Next) {
		if err := s.catalog.Jobs.SetNext(ctx, of.Name, d.Look); err != nil {
			return d.Look, err
		}
	}
	look := d.Look
	if d.Action == policy.Wait && !history.Running && history.Asked.IsZero() && s.watchesFor(of) {
		if next := s.look(resources, of); !next.IsZero() && (look.IsZero() || next.Before(look)) {
			look = next
		}
	}
	return look, nil
}

// endInterval tells the session of a job that its interval is over, and that the next one waits for its end.
func (s *Scheduler) endInterval(of string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[of]; r != nil {
		r.isOver.Do(func() { close(r.over) })
	}
}

// notRunReason is why intervals were not run, as far as that can be known afterwards.
const notRunReason = "its time passed while no session could begin: no server ran, the job was disabled, or a session of it was still in progress"

// mostNotRun bounds how many intervals are recorded one by one as not run.
const mostNotRun = 1000

// beginDue begins the session that a decision asks for.
func (s *Scheduler) beginDue(ctx context.Context, resources policy.Resources, of policy.Job, d policy.Decision, byBoundary bool) error {
	if err := s.recordMissed(ctx, of, d); err != nil {
		return err
	}
	begun := catalog.NewSession{Job: of.Name}
	if byBoundary {
		begun.Boundary = d.Begins
	}
	session, lease, err := s.catalog.Sessions.Begin(ctx, begun, s.options.Owner, leaseLength)
	switch {
	case errors.Is(err, catalog.ErrSessionRunning):
		return nil // another process's, or one that was begun by hand this moment
	case errors.Is(err, catalog.ErrBoundaryTaken):
		// It was begun by a clock that was ahead. What has come since is to be copied all the same.
		s.lookAgain()
		return s.catalog.Jobs.Correct(ctx, of.Name, d.History.Start, d.Begins, s.options.Now())
	case err != nil:
		return err
	}
	if r := s.begin(session, lease, resources); r != nil {
		r.scheduled, r.again = true, !byBoundary && s.appeared(of.Name)
		s.log.Info("session begins", "job", of.Name, "session", session.ID, "why", d.Reason)
		s.launch(r)
	}
	return nil
}

// recordMissed records the boundaries that got no interval: the last of them one by one.
func (s *Scheduler) recordMissed(ctx context.Context, of policy.Job, d policy.Decision) error {
	if d.Missed.Count == 0 {
		return nil
	}
	in := of.Schedule.From(d.History.Start)
	var boundaries []time.Time
	for at := d.Missed.Last; len(boundaries) < min(d.Missed.Count, mostNotRun) && !at.Before(d.Missed.First); at = in.Current(at.Add(-1)) {
		boundaries = append(boundaries, at)
	}
	slices.Reverse(boundaries) // the oldest has the lowest number
	reason := notRunReason
	if more := d.Missed.Count - len(boundaries); more > 0 {
		reason += fmt.Sprintf("; %d before these are not listed", more)
	}
	return s.catalog.Sessions.RecordNotRun(ctx, of.Name, boundaries, reason)
}

// historyKept is how long ended sessions and figures are kept, pruneEvery how often older ones are removed.
const (
	historyKept = 366 * 24 * time.Hour
	pruneEvery  = 24 * time.Hour
)

// prune removes history that is old.
func (s *Scheduler) prune(ctx context.Context) error {
	now := s.options.Now()
	if since := now.Sub(s.pruned); since >= 0 && since < pruneEvery {
		return nil
	}
	s.pruned = now
	pruned, err := s.catalog.PruneHistory(ctx, now.Add(-historyKept))
	if err == nil && pruned.Sessions > 0 {
		s.log.Info("old history removed", "sessions", pruned.Sessions, "figures", pruned.Figures)
	}
	return err
}

func (s *Scheduler) isRunning(of string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[of] != nil
}
