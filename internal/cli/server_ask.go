package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/api"
	"ferry/internal/client"
	"ferry/internal/policy"
	"ferry/internal/storage"
)

// asked is how a command reaches the server.
type asked struct {
	socket string
	// sleep waits; nil: as the clock goes.
	sleep func(context.Context, time.Duration) error
}

func (s *asked) pause(ctx context.Context, d time.Duration) error {
	if s.sleep != nil {
		return s.sleep(ctx, d)
	}
	return storage.Sleep(ctx, d)
}

// serverFlags gives a command, and those below it, the flag that says where the server is.
func (s *asked) serverFlags(command *cobra.Command) {
	command.PersistentFlags().StringVar(&s.socket, "socket", "", "`PATH` of the server's socket (default $FERRY_SOCKET, or where ferry serve makes it)")
}

// client is the way to the server.
func (s *asked) client() *client.Client { return client.New(s.path()) }

func (s *asked) path() string {
	if s.socket != "" {
		return s.socket
	}
	return socketToAsk(os.Geteuid())
}

// failed is the error of a question to the server, with an exit code and what helps. Mistakes in what was sent keep their lines.
func (s *asked) failed(err error) error {
	var problem *client.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return hinted(fmt.Errorf("the server's socket %s may not be used: %w", s.path(), err), "its users are in the socket's group, which is ferry where there is one")
	case errors.Is(err, client.ErrNoServer):
		return noServer(s.path())
	case !errors.As(err, &problem):
		return err
	}
	text := problem.Detail
	if text == "" {
		text = problem.Title
	}
	err = exitWith(codeOfProblem(problem.Code), "%s", readable(text))
	if problem.Hint != "" {
		return hinted(err, readable(problem.Hint))
	}
	return err
}

func noServer(socket string) error {
	return hinted(exitWith(ExitFailed, "no server runs at %s", printable(socket)), "start one with ferry serve; without one there are ferry job run --once -f FILE and ferry job explain -f FILE")
}

// codeOfProblem is the exit code of what a server refuses.
func codeOfProblem(code string) int {
	switch code {
	case api.CodeNotFound, api.CodeNotRunning:
		return ExitNothing
	case api.CodeInvalid, api.CodeUsed, api.CodeCondition:
		return ExitUsage
	case api.CodeRunning, api.CodeChanged:
		return ExitInUse
	}
	return ExitFailed
}

// mistakesOf are the mistakes that a server found in a file that was sent to it, as they stand in the person's file; nil for
// other errors.
func mistakesOf(err error, file string, located policy.Located) error {
	var problem *client.Error
	if !errors.As(err, &problem) || len(problem.Mistakes) == 0 {
		return nil
	}
	var problems policy.Problems
	for _, m := range problem.Mistakes {
		p := policy.Problem{File: file, Line: m.Line, Column: located.Column(m.Line, m.Column), Path: m.Path, Text: m.Text, Hint: m.Hint}
		if m.Resource != "" {
			p.File, p.Line, p.Column = "", 0, 0
			p.Path = strings.TrimSpace(m.Resource + " " + m.Path)
		}
		problems = append(problems, p)
	}
	return &exitError{code: ExitUsage, err: problems}
}

// oneJob is the job that a person named, or the only one that the server has.
func (s *asked) oneJob(ctx context.Context, names []string) (string, error) {
	switch len(names) {
	case 0:
	case 1:
		return names[0], nil
	default:
		return "", usage("one job at a time; too many: %s", printable(names[1]))
	}
	jobs, err := s.client().Jobs(ctx)
	if err != nil {
		return "", s.failed(err)
	}
	switch len(jobs) {
	case 0:
		return "", exitWith(ExitNothing, "the server has no job")
	case 1:
		return jobs[0].Name, nil
	}
	var all []string
	for _, j := range jobs {
		all = append(all, j.Name)
	}
	return "", usage("say which job: %s", printable(strings.Join(all, ", ")))
}

// completeJobs completes the name of one of the server's jobs.
func (s *asked) completeJobs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	jobs, err := s.client().Jobs(cmd.Context())
	if err != nil {
		return nil, noFiles
	}
	var names []string
	for _, j := range jobs {
		names = append(names, j.Name)
	}
	return names, noFiles
}
