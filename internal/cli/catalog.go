package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) catalogCommand() *cobra.Command {
	at := &asked{}
	command := &cobra.Command{
		Use: "catalog", Short: "Look after what the server knows",
		Long: `The server's catalog has a mirror of the points of each target (docs/catalog.md), which is
made anew from the repositories when it is lost.`,
		Example: "  ferry catalog rebuild",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.serverFlags(command)
	command.AddCommand(a.catalogRebuildCommand(at))
	return command
}

func (a *app) catalogRebuildCommand(at *asked) *cobra.Command {
	return &cobra.Command{
		Use: "rebuild [NAME]", Short: "Read the points of a target anew into the catalog, or of all targets",
		Long: `Have the server read the log of a target, or of all, and make its mirror of them anew.
It never needs to be done while the server works as it should: it does no harm.`,
		Example:           "  ferry catalog rebuild\n  ferry catalog rebuild vault",
		Args:              arguments("[NAME]"),
		ValidArgsFunction: nothingToComplete,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			rebuilt, err := at.client().Rebuild(cmd.Context(), name)
			if err != nil {
				return at.failed(err)
			}
			if a.json {
				if err := a.printJSON(rebuilt); err != nil {
					return err
				}
			}
			failed := 0
			for _, r := range rebuilt.Repositories {
				switch {
				case r.Error != "":
					failed++
					if !a.json {
						a.line("FAILED  %s  %s", printable(r.Name), readable(r.Error))
					}
				case !a.json:
					a.say("%s: %s", printable(r.Name), counted(int(r.Points), "point"))
				}
			}
			switch {
			case failed > 0 && failed == len(rebuilt.Repositories):
				return &exitError{code: ExitFailed}
			case failed > 0:
				return &exitError{code: ExitSomeFailed}
			}
			return nil
		},
	}
}
