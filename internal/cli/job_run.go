package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ferry/internal/api"
	"ferry/internal/idle"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

type jobRunFlags struct {
	file string
	once bool
	wait time.Duration
}

func (a *app) jobRunCommand(at *asked) *cobra.Command {
	command := &cobra.Command{
		Use: "run [NAME]", Short: "Run one interval of a backup copy job",
		Long: `Have the server begin a session of a job now, also of one that is not enabled, show its
progress until it has ended, and end with its exit code. Ctrl-C stops watching; the
session goes on. With --detach it is only begun. NAME is not needed where there is one
job.

With --once -f FILE the interval is run without a server: pre-job script, health check
if it is due, copies, retention and reclaim, compact if it is due, post-job script
(docs/job-run.md). What is not ready is not waited for unless --wait says how long: a
machine whose point is locked by the program that makes it, while others are copied; a
window that is closed; a target or sources that are not there or cannot be read. A
target that is not there is never made; of a machine that a source may have and that
was not listed nothing is removed.`,
		Example: `  ferry job run offsite
  ferry job run --once -f offsite.yaml
  ferry job run --once -f offsite.yaml --wait 4h --quiet    for cron
  ferry job run --once -f jobs.yaml offsite --json`,
	}
	a.addSession(command, at, false)
	return command
}

func (a *app) jobFullCommand(at *asked) *cobra.Command {
	command := &cobra.Command{
		Use: "full [NAME]", Short: "Read the newest points of a job whole from their source",
		Long: `Run one interval in which the newest complete point of each machine is read whole
from its source and stored apart from all else, also if it is there already. It
depends on nothing that was copied before, nor on what the source says has not
changed (docs/job-run.md). The server does it, or with --once -f FILE this command.`,
		Example: "  ferry job full offsite --detach\n  ferry job full --once -f offsite.yaml",
	}
	a.addSession(command, at, true)
	return command
}

// addSession gives a command the flags of a session, and makes it run one.
func (a *app) addSession(command *cobra.Command, at *asked, full bool) {
	var f jobRunFlags
	var detach bool
	jobFileFlag(command, &f.file)
	command.Flags().BoolVar(&f.once, "once", false, "run one interval now, without a server")
	command.Flags().Var((*span)(&f.wait), "wait", "with --once, wait up to this `TIME`, such as 2h, for locks, the job's window, its target and its sources")
	command.Flags().BoolVar(&detach, "detach", false, "only begin the session, and print its number")
	command.Args = cobra.ArbitraryArgs
	command.ValidArgsFunction = at.completeJobs
	command.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.once && detach:
			return usage("--once runs it here: there is nothing to detach from")
		case f.once:
			return a.jobRun(cmd.Context(), f, args, full)
		case f.file != "":
			return hinted(usage("-f goes with --once"), "ferry apply -f gives a file to the server")
		case f.wait != 0:
			return hinted(usage("--wait goes with --once"), "a server waits until the next interval begins")
		}
		return a.jobStart(cmd.Context(), at, args, api.Start{Full: full}, detach)
	}
}

func (a *app) jobRun(ctx context.Context, f jobRunFlags, names []string, full bool) error {
	chosen, err := a.readJob(f.file, names)
	if err != nil {
		return err
	}
	setup, err := a.setup(chosen)
	if err != nil {
		return err
	}
	release, err := a.oneSession(setup)
	if err != nil {
		return err
	}
	defer release()
	a.interrupted = "what was stored is kept; the next run goes on"
	progress := a.newCopyProgress(0)
	checked := func() {}
	setup.Full, setup.Wait, setup.Host.Slots = full, f.wait, job.NewSlots(defaultSlots)
	setup.Copy.Started, setup.Copy.Finished = progress.started, progress.finished
	setup.Checking = func(p *repo.VerifyProgress) {
		checked = progress.bars.add("verifying", p.TotalBytes.Load, p.Bytes.Load)
	}
	priority := func() {}
	setup.Phase = func(phase job.PhaseName) {
		checked()
		checked = func() {}
		progress.pause()
		if phase == job.PhaseCompact {
			priority = idle.Process()
		}
	}
	setup.Host.PhaseEnded = func(job.Phase) { // what comes after compact is the session's end
		priority()
		priority = func() {}
	}
	session := job.Run(ctx, setup)
	checked()
	progress.end()
	if err := a.report(session); err != nil {
		return err
	}
	return sessionExit(session)
}

// report prints what became of a session.
func (a *app) report(s *job.Session) error {
	a.warnings(s.Warnings)
	if a.json {
		return a.printJSON(sessionJSON{Session: s, Requests: a.requests()})
	}
	a.printSession(s)
	return nil
}

// sessionJSON is the output of job run and job full.
type sessionJSON struct {
	*job.Session
	Requests requestsJSON `json:"storageRequests"`
}

// sessionExit is the exit code of a session.
func sessionExit(s *job.Session) error {
	code := ExitDone
	switch {
	case s.Result == job.ResultInterrupted:
		return context.Canceled // which codeOf tells from the context
	case s.Target.State == job.StateNeedsKey && s.Result != job.ResultAborted:
		code = ExitKey
	case s.Result == job.ResultRefused:
		code = ExitUsage
	case s.Result == job.ResultPartly:
		code = ExitSomeFailed
	case s.Result == job.ResultFailed, s.Result == job.ResultAborted, s.Target.State != job.StateReady, s.SourcesWait():
		code = ExitFailed
	case s.Damage.Points > 0, s.Damage.Places > 0:
		code = ExitDamaged
	case len(s.Tasks) == 0 && s.Result != job.ResultWaits: // else the sources were not listed
		code = ExitNothing
	}
	switch code {
	case ExitDone:
		return nil
	case ExitDamaged:
		return hinted(exitWith(code, "damaged data that could not be healed"), "docs/verify.md says what to do")
	case ExitNothing:
		return exitWith(code, "the sources have no machine that the job selects")
	}
	var exit *exitError
	if errors.As(s.Err, &exit) && code != ExitKey {
		code = exit.code
	}
	return &exitError{code: code, err: fmt.Errorf("job %s: %s: %s", printable(s.Job), s.Result, readable(s.Reason))}
}

