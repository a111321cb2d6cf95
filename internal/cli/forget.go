package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/policy"
	"ferry/internal/repo"
	"ferry/internal/source/ferry"
)

type forgetFlags struct {
	plan.ForgetRequest
	job, zone, weeklyOn string
	dryRun              bool
}

func (a *app) forgetCommand() *cobra.Command {
	var f forgetFlags
	command := &cobra.Command{
		Use:   "forget REPOSITORY [MACHINE...]",
		Short: "Give up points, by rules or by name",
		Long: `Withdraw the claim on points: by rules, of which any may keep a point, or by
name. A point that nothing else claims or holds is gone then; ferry reclaim gives
its space back. Nothing is read but the repository's log and the points' files.

Age is measured from a machine's newest good point, not from the clock, and that
point always stays, unless it is named and --newest is given. Damaged points do not
count as good; one whose own file is lost can be named, too. MACHINE is a glob that
matches a machine's id, native id or name, or label=GLOB; none means all.`,
		Example: `  ferry forget /mnt/usb/vault --keep-days 14 --keep-weekly 4 --dry-run
  ferry forget /mnt/usb/vault --keep-days 14 --keep-weekly 4 --keep-monthly 12
  ferry forget /mnt/usb/vault web01 'test-*' --keep-points 3
  ferry forget /mnt/usb/vault --point 9313927d9121`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeForget,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return arguments("REPOSITORY")(cmd, args)
			}
			f.Machines = args[1:]
			return a.forget(cmd.Context(), args[0], f)
		},
	}
	flags := command.Flags()
	flags.IntVar(&f.Rules.Points, "keep-points", 0, "keep the newest `N` good points")
	flags.IntVar(&f.Rules.Days, "keep-days", 0, "keep the day of the newest good point and `N` days before it, never fewer than 3 points")
	for tier, name := range map[policy.Tier]string{policy.Weekly: "week", policy.Monthly: "month", policy.Quarterly: "quarter", policy.Yearly: "year"} {
		flags.IntVar(&f.Rules.Tiers[tier].Keep, "keep-"+tier.String(), 0, "keep the first good point of each `N` newest "+name+"s that have one")
	}
	flags.StringVar(&f.weeklyOn, "weekly-on", "sunday", "`WEEKDAY` on which weeks begin, and months with the first of them")
	flags.StringVar(&f.zone, "time-zone", "", "`ZONE` whose days count, such as Europe/Berlin (default: this machine's)")
	flags.StringArrayVar(&f.Points, "point", nil, "give up the point whose `ID` begins so, 6 characters or more (repeatable)")
	flags.BoolVar(&f.Newest, "newest", false, "with --point: also the newest good point of a machine")
	flags.StringVar(&f.job, "job", policy.ManualJob, "withdraw the claims of this `JOB`")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would become of every point, and why; change nothing")
	return command
}

// request checks the flags and completes the rules.
func (f *forgetFlags) request() error {
	byName := len(f.Points) > 0
	switch {
	case byName && !f.Rules.Empty():
		return usage("--point names points and --keep-… gives rules: one or the other")
	case !byName && f.Rules.Empty():
		return hinted(usage("nothing to go by: give rules (--keep-days 14, --keep-points 7, …) or points (--point ID)"), "--dry-run shows what they would do")
	case f.Newest && !byName:
		return usage("--newest goes with --point: rules never remove the newest good point")
	}
	if !byName {
		on, err := policy.ParseOn(f.weeklyOn)
		if err != nil {
			return usage("--weekly-on: %w", err)
		}
		f.Rules.Tiers[policy.Weekly].On = on
		f.Rules.Zone = time.Local
		if f.zone != "" {
			if f.Rules.Zone, err = time.LoadLocation(f.zone); err != nil {
				return usage("--time-zone: there is no time zone %s", backup.EncodeName(f.zone))
			}
		}
	}
	if err := f.Rules.Check(); err != nil {
		return usage("%w", err)
	}
	return nil
}

func (a *app) forget(ctx context.Context, location string, f forgetFlags) error {
	if err := f.request(); err != nil {
		return err
	}
	repository, err := a.openRepository(ctx, location)
	if err != nil {
		return err
	}
	defer repository.Close()
	if err := repository.Writable(); err != nil && !f.dryRun {
		return err
	}
	points, err := a.pointsToForget(ctx, repository)
	if err != nil {
		return err
	}
	steps, err := plan.Forget(points, claimsOf(repository, f.job), f.ForgetRequest, time.Now())
	switch {
	case errors.Is(err, plan.ErrNewest):
		return hinted(&exitError{code: ExitUsage, err: err}, "to give it up all the same, add --newest")
	case errors.Is(err, plan.ErrNotFound):
		return hinted(err, claimedInstead(repository, points, f))
	case err != nil:
		return err
	case len(steps) == 0:
		return hinted(nothingClaimed(location, points, f), claimedInstead(repository, points, f))
	}
	done, err := giveUp(ctx, repository, f, steps)
	if err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	if a.json {
		return a.printJSON(describeForget(repository, f, steps, done))
	}
	a.printForget(steps, done, f.dryRun)
	return nil
}

