package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/repo"
)

type reclaimFlags struct {
	repo.ReclaimOptions
}

func (a *app) reclaimCommand() *cobra.Command {
	f := reclaimFlags{ReclaimOptions: repo.ReclaimOptions{Policy: repo.DefaultReclaimPolicy()}}
	command := &cobra.Command{
		Use:   "reclaim REPOSITORY",
		Short: "Give back the space of what no point needs",
		Long: `Find out what the points need, give up the rest, and delete what was given up
long enough ago. Packs of which little is needed are moved; small ones are
merged. Copies, restores and other commands may run meanwhile, and the command
may be interrupted: the next run goes on.

What is given up now is deleted by a later run: once two runs have found that
the grace has passed. On a full disk run it with --grace 0, twice
(docs/reclaim.md). One runs at a time; a second one ends with exit code 6. Where
something is damaged, nothing beside it is given up, and the exit code is 5.`,
		Example: `  ferry reclaim /mnt/usb/vault --dry-run
  ferry reclaim /mnt/usb/vault
  ferry reclaim /mnt/usb/vault --max-time 2h --quiet   for cron
  ferry reclaim /mnt/usb/vault --grace 0               the disk is full`,
		Args:              arguments("REPOSITORY"),
		ValidArgsFunction: completeFolder,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.reclaim(cmd.Context(), args[0], f) },
	}
	flags := command.Flags()
	flags.BoolVar(&f.DryRun, "dry-run", false, "say what would become of which pack, and why; change nothing")
	flags.Var((*graceSpan)(&f.Policy.Grace), "grace", "keep what is given up for this `TIME`, such as 24h; 0 for a disk that is full")
	budgetFlags(flags, &f.MaxTime, &f.MaxBytes)
	return command
}

