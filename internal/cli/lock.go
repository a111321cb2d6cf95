package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/policy"
	"ferry/internal/repo"
)

// lockFlags are --lock and --lock-for, which together make a lock.
type lockFlags struct {
	mode   string
	period span
}

func (f *lockFlags) register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.mode, "lock", "", "new repository: keep files from everyone for a time, by object lock's `MODE` compliance or governance, or host, the immutable attribute of a file system (docs/s3.md#locks)")
	flags.Var(&f.period, "lock-for", "new repository: for how `LONG` from each copy on, such as 30d or 12h")
	register(command, "lock", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"compliance", "governance", "host"}, noFiles
	})
}

// lock is nil without the flags.
func (f *lockFlags) lock() (*repo.Lock, error) {
	switch {
	case f.mode == "" && f.period == 0:
		return nil, nil
	case f.mode == "":
		return nil, usage("--lock-for needs --lock with compliance, governance or host")
	case f.period == 0:
		return nil, usage("--lock needs --lock-for with a time, such as 30d: it cannot be changed later")
	}
	lock := &repo.Lock{Mode: f.mode, Seconds: int64(time.Duration(f.period) / time.Second)}
	if err := lock.Check(); err != nil {
		return nil, &exitError{code: ExitUsage, err: err}
	}
	return lock, nil
}

// lockJSON is how a repository's files are locked; empty and zero if they are not.
type lockJSON struct {
	Mode    string `json:"mode"`
	Seconds int64  `json:"seconds"`
	Until   string `json:"until"`
}

func describeLock(r *repo.Repository) lockJSON {
	info := r.LockInfo()
	if info.Lock == nil {
		return lockJSON{}
	}
	return lockJSON{Mode: info.Lock.Mode, Seconds: info.Lock.Seconds, Until: info.Until.UTC().Format(time.RFC3339)}
}

// lockRow is a row of repo info.
func lockRow(info repo.LockInfo) []string {
	if info.Lock == nil {
		return []string{"locked", "no"}
	}
	return []string{"locked", fmt.Sprintf("%s, everything until %s at least%s; what is copied, for %s", info.Lock.Mode, when(info.Until), butLost(info), policy.FormatDuration(time.Duration(info.Lock.Seconds)*time.Second))}
}

// butLost says what is not locked, as far as the log knows: what is not there cannot be.
func butLost(info repo.LockInfo) string {
	if info.Lost == 0 {
		return ""
	}
	return ", but for what is missing of " + counted(info.Lost, "file") + " known to be lost or damaged"
}

// locksJSON is the output of repo locks.
type locksJSON struct {
	Repository placeJSON         `json:"repository"`
	Lock       lockJSON          `json:"lock"`
	Files      int               `json:"files"`
	First      string            `json:"first"`
	Problems   []lockProblemJSON `json:"problems"`
	Requests   requestsJSON      `json:"storageRequests"`
}

type lockProblemJSON struct {
	File    string `json:"file"`
	Missing bool   `json:"missing"`
	Until   string `json:"until"`
}

func (a *app) repoLocksCommand() *cobra.Command {
	var extend, check bool
	command := &cobra.Command{
		Use: "locks REPOSITORY", Short: "Say until when a repository's files are locked",
		Long: `Say until when the files of a repository that was made with --lock cannot be
deleted or replaced by anyone, this program included. With --check the storage is
asked about every file that must be locked: packs, parity, points, keys, the log
and the description. The exit code is 5 if one is missing, or not locked for as
long as the repository's log says. With --extend everything that points need is locked for
the repository's period from now on, as the next copy would do. The exit code is 5 if
something of it is missing: the rest is locked all the same.`,
		Example:           "  ferry repo locks s3://backups/vault\n  ferry repo locks s3://backups/vault --check\n  ferry repo locks s3://backups/vault --extend",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.repoLocks(cmd.Context(), args[0], extend, check)
		},
	}
	command.Flags().BoolVar(&extend, "extend", false, "lock everything for the repository's period from now on")
	command.Flags().BoolVar(&check, "check", false, "ask the storage about every file that must be locked")
	return command
}

func (a *app) repoLocks(ctx context.Context, path string, extend, check bool) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	var missing []string
	if extend {
		if _, missing, err = repository.ExtendLocks(ctx); err != nil {
			return err
		}
	}
	described := locksJSON{Repository: describePlace(repository), Lock: describeLock(repository), Problems: []lockProblemJSON{}}
	if !check { // else it is asked about all files
		for _, name := range missing {
			described.Problems = append(described.Problems, lockProblemJSON{File: name, Missing: true})
		}
	}
	if check {
		files, first, problems, err := repository.CheckLocks(ctx)
		if err != nil {
			return err
		}
		described.Files, described.First = files, lockTime(first)
		for _, p := range problems {
			described.Problems = append(described.Problems, lockProblemJSON{File: p.File, Missing: p.Missing, Until: lockTime(p.Until)})
		}
	}
	a.warnings(repository.Warnings())
	described.Requests = a.requests()
	if a.json {
		err = a.printJSON(described)
	} else {
		a.printLocks(repository.LockInfo(), described, check)
	}
	if err == nil && len(described.Problems) > 0 {
		return &exitError{code: ExitDamaged, err: lockError(path, described.Problems)}
	}
	return err
}

// lockError says what to do about files that are not locked, or not there.
func lockError(path string, problems []lockProblemJSON) error {
	missing := 0
	for _, p := range problems {
		if p.Missing {
			missing++
		}
	}
	found := fmt.Errorf("%s not locked for as long as the log says", counted(len(problems), "file"))
	if missing == 0 {
		return hinted(found, "ferry repo locks "+path+" --extend locks them again; find out who unlocked them")
	}
	return hinted(fmt.Errorf("%w, %s of them missing", found, count(missing)), "ferry verify "+path+" says what is lost with them; then find out who deleted them")
}

func (a *app) printLocks(info repo.LockInfo, described locksJSON, check bool) {
	if info.Lock == nil {
		a.line("the files of %s are not locked", described.Repository.Location)
		return
	}
	if len(described.Problems) > 0 {
		a.line("%s: by the log everything that points need is locked until %s at least, but it is not", info.Lock.Mode, when(info.Until))
	} else {
		a.line("%s: everything that points need is locked until %s at least%s", info.Lock.Mode, when(info.Until), butLost(info))
	}
	a.line("each copy keeps its points for %s", policy.FormatDuration(time.Duration(info.Lock.Seconds)*time.Second))
	for _, p := range described.Problems {
		if p.Missing {
			a.line("MISSING  %s", p.File)
		} else {
			a.line("NOT LOCKED  %s: %s", p.File, lockedText(p.Until))
		}
	}
	switch {
	case check && described.First == "":
		a.say("asked about %s, not all of which are locked", counted(described.Files, "file"))
	case check:
		a.say("asked about %s; the first lock ends at %s", counted(described.Files, "file"), described.First)
	}
}

func lockedText(until string) string {
	if until == "" {
		return "no lock"
	}
	return until
}

// lockTime is a time in JSON; empty for none.
func lockTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
