package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/repo"
)

// inspection is what a repository turns out to be that came here by hand: whole or not, and with which backups.
type inspection struct {
	repository *repo.Repository
	survey     *repo.Survey
	reindexed  repo.Reindexed
	// unindexed says why no index could be made.
	unindexed error
	backups   []backupSeen
	damaged   int
	// locked is why machines have no names.
	locked error
}

// backupSeen is a backup: the points of one machine that one job claims.
type backupSeen struct {
	// job is empty for points that no job claims. machine is its name, or its pseudonym where that is not known; id too.
	job, machine, id string
	points           int
	newest           time.Time
}

// inspect compares the repository's files with its log, makes what is missing of its index, and lists its backups.
func (a *app) inspect(ctx context.Context, repository *repo.Repository) (*inspection, error) {
	found := &inspection{repository: repository, damaged: repository.Usage().Damaged, locked: repository.NeedsKey()}
	var err error
	if found.survey, err = repository.Survey(ctx); err != nil {
		return nil, err
	}
	if found.survey.LostIndex > 0 && len(found.survey.Missing) == 0 { // with files missing verification says what is lost
		if found.reindexed, found.unindexed = repository.Reindex(ctx, true, nil); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	found.backups, err = backupsOf(ctx, repository)
	return found, err
}

// backupsOf lists the backups in a repository, by job and machine.
func backupsOf(ctx context.Context, repository *repo.Repository) ([]backupSeen, error) {
	names, ids := map[string]string{}, map[string]string{} // by pseudonym
	if !repository.Locked() {
		read, err := repository.ReadNewest(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range read {
			if p.Err == nil {
				names[p.Entry.Machine.String()], ids[p.Entry.Machine.String()] = shortName(p.Point.Machine), p.Point.Machine.Key.String()
			}
		}
	}
	at := map[[2]string]int{}
	var backups []backupSeen
	for _, entry := range repository.Entries() {
		machine := entry.Machine.String()
		jobs := []string{""}
		if claims := repository.Claims(entry.ID); len(claims) > 0 {
			jobs = nil
			for _, claim := range claims {
				jobs = append(jobs, claim.Job)
			}
		}
		for _, job := range jobs {
			key := [2]string{job, machine}
			if _, seen := at[key]; !seen {
				at[key] = len(backups)
				seen := backupSeen{job: job, machine: machine, id: machine}
				if name, known := names[machine]; known {
					seen.machine, seen.id = name, ids[machine]
				}
				backups = append(backups, seen)
			}
			of := &backups[at[key]]
			of.points++
			if entry.Created.After(of.newest) {
				of.newest = entry.Created
			}
		}
	}
	slices.SortFunc(backups, func(a, b backupSeen) int {
		return strings.Compare(a.job+"\x00"+a.machine+"\x00"+a.id, b.job+"\x00"+b.machine+"\x00"+b.id)
	})
	return backups, nil
}

// lines say in words what was found.
func (i *inspection) lines() []string {
	s := i.survey
	usage := i.repository.Usage()
	lines := []string{fmt.Sprintf("repository %s at %s: %s, %s in %s", i.repository.ID(), printable(i.repository.Location()),
		counted(usage.Points, "point"), size(s.Bytes), counted(s.Named, "file"))}
	if i.locked != nil {
		lines = append(lines, "it is encrypted, and "+i.repository.WhyLocked()+": its machines have no names here, and no job can map them")
	}
	for _, b := range i.backups {
		name := printable(b.job) + "/" + b.machine
		if b.job == "" {
			name = "no job: " + b.machine
		}
		lines = append(lines, fmt.Sprintf("backup %s  %s  %s, newest of %s", name, b.id, counted(b.points, "point"), when(b.newest)))
	}
	if i.damaged > 0 {
		lines = append(lines, fmt.Sprintf("damaged: %s cannot be restored whole, as is known by now; docs/verify.md says what to do", counted(i.damaged, "point")))
	}
	if i.reindexed.Segments > 0 {
		lines = append(lines, fmt.Sprintf("the index was made anew for %s", counted(i.reindexed.Packs, "pack")))
	}
	if i.unindexed != nil {
		lines = append(lines, "no index could be made: "+readable(i.unindexed.Error()))
	}
	return append(lines, i.files()...)
}

// filesShown is how many files of a kind a message names.
const filesShown = 5

// files says what of the files is not as the log has it.
func (i *inspection) files() []string {
	var lines []string
	list := func(what string, names []string) {
		if len(names) == 0 {
			return
		}
		more := ""
		if len(names) > filesShown {
			more = fmt.Sprintf(", and %d more", len(names)-filesShown)
			names = names[:filesShown]
		}
		lines = append(lines, what+": "+strings.Join(names, ", ")+more)
	}
	list("MISSING, though the log names them", i.survey.Missing)
	list("of another size than the log says", i.survey.Other)
	if n := len(i.survey.Unnamed); n > 0 {
		lines = append(lines, fmt.Sprintf("%s, %s, are named by no log entry, and so not part of the repository: of a copy that runs or was killed, or put there by hand",
			counted(n, "file"), size(i.survey.UnnamedBytes())))
		var names []string
		for _, info := range i.survey.Unnamed {
			names = append(names, info.Name)
		}
		list("they are", names)
	}
	return lines
}

// whole is false if files that the log names are missing or others.
func (i *inspection) whole() bool {
	return len(i.survey.Missing)+len(i.survey.Other) == 0
}

// exit is the exit code of what was found.
func (i *inspection) exit() error {
	if i.whole() {
		return nil
	}
	return hinted(exitWith(ExitDamaged, "files of %s are not as its log says", i.repository.Location()), "copy what is missing there once more, or run ferry verify "+i.repository.Location())
}

// inspectionJSON is what is printed of an inspection. All sizes are in bytes.
type inspectionJSON struct {
	Encrypted bool `json:"encrypted"`
	// Locked is true if no key that was given opens the repository.
	Locked  bool         `json:"locked"`
	Points  int          `json:"points"`
	Damaged int          `json:"damagedPoints"`
	Entries int64        `json:"logEntries"`
	Files   int          `json:"files"`
	Bytes   int64        `json:"bytes"`
	Backups []backupJSON `json:"backups"`
	Missing []string     `json:"missingFiles"`
	Other   []string     `json:"otherFiles"`
	Unnamed []fileJSON   `json:"unnamedFiles"`
	Reindex reindexJSON  `json:"reindexed"`
}

type backupJSON struct {
	// Job is empty for points that no job claims.
	Job     string    `json:"job"`
	Machine string    `json:"machine"`
	ID      string    `json:"machineId"`
	Points  int       `json:"points"`
	Newest  time.Time `json:"newest"`
}

type fileJSON struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

func (i *inspection) describe() inspectionJSON {
	s := i.survey
	described := inspectionJSON{
		Encrypted: i.repository.Description().Encrypted, Locked: i.locked != nil, Points: i.repository.Usage().Points, Damaged: i.damaged,
		Entries: s.Entries, Files: s.Named, Bytes: s.Bytes, Backups: []backupJSON{}, Missing: append([]string{}, s.Missing...), Other: append([]string{}, s.Other...),
		Unnamed: []fileJSON{}, Reindex: reindexJSON{i.reindexed.Packs, i.reindexed.Segments, i.reindexed.Bytes},
	}
	for _, b := range i.backups {
		described.Backups = append(described.Backups, backupJSON{printable(b.job), b.machine, b.id, b.points, b.newest.UTC()})
	}
	for _, info := range s.Unnamed {
		described.Unnamed = append(described.Unnamed, fileJSON{info.Name, info.Size})
	}
	return described
}
