package scheduler

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// Start says how a session that a person asks for is to be.
type Start struct {
	// Full reads the newest point of each machine whole from its source.
	Full bool
	// Retry begins one only if the last session left something undone.
	Retry bool
}

// Start begins a session of a job now, also of one that is not enabled, and returns its number.
func (s *Scheduler) Start(ctx context.Context, of string, how Start) (session int64, err error) {
	resources, err := s.resourcesWith(ctx, of)
	if err != nil {
		return 0, err
	}
	if how.Retry {
		if err := s.checkRetry(ctx, of); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	ready := s.base != nil
	s.mu.Unlock()
	if !ready {
		return 0, ErrNotReady
	}
	begun, lease, err := s.catalog.Sessions.Begin(ctx, catalog.NewSession{Job: of, Full: how.Full}, s.options.Owner, leaseLength)
	if errors.Is(err, catalog.ErrSessionRunning) {
		return 0, fmt.Errorf("job %s: %w", of, ErrRunning)
	}
	if err != nil {
		return 0, err
	}
	r := s.begin(begun, lease, resources)
	if r == nil { // it is in the catalog, and the next process takes it up
		return begun.ID, nil
	}
	s.log.Info("session begins", "job", of, "session", begun.ID, "why", "a person asked", "full", how.Full)
	s.launch(r)
	return begun.ID, nil
}

// checkRetry is an error if the last session of a job has nothing to be done again.
func (s *Scheduler) checkRetry(ctx context.Context, of string) error {
	last, err := s.catalog.Sessions.Of(ctx, of, 0, 1)
	switch {
	case err != nil:
		return err
	case len(last) == 0 || last[0].State == catalog.SessionDone:
		return fmt.Errorf("job %s: %w", of, ErrNothingToRetry)
	}
	return nil
}

// Stop asks the session of a job to end: after a checkpoint, or with now at once. It does not wait until it has.
func (s *Scheduler) Stop(ctx context.Context, of string, now bool) error {
	if _, err := s.resourcesWith(ctx, of); err != nil {
		return err
	}
	live, err := s.catalog.Sessions.Live(ctx)
	if err != nil {
		return err
	}
	how := catalog.CancelGracefully
	if now {
		how = catalog.CancelNow
	}
	for _, session := range live {
		if session.Job != of {
			continue
		}
		if err := s.catalog.Sessions.Cancel(ctx, session.ID, how); err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		s.mu.Lock()
		r := s.running[of]
		s.mu.Unlock()
		if r != nil && r.session.ID == session.ID {
			r.cancel(how)
		}
		s.log.Info("session is asked to stop", "job", of, "session", session.ID, "now", now)
		return nil
	}
	return fmt.Errorf("job %s: %w", of, ErrNotRunning)
}

// Enable switches a job on: its intervals begin by themselves.
func (s *Scheduler) Enable(ctx context.Context, of string) error {
	return s.switchJob(ctx, of, s.catalog.Jobs.Enable)
}

// Disable switches a job off. A session in progress goes on.
func (s *Scheduler) Disable(ctx context.Context, of string) error {
	return s.switchJob(ctx, of, s.catalog.Jobs.Disable)
}

func (s *Scheduler) switchJob(ctx context.Context, of string, change func(context.Context, string) error) error {
	_, err := s.resourcesWith(ctx, of)
	if err == nil {
		err = change(ctx, of)
	}
	if err == nil {
		s.lookAgain()
	}
	return err
}

// Explain is what a session of a job would do that began now, and the job as it would go by.
func (s *Scheduler) Explain(ctx context.Context, of string) (*job.Explanation, policy.Job, error) {
	setup, _, err := s.Setup(ctx, of)
	if err != nil {
		return nil, policy.Job{}, err
	}
	explanation, err := job.Explain(ctx, setup)
	return explanation, setup.Job, err
}

// Setup is what a session of a job would go by that began now, and the resources that the job is among.
func (s *Scheduler) Setup(ctx context.Context, of string) (job.Setup, policy.Resources, error) {
	resources, err := s.resourcesWith(ctx, of)
	if err != nil {
		return job.Setup{}, resources, err
	}
	setup, err := s.prepare(ctx, resources, of)
	if err != nil {
		return setup, resources, err
	}
	state, err := s.catalog.Jobs.State(ctx, of)
	if err != nil {
		return setup, resources, err
	}
	if !state.Start.IsZero() {
		setup.Host.Start, setup.Host.Interval = state.Start, intervalAt(setup.Job.Schedule.From(state.Start), s.options.Now())
	}
	setup.Host.Locks = s.locksOf(of)
	return setup, resources, s.tellRetired(ctx, &setup)
}

// resourcesWith are the resources, if a job is among them.
func (s *Scheduler) resourcesWith(ctx context.Context, of string) (policy.Resources, error) {
	resources, err := s.resources(ctx)
	if err != nil {
		return resources, err
	}
	if _, there := resources.Job(of); !there {
		return resources, fmt.Errorf("job %s: %w", of, ErrUnknownJob)
	}
	return resources, nil
}
