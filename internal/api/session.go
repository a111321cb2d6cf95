package api

import (
	"encoding/json"
	"time"
)

// Job is where a job stands.
type Job struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	// Schedule in words, such as "every day at 22:00 (Europe/Berlin)".
	Schedule string `json:"schedule"`
	Target   string `json:"target"`
	// Next is when its next interval begins; zero: not by itself. Waits says in words what it waits for.
	Next  time.Time `json:"next"`
	Waits string    `json:"waits"`
	// Running is the number of the session that has not ended; 0: none.
	Running int64 `json:"running"`
	// Last is its newest session that has ended; left out if none has.
	Last *Session `json:"last,omitempty"`
	// Lag is what it has still to copy; left out where only jobs are asked for.
	Lag *Lag `json:"lag,omitempty"`
}

// Lag is what a job has still to copy: while a session copies what that one has left, else what its next one would take of what the
// last found at the sources.
type Lag struct {
	// Points, and what they hold in bytes; Unknown if the sources or the target were not listed yet.
	Points int64 `json:"points"`
	Bytes  int64 `json:"bytes"`
	// Rate is how many bytes of points a second the last sessions copied, while they did; Unknown if none has copied yet.
	Rate int64 `json:"rate"`
	// CatchUp is how many seconds that takes at this rate from when it can copy, with what its window leaves, ten years if it
	// takes longer; Unknown if not known.
	CatchUp int64 `json:"catchUp"`
	// Limit is how many seconds it may take: an interval, and no longer than rpo; 0: as long as it takes.
	Limit int64 `json:"limit"`
}

// Start asks for an interval of a job now.
type Start struct {
	// Full reads the newest point of each machine whole from its source.
	Full bool `json:"full" required:"false"`
	// Retry begins one only if the last session left machines failed or waiting.
	Retry bool `json:"retry" required:"false"`
}

// Started names the session that was begun or will begin.
type Started struct {
	Session int64 `json:"session"`
}

// Stop asks a job's session to end: after a checkpoint, or with Now at once.
type Stop struct {
	Now bool `json:"now" required:"false"`
}

// Session is the record of one interval of a job.
type Session struct {
	ID  int64  `json:"id"`
	Job string `json:"job"`
	// Boundary is when the interval began by the schedule; zero: it was asked for.
	Boundary time.Time `json:"boundary"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	// State is one of running, waiting, done, partial, expired, failed, stopped, not run.
	State  string `json:"state"`
	Phase  string `json:"phase"`
	Reason string `json:"reason"`
	// WaitsFor is the kind of what it waits for while it is waiting: target, source, window, lock, slot or retry. Reason says it in
	// words. Empty otherwise.
	WaitsFor string           `json:"waitsFor"`
	Counts   map[string]int64 `json:"counts"`
	// Stopping is true once somebody asked it to stop.
	Stopping bool    `json:"stopping"`
	Phases   []Phase `json:"phases"`
	Tasks    []Task  `json:"tasks"`
	// Report is the session's whole report as `ferry job run --json` prints it (docs/json.md), once it has ended; in lists it is
	// left out, as are phases and tasks.
	Report json.RawMessage `json:"report,omitempty"`
}

// Phase is one phase of a session.
type Phase struct {
	Name   string           `json:"name"`
	State  string           `json:"state"`
	Reason string           `json:"reason"`
	Began  time.Time        `json:"began"`
	Ended  time.Time        `json:"ended"`
	Counts map[string]int64 `json:"counts"`
}

// Task is the work on one machine in a session.
type Task struct {
	ID      int64   `json:"id"`
	Session int64   `json:"session"`
	Job     string  `json:"job"`
	Machine Machine `json:"machine"`
	// Point that is copied, empty while it is not known, and when it was created.
	Point   string    `json:"point"`
	Created time.Time `json:"created"`
	Source  string    `json:"source"`
	Target  string    `json:"target"`
	// State is one of waiting, running, done, failed, stopped.
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	Attempts int64     `json:"attempts"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	// Done of Total bytes of the point are dealt with; Read from the source, Written to the target. Kept is how much is written down
	// in the target: after an interruption the copy goes on from there.
	Done    int64 `json:"done"`
	Total   int64 `json:"total"`
	Read    int64 `json:"read"`
	Written int64 `json:"written"`
	Kept    int64 `json:"kept"`
	// AttemptBegan is when its copy was begun last, zero if it was not; Resumed what was written down by then.
	AttemptBegan time.Time `json:"attemptBegan"`
	Resumed      int64     `json:"resumed"`
}

// Event is something that happened in a session, as server-sent events tell it. Kind is the event's name: "session", "phase",
// "task" or "end"; what belongs to it is set.
type Event struct {
	Kind    string   `json:"kind"`
	Session *Session `json:"session,omitempty"`
	Phase   *Phase   `json:"phase,omitempty"`
	Task    *Task    `json:"task,omitempty"`
}

// The kinds of events. The first of a stream is EventSession with all phases and tasks; later ones have what is new. EventEnd is
// the last: the session has ended.
const (
	EventSession = "session"
	EventPhase   = "phase"
	EventTask    = "task"
	EventEnd     = "end"
)
