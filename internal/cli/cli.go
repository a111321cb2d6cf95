// Package cli is the command line: it parses, calls and prints. What is decided is decided below it.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/demo"
	"ferry/internal/pace"
	"ferry/internal/source/ferry"
	"ferry/internal/storage"
)

// Version of the program.
const Version = "0.1.0"

// app is one run of the program.
type app struct {
	out, errOut io.Writer
	json        bool
	quiet       bool
	cacheDir    string
	tempDir     string
	// buckets that were opened, to say in the end what was asked of their servers.
	buckets *bucketList
	// instance keeps the machines of the source that is opened apart from those of a cloned site.
	instance string
	// keys open encrypted repositories.
	keys *keys
	// credentials for a bucket, as an AWS credentials file has them; nil: those of the environment.
	credentials []byte
	// send and receive are the pace at which a repository is written to and a source is read; nil: as fast as it goes.
	// receiveRate is what receive lets pass at the moment, in bytes a second, 0 any. limits are those of all jobs and repositories.
	send, receive storage.Pace
	receiveRate   func() int64
	limits        *pace.Limits
	// listed spares reading again what never changes of Ferry repositories that are listed as sources.
	listed *ferry.Memory
	// completing is true while a shell completes a command: nothing is asked then, and no command of the user's is run.
	completing bool
	// ofJob is true for a resource of a job, which goes on with its other sources where one is not listed whole, and tells that itself.
	ofJob bool
	// unattended is true for what a server does: nobody is asked.
	unattended bool
	// live, while bars are drawn on the terminal that out is too, prints lines above them; else nil.
	live io.Writer
	// clock is what a server goes by in a demonstration, in which days pass in seconds; nil: the machine's. No flag sets it.
	clock *demo.Clock
	// interrupted says what to do after an interruption of the command that runs; empty if nothing is left to do.
	interrupted string
}

// Main runs the command line and returns the exit code.
func Main(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx = answer.Ending(ctx)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	// Before the flags are parsed, so that an error in them is printed in the form that was asked for.
	printed := &results{Writer: out}
	a := &app{out: printed, errOut: errOut, limits: &pace.Limits{}, listed: &ferry.Memory{}, buckets: &bucketList{}, json: slices.Contains(args, "--json")}
	a.completing = len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
	root := a.root()
	root.SetArgs(args)
	root.SetOut(printed)
	root.SetErr(errOut)
	code := a.exit(ctx, root.ExecuteContext(ctx))
	if lost := printed.lost(); code == ExitDone && lost != nil {
		return a.exit(ctx, exitWith(ExitFailed, "the results could not be printed: %w", lost))
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ferry",
		Short: "Keep the second copy of your virtual machines' backups",
		Long: `Ferry keeps the second copy of your virtual machines' backups: it reads the
restore points that another tool made (Proxmox VE's vzdump, virtnbdbackup, disk
images), and keeps them in a repository of its own, deduplicated, checked, and
restorable without the source.`,
		Example: `  ferry demo                                         see it work on a machine that it makes up
  ferry points /mnt/pve/dump                         what is there to copy?
  ferry copy /mnt/pve/dump /mnt/usb/vault --create   copy the newest point of each machine
  ferry verify /mnt/usb/vault                        prove that the copy is what was copied
  ferry restore /mnt/usb/vault web01 --to /var/tmp/web01

Exit codes, the same for every command:
  0  done, also when everything was there already
  1  nothing worked
  2  wrong usage or configuration, such as a folder without a repository
  3  the selection matched nothing
  4  some machines failed
  5  damaged data found
  6  in use: another reclaim or compact of the repository runs, or another session
     of the job (copies never shut each other out)
  7  key missing or wrong
  130  interrupted`,
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("cache-dir") {
				return nil
			}
			return checkCacheDir(a.cacheDir)
		},
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", a.json, "print JSON (docs/json.md), also for errors")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print only what was asked for, and what went wrong")
	flags.StringVar(&a.cacheDir, "cache-dir", defaultCacheDir(), "`DIR` for what this machine remembers (docs/cli.md says what)")
	flags.StringVar(&a.tempDir, "temp-dir", "", "`DIR` for what does not fit in memory (default $TMPDIR or /tmp)")
	flags.Lookup("json").DefValue = "false"
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	completeFolders(root, "cache-dir", "temp-dir")
	a.keyFlags(root)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags.FlagUsagesWrapped "+strconv.Itoa(a.helpWidth())+" "))
	root.AddCommand(a.pointsCommand(), a.copyCommand(), a.restoreCommand(), a.verifyCommand(), a.forgetCommand(), a.holdCommand(), a.releaseCommand(), a.reclaimCommand(), a.compactCommand(), a.jobCommand(), a.applyCommand(), a.getCommand(), a.deleteCommand(), a.statusCommand(), a.sessionCommand(), a.machineCommand(), a.bandwidthCommand(), a.catalogCommand(), a.repoCommand(), a.keyCommand(), a.adoptCommand(), a.serveCommand(), a.demoCommand())
	return root
}

// helpWidth is the width in characters that options are described in.
func (a *app) helpWidth() int {
	if width := terminalWidth(a.out); width > 0 {
		return min(max(width, 60), 120)
	}
	return 100
}

// arguments makes a command take exactly the arguments named, and say by name which one is missing. Those in brackets may be, and
// come last.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names) && !strings.HasPrefix(names[len(args)], "["):
			missing := strings.Join(names[len(args):], " and ")
			return usage("%s missing; usage: %s", missing, cmd.UseLine())
		case len(args) > len(names):
			return usage("one argument too many: %s; usage: %s", backup.EncodeName(args[len(names)]), cmd.UseLine())
		}
		return nil
	}
}

// noSuchCommand refuses arguments of a command that only has others below it.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	text := fmt.Sprintf("there is no command %s %s", cmd.CommandPath(), backup.EncodeName(args[0]))
	if near := cmd.SuggestionsFor(args[0]); args[0] == "version" {
		text += ", but an option --version"
	} else if len(near) > 0 {
		text += ", but " + strings.Join(near, " and ")
	}
	return usage("%s; see %s --help", text, cmd.CommandPath())
}
