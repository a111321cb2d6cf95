package cli

import (
	"context"
	"sync/atomic"

	"github.com/spf13/cobra"
)

// reindexJSON is the output of repo reindex.
type reindexJSON struct {
	Packs    int   `json:"packs"`
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
}

func (a *app) repoReindexCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use: "reindex REPOSITORY", Short: "Make the index anew from the packs",
		Long: `Write index segments for the packs that none covers, from the packs' own tables:
after a crash, or where a segment's file is missing, or was damaged and ferry verify
--heal has given it up. Copies do that by themselves; until then every program reads
those tables when it looks something up. With --all, for every pack, instead of all
segments that are there. No block is read.`,
		Example:           "  ferry repo reindex /mnt/usb/vault\n  ferry repo reindex /mnt/usb/vault --all",
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.repoReindex(cmd.Context(), args[0], all) },
	}
	command.Flags().BoolVar(&all, "all", false, "for every pack, instead of the index that is there")
	return command
}

func (a *app) repoReindex(ctx context.Context, path string, all bool) error {
	repository, err := a.openUnlocked(ctx, path)
	if err != nil {
		return err
	}
	defer repository.Close()
	var done, total atomic.Int64
	bars := a.newBars()
	end := bars.count("tables of packs", total.Load, done.Load)
	report, err := repository.Reindex(ctx, all, func(read, of int) {
		total.Store(int64(of))
		done.Store(int64(read))
	})
	end()
	bars.done()
	a.warnings(repository.Warnings())
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(reindexJSON{report.Packs, report.Segments, report.Bytes})
	}
	if report.Segments == 0 {
		a.say("nothing to do: every pack is in the index")
		return nil
	}
	a.say("read the tables of %d packs; wrote %d index segments, %s", report.Packs, report.Segments, size(report.Bytes))
	return nil
}
