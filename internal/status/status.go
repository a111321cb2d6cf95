// Package status says how everything stands, from what the catalog knows: which machines' copies are too old, what runs, what
// waits and for what, what begins next, how full repositories are, and what a person has to look at. It opens no repository.
//
// What it asks the catalog is so many questions for each job and each repository, whatever there is of machines and points; the
// answers are in proportion to the machines.
package status

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/job"
	"ferry/internal/policy"
)

// Options of a look.
type Options struct {
	// Version of the server.
	Version string
	// Machines is how many are listed at most; those whose copies are too old always are. 0 lists no others, less than 0 all.
	Machines int
	// Troubles are what keeps the server from its work.
	Troubles []Trouble
}

// Trouble is what keeps the server from its work, or from seeing between a job's sessions what its sources have.
type Trouble struct {
	// Job whose sources cannot be looked at; empty: it is the server's.
	Job   string
	Text  string
	Since time.Time
}

// What is listed of work at most.
const (
	runningLimit = 200
	waitsLimit   = 100
)

// looker is one look at everything.
type looker struct {
	catalog   *catalog.Catalog
	resources policy.Resources
	now       time.Time
	// states of the jobs that were ever enabled, and the sessions that have not ended, by job.
	states map[string]catalog.JobState
	live   map[string]catalog.Session
	// tellsDamage are the jobs whose own last session tells of damage.
	tellsDamage map[string]bool
	status      api.Status
}

// Of says how everything stands at a time. Resources are those that hold.
func Of(ctx context.Context, c *catalog.Catalog, resources policy.Resources, now time.Time, o Options) (api.Status, error) {
	l := &looker{catalog: c, resources: resources, now: now, tellsDamage: map[string]bool{}, status: api.Status{
		At: now.UTC(), Version: o.Version,
		Alarms: []api.Alarm{}, Machines: []api.Copy{}, Sessions: []api.Session{}, Running: []api.Task{}, Waiting: []api.Wait{}, Jobs: []api.Job{}, Repositories: []api.Repository{},
	}}
	if err := l.readStates(ctx); err != nil {
		return api.Status{}, err
	}
	places := places{}
	for _, of := range resources.Jobs {
		of = of.Effective()
		past, err := l.past(ctx, of.Name)
		if err != nil {
			return api.Status{}, err
		}
		places.add(past)
		l.liveAt(places, of, past)
		l.status.Jobs = append(l.status.Jobs, l.job(of, past))
		l.judgeJob(of, past)
		newer, err := l.copies(ctx, of, past)
		if err != nil {
			return api.Status{}, err
		}
		lag, err := l.lag(ctx, of, past, newer)
		if err != nil {
			return api.Status{}, err
		}
		l.status.Jobs[len(l.status.Jobs)-1].Lag = lag
		l.judgeLag(of, past, lag)
	}
	if err := l.repositories(ctx, places); err != nil {
		return api.Status{}, err
	}
	if err := l.work(ctx); err != nil {
		return api.Status{}, err
	}
	for _, trouble := range o.Troubles {
		l.judgeTrouble(trouble)
	}
	l.sort(o.Machines)
	return l.status, nil
}

// Jobs says where the jobs stand, sorted as they are in Of.
func Jobs(ctx context.Context, c *catalog.Catalog, resources policy.Resources, now time.Time) ([]api.Job, error) {
	l := &looker{catalog: c, resources: resources, now: now}
	if err := l.readStates(ctx); err != nil {
		return nil, err
	}
	jobs := []api.Job{}
	for _, job := range resources.Jobs {
		newest, err := l.catalog.Sessions.Of(ctx, job.Name, 0, 2) // one of them may not have ended
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, l.job(job.Effective(), past{last: newestEnded(newest)}))
	}
	sortJobs(jobs)
	return jobs, nil
}

