package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/restore"
)

type restoreFlags struct {
	restore.Options
	to, point string
}

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	command := &cobra.Command{
		Use:   "restore REPOSITORY MACHINE --to DIR",
		Short: "Write a machine's disks and configuration from a repository",
		Long: `Write the disks of one restore point as sparse raw files, archives as tar files,
and the machine's configuration below config/, into DIR, and print the commands
that bring the machine back. Neither the source nor a server is needed. Every
block is proven while it is written; nothing is overwritten without --force, and
no file has its final name before all of it is there. With --skip-damaged a disk
of which something is lost is written all the same: with zeros there, and beside
it a map of these places that GNU ddrescue and ddrescuelog understand.

MACHINE is a machine's id, its name or its native id (a VMID); a name only if no
other machine has it. --point takes "latest", the beginning of a point's id (six
characters or more), or a time: the newest point at or before it, local time
unless it says its zone as RFC 3339 does.`,
		Example: `  ferry restore /mnt/usb/vault web01 --to /var/tmp/web01
  ferry restore /mnt/usb/vault 100 --to /var/tmp/web01 --point 2026-11-21
  ferry restore /mnt/usb/vault 100 --to /var/tmp/web01 --point "2026-11-21 06:00"
  ferry restore /mnt/usb/vault 100 --to /var/tmp/web01 --point 9313927d9121 --force`,
		Args:              arguments("REPOSITORY", "MACHINE"),
		ValidArgsFunction: a.completeRestore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.to == "" {
				return usage("say where to with --to DIR")
			}
			return a.restore(cmd.Context(), args[0], args[1], f)
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.to, "to", "", "`DIR` to write to; made if needed")
	flags.StringVar(&f.point, "point", "latest", "the `POINT`: latest, the beginning of its id, or a time")
	flags.BoolVar(&f.Force, "force", false, "overwrite files that are there")
	flags.BoolVar(&f.SkipDamaged, "skip-damaged", false, "write what is good, zeros where it is not, and a map of that; exit code 5")
	flags.BoolVar(&f.SHA256, "sha256", false, "compute each file's SHA-256 for restore.json")
	completeFolders(command, "to")
	a.completePointFlag(command)
	return command
}

// takesFiles gives a usage error if files cannot be restored to a path: to a file, or among those of a repository.
func takesFiles(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return usage("a part of %s is a file, not a folder", path)
	case err == nil && !info.IsDir():
		return usage("%s is a file, not a folder", path)
	case isRepository(path):
		return hinted(usage("%s is a Ferry repository", path), "restore to a folder of its own")
	}
	return nil
}

