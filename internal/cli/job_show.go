package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
)

func (a *app) jobShowCommand(at *asked) *cobra.Command {
	var file string
	var effective bool
	command := &cobra.Command{
		Use: "show [NAME]", Short: "Print jobs and repositories as they were understood; check a file of them",
		Long: `Print the jobs and repositories of the server, or with -f FILE of a file, as they were
understood: all of them, or the job NAME and the repositories that it names. With
--effective also what holds where a job says nothing, each marked as a default.
Nothing is opened, neither sources nor targets. docs/jobs.md has every setting.

A file is read strictly: what is wrong is told with line and column, all of it at once.`,
		Example:           "  ferry job show --effective offsite\n  ferry job show -f offsite.yaml",
		Args:              arguments("[NAME]"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.jobShow(cmd.Context(), at, file, args, effective)
		},
	}
	jobFileFlag(command, &file)
	command.Flags().BoolVar(&effective, "effective", false, "print what holds where nothing is said, too")
	return command
}

func (a *app) jobShow(ctx context.Context, at *asked, file string, names []string, effective bool) error {
	resources, err := a.shown(ctx, at, file, names)
	if err != nil {
		return err
	}
	if a.json {
		described := resourcesJSON{Resources: []any{}}
		for _, r := range resources.Repositories {
			described.Resources = append(described.Resources, r.Document())
		}
		for _, j := range resources.Jobs {
			if effective {
				j = j.Effective()
			}
			described.Resources = append(described.Resources, j.Document())
		}
		return a.printJSON(described)
	}
	documents := []policyText{}
	for _, r := range resources.Repositories {
		documents = append(documents, r)
	}
	for _, j := range resources.Jobs {
		documents = append(documents, j)
	}
	for i, document := range documents {
		if i > 0 {
			a.line("---")
		}
		text := document.YAML()
		if effective {
			text = document.Explained()
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// policyText is a resource that can be printed.
type policyText interface {
	YAML() []byte
	Explained() []byte
}

// shown are the resources of a file, or without one of the server: all, or one job and the repositories that it names.
func (a *app) shown(ctx context.Context, at *asked, file string, names []string) (policy.Resources, error) {
	switch {
	case len(names) > 0:
	case file == "":
		return at.served(ctx)
	default:
		resources, _, err := a.readResources(file)
		return resources, err
	}
	chosen, err := a.servedJob(ctx, at, file, names)
	if err != nil {
		return policy.Resources{}, err
	}
	own, _ := chosen.resources.Job(chosen.Name)
	needed := []string{own.Target.Repository}
	for _, origin := range chosen.resources.Origins(own) {
		needed = append(needed, origin.Repository.Name)
	}
	shown := policy.Resources{Jobs: []policy.Job{own}}
	for _, r := range chosen.resources.Repositories {
		if slices.Contains(needed, r.Name) {
			shown.Repositories = append(shown.Repositories, r)
		}
	}
	return shown, nil
}

func (a *app) jobSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of jobs and repositories, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of the documents that ferry job reads. Editors
with a YAML language server complete and check by it. It says the form of settings;
what contradicts itself only ferry job show finds.`,
		Example: "  ferry job schema > ferry.schema.json",
		Args:    arguments(), ValidArgsFunction: nothingToComplete,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(policy.Schema())
			return err
		},
	}
}

// resourcesJSON is the output of job show.
type resourcesJSON struct {
	// Resources in the form of docs/job.schema.json.
	Resources []any `json:"resources"`
}

// describeProblems are the mistakes in a file of resources; none for other errors.
func describeProblems(err error) []problemJSON {
	described := []problemJSON{}
	var problems policy.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			described = append(described, problemJSON{File: printable(p.File), Line: p.Line, Column: p.Column, Setting: readable(p.Path), Message: readable(p.Text), Hint: readable(p.Hint)})
		}
	}
	return described
}

// problemJSON is one mistake in a file of resources.
type problemJSON struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Setting string `json:"setting"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}