func (l *looker) readStates(ctx context.Context) error {
	l.states, l.live = map[string]catalog.JobState{}, map[string]catalog.Session{}
	states, err := l.catalog.Jobs.List(ctx)
	if err != nil {
		return err
	}
	for _, state := range states {
		l.states[state.Job] = state
	}
	live, err := l.catalog.Sessions.Live(ctx)
	if err != nil {
		return err
	}
	for _, session := range live {
		l.live[session.Job] = session
	}
	return nil
}

// liveAt adds the repositories as a job's session finds them: those that it waits for, and the target if it has that again. Of sources
// one does not answer, or none of them can be read.
func (l *looker) liveAt(found places, j policy.Job, p past) {
	session := l.live[j.Name]
	if s := p.cameToTarget(); s != nil && s.report.Target.State != job.StateReady && l.hasTarget(j, s.report.Target) {
		found.put(j.Target.Repository, place{state: job.StateReady, seen: session.Started, unverified: api.Unknown})
	}
	switch waitKind(session.Wait) {
	case job.WaitTarget:
		found.put(j.Target.Repository, place{state: job.PlaceState(session.Wait.State), reason: session.Wait.Reason, seen: l.now, unverified: api.Unknown})
	case job.WaitSource:
		for _, name := range l.awaited(j) {
			found.put(name, place{state: cmp.Or(job.PlaceState(session.Wait.State), job.StateUnreadable), reason: session.Reason, seen: l.now, unverified: api.Unknown})
		}
	}
}

// work is what runs and what waits.
func (l *looker) work(ctx context.Context) error {
	for _, session := range l.live {
		l.status.Sessions = append(l.status.Sessions, Session(session))
	}
	slices.SortFunc(l.status.Sessions, func(a, b api.Session) int { return cmp.Compare(a.ID, b.ID) })
	running, err := l.catalog.Status.Running(ctx, runningLimit)
	if err != nil {
		return err
	}
	for _, task := range running {
		l.status.Running = append(l.status.Running, Task(task))
	}
	waits, err := l.catalog.Status.Waits(ctx, waitsLimit)
	for _, wait := range waits {
		described := api.Wait{Job: wait.Job, Kind: l.live[wait.Job].Wait.Kind, Reason: wait.Reason, Tasks: wait.Tasks, Until: wait.Until}
		switch {
		case wait.Failed:
			described.Kind = string(job.WaitRetry)
		case described.Kind == "": // its session works on others
			described.Kind, described.Reason = string(job.WaitSlot), cmp.Or(wait.Reason, "a free slot")
		}
		l.status.Waiting = append(l.status.Waiting, described)
	}
	return err
}

// waitKind is the kind of what a session waits for; empty: it does not.
func waitKind(of catalog.Blocked) job.WaitKind { return job.WaitKind(of.Kind) }

// sort puts first what has to be looked at first, and leaves out machines beyond a number whose copies are not too old.
func (l *looker) sort(machines int) {
	s := &l.status
	slices.SortStableFunc(s.Alarms, func(a, b api.Alarm) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Since.Compare(b.Since))
	})
	slices.SortStableFunc(s.Machines, func(a, b api.Copy) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), a.Created.Compare(b.Created), strings.Compare(a.Machine.Name, b.Machine.Name))
	})
	if most := max(machines, s.TooOld); machines >= 0 && len(s.Machines) > most {
		s.Machines = s.Machines[:most:most]
	}
	sortJobs(s.Jobs)
}

// sortJobs puts first the job whose turn comes next, and those without a turn last.
func sortJobs(jobs []api.Job) {
	slices.SortStableFunc(jobs, func(a, b api.Job) int {
		if a.Next.IsZero() != b.Next.IsZero() {
			if a.Next.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.Next.Compare(b.Next), strings.Compare(a.Name, b.Name))
	})
}

// order is the place of a copy's group: too old, none, then the others.
func order(c api.Copy) int {
	switch {
	case c.TooOld:
		return 0
	case c.Point == "":
		return 1
	case !c.Missing.IsZero() && c.Retired.IsZero():
		return 2
	}
	return 3
}
