package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/policy"
)

func (a *app) applyCommand() *cobra.Command {
	var at asked
	var files []string
	var options api.Apply
	command := &cobra.Command{
		Use: "apply -f FILE", Short: "Give jobs and repositories to the server, or change them",
		Long: `Have the server make or change the jobs and repositories of a file (docs/jobs.md): all
of them, or none if anything is wrong with one. What is not in the file stays as it
is. A new job is enabled. Relative paths count from the file's folder, and are given to
the server as absolute ones.

With --keep-existing what the server has stays as it is, too, and only what it does
not have is made: what differs is reported as kept.

Mistakes are told with the line and column of your file.`,
		Example:           "  ferry apply -f offsite.yaml\n  ferry repo jobs /mnt/usb/vault | ferry apply -f -",
		Args:              arguments(),
		ValidArgsFunction: nothingToComplete,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.apply(cmd.Context(), at, files, options)
		},
	}
	at.serverFlags(command)
	command.Flags().StringArrayVarP(&files, "file", "f", nil, "`FILE` with jobs and repositories, - for standard input")
	command.Flags().BoolVar(&options.DryRun, "dry-run", false, "only check, and say what would change")
	command.Flags().BoolVar(&options.KeepExisting, "keep-existing", false, "make what there is not yet, and change nothing that there is")
	register(command, "file", completeFile)
	return command
}

func (a *app) apply(ctx context.Context, at asked, files []string, wanted api.Apply) error {
	if len(files) != 1 {
		return hinted(usage("say which file to apply: one, -f FILE"), "docs/jobs.md says how one is written")
	}
	file, dir, err := a.readFile(files[0])
	if err != nil {
		return err
	}
	located, err := policy.Locate(file, dir)
	if err != nil {
		return &exitError{code: ExitUsage, err: err}
	}
	wanted.Documents = string(located.Content)
	applied, err := at.client().Apply(ctx, wanted)
	if err != nil {
		if mistakes := mistakesOf(err, file.Name, located); mistakes != nil {
			return mistakes
		}
		return at.failed(err)
	}
	if a.json {
		return a.printJSON(applied)
	}
	for _, r := range applied.Resources {
		text := "%s %s: %s"
		if wanted.DryRun && (r.Outcome == "created" || r.Outcome == "changed") {
			text = "%s %s: would be %s"
		}
		a.say(text, strings.ToLower(r.Kind), printable(r.Name), r.Outcome)
	}
	return nil
}

// readFile reads a file of resources, and says which folder its relative paths count from.
func (a *app) readFile(name string) (file policy.File, dir string, err error) {
	input, dir := io.Reader(os.Stdin), "."
	if name != "-" {
		opened, err := os.Open(name)
		if err != nil {
			return file, "", usage("%w", err)
		}
		defer opened.Close()
		input, dir = opened, filepath.Dir(name)
	}
	content, err := io.ReadAll(io.LimitReader(input, policy.MaxFile+1)) // one that is larger is refused where it is read
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return file, "", usage("%w", err)
	}
	return policy.File{Name: name, Content: content}, dir, nil
}

// The kinds of resources, as the server names them.
const (
	kindJob        = "Job"
	kindRepository = "Repository"
)

// kindNamed reads the kind of a resource as people type it.
func kindNamed(text string) (string, error) {
	switch strings.ToLower(text) {
	case "job", "jobs":
		return kindJob, nil
	case "repository", "repositories", "repo", "repos":
		return kindRepository, nil
	}
	return "", usage("there is no kind of resource %s: job or repository", printable(text))
}

func (a *app) getCommand() *cobra.Command {
	var at asked
	var output string
	command := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "Print the jobs and repositories that the server has",
		Long: `List the jobs and repositories that the server has, or those of a kind; with a name,
print the resource as it was applied, comments too. With -o yaml all of them are
printed so: ferry apply reads that again.`,
		Example:           "  ferry get\n  ferry get job offsite\n  ferry get -o yaml > all.yaml",
		Args:              arguments("[KIND]", "[NAME]"),
		ValidArgsFunction: at.completeResource,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.get(cmd.Context(), at, args, output) },
	}
	at.serverFlags(command)
	command.Flags().StringVarP(&output, "output", "o", "", "`FORM`: yaml prints the resources themselves")
	completeWords(command, "output", "yaml")
	return command
}

