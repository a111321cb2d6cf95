package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// checkPatience is how long a check waits for the server: monitoring systems give up after a minute or less.
const checkPatience = 10 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var at asked
	var check bool
	command := &cobra.Command{
		Use: "status", Short: "Say whether all is well, and what is not",
		Long: `Say how everything stands that a server does: in the first line whether all is well;
then the machines whose copies are older than their job allows, the worst first; other
alarms; what runs, what waits and for what; when jobs begin next, and how full
repositories are (docs/status.md).

--check prints one line for a monitoring system and ends with its codes: 0 OK,
1 WARNING, 2 CRITICAL, 3 UNKNOWN, also if no server can be asked (docs/alerts.md).`,
		Example:           "  ferry status\n  ferry status --json\n  ferry status --check",
		Args:              arguments(),
		ValidArgsFunction: nothingToComplete,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				return a.statusCheck(cmd.Context(), at)
			}
			return a.status(cmd.Context(), at)
		},
	}
	at.serverFlags(command)
	command.Flags().BoolVar(&check, "check", false, "print one line, and end with 0, 1, 2 or 3, for monitoring systems")
	return command
}

// allMachines is more than a server has in its jobs.
const allMachines = 100_000

func (a *app) status(ctx context.Context, at asked) error {
	status, err := at.client().Status(ctx, allMachines) // those that have a note are anywhere among them
	if err != nil {
		return at.failed(err)
	}
	if a.json {
		return a.printJSON(status)
	}
	for _, line := range statusLines(status, terminalWidth(a.out)) {
		a.line("%s", line)
	}
	return nil
}

// statusCheck says everything in one line on standard output, errors too: that is what monitoring systems read.
func (a *app) statusCheck(ctx context.Context, at asked) error {
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	status, err := at.client().Status(ctx, allMachines)
	if err != nil {
		reason := at.failed(err).Error()
		if ctx.Err() != nil {
			reason = fmt.Sprintf("the server at %s did not answer within %s", printable(at.path()), checkPatience)
		}
		a.line("%s", unknownLine(reason))
		return &exitError{code: checkUnknown}
	}
	line, code := checkLine(status)
	a.line("%s", line)
	if code == checkOK {
		return nil
	}
	return &exitError{code: code}
}
