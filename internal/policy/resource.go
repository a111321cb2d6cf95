package policy

import (
	"path/filepath"
	"strings"
	"time"
)

// ManualJob is the job for which copies by hand claim their points. No job of a file has its name.
const ManualJob = "manual"

// Job is a backup copy job: what to copy, from where, to where, when, and what to keep. docs/jobs.md describes every
// field as it is written. The zero value of a field says nothing; [Job.Effective] puts in what holds then.
type Job struct {
	// Name of the job, under which it claims points in its target.
	Name   string
	Source Origins
	Target Target
	Select Select
	// Schedule says when intervals begin. Its zone is the job's: days of retention, hours of windows and limits are in it too.
	Schedule Schedule
	Lookup   Lookup
	// Window is when data may be read from sources.
	Window    Window
	Bandwidth Bandwidth
	// Retention of machines that no override matches; without rules every point is kept.
	Retention Retention
	// Overrides replace the retention of some machines: the first that matches counts.
	Overrides []Override
	// FullFromSource is when machines are read whole from the source, into packs of their own; the zero value is never.
	FullFromSource Schedule
	HealthCheck    HealthCheck
	Compact        Upkeep
	Scripts        Scripts
	// RPO is the age that a machine's newest copy must not exceed; 0 raises no alarm.
	RPO time.Duration
	// PurgeAfter is how long after a machine has gone, by positive evidence, its copies are removed; 0 is never.
	PurgeAfter time.Duration
}

// Origins are where a job's points come from: any of these. The order of Repositories, then of Jobs, then of Backups
// decides which of several equal points is taken.
type Origins struct {
	// Repositories whose machines are all offered, by the names of their resources.
	Repositories []string
	// Jobs whose points are offered.
	Jobs []JobRef
	// Backups: single machines of jobs.
	Backups []BackupRef
}

// JobRef names points by the job that claims them.
type JobRef struct {
	// Repository is the resource in which the job claims points; empty: the target of the Ferry job of that name.
	Repository string
	// Job is its name; a glob if Repository is set.
	Job string
}

// BackupRef names the points of machines that a job claims in a repository.
type BackupRef struct {
	Repository string
	// Job is a glob; "*" is also what no job claims.
	Job     string
	Machine Selector
}

// Target is where a job's points go.
type Target struct {
	// Repository is the name of its resource.
	Repository string
	// Map takes points that the target has already as the base of the job.
	Map []Mapping
}

// Mapping makes what a backup in the target holds of a machine this job's own.
type Mapping struct {
	Machine Selector
	// Backup in the target. Its Repository is empty.
	Backup BackupRef
}

// Select says which machines of what the sources offer are copied. What is excluded is out, whatever includes it.
type Select struct {
	// Include says what is in; its order is the order of processing. None is all.
	Include []Selector
	Exclude []Selector
}

// Override is another retention for some machines.
type Override struct {
	// Match: any of these.
	Match []Selector
	// Retention replaces the job's whole; without rules every point is kept.
	Retention Retention
}

// HealthCheck is the scheduled proof of what a job has stored.
type HealthCheck struct {
	Upkeep
	// Level is how deep it looks: "stored", "blocks" or "points".
	Level string
}

// Upkeep is work on the target by a schedule.
type Upkeep struct {
	// Schedule; the zero value is never.
	Schedule Schedule
	// Budget is the longest that one turn may take; the next one goes on. 0 is no limit.
	Budget time.Duration
}

// Scripts run before and after an interval's work.
type Scripts struct{ Pre, Post Script }

// Script is a program of the administrator's. Without Run there is none.
type Script struct {
	// Run is an absolute path and arguments. No shell takes part.
	Run []string
	// Timeout after which it is ended.
	Timeout   time.Duration
	OnFailure OnFailure
}

// OnFailure is what a script's failure means.
type OnFailure string

// What a script's failure means.
const (
	// FailureAborts ends the interval before it has begun to work; only for a script before it.
	FailureAborts OnFailure = "abort"
	// FailureWarns makes the interval end with a warning.
	FailureWarns OnFailure = "warn"
	// FailureIgnored is recorded and changes nothing.
	FailureIgnored OnFailure = "ignore"
)

// Repository is a place where points lie: a source, a target, or both for different jobs.
type Repository struct {
	Name string
	// Location is a folder or a bucket, as it is written. [Repository.Located] makes a relative folder one that holds anywhere.
	Location string
	// ID is that of the Ferry repository which must be there; empty takes any.
	ID string
	// Instance keeps the machines of cloned sites apart.
	Instance string
	// SourceName stands in for the folder's name in the ids of machines without a UUID.
	SourceName string
	// Labels are given to machines by rule, beside those that the source states.
	Labels []LabelRule
	// Passphrase and Identity open an encrypted repository; Credentials open a bucket. They say where the secret is.
	Passphrase, Identity, Credentials SecretRef
	Bandwidth                         Bandwidth
	// Slots is how many machines may be worked on at once in it; 0 leaves it to the server.
	Slots int
}

// InBucket is true if the repository lies in a bucket, not in a folder.
func (r Repository) InBucket() bool { return strings.Contains(r.Location, "://") }

// SecretRef says where a secret is. One of the fields is set, or none.
type SecretRef struct {
	// File has the secret in its first line; that of Identity has age keys, that of Credentials is an AWS credentials file.
	File string
	// Environment is the name of a variable.
	Environment string
	// Command is run by the shell, and prints the secret.
	Command string
}

// IsSet is true if it says where a secret is.
func (s SecretRef) IsSet() bool { return s != SecretRef{} }

// LabelRule gives a label to the machines for which all conditions hold that it states.
type LabelRule struct {
	Label string
	// Name is a glob over the machine's name.
	Name string
	// Source is a glob over the name of the source where the machine's newest point was first made.
	Source string
	// Folder is a glob over the folder of that point's files in its source, with slashes; "." is the source's root.
	Folder string
	// Size bounds the sum of the sizes of its disks and archives. Sizes that are not known count as nothing.
	Size SizeRange
}

// SizeRange is a range of sizes in bytes. 0 is no bound.
type SizeRange struct{ AtLeast, Below int64 }

// Selector picks machines by id, native id or name, each of which may have the wildcards * and ?; or, after "label=", by
// a label.
type Selector string

// Resources are the repositories and jobs that know of each other.
type Resources struct {
	Repositories []Repository
	Jobs         []Job
}

// Located is the repository with a location, and files of secrets, that do not depend on where Ferry runs: relative ones
// count from dir, the folder of the file that they are written in.
func (r Repository) Located(dir string) Repository {
	from := func(name string) string {
		if name == "" || filepath.IsAbs(name) || strings.Contains(name, "://") {
			return name
		}
		return filepath.Join(dir, name)
	}
	r.Location = from(r.Location)
	for _, secret := range []*SecretRef{&r.Passphrase, &r.Identity, &r.Credentials} {
		secret.File = from(secret.File)
	}
	return r
}
