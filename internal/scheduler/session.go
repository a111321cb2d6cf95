package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// errLostHold ends a session that another process has taken over.
var errLostHold = errors.New("another process has taken it over")

// errStopped ends a session after a checkpoint.
var errStopped = errors.New("a person stopped it")

// How long a session waits that no boundary ends. One of mode immediate is followed by another when it has waited in vain, and
// removes what is to be removed in between.
const (
	patience          = 7 * 24 * time.Hour
	patienceImmediate = 24 * time.Hour
)

// run is a session that this process carries out.
type run struct {
	session   catalog.Session
	resources policy.Resources
	// scheduled: a boundary began it, also if that had its session before, by a clock that was wrong.
	scheduled bool
	// again: the interval had a session, and a machine that had nothing to copy then has now.
	again bool
	// takenUp: another process began it.
	takenUp bool
	stop    context.CancelCauseFunc
	context context.Context
	// over is closed, once, when the schedule says that the session's interval is over.
	over   chan struct{}
	isOver sync.Once
	// leaving ends when the process does.
	leaving context.Context

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
	r := &run{session: session, lease: lease, resources: resources, leaving: s.base, over: make(chan struct{})}
	r.context, r.stop = context.WithCancelCause(s.base)
	s.running[session.Job] = r
	s.work.Add(1)
	return r
}

// launch carries a session out in a goroutine of its own, which Run waits for.
func (s *Scheduler) launch(r *run) {
	go func() {
		defer s.work.Done()
		defer s.lookAgain()
		defer s.forget(r)
		s.carryOut(r)
	}()
}

func (s *Scheduler) forget(r *run) {
	r.stop(nil)
	s.mu.Lock()
	if s.running[r.session.Job] == r { // else the next one has begun: the catalog knew of the end before
		delete(s.running, r.session.Job)
	}
	s.mu.Unlock()
	s.events.end(r.session.ID)
}

// cancel ends a session's work. To end at once is stronger than to end after a checkpoint, as long as that has not ended it.
func (r *run) cancel(how catalog.Cancel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if how <= r.how {
		return
	}
	r.how = how
	if how == catalog.CancelNow {
		r.stop(job.ErrStopNow)
	} else {
		r.stop(errStopped)
	}
}

func (r *run) held() catalog.SessionLease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// carryOut runs a session and ends it, unless the process ends before.
func (s *Scheduler) carryOut(r *run) {
	n := &record{Scheduler: s, run: r, tasks: map[backup.PointID]*task{}}
	defer s.keep(n)()
	if r.takenUp {
		n.resume()
	}
	if r.session.Cancel != catalog.CancelNone { // asked of the process that had it
		r.cancel(r.session.Cancel)
	}
	ended, held := s.runJob(n)
	cause := context.Cause(r.context)
	if errors.Is(cause, errLostHold) {
		return
	}
	if ended.Result == job.ResultInterrupted && errors.Is(cause, job.ErrLeft) {
		n.leave()
		s.log.Info("session left for the next server", "job", r.session.Job, "session", r.session.ID)
		return
	}
	if ended.Result == job.ResultInterrupted {
		ended.Reason = errStopped.Error()
	}
	n.phaseBegan(job.PhaseReport)
	s.noteSession(n, ended)
	n.untilNoted(func() error { return s.end(n, ended, held) })
}

// prepare makes what a session of a job needs. A target whose resource names no id must be the repository that the catalog has the
// points of, once it has: another one at its place is refused, until Rebuild has met it.
func (s *Scheduler) prepare(ctx context.Context, resources policy.Resources, of string) (job.Setup, error) {
	setup, err := s.options.Prepare(ctx, resources, of)
	if err != nil || setup.Target.ID != "" {
		return setup, err
	}
	head, err := s.catalog.Mirror.Head(ctx, setup.Target.Name)
	switch {
	case errors.Is(err, catalog.ErrNotFound) || err == nil && head.RepositoryID == ofSource:
		return setup, nil
	case err != nil:
		return setup, err
	}
	setup.Target.ID = head.RepositoryID
	return setup, nil
}

