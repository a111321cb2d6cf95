package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"ferry/internal/backup"
	"ferry/internal/policy"
)

// before runs the script before the job, once.
func (r *runner) before(ctx context.Context) error {
	if r.preDone {
		return nil
	}
	r.preDone = true
	r.waits(Wait{})
	if r.script(ctx, PhasePreScript, r.Job.Scripts.Pre) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errAborted
}

// after runs the script after the job, unless what ended the session leaves no time for it.
func (r *runner) after(ctx context.Context) {
	r.session.Ended = r.Now().UTC() // for the script; its own time counts too afterwards
	if cause := context.Cause(ctx); !errors.Is(cause, ErrLeft) && !errors.Is(cause, ErrStopNow) {
		r.script(context.WithoutCancel(ctx), PhasePostScript, r.Job.Scripts.Post)
	}
	r.session.Ended = r.Now().UTC()
}

// Fail is the session of a job that cannot be run at all: err says what of its setup cannot be had. The script after the job is run
// as after any other session; the setup needs no more than what that is told.
func Fail(ctx context.Context, setup Setup, err error) *Session {
	r := newRunner(setup)
	r.session.Result, r.session.Reason, r.session.Err = ResultFailed, backup.SafeText(err.Error()), err
	if ctx.Err() != nil {
		r.session.Result, r.session.Reason = ResultInterrupted, interrupted
	}
	r.after(ctx)
	return r.session
}

// script runs a script as a phase. It returns false if its failure ends the session.
func (r *runner) script(ctx context.Context, name PhaseName, script policy.Script) bool {
	if len(script.Run) == 0 {
		return true
	}
	if r.Host.Ran[name] {
		r.skip(name, "it was run before the session was interrupted")
		return true
	}
	err := r.during(name, func(phase *Phase) error {
		result := runScript(ctx, script, r.session, r.variables(name), r.Hidden)
		phase.Script = &result
		if result.Error == "" {
			return nil
		}
		phase.Reason = result.Error
		switch script.OnFailure {
		case policy.FailureIgnored:
			return nil
		case policy.FailureAborts:
			return errors.New(result.Error)
		}
		phase.State = PhaseWarned
		r.warn("%s %s: %s", name, script.Run[0], result.Error)
		return nil
	})
	return err == nil || name != PhasePreScript
}

// variables are what a script gets beside the JSON on its standard input (docs/job-run.md).
func (r *runner) variables(phase PhaseName) map[string]string {
	s := r.session
	short := "pre"
	if phase == PhasePostScript {
		short = "post"
	}
	variables := map[string]string{
		"FERRY_JOB": s.Job, "FERRY_SESSION": s.ID, "FERRY_PHASE": short, "FERRY_TARGET": s.Target.Location,
	}
	if short == "post" {
		variables["FERRY_RESULT"] = string(s.Result)
		variables["FERRY_REASON"] = cut(s.Reason)
		variables["FERRY_COPIED"] = fmt.Sprint(s.Copied())
		variables["FERRY_FAILED"] = fmt.Sprint(s.Failed())
		variables["FERRY_REMOVED"] = fmt.Sprint(s.Removed())
		var alarms []string
		for _, alarm := range s.Alarms {
			alarms = append(alarms, alarm.Text)
		}
		variables["FERRY_ALARMS"] = cut(alarms...)
	}
	return variables
}

const (
	// outputKept is how much of a script's output is kept, in bytes: its end, where errors are.
	outputKept = 64 << 10
	// scriptGrace is how long a script that is ended has, and how long what it left running may keep its output open.
	scriptGrace = 5 * time.Second
)

// ScriptResult says how a script ended.
type ScriptResult struct {
	// Exit is its exit code; -1 if it did not begin, or was ended by a signal.
	Exit int `json:"exit"`
	// TimedOut is true if it was ended because its time was up.
	TimedOut bool `json:"timedOut"`
	// Output is the end of what it printed, both streams; Dropped is how many bytes before that are not kept.
	Output  string `json:"output"`
	Dropped int64  `json:"dropped"`
	// Error says in words why it failed; empty if it did not.
	Error string `json:"error"`
}

