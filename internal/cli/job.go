package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
	"ferry/internal/repo"
)

func (a *app) jobCommand() *cobra.Command {
	at := &asked{}
	command := &cobra.Command{
		Use: "job", Short: "Run a backup copy job, or say what it would do",
		Long: `A backup copy job says what to copy, from where, to where, and what to keep: YAML
with the job and the repositories that it names (docs/jobs.md). ferry apply gives it to a
server, which runs it from then on; run, full, stop, enable, disable, retry, explain,
missing, simulate, show and resolve then name the job. With -f FILE these commands, but
for those that need a server, work without one.`,
		Example: "  ferry job explain offsite\n  ferry job run offsite\n  ferry job run --once -f offsite.yaml",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.serverFlags(command)
	command.AddCommand(a.jobRunCommand(at), a.jobFullCommand(at), a.jobStopCommand(at), a.jobRetryCommand(at),
		a.jobSwitchCommand(at, true), a.jobSwitchCommand(at, false), a.jobExplainCommand(at), a.jobMissingCommand(at), a.jobSimulateCommand(at), a.jobShowCommand(at), a.jobResolveCommand(at), a.jobSchemaCommand())
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
	if file == "" {
		return chosenJob{}, hinted(usage("say which file the job is in: -f FILE"), "docs/jobs.md says how one is written")
	}
	resources, folder, err := a.readResources(file)
	if err != nil {
		return chosenJob{}, err
	}
	return chooseJob(resources, folder, names, printable(file))
}

// servedJob reads the job of that name from a file, or without one from the server.
func (a *app) servedJob(ctx context.Context, at *asked, file string, names []string) (chosenJob, error) {
	if file != "" {
		return a.readJob(file, names)
	}
	resources, err := at.served(ctx)
	if err != nil {
		return chosenJob{}, err
	}
	return chooseJob(resources, "/", names, "the server")
}

// served are the resources that the server has; none is an error.
func (s *asked) served(ctx context.Context) (policy.Resources, error) {
	resources, err := s.known(ctx)
	if err == nil && len(resources.Jobs)+len(resources.Repositories) == 0 {
		err = exitWith(ExitNothing, "the server has no job")
	}
	return resources, err
}

// known are the resources that the server has.
func (s *asked) known(ctx context.Context) (policy.Resources, error) {
	stored, err := s.resources(ctx, nil)
	if err != nil || len(stored) == 0 {
		return policy.Resources{}, err
	}
	var files []policy.File
	for _, r := range stored {
		files = append(files, policy.File{Name: strings.ToLower(r.Kind) + " " + r.Name, Content: []byte(r.Document)})
	}
	resources, err := policy.Parse(files...)
	if err != nil {
		err = &exitError{code: ExitUsage, err: err}
	}
	return resources, err
}

// chooseJob is the job of that name among resources; without a name, the only one.
func chooseJob(resources policy.Resources, folder string, names []string, where string) (chosenJob, error) {
	none := chosenJob{}
	if len(names) > 1 {
		return none, usage("one job at a time; too many: %s", printable(names[1]))
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
		return none, usage("there is no job in %s", where)
	case len(names) == 0:
		return none, usage("there are several jobs in %s, say which: %s", where, printable(strings.Join(all, ", ")))
	}
	return none, exitWith(ExitNothing, "there is no job %s in %s; there: %s", printable(names[0]), where, printable(strings.Join(all, ", ")))
}

// readResources reads a file of resources, and says where relative locations in it count from.
func (a *app) readResources(name string) (policy.Resources, string, error) {
	file, folder, err := a.readFile(name)
	if err != nil {
		return policy.Resources{}, "", err
	}
	resources, err := policy.Parse(file)
	if err != nil {
		return policy.Resources{}, "", &exitError{code: ExitUsage, err: err}
	}
	return resources, folder, nil
}

// located is a repository with a location, and files of secrets, that hold wherever one is.
func (c chosenJob) located(r policy.Repository) policy.Repository { return r.Located(c.folder) }

// document is a job and the repositories that it names as YAML that holds wherever it is read.
func (c chosenJob) document(j policy.Job) string {
	var documents []string
	for _, r := range c.resources.Named(j) {
		documents = append(documents, string(c.located(r).YAML()))
	}
	return strings.Join(append(documents, string(j.YAML())), "---\n")
}

// needed are the jobs that the job cannot be without.
func (c chosenJob) needed() []repo.NeededJob {
	var all []repo.NeededJob
	for _, j := range c.resources.Needed(c.Job) {
		all = append(all, repo.NeededJob{Job: j.Name, Document: c.document(j.Effective())})
	}
	return all
}
