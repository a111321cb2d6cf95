package cli

import (
	"context"
	"errors"
	"fmt"
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

Jobs of several machines may mean other places by one name. They cannot stand in one
file then, and are printed one at a time. A job that copies on what a job with
another target has copied needs that one beside it; a warning says so.`,
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
	records, unreadable, err := repository.Jobs(ctx, names...)
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

// printJobs prints the documents of the records as one file, if it is one that can be read again where what they need beside
// it is known: a job may copy what another one has copied to another target, and that one has left its description there.
func (a *app) printJobs(records []repo.JobRecord) error {
	var names, documents []string
	needy := map[mistake][]string{} // of which jobs a mistake is that their own documents have
	for _, record := range records {
		names = append(names, record.Job)
		for _, p := range problemsOfJobs(record.Document) {
			own := mistake{p.Path, p.Text}
			needy[own] = append(needy[own], record.Job)
		}
	}
	for _, document := range documentsOf(records) {
		documents = append(documents, readableLines(document))
	}
	text := strings.Join(documents, "\n---\n")
	var together policy.Problems
	for _, p := range problemsOfJobs(text) {
		own := mistake{p.Path, p.Text}
		jobs, alone := needy[own]
		if !alone {
			together = append(together, p)
			continue
		}
		for _, job := range jobs {
			a.warnings([]string{fmt.Sprintf("job %s cannot be applied with what is here alone: %s: %s; ferry repo jobs prints what another target has", printable(job), p.Path, p.Text)})
		}
		needy[own] = nil // each was told
	}
	if len(records) > 1 && len(together) > 0 {
		return hinted(usage("the jobs here cannot stand in one file: %w", together), "name one of them: "+printable(strings.Join(names, ", ")))
	}
	a.line("%s", text)
	return nil
}

// mistake is what is wrong with a setting, wherever it stands.
type mistake struct{ path, text string }

func problemsOfJobs(text string) policy.Problems {
	_, err := policy.Parse(policy.File{Name: "the file", Content: []byte(text)})
	problems, _ := errors.AsType[policy.Problems](err)
	return problems
}

// documentsOf are the documents of the records, each once: jobs share repositories.
func documentsOf(records []repo.JobRecord) []string {
	var documents []string
	seen := map[string]bool{}
	for _, record := range records {
		for _, document := range strings.Split(strings.TrimSuffix(record.Document, "\n"), "\n---\n") { // a value may end in ---
			if !seen[document] {
				seen[document] = true
				documents = append(documents, document)
			}
		}
	}
	return documents
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
}

func describeJobs(repository *repo.Repository, records []repo.JobRecord) jobsJSON {
	described := jobsJSON{Repository: describePlace(repository), Jobs: []jobRecordJSON{}}
	for _, record := range records {
		described.Jobs = append(described.Jobs, jobRecordJSON{Job: printable(record.Job), Time: record.Time.UTC(), Document: record.Document})
	}
	return described
}
