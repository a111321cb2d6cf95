package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/job"
)

func (a *app) sessionCommand() *cobra.Command {
	at := &asked{}
	command := &cobra.Command{
		Use: "session", Short: "Look at what jobs did and are doing",
		Long: `A session is the record of one interval of a job. The server keeps them; these commands
list them, print one as ferry job run does, and follow one that has not ended.`,
		Example: "  ferry session list\n  ferry session show offsite\n  ferry session follow 42",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.serverFlags(command)
	command.AddCommand(a.sessionListCommand(at), a.sessionShowCommand(at), a.sessionFollowCommand(at))
	return command
}

func (a *app) sessionListCommand(at *asked) *cobra.Command {
	var limit int
	var before int64
	command := &cobra.Command{
		Use: "list [JOB]", Short: "List sessions, newest first",
		Long:              "List the sessions of all jobs, or of one, newest first: when each began, how it ended and why.",
		Example:           "  ferry session list\n  ferry session list offsite --limit 100",
		Args:              arguments("[JOB]"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			of := ""
			if len(args) == 1 {
				of = args[0]
			}
			if limit < 1 || limit > 1000 {
				return usage("--limit is from 1 to 1000")
			}
			list, err := at.client().Sessions(cmd.Context(), of, before, limit)
			if err != nil {
				return at.failed(err)
			}
			return a.printSessions(list)
		},
	}
	command.Flags().IntVar(&limit, "limit", 20, "list this `NUMBER` at most, up to 1000")
	command.Flags().Int64Var(&before, "before", 0, "only those before session `NUMBER`, to go on where a list ended")
	return command
}

// sessionsJSON is the output of session list.
type sessionsJSON struct {
	Sessions []api.Session `json:"sessions"`
}

func (a *app) printSessions(list []api.Session) error {
	if a.json {
		return a.printJSON(sessionsJSON{append([]api.Session{}, list...)})
	}
	if len(list) == 0 {
		a.say("there are no sessions")
		return nil
	}
	rows := [][]string{{"session", "job", "began", "took", "state", ""}}
	for _, s := range list {
		took := ""
		if !s.Ended.IsZero() {
			took = lasted(s.Ended.Sub(s.Began))
		}
		rows = append(rows, []string{fmt.Sprint(s.ID), printable(s.Job), when(s.Began), took, s.State, readable(sessionText(s))})
	}
	a.table(rows)
	return nil
}

// sessionText is why a session stands as it does, or what it is at, or what it came to.
func sessionText(s api.Session) string {
	switch {
	case s.Reason != "":
		return s.Reason
	case s.Ended.IsZero():
		return s.Phase
	case s.Counts["copied"]+s.Counts["failed"]+s.Counts["removed"] > 0 || s.State == "done":
		return fmt.Sprintf("%d copied, %d failed, %d removed", s.Counts["copied"], s.Counts["failed"], s.Counts["removed"])
	}
	return ""
}

func (a *app) sessionShowCommand(at *asked) *cobra.Command {
	return &cobra.Command{
		Use: "show SESSION", Short: "Print the report of a session, or how far it is",
		Long: `Print what a session came to, as ferry job run does, or how far it is if it has not
ended. SESSION is its number, or the name of a job: then it is the job's newest. The
exit code is 0 whatever the session came to.`,
		Example:           "  ferry session show 42\n  ferry session show offsite --json",
		Args:              arguments("SESSION"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := at.session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.sessionShow(s)
		},
	}
}

// session is the one of a number, or the newest of a job.
func (s *asked) session(ctx context.Context, text string) (api.Session, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		list, err := s.client().Sessions(ctx, text, 0, 1)
		if err != nil {
			return api.Session{}, s.failed(err)
		}
		if len(list) == 0 {
			return api.Session{}, exitWith(ExitNothing, "job %s has no session", printable(text))
		}
		id = list[0].ID
	}
	session, err := s.client().Session(ctx, id)
	return session, s.failed(err)
}