func (a *app) get(ctx context.Context, at asked, args []string, output string) error {
	if output != "" && output != "yaml" {
		return usage("there is no output %s: yaml, or --json", printable(output))
	}
	resources, err := at.resources(ctx, args)
	if err != nil {
		return err
	}
	switch {
	case a.json:
		return a.printJSON(storedJSON{Resources: resources})
	case output == "yaml" || len(args) == 2:
		for i, r := range resources {
			if i > 0 {
				a.line("---")
			}
			if _, err := io.WriteString(a.out, strings.TrimRight(r.Document, "\n")+"\n"); err != nil {
				return err
			}
		}
		return nil
	case len(resources) == 0:
		a.say("the server has none")
		return nil
	}
	rows := [][]string{{"kind", "name", "version", "changed"}}
	for _, r := range resources {
		rows = append(rows, []string{strings.ToLower(r.Kind), printable(r.Name), count(int(r.Version)), when(r.Changed)})
	}
	a.table(rows)
	return nil
}

// storedJSON is the output of get.
type storedJSON struct {
	Resources []api.Resource `json:"resources"`
}

// resources are those of the server, of a kind, or the one of a name: repositories first, since jobs refer to them.
func (s *asked) resources(ctx context.Context, args []string) ([]api.Resource, error) {
	kind := ""
	if len(args) > 0 {
		var err error
		if kind, err = kindNamed(args[0]); err != nil {
			return nil, err
		}
	}
	if len(args) == 2 {
		r, err := s.client().Resource(ctx, kind, args[1])
		return []api.Resource{r}, s.failed(err)
	}
	list, err := s.client().Resources(ctx, kind)
	slices.SortStableFunc(list, func(a, b api.Resource) int { return strings.Compare(b.Kind, a.Kind) })
	return append([]api.Resource{}, list...), s.failed(err)
}

// completeResource completes a kind, then the name of one of the server's resources.
func (s *asked) completeResource(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return []string{"job", "repository"}, noFiles
	case 1:
		list, err := s.resources(cmd.Context(), args)
		if err != nil {
			return nil, noFiles
		}
		var names []string
		for _, r := range list {
			names = append(names, r.Name)
		}
		return names, noFiles
	}
	return nil, noFiles
}

func (a *app) deleteCommand() *cobra.Command {
	var at asked
	var release bool
	command := &cobra.Command{
		Use: "delete KIND NAME", Short: "Have the server forget a job or a repository",
		Long: `Delete a job or a repository from the server. What a job has copied stays where it is,
kept under its last retention; with --release the job's claims on it are withdrawn, and
reclaim gives back what nobody else claims. A repository that a job names stays.
Nothing is removed from a repository but claims.`,
		Example:           "  ferry delete job offsite\n  ferry delete job offsite --release\n  ferry delete repository vault",
		Args:              arguments("KIND", "NAME"),
		ValidArgsFunction: at.completeResource,
		RunE: func(cmd *cobra.Command, args []string) error {
			resources, err := at.resources(cmd.Context(), args) // its version: what is deleted is what is there now
			if err != nil {
				return err
			}
			r := resources[0]
			if err := at.client().Delete(cmd.Context(), r.Kind, r.Name, r.Version, release); err != nil {
				return at.failed(err)
			}
			if a.json {
				return a.printJSON(api.Applied{Resources: []api.AppliedResource{{Kind: r.Kind, Name: r.Name, Version: r.Version, Outcome: "deleted"}}})
			}
			a.say("%s %s: deleted", strings.ToLower(r.Kind), printable(r.Name))
			return nil
		},
	}
	at.serverFlags(command)
	command.Flags().BoolVar(&release, "release", false, "withdraw the job's claims on what it has copied")
	return command
}
