package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
)

type copyFlags struct {
	plan.Request
	create, dryRun bool
	init           repo.Options
	codec, name    string
}

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	command := &cobra.Command{
		Use:   "copy SOURCE REPOSITORY",
		Short: "Copy restore points into a Ferry repository",
		Long: `Copy the newest complete restore point of each machine in SOURCE, a folder of backups or a Ferry repository, into
REPOSITORY, or with --all every point, oldest first. What the repository has is not read, sent or stored again. A copy
that was interrupted goes on where it was when the same command is run again.`,
		Example: `  ferry copy /mnt/pve/dump /mnt/usb/vault --create   make the repository if it is not there
  ferry copy /mnt/pve/dump /mnt/usb/vault --dry-run  what would be copied, and why not the rest
  ferry copy /mnt/pve/dump /mnt/usb/vault --machine 'web*' --machine 104 --all
  ferry copy /mnt/usb/vault /mnt/offsite/vault       the copy of a copy`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.copy(cmd.Context(), args[0], args[1], f) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.All, "all", false, "copy every point, oldest first, not only the newest of each machine")
	flags.StringArrayVar(&f.Machines, "machine", nil, "copy only machines whose id, native id or name matches this glob (repeatable)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan with the reason for every point, and copy nothing")
	flags.BoolVar(&f.create, "create", false, "make the repository if there is none")
	flags.StringVar(&f.codec, "codec", string(mover.CodecAuto), "compression of new blocks: auto, none, s2, zstd")
	flags.StringVar(&f.name, "source-name", "", "name of the source, for machines without a UUID (default: the folder's name)")
	initFlags(command, &f.init)
	return command
}

func (a *app) copy(ctx context.Context, from, to string, f copyFlags) error {
	codec := mover.Codec(f.codec)
	switch codec {
	case mover.CodecAuto, mover.CodecNone, mover.CodecS2, mover.CodecZstd:
	default:
		return usage("codec %q is none of auto, none, s2, zstd", f.codec)
	}
	opened, err := a.openSource(ctx, from, f.name)
	if err != nil {
		return err
	}
	defer opened.Close()
	target, err := a.openTarget(ctx, to, f)
	if err != nil {
		return err
	}
	has := func(backup.PointID) bool { return false }
	if target != nil {
		defer target.Close()
		has = target.Has
	}
	var points []backup.Point
	for _, p := range opened.Points {
		points = append(points, p.Point)
	}
	steps := plan.Make(points, has, f.Request)
	if len(steps.Steps) == 0 {
		return a.nothingSelected(from, points, f.Machines)
	}
	if f.dryRun {
		return a.printPlan(from, to, steps, opened.Unknown)
	}
	progress := a.newCopyProgress()
	report, err := job.Copy(ctx, opened, target, steps, job.Options{
		Codec: codec, TempDir: a.tempDir, Started: progress.started, Finished: progress.finished,
	})
	progress.end()
	if printErr := a.printReport(from, target, report, opened.Unknown); printErr != nil && err == nil {
		err = printErr
	}
	if err != nil {
		return err
	}
	return copyExit(report)
}

// openTarget opens the repository; without one it makes it if that was asked for. A dry run makes nothing: it gets nil.
func (a *app) openTarget(ctx context.Context, to string, f copyFlags) (*repo.Repository, error) {
	target, err := a.openRepository(ctx, to)
	if !errors.Is(err, repo.ErrNoRepository) {
		if err == nil && !f.dryRun {
			if diverged := target.Diverged(); diverged != nil {
				target.Close()
				return nil, diverged
			}
		}
		return target, err
	}
	if !f.create {
		return nil, err
	}
	if f.dryRun {
		return nil, nil
	}
	return a.createRepository(ctx, to, f.init)
}

func (a *app) nothingSelected(from string, points []backup.Point, globs []string) error {
	if len(points) == 0 {
		return &exitError{code: ExitNothing, err: fmt.Errorf("no restore points in %s", from)}
	}
	var names []string
	for _, m := range plan.Machines(points) {
		names = append(names, m.Key.String())
	}
	return &exitError{code: ExitNothing, err: fmt.Errorf("no machine matches %q; %s has %q", globs, from, names)}
}

// copyExit is the exit code of a copy that was carried out to its end.
func copyExit(report job.Report) error {
	failed := report.Failed()
	switch {
	case failed == 0:
		return nil
	case report.Copied() == 0 && report.There() == 0:
		return &exitError{code: ExitFailed}
	}
	return &exitError{code: ExitSomeFailed}
}

// stepJSON is a step in --json.
type stepJSON struct {
	Point       string      `json:"point"`
	Machine     machineJSON `json:"machine"`
	Created     time.Time   `json:"created"`
	Action      plan.Action `json:"action"`
	Reason      string      `json:"reason"`
	Outcome     job.Outcome `json:"outcome,omitempty"`
	Error       string      `json:"error,omitempty"`
	Hint        string      `json:"hint,omitempty"`
	Base        string      `json:"base,omitempty"`
	Logical     int64       `json:"logicalBytes"`
	Read        int64       `json:"readBytes"`
	Unchanged   int64       `json:"unchangedBytes"`
	Resumed     int64       `json:"resumedBytes"`
	NewBlocks   int64       `json:"newBlocks"`
	NewBytes    int64       `json:"newBytes"`
	StoredBytes int64       `json:"storedBytes"`
	Seconds     float64     `json:"seconds"`
}

