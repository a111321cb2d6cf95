// Package demo tells the whole story of a backup copy on machines that it makes up: two machines are backed up on three
// days, their backups are copied, proven, restored and copied on; then a server does that by itself for four more. It shows a
// newcomer what Ferry does, and it is a test of all of it together: what is restored is compared with what was generated, byte
// for byte.
//
// Only the machines are invented, and the hours between the server's nights, which its clock skips. The backups are real
// vzdump files. What is done by hand is done by the packages that the commands use (registry, plan, job, repo, restore), in
// the way in which the commands use them; the server, and what asks it, are the commands themselves. Machines, dates and
// content are the same every time.
//
//   - machines.go, content.go: the machines and what is on their disks, day by day.
//   - dump.go: their backups, as vzdump writes them.
//   - story.go, proof.go: what is done with them, and what must come out.
//   - nights.go, clock.go: what the server lives through, and its clock.
//   - commands.go: what the commands copy, verify and restore do, in a folder and with a result.
//   - compare.go: restored files against generated ones.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ferry/internal/repo"
	"ferry/internal/source"
)

// Narrator is told the story while it happens.
type Narrator interface {
	// Heading begins a part of the story.
	Heading(text string)
	// Say tells what happens, in a sentence or two.
	Say(text string)
	// Command is what a person would type, in the story's folder, for what is done next.
	Command(text string)
	// Result is what came of it: rows whose columns belong together.
	Result(rows ...[]string)
	// Output is all that it printed.
	Output(text string)
}

// Options of a demonstration.
type Options struct {
	// Dir is the folder that everything is done in: one that MakeFolder returned.
	Dir string
	// Formats are the formats that sources are read in; Environment is for the repositories.
	Formats     []source.Format
	Environment repo.Environment
	// TempDir takes what does not fit in memory; empty means the system's.
	TempDir  string
	Narrator Narrator
	// Ferry runs a command of the program until it has ended or ctx has, by the story's clock. All that it prints goes to out.
	Ferry func(ctx context.Context, out io.Writer, args ...string) error
	// Clock is the story's, from ServerStart on.
	Clock *Clock

	// restored, if set, is called after each restore, with the folder: tests spoil it.
	restored func(folder string) error
}

// Summary is what a demonstration did. Its names in JSON are documented in docs/json.md.
type Summary struct {
	// Folder that everything lies in.
	Folder   string           `json:"folder"`
	Machines []MachineSummary `json:"machines"`
	// GeneratedBytes is the size of the disks of all backups, ArchiveBytes that of the files they came in.
	GeneratedBytes int64 `json:"generatedBytes"`
	ArchiveBytes   int64 `json:"archiveBytes"`
	// Copies in the order in which they were made.
	Copies []CopySummary `json:"copies"`
	// Vault is the repository after all of the source's points were copied; Offsite is the copy of the copy.
	Vault   RepositorySummary `json:"vault"`
	Offsite RepositorySummary `json:"offsite"`
	// FlippedBit tells whether one wrong bit was found.
	FlippedBit DamageSummary    `json:"flippedBit"`
	Restores   []RestoreSummary `json:"restores"`
	// Nights are those that the server lived through, and Shelf is what it kept of them.
	Nights  []NightSummary    `json:"nights"`
	Shelf   RepositorySummary `json:"shelf"`
	Seconds float64           `json:"seconds"`
	// Next are commands to try.
	Next []Suggestion `json:"next"`
}

// MachineSummary is a machine of the story.
type MachineSummary struct {
	ID     string   `json:"id"`
	Name   string   `json:"name"`
	Points []string `json:"points"`
}

// CopySummary is one run of ferry copy.
type CopySummary struct {
	Command      string `json:"command"`
	Copied       int    `json:"copied"`
	AlreadyThere int    `json:"alreadyThere"`
	// LogicalBytes is the size of what was copied, ReadBytes what was read of it: holes are not. NewBytes were not in
	// the repository yet and take StoredBytes there.
	LogicalBytes int64 `json:"logicalBytes"`
	ReadBytes    int64 `json:"readBytes"`
	NewBytes     int64 `json:"newBytes"`
	StoredBytes  int64 `json:"storedBytes"`
	// DataBytesRead were read of the source's files beyond what listing the points takes.
	DataBytesRead int64 `json:"dataBytesRead"`
}

// RepositorySummary is a repository of the story, as ferry repo info and ferry verify see it.
type RepositorySummary struct {
	ID           string `json:"id"`
	Location     string `json:"location"`
	Points       int    `json:"points"`
	LogicalBytes int64  `json:"logicalBytes"`
	StoredBytes  int64  `json:"storedBytes"`
	Packs        int    `json:"packs"`
	// VerifiedBytes were read and proven.
	VerifiedBytes int64 `json:"verifiedBytes"`
}

// DamageSummary is what verifying found of a flipped bit.
type DamageSummary struct {
	Location string `json:"location"`
	// File of the repository, Offset of the byte in it.
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	// Points that verify says cannot be restored whole.
	Points []string `json:"points"`
}

// RestoreSummary is one restored point that was compared with what was generated.
type RestoreSummary struct {
	Command string `json:"command"`
	Folder  string `json:"folder"`
	Machine string `json:"machine"`
	Point   string `json:"point"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Equal   bool   `json:"equal"`
}

// NightSummary is the session of a night, by the story's clock.
type NightSummary struct {
	Session  int64     `json:"session"`
	Boundary time.Time `json:"boundary"`
	Ended    time.Time `json:"ended"`
	State    string    `json:"state"`
	Copied   int       `json:"copied"`
}

// Suggestion is a command to try, and what it is for.
type Suggestion struct {
	Command string `json:"command"`
	Purpose string `json:"purpose"`
}

// ErrNotEmpty: the folder for a demonstration has something in it.
var ErrNotEmpty = errors.New("folder is not empty")

// MakeFolder makes the folder for a demonstration, or takes an empty one; without a name it makes a new one in parent,
// or in the system's temporary folder if that is empty. The path that it returns is absolute. remove takes away what
// the demonstration put there, and the folder if it was made.
func MakeFolder(dir, parent string) (path string, remove func() error, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp(parent, "ferry-demo-"); err != nil {
			return "", nil, err
		}
		dir, err = filepath.Abs(dir)
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir, func() error { return os.RemoveAll(dir) }, os.MkdirAll(dir, 0o700)
	case err != nil:
		return "", nil, err
	case len(entries) > 0:
		return "", nil, fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	}
	return dir, func() error { return empty(dir) }, nil
}

// empty removes everything in a folder.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	return err
}

// Run tells the story. The error says what did not come out as it must; the summary is of what came before it.
func Run(ctx context.Context, options Options) (Summary, error) {
	return tell(ctx, options, append(byHand(), (*story).server, (*story).suggest)...)
}

// part of a story.
type part func(*story, context.Context) error

// byHand are the parts in which a person does everything.
func byHand() []part {
	return []part{
		(*story).prepare, (*story).firstDay, (*story).laterDays, (*story).verify, (*story).flipBit, (*story).restore, (*story).offsite,
	}
}

func tell(ctx context.Context, options Options, parts ...part) (Summary, error) {
	s := &story{Options: options, summary: Summary{Folder: options.Dir}}
	started := time.Now()
	for _, part := range parts {
		err := part(s, ctx)
		if ctx.Err() != nil {
			return s.summary, ctx.Err()
		}
		if err != nil {
			return s.summary, err
		}
	}
	s.summary.Seconds = time.Since(started).Seconds()
	return s.summary, nil
}
