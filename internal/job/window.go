package job

import (
	"context"
	"slices"
	"time"

	"ferry/internal/answer"
	"ferry/internal/storage"
)

// window is whether data may be read from sources now, and until when that holds if the window is not changed; zero: for ever.
func (r *runner) window() (open bool, until time.Time) {
	now, window := r.Now(), r.Job.Window
	if r.Host.Window != nil {
		window = r.Host.Window()
	}
	until, _ = window.Change(now)
	return window.Open(now), until
}

// whileOpen is a context for what reads from sources: it ends with errWindow when the window that is open closes, or soon after it was
// changed to one that is closed.
func (r *runner) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	open, until := r.window()
	switch {
	case !open:
		return ctx, func() {}
	case r.Host.Window != nil:
		ctx, cancel := context.WithCancelCause(ctx)
		go r.untilClosed(ctx, until, cancel)
		return answer.Ending(ctx), func() { cancel(nil) }
	case until.IsZero():
		return ctx, func() {}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, until.Sub(r.Now()), errWindow)
	return answer.Ending(ctx), cancel
}

// untilClosed looks at the window, which is open until then, until it is closed, and says so to end.
func (r *runner) untilClosed(ctx context.Context, until time.Time, end context.CancelCauseFunc) {
	for open := true; open; open, until = r.window() {
		length := lookAgain
		if !until.IsZero() {
			length = min(length, until.Sub(r.Now()))
		}
		if storage.Sleep(ctx, length) != nil {
			return
		}
	}
	end(errWindow)
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