// pointsToForget are all points, those too that are damaged or whose own file cannot be read: giving one up may be what is left to
// do with it. Without the key of an encrypted repository machines have pseudonyms.
func (a *app) pointsToForget(ctx context.Context, repository *repo.Repository) ([]backup.Point, error) {
	entries := repository.Entries()
	points := make([]backup.Point, 0, len(entries))
	if repository.Locked() {
		a.warnings([]string{repository.WhyLocked() + ": machines have pseudonyms, and points that are still in a source are copied again unless a rule of the copy leaves them out"})
		read, err := repository.ReadHeaders(ctx, entries)
		for _, p := range read {
			points = append(points, loggedPoint(repository, p.Entry, p.Err))
		}
		return points, err
	}
	read, err := repository.ReadPoints(ctx, entries)
	if err != nil {
		return nil, err
	}
	machines := map[repo.Pseudonym]backup.Machine{} // by their newest points, which are the last
	for _, p := range read {
		if p.Err == nil {
			machines[p.Entry.Machine] = p.Point.Machine
		}
	}
	for _, p := range read {
		if p.Err == nil {
			points = append(points, repository.AsFound(p.Point.Point))
			continue
		}
		point := loggedPoint(repository, p.Entry, p.Err)
		if machine, known := machines[p.Entry.Machine]; known {
			point.Machine = machine
		}
		points = append(points, point)
	}
	return points, nil
}

// loggedPoint is a point by what the log knows of it; err is why its file cannot be read. Trouble that may pass says nothing about
// whether the point is good.
func loggedPoint(repository *repo.Repository, entry repo.Entry, err error) backup.Point {
	point := ferry.Logged(entry)
	switch {
	case err == nil:
		point.State = backup.StateComplete
	case errors.Is(err, backup.ErrDamaged):
		point.State, point.Reason = backup.StateBroken, job.Reason(err)
	default:
		point.State, point.Reason = backup.StateUnsupported, job.Reason(err)
	}
	return repository.AsFound(point)
}

// claimsOf tells which points a job claims, and which slots were decided for them.
func claimsOf(repository *repo.Repository, name string) func(backup.PointID) (plan.Claim, bool) {
	return func(id backup.PointID) (plan.Claim, bool) { return job.ClaimOf(repository, name, id) }
}

// giveUp carries the steps out, or in a dry run finds out what that would do. Points that stay keep the slots that were decided for them;
// for those that do not count nothing was, and they may be healed.
func giveUp(ctx context.Context, repository *repo.Repository, f forgetFlags, steps []plan.ForgetStep) ([]repo.Forgotten, error) {
	var points []repo.Forgetting
	slots := map[backup.PointID][]string{}
	claimed := claimsOf(repository, f.job)
	withKey := !repository.Locked() // else only what gives up may be said
	for _, step := range steps {
		switch claim, _ := claimed(step.Point.ID); {
		case step.Remove:
			points = append(points, repo.Forgetting{Point: step.Point.ID, Reason: step.Reasons[0], Tombstone: withKey})
		case claim.Flagged || !f.Rules.HasTiers() || !withKey || step.Point.State != backup.StateComplete:
		default:
			slots[step.Point.ID] = job.FlagsOf(step.Slots)
		}
	}
	if f.dryRun {
		return repository.WouldForget(ctx, f.job, points)
	}
	return repository.Forget(ctx, f.job, points, slots)
}

func (a *app) printForget(steps []plan.ForgetStep, done []repo.Forgotten, dryRun bool) {
	outcome := map[backup.PointID]repo.Forgotten{}
	for _, d := range done {
		outcome[d.Point] = d
	}
	var machine backup.MachineKey
	var rows [][]string
	removed, stays := 0, 0
	for i, step := range steps {
		if key := step.Point.Machine.Key; i == 0 || key != machine {
			a.sayTable(rows)
			if rows = nil; i > 0 {
				a.say("")
			}
			a.say("%s", machineTitle(step.Point.Machine))
			machine = key
		}
		word, why := "keep", strings.Join(step.Reasons, "; ")
		if step.Remove {
			word = "remove"
			removed++
			if kept := whatKeeps(outcome[step.Point.ID]); kept != "" {
				word, why = "stays", kept
				removed--
				stays++
			}
		}
		if step.Point.Reason != "" {
			why += "; " + step.Point.Reason
		}
		rows = append(rows, []string{"  " + step.Point.ID.Short(), when(step.Point.Created), word, readable(why)})
	}
	a.sayTable(rows)
	a.say("")
	switch summary := fmt.Sprintf("%s, %d kept", counted(removed, "point")+" removed", len(steps)-removed); {
	case dryRun:
		a.say("this would be the outcome: %s; nothing was changed", summary)
	case stays > 0:
		a.say("%s, of which %d by others than this job", summary, stays)
	case removed > 0:
		a.say("%s; ferry reclaim gives the space back", summary)
	default:
		a.say("%s", summary)
	}
}

