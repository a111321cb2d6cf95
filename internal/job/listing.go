package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/answer"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
)

// Sources are listed one after the other. One that does not answer keeps no machine of the others from being copied:
//
//  1. If it has not answered for long the next ones are listed meanwhile, and the session goes on with those. It counts as
//     unreadable: what it has is not known.
//  2. Its listing goes on over all that, and the first look that finds it done takes it, unless that is long ago: then it is made
//     anew. So storage that is merely slow is waited for.
//  3. If that is while others are copied, those copies end after a checkpoint, and go on with the next look, beside the machines of
//     the late one: a copy may take days. A source that does so again and again is granted that ever later: copies come to their end.
//  4. When there is nothing else to do the session waits for it. If none of them answers the look itself does.
//  5. At the end of the window, and of the session, it is left behind.

// listingKeeps is how long after it was made a listing is as good as new.
const listingKeeps = 5 * time.Minute

// cutAgain is how long copies have gone on at least before a source that has ended some by its listing ends others, times how often
// it did.
const cutAgain = time.Hour

// standsFor is how long a session whose interval has no end waits for a source that does not answer when there is nothing else to do.
const standsFor = 15 * time.Minute

// errListed ends the copies that are in progress when a source is listed that they did not wait for.
var errListed = errors.New("a source has been listed")

// listing is a source that is being listed.
type listing struct {
	location string
	cancel   context.CancelFunc
	// done is closed once what follows is known, which was at ended.
	done   chan struct{}
	opened *registry.Source
	state  SourceState
	ended  time.Time
	// cut is true if the window, or the session, ended before: what was found says nothing of the source.
	cut bool
	// silent is since when it had not answered as others were listed meanwhile.
	silent time.Time
}

// beginListing begins to list a source, until ctx ends or the window closes.
func (r *runner) beginListing(ctx context.Context, place Place) *listing {
	ctx, closed := r.whileOpen(ctx)
	ctx, cancel := context.WithCancel(ctx)
	l := &listing{location: place.Origin.Repository.Location, done: make(chan struct{})}
	l.cancel = func() {
		cancel()
		closed()
	}
	go func() {
		l.opened, l.state = r.openSource(ctx, place)
		l.ended, l.cut = time.Now(), ctx.Err() != nil
		close(l.done)
		select {
		case r.listed <- struct{}{}:
		default:
		}
	}()
	return l
}

// end ends a listing, and lets go of what it has found.
func (l *listing) end() {
	l.cancel()
	<-l.done
	if l.opened != nil {
		l.opened.Close()
	}
}

