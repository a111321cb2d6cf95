// Package api is the words that a Ferry server and those who ask it have in common: the paths and the JSON documents of its
// HTTP interface (docs/api.md). It holds no logic: internal/server answers, internal/client asks.
//
// Times are in UTC, and zero where there is none. Bytes are int64, and Unknown where a figure could not be had. Lists are
// never null. Names that sources gave are encoded: they hold no control characters.
package api

import "time"

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

// Machine is a machine: its exact id, and the name that it had last.
type Machine struct {
	ID   string `json:"id"`
	Name string `json:"name"`
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
