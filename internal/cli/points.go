package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
)

func (a *app) pointsCommand() *cobra.Command {
	var check bool
	var name string
	command := &cobra.Command{
		Use:   "points LOCATION",
		Short: "List the restore points in a folder of backups or in a Ferry repository",
		Long: `List the restore points in a folder: of every format that Ferry reads, also
mixed, down to three levels below it, or of a Ferry repository. Times are local;
"?" behind one says that the backup does not state its time zone.

The state of a point is
  complete     all there, as far as headers and names tell
  proven       everything of it was read and was good: with --check, or when it
               was stored in the repository
  locked       another program is still writing it
  broken       it cannot be read
  unsupported  Ferry knows what it is and does not read it
  encrypted    by the program that made it, or in a repository that no key given opens`,
		Example: `  ferry points /mnt/pve/dump
  ferry points /mnt/usb/vault --json
  ferry points /mnt/pve/dump --check`,
		Args:              arguments("LOCATION"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.points(cmd.Context(), args[0], name, check)
		},
	}
	command.Flags().BoolVar(&check, "check", false, "read every complete point whole; exit code 4 if one is broken, 5 if stored data is damaged")
	sourceNameFlag(command, &name)
	return command
}

// sourceNameFlag is the flag of commands that read a source.
func sourceNameFlag(command *cobra.Command, name *string) {
	command.Flags().StringVar(name, "source-name", "", "`NAME` of the source, part of the id of machines without a UUID (default: the folder's name)")
}

func (a *app) points(ctx context.Context, location, name string, check bool) error {
	open := a.openSource
	if check {
		open = a.openReadable
	}
	opened, err := open(ctx, location, name)
	if err != nil {
		return err
	}
	defer opened.Close()
	var checked job.CheckReport
	if check {
		if checked, err = a.check(ctx, opened); err != nil {
			return err
		}
	}
	if a.json {
		described := pointsJSON{Points: []pointJSON{}, UnknownFiles: opened.Unknown}
		for _, p := range opened.Points {
			point := describePoint(p.Point)
			if holds := holdsOn(p); len(holds) > 0 {
				point.Holds = describeHolds(holds)
			}
			described.Points = append(described.Points, point)
		}
		err = a.printJSON(described)
	} else {
		a.printPoints(opened)
	}
	switch {
	case err != nil:
		return err
	case checked.Damaged > 0:
		return exitWith(ExitDamaged, "damaged data found in %s", counted(checked.Damaged, "point"))
	case checked.Broken > 0:
		return exitWith(ExitSomeFailed, "%s cannot be copied", counted(checked.Broken, "broken point"))
	}
	return nil
}

// check reads all complete points.
func (a *app) check(ctx context.Context, opened *registry.Source) (job.CheckReport, error) {
	shown := a.newBars()
	defer shown.done()
	report, err := job.CheckPoints(ctx, opened, func(p source.Point, total, done func() int64) func() {
		return shown.add(shortName(p.Machine)+" "+p.ID.Short(), total, done)
	})
	a.warnings(report.Warnings)
	return report, err
}

func (a *app) printPoints(opened *registry.Source) {
	byMachine := map[backup.MachineKey][][]string{}
	for _, p := range opened.Points {
		byMachine[p.Machine.Key] = append(byMachine[p.Machine.Key], pointRow(p))
	}
	machines := plan.Machines(pointsOf(opened))
	for _, m := range machines {
		a.line("%s", machineTitle(m))
		a.table(byMachine[m.Key])
		a.line("")
	}
	others := ""
	if opened.Unknown > 0 {
		others = "; " + counted(opened.Unknown, "file") + " of no format that Ferry knows"
	}
	if len(machines) == 0 {
		a.line("no restore points in %s%s", opened.Root.Path(), others)
		return
	}
	a.say("%s of %s%s; times in %s", counted(len(opened.Points), "point"), counted(len(machines), "machine"), others, zoneNow())
}

// holdsOn are the holds on a point of a Ferry repository.
func holdsOn(p source.Point) []repo.HoldInfo {
	if from := ferry.RepositoryOf(p); from != nil {
		return from.HoldsOn(p.ID)
	}
	return nil
}

func pointRow(p source.Point) []string {
	state := string(p.State)
	if p.State == backup.StateComplete && p.Proven {
		state = "proven"
	}
	created := when(p.Created)
	if p.Zone == "unknown" {
		created += "?"
	}
	detail := readable(p.Reason)
	if detail == "" {
		var disks []string
		for _, o := range p.Objects {
			if isContent(o) {
				disks = append(disks, fmt.Sprintf("%s %s", printable(o.Name), size(o.Size)))
			}
		}
		detail = strings.Join(disks, ", ")
	}
	for _, hold := range holdsOn(p) {
		detail += "; " + holdText(hold)
	}
	return []string{"  " + p.ID.Short(), created, state, p.Origin.Format, detail}
}