func (a *app) sessionShow(s api.Session) error {
	if a.json {
		return a.printJSON(s)
	}
	a.line("session %d of job %s: %s", s.ID, printable(s.Job), s.State)
	if !s.Boundary.IsZero() {
		a.line("its interval begins %s", when(s.Boundary))
	}
	report, err := reportOf(s)
	if err != nil {
		return err
	}
	if report != nil {
		a.line("began %s, ended %s", when(s.Began), when(s.Ended))
		a.warnings(report.Warnings)
		a.printSession(report)
		return nil
	}
	a.line("began %s%s", when(s.Began), endedText(s))
	if s.Reason != "" {
		a.line("%s", readable(s.Reason))
	}
	var rows [][]string
	for _, p := range s.Phases {
		rows = append(rows, []string{p.Name, p.State, when(p.Began), readable(p.Reason)})
	}
	for _, t := range s.Tasks {
		rows = append(rows, []string{machineName(t.Machine), t.State, when(t.Began), readable(taskText(t))})
	}
	a.table(rows)
	return nil
}

func endedText(s api.Session) string {
	if s.Ended.IsZero() {
		return ""
	}
	return ", ended " + when(s.Ended)
}

// taskText is why a task stands as it does, and how far it is.
func taskText(t api.Task) string {
	far := fmt.Sprintf("%s of %s", size(t.Done), size(t.Total))
	switch {
	case t.Total > 0 && t.State == "running":
		return fmt.Sprintf("%d %%, %s, kept %s", min(100, t.Done*100/t.Total), far, size(t.Kept))
	case t.Total > 0 && t.State == "waiting":
		return strings.TrimPrefix(fmt.Sprintf("%s; it was at %d %%, %s, and %s of it is kept", t.Reason, min(100, t.Done*100/t.Total), far, size(t.Kept)), "; ")
	case t.Total > 0 && t.State == "done" && t.Reason == "":
		return fmt.Sprintf("%s, read %s, stored %s", far, size(t.Read), size(t.Written))
	}
	return t.Reason
}

// reportOf is the report of a session that has ended; nil if it has none.
func reportOf(s api.Session) (*job.Session, error) {
	if len(s.Report) == 0 || string(s.Report) == "null" {
		return nil, nil
	}
	report := &job.Session{}
	if err := json.Unmarshal(s.Report, report); err != nil {
		return nil, fmt.Errorf("the report of session %d: %w", s.ID, err)
	}
	return report, nil
}

func (a *app) sessionFollowCommand(at *asked) *cobra.Command {
	return &cobra.Command{
		Use: "follow SESSION", Short: "Show the progress of a session until it has ended",
		Long: `Show how a session comes on, print its report when it has ended, and end with its exit
code, as ferry job run does. SESSION is its number, or the name of a job: then it is the
job's newest. Ctrl-C stops following; the session goes on.`,
		Example:           "  ferry session follow 42\n  ferry session follow offsite",
		Args:              arguments("SESSION"),
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := at.session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), at, s.ID)
		},
	}
}

// outcome prints a session that has ended, and returns its exit code.
func (a *app) outcome(s api.Session) error {
	report, err := reportOf(s)
	if err != nil {
		return err
	}
	if report == nil {
		if a.json {
			if err := a.printJSON(s); err != nil {
				return err
			}
		}
		return endedWithoutReport(s)
	}
	if err := a.report(report); err != nil {
		return err
	}
	if report.Result == job.ResultInterrupted { // by others: who follows has not interrupted it
		return exitWith(ExitInterrupted, "session %d was stopped", s.ID)
	}
	return sessionExit(report)
}

// endedWithoutReport is the exit code of a session that left none, such as one that was stopped before it began.
func endedWithoutReport(s api.Session) error {
	text := "session %d of job %s: %s"
	if s.Reason != "" {
		text += ": " + readable(s.Reason)
	}
	switch s.State {
	case "done", "expired":
		return nil
	case "partial":
		return exitWith(ExitSomeFailed, text, s.ID, printable(s.Job), s.State)
	case "stopped":
		return exitWith(ExitInterrupted, text, s.ID, printable(s.Job), s.State)
	}
	return exitWith(ExitFailed, text, s.ID, printable(s.Job), s.State)
}
