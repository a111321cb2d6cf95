package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

// Exit codes. They are the same for every command; docs/cli.md lists them.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNothing     = 3
	ExitSomeFailed  = 4
	ExitDamaged     = 5
	ExitInUse       = 6
	ExitKey         = 7
	ExitInterrupted = 130
)

// exitError ends the program with a code. Without an error everything has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitWith is an error that ends the program with a code.
func exitWith(code int, format string, args ...any) error {
	return &exitError{code: code, err: fmt.Errorf(format, args...)}
}

func usage(format string, args ...any) error { return exitWith(ExitUsage, format, args...) }

// hinted adds to an error what the person can do.
func hinted(err error, hint string) error {
	return &backup.Error{Offset: backup.NoOffset, Err: err, Hint: hint}
}

// exit prints an error with its hint and returns the code for it.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return ExitDone
	}
	code, text, hint := codeOf(ctx, err), err.Error(), backup.Hint(err)
	if text == "" {
		return code
	}
	if code == ExitInterrupted {
		text, hint = "interrupted", a.interrupted
	}
	if a.json {
		described := describeError(err)
		described.Message, described.Hint, described.ExitCode = text, hint, code
		a.jsonLine(messageJSON{Error: &described})
		return code
	}
	fmt.Fprintln(a.errOut, "ferry: "+text)
	if hint != "" {
		fmt.Fprintln(a.errOut, "       "+hint)
	}
	return code
}

func codeOf(ctx context.Context, err error) int {
	var exit *exitError
	var inUse *repo.InUseError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		return ExitInterrupted
	case errors.Is(err, plan.ErrNotFound):
		return ExitNothing
	case errors.Is(err, plan.ErrAmbiguous), errors.Is(err, plan.ErrNoPointName), errors.Is(err, plan.ErrNoPointID), errors.Is(err, repo.ErrNoRepository):
		return ExitUsage
	case isKeyError(err):
		return ExitKey
	case errors.As(err, &inUse):
		return ExitInUse
	case errors.Is(err, backup.ErrDamaged) || errors.Is(err, repo.ErrCorrupt):
		return ExitDamaged
	}
	return ExitFailed
}

// isKeyError is true if a key is missing or wrong.
func isKeyError(err error) bool {
	for _, of := range []error{repo.ErrNeedsKey, repo.ErrWrongKey, repo.ErrNoKeyFiles, repo.ErrKitPassphrase, repo.ErrKitTooOld, backup.ErrEncrypted, job.ErrNoKey} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// describeError says where an error happened, as far as it knows.
func describeError(err error) errorJSON {
	described := errorJSON{Message: err.Error(), Hint: backup.Hint(err), Problems: describeProblems(err)}
	var at *backup.Error
	for errors.As(err, &at) {
		if at.Machine != "" {
			described.Machine, described.Point = printable(at.Machine), printable(at.Point)
		}
		if at.Object != "" {
			described.Object = printable(at.Object)
		}
		if at.Offset >= 0 {
			described.Offset = &at.Offset
		}
		err = at.Err
	}
	return described
}

// warnings are printed to standard error, each once.
func (a *app) warnings(messages []string) {
	seen := map[string]bool{}
	for _, message := range messages {
		message = readable(strings.ReplaceAll(message, "\n", " "))
		if seen[message] {
			continue
		}
		seen[message] = true
		if a.json {
			a.jsonLine(messageJSON{Warning: message})
		} else {
			fmt.Fprintln(a.errOut, "warning: "+message)
		}
	}
}

// jsonLine prints a message to standard error as one line of JSON.
func (a *app) jsonLine(message messageJSON) {
	encoder := json.NewEncoder(a.errOut)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(message) // what cannot be printed to standard error cannot be said at all
}
