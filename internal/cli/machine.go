package cli

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/job"
	"ferry/internal/plan"
)

func (a *app) machineCommand() *cobra.Command {
	at := &asked{}
	command := &cobra.Command{
		Use: "machine", Short: "Say that a machine has gone for good, or that it is back",
		Long: `A machine that is in no source any more keeps its copies: that it is missing does not say
that it has gone. A person says so. Then nobody waits for a newer copy of it, and jobs
with purgeAfter remove what they have of it, so long after it was said.`,
		Example: "  ferry machine retire web01\n  ferry machine return web01",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.serverFlags(command)
	command.AddCommand(a.machineRetireCommand(at), a.machineReturnCommand(at))
	return command
}

func (a *app) machineRetireCommand(at *asked) *cobra.Command {
	return a.retiring(at, false, &cobra.Command{
		Use: "retire MACHINE", Short: "Say that a machine has gone for good",
		Long: `Say that a machine has gone for good. Its copies no longer count as too old. A job with
purgeAfter removes all points that it has of the machine so long after that, or after its
newest point, while no source has the machine; a job without keeps them. ferry job explain
and ferry status say when. ferry machine return takes it back.

The server is told; each session leaves it in its job's target, too. With -f FILE it is
left there by this command, by all jobs of the file that have points of the machine.`,
		Example: "  ferry machine retire web01\n  ferry machine retire proxmox/100/3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f -f offsite.yaml",
	})
}

func (a *app) machineReturnCommand(at *asked) *cobra.Command {
	return a.retiring(at, true, &cobra.Command{
		Use: "return MACHINE", Short: "Say that a machine that was retired is back",
		Long: `Take back that a machine has gone for good. Its points stay as the rules of its jobs have
them; those that were removed because it had gone are copied again where a source has
them and the rules keep them.`,
		Example: "  ferry machine return web01",
	})
}

// retiring makes a command say whether a machine has gone.
func (a *app) retiring(at *asked, back bool, command *cobra.Command) *cobra.Command {
	var file string
	command.Args, command.ValidArgsFunction = arguments("MACHINE"), nothingToComplete
	command.RunE = func(cmd *cobra.Command, args []string) error {
		if file != "" {
			return a.retireInTargets(cmd.Context(), file, args[0], back)
		}
		retired, err := at.client().Retire(cmd.Context(), api.Retire{Machine: args[0], Back: back})
		if err != nil {
			return at.failed(err)
		}
		return a.sayRetired(retired)
	}
	jobFileFlag(command, &file)
	return command
}

// retireInTargets leaves in the targets of a file's jobs whether a machine has gone. Each job of which the target has the machine
// must be told.
func (a *app) retireInTargets(ctx context.Context, file, machine string, back bool) error {
	resources, folder, err := a.readResources(file)
	if err != nil {
		return err
	}
	var told *api.Retired
	var none error
	for _, j := range resources.Jobs {
		setup, err := a.setup(chosenJob{Job: j.Effective(), resources: resources, folder: folder})
		if err != nil {
			return err
		}
		found, target, err := job.Retire(ctx, setup, machine, !back)
		switch {
		case errors.Is(err, plan.ErrNotFound):
			none = cmp.Or(none, err)
		case err != nil:
			return targetError(target, err)
		default:
			described := describeMachine(found.Machine)
			told = &api.Retired{Machine: api.Machine{ID: described.ID, Name: described.Name}, Since: found.Since}
		}
	}
	switch {
	case told != nil:
		return a.sayRetired(*told)
	case none != nil:
		return none
	}
	return usage("there is no job in %s", printable(file))
}

func (a *app) sayRetired(r api.Retired) error {
	if a.json {
		return a.printJSON(r)
	}
	if r.Since.IsZero() {
		a.say("%s: back, and not retired any more", readable(machineName(r.Machine)))
	} else {
		a.say("%s: retired %s", readable(machineName(r.Machine)), r.Since.Local().Format(time.DateTime))
	}
	return nil
}
