// Package api is the words that a Ferry server and those who ask it have in common: the paths and the JSON documents of its
// HTTP interface (docs/api.md). It holds no logic: internal/server answers, internal/client asks.
//
// Times are in UTC, and zero where there is none. Bytes are int64, and Unknown where a figure could not be had. Lists are
// never null. Names that sources gave are encoded: they hold no control characters.
package api

import (
	"encoding/json"
	"time"
)

// Unknown is a figure that could not be had.
const Unknown int64 = -1

// Resource is what a person configured: one YAML document of docs/jobs.md. Its version is its ETag.
type Resource struct {
	// Kind is "Job" or "Repository".
	Kind     string    `json:"kind"`
	Name     string    `json:"name"`
	Version  int64     `json:"version"`
	Document string    `json:"document"`
	Changed  time.Time `json:"changed"`
}

// Apply asks for resources to be made or changed, all of them or none.
type Apply struct {
	// Documents is YAML, documents parted by lines of "---". Relative paths in it are refused: the server has a folder of its own.
	Documents string `json:"documents"`
	// DryRun only checks.
	DryRun bool `json:"dryRun" required:"false"`
	// KeepExisting leaves resources that there are as they are.
	KeepExisting bool `json:"keepExisting" required:"false"`
}

// Applied says what became of each resource.
type Applied struct {
	Resources []AppliedResource `json:"resources"`
}

// AppliedResource is what became of a resource: "created", "changed", "unchanged", or "kept", which is another than was sent.
type AppliedResource struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Outcome string `json:"outcome"`
}

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

// Machine is a machine: its exact id, and the name that it had last.
type Machine struct {
	ID   string `json:"id"`
	Name string `json:"name"`
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

// Status answers what people look at first.
type Status struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	// Alarms, worst first.
	Alarms []Alarm `json:"alarms"`
	// Machines whose copy is older than their job allows, oldest first, and those without a copy before them; then the others
	// while there is room. MachinesTotal counts all.
	Machines      []Copy `json:"machines"`
	MachinesTotal int    `json:"machinesTotal"`
	TooOld        int    `json:"tooOld"`
	// WithoutCopy counts the machines without a copy, also those that are too new in their job to count as too old.
	WithoutCopy int `json:"withoutCopy"`
	// Sessions are those that have not ended.
	Sessions     []Session    `json:"sessions"`
	Running      []Task       `json:"running"`
	Waiting      []Wait       `json:"waiting"`
	Jobs         []Job        `json:"jobs"`
	Repositories []Repository `json:"repositories"`
}

// Alarm is something that a person has to look at. Level is "warning" or "critical".
type Alarm struct {
	Level string `json:"level"`
	// Kind is one of server, which has no job, rpo, not-run, failed, target, source, damage, space, lag, session.
	Kind    string    `json:"kind"`
	Job     string    `json:"job"`
	Machine *Machine  `json:"machine,omitempty"`
	Text    string    `json:"text"`
	Since   time.Time `json:"since"`
}

// Copy is the newest good copy that a job has of a machine.
type Copy struct {
	Job     string  `json:"job"`
	Machine Machine `json:"machine"`
	// Point is its id, empty if there is none; Created when it was made at the source.
	Point   string    `json:"point"`
	Created time.Time `json:"created"`
	// RPO is the age that the job allows, in seconds; 0: any. TooOld is true if the copy is older, or if there is none and the
	// machine has been in the job for longer.
	RPO    int64 `json:"rpo"`
	TooOld bool  `json:"tooOld"`
	// LagPoints are complete points of the machine at its sources that are newer; LagBytes what they hold; Unknown if not known.
	LagPoints int64 `json:"lagPoints"`
	LagBytes  int64 `json:"lagBytes"`
	// Missing is since when no source has the machine; zero: one does.
	Missing time.Time `json:"missing"`
	// Retired is since when a person says that the machine has gone for good; zero: nobody does. Purge is from when all that the
	// job has of it is removed; zero: not by itself.
	Retired time.Time `json:"retired"`
	Purge   time.Time `json:"purge"`
	// Note says what else is to be known, such as that it is always one interval behind and what cures that.
	Note string `json:"note"`
}

// Retire says that a machine has gone for good, or with Back that it is back.
type Retire struct {
	// Machine is its exact id, or its name or native id if no other machine has it.
	Machine string `json:"machine"`
	Back    bool   `json:"back" required:"false"`
}

// Retired says since when a machine has gone for good; zero: it has not.
type Retired struct {
	Machine Machine   `json:"machine"`
	Since   time.Time `json:"since"`
}

// Wait is what work waits for, and how many machines do.
type Wait struct {
	Job string `json:"job"`
	// Kind is one of those that Session.WaitsFor has.
	Kind   string    `json:"kind"`
	Reason string    `json:"reason"`
	Tasks  int64     `json:"tasks"`
	Until  time.Time `json:"until"`
}

