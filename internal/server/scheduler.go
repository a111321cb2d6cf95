package server

import (
	"context"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/scheduler"
)

// Scheduler is what the server needs of the one that begins sessions and carries them out. Errors wrap those of package
// scheduler.
type Scheduler interface {
	// Changed says that resources have changed. A job that is new is enabled.
	Changed()
	// Start begins a session of a job and returns its number.
	Start(ctx context.Context, job string, how scheduler.Start) (session int64, err error)
	Stop(ctx context.Context, job string, now bool) error
	Enable(ctx context.Context, job string) error
	Disable(ctx context.Context, job string) error
	// Explain says what a session of a job would do that began now.
	Explain(ctx context.Context, job string) (*job.Explanation, policy.Job, error)
	// Setup is what such a session would go by, and the resources that the job is among.
	Setup(ctx context.Context, job string) (job.Setup, policy.Resources, error)
	// Rebuild reads the points of a repository into the mirror anew and returns how many there are.
	Rebuild(ctx context.Context, repository string) (points int64, err error)
	// Adopt takes a repository's history as the one to go on with, says whether it was another before, and does what Rebuild does.
	Adopt(ctx context.Context, repository string) (adopted bool, points int64, err error)
	// Subscribe gives the events of a session until it has ended, or another process carries it out. Events that nobody takes
	// in time are left out when the channel is full.
	Subscribe(session int64) (events <-chan scheduler.Event, cancel func())
	// Ready says what is not ready; empty: everything is.
	Ready() []scheduler.Trouble
}
