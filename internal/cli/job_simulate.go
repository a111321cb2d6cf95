package cli

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/policy/simulate"
	"ferry/internal/repo"
)

// maxSimulatedDays is how far ahead a job is simulated at most: ten years.
const maxSimulatedDays = 3660

func (a *app) jobSimulateCommand(at *asked) *cobra.Command {
	var file string
	days := 30
	command := &cobra.Command{
		Use: "simulate [NAME]", Short: "Say what a job will keep, day by day, and what size the target will have",
		Long: `Live the job through the days to come, as if its sources went on making points as
they do today: a source's rhythm is that of its last week, or the usual gap between
its points. Say how many points there will be and what they will need, and which
are kept in the end, and why. Sizes go by what each machine's points need in the
target today and by what changed between the newest two. Nothing is copied or removed.
The server looks at its job; with -f FILE this command does.`,
		Example:           "  ferry job simulate offsite --days 400\n  ferry job simulate -f offsite.yaml --days 400",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: at.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if days < 1 || days > maxSimulatedDays {
				return usage("--days is from 1 to %d", maxSimulatedDays)
			}
			if file == "" {
				return a.jobSimulateServed(cmd.Context(), at, args, days)
			}
			return a.jobSimulate(cmd.Context(), file, args, days)
		},
	}
	jobFileFlag(command, &file)
	command.Flags().IntVar(&days, "days", days, "look so many `DAYS` ahead, from 1 to 3660")
	return command
}

func (a *app) jobSimulate(ctx context.Context, file string, names []string, days int) error {
	chosen, err := a.readJob(file, names)
	if err != nil {
		return err
	}
	setup, err := a.setup(chosen)
	if err != nil {
		return err
	}
	described, err := a.foresee(ctx, chosen, setup, days)
	if err != nil {
		return err
	}
	return a.showFuture(described)
}

// showFuture prints what a job will keep.
func (a *app) showFuture(f futureJSON) error {
	if a.json {
		return a.printJSON(f)
	}
	a.printFuture(f)
	return nil
}

// foresee lives the job through some days.
func (a *app) foresee(ctx context.Context, c chosenJob, setup job.Setup, days int) (futureJSON, error) {
	e, err := a.explained(ctx, setup)
	if err != nil {
		return futureJSON{}, err
	}
	uses, err := a.machineUses(ctx, setup)
	if err != nil {
		return futureJSON{}, err
	}
	var known []simulate.Known
	for _, m := range e.Plan.Machines {
		known = append(known, knownMachine(c, m, uses))
	}
	simulated := simulate.Job{Name: c.Name, Schedule: c.Schedule, Lookup: c.Lookup, Window: c.Window, Bandwidth: c.limits(), Retention: c.Retention}
	now := time.Now
	if setup.Now != nil {
		now = setup.Now
	}
	return describeFuture(c, e.Plan, known, simulate.Foresee(simulated, known, now(), days, c.Schedule.Zone)), nil
}

// limits are what slows the job's copies down: those of its repositories, and its own if one of these lies across a network.
func (c chosenJob) limits() policy.Bandwidth {
	var repositories []policy.Repository
	for _, origin := range c.resources.Origins(c.Job) {
		repositories = append(repositories, origin.Repository)
	}
	if target, there := c.resources.Repository(c.Target.Repository); there {
		repositories = append(repositories, target)
	}
	var limits policy.Bandwidth
	far := false
	for _, r := range repositories {
		limits = append(limits, r.Bandwidth...)
		far = far || isRemote(c.located(r).Location)
	}
	if far {
		limits = append(limits, c.Bandwidth...)
	}
	return limits
}

// machineUses is what each machine's points need in the target.
func (a *app) machineUses(ctx context.Context, setup job.Setup) (map[backup.MachineKey]repo.MachineUse, error) {
	target, err := setup.Target.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	found, err := target.MachinesUse(ctx, a.tempDir)
	if err != nil {
		return nil, err
	}
	newest, err := target.ReadNewest(ctx)
	if err != nil {
		return nil, err
	}
	uses := map[backup.MachineKey]repo.MachineUse{}
	for _, read := range newest {
		for _, use := range found.Machines {
			if read.Err == nil && use.Machine == read.Entry.Machine {
				uses[read.Point.Machine.Key] = use
			}
		}
	}
	return uses, nil
}

