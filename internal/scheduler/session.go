package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// Why a session's context ends.
var (
	errLeaving  = errors.New("the server ends")
	errStopped  = errors.New("a person stopped it")
	errLostHold = errors.New("another process has taken it over")
)

// run is a session that this process carries out.
type run struct {
	session   catalog.Session
	resources policy.Resources
	// takenUp: another process began it.
	takenUp bool
	stop    context.CancelCauseFunc
	context context.Context

	mu    sync.Mutex
	lease catalog.SessionLease
	how   catalog.Cancel
}

// begin notes a session as running; nil if nothing is begun any more.
func (s *Scheduler) begin(session catalog.Session, lease catalog.SessionLease, resources policy.Resources) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return nil
	}
	r := &run{session: session, lease: lease, resources: resources}
	r.context, r.stop = context.WithCancelCause(s.base)
	s.running[session.Job] = r
	s.sessions.Add(1)
	return r
}

// launch carries a session out in a goroutine of its own, which Run waits for.
func (s *Scheduler) launch(r *run) {
	go func() {
		defer s.sessions.Done()
		defer s.lookAgain()
		defer s.forget(r)
		s.carryOut(r)
	}()
}

func (s *Scheduler) forget(r *run) {
	r.stop(nil)
	s.mu.Lock()
	delete(s.running, r.session.Job)
	s.mu.Unlock()
	s.events.end(r.session.ID)
}

// cancel ends a session's work.
func (r *run) cancel(how catalog.Cancel) {
	r.mu.Lock()
	stronger := how > r.how
	r.how = max(r.how, how)
	r.mu.Unlock()
	if stronger {
		r.stop(errStopped)
	}
}

// carryOut runs a session and ends it, unless the process ends before.
func (s *Scheduler) carryOut(r *run) {
	defer s.keep(r)()
	if r.session.Cancel != catalog.CancelNone { // asked of the process that had it
		r.cancel(r.session.Cancel)
	}
	setup, err := s.options.Prepare(r.context, r.resources, r.session.Job)
	if err != nil {
		s.end(r, catalog.SessionFailed, err.Error(), nil)
		return
	}
	setup.Now, setup.Full = s.options.Now, r.session.Full
	session := job.Run(r.context, setup)
	cause := context.Cause(r.context)
	if session.Result == job.ResultInterrupted && (errors.Is(cause, errLeaving) || errors.Is(cause, errLostHold)) {
		return // whoever takes it over goes on
	}
	report, err := json.Marshal(session)
	if err == nil {
		err = s.catalog.Sessions.SetReport(context.WithoutCancel(r.context), r.held(), report)
	}
	if err != nil {
		s.log.Error("the report of a session cannot be kept", "job", r.session.Job, "session", r.session.ID, "error", err)
	}
	s.end(r, endState(session), session.Reason, countsOf(session))
}

// end ends a session in the catalog.
func (s *Scheduler) end(r *run, state catalog.SessionState, reason string, counts catalog.Counts) {
	if err := s.catalog.Sessions.End(context.WithoutCancel(r.context), r.held(), state, reason, counts); err != nil {
		s.log.Error("the end of a session cannot be noted", "job", r.session.Job, "session", r.session.ID, "error", err)
		return
	}
	if ended, err := s.catalog.Sessions.Get(context.WithoutCancel(r.context), r.session.ID); err == nil {
		s.events.publish(r.session.ID, Event{Kind: EventSession, Session: &ended})
	}
	s.log.Info("session ended", "job", r.session.Job, "session", r.session.ID, "state", state, "reason", reason)
}

func (r *run) held() catalog.SessionLease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// keep renews a session's lease until the function that it returns is called.
func (s *Scheduler) keep(r *run) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				s.renew(r)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func (s *Scheduler) renew(r *run) {
	lease := r.held()
	cancel, err := s.catalog.Sessions.Renew(context.WithoutCancel(r.context), &lease, leaseLength)
	if errors.Is(err, catalog.ErrLostLease) {
		r.stop(errLostHold)
	}
	s.trouble("the lease of a session cannot be renewed", err)
	if err == nil {
		r.mu.Lock()
		r.lease = lease
		r.mu.Unlock()
		r.cancel(cancel)
	}
}

// endState is how a session stands in the catalog when it has ended.
func endState(s *job.Session) catalog.SessionState {
	switch s.Result {
	case job.ResultDone:
		return catalog.SessionDone
	case job.ResultPartly:
		return catalog.SessionPartial
	case job.ResultInterrupted:
		return catalog.SessionStopped
	case job.ResultWaits: // what it waited for did not come in its time
		if s.Target.State == job.StateReady && anyReady(s.Sources) {
			return catalog.SessionPartial
		}
	case job.ResultFailed, job.ResultRefused, job.ResultAborted:
	}
	return catalog.SessionFailed
}

func anyReady(sources []job.SourceState) bool {
	for _, source := range sources {
		if source.State == job.StateReady {
			return true
		}
	}
	return false
}

// countsOf are the figures of a session, by the names that phases use.
func countsOf(s *job.Session) catalog.Counts {
	counts := catalog.Counts{
		"machines": int64(len(s.Tasks)), "copied": int64(s.Copied()), "claimed": int64(s.Claimed()), "failed": int64(s.Failed()), "removed": int64(s.Removed()),
		"alarms": int64(len(s.Alarms)), "warnings": int64(len(s.Warnings)), "damagedPoints": int64(s.Damage.Points), "damagedPlaces": int64(s.Damage.Places),
	}
	for _, phase := range s.Phases {
		for _, name := range []string{"readBytes", "storedBytes", "deletedBytes"} {
			if n := phase.Counts[name]; n > 0 && phase.Name != job.PhaseCompact {
				counts[name] = cmp.Or(counts[name], 0) + n
			}
		}
	}
	return counts
}