// isDone is true once the source was listed, or could not be.
func (l *listing) isDone() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// wait waits for the listing; if others could be listed meanwhile, no longer than the source answers.
func (l *listing) wait(ctx context.Context, others bool) error {
	ticker := time.NewTicker(listenEvery)
	defer ticker.Stop()
	for !l.isDone() {
		if l.silent = answer.Of(l.location).Silent(); others && !l.silent.IsZero() {
			return nil
		}
		select {
		case <-l.done:
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// openSources lists the sources into the view, and says in which state each is. Those that go on are listed while ctx and the window
// last; the view is waited for while reading does.
func (r *runner) openSources(ctx, reading context.Context, v *view) ([]SourceState, error) {
	v.opened = make([]*registry.Source, len(r.Sources))
	states := make([]SourceState, len(r.Sources))
	for i, place := range r.Sources {
		if l := r.listings[i]; l != nil && l.isDone() && (l.cut || time.Since(l.ended) > listingKeeps) {
			l.end()
			delete(r.listings, i)
		}
		if r.listings[i] == nil {
			r.listings[i] = r.beginListing(ctx, place)
		}
		if err := r.listings[i].wait(reading, len(r.Sources) > 1); err != nil {
			return nil, err
		}
		if err := r.takeListing(reading, i, v, states); err != nil {
			return nil, err
		}
	}
	for len(r.listings) > 0 && len(r.listings) == len(r.Sources) { // none of them answers
		select {
		case <-r.listed:
		case <-reading.Done():
			return nil, reading.Err()
		}
		for i := range r.Sources {
			if err := r.takeListing(reading, i, v, states); err != nil {
				return nil, err
			}
		}
	}
	return states, reading.Err()
}

// untilListed is a context for copies: it ends with errListed once a source is listed whose machines they keep waiting. After the end of
// the interval none is waited for.
func (r *runner) untilListed(ctx context.Context) (copying context.Context, end func()) {
	copying, cancel := context.WithCancelCause(ctx)
	began := time.Now()
	var waiting sync.WaitGroup
	for i, l := range r.listings {
		least := time.Duration(r.cuts[i]) * cutAgain
		waiting.Go(func() {
			select {
			case <-l.done:
				if l.opened != nil && time.Since(began) >= least && !r.expired() {
					cancel(errListed)
				}
			case <-copying.Done():
			}
		})
	}
	return copying, func() {
		cancel(nil)
		waiting.Wait()
	}
}

// noteCuts notes which sources have ended copies.
func (r *runner) noteCuts() {
	for i, l := range r.listings {
		if l.isDone() {
			r.cuts[i]++
		}
	}
}

// takeListing takes a listing over into the view, if it is done. It is an error if what ends reading too, now or in a moment, has cut it off.
func (r *runner) takeListing(reading context.Context, i int, v *view, states []SourceState) error {
	l, goes := r.listings[i]
	switch {
	case !goes:
	case l.isDone():
		if l.cut {
			if err := storage.Sleep(reading, time.Second); err != nil {
				return err
			}
		}
		v.ends = append(v.ends, l.cancel)
		v.opened[i], states[i] = l.opened, l.state
		delete(r.listings, i)
	default:
		states[i] = r.silentSince(r.Sources[i], l.silent)
	}
	return nil
}

// silentSince is the state of a source that does not answer.
func (r *runner) silentSince(place Place, since time.Time) SourceState {
	return SourceState{Name: place.Origin.Repository.Name, State: StateUnreadable, Reason: "it does not answer since " + r.show(since), silent: true}
}

// noteUnlisted notes what the first look found, which the window's end cut off: nothing, unless none of the sources has answered for long.
// What an earlier look found still holds.
func (r *runner) noteUnlisted() {
	if r.session.Selected != nil {
		return
	}
	r.session.Sources = []SourceState{}
	var silent []SourceState
	for i, place := range r.Sources {
		l := r.listings[i]
		if l == nil || l.silent.IsZero() {
			return
		}
		silent = append(silent, r.silentSince(place, l.silent))
	}
	r.session.Sources = silent
}

// endListings ends those that go on.
func (r *runner) endListings() {
	for _, l := range r.listings { // all at once: each is waited for a while
		l.cancel()
	}
	for i, l := range r.listings {
		l.end()
		delete(r.listings, i)
	}
}

// unanswered is the wait for a source that does not answer; false: there is none.
func (r *runner) unanswered() (Wait, bool) {
	for _, state := range r.session.Sources {
		if state.silent {
			wait := waitFor(WaitSource, fmt.Sprintf("source %s is %s: %s", state.Name, state.State, state.Reason))
			wait.Source = state.Name
			return wait, true
		}
	}
	return Wait{}, false
}

// stoodLong is true if the session has waited for such a source as long as it may. Until the end of an interval it may. One of a server
// whose interval has none, as after another job or by hand, would keep the job's next ones from beginning, for days.
func (r *runner) stoodLong() bool {
	if r.Host.Start.IsZero() || !r.Host.Interval.Ends.IsZero() {
		return false
	}
	if r.stands.IsZero() {
		r.stands = r.Now()
	}
	return r.Now().Sub(r.stands) >= standsFor
}
