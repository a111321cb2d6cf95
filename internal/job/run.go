package job

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
	"ferry/internal/storage"
)

// Setup is what a session of a job needs from the machine that runs it.
type Setup struct {
	// Job with its effective settings.
	Job     policy.Job
	Sources []Place
	Target  Goal
	// Document is left in the target: the job and its repositories as YAML. So are Needed, the jobs that it cannot be without.
	Document string
	Needed   []repo.NeededJob
	// Full reads the newest point of each machine whole from its source, into a domain of its own.
	Full bool
	// Wait is how long the session waits for locks and for its window; 0 does not. It has no meaning if Host.Interval ends.
	Wait time.Duration
	// Hidden are variables of this process's environment that scripts do not get, beside those that are secret everywhere.
	Hidden []string
	// Copy are the options of copying: Codec, TempDir, Started and Finished. The others are the session's.
	Copy Options
	// Phase, if not nil, is told of each phase when it begins, and Checking of a health check's counters.
	Phase    func(PhaseName)
	Checking func(*repo.VerifyProgress)
	// Host is the process that carries out many sessions.
	Host Host
	// Now is the clock and Pause waits; nil means the system's.
	Now   func() time.Time
	Pause func(context.Context, time.Duration) error
}

// Place is a source of a job.
type Place struct {
	Origin policy.Origin
	// Open lists the source. The session closes it.
	Open func(context.Context) (*registry.Source, error)
	// Jobs are those that claim a point in the source; nil: none do.
	Jobs func(source.Point) []string
	// Donors are the Ferry repositories among what was opened, which damaged blocks can be had from; nil: none.
	Donors func(*registry.Source) []*repo.Repository
}

// Goal is the target of a job.
type Goal struct {
	Name, Location string
	// ID that the repository must have; empty takes any.
	ID string
	// Slots is how many machines may be copied to it at once; 0: any number.
	Slots int
	// Open opens the repository. The session closes it.
	Open func(context.Context) (*repo.Repository, error)
}

// runner is one session while it runs.
type runner struct {
	Setup
	session *Session
	target  *repo.Repository
	memory  memory
	// notes is true for a session, which notes in the target what it finds lost there, and lost are those points.
	notes bool
	lost  map[backup.PointID]repo.Entry
	// recalled is true once the memory was read from the target, met is the target's id since it was ready.
	recalled bool
	met      string
	// preDone is true once the script before the job has run, or there is none.
	preDone bool
	// until is when waiting ends, waitsFor what the host was told of it last, and blocked what the last round found to wait for.
	until             time.Time
	waitsFor, blocked Wait
	// telling guards waitsFor and what it is made of: waiting is what the session waits for by itself, silent a place that has not
	// answered for long.
	telling         sync.Mutex
	waiting, silent Wait
	// offers are what the sources offered when this session listed them last, doubt is why there may be more, and
	// selected are the machines that the job copies of it, as selection says of all.
	offers    []plan.Offer
	doubt     string
	selected  []backup.MachineKey
	selection policy.Selection
	// listings are those of sources that go on, by their numbers; one that has ended is told of by listed.
	listings map[int]*listing
	listed   chan struct{}
	// cuts is how often the listing of a source, by its number, has ended copies.
	cuts map[int]int
	// appearedBefore is how often copies were ended for a point that had appeared.
	appearedBefore int
	// looked is how long the last look took.
	looked time.Duration
	// stands is since when nothing is left to do but to wait for a source that does not answer; zero: something is.
	stands time.Time
	// links are those of machines that target.map links, as the last look found them.
	links map[backup.MachineKey]backup.MachineKey
	// told is what the host said last of machines that have gone for good.
	told map[backup.MachineKey]backup.Retirement
	// tasks are the machines' tasks by key, and attempts how often a point's copy was begun.
	tasks    map[backup.MachineKey]*Task
	order    []backup.MachineKey
	attempts map[backup.PointID]int
	// machines are as the plan described them last.
	machines map[backup.MachineKey]backup.Machine
	// entries are what the target had of each machine, by pseudonym, as the transfer began.
	entries map[string][]repo.Entry
	// flagging guards given while points are copied. given are points that were handed over for commit in this session, and their claims' flags.
	flagging sync.Mutex
	given    map[backup.MachineKey][]policy.Candidate
	// stored are the machines of which this session has stored a point that it chose itself.
	stored map[backup.MachineKey]bool
	// claimed are the machines of which the job holds points, whole those whose newest point is read whole in this session.
	claimed, whole map[backup.MachineKey]bool
	// begunWhole are the points whose whole read an earlier session began.
	begunWhole map[backup.PointID]bool
	// earlier are the points that earlier sessions chose alone, earlierFill when those are of that they chose together, chosen those
	// that this one did, copiedNow those that it has copied.
	earlier, chosen, copiedNow map[backup.PointID]bool
	earlierFill                map[string]span
	// filesLocked is until when the storage keeps files that it did not let be deleted.
	filesLocked time.Time
	// madeRoom is true once space was made in a full target, targetTries how often the target failed and was tried again.
	madeRoom bool
	// roomChecked is true once what there is to copy was compared with the space that is left.
	roomChecked bool
	// transformed is true if retention has run since the window closed that is waited for.
	transformed bool
	targetTries int
	// found is what a health check found damaged and could not heal yet.
	found *repo.VerifyReport
	// undone says which phases failed that no copy hangs on, and why; empty: none did.
	undone string
	// partly is which source could not be listed whole, and why; empty: all were that could be listed at all. hidden is true if a
	// source has an encrypted repository, whose points nobody can list without its key.
	partly string
	hidden bool
}