// runScript runs a program with what it is told as JSON on its standard input, and the variables given beside this
// process's own. It has a process group of its own, and whatever is left of that goes when its time is up or ctx ends; what has
// left the group, as by setsid, goes on.
//
//  1. When the time is up the group gets SIGTERM, scriptGrace later SIGKILL.
//  2. When the program ends by itself, what it left running may go on, but its output counts no more.
func runScript(ctx context.Context, script policy.Script, input any, variables map[string]string, hidden []string) ScriptResult {
	told, err := json.Marshal(input)
	if err != nil {
		return ScriptResult{Exit: -1, Error: err.Error()}
	}
	timed := ctx
	if script.Timeout > 0 {
		var cancel context.CancelFunc
		timed, cancel = context.WithTimeout(ctx, script.Timeout)
		defer cancel()
	}
	output := &tail{}
	command := exec.CommandContext(timed, script.Run[0], script.Run[1:]...)
	command.Stdin = strings.NewReader(string(told) + "\n")
	command.Stdout, command.Stderr = output, output
	command.Env = scriptEnvironment(variables, hidden)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = scriptGrace
	err = command.Run()
	if command.Process != nil && timed.Err() != nil {
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // that nothing is left to kill is as good
	}
	result := ScriptResult{Exit: -1, Output: output.String(), Dropped: output.dropped}
	if command.ProcessState != nil {
		result.Exit = command.ProcessState.ExitCode()
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		result.Error = "it was ended because the session was"
	case timed.Err() != nil:
		result.TimedOut, result.Error = true, fmt.Sprintf("it was ended after %s", policy.FormatDuration(script.Timeout))
	case errors.Is(err, exec.ErrWaitDelay) && result.Exit == 0:
		// Something that it left running keeps its output open; the script itself is done.
	case result.Exit > 0:
		result.Error = fmt.Sprintf("it ended with exit code %d", result.Exit)
	default:
		result.Error = err.Error()
	}
	return result
}

// variableLimit is how long a variable may be, in bytes, without what says that there is more. Linux runs no program with one
// of more than 128 KiB.
const variableLimit = 32 << 10

// cut puts as many lines into a variable as it may hold, and says how many more there are.
func cut(lines ...string) string {
	text := strings.Join(lines, "\n")
	if len(text) <= variableLimit {
		return text
	}
	end := strings.LastIndexByte(text[:variableLimit+1], '\n')
	if end < 0 { // the first line alone is too long
		return strings.ToValidUTF8(text[:variableLimit], "") + " ... and more: see standard input"
	}
	return fmt.Sprintf("%s\n... and %d more: see standard input", text[:end], len(lines)-1-strings.Count(text[:end], "\n"))
}

// secretVariables are those whose value is a secret, or may have one in it, wherever Ferry runs.
var secretVariables = []string{"FERRY_PASSPHRASE", "FERRY_PASSPHRASE_COMMAND", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

// scriptEnvironment is this process's environment without what is secret, and with the variables given.
func scriptEnvironment(variables map[string]string, hidden []string) []string {
	hide := append(slices.Clone(secretVariables), hidden...)
	environment := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(hide, name)
	})
	for name, value := range variables {
		environment = append(environment, name+"="+strings.ReplaceAll(value, "\x00", ""))
	}
	return environment
}

// tail keeps the end of what is written to it. exec writes from one goroutine where both streams are the same writer.
type tail struct {
	kept    []byte
	dropped int64
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - 2*outputKept; over > 0 { // not for every write
		t.trim()
	}
	return len(p), nil
}

func (t *tail) trim() {
	if over := len(t.kept) - outputKept; over > 0 {
		t.dropped += int64(over)
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
}

func (t *tail) String() string {
	t.trim()
	return strings.ToValidUTF8(string(t.kept), "?")
}
