package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
	"ferry/internal/repo"
)

func (a *app) repoRescanCommand() *cobra.Command {
	var file string
	var at asked
	command := &cobra.Command{
		Use: "rescan REPOSITORY", Short: "Look through a repository after files were added by hand",
		Long: `Read a repository's log on and compare all files with it, after some were added by
hand: the newer files of another copy of it, or those that a first round of copying
left out. Say which the log names and are not there, which have another size, and
which it does not name; make what is missing of the index; list the backups.

What the log does not name is not part of the repository, wherever it came from:
ferry reclaim gives it up after a day. Points of another repository come in with
ferry copy, which takes over only what is not there yet.

REPOSITORY may be the name of one that the server has; then the server looks at it
anew, too. With -f it is the name of a resource in FILE.`,
		Example:           "  ferry repo rescan /srv/vault\n  ferry repo rescan vault",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoRescan(cmd.Context(), &at, args[0], file) },
	}
	command.Flags().StringVarP(&file, "file", "f", "", "`FILE` with the resource of that name, - for standard input")
	at.serverFlags(command)
	register(command, "file", completeFile)
	return command
}

func (a *app) repoRescan(ctx context.Context, at *asked, place, file string) error {
	repository, served, err := a.openNamed(ctx, at, place, file)
	if err != nil {
		return err
	}
	defer repository.Close()
	found, err := a.inspect(ctx, repository)
	if err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	if served {
		if _, err := at.client().Rebuild(ctx, place); err != nil {
			a.warnings([]string{"the server has not looked at it anew: " + at.failed(err).Error()})
		}
	}
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

// openNamed opens the repository at a place, or that of a name: in a file of resources, or, where there is no such folder, of
// the server's; served is true then.
func (a *app) openNamed(ctx context.Context, at *asked, place, file string) (repository *repo.Repository, served bool, err error) {
	var resources policy.Resources
	folder := "/"
	if file != "" {
		resources, folder, err = a.readResources(file)
	} else {
		if _, err := os.Stat(place); err == nil || strings.Contains(place, "/") || !at.client().Running(ctx) {
			repository, err := a.openRepository(ctx, place)
			return repository, false, err
		}
		served = true
		resources, err = at.known(ctx)
	}
	if err != nil {
		return nil, served, err
	}
	named, there := resources.Repository(place)
	if !there {
		return nil, served, exitWith(ExitNothing, "there is no repository %s, of the server or in a file", printable(place))
	}
	repository, err = a.asResource(named.Located(folder)).openTarget(ctx)
	if err == nil && named.ID != "" && named.ID != repository.ID() {
		err = usage("the repository at %s is %s, not %s", repository.Location(), repository.ID(), named.ID)
		repository.Close()
	}
	return repository, served, err
}

// rescanJSON is the output of repo rescan.
type rescanJSON struct {
	Repository placeJSON `json:"repository"`
	inspectionJSON
}
