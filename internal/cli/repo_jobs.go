package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
	"ferry/internal/repo"
)

func (a *app) repoJobsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "jobs REPOSITORY [JOB]", Short: "Print the jobs that copy into a repository",
		Long: `Print the jobs that have copied into a repository, or the one of that name, and the
repositories that they name, as YAML. Each job leaves it there after each session, so
that a machine that has nothing but the repository can go on with the job. Secrets
are not in it, only where they are.

Jobs that a job copies on or comes after are printed with it, as they were in its last
session where they have left nothing here themselves. Where a server has them already,
ferry apply --keep-existing leaves those as they are.

Jobs of several machines may mean other places by one name. They cannot stand in one
file then, and are printed one at a time.`,
		Example: "  ferry repo jobs /mnt/usb/vault > jobs.yaml\n  ferry job run --once -f jobs.yaml offsite\n  ferry repo jobs /mnt/usb/vault offsite > offsite.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return arguments("REPOSITORY")(cmd, args)
		},
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoJobs(cmd.Context(), args[0], args[1:]) },
	}
}

func (a *app) repoJobs(ctx context.Context, location string, names []string) error {
	repository, err := a.openRepository(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	if err := keyError(repository.NeedsKey()); err != nil {
		return err
	}
	records, unreadable, err := jobRecords(ctx, repository, names)
	if err != nil {
		return err
	}
	for _, problem := range unreadable {
		a.warnings([]string{problem.Error()})
	}
	if a.json {
		err = a.printJSON(describeJobs(repository, records))
	} else {
		err = a.printJobs(records)
	}
	switch {
	case err != nil:
		return err
	case len(unreadable) > 0:
		return exitWith(ExitDamaged, "not all that jobs have left in %s can be read", location)
	case len(records) == 0 && len(names) > 0:
		return hinted(exitWith(ExitNothing, "no job %s has left its description in %s", printable(names[0]), location), "without a name all are printed")
	case len(records) == 0:
		return exitWith(ExitNothing, "no job has left its description in %s", location)
	}
	return nil
}

// jobRecords are the records of all jobs, or of one and of those that it needs as far as they have left their own.
func jobRecords(ctx context.Context, repository *repo.Repository, names []string) ([]repo.JobRecord, []error, error) {
	records, unreadable, err := repository.Jobs(ctx, names...)
	if err != nil || len(names) == 0 {
		return records, unreadable, err
	}
	var needed []string
	for _, record := range records {
		for _, n := range record.Needed {
			needed = append(needed, n.Job)
		}
	}
	if len(needed) == 0 {
		return records, unreadable, nil
	}
	own, more, err := repository.Jobs(ctx, needed...)
	return append(records, own...), append(unreadable, more...), err
}

// printJobs prints the documents of the records, and of what they need, as one file, if it is one that can be read again where what is not here
// is known.
func (a *app) printJobs(records []repo.JobRecord) error {
	var names []string
	lacking := map[mistake][]string{} // of which jobs a mistake is that they have with all that they need
	for _, record := range records {
		names = append(names, record.Job)
		for _, p := range problemsOfJobs(oneFile([]repo.JobRecord{record})) {
			own := mistake{p.Path, p.Text}
			lacking[own] = append(lacking[own], record.Job)
		}
	}
	text := oneFile(records)
	var together policy.Problems
	for _, p := range problemsOfJobs(text) {
		own := mistake{p.Path, p.Text}
		jobs, alone := lacking[own]
		if !alone {
			together = append(together, p)
			continue
		}
		for _, job := range jobs {
			a.warnings([]string{fmt.Sprintf("job %s cannot be applied with what is here alone: %s: %s; ferry repo jobs prints what another target has", printable(job), p.Path, p.Text)})
		}
		lacking[own] = nil // each was told
	}
	if len(records) > 1 && len(together) > 0 {
		return hinted(usage("the jobs here cannot stand in one file: %w", together), "name one of them: "+printable(strings.Join(names, ", ")))
	}
	a.line("%s", strings.TrimSuffix(readableLines(text), "\n"))
	return nil
}

// mistake is what is wrong with a setting, wherever it stands.
type mistake struct{ path, text string }

func problemsOfJobs(text string) policy.Problems {
	_, err := policy.Parse(policy.File{Name: "the file", Content: []byte(text)})
	problems, _ := errors.AsType[policy.Problems](err)
	return problems
}

// oneFile is one file of the documents of the records, and of the jobs that they need, each once: jobs share repositories. A job's own
// record counts before what others say of it, and of these the newest.
func oneFile(records []repo.JobRecord) string {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b repo.JobRecord) int { return b.Time.Compare(a.Time) })
	jobs := map[string]string{}
	for _, record := range records {
		jobs[record.Job] = record.Document
	}
	for _, record := range records {
		for _, n := range record.Needed {
			if _, there := jobs[n.Job]; !there {
				jobs[n.Job] = n.Document
			}
		}
	}
	var documents []string
	seen := map[string]bool{}
	for _, job := range slices.Sorted(maps.Keys(jobs)) {
		for _, document := range policy.Split([]byte(jobs[job])) {
			if !seen[document.Text] {
				seen[document.Text] = true
				documents = append(documents, document.Text)
			}
		}
	}
	return strings.Join(documents, "---\n")
}

// readableLines makes text of several lines safe to print.
func readableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = readable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// jobsJSON is the output of repo jobs.
type jobsJSON struct {
	Repository placeJSON       `json:"repository"`
	Jobs       []jobRecordJSON `json:"jobs"`
}

type jobRecordJSON struct {
	Job      string    `json:"job"`
	Time     time.Time `json:"time"`
	Document string    `json:"document"`
	// Needed are jobs that it copies on or comes after.
	Needed []neededJobJSON `json:"needed"`
}

type neededJobJSON struct {
	Job      string `json:"job"`
	Document string `json:"document"`
}

func describeJobs(repository *repo.Repository, records []repo.JobRecord) jobsJSON {
	described := jobsJSON{Repository: describePlace(repository), Jobs: []jobRecordJSON{}}
	for _, record := range records {
		needed := make([]neededJobJSON, len(record.Needed))
		for i, n := range record.Needed {
			needed[i] = neededJobJSON{Job: printable(n.Job), Document: n.Document}
		}
		described.Jobs = append(described.Jobs, jobRecordJSON{Job: printable(record.Job), Time: record.Time.UTC(), Document: record.Document, Needed: needed})
	}
	return described
}
