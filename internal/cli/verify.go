package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify REPOSITORY",
		Short: "Prove that everything stored is what was copied",
		Long: `Read the whole repository: the log from its first entry, every byte of every
pack, every block by its id, and every point down to its last block. What is
damaged is listed by machine, point, disk and offset; then the exit code is 5,
and the repository's log notes the damaged places, so that no copy relies on them.
Nothing else is written, and the source is not needed.`,
		Example: `  ferry verify /mnt/usb/vault
  ferry verify /mnt/usb/vault --quiet   print only damage, for cron`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0]) },
	}
}

func (a *app) verify(ctx context.Context, path string) error {
	repository, err := a.openRepository(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	shown := a.newBars()
	end := func() {}
	report, err := repository.Verify(ctx, func(p *repo.VerifyProgress) {
		end = shown.add("verifying", p.TotalBytes.Load, p.Bytes.Load)
	})
	end()
	shown.done()
	if err != nil {
		return err
	}
	a.warnings(report.Warnings)
	if a.json {
		err = a.printJSON(describeVerified(repository, report))
	} else {
		a.printVerified(report)
	}
	if err == nil && len(report.Damage) > 0 {
		return &exitError{code: ExitDamaged, err: hinted(errors.New("damaged data found"), "docs/operations.md says what to do")}
	}
	return err
}

func describeVerified(repository *repo.Repository, report *repo.VerifyReport) verifyJSON {
	described := verifyJSON{
		Repository: describePlace(repository), LogEntries: report.Entries, Packs: report.Packs, Points: report.Points,
		Frames: report.Frames, Bytes: report.Bytes, PendingPacks: report.Pending, NotedPlaces: report.Noted, Damage: []damageJSON{},
	}
	for _, d := range report.Damage {
		described.Damage = append(described.Damage, damageJSON{
			Machine: printable(d.Machine), Point: d.Point, Object: printable(d.Object), Offset: d.Offset, Length: d.Length, File: d.File, Reason: readable(d.Reason),
		})
	}
	return described
}

func (a *app) printVerified(report *repo.VerifyReport) {
	for _, d := range report.Damage {
		a.line("DAMAGED  %s: %s", damagedPlace(d), readable(d.Reason))
	}
	a.say("verified %s, %s, %s blocks and nodes, %s", counted(report.Points, "point"), counted(report.Packs, "pack"), count(int(report.Frames)), size(report.Bytes))
	if report.Pending > 0 {
		a.say("%s belong to no commit: of a copy that runs now or was interrupted", counted(report.Pending, "pack"))
	}
	if report.Noted > 0 {
		a.say("%s noted: the next copy that meets the same content stores it again", counted(report.Noted, "damaged place"))
	}
	if len(report.Damage) == 0 {
		a.say("everything is what was copied")
	}
}

// damagedPlace says what is damaged.
func damagedPlace(d repo.Damage) string {
	if d.Machine == "" {
		return "file " + d.File
	}
	place := "machine " + printable(d.Machine) + ", point " + shortID(d.Point)
	if d.Object == "" {
		return place + ", file " + d.File
	}
	return fmt.Sprintf("%s, %s, bytes %d to %d", place, printable(d.Object), d.Offset, d.Offset+d.Length-1)
}

// shortID is the part of a point's id that tables show.
func shortID(id string) string {
	if parsed, err := backup.ParsePointID(id); err == nil {
		return parsed.Short()
	}
	return id
}