func describeStep(s plan.Step) stepJSON {
	return stepJSON{Point: s.Point.ID.String(), Machine: describeMachine(s.Point.Machine), Created: s.Point.Created.UTC(), Action: s.Action, Reason: printable(s.Reason)}
}

func (a *app) printPlan(from, to string, steps plan.Plan, unknown int) error {
	if a.json {
		described := []stepJSON{}
		for _, s := range steps.Steps {
			described = append(described, describeStep(s))
		}
		return a.printJSON(map[string]any{"source": from, "repository": to, "dryRun": true, "unknownFiles": unknown, "steps": described})
	}
	rows := [][]string{}
	for _, s := range steps.Steps {
		rows = append(rows, []string{string(s.Action), machineTitle(s.Point.Machine), s.Point.ID.Short(), when(s.Point.Created), printable(s.Reason)})
	}
	a.table(rows)
	a.line("\n%d of %d points to copy; nothing was copied", len(steps.Copies()), len(steps.Steps))
	return nil
}

func (a *app) printReport(from string, target *repo.Repository, report job.Report, unknown int) error {
	a.warnings(report.Warnings)
	if a.json {
		described := []stepJSON{}
		for _, s := range report.Steps {
			d := describeStep(s.Step)
			d.Outcome = s.Outcome
			if s.Err != nil {
				d.Error, d.Hint = s.Err.Error(), backup.Hint(s.Err)
			}
			if (s.Result.Base != backup.PointID{}) {
				d.Base = s.Result.Base.String()
			}
			r := s.Result
			d.Logical, d.Read, d.Unchanged, d.Resumed = r.Logical, r.Read, r.Unchanged, r.Resumed
			d.NewBlocks, d.NewBytes, d.StoredBytes, d.Seconds = r.NewBlocks, r.NewBytes, r.Stored, r.Took.Seconds()
			described = append(described, d)
		}
		return a.printJSON(map[string]any{
			"source": from, "repository": map[string]string{"id": target.ID(), "location": target.Location()}, "dryRun": false, "unknownFiles": unknown,
			"steps": described, "copied": report.Copied(), "alreadyThere": report.There(), "failed": report.Failed(),
			"sourceBytesRead": report.SourceBytes, "storedBytes": report.Stored, "nodeBytes": report.Nodes, "packs": report.Packs, "seconds": report.Took.Seconds(),
		})
	}
	for _, s := range report.Steps {
		a.printStep(s)
	}
	a.line("%d copied, %d already there, %d failed; read %s, stored %s in %s",
		report.Copied(), report.There(), report.Failed(), size(report.SourceBytes), size(report.Stored), report.Took.Round(time.Millisecond))
	return nil
}

// printStep prints what was not copied though someone may expect it. What was copied has been printed when it happened.
func (a *app) printStep(s job.StepReport) {
	switch s.Action {
	case plan.ActionBroken, plan.ActionLocked, plan.ActionUnsupported, plan.ActionEncrypted:
		mark := "      "
		if s.Failure {
			mark = "FAILED"
		}
		a.line("%s  %s  %s  %s: %s", mark, machineTitle(s.Point.Machine), when(s.Point.Created), s.Action, printable(s.Reason))
	}
}

// copyProgress shows the points while they are copied.
type copyProgress struct {
	app  *app
	bars *bars
	mu   sync.Mutex
	end1 func()
}

func (a *app) newCopyProgress() *copyProgress { return &copyProgress{app: a, bars: a.newBars()} }

func (p *copyProgress) started(point source.Point, counters *mover.Progress) {
	end := p.bars.add(machineShort(point.Machine)+" "+when(point.Created), counters.Total.Load, counters.Done.Load)
	p.mu.Lock()
	previous := p.end1
	p.end1 = end
	p.mu.Unlock()
	if previous != nil {
		previous()
	}
}

func machineShort(m backup.Machine) string {
	if m.Name != "" {
		return printable(m.Name)
	}
	return m.Key.String()
}

func (p *copyProgress) finished(s job.StepReport) {
	if p.app.json {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Err != nil {
		p.app.line("FAILED  %s  %s: %v", machineTitle(s.Point.Machine), when(s.Point.Created), s.Err)
		if hint := backup.Hint(s.Err); hint != "" {
			p.app.line("        %s", hint)
		}
		return
	}
	r := s.Result
	detail := fmt.Sprintf("%s, read %s, new %s, stored %s", size(r.Logical), size(r.Read), size(r.NewBytes), size(r.Stored))
	if r.Unchanged > 0 {
		detail += ", unchanged since " + r.Base.Short()
	}
	if r.Resumed > 0 {
		detail += ", " + size(r.Resumed) + " from before the interruption"
	}
	p.app.line("copied  %s  %s: %s", machineTitle(s.Point.Machine), when(s.Point.Created), detail)
}

func (p *copyProgress) end() {
	p.mu.Lock()
	end := p.end1
	p.end1 = nil
	p.mu.Unlock()
	if end != nil {
		end()
	}
	p.bars.done()
}