func (a *app) reclaim(ctx context.Context, location string, f reclaimFlags) error {
	repository, err := a.openRepository(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	f.TempDir = a.tempDir
	a.interrupted = "what was done is kept; run it again to go on"
	report, err := repository.Reclaim(ctx, f.ReclaimOptions)
	a.warnings(repository.Warnings())
	if err != nil {
		return err
	}
	if a.json {
		described := describeReclaim(repository, f, report)
		described.Requests = a.requests()
		err = a.printJSON(described)
	} else {
		a.printReclaim(f, report)
	}
	if err == nil && len(report.Incomplete) > 0 {
		return &exitError{code: ExitDamaged}
	}
	return err
}

func amountText(what repo.Amount) string {
	text := counted(what.Packs, "pack")
	if what.Files > 0 {
		text += " and " + counted(what.Files, "other file")
	}
	return text + ", " + size(what.Bytes)
}

func (a *app) printReclaim(f reclaimFlags, report *repo.ReclaimReport) {
	for _, reason := range report.Incomplete {
		a.line("NOT RECLAIMED  %s", readable(reason))
	}
	if report.Frozen != "" {
		a.line("NOTHING GIVEN UP OR DELETED  %s", readable(report.Frozen))
	}
	use := report.Use
	a.say("needed %s, not needed %s, in %s", size(use.Live), size(use.Dead), counted(use.Packs, "pack"))
	if steps := stepRows(report.Steps, f.DryRun); len(steps) > 0 {
		a.say("")
		a.sayTable(steps)
	}
	if f.DryRun {
		a.say("this was a dry run: nothing was changed")
		return
	}
	rows := [][]string{}
	row := func(name string, what repo.Amount, more string) {
		if what.Packs+what.Files > 0 {
			rows = append(rows, []string{name, amountText(what) + more})
		}
	}
	row("deleted", report.Deleted, "")
	row("given up", report.GivenUp, "")
	row("  of it garbage", report.Garbage, "")
	row("moved", report.Moved, " to "+amountText(report.Written))
	deletion := ": of two runs after " + when(report.Until) + " the second deletes it"
	if report.NextRun {
		deletion = ": the next run deletes it"
	}
	row("waits", report.Waiting, deletion)
	row("locked", report.Locked, ", until "+when(report.LockedUntil)+" at least")
	a.sayTable(rows)
	if report.PointsRemoved > 0 {
		a.say("%s that nothing claimed or held any more", counted(report.PointsRemoved, "point")+" removed")
	}
	if report.UnfinishedEnded > 0 {
		a.say("%s given up", counted(report.UnfinishedEnded, "unfinished copy"))
	}
	if report.Stopped != "" {
		a.say("stopped: %s", readable(report.Stopped))
	} else if len(rows)+report.PointsRemoved+report.UnfinishedEnded+len(report.Incomplete) == 0 && report.Frozen == "" {
		a.say("nothing was given up or deleted")
	}
}

// keptShown is how many packs that stay are listed, unless every pack is asked for.
const keptShown = 20

// stepRows lists packs with what becomes of them: in a dry run all, else those that stay though something is amiss.
func stepRows(steps []repo.ReclaimStep, each bool) [][]string {
	var rows [][]string
	more := 0
	for _, step := range steps {
		switch {
		case !each && step.Action != repo.ReclaimKeep:
		case !each && len(rows) == keptShown:
			more++
		default:
			rows = append(rows, []string{string(step.Action), step.Pack.String(), step.Kind, size(step.Size), size(step.LiveBytes) + " needed", readable(step.Reason)})
		}
	}
	if more > 0 {
		rows = append(rows, []string{"and " + counted(more, "more pack") + " kept"})
	}
	return rows
}

// reclaimJSON is the output of reclaim, also with --dry-run.
type reclaimJSON struct {
	Repository      placeJSON         `json:"repository"`
	DryRun          bool              `json:"dryRun"`
	GraceSeconds    float64           `json:"graceSeconds"`
	LiveBytes       int64             `json:"liveBytes"`
	DeadBytes       int64             `json:"deadBytes"`
	CondemnedBytes  int64             `json:"condemnedBytes"`
	Packs           int               `json:"packs"`
	Steps           []reclaimStepJSON `json:"steps"`
	PointsRemoved   int               `json:"pointsRemoved"`
	UnfinishedEnded int               `json:"unfinishedEnded"`
	GivenUp         amountJSON        `json:"givenUp"`
	Garbage         amountJSON        `json:"garbage"`
	Moved           amountJSON        `json:"moved"`
	Written         amountJSON        `json:"written"`
	Deleted         amountJSON        `json:"deleted"`
	Waiting         amountJSON        `json:"waiting"`
	Locked          amountJSON        `json:"locked"`
	Incomplete      []string          `json:"incomplete"`
	Frozen          string            `json:"frozen"`
	Stopped         string            `json:"stopped"`
	Requests        requestsJSON      `json:"storageRequests"`
}

type reclaimStepJSON struct {
	Action    string `json:"action"`
	Pack      string `json:"pack"`
	Kind      string `json:"kind"`
	Bytes     int64  `json:"bytes"`
	LiveBytes int64  `json:"liveBytes"`
	Reason    string `json:"reason"`
}

type amountJSON struct {
	Packs int   `json:"packs"`
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Until is when it can go: the grace has passed, or the lock ends.
	Until *time.Time `json:"until,omitempty"`
}

func describeAmount(what repo.Amount, until time.Time) amountJSON {
	described := amountJSON{Packs: what.Packs, Files: what.Files, Bytes: what.Bytes}
	if !until.IsZero() && what.Packs+what.Files > 0 {
		until = until.UTC()
		described.Until = &until
	}
	return described
}

func describeReclaim(repository *repo.Repository, f reclaimFlags, report *repo.ReclaimReport) reclaimJSON {
	never := time.Time{}
	described := reclaimJSON{
		Repository: describePlace(repository), DryRun: f.DryRun, GraceSeconds: f.Policy.Grace.Seconds(),
		LiveBytes: report.Use.Live, DeadBytes: report.Use.Dead, CondemnedBytes: report.Use.Condemned, Packs: report.Use.Packs,
		Steps: []reclaimStepJSON{}, PointsRemoved: report.PointsRemoved, UnfinishedEnded: report.UnfinishedEnded,
		GivenUp: describeAmount(report.GivenUp, never), Garbage: describeAmount(report.Garbage, never), Moved: describeAmount(report.Moved, never),
		Written: describeAmount(report.Written, never), Deleted: describeAmount(report.Deleted, never),
		Waiting: describeAmount(report.Waiting, report.Until), Locked: describeAmount(report.Locked, report.LockedUntil),
		Incomplete: []string{}, Frozen: readable(report.Frozen), Stopped: readable(report.Stopped),
	}
	for _, step := range report.Steps {
		described.Steps = append(described.Steps, reclaimStepJSON{
			Action: string(step.Action), Pack: step.Pack.String(), Kind: step.Kind, Bytes: step.Size, LiveBytes: step.LiveBytes, Reason: readable(step.Reason),
		})
	}
	for _, reason := range report.Incomplete {
		described.Incomplete = append(described.Incomplete, readable(reason))
	}
	return described
}
