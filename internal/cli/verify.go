package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
)

type verifyFlags struct {
	repo.VerifyOptions
	level  string
	heal   bool
	places []string
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	command := &cobra.Command{
		Use:   "verify REPOSITORY",
		Short: "Prove that everything stored is what was copied",
		Long: `Read the repository: the log from its first entry, every byte of every pack,
every block by its id, and every point down to its last block. What is damaged is
listed by machine, point, disk and offset; then the exit code is 5, and the
repository's log notes the damaged places and points, so that no copy relies on
them and every listing says so. The source is not needed.

--level stored compares stored bytes with their checksums and needs no key;
--level blocks also decodes every block; --level points, which is the default,
also follows every point. With --max-time or --max-bytes a part is read, the
longest unread first, and the next run goes on; so does one after an interruption.
--not-since 30d passes over what was proven in the last 30 days: run every night
with a budget, it reads each block once a month.

--heal stores again what is damaged, from another place in the repository or from
parity; --heal-from PLACE also from there: another Ferry repository with the same
ids, a mirror of this one, or a folder of backups that still has the point. What
is healed goes into new packs, and nothing is changed in place.`,
		Example: `  ferry verify /mnt/usb/vault
  ferry verify /mnt/usb/vault --quiet   print only damage, for cron
  ferry verify /mnt/usb/vault --max-time 2h --not-since 30d
  ferry verify /mnt/usb/vault --level stored
  ferry verify /mnt/usb/vault --heal-from /mnt/offsite/vault --heal-from /mnt/pve/dump`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			level, err := repo.ParseLevel(f.level)
			if err != nil {
				return usage("--level: %w", err)
			}
			f.Level = level
			return a.verify(cmd.Context(), args[0], f)
		},
	}
	flags := command.Flags()
	flags.StringVar(&f.level, "level", repo.LevelPoints.String(), "how deep to look: `LEVEL` stored, blocks or points")
	budgetFlags(flags, &f.MaxTime, &f.MaxBytes)
	flags.Var((*span)(&f.NotSince), "not-since", "pass over packs that were proven within this `TIME`, such as 30d")
	flags.BoolVar(&f.heal, "heal", false, "store again what is damaged, where a good copy can be had")
	flags.StringArrayVar(&f.places, "heal-from", nil, "heal, also from this `PLACE`: a repository, or a folder of backups; may be repeated")
	completeFolders(command, "heal-from")
	completeWords(command, "level", repo.LevelStored.String(), repo.LevelBlocks.String(), repo.LevelPoints.String())
	return command
}

