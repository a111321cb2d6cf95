// Package cli is the command line: it parses, calls and prints. What is decided is decided below it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

// Version of the program.
const Version = "0.1.0"

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

// exitError ends the program with a code. Its text may be empty: then everything has been printed.
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

func usage(format string, args ...any) error {
	return &exitError{code: ExitUsage, err: fmt.Errorf(format, args...)}
}

// app is one run of the program.
type app struct {
	out, errOut io.Writer
	json        bool
	quiet       bool
	cacheDir    string
	tempDir     string
}

// Main runs the command line and returns the exit code.
func Main(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	a := &app{out: out, errOut: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	return a.exit(ctx, err)
}

// exit prints an error with its hint and returns the code for it.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return ExitDone
	}
	code := codeOf(ctx, err)
	if text := err.Error(); text != "" {
		if code == ExitInterrupted {
			text = "interrupted; run the same command again to go on"
		}
		fmt.Fprintln(a.errOut, "ferry: "+text)
		if hint := backup.Hint(err); hint != "" && code != ExitInterrupted {
			fmt.Fprintln(a.errOut, "       "+hint)
		}
	}
	return code
}

func codeOf(ctx context.Context, err error) int {
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		return ExitInterrupted
	case errors.Is(err, plan.ErrNotFound) || errors.Is(err, plan.ErrAmbiguous):
		return ExitNothing
	case errors.Is(err, repo.ErrNeedsKey) || errors.Is(err, backup.ErrEncrypted):
		return ExitKey
	case errors.Is(err, backup.ErrDamaged) || errors.Is(err, repo.ErrCorrupt):
		return ExitDamaged
	case errors.Is(err, repo.ErrNoRepository):
		return ExitUsage
	}
	return ExitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ferry",
		Short: "Keep the second copy of your virtual machines' backups",
		Long: `Ferry keeps the second copy of your virtual machines' backups: it reads the restore points that another
tool made, and keeps them in a repository of its own, deduplicated, checked, and restorable on its own.

Exit codes: 0 done; 1 nothing worked; 2 usage or configuration; 3 the selection matched nothing; 4 some machines
failed; 5 damaged data found; 6 repository in use; 7 key missing or wrong; 130 interrupted.`,
		Example: `  ferry demo                                         see it work on generated machines
  ferry points /mnt/pve/dump                         what is there to copy?
  ferry copy /mnt/pve/dump /mnt/usb/vault --create   copy the newest point of each machine
  ferry verify /mnt/usb/vault                        prove that the copy is what was copied
  ferry restore /mnt/usb/vault web01 --to /var/tmp/web01`,
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print JSON on standard output (docs/json.md has the names)")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print no progress")
	flags.StringVar(&a.cacheDir, "cache-dir", defaultCacheDir(), "what can be thrown away: index copies, heads seen, files found broken")
	flags.StringVar(&a.tempDir, "temp-dir", "", "for what does not fit in memory (default: $TMPDIR or /tmp)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(a.pointsCommand(), a.copyCommand(), a.restoreCommand(), a.verifyCommand(), a.repoCommand(), a.adoptCommand(), a.demoCommand())
	for _, command := range root.Commands() {
		wrapArgs(command)
	}
	return root
}

// wrapArgs makes a wrong number of arguments a usage error with the command's own form.
func wrapArgs(command *cobra.Command) {
	check := command.Args
	if check != nil {
		command.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage("%w; usage: %s", err, cmd.UseLine())
			}
			return nil
		}
	}
	for _, child := range command.Commands() {
		wrapArgs(child)
	}
}

// defaultCacheDir follows the XDG rules; without a home there is a folder for the user below the system's temporary one.
func defaultCacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "ferry")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ferry-cache-%d", os.Getuid()))
}

// printable makes names from sources safe to print.
func printable(name string) string { return backup.EncodeName(name) }

// warnings are printed to standard error, each once.
func (a *app) warnings(messages []string) {
	seen := map[string]bool{}
	for _, message := range messages {
		if !seen[message] {
			seen[message] = true
			fmt.Fprintln(a.errOut, "warning: "+strings.ReplaceAll(printable(message), "%0A", " "))
		}
	}
}
