package server

import (
	"context"
)

// Scheduler is what the server needs of the one that begins sessions and carries them out.
type Scheduler interface {
	// Changed says that resources or jobs have changed.
	Changed()
	Stop(ctx context.Context, job string, now bool) error
	Enable(ctx context.Context, job string) error
	Disable(ctx context.Context, job string) error
	// Rebuild reads the points of a repository into the mirror anew and returns how many there are.
	Rebuild(ctx context.Context, repository string) (points int64, err error)
	// Ready says what is not ready; empty: everything is.
	Ready() []string
}