// Repository is how a repository stands.
type Repository struct {
	Name     string `json:"name"`
	Location string `json:"location"`
	// ID is the Ferry repository's, empty for other sources and while it is not known.
	ID string `json:"id"`
	// State as the last session of a job found it, such as ready, offline or full, its reason, and when that was. Empty: the last
	// sessions did not look at it, or did not come to that; Seen is when it was last read then, and zero if it never was.
	State    string    `json:"state"`
	Reason   string    `json:"reason"`
	Seen     time.Time `json:"seen"`
	Points   int64     `json:"points"`
	Machines int64     `json:"machines"`
	// Logical is what all points would take whole, Stored what the repository takes, Free what is left on its storage. Bytes.
	Logical int64 `json:"logical"`
	Stored  int64 `json:"stored"`
	Free    int64 `json:"free"`
	// Full is when it will be full if it goes on like this; zero: not to be said, or not for years. Forecast says that in words,
	// or why it cannot be said.
	Full     time.Time `json:"full"`
	Forecast string    `json:"forecast"`
	// Verified is when the pack was verified whose last verification is the oldest; zero: none was yet. Unverified is how many
	// packs were not verified since they were written; Unknown if no session has looked.
	Verified   time.Time `json:"verified"`
	Unverified int64     `json:"unverified"`
	// Orphaned are the jobs that were deleted and still claim points here.
	Orphaned []Orphaned `json:"orphaned"`
}

// Orphaned is a job that was deleted and still claims points of a repository: they are kept under its last retention.
type Orphaned struct {
	Job     string    `json:"job"`
	Deleted time.Time `json:"deleted"`
	Points  int64     `json:"points"`
	// Retention is the job's last, as it is written in YAML; empty: everything is kept.
	Retention string `json:"retention"`
}

// Bandwidth is how much all jobs together may read and write across a network. Its version is its ETag.
type Bandwidth struct {
	// Limits as ferry serve --bandwidth takes them: a rate, such as "100Mbit/s", or behind a space also when it holds, such as
	// "50Mbit/s mon-fri 08:00-18:00", by the server's clock. Of several the lowest that holds counts; none is no limit.
	Limits []string `json:"limits"`
	// Now is how many bytes may pass in a second at the moment; 0: any number.
	Now int64 `json:"now"`
	// Since is when somebody set them; zero: they are those of --bandwidth.
	Since   time.Time `json:"since"`
	Version int64     `json:"version"`
}

// SetBandwidth asks for other limits of all jobs together; none is no limit.
type SetBandwidth struct {
	Limits []string `json:"limits" maxItems:"100"`
}

// Health says whether the server lives, or is ready to work.
type Health struct {
	OK     bool     `json:"ok"`
	Checks []string `json:"checks"`
}

// Rebuild asks for the mirror of a repository's points to be made anew; empty: of all.
type Rebuild struct {
	Repository string `json:"repository" required:"false"`
}

// Rebuilt says what that came to.
type Rebuilt struct {
	Repositories []RebuiltRepository `json:"repositories"`
}

// RebuiltRepository is one repository whose points were read anew, or the reason why not.
type RebuiltRepository struct {
	Name   string `json:"name"`
	Points int64  `json:"points"`
	Error  string `json:"error"`
}

// Adopted says what came of taking a repository as it is.
type Adopted struct {
	// Adopted is true if its history was another than the server had seen.
	Adopted bool `json:"adopted"`
	// Points are those that it has.
	Points int64 `json:"points"`
}

// Problem says why a request was not carried out (RFC 9457).
type Problem struct {
	// Title is the status in words.
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Code is for programs: one of the constants below, or empty.
	Code string `json:"code"`
	// Detail says what is wrong, Hint what helps; Hint may be empty.
	Detail string `json:"detail"`
	Hint   string `json:"hint"`
	// Mistakes are those in what was sent, each at its place.
	Mistakes []Mistake `json:"mistakes"`
}

// Mistake is one mistake in what was sent.
type Mistake struct {
	// Resource is the stored resource that has it, such as "job offsite"; empty: it is in what was sent.
	Resource string `json:"resource"`
	// Line and Column in YAML, from 1; 0 elsewhere.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path is the setting, such as "schedule.at", or the part of the request, such as "query.limit". May be empty.
	Path string `json:"path"`
	// Text says what is wrong, Hint what would be right; Hint may be empty.
	Text string `json:"text"`
	Hint string `json:"hint"`
}

// The codes of problems on which programs decide.
const (
	// CodeNotFound: there is no such resource, job, session or path.
	CodeNotFound = "not-found"
	// CodeInvalid: what was sent has mistakes.
	CodeInvalid = "invalid"
	// CodeChanged: the resource is at another version than If-Match says; CodeCondition: the request needs If-Match or If-None-Match.
	CodeChanged   = "changed"
	CodeCondition = "condition-required"
	// CodeUsed: another resource refers to it, or it is being deleted.
	CodeUsed = "used"
	// CodeRunning: the job has a session that has not ended; CodeNotRunning: it has none.
	CodeRunning    = "running"
	CodeNotRunning = "not-running"
	// CodeNothingToRetry: the last session left nothing undone.
	CodeNothingToRetry = "nothing-to-retry"
	// CodeNotReady: the server cannot do that now.
	CodeNotReady = "not-ready"
)

// Document is one resource as YAML, as it is put.
type Document struct {
	Document string `json:"document"`
}
