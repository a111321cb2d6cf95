package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
	"ferry/internal/storage/s3"
)

type copyFlags struct {
	plan.Request
	create, dryRun bool
	again, plain   bool
	init           repo.Options
	lock           lockFlags
	encryption     encryptFlags
	sameKeys       bool
	codec, name    string
}

// codecs are the values of --codec.
var codecs = []mover.Codec{mover.CodecAuto, mover.CodecNone, mover.CodecS2, mover.CodecZstd}

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	command := &cobra.Command{
		Use:   "copy SOURCE REPOSITORY",
		Short: "Copy restore points into a Ferry repository",
		Long: `Copy the newest complete restore point of each machine in SOURCE, a folder of
backups or a Ferry repository, into REPOSITORY, or with --all every complete
point, oldest first. What the repository has is not stored again, what the
source proves unchanged is not even read, and a copy that was interrupted goes
on when the same command is run again.

One machine's trouble does not keep the others from being copied: the exit code
is 4 if some points failed, 1 if all did.`,
		Example: `  ferry copy /mnt/pve/dump /mnt/usb/vault --create   the first time
  ferry copy /mnt/pve/dump /mnt/usb/vault --dry-run  what, and why not more
  ferry copy /mnt/pve/dump /mnt/usb/vault --machine 'web*' --machine 104 --all
  ferry copy /mnt/usb/vault /mnt/offsite/vault       a copy of a copy
  ferry copy /mnt/usb/vault s3://offsite/vault --all --create --encrypt`,
		Args:              arguments("SOURCE", "REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.copy(cmd.Context(), args[0], args[1], f, cmd.Flags().Changed)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&f.All, "all", false, "copy every point, oldest first, not only the newest of each machine")
	flags.StringArrayVar(&f.Machines, "machine", nil, "copy only machines whose id, native id or name matches `GLOB`, or label=GLOB a label (repeatable)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan with the reason for every point, and copy nothing")
	flags.BoolVar(&f.create, "create", false, "make the repository if there is none (not for cron: the disk may not be mounted)")
	flags.StringVar(&f.codec, "codec", string(mover.CodecAuto), "compression of new blocks: auto, none, s2 or zstd")
	flags.BoolVar(&f.again, "again", false, "copy also points that the repository had and gave up (ferry forget)")
	fullFlags(command, &f)
	sourceNameFlag(command, &f.name)
	initFlags(command, &f.init)
	f.lock.register(command)
	f.encryption.register(command)
	flags.BoolVar(&f.sameKeys, "same-keys", false, "new repository: the data keys of SOURCE too, so that blocks go over as they are (docs/keys.md)")
	completeCodec(command)
	a.completeMachineFlag(command)
	return command
}

func (f copyFlags) check(from, to string) error {
	known := false
	for _, codec := range codecs {
		known = known || f.codec == string(codec)
	}
	if !known {
		return usage("codec %s is none of auto, none, s2, zstd", backup.EncodeName(f.codec))
	}
	if from == to && s3.IsLocation(from) {
		return usage("%s is source and target", from)
	}
	source, err := os.Stat(from)
	if err != nil {
		return nil // opening it says what is wrong
	}
	if target, err := os.Stat(to); err == nil && os.SameFile(source, target) {
		return usage("%s and %s are the same folder", from, to)
	}
	return nil
}

func (a *app) copy(ctx context.Context, from, to string, f copyFlags, given func(flag string) bool) error {
	if err := errors.Join(f.check(from, to), f.checkFull(given)); err != nil {
		return err
	}
	var err error
	if f.init.Lock, err = f.lock.lock(); err != nil {
		return err
	}
	a.interrupted = "what was stored is kept; to go on run the same command again"
	target, err := a.openTarget(ctx, to, f)
	if err != nil {
		return err
	}
	if target != nil {
		defer func() { target.Close() }()
		if f.encryption.encrypt && !target.Description().Encrypted {
			return hinted(usage("%s is there already, and is not encrypted", to), "encryption is chosen when a repository is made; name another place, or leave out --encrypt")
		}
		if err := asAsked(target, f.init, given); err != nil {
			return err
		}
	}
	opened, err := a.openReadable(ctx, from, f.name)
	if err != nil {
		return err
	}
	defer opened.Close()
	points := pointsOf(opened)
	if target != nil && !f.again {
		f.Forgotten = target.Forgotten
	}
	has := func(backup.PointID) bool { return false }
	if target != nil {
		has = target.HasWhole
		f.Damaged = func(id backup.PointID) bool { _, damaged := target.DamageOf(id); return damaged }
	}
	steps := plan.Make(points, has, f.Request)
	if len(steps.Steps) == 0 {
		return nothingSelected(from, points, opened.Incomplete, f.Machines)
	}
	if f.dryRun {
		return a.printPlan(from, to, target, steps, opened.Unknown)
	}
	if target == nil {
		if err := a.newTarget(ctx, opened, &f, given); err != nil {
			return err
		}
		made := true
		target, err = a.createRepository(ctx, to, f.init)
		if errors.Is(err, repo.ErrExists) { // another copy made it meanwhile
			target, err = a.openTarget(ctx, to, f)
			made = false
		}
		if err != nil {
			return err
		}
		if made && !a.json {
			a.say("made repository %s at %s", target.ID(), to)
			a.sayEncrypted(target, to)
		}
	}
	progress := a.newCopyProgress(len(steps.Copies()))
	report, err := job.Copy(ctx, opened, target, steps, job.Options{
		Codec: mover.Codec(f.codec), Full: f.Full, Plain: f.plain, TempDir: a.tempDir, Started: progress.started, Finished: progress.finished,
	})
	progress.end()
	if printErr := a.printReport(from, target, report, opened.Unknown); printErr != nil && err == nil {
		err = printErr
	}
	if err != nil {
		return a.copyEnded(ctx, report, err)
	}
	return copyExit(report, opened.Incomplete)
}

// copyEnded is the error of a copy that was not carried out to its end. What a point was said to have failed by is not said again.
func (a *app) copyEnded(ctx context.Context, report job.Report, err error) error {
	if a.json || !slices.ContainsFunc(report.Steps, func(s job.StepReport) bool { return s.Err != nil && strings.HasPrefix(err.Error(), job.Reason(s.Err)) }) {
		return err
	}
	left := 0
	for _, step := range report.Steps {
		if step.Outcome == job.OutcomeNotReached {
			left++
		}
	}
	return exitWith(codeOf(ctx, err), "the copy has ended: %s failed, %d not reached; %s", counted(report.Failed(), "point"), left, report.Kept())
}

func pointsOf(opened *registry.Source) []backup.Point {
	points := make([]backup.Point, len(opened.Points))
	for i, p := range opened.Points {
		points[i] = p.Point
	}
	return points
}

// openTarget opens the repository. It is nil if there is none and it is to be made.
func (a *app) openTarget(ctx context.Context, to string, f copyFlags) (*repo.Repository, error) {
	target, err := a.openRepository(ctx, to)
	if errors.Is(err, repo.ErrNoRepository) {
		if f.create {
			return nil, mustBeItsOwn(to)
		}
		return nil, noRepository(to, "to make a new one there, add --create")
	}
	if err != nil || f.dryRun {
		return target, err
	}
	if err := errors.Join(target.NeedsKey(), target.Writable()); err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}

func nothingSelected(from string, points []backup.Point, incomplete []error, globs []string) error {
	if len(points) == 0 {
		if hidden := slices.IndexFunc(incomplete, isHidden); hidden >= 0 {
			return fmt.Errorf("the source was not listed whole: %w", incomplete[hidden])
		}
		return exitWith(ExitNothing, "no restore points in %s", from)
	}
	var names, wanted []string
	for _, m := range plan.Machines(points) {
		names = append(names, machineTitle(m))
	}
	for _, glob := range globs {
		wanted = append(wanted, printable(glob))
	}
	if more := len(names) - machinesShown; more > 0 {
		names = append(names[:machinesShown], fmt.Sprintf("and %d more", more))
	}
	return exitWith(ExitNothing, "no machine in %s matches %s; there: %s", from, strings.Join(wanted, " or "), strings.Join(names, ", "))
}

// machinesShown is how many machines a message names.
const machinesShown = 10

// isHidden is true for the reasons of an incomplete listing that are a failure.
func isHidden(reason error) bool { return !isKeyError(reason) }

// copyExit is the exit code of a copy that was carried out to its end. Where the source was not listed whole, machines may be missing.
// An encrypted repository among the backups is told of, and is no failure.
func copyExit(report job.Report, incomplete []error) error {
	failed := report.Failed()
	hidden := slices.IndexFunc(incomplete, isHidden)
	switch {
	case failed == 0 && hidden >= 0:
		return hinted(exitWith(ExitSomeFailed, "the source was not listed whole: %w", incomplete[hidden]), "what lies there was not copied")
	case failed == 0:
		return nil
	case report.Copied() == 0 && report.There() == 0:
		return exitWith(ExitFailed, "nothing was copied: %s failed", counted(failed, "point"))
	}
	return exitWith(ExitSomeFailed, "%s failed", counted(failed, "point"))
}

func (a *app) printPlan(from, to string, target *repo.Repository, steps plan.Plan, unknown int) error {
	if a.json {
		described := copyJSON{Source: from, Repository: placeJSON{Location: to}, DryRun: true, UnknownFiles: unknown, Steps: []stepJSON{}, Requests: a.requests()}
		if target != nil {
			described.Repository = describePlace(target)
		}
		for _, s := range steps.Steps {
			if s.Action == plan.ActionAlreadyThere {
				described.AlreadyThere++
			}
			described.Steps = append(described.Steps, describeStep(job.StepReport{Step: s}))
		}
		return a.printJSON(described)
	}
	var machine backup.MachineKey
	var rows [][]string
	for i, s := range steps.Steps {
		if key := s.Point.Machine.Key; i == 0 || key != machine {
			a.table(rows)
			if rows = nil; i > 0 {
				a.line("")
			}
			a.line("%s", machineTitle(s.Point.Machine))
			machine = key
		}
		rows = append(rows, []string{"  " + s.Point.ID.Short(), when(s.Point.Created), string(s.Action), readable(s.Reason)})
	}
	a.table(rows)
	a.line("\n%d of %s to copy; nothing was copied", len(steps.Copies()), counted(len(steps.Steps), "point"))
	if target == nil {
		a.line("the repository would be made at %s", to)
	}
	return nil
}

func (a *app) printReport(from string, target *repo.Repository, report job.Report, unknown int) error {
	a.warnings(report.Warnings)
	if a.json {
		described := copyJSON{
			Source: from, Repository: describePlace(target), UnknownFiles: unknown, Steps: []stepJSON{},
			Copied: report.Copied(), AlreadyThere: report.There(), Failed: report.Failed(),
			SourceBytesRead: report.SourceBytes, StoredBytes: report.Stored, NodeBytes: report.Nodes, Packs: report.Packs, Seconds: report.Took.Seconds(),
			Requests: a.requests(),
		}
		for _, s := range report.Steps {
			described.Steps = append(described.Steps, describeStep(s))
		}
		return a.printJSON(described)
	}
	notReached, forgotten := 0, 0
	for _, s := range report.Steps {
		a.printNotCopied(s)
		switch {
		case s.Outcome == job.OutcomeNotReached:
			notReached++
		case s.Action == plan.ActionForgotten:
			forgotten++
		}
	}
	if forgotten > 0 {
		a.say("not copied: %s that the repository has given up; --again copies such as any others", counted(forgotten, "point"))
	}
	summary := fmt.Sprintf("%d copied, %d already there, %d failed", report.Copied(), report.There(), report.Failed())
	if notReached > 0 {
		summary += fmt.Sprintf(", %d not reached", notReached)
	}
	a.say("%s; read %s, stored %s in %s", summary, size(report.SourceBytes), size(report.Stored+report.Nodes), report.Took.Round(time.Millisecond))
	return nil
}

// printNotCopied prints what was not copied though someone may expect it. What was copied has been printed when it happened.
func (a *app) printNotCopied(s job.StepReport) {
	switch s.Action {
	case plan.ActionBroken, plan.ActionLocked, plan.ActionUnsupported, plan.ActionEncrypted:
		if s.Failure {
			a.line("FAILED  %s  %s  %s: %s", shortName(s.Point.Machine), when(s.Point.Created), s.Action, readable(s.Reason))
		} else {
			a.say("%s  %s  %s  %s", s.Action, shortName(s.Point.Machine), when(s.Point.Created), readable(s.Reason))
		}
	}
}