// errAborted ends a session whose script before the job failed.
var errAborted = errors.New("the pre-job script failed")

// Run runs one interval of a job.
//
//	pre-job script -> health check, if due -> synchronize -> transform: retention, reclaim -> compact, if due
//	  -> post-job script, always
//
// Where the window is closed, health check and transform run at once, the latter again after the copies, and the pre-job script before
// the first transfer. What went wrong is in the session, whose Err is what an exit code goes by.
func Run(ctx context.Context, setup Setup) *Session {
	ctx = answer.Ending(ctx)
	r := newRunner(setup)
	r.notes = true
	defer r.close()
	defer r.endListings()
	defer r.listen(ctx)()
	s := r.session
	err := r.untilReady(ctx)
	r.waits(Wait{})
	s.Retired = r.retired()
	began := r.target != nil // after an abort it is opened only for the alarms, and nothing is left in it
	r.finish(ctx, err)
	if began && s.Target.State == StateReady {
		if err := r.remember(context.WithoutCancel(ctx)); err != nil {
			r.warn("what the next session goes by could not be left in the target: %v", err)
		}
		if r.Host.Leaving != nil {
			r.Host.Leaving(context.WithoutCancel(ctx), r.target)
		}
	}
	r.after(ctx)
	return s
}

func newRunner(setup Setup) *runner {
	if setup.Now == nil {
		setup.Now = time.Now
	}
	if setup.Pause == nil {
		setup.Pause = storage.Sleep
	}
	now := setup.Now()
	if setup.Host.Slots == nil {
		setup.Host.Slots = NewSlots(1)
	}
	if setup.Host.Locks == nil {
		setup.Host.Locks = &Locks{}
	}
	if setup.Host.ID == "" {
		var id [8]byte
		rand.Read(id[:]) // never fails: crypto/rand ends the program instead
		setup.Host.ID = hex.EncodeToString(id[:])
	}
	until := now.Add(setup.Wait)
	if ends := setup.Host.Interval.Ends; !ends.IsZero() {
		until = ends
	}
	r := &runner{
		Setup: setup, until: until, doubt: notListed, listings: map[int]*listing{}, cuts: map[int]int{}, listed: make(chan struct{}, 1), tasks: map[backup.MachineKey]*Task{}, attempts: map[backup.PointID]int{},
		machines: map[backup.MachineKey]backup.Machine{}, given: map[backup.MachineKey][]policy.Candidate{}, stored: map[backup.MachineKey]bool{}, whole: map[backup.MachineKey]bool{}, begunWhole: map[backup.PointID]bool{},
		earlier: map[backup.PointID]bool{}, chosen: map[backup.PointID]bool{}, copiedNow: map[backup.PointID]bool{},
	}
	r.Copy.Job, r.Copy.Full, r.Copy.Plain, r.Copy.Mend, r.Copy.Flags, r.Copy.Seeded = setup.Job.Name, setup.Full, false, false, r.flags, r.seeded
	r.session = NewSession(setup.Host.ID, setup.Job.Name, now)
	if !setup.Host.Began.IsZero() {
		r.session.Began = setup.Host.Began.UTC()
	}
	r.session.Target.Name, r.session.Target.Location = setup.Target.Name, setup.Target.Location
	return r
}

