package cli

import (
	"context"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
)

func (a *app) repoRescanCommand() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use: "rescan REPOSITORY", Short: "Look through a repository after files were added by hand",
		Long: `Read a repository's log on and compare all files with it, after some were added by
hand: the newer files of another copy of it, or those that a first round of copying
left out. Say which the log names and are not there, which have another size, and
which it does not name; make what is missing of the index; list the backups.

What the log does not name is not part of the repository, wherever it came from:
ferry reclaim gives it up after a day. Points of another repository come in with
ferry copy, which takes over only what is not there yet.

With -f, REPOSITORY is the name of a resource in FILE.`,
		Example:           "  ferry repo rescan /srv/vault\n  ferry repo rescan vault -f jobs.yaml",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoRescan(cmd.Context(), args[0], file) },
	}
	command.Flags().StringVarP(&file, "file", "f", "", "`FILE` with the resource of that name, - for standard input")
	register(command, "file", completeFile)
	return command
}

func (a *app) repoRescan(ctx context.Context, place, file string) error {
	repository, err := a.openNamed(ctx, place, file)
	if err != nil {
		return err
	}
	defer repository.Close()
	found, err := a.inspect(ctx, repository)
	if err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	if a.json {
		err = a.printJSON(rescanJSON{Repository: describePlace(repository), inspectionJSON: found.describe()})
	} else {
		for _, line := range found.lines() {
			a.line("%s", line)
		}
		if found.whole() && len(found.survey.Unnamed) == 0 {
			a.say("every file that its log names is there, and no other")
		}
	}
	if err != nil {
		return err
	}
	return found.exit()
}

// openNamed opens the repository at a place, or, with a file of resources, the one of that name.
func (a *app) openNamed(ctx context.Context, place, file string) (*repo.Repository, error) {
	if file == "" {
		return a.openRepository(ctx, place)
	}
	resources, folder, err := a.readResources(file)
	if err != nil {
		return nil, err
	}
	named, there := resources.Repository(place)
	if !there {
		return nil, exitWith(ExitNothing, "there is no repository %s in %s", printable(place), printable(file))
	}
	repository, err := a.asResource(named.Located(folder)).openTarget(ctx)
	if err == nil && named.ID != "" && named.ID != repository.ID() {
		err = usage("the repository at %s is %s, not %s", repository.Location(), repository.ID(), named.ID)
		repository.Close()
	}
	return repository, err
}

// rescanJSON is the output of repo rescan.
type rescanJSON struct {
	Repository placeJSON `json:"repository"`
	inspectionJSON
}
