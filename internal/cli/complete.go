package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/storage/s3"
)

// Completion in a shell. What cannot be found out quietly is not completed: errors have no place there.

const noFiles = cobra.ShellCompDirectiveNoFileComp

// completeFolder completes arguments that are folders, or locations in a bucket, of which nothing is known without asking.
func completeFolder(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if s3.IsLocation(toComplete) {
		return nil, noFiles | cobra.ShellCompDirectiveNoSpace
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// register adds a completion to a flag. The only error is a flag that does not exist, which every test would show.
func register(command *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := command.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err)
	}
}

func completeFolders(command *cobra.Command, flags ...string) {
	for _, flag := range flags {
		register(command, flag, completeFolder)
	}
}

func completeCodec(command *cobra.Command) {
	var values []string
	for _, codec := range codecs {
		values = append(values, string(codec))
	}
	completeWords(command, "codec", values...)
}

// completeWords completes a flag that takes one of a few words.
func completeWords(command *cobra.Command, flag string, words ...string) {
	register(command, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) { return words, noFiles })
}

// completeMachineFlag completes copy's --machine from the source.
func (a *app) completeMachineFlag(command *cobra.Command) {
	register(command, "machine", func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, noFiles
		}
		opened, err := a.openSource(cmd.Context(), args[0], "")
		if err != nil {
			return nil, noFiles
		}
		defer opened.Close()
		return machineChoices(pointsOf(opened), toComplete), noFiles
	})
}

// completeRestore completes the repository, then a machine in it.
func (a *app) completeRestore(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return completeFolder(cmd, args, toComplete)
	case 1:
		return machineChoices(a.pointsToComplete(cmd, args[0]), toComplete), noFiles
	}
	return nil, noFiles
}

// completePointFlag completes restore's --point with the machine's points, newest first.
func (a *app) completePointFlag(command *cobra.Command) {
	register(command, "point", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		choices := []string{"latest"}
		if len(args) < 2 {
			return choices, noFiles
		}
		points := a.pointsToComplete(cmd, args[0])
		if m, err := plan.FindMachine(points, args[1]); err == nil {
			for i := len(points) - 1; i >= 0; i-- { // the log has the oldest first
				if points[i].Machine.Key == m.Key {
					choices = append(choices, cobra.CompletionWithDesc(points[i].ID.Short(), strings.TrimSpace(when(points[i].Created)+"  "+points[i].Reason)))
				}
			}
		}
		return choices, noFiles | cobra.ShellCompDirectiveKeepOrder
	})
}

func (a *app) pointsToComplete(cmd *cobra.Command, path string) []backup.Point {
	repository, err := a.openRepository(cmd.Context(), path)
	if err != nil {
		return nil
	}
	defer repository.Close()
	points, err := a.repositoryPoints(cmd.Context(), repository)
	if err != nil {
		return nil
	}
	return points
}

// machineChoices offers names that only one machine has, and ids for the others, or where an id has been begun.
func machineChoices(points []backup.Point, begun string) []string {
	var choices []string
	for _, m := range plan.Machines(points) {
		id, name := m.Key.String(), printable(m.Name)
		found, err := plan.FindMachine(points, name)
		if name == "" || err != nil || found.Key != m.Key || strings.Contains(begun, "/") {
			choices = append(choices, cobra.CompletionWithDesc(id, name))
		} else {
			choices = append(choices, cobra.CompletionWithDesc(name, id))
		}
	}
	return choices
}

// completeFile completes flags that take a file.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// nothingToComplete is for flags whose value nothing is known of.
func nothingToComplete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, noFiles
}