// knownMachine is what the plan of an interval that begins now knows of a machine.
func knownMachine(c chosenJob, m plan.MachinePlan, uses map[backup.MachineKey]repo.MachineUse) simulate.Known {
	rules, _ := c.RetentionOf(m.Machine)
	k := simulate.Known{Name: m.Machine.Key.String(), Retention: &rules, Retired: !m.Retired.IsZero(), Purge: m.Purge}
	for _, step := range m.Steps {
		held := step.Action == plan.ActionKeep || step.Action == plan.ActionRemove
		given := step.Action == plan.ActionClaim && step.Given // in the first session, before anything is looked up
		k.Points = append(k.Points, simulate.KnownPoint{
			ID: step.Point.ID, Created: step.Point.Created, State: step.Point.State,
			Source: step.Source >= 0 && m.Selected && step.Action != plan.ActionNotBack && (!step.Given || given), Held: held || given,
			Forgotten: step.Action == plan.ActionForgotten, Again: step.Again, Flags: step.Slots, Flagged: held || given,
		})
	}
	use, there := uses[m.Machine.Key]
	for _, mapped := range m.Mapped { // under another id, as long as there is nothing under its own
		if !there {
			use, there = uses[mapped.Machine.Key]
		}
	}
	if there {
		k.Whole, k.Changed = wholeAndChanged(use)
	} else if n := len(m.Steps); n > 0 {
		k.Whole = m.Steps[n-1].Point.Size
	}
	return k
}

// wholeAndChanged is what a point needs by itself, and what another one adds to it, as they are stored.
func wholeAndChanged(use repo.MachineUse) (whole, changed int64) {
	if use.Distinct > 0 {
		changed = int64(math.Round(float64(use.Changed) * float64(use.Stored) / float64(use.Distinct)))
	}
	others := int64(max(0, use.Points-1))
	return max(use.Stored-others*changed, use.Stored/(others+1)), changed
}

// futureJSON is the output of job simulate.
type futureJSON struct {
	Job      string              `json:"job"`
	Machines []futureMachineJSON `json:"machines"`
	Days     []futureDayJSON     `json:"days"`
}

type futureMachineJSON struct {
	Machine machineJSON `json:"machine"`
	// Expects says which points the source is expected to make.
	Expects string `json:"expects"`
	Points  int    `json:"expectedPoints"`
	// Whole and Changed are the sizes that are counted with; Changed is 0 if it is not known yet.
	Whole   int64            `json:"wholeBytes"`
	Changed int64            `json:"changedBytes"`
	Kept    []futureKeptJSON `json:"kept"`
}

type futureKeptJSON struct {
	Created time.Time `json:"created"`
	Reasons []string  `json:"reasons"`
}

type futureDayJSON struct {
	// Day is by the job's calendar.
	Day     string `json:"day"`
	Copied  int    `json:"copied"`
	Removed int    `json:"removed"`
	Points  int    `json:"points"`
	Bytes   int64  `json:"bytes"`
}

func describeFuture(c chosenJob, p plan.IntervalPlan, known []simulate.Known, future simulate.Future) futureJSON {
	described := futureJSON{Job: printable(c.Name), Machines: []futureMachineJSON{}, Days: []futureDayJSON{}}
	for n, m := range future.Machines {
		row := futureMachineJSON{
			Machine: describeMachine(p.Machines[n].Machine), Expects: m.Expects, Points: m.Made, Whole: known[n].Whole, Changed: known[n].Changed, Kept: []futureKeptJSON{},
		}
		for _, kept := range m.Kept {
			row.Kept = append(row.Kept, futureKeptJSON{kept.Created.UTC(), kept.Reasons})
		}
		described.Machines = append(described.Machines, row)
	}
	for _, d := range future.Days {
		day := d.Ends.Add(-1).In(cmp.Or(c.Schedule.Zone, time.UTC)).Format(time.DateOnly)
		described.Days = append(described.Days, futureDayJSON{day, d.Stored, d.Removed, d.Points, d.Size})
	}
	return described
}

// rowsOfDays is about how many lines the days are shown in.
const rowsOfDays = 31

func (a *app) printFuture(f futureJSON) {
	step := (len(f.Days) + rowsOfDays - 1) / rowsOfDays
	rows := [][]string{{"day", "copied", "given up", "points", "size"}}
	copied, removed := 0, 0
	for n, d := range f.Days {
		copied, removed = copied+d.Copied, removed+d.Removed
		if (n+1)%step == 0 || n == len(f.Days)-1 {
			rows = append(rows, []string{d.Day, count(copied), count(removed), count(d.Points), size(d.Bytes)})
			copied, removed = 0, 0
		}
	}
	a.table(rows)
	for _, m := range f.Machines {
		a.line("")
		changed := "what changes from point to point is not known yet"
		if m.Changed > 0 {
			changed = size(m.Changed) + " more with each point"
		}
		a.line("%s: expected are %s; %s whole, %s", m.Machine.Name, m.Expects, size(m.Whole), changed)
		rows = nil
		for _, kept := range m.Kept {
			rows = append(rows, []string{"  " + when(kept.Created), joined(kept.Reasons)})
		}
		a.table(rows)
	}
	a.line("\nwhat machines share counts for each of them; space comes back with ferry reclaim; nothing was changed")
}