func (a *app) restore(ctx context.Context, location, machine string, f restoreFlags) error {
	if err := takesFiles(f.to); err != nil {
		return err
	}
	repository, err := a.openUnlocked(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	stored, err := a.findPoint(ctx, repository, machine, f.point)
	if errors.Is(err, plan.ErrNotFound) {
		return hinted(err, "see ferry points "+restore.Quote(location))
	}
	if err != nil {
		return err
	}
	m := stored.Machine
	if damage, damaged := repository.DamageOf(stored.ID); damaged {
		a.warnings([]string{damagedText(repository, stored, damage)})
	}
	a.interrupted = "files in " + f.to + " that are whole have their names; to restore again add --force"
	shown := a.newBars()
	end := func() {}
	f.Progress = func(p *restore.Progress) { end = shown.add(shortName(m), p.Total.Load, p.Done.Load) }
	result, err := restore.Restore(ctx, repository, stored, f.to, f.Options)
	end()
	shown.done()
	a.warnings(repository.Warnings())
	if err != nil {
		return err
	}
	if err := a.printRestored(stored, f.to, result); err != nil {
		return err
	}
	if missing := result.Missing(); missing > 0 {
		return &exitError{code: ExitDamaged, err: hinted(fmt.Errorf("%s could not be restored and are zeros in the files", size(missing)),
			"the .map files say where; docs/verify.md says how what is missing may be had from elsewhere")}
	}
	return nil
}

// damagedText says what is damaged of a point that is to be restored, and which point of its machine may be had instead.
func damagedText(repository *repo.Repository, point *repo.Point, damage repo.PointDamage) string {
	text := fmt.Sprintf("point %s is %s, as verify found it; --skip-damaged restores the rest", point.ID.Short(), damage)
	pseudonym := repository.Pseudonym(point.Machine.Key)
	for _, entry := range slices.Backward(repository.Entries()) {
		if entry.Machine == pseudonym && repository.HasWhole(entry.ID) {
			return fmt.Sprintf("%s; the newest point that is not known to be damaged is %s of %s", text, entry.ID.Short(), when(entry.Created))
		}
	}
	return text
}

// findPoint reads the point that was asked for. Of other machines it reads one point each, for the name. A point that is
// damaged is a warning: another can be restored.
func (a *app) findPoint(ctx context.Context, repository *repo.Repository, machine, point string) (*repo.Point, error) {
	newest, err := repository.ReadNewest(ctx)
	if err != nil {
		return nil, err
	}
	named := a.pointsRead(repository, newest)
	m, err := plan.FindMachine(named, machine)
	if err != nil {
		return nil, err
	}
	damaged := map[backup.PointID]bool{}
	for _, p := range newest {
		damaged[p.Entry.ID] = p.Err != nil
	}
	pseudonym := repository.Pseudonym(m.Key)
	for {
		var own []backup.Point
		for _, entry := range repository.Entries() {
			if entry.Machine == pseudonym && !damaged[entry.ID] {
				own = append(own, backup.Point{ID: entry.ID, Machine: m, Created: entry.Created})
			}
		}
		chosen, err := plan.FindPoint(own, m.Key, point, time.Local)
		if err != nil {
			return nil, err
		}
		stored, err := repository.ReadPoint(ctx, chosen.ID)
		if err == nil || !errors.Is(err, backup.ErrDamaged) {
			return stored, err
		}
		a.warnings([]string{err.Error()})
		damaged[chosen.ID] = true
	}
}

// repositoryPoints reads all points' files. One that is damaged is a warning: others can be restored.
func (a *app) repositoryPoints(ctx context.Context, repository *repo.Repository) ([]backup.Point, error) {
	read, err := repository.ReadPoints(ctx, repository.Entries())
	if err != nil {
		return nil, err
	}
	return a.pointsRead(repository, read), nil
}

// pointsRead are the points that could be read; the others are warnings.
func (a *app) pointsRead(repository *repo.Repository, read []repo.PointRead) []backup.Point {
	var points []backup.Point
	for _, p := range read {
		if p.Err != nil {
			a.warnings([]string{p.Err.Error()})
			continue
		}
		points = append(points, repository.AsFound(p.Point.Point))
	}
	return points
}

func (a *app) printRestored(point *repo.Point, to string, result restore.Result) error {
	if a.json {
		described := restoreJSON{Point: describePoint(point.Point), To: to, Files: []restoredJSON{}, Commands: append([]string{}, result.Commands...), Requests: a.requests()}
		for _, f := range result.Files {
			described.Files = append(described.Files, restoredJSON{Path: f.Path, Role: string(f.Role), Name: printable(f.Name), Size: f.Size, Root: f.Root, SHA256: f.SHA256, Map: f.Map, Damaged: describeRanges(f.Damaged)})
		}
		return a.printJSON(described)
	}
	if a.quiet {
		return nil
	}
	a.line("restored %s as of %s to %s", machineTitle(point.Machine), when(point.Created), to)
	var rows [][]string
	for _, f := range result.Files {
		rows = append(rows, []string{"  " + f.Path, size(f.Size), f.SHA256})
	}
	a.table(rows)
	for _, f := range result.Files {
		for _, d := range f.Damaged {
			a.line("MISSING  %s, bytes %d to %d: zeros; see %s", f.Path, d.Offset, d.Offset+d.Length-1, f.Map)
		}
	}
	if len(result.Commands) > 0 {
		a.line("\nTo bring the machine back, read, adapt and run:\n")
		for _, command := range result.Commands {
			a.line("  %s", command)
		}
	}
	return nil
}

func describeRanges(ranges []restore.Range) []rangeJSON {
	described := []rangeJSON{}
	for _, r := range ranges {
		described = append(described, rangeJSON(r))
	}
	return described
}