func (r *runner) close() {
	if r.target != nil {
		r.target.Close()
		r.target = nil
	}
}

func (r *runner) warn(format string, args ...any) {
	r.session.Warnings = append(r.session.Warnings, backup.SafeText(fmt.Sprintf(format, args...)))
}

// phases runs the phases up to the script after the job. The error ends the session.
func (r *runner) phases(ctx context.Context) error {
	if open, _ := r.window(); open {
		if err := r.before(ctx); err != nil {
			return err
		}
	}
	if err := r.awaitTarget(ctx); err != nil {
		return err
	}
	// A second copy is worth more than a check of the first ones: what fails beside the copies does not keep from them.
	if err := r.beside(ctx, PhaseHealthCheck, r.healthCheck); err != nil {
		return err
	}
	if err := r.transformBeforeWindow(ctx); err != nil {
		return err
	}
	if err := r.synchronize(ctx); err != nil {
		return err
	}
	if err := r.beside(ctx, PhaseTransform, func(ctx context.Context) error { return r.transform(ctx, "") }); err != nil {
		return err
	}
	return r.beside(ctx, PhaseCompact, r.compact)
}

// beside runs a phase that no copy hangs on. Its failure is an alarm, and does not end the session.
func (r *runner) beside(ctx context.Context, name PhaseName, run func(context.Context) error) error {
	err := run(ctx)
	if err == nil || ctx.Err() != nil || r.session.Target.State != StateReady {
		return err
	}
	text := fmt.Sprintf("%s failed: %s", name, backup.SafeText(err.Error()))
	r.alarm(AlarmOther, text)
	r.undone = cmp.Or(r.undone, text)
	return nil
}

// interrupted is the reason of what ended because somebody wanted it to.
const interrupted = "interrupted"

// during runs a phase and notes it. It is done unless run says something else, and failed if that returns an error.
func (r *runner) during(name PhaseName, run func(*Phase) error) error {
	if r.Phase != nil {
		r.Phase(name)
	}
	phase := Phase{Name: name, State: PhaseDone, Began: r.Now().UTC(), Counts: map[string]int64{}}
	err := run(&phase)
	if err != nil {
		phase.State, phase.Reason = PhaseFailed, backup.SafeText(err.Error())
		if errors.Is(err, context.Canceled) { // somebody wanted it to end: the session says who
			phase.Reason = interrupted
		}
	}
	phase.Ended = r.Now().UTC()
	r.keepPhase(phase)
	return err
}

// skip notes a phase that was not run, and why.
func (r *runner) skip(name PhaseName, reason string) {
	now := r.Now().UTC()
	r.keepPhase(Phase{Name: name, State: PhaseSkipped, Reason: reason, Began: now, Ended: now, Counts: map[string]int64{}})
}