// runJob runs the interval of a session. held are the points that the job has in its target at the end, as far as it was looked at.
func (s *Scheduler) runJob(n *record) (ended *job.Session, held map[backup.PointID]bool) {
	r := n.run
	of, there := r.resources.Job(r.session.Job)
	if !there {
		gone := job.Setup{Job: policy.Job{Name: r.session.Job}, Host: job.Host{ID: strconv.FormatInt(r.session.ID, 10)}, Now: s.options.Now}
		return job.Fail(r.context, gone, ErrUnknownJob), nil
	}
	setup, err := s.prepare(r.context, r.resources, r.session.Job)
	setup.Job.Name = of.Name
	state, unknown := s.catalog.Jobs.State(n.context(), of.Name)
	s.host(n, &setup, of.Effective().Schedule, state.Start)
	if err == nil {
		err = unknown
	}
	if err == nil {
		err = s.tellRetired(n.context(), &setup)
	}
	if err != nil {
		return job.Fail(r.context, setup, err), nil
	}
	setup.Host.Leaving = func(ctx context.Context, target *repo.Repository) {
		held = claimed(target, of.Name)
		n.note(s.noteTarget(ctx, setup.Target.Name, target))
	}
	now := s.options.Now()
	ended = job.Run(r.context, setup)
	if r.takenUp {
		ended.Warnings = append(ended.Warnings, fmt.Sprintf("the session was interrupted and taken up again at %s; points copied before that: %d",
			now.In(cmp.Or(of.Effective().Schedule.Zone, time.UTC)).Format("2006-01-02 15:04 MST"), n.before))
	}
	return ended, held
}

// tellRetired has a session know which machines a person has retired. What cannot be read is as it was.
func (s *Scheduler) tellRetired(ctx context.Context, setup *job.Setup) error {
	known, err := s.catalog.Machines.Retired(ctx)
	setup.Host.Retired = func() map[backup.MachineKey]backup.Retirement {
		now, err := s.catalog.Machines.Retired(ctx)
		s.trouble("which machines have gone cannot be read", err)
		if err == nil {
			known = now
		}
		return known
	}
	return err
}

// intervalAt is the interval in which an instant lies. Without boundaries it begins then, and nothing ends it.
func intervalAt(in policy.Intervals, at time.Time) policy.Interval {
	if !in.Periodic() {
		return policy.Interval{Begins: at}
	}
	return policy.Interval{Begins: in.Current(at), Ends: in.Next(at)}
}

// host tells a session what it is, and has it tell what it does.
func (s *Scheduler) host(n *record, setup *job.Setup, schedule policy.Schedule, start time.Time) {
	session := n.run.session
	if start.IsZero() {
		start = session.Started
	}
	interval := intervalAt(schedule.From(start), session.Started)
	switch {
	case !session.Boundary.IsZero():
		interval = intervalAt(schedule.From(start), session.Boundary)
		interval.Begins = session.Boundary // also if the schedule was changed since
	case interval.Ends.IsZero():
		longest := patience
		if schedule.Mode == policy.Immediate {
			longest = patienceImmediate
		}
		setup.Wait = max(0, longest-s.options.Now().Sub(session.Started))
	}
	setup.Now, setup.Full = s.options.Now, session.Full
	setup.Host = job.Host{
		ID: strconv.FormatInt(session.ID, 10), Start: start, Interval: interval, Awaits: n.run.scheduled || !session.Boundary.IsZero(), Over: n.run.over,
		Again: n.run.again, Locks: s.locksOf(session.Job),
		PhaseEnded: n.phaseEnded, Planned: n.planned, Slots: s.slots, Waits: n.waits, Window: s.windowOf(session.Job, setup.Job.Window),
	}
	if n.run.takenUp {
		setup.Host.Ran, setup.Host.Began, setup.Host.Earlier = n.ran(), session.Started, n.earlier
	}
	setup.Phase = n.phaseBegan
	setup.Copy.Started, setup.Copy.Finished = n.started, n.finished
}

