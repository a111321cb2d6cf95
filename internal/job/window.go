package job

import (
	"context"
	"time"

	"ferry/internal/answer"
)

// window is whether data may be read from sources now, and until when that holds; zero: for ever.
func (r *runner) window() (open bool, until time.Time) {
	now := r.Now()
	until, _ = r.Job.Window.Change(now)
	return r.Job.Window.Open(now), until
}

// whileOpen is a context for what reads from sources: it ends with errWindow when the window that is open closes.
func (r *runner) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	open, until := r.window()
	if !open || until.IsZero() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, until.Sub(r.Now()), errWindow)
	return answer.Ending(ctx), cancel
}
