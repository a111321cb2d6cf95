package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/restore"
)

func (a *app) restoreCommand() *cobra.Command {
	var options restore.Options
	var to, point string
	command := &cobra.Command{
		Use:   "restore REPOSITORY MACHINE --to DIR",
		Short: "Write a machine's disks and configuration from a repository",
		Long: `Write the disks of one restore point as sparse raw files, archives as tar files, and the machine's configuration
below config/, into DIR. Every block is proven while it is written; nothing is overwritten without --force, and no file
has its final name before all of it is there.

MACHINE is a machine's id, or a name that only one machine has. --point takes "latest", the beginning of a point's id (six
characters or more), or a time: the newest point at or before it.`,
		Example: `  ferry restore /mnt/usb/vault web01 --to /var/tmp/web01
  ferry restore /mnt/usb/vault proxmox/100/3f1d2c4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f --point "2026-11-21 06:00" --to /var/tmp/web01`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usage("say where to with --to DIR")
			}
			return a.restore(cmd.Context(), args[0], args[1], point, to, options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&to, "to", "", "folder to write to; made if needed")
	flags.StringVar(&point, "point", "latest", "latest, an id's beginning, or a time")
	flags.BoolVar(&options.Force, "force", false, "overwrite files that are there")
	flags.BoolVar(&options.SHA256, "sha256", false, "compute each file's SHA-256 for restore.json")
	return command
}

func (a *app) restore(ctx context.Context, location, machine, text, to string, options restore.Options) error {
	repository, err := a.openRepository(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	points, err := a.repositoryPoints(ctx, repository)
	if err != nil {
		return err
	}
	m, err := plan.FindMachine(points, machine)
	if err != nil {
		return err
	}
	chosen, err := plan.FindPoint(points, m.Key, text, time.Local)
	if err != nil {
		return err
	}
	stored, err := repository.ReadPoint(ctx, chosen.ID)
	if err != nil {
		return err
	}
	shown := a.newBars()
	end := func() {}
	options.Progress = func(p *restore.Progress) {
		end = shown.add(machineShort(m)+" "+when(chosen.Created), p.Total.Load, p.Done.Load)
	}
	result, err := restore.Restore(ctx, repository, stored, to, options)
	end()
	shown.done()
	a.warnings(repository.Warnings())
	if err != nil {
		return err
	}
	return a.printRestored(stored, to, result)
}

// repositoryPoints reads all points' files. One that is damaged is a warning: others can be restored.
func (a *app) repositoryPoints(ctx context.Context, repository *repo.Repository) ([]backup.Point, error) {
	var points []backup.Point
	for _, entry := range repository.Entries() {
		p, err := repository.ReadPoint(ctx, entry.ID)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			a.warnings([]string{err.Error()})
			continue
		}
		points = append(points, p.Point)
	}
	return points, nil
}

type restoredJSON struct {
	Path   string `json:"path"`
	Role   string `json:"role"`
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Root   string `json:"root,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
}

func (a *app) printRestored(point *repo.Point, to string, result restore.Result) error {
	if a.json {
		files := []restoredJSON{}
		for _, f := range result.Files {
			files = append(files, restoredJSON{Path: f.Path, Role: string(f.Role), Name: printable(f.Name), Size: f.Size, Root: f.Root, SHA256: f.SHA256})
		}
		return a.printJSON(map[string]any{"point": describePoint(point.Point), "to": to, "files": files, "commands": result.Commands})
	}
	a.line("restored %s of %s UTC to %s", machineTitle(point.Machine), when(point.Created), to)
	rows := [][]string{}
	for _, f := range result.Files {
		rows = append(rows, []string{"  " + f.Path, size(f.Size), f.SHA256})
	}
	a.table(rows)
	if len(result.Commands) > 0 {
		a.line("\nTo bring the machine back, adapt and run:\n")
		for _, command := range result.Commands {
			a.line("  %s", command)
		}
	}
	return nil
}
