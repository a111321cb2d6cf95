package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/demo"
	"ferry/internal/pace"
	"ferry/internal/restore"
)

type demoFlags struct {
	dir  string
	keep bool
	// ownCache is true unless --cache-dir says otherwise: nothing outside the demonstration's folder is written.
	ownCache bool
}

func (a *app) demoCommand() *cobra.Command {
	var f demoFlags
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole story on generated machines, in a folder of its own",
		Long: `Make up two machines with backups of three days, copy them, prove the copy, restore from it, and copy it on, with the
command for every step. Then a server is given a job, and lives through four nights in seconds: in one a backup is not done
yet, in one the target's disk is away. It shows what ferry status and ferry job explain say of them.

Only the machines are invented, and the hours that pass between nights. Backups, copies and restored disks are real, and lie
in one folder (about 200 MB), which is kept so that you can look around. What is restored is compared with what was generated.`,
		Example: `  ferry demo
  ferry demo --dir /var/tmp/ferry-demo
  ferry demo --keep=false --json`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.ownCache = !cmd.Flags().Changed("cache-dir")
			return a.demo(cmd.Context(), f)
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.dir, "dir", "", "`DIR` to work in, empty or to be made (default a new one in --temp-dir)")
	flags.BoolVar(&f.keep, "keep", true, "keep the folder; with --keep=false it is removed at the end")
	completeFolders(command, "dir")
	return command
}

func (a *app) demo(ctx context.Context, f demoFlags) (err error) {
	dir, remove, err := demo.MakeFolder(f.dir, a.tempDir)
	if errors.Is(err, demo.ErrNotEmpty) {
		return usage("%w", err)
	}
	if err != nil {
		return err
	}
	if f.keep {
		a.interrupted = "what was made is in " + dir
	} else {
		defer func() { err = errors.Join(err, remove()) }()
	}
	if f.ownCache {
		a.cacheDir = filepath.Join(dir, "cache")
	}
	teller := &narrator{app: a}
	teller.opening(dir, f.keep)
	clock := demo.NewClock(demo.ServerStart)
	summary, err := demo.Run(ctx, demo.Options{
		Dir: dir, Formats: a.formats(), Environment: a.environment(), TempDir: a.tempDir, Narrator: teller, Ferry: a.ferry(clock), Clock: clock,
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return &exitError{code: ExitFailed, err: fmt.Errorf("the demonstration failed: %w", err)}
	case a.json:
		return a.printJSON(struct {
			demo.Summary
			Kept bool `json:"kept"`
		}{summary, f.keep})
	}
	teller.closing(summary, f.keep)
	return nil
}

// ferry runs commands by the clock of a demonstration. All that they print goes to out, as if it were no terminal.
func (a *app) ferry(clock *demo.Clock) func(ctx context.Context, out io.Writer, args ...string) error {
	return func(ctx context.Context, out io.Writer, args ...string) error {
		with := &app{out: out, errOut: out, limits: &pace.Limits{}, clock: clock}
		root := with.root()
		root.SetArgs(append(args, "--cache-dir", a.cacheDir, "--temp-dir", a.tempDir))
		root.SetOut(out)
		root.SetErr(out)
		return root.ExecuteContext(ctx)
	}
}

// now is the clock that a server goes by; nil is the machine's.
func (a *app) now() func() time.Time {
	if a.clock == nil {
		return nil
	}
	return a.clock.Now
}

// narrator prints the story; with --json it is silent.
type narrator struct{ app *app }

func (n *narrator) line(format string, args ...any) {
	if !n.app.json {
		n.app.line(format, args...)
	}
}

func (n *narrator) opening(dir string, keep bool) {
	n.line("Ferry keeps the second copy of your virtual machines' backups. Here the machines are made up, and all else is real.")
	n.line("Commands are as you would type them, results are shortened. All of it is in this folder%s:\n", map[bool]string{true: ", which is kept", false: ""}[keep])
	n.line("  cd %s", restore.Quote(dir))
}

// Heading begins a section.
func (n *narrator) Heading(text string) { n.line("\n== %s ==", text) }

// Say prints a paragraph.
func (n *narrator) Say(text string) { n.line("%s", text) }

// Command prints what a person would type.
func (n *narrator) Command(text string) { n.line("  $ %s", text) }

// Result prints aligned rows below their command.
func (n *narrator) Result(rows ...[]string) {
	if n.app.json {
		return
	}
	var indented [][]string
	for _, row := range rows {
		indented = append(indented, append([]string{"    " + row[0]}, row[1:]...))
	}
	n.app.table(indented)
}

// Output prints what a command printed.
func (n *narrator) Output(text string) {
	for line := range strings.Lines(text) {
		n.line("%s", strings.TrimRight("    "+line, " \n"))
	}
}

func (n *narrator) closing(summary demo.Summary, keep bool) {
	n.line("\nDone in %.1f seconds; everything came out as it must.", summary.Seconds)
	if !keep {
		n.line("The folder has been removed. Without --keep=false it stays for you to look around.")
		return
	}
	n.line("Try next:")
	for _, next := range summary.Next {
		n.line("  %s   # %s", next.Command, next.Purpose)
	}
}
