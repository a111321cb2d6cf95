package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
)

func (a *app) jobCommand() *cobra.Command {
	command := &cobra.Command{
		Use: "job", Short: "Run a backup copy job, or say what it would do",
		Long: `A backup copy job says what to copy, from where, to where, and what to keep: YAML
with the job and the repositories that it names (docs/jobs.md).`,
		Example: "  ferry job explain -f offsite.yaml\n  ferry job run --once -f offsite.yaml",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(a.jobRunCommand(), a.jobFullCommand(), a.jobExplainCommand(), a.jobMissingCommand(), a.jobSimulateCommand(), a.jobShowCommand(), a.jobResolveCommand(), a.jobSchemaCommand())
	return command
}

// jobFileFlag is -f, which every command that works without a server needs.
func jobFileFlag(command *cobra.Command, file *string) {
	command.Flags().StringVarP(file, "file", "f", "", "`FILE` with the job and its repositories, - for standard input")
	register(command, "file", completeFile)
}

// chosenJob is a job of a file, with the resources that it is among.
type chosenJob struct {
	policy.Job
	resources policy.Resources
	// folder is where relative locations and files count from.
	folder string
}

// readJob reads the job of that name from a file; without a name, the only one there is.
func (a *app) readJob(file string, names []string) (chosenJob, error) {
	none := chosenJob{}
	if len(names) > 1 {
		return none, usage("one job at a time; too many: %s", printable(names[1]))
	}
	if file == "" {
		return none, hinted(usage("say which file the job is in: -f FILE"), "docs/jobs.md says how one is written")
	}
	resources, folder, err := a.readResources(file)
	if err != nil {
		return none, err
	}
	var all []string
	for _, j := range resources.Jobs {
		all = append(all, j.Name)
		if len(names) == 1 && j.Name == names[0] || len(names) == 0 && len(resources.Jobs) == 1 {
			return chosenJob{Job: j.Effective(), resources: resources, folder: folder}, nil
		}
	}
	switch {
	case len(all) == 0:
		return none, usage("there is no job in %s", printable(file))
	case len(names) == 0:
		return none, usage("there are several jobs in %s, say which: %s", printable(file), printable(strings.Join(all, ", ")))
	}
	return none, exitWith(ExitNothing, "there is no job %s in %s; there: %s", printable(names[0]), printable(file), printable(strings.Join(all, ", ")))
}

// readResources reads a file of resources, and says where relative locations in it count from.
func (a *app) readResources(file string) (policy.Resources, string, error) {
	input, folder := io.Reader(os.Stdin), "."
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return policy.Resources{}, "", usage("%w", err)
		}
		defer opened.Close()
		input, folder = opened, filepath.Dir(file)
	}
	content, err := io.ReadAll(io.LimitReader(input, policy.MaxFile+1)) // of one that is too large Parse says so
	if err == nil {
		folder, err = filepath.Abs(folder)
	}
	if err != nil {
		return policy.Resources{}, "", usage("%w", err)
	}
	resources, err := policy.Parse(policy.File{Name: file, Content: content})
	if err != nil {
		return policy.Resources{}, "", &exitError{code: ExitUsage, err: err}
	}
	return resources, folder, nil
}

// located is a repository with a location, and files of secrets, that hold wherever one is.
func (c chosenJob) located(r policy.Repository) policy.Repository { return r.Located(c.folder) }

// document is the job and the repositories that it names as YAML that holds wherever it is read.
func (c chosenJob) document(repositories []policy.Repository) string {
	var documents []string
	seen := map[string]bool{}
	for _, r := range repositories {
		if !seen[r.Name] {
			seen[r.Name] = true
			documents = append(documents, string(r.YAML()))
		}
	}
	return strings.Join(append(documents, string(c.Job.YAML())), "---\n")
}
