package job

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
)

// Result is how a session ended.
type Result string

// The results.
const (
	// ResultDone: everything that was to do is done.
	ResultDone Result = "done"
	// ResultPartly: some machines failed, or work beside the copies did, such as a health check.
	ResultPartly Result = "some failed"
	// ResultFailed: nothing worked.
	ResultFailed Result = "failed"
	// ResultWaits: something has to come first, such as a target that is not there; nothing is wrong with the job.
	ResultWaits Result = "waiting"
	// ResultRefused: the target is not the one that the job is for.
	ResultRefused Result = "refused"
	// ResultAborted: the script before the job said so.
	ResultAborted Result = "aborted"
	// ResultInterrupted: a person or the system ended it.
	ResultInterrupted Result = "interrupted"
)

// Session is the record of one interval: what was done, when and why. It goes as it is to the script after the job and to
// --json; names that sources gave are encoded in it. Lists are never nil.
type Session struct {
	ID  string `json:"id"`
	Job string `json:"job"`
	// Nominal is when the interval began by the schedule.
	Nominal time.Time `json:"nominal"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Result  Result    `json:"result"`
	// Reason says in words why the result is not done; empty if it is.
	Reason   string        `json:"reason"`
	Target   TargetState   `json:"target"`
	Sources  []SourceState `json:"sources"`
	Phases   []Phase       `json:"phases"`
	Tasks    []Task        `json:"tasks"`
	Damage   Damage        `json:"damage"`
	Alarms   []Alarm       `json:"alarms"`
	Warnings []string      `json:"warnings"`

	// Err is the error behind the result, for an exit code; nil if there is none.
	Err error `json:"-"`
	// Listings are what the sources had when they were listed last, one for each repository, and Selected the machines that the
	// job copies of it, in the order of processing, and behind them those that have dropped out of that without being excluded: no
	// source offers them now, or one does under another name; nil: they were not listed.
	Listings []Listing        `json:"-"`
	Selected []backup.Machine `json:"-"`
	// Retired are the machines of which a person has said whether they have gone for good, as far as sources or target have them.
	Retired []Retired `json:"-"`
	// Seen are the complete points that the sources had then of the machines selected, and whose they are.
	Seen map[backup.PointID]*backup.Machine `json:"-"`
	// Awaited are, of a job that looks backward, the machines of which nothing was to copy in this interval so far: the first point
	// that appears of one is the interval's.
	Awaited map[backup.MachineKey]bool `json:"-"`
}

// NewSession is the record of a session that begins now.
func NewSession(id, job string, now time.Time) *Session {
	return &Session{
		ID: id, Job: job, Began: now.UTC(), Nominal: now.UTC(), Result: ResultDone,
		Sources: []SourceState{}, Phases: []Phase{}, Tasks: []Task{}, Alarms: []Alarm{}, Warnings: []string{},
	}
}

// Damage is what of the target is known to be damaged, and not healed, as the session ends.
type Damage struct {
	// Points of the job that cannot be restored whole.
	Points int `json:"points"`
	// Places: those of these points, or what the session's own health check found anywhere in the target if that is more.
	Places int `json:"places"`
}

// PlaceState is what a source or the target was found to be.
type PlaceState string

// The states. A target that is ready can still turn out full or read only while it is written to.
const (
	StateReady PlaceState = "ready"
	// StateOffline: no repository is there; the disk may not be mounted.
	StateOffline PlaceState = "offline"
	// StateOther: a repository is there, and not the one that the job is for.
	StateOther PlaceState = "another repository"
	// StateNeedsKey: it is encrypted, and no key that was given opens it, or one that was given cannot be read.
	StateNeedsKey PlaceState = "needs a key"
	StateFull     PlaceState = "full"
	StateReadOnly PlaceState = "read only"
	// StateMissing, StateEmpty and StateUnreadable are those of sources.
	StateMissing    PlaceState = "missing"
	StateEmpty      PlaceState = "empty"
	StateUnreadable PlaceState = "unreadable"
)

// Is says the state behind the name of a place: "is offline", "needs a key".
func (s PlaceState) Is() string {
	if s == StateNeedsKey {
		return string(s)
	}
	return "is " + string(s)
}

// TargetState is the target as the session found it.
type TargetState struct {
	// Name of its resource, its location, and the id of the repository that is there, empty if none is.
	Name     string     `json:"name"`
	Location string     `json:"location"`
	ID       string     `json:"id"`
	State    PlaceState `json:"state"`
	Reason   string     `json:"reason"`
	// Verified is the oldest of the last proofs of its packs' bytes, zero if there is none; Unverified counts the packs that
	// were not verified since they were written.
	Verified   time.Time `json:"verified"`
	Unverified int       `json:"unverified"`
}

// SourceState is a source as the session found it.
type SourceState struct {
	Name   string     `json:"name"`
	State  PlaceState `json:"state"`
	Reason string     `json:"reason"`
	// Points that it offers to the job.
	Points int `json:"points"`
	// silent: it does not answer, as far as this process knows.
	silent bool
}

// readable is true of a target that can be read, if not written to.
func (t TargetState) readable() bool {
	return t.State == StateReady || t.State == StateFull || t.State == StateReadOnly
}

// PhaseName names a phase.
type PhaseName string

// The phases, in the order of an interval.
const (
	PhasePreScript   PhaseName = "pre-job script"
	PhaseHealthCheck PhaseName = "health check"
	PhaseSynchronize PhaseName = "synchronize"
	PhaseTransform   PhaseName = "transform"
	PhaseCompact     PhaseName = "compact"
	PhasePostScript  PhaseName = "post-job script"
	// PhaseReport: whoever keeps sessions' records writes this one down. It is in the record, and not in what is written.
	PhaseReport PhaseName = "report"
)

// PhaseState is how a phase ended.
type PhaseState string

// The states of phases.
const (
	PhaseDone    PhaseState = "done"
	PhaseSkipped PhaseState = "skipped"
	PhaseWaits   PhaseState = "waiting"
	PhaseWarned  PhaseState = "warning"
	PhaseFailed  PhaseState = "failed"
)

// Phase is one phase of the interval. The counts are named in docs/job-run.md; those of a phase that was skipped are empty.
type Phase struct {
	Name   PhaseName        `json:"name"`
	State  PhaseState       `json:"state"`
	Reason string           `json:"reason"`
	Began  time.Time        `json:"began"`
	Ended  time.Time        `json:"ended"`
	Counts map[string]int64 `json:"counts"`
	// Script is set for phases that are scripts, if it was run.
	Script *ScriptResult `json:"script,omitempty"`
}

// TaskState is what became of a machine.
type TaskState string

// The states of tasks.
const (
	// TaskCopied: at least one point was copied or claimed.
	TaskCopied TaskState = "copied"
	// TaskUpToDate: there was nothing to copy.
	TaskUpToDate TaskState = "up to date"
	TaskWaits    TaskState = "waiting"
	TaskFailed   TaskState = "failed"
	// TaskMissing: no source has the machine any more.
	TaskMissing TaskState = "missing"
	// TaskNotReached: the session ended before.
	TaskNotReached TaskState = "not reached"
)

// Task is the work on one machine.
type Task struct {
	Machine TaskMachine `json:"machine"`
	State   TaskState   `json:"state"`
	Reason  string      `json:"reason"`
	// Behind says that the machine is always one interval behind, and what helps; empty if it is not.
	Behind string `json:"behind"`
	// Mapped is the newest point that the job holds of the machine, if target.map links it with another one, under whose id that
	// may be; nil for others.
	Mapped *MappedCopy `json:"mapped,omitempty"`
	// Points that something was done with, or that failed: those that stay as they are, are not among them.
	Points []TaskPoint `json:"points"`
}

// MappedCopy is a point of a machine that target.map links with another one.
type MappedCopy struct {
	Point   string    `json:"point"`
	Created time.Time `json:"created"`
}

// TaskMachine is a machine in a report, its names encoded.
type TaskMachine struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// TaskPoint is a point that something was done with.
type TaskPoint struct {
	Point   string      `json:"point"`
	Created time.Time   `json:"created"`
	Action  plan.Action `json:"action"`
	Outcome Outcome     `json:"outcome"`
	Reasons []string    `json:"reasons"`
	Error   string      `json:"error"`
	Hint    string      `json:"hint"`
	// Attempts that its copy took.
	Attempts    int     `json:"attempts"`
	ReadBytes   int64   `json:"readBytes"`
	NewBytes    int64   `json:"newBytes"`
	StoredBytes int64   `json:"storedBytes"`
	Seconds     float64 `json:"seconds"`
}

func describeMachine(m backup.Machine) TaskMachine {
	return TaskMachine{ID: m.Key.String(), Name: backup.SafeText(backup.EncodeName(m.Name))}
}

// nameOf names a machine in a sentence: a person knows it by its name, and the id tells which it is if several have that.
func nameOf(m TaskMachine) string {
	if m.Name == "" {
		return "machine " + m.ID
	}
	return "machine " + m.Name + " (" + m.ID + ")"
}

// Copied counts points that were copied, Claimed those that the target had for another job, Failed those that could not be
// copied, Removed those that the job gave up.
func (s *Session) Copied() int { return s.outcomes(plan.ActionCopy, OutcomeCopied) }

// Claimed counts points that the target had already.
func (s *Session) Claimed() int { return s.outcomes(plan.ActionClaim, OutcomeCopied) }

// Removed counts points that the job gave up.
func (s *Session) Removed() int { return s.outcomes(plan.ActionRemove, OutcomeCopied) }

// Failed counts points that could not be copied.
func (s *Session) Failed() int {
	n := 0
	for _, task := range s.Tasks {
		n += task.count(func(p TaskPoint) bool { return p.Outcome == OutcomeFailed })
	}
	return n
}

// Undone is true if a session has left work that one which begins soon may do: it did not come to its end, a machine failed or waits,
// or a phase failed. What a source hides is none.
func (s *Session) Undone() bool {
	switch s.Result {
	case ResultDone:
		return false
	case ResultPartly:
		return slices.ContainsFunc(s.Tasks, func(t Task) bool { return t.State == TaskFailed || t.State == TaskWaits }) ||
			slices.ContainsFunc(s.Phases, func(p Phase) bool { return p.State == PhaseFailed })
	}
	return true
}

// machinesNamed is how many machines a reason names.
const machinesNamed = 5

// which names the machines whose tasks are in a state: ": web01, db01, and 3 more".
func (s *Session) which(state TaskState) string {
	var names []string
	more := 0
	for _, task := range s.Tasks {
		switch {
		case task.State != state:
		case len(names) == machinesNamed:
			more++
		default:
			names = append(names, cmp.Or(task.Machine.Name, task.Machine.ID))
		}
	}
	if more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return ": " + strings.Join(names, ", ")
}

func (s *Session) outcomes(action plan.Action, outcome Outcome) int {
	n := 0
	for _, task := range s.Tasks {
		n += task.outcomes(action, outcome)
	}
	return n
}

// outcomes counts the points of which an action came to an outcome.
func (t Task) outcomes(action plan.Action, outcome Outcome) int {
	return t.count(func(p TaskPoint) bool { return p.Action == action && p.Outcome == outcome })
}

func (t Task) count(is func(TaskPoint) bool) int {
	n := 0
	for _, p := range t.Points {
		if is(p) {
			n++
		}
	}
	return n
}

// judge makes a task failed of which a point has failed, whatever became of the others. What failed as broken, and could be
// copied when it was looked at again, has not failed.
func (t *Task) judge() {
	copied := map[string]bool{}
	for _, p := range t.Points {
		copied[p.Point] = copied[p.Point] || p.Outcome == OutcomeCopied
	}
	t.Points = slices.DeleteFunc(t.Points, func(p TaskPoint) bool { return p.Outcome == OutcomeFailed && copied[p.Point] })
	for _, p := range t.Points {
		if p.Outcome == OutcomeFailed {
			t.State, t.Reason = TaskFailed, p.Error
			if p.Error == "" {
				t.Reason = fmt.Sprintf("the point of %s is %s: %s", p.Created.Format(time.RFC3339), p.Action, strings.Join(p.Reasons, "; "))
			}
		}
	}
}

// SourcesRead counts the sources that could be read.
func (s *Session) SourcesRead() int {
	n := 0
	for _, source := range s.Sources {
		if source.State == StateReady {
			n++
		}
	}
	return n
}

// SourcesWait is true if none of the sources is ready.
func (s *Session) SourcesWait() bool { return len(s.Sources) > 0 && s.SourcesRead() == 0 }

// TargetRead is true if the session could read the target as it ended, so that it says what is verified and damaged there.
func (s *Session) TargetRead() bool {
	return s.Result != ResultInterrupted && s.Target.readable()
}

// Phase returns the phase of a name; nil if the session did not come to it.
func (s *Session) Phase(name PhaseName) *Phase {
	for i := range s.Phases {
		if s.Phases[i].Name == name {
			return &s.Phases[i]
		}
	}
	return nil
}
