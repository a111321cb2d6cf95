package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/job"
	"ferry/internal/plan"
)

func (a *app) jobMissingCommand(at *asked) *cobra.Command {
	var file string
	command := &cobra.Command{
		Use: "missing [NAME]", Short: "Say how many bytes the target still lacks, by reading what a job would copy",
		Long: `Read the points that an interval which begins now would copy, as it would read
them, compare their blocks with those of the target, and say how much of each is
missing: what its blocks hold, and what they will take as they are stored. Nothing
is written. It is what seeding is over with: run it after a seed was carried, to see
what is left for the line (docs/seeding.md).

It takes as long as the copy's reading does. A machine that the target knows nothing
of is compressed as fast as it comes, so what it will take is an estimate then; what
blocks hold never is. Without -f FILE the job is the server's; the sources are read by
this command all the same, with your rights.`,
		Example:           "  ferry job missing offsite\n  ferry job missing -f offsite.yaml --json",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := a.servedJob(cmd.Context(), at, file, args)
			if err != nil {
				return err
			}
			return a.jobMissing(cmd.Context(), chosen)
		},
	}
	jobFileFlag(command, &file)
	return command
}

func (a *app) jobMissing(ctx context.Context, chosen chosenJob) error {
	setup, err := a.setup(chosen)
	if err != nil {
		return err
	}
	progress := a.newCopyProgress(0)
	setup.Copy.Started = progress.started
	found, err := job.FindMissing(ctx, setup, func(steps []plan.IntervalStep) {
		progress.expect(len(steps))
		var logical int64
		for _, step := range steps {
			logical += step.Point.Size
		}
		if len(steps) > 0 && !a.json {
			a.say("reading %s of together %s, as the next interval will", counted(len(steps), "point"), size(logical))
		}
	})
	progress.end()
	a.warnings(found.Warnings)
	if err != nil {
		if errors.Is(err, job.ErrWindowClosed) {
			return exitWith(ExitFailed, "job %s: %w; its sources are not read", printable(chosen.Name), err)
		}
		return targetError(found.Target, err)
	}
	described := describeMissing(chosen, found)
	if a.json {
		err = a.printJSON(described)
	} else {
		a.printMissing(found, described)
	}
	if err != nil {
		return err
	}
	return missingExit(found)
}

// missingExit is the exit code: what could not be looked at may be missing too.
func missingExit(found *job.Missing) error {
	failed, ready := 0, 0
	for _, p := range found.Points {
		if p.Err != nil {
			failed++
		}
	}
	for _, source := range found.Sources {
		if source.State == job.StateReady {
			ready++
		}
	}
	switch {
	case ready == 0:
		return exitWith(ExitFailed, "no source can be read")
	case failed > 0 && failed == len(found.Points):
		return exitWith(ExitFailed, "nothing was found out: %s cannot be read", counted(failed, "point"))
	case failed > 0:
		return exitWith(ExitSomeFailed, "%s cannot be read", counted(failed, "point"))
	case ready < len(found.Sources):
		return exitWith(ExitSomeFailed, "of %s, %d cannot be read", counted(len(found.Sources), "source"), len(found.Sources)-ready)
	}
	return nil
}

// missingJSON is the output of job missing. All sizes are in bytes.
type missingJSON struct {
	Job     string             `json:"job"`
	Target  job.TargetState    `json:"target"`
	Sources []job.SourceState  `json:"sources"`
	Points  []missingPointJSON `json:"points"`
	// New and Stored are the sums over the points; Written is what packs and points' files take in all.
	New     int64 `json:"newBytes"`
	Stored  int64 `json:"storedBytes"`
	Written int64 `json:"writtenBytes"`
}

type missingPointJSON struct {
	Machine machineJSON `json:"machine"`
	Point   string      `json:"point"`
	Created time.Time   `json:"created"`
	Whole   bool        `json:"whole"`
	Logical int64       `json:"logicalBytes"`
	Read    int64       `json:"readBytes"`
	Blocks  int64       `json:"newBlocks"`
	New     int64       `json:"newBytes"`
	Stored  int64       `json:"storedBytes"`
	Nodes   int64       `json:"nodeBytes"`
	Error   string      `json:"error"`
}

func describeMissing(c chosenJob, found *job.Missing) missingJSON {
	described := missingJSON{Job: printable(c.Name), Target: found.Target, Sources: found.Sources, Points: []missingPointJSON{}, Written: found.Written}
	for _, p := range found.Points {
		row := missingPointJSON{
			Machine: describeMachine(*p.Point.Machine), Point: p.Point.ID.String(), Created: p.Point.Created.UTC(), Whole: p.Whole,
			Logical: p.Logical, Read: p.Read, Blocks: p.NewBlocks, New: p.NewBytes, Stored: p.Stored, Nodes: p.Nodes,
		}
		if p.Err != nil {
			row.Error = readable(p.Err.Error())
		}
		described.New += p.NewBytes
		described.Stored += p.Stored
		described.Points = append(described.Points, row)
	}
	return described
}

func (a *app) printMissing(found *job.Missing, described missingJSON) {
	for _, source := range found.Sources {
		if source.State != job.StateReady {
			a.line("source %s is %s: %s", printable(source.Name), source.State, readable(source.Reason))
		}
	}
	rows := [][]string{{"machine", "point of", "size", "read", "missing", "as stored", ""}}
	for _, p := range found.Points {
		if p.Err != nil {
			a.line("FAILED  %s  %s  %s", shortName(*p.Point.Machine), when(p.Point.Created), readable(job.Reason(p.Err)))
			continue
		}
		note := ""
		if p.Whole {
			note = "read whole, and stored apart"
		}
		rows = append(rows, []string{shortName(*p.Point.Machine), when(p.Point.Created), size(p.Logical), size(p.Read), size(p.NewBytes), size(p.Stored), note})
	}
	if len(rows) > 1 {
		a.table(rows)
	}
	if len(found.Points) == 0 {
		a.line("nothing is missing: the next interval copies nothing")
		return
	}
	a.line("missing: %s in blocks that the target lacks, %s as they are stored; the next interval writes %s to packs and points", size(described.New), size(described.Stored), size(described.Written))
}