func (r *runner) keepPhase(phase Phase) {
	r.session.Phases = append(r.session.Phases, phase)
	if r.Host.PhaseEnded != nil {
		r.Host.PhaseEnded(phase)
	}
}

// finish draws the sum of the session. err is what ended it.
func (r *runner) finish(ctx context.Context, err error) {
	if r.target == nil && errors.Is(err, errAborted) {
		_ = r.openTarget(ctx) // why it is not to be had its state says
	}
	r.lookBack(ctx)
	r.reportEarlier()
	s := r.session
	for _, key := range r.order {
		r.tasks[key].judge()
		s.Tasks = append(s.Tasks, *r.tasks[key])
	}
	states := map[TaskState]int{}
	for _, task := range s.Tasks {
		states[task.State]++
	}
	wait, silent := r.unanswered()
	failed, well := states[TaskFailed], states[TaskCopied]+states[TaskUpToDate]
	s.Err = err
	switch {
	case ctx.Err() != nil:
		s.Result, s.Reason = ResultInterrupted, interrupted
	case errors.Is(err, errAborted):
		s.Result, s.Reason = ResultAborted, err.Error()
	case s.Target.State == StateOther:
		s.Result, s.Reason = ResultRefused, s.Target.Reason
	case s.Target.State != StateReady:
		s.Result, s.Reason = ResultWaits, r.targetReason()
	case err != nil:
		s.Result, s.Reason = ResultFailed, backup.SafeText(err.Error())
	case failed > 0 && well == 0 && s.Copied()+s.Claimed() == 0:
		s.Result, s.Reason = ResultFailed, fmt.Sprintf("%d of %d machines failed%s", failed, len(s.Tasks), s.which(TaskFailed))
	case failed > 0:
		s.Result, s.Reason = ResultPartly, fmt.Sprintf("%d of %d machines failed%s", failed, len(s.Tasks), s.which(TaskFailed))
	case r.undone != "":
		s.Result, s.Reason = ResultPartly, r.undone
	case r.partly != "":
		s.Result, s.Reason = ResultPartly, r.partly
	case s.SourcesWait():
		s.Result, s.Reason = ResultWaits, "no source can be read"
	case s.Selected == nil:
		s.Result, s.Reason = ResultWaits, r.blocked.Text
	case silent:
		s.Result, s.Reason = ResultWaits, wait.Text
	case states[TaskWaits] > 0:
		s.Result, s.Reason = ResultWaits, fmt.Sprintf("%d of %d machines wait%s", states[TaskWaits], len(s.Tasks), s.which(TaskWaits))
	}
}

// task is the task of a machine, made when the session first comes to it. Whether it is up to date only a listing tells.
func (r *runner) task(m backup.Machine) *Task {
	if r.tasks[m.Key] == nil {
		state := TaskUpToDate
		if r.session.Selected == nil {
			state = TaskNotReached
		}
		r.tasks[m.Key] = &Task{Machine: describeMachine(m), State: state, Points: []TaskPoint{}}
		r.order = append(r.order, m.Key)
	}
	return r.tasks[m.Key]
}

// note records what became of a point, in place of what an earlier attempt came to. The first attempt's reasons stay.
func (r *runner) note(step plan.IntervalStep, outcome Outcome, reasons []string) *TaskPoint {
	task := r.task(*step.Point.Machine)
	id := step.Point.ID.String()
	for i := range task.Points {
		if p := &task.Points[i]; p.Point == id && p.Action == step.Action {
			p.Outcome, p.Error, p.Hint = outcome, "", ""
			return p
		}
	}
	safe := []string{}
	for _, reason := range reasons {
		safe = append(safe, backup.SafeText(reason))
	}
	created, _ := backup.BoundTime(step.Point.Created) // whoever lists points: a session can always be written down
	task.Points = append(task.Points, TaskPoint{Point: id, Created: created, Action: step.Action, Outcome: outcome, Reasons: safe})
	return &task.Points[len(task.Points)-1]
}