// sayTable prints a table unless --quiet.
func (a *app) sayTable(rows [][]string) {
	if !a.quiet {
		a.table(rows)
	}
}

// whatKeeps says what else keeps a point that the job gave up; empty if nothing does.
func whatKeeps(f repo.Forgotten) string {
	var by []string
	if len(f.ClaimedBy) > 0 {
		by = append(by, "claimed by "+printable(strings.Join(f.ClaimedBy, ", ")))
	}
	for _, hold := range f.Holds {
		by = append(by, holdText(hold))
	}
	return strings.Join(by, "; ")
}

func nothingClaimed(location string, points []backup.Point, f forgetFlags) error {
	if len(points) == 0 {
		return exitWith(ExitNothing, "no points in %s", location)
	}
	if !slices.ContainsFunc(points, func(p backup.Point) bool { return plan.Selected(p.Machine, f.Machines) }) {
		return nothingSelected(location, points, nil, f.Machines)
	}
	of := ""
	if len(f.Machines) > 0 {
		of = " of " + printable(strings.Join(f.Machines, ", "))
	}
	return exitWith(ExitNothing, "job %s claims no point%s in %s", printable(f.job), of, location)
}

// claimedInstead says which other jobs claim points that were asked for, and how to give up theirs; empty if none does.
func claimedInstead(repository *repo.Repository, points []backup.Point, f forgetFlags) string {
	claims := map[string]int{}
	for _, p := range points {
		named := len(f.Points) == 0 || slices.ContainsFunc(f.Points, func(text string) bool { return strings.HasPrefix(p.ID.String(), strings.ToLower(text)) })
		if !named || !plan.Selected(p.Machine, f.Machines) {
			continue
		}
		for _, claim := range repository.Claims(p.ID) {
			if claim.Job != f.job {
				claims[claim.Job]++
			}
		}
	}
	if len(claims) == 0 {
		return ""
	}
	var jobs []string
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		jobs = append(jobs, fmt.Sprintf("%s (%s)", printable(name), counted(claims[name], "point")))
	}
	return "those asked for are claimed by " + strings.Join(jobs, ", ") + ": give up what one job claims with --job NAME"
}

// completeForget completes a repository, then its machines.
func (a *app) completeForget(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	return a.completeRestore(cmd, args[:min(len(args), 1)], start)
}

// forgetJSON is the output of forget, also with --dry-run.
type forgetJSON struct {
	Repository placeJSON        `json:"repository"`
	Job        string           `json:"job"`
	DryRun     bool             `json:"dryRun"`
	Points     []forgetStepJSON `json:"points"`
	Removed    int              `json:"removed"`
}

type forgetStepJSON struct {
	Point   string      `json:"point"`
	Machine machineJSON `json:"machine"`
	Created time.Time   `json:"created"`
	// State of the point, and why it is not complete; empty if it is.
	State       string `json:"state"`
	StateReason string `json:"stateReason"`
	// Remove: the job gives the point up. Removed: it is gone.
	Remove    bool           `json:"remove"`
	Removed   bool           `json:"removed"`
	Reasons   []string       `json:"reasons"`
	Slots     []string       `json:"slots"`
	ClaimedBy []string       `json:"claimedBy"`
	Holds     []holdInfoJSON `json:"holds"`
}

type holdInfoJSON struct {
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty"`
}

func describeForget(repository *repo.Repository, f forgetFlags, steps []plan.ForgetStep, done []repo.Forgotten) forgetJSON {
	outcome := map[backup.PointID]repo.Forgotten{}
	for _, d := range done {
		outcome[d.Point] = d
	}
	described := forgetJSON{Repository: describePlace(repository), Job: printable(f.job), DryRun: f.dryRun, Points: []forgetStepJSON{}}
	for _, step := range steps {
		became := outcome[step.Point.ID]
		row := forgetStepJSON{
			Point: step.Point.ID.String(), Machine: describeMachine(step.Point.Machine), Created: step.Point.Created, Remove: step.Remove, Removed: became.Removed,
			State: string(step.Point.State), StateReason: readable(step.Point.Reason),
			Reasons: step.Reasons, Slots: append([]string{}, step.Slots...), ClaimedBy: []string{}, Holds: describeHolds(became.Holds),
		}
		for _, job := range became.ClaimedBy {
			row.ClaimedBy = append(row.ClaimedBy, printable(job))
		}
		if became.Removed {
			described.Removed++
		}
		described.Points = append(described.Points, row)
	}
	return described
}
