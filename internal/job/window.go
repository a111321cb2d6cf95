package job

import (
	"context"
	"slices"
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

// notListed is the doubt of a session that has not listed the sources, as far as there is something to decide without them.
const notListed = "the window is closed, and the sources were not listed"

// unread is true if the session has not listed the sources yet, and all that they have was listed the last time.
func (r *runner) unread() bool {
	return r.session.Selected == nil && len(r.Sources) > 0 && slices.Equal(r.memory.Listed, r.places())
}

// places are where the sources lie.
func (r *runner) places() []string {
	places := make([]string, len(r.Sources))
	for i, place := range r.Sources {
		places[i] = place.Origin.Repository.Location
	}
	return places
}

// waitsForWindow is true if the window is closed, and the session may wait until it opens.
func (r *runner) waitsForWindow() bool {
	open, until := r.window()
	return !open && r.left() > 0 && !until.After(r.until)
}

// transformBeforeWindow runs transform before the session waits for the window, which may be for days: nothing that comes of the copies
// gives a reason to keep what goes now. It runs again after them.
func (r *runner) transformBeforeWindow(ctx context.Context) error {
	if r.transformed || !r.waitsForWindow() {
		return nil
	}
	_, until := r.window()
	err := r.beside(ctx, PhaseTransform, func(ctx context.Context) error {
		return r.transform(ctx, "before the copies: the window is closed until "+r.show(until))
	})
	r.transformed = err == nil
	return err
}
