package api

import "time"

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