func (a *app) verify(ctx context.Context, path string, f verifyFlags) error {
	healing, err := a.newHealing(ctx, f.places)
	if err != nil {
		return err
	}
	defer healing.close()
	repository, err := healing.open(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	heal := f.heal || len(f.places) > 0
	if heal && repository.Locked() {
		return keyError(repository.NeedsKey())
	}
	a.interrupted = "what was proven is remembered; to go on run the same command again"
	shown := a.newBars()
	end := func() {}
	f.Progress = func(p *repo.VerifyProgress) {
		end = shown.add("verifying", p.TotalBytes.Load, p.Bytes.Load)
	}
	report, err := repository.VerifyWith(ctx, f.VerifyOptions)
	end()
	shown.done()
	if err == nil && heal && len(report.Damage)+len(report.Healed) > 0 {
		report, err = healing.run(ctx, path, repository, report)
	}
	if err != nil {
		return err
	}
	if repository.Locked() && report.Level > repo.LevelStored {
		// Not only in the last line, which --quiet leaves out: a key that cron has lost would never be missed.
		a.warnings([]string{repository.WhyLocked() + ": stored bytes are proven, and what blocks hold is not; --level stored asks for no more"})
	}
	a.warnings(report.Warnings)
	proven := repository.Proven(ctx)
	if a.json {
		described := describeVerified(repository, report, proven)
		described.Requests = a.requests()
		described.Mended = healing.report
		err = a.printJSON(described)
	} else {
		a.printVerified(report, proven, repository.Locked())
		if heal {
			a.printHealed(healing.report)
		}
	}
	if err == nil && len(report.Damage) > 0 {
		return &exitError{code: ExitDamaged, err: hinted(errors.New("damaged data found"), "docs/verify.md says what to do")}
	}
	return err
}

func describeVerified(repository *repo.Repository, report *repo.VerifyReport, proven []repo.Proven) verifyJSON {
	return verifyJSON{
		Repository: describePlace(repository), Level: report.Level.String(), Locked: repository.Locked(), LogEntries: report.Entries, Packs: report.Packs, Points: report.Points,
		Frames: report.Frames, Bytes: report.Bytes, FreshPacks: report.Fresh, UnreadPacks: report.Unread, Complete: !report.Cut, Begun: report.Begun.UTC(),
		PendingPacks: report.Pending, NotedPlaces: report.Noted, DamagedPoints: report.DamagedPoints,
		Damage: describeDamage(report.Damage), Healed: describeDamage(report.Healed), Remade: append([]string{}, report.Remade...),
		Proven: describeProven(proven),
	}
}

func (a *app) printVerified(report *repo.VerifyReport, proven []repo.Proven, locked bool) {
	for _, d := range report.Damage {
		a.line("DAMAGED  %s: %s", d.Place(), readable(d.Reason))
	}
	for _, d := range report.Healed {
		a.say("harmless  %s: %s; what points need of it has another copy", d.Place(), readable(d.Reason))
	}
	for _, name := range report.Remade {
		a.say("made again  %s", name)
	}
	if report.Fresh > 0 && !report.Begun.IsZero() {
		a.say("went on with the verification of %s: %s proven since then", when(report.Begun), counted(report.Fresh, "pack"))
	} else if report.Fresh > 0 {
		a.say("passed over %s that were proven not long ago", counted(report.Fresh, "pack"))
	}
	a.say("verified %s, %s, %s blocks and nodes, %s", counted(report.Points, "point"), counted(report.Packs, "pack"), count(int(report.Frames)), size(report.Bytes))
	if report.Pending > 0 {
		a.say("%s belong to no commit: of a copy that runs now or was interrupted", counted(report.Pending, "pack"))
	}
	if report.Noted > 0 && len(report.Damage) > 0 {
		a.say("%s noted: the next copy that meets the same content stores it again", counted(report.Noted, "damaged place"))
	}
	if report.DamagedPoints > 0 {
		a.say("%s cannot be restored whole", counted(report.DamagedPoints, "point"))
	}
	switch {
	case report.Cut && report.Unread > 0:
		a.say("%s left for the next time", counted(report.Unread, "pack"))
	case report.Cut:
		a.say("some points are left for the next time")
	case len(report.Damage) == 0 && report.Fresh > 0 && report.Begun.IsZero():
		a.say("nothing is damaged in what was read")
	case len(report.Damage) == 0 && report.Points == 0 && report.Packs+report.Pending == 0:
		a.say("nothing is stored: there is no copy of anything")
	case len(report.Damage) == 0:
		a.say("%s", provenSentence(report.Level, locked))
	}
	if report.Cut {
		for _, p := range proven {
			a.say("oldest proof of %s: %s", p.Level, provenText(p, report.Packs+report.Fresh+report.Unread))
		}
	}
}

// provenSentence says what a verification that found no damage has proven: of a locked repository the content of blocks is not
// compared with their ids, whatever the level.
func provenSentence(level repo.Level, locked bool) string {
	switch {
	case locked:
		return "every stored byte is what was written; without the key nothing more can be proven"
	case level == repo.LevelStored:
		return "every stored byte is what was written; --level blocks or points proves more"
	}
	return "everything is what was copied"
}

// provenText says since when everything is proven.
func provenText(p repo.Proven, packs int) string {
	switch {
	case p.Never > 0:
		return fmt.Sprintf("never, for %s of %s", count(p.Never), counted(packs, "pack"))
	case p.Oldest.IsZero():
		return "nothing is stored"
	}
	return "all since " + when(p.Oldest)
}