// printSession prints what was not printed while it happened.
func (a *app) printSession(s *job.Session) {
	for _, alarm := range s.Alarms {
		a.line("ALARM  %s", readable(alarm.Text))
	}
	for _, source := range s.Sources {
		if source.State != job.StateReady {
			a.line("source %s is %s: %s", printable(source.Name), source.State, readable(source.Reason))
		}
	}
	a.printTasks(s)
	for _, phase := range s.Phases {
		a.printPhase(phase)
	}
	var read, stored int64
	if sync := s.Phase(job.PhaseSynchronize); sync != nil {
		read, stored = sync.Counts["readBytes"], sync.Counts["storedBytes"]
	}
	a.say("job %s: %s; %d copied, %d claimed, %d failed, %d removed; read %s, stored %s in %s", printable(s.Job), s.Result,
		s.Copied(), s.Claimed(), s.Failed(), s.Removed(), size(read), size(stored), s.Ended.Sub(s.Began).Round(time.Millisecond))
}

func (a *app) printTasks(s *job.Session) {
	for _, task := range s.Tasks {
		name := task.Machine.Name
		if name == "" {
			name = task.Machine.ID
		}
		for _, p := range task.Points {
			created := when(p.Created)
			switch {
			case p.Action == plan.ActionRemove:
				a.say("removed  %s  %s  %s", name, created, readable(joined(p.Reasons)))
			case p.Action == plan.ActionClaim:
				a.say("claimed  %s  %s  %s", name, created, readable(joined(p.Reasons[:1])))
			case p.Outcome == job.OutcomeFailed && p.Error == "": // else it was said when it happened
				a.line("FAILED  %s  %s  %s: %s", name, created, p.Action, readable(joined(p.Reasons)))
			}
		}
		switch task.State {
		case job.TaskNotReached:
			a.line("%s  %s  %s", task.State, name, readable(task.Reason))
		case job.TaskUpToDate, job.TaskWaits, job.TaskMissing: // waiting is no failure, and who has gone is told every time
			a.say("%s  %s  %s", task.State, name, readable(task.Reason))
		case job.TaskCopied, job.TaskFailed:
		}
	}
}

func (a *app) printPhase(phase job.Phase) {
	if script := phase.Script; script != nil && script.Error != "" {
		a.line("%s: %s: %s", phase.Name, phase.State, readable(script.Error))
		if script.Output != "" {
			a.line("%s", lastLines(script.Output))
		}
		return
	}
	switch phase.State {
	case job.PhaseWarned, job.PhaseFailed:
		a.line("%s: %s: %s", phase.Name, phase.State, readable(phase.Reason))
	case job.PhaseWaits:
		a.say("%s: %s: %s", phase.Name, phase.State, readable(phase.Reason))
	case job.PhaseDone, job.PhaseSkipped:
		if phase.Name == job.PhaseTransform && phase.State == job.PhaseDone && phase.Reason != "" {
			a.say("%s: %s", phase.Name, readable(phase.Reason))
		}
		if phase.Name == job.PhaseHealthCheck && phase.State == job.PhaseDone {
			a.say("%s: %s of %s checked, %s healed", phase.Name, size(phase.Counts["checkedBytes"]), size(checkable(phase)), counted(int(phase.Counts["healedBlocks"]), "block"))
			if phase.Reason != "" {
				a.say("%s: %s", phase.Name, readable(phase.Reason))
			}
		}
	}
}

// checkable is how many bytes the packs of a target take that a health check looks at.
func checkable(phase job.Phase) int64 {
	return phase.Counts["freshBytes"] + phase.Counts["checkedBytes"] + phase.Counts["unreadBytes"]
}

// outputShown is how many lines of a script's output are printed.
const outputShown = 10

// lastLines is the end of a script's output, indented.
func lastLines(output string) string {
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	if more := len(lines) - outputShown; more > 0 {
		lines = lines[more:]
	}
	for i := range lines {
		lines[i] = "  " + readable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// oneSession makes sure that no other session of the job runs on this machine, until release is called. Two would copy the
// same twice, to no harm but their own.
func (a *app) oneSession(setup job.Setup) (release func(), err error) {
	sum := sha256.Sum256([]byte(setup.Job.Name + "\x00" + setup.Target.Location))
	folder := filepath.Join(a.cacheDir, "jobs")
	file, err := openLock(folder, hex.EncodeToString(sum[:16]))
	if err != nil {
		a.warnings([]string{fmt.Sprintf("a second session of the job would not be noticed: %v", err)})
		return func() {}, nil
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, exitWith(ExitInUse, "job %s runs already on this machine", printable(setup.Job.Name))
		}
		a.warnings([]string{fmt.Sprintf("a second session of the job would not be noticed: %v", err)})
		return func() {}, nil
	}
	return func() { file.Close() }, nil
}

func openLock(folder, name string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(folder, name), os.O_RDWR|os.O_CREATE, 0o600)
}
