package scheduler

import (
	"context"
	"reflect"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// Jobs of mode immediate have no boundaries: a new point in a source asks for an interval. And an interval of a job that looks
// backward takes of each machine of which there was nothing to copy the first point that appears before its end: that one asks for
// another session of the interval. Sources do not tell, so they are listed again and again, as `ferry points` does it, by names
// and headers:
//
//  1. Only while the job is enabled, no session of it runs, and its window is open.
//  2. lookEvery after the last time, and no more than a share of the time is spent on it: a source that takes long to list is
//     listed less often.
//  3. A complete point of a machine selected which the last listing did not have asks. After the server's start or a change of
//     resources, and retryAfter after a session that left something undone, there is no last listing, and an immediate job's
//     interval begins. A job with boundaries then looks again with its next one.
const (
	lookEvery  = time.Minute
	retryAfter = 15 * time.Minute
)

// watch is what is known of the sources of a job.
type watch struct {
	// seen are the points of the last listing; nil: there is none.
	seen map[backup.PointID]*backup.Machine
	// awaited are the machines of which a point asks; nil: all of them.
	awaited map[backup.MachineKey]bool
	// appeared: a point of one of those did.
	appeared bool
	// noted is when this was known, next when the sources are listed again, looking is true while they are.
	noted, next time.Time
	looking     bool
	// places are where the sources lie that are being looked at.
	places []string
	// failed is why the last look came to nothing, and failing since when they do; empty: it did not fail.
	failed  string
	failing time.Time
}

// watched notes what a session saw of the sources of its job. Under other resources than those that hold now that is nothing for an
// immediate job; of one with boundaries the points that its interval waits for are the same.
func (s *Scheduler) watched(under policy.Resources, ended *job.Session) {
	now := s.options.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known != nil {
		if _, there := s.known.Job(ended.Job); !there { // it has gone while its session ran
			return
		}
	}
	of, _ := under.Job(ended.Job)
	periodic := of.Effective().Schedule.Mode == policy.Periodic
	switch {
	case periodic && len(ended.Awaited) > 0:
		s.watches[ended.Job] = &watch{seen: ended.Seen, awaited: ended.Awaited, noted: now, next: now.Add(lookEvery)}
	case periodic || s.known == nil || !reflect.DeepEqual(*s.known, under):
		delete(s.watches, ended.Job)
	case !ended.Undone():
		s.watches[ended.Job] = &watch{seen: ended.Seen, noted: now, next: now.Add(lookEvery)}
	default:
		s.watches[ended.Job] = &watch{noted: now, next: now.Add(retryAfter)}
	}
}

// appeared is true if what asks for a session of a job is a point that an interval of it waits for.
func (s *Scheduler) appeared(of string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[of]
	return w != nil && w.appeared
}

// watchesFor is true for jobs whose sources are looked at between sessions.
func (s *Scheduler) watchesFor(of policy.Job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[of.Name]
	return of.Schedule.Mode == policy.Immediate || of.Schedule.Mode == policy.Periodic && w != nil && w.awaited != nil
}

// unwatch forgets what is known of the sources of a job that does not look at them.
func (s *Scheduler) unwatch(of string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watches, of)
}

// locksOf are what has been seen of locked points in the sources of a job. What a session sees, looks between sessions go on with.
func (s *Scheduler) locksOf(of string) *job.Locks {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[of] == nil {
		s.locks[of] = &job.Locks{}
	}
	return s.locks[of]
}

// look has the sources of a job looked at if it is time, and returns when it is next.
func (s *Scheduler) look(resources policy.Resources, of policy.Job) (next time.Time) {
	now := s.options.Now()
	if !of.Window.Open(now) {
		opens, _ := of.Window.Change(now)
		return opens
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[of.Name]
	if w == nil || w.awaited != nil && of.Schedule.Mode == policy.Immediate {
		w = &watch{next: now}
		s.watches[of.Name] = w
	}
	if w.looking || s.base == nil {
		return now.Add(lookEvery)
	}
	if now.Before(w.next) && !now.Before(w.noted) { // else the clock was wrong that noted it
		return w.next
	}
	w.looking = true
	s.work.Add(1)
	go s.lookAt(s.base, w, resources, of.Name, now)
	return now.Add(lookEvery)
}

// lookAt looks at the sources of a job, and asks for an interval if they have something new, or there is no last listing.
func (s *Scheduler) lookAt(ctx context.Context, w *watch, resources policy.Resources, of string, began time.Time) {
	defer s.work.Done()
	defer s.lookAgain()
	ask := w.seen == nil
	var seen map[backup.PointID]*backup.Machine
	failed := ""
	if !ask {
		setup, err := s.options.Prepare(ctx, resources, of)
		if err == nil {
			setup.Now, setup.Host.Locks = s.options.Now, s.locksOf(of)
			s.looksAt(w, setup.Sources)
			seen, err = job.Look(ctx, setup)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failed = err.Error()
		}
	}
	ended := s.options.Now()
	s.mu.Lock()
	for id, of := range seen { // none is forgotten: what a source that was offline for a while has is not new when it is back
		_, known := w.seen[id]
		ask = ask || !known && (w.awaited == nil || w.awaited[of.Key])
		w.seen[id] = of
	}
	w.places, w.appeared = nil, ask && w.awaited != nil
	w.looking, w.noted, w.next = false, ended, ended.Add(max(lookEvery, job.LookShare*ended.Sub(began)))
	again := failed == w.failed
	if w.failed == "" {
		w.failing = ended
	}
	w.failed = failed
	s.mu.Unlock()
	if failed != "" && !again {
		s.log.Error(lookFailed(of), "error", failed)
	}
	if ask {
		s.trouble("job "+of+" cannot be asked to run", s.catalog.Jobs.Ask(ctx, of))
	}
}

func (s *Scheduler) looksAt(w *watch, sources []job.Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, place := range sources {
		w.places = append(w.places, place.Origin.Repository.Location)
	}
}

// trouble is why looking comes to nothing, and since when; empty: it does not, or that is not known.
func (w *watch) trouble() (text string, since time.Time) {
	for _, place := range w.places {
		if since := answer.Of(place).Silent(); !since.IsZero() {
			return place + ": it does not answer since " + since.UTC().Format("2006-01-02 15:04 UTC"), since
		}
	}
	return w.failed, w.failing
}

func lookFailed(of string) string { return "the sources of job " + of + " cannot be looked at" }
