package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/client"
)

// startedJSON is the output of job run, full and retry with --detach.
type startedJSON struct {
	Job     string `json:"job"`
	Session int64  `json:"session"`
}

// answeredJSON is the output of job stop, enable and disable, and of a retry that had nothing to do.
type answeredJSON struct {
	Job     string `json:"job"`
	Outcome string `json:"outcome"`
}

// answered tells what became of a job by a request.
func (a *app) answered(name, outcome string) error {
	if a.json {
		return a.printJSON(answeredJSON{printable(name), readable(outcome)})
	}
	a.say("job %s: %s", printable(name), readable(outcome))
	return nil
}

// jobStart has the server begin a session, and follows it unless it is to be detached.
func (a *app) jobStart(ctx context.Context, at *asked, names []string, how api.Start, detach bool) error {
	name, err := at.oneJob(ctx, names)
	if err != nil {
		return err
	}
	started, err := at.client().Run(ctx, name, how)
	if err != nil {
		var problem *client.Error
		if errors.As(err, &problem) && problem.Code == api.CodeNothingToRetry {
			return a.answered(name, "the last session left nothing undone")
		}
		return at.failed(err)
	}
	if !detach {
		return a.follow(ctx, at, started.Session)
	}
	if a.json {
		return a.printJSON(startedJSON{Job: printable(name), Session: started.Session})
	}
	a.say("job %s: session %d", printable(name), started.Session)
	return nil
}

func (a *app) jobRetryCommand(at *asked) *cobra.Command {
	var detach bool
	command := &cobra.Command{
		Use: "retry [NAME]", Short: "Run a job again, if its last session left anything undone",
		Long: `Have the server begin a session of a job if machines failed in the last one, or waited,
and show its progress as ferry job run does. If nothing was left undone, nothing is done.`,
		Example:           "  ferry job retry offsite",
		Args:              arguments("[NAME]"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.jobStart(cmd.Context(), at, args, api.Start{Retry: true}, detach)
		},
	}
	command.Flags().BoolVar(&detach, "detach", false, "only begin the session, and print its number")
	return command
}

func (a *app) jobStopCommand(at *asked) *cobra.Command {
	var now bool
	command := &cobra.Command{
		Use: "stop [NAME]", Short: "End a job's session in order, or at once",
		Long: `Ask the session of a job to end. It finishes what is in flight and keeps what it has
stored; with --now it lets go of what is in flight too. Either way the next session goes
on from there. The command does not wait until the session has ended.`,
		Example:           "  ferry job stop offsite\n  ferry job stop offsite --now",
		Args:              arguments("[NAME]"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := at.oneJob(cmd.Context(), args)
			if err != nil {
				return err
			}
			if err := at.client().Stop(cmd.Context(), name, now); err != nil {
				return at.failed(err)
			}
			return a.answered(name, "asked to stop")
		},
	}
	command.Flags().BoolVar(&now, "now", false, "let go of what is in flight")
	return command
}

// jobSwitchCommand is job enable or job disable.
func (a *app) jobSwitchCommand(at *asked, on bool) *cobra.Command {
	command := &cobra.Command{
		Use: "disable [NAME]", Short: "Let nothing of a job begin by itself",
		Long: `Switch a job off: its intervals no longer begin by themselves. A session in progress goes
on, and ferry job run still begins one.`,
		Example: "  ferry job disable offsite",
	}
	if on {
		command = &cobra.Command{
			Use: "enable [NAME]", Short: "Have a job's intervals begin by themselves",
			Long: `Switch a job on, as it is when it is first applied: its intervals begin by themselves.
Of those that passed meanwhile one is made up for.`,
			Example: "  ferry job enable offsite",
		}
	}
	command.Args, command.ValidArgsFunction = arguments("[NAME]"), at.completeJobs
	command.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := at.oneJob(cmd.Context(), args)
		if err != nil {
			return err
		}
		change, word := at.client().Disable, "disabled"
		if on {
			change, word = at.client().Enable, "enabled"
		}
		if err := change(cmd.Context(), name); err != nil {
			return at.failed(err)
		}
		return a.answered(name, word)
	}
	return command
}

// jobExplainServed prints what the server would do with a job.
func (a *app) jobExplainServed(ctx context.Context, at *asked, names []string) error {
	var e explanationJSON
	if err := at.lookAhead(ctx, names, at.client().Explain, &e); err != nil {
		return err
	}
	return a.showExplanation(e)
}

// jobSimulateServed prints what a job of the server will keep.
func (a *app) jobSimulateServed(ctx context.Context, at *asked, names []string, days int) error {
	var f futureJSON
	simulate := func(ctx context.Context, name string) (json.RawMessage, error) {
		return at.client().Simulate(ctx, name, days)
	}
	if err := at.lookAhead(ctx, names, simulate, &f); err != nil {
		return err
	}
	return a.showFuture(f)
}

// lookAhead has the server look at a job's sources and target, and reads what it says.
func (s *asked) lookAhead(ctx context.Context, names []string, look func(context.Context, string) (json.RawMessage, error), into any) error {
	name, err := s.oneJob(ctx, names)
	if err != nil {
		return err
	}
	document, err := look(ctx, name)
	if err != nil {
		return s.failed(err)
	}
	if err := json.Unmarshal(document, into); err != nil {
		return fmt.Errorf("what the server says of job %s: %w", printable(name), err)
	}
	return nil
}
