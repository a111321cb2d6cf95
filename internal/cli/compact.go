package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"ferry/internal/idle"
	"ferry/internal/repo"
)

func (a *app) compactCommand() *cobra.Command {
	options := repo.CompactOptions{Codec: repo.CodecZstd}
	command := &cobra.Command{
		Use:   "compact REPOSITORY",
		Short: "Write the newest points' blocks again, in order and denser",
		Long: `Over the years the blocks of a machine's newest point come to lie all over the
repository, and a restore has to look for them. compact writes those that lie
apart again, in the order of the disk, and compresses what was compressed in a
hurry with zstd. What that leaves behind is given back by ferry reclaim, so the
repository grows first. It runs at idle priority; copies, restores and other
commands may run meanwhile. It may be interrupted: the next run goes on.`,
		Example: `  ferry compact /mnt/usb/vault --max-time 4h
  ferry compact /mnt/usb/vault --max-bytes 500GB && ferry reclaim /mnt/usb/vault`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.compact(cmd.Context(), args[0], options) },
	}
	budgetFlags(command.Flags(), &options.MaxTime, &options.MaxBytes)
	return command
}

func (a *app) compact(ctx context.Context, location string, options repo.CompactOptions) error {
	repository, err := a.openUnlocked(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	idle.Process()
	a.interrupted = "what was written is kept; run it again to go on"
	report, err := repository.Compact(ctx, options)
	var names machineNames
	if err == nil {
		names, err = a.machineNames(ctx, repository)
	}
	a.warnings(repository.Warnings())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(describeCompact(repository, report, names))
	}
	rows := [][]string{{"machine", "reads per GiB before", "after", "in order"}}
	for i, before := range report.Before {
		rows = append(rows, []string{names.of(before.Machine.String()), perGiB(before.PerGiB()), perGiB(report.After[i].PerGiB()), perGiB(report.After[i].InOrderPerGiB())})
	}
	a.sayTable(rows)
	a.say("%s written again: %s became %s in %s", counted(report.Blocks, "block"), size(report.Read), size(report.Written), counted(report.Packs, "pack"))
	if report.Locked > 0 {
		a.say("%s left where the storage has locked them", counted(report.Locked, "block"))
	}
	if report.Blocks > 0 {
		a.say("ferry reclaim gives back what they leave behind")
	}
	if report.Stopped != "" {
		a.say("stopped: %s", report.Stopped)
	}
	return nil
}

func perGiB(reads float64) string { return strconv.FormatFloat(reads, 'f', 1, 64) }

// compactJSON is the output of compact.
type compactJSON struct {
	Repository   placeJSON           `json:"repository"`
	Machines     []fragmentationJSON `json:"machines"`
	Blocks       int                 `json:"blocks"`
	ReadBytes    int64               `json:"readBytes"`
	WrittenBytes int64               `json:"writtenBytes"`
	Packs        int                 `json:"packs"`
	LockedBlocks int                 `json:"lockedBlocks"`
	Stopped      string              `json:"stopped"`
}

type fragmentationJSON struct {
	Pseudonym   string `json:"pseudonym"`
	Machine     string `json:"machine"`
	Point       string `json:"point"`
	Blocks      int    `json:"blocks"`
	Bytes       int64  `json:"bytes"`
	RunsBefore  int    `json:"runsBefore"`
	RunsAfter   int    `json:"runsAfter"`
	RunsInOrder int    `json:"runsInOrder"`
}

func describeCompact(repository *repo.Repository, report *repo.CompactReport, names machineNames) compactJSON {
	described := compactJSON{
		Repository: describePlace(repository), Machines: []fragmentationJSON{}, Blocks: report.Blocks, ReadBytes: report.Read,
		WrittenBytes: report.Written, Packs: report.Packs, LockedBlocks: report.Locked, Stopped: report.Stopped,
	}
	for i, before := range report.Before {
		described.Machines = append(described.Machines, fragmentationJSON{
			Pseudonym: before.Machine.String(), Machine: names[before.Machine.String()], Point: before.Point.String(), Blocks: before.Blocks, Bytes: before.Bytes,
			RunsBefore: before.Runs, RunsAfter: report.After[i].Runs, RunsInOrder: report.After[i].InOrder,
		})
	}
	return described
}