// windowOf is the window of a job, which is as given until resources are applied that say otherwise.
func (s *Scheduler) windowOf(name string, window policy.Window) func() policy.Window {
	return func() policy.Window {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.known != nil {
			if of, there := s.known.Job(name); there {
				window = of.Effective().Window
			}
		}
		return window
	}
}

// end ends a session in the catalog, with its tasks and its report, and asks the jobs that come after it. It may be repeated.
func (s *Scheduler) end(n *record, ended *job.Session, held map[backup.PointID]bool) error {
	session := n.run.session
	if err := n.close(ended, held); err != nil {
		return err
	}
	report, err := json.Marshal(ended)
	if err != nil {
		return err
	}
	err = s.catalog.Sessions.SetReport(n.context(), n.run.held(), report)
	if errors.Is(err, catalog.ErrTooLarge) { // it will not become smaller; counts, phases and tasks are kept
		s.log.Error("a session ends without its report", "job", session.Job, "session", session.ID, "error", err)
	} else if err != nil {
		return err
	}
	counts := countsOf(ended, n.stored, &n.pace)
	if err := s.ask(n, ended, counts); err != nil { // before the end: whoever takes it over asks again
		return err
	}
	n.phaseLeft(map[string]int64{"reportBytes": int64(len(report))})
	state := endState(ended)
	if err := s.catalog.Sessions.End(n.context(), n.run.held(), state, ended.Reason, counts); err != nil {
		return err
	}
	s.watched(n.run.resources, ended)
	n.tellSession()
	level := s.log.Info
	if state != catalog.SessionDone && state != catalog.SessionExpired {
		level = s.log.Warn
	}
	level("session ended", "job", session.Job, "session", session.ID, "state", state, "reason", ended.Reason,
		"copied", counts["copied"], "failed", counts["failed"], "removed", counts["removed"])
	return nil
}

// keep renews a session's leases until the function that it returns is called.
func (s *Scheduler) keep(n *record) (end func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for count := 1; ; count++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			renew := count%renewEvery == 0
			n.progress(renew)
			if renew {
				n.run.renew(n)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func (r *run) renew(n *record) {
	lease := r.held()
	cancel, err := n.catalog.Sessions.Renew(n.context(), &lease, leaseLength)
	n.note(err)
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
		if s.Target.State == job.StateReady && !s.SourcesWait() {
			return catalog.SessionExpired
		}
	case job.ResultFailed, job.ResultRefused, job.ResultAborted:
	}
	return catalog.SessionFailed
}

// countsOf are the figures of a session. stored counts the points copied by all processes that had it, pace is that of this one.
func countsOf(s *job.Session, stored int, pace *pace) catalog.Counts {
	counts := catalog.Counts{
		"machines": int64(len(s.Tasks)), "copied": int64(stored), "claimed": int64(s.Claimed()), "failed": int64(s.Failed()), "removed": int64(s.Removed()),
		"sources": int64(len(s.Sources)), "sourcesRead": int64(s.SourcesRead()), "targetRead": 0,
		"pointBytes": pace.bytes, "copyMilliseconds": pace.spent().Milliseconds(),
		"alarms": int64(len(s.Alarms)), "warnings": int64(len(s.Warnings)), "damagedPoints": int64(s.Damage.Points), "damagedPlaces": int64(s.Damage.Places),
	}
	if s.TargetRead() {
		counts["targetRead"] = 1
	}
	for _, of := range s.Tasks {
		for _, p := range of.Points {
			counts["readBytes"] += p.ReadBytes
			counts["storedBytes"] += p.StoredBytes
		}
	}
	return counts
}
