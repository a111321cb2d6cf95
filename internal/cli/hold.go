package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
)

type holdFlags struct{ reason, until string }

func (a *app) holdCommand() *cobra.Command {
	var f holdFlags
	command := &cobra.Command{
		Use: "hold REPOSITORY POINT...", Short: "Keep points, whatever rules and jobs say",
		Long: `Hold points: neither a job's rules nor ferry forget remove them until the date that
--until gives, or until ferry release. POINT is the beginning of its id, six
characters or more. Holding a point again replaces the reason and the date.

The reason is written in the repository's log in clear, also if it is encrypted.`,
		Example: `  ferry hold /mnt/usb/vault 9313927d9121 --reason "audit of 2026"
  ferry hold /mnt/usb/vault 9313927d9121 --reason "before the migration" --until 2027-03-31`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHeld,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("say the repository and at least one point: ferry hold REPOSITORY POINT...")
			}
			return a.hold(cmd.Context(), args[0], args[1:], f)
		},
	}
	command.Flags().StringVar(&f.reason, "reason", "", "`TEXT` that says why, for whoever wonders later; needed")
	command.Flags().StringVar(&f.until, "until", "", "hold through this `DATE`, or until a time comes, and no longer (default: until ferry release)")
	return command
}

func (a *app) releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "release REPOSITORY POINT...", Short: "End what ferry hold began",
		Long: `Release points that ferry hold holds. The rules of the jobs that claim them hold
again; what no job claims any more goes with the next ferry reclaim. What a running
restore holds stays held.`,
		Example:           "  ferry release /mnt/usb/vault 9313927d9121",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHeld,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("say the repository and at least one point: ferry release REPOSITORY POINT...")
			}
			return a.release(cmd.Context(), args[0], args[1:])
		},
	}
}

// completeHeld completes a repository.
func (a *app) completeHeld(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return completeFolder(cmd, args, start)
}

func (a *app) hold(ctx context.Context, location string, points []string, f holdFlags) error {
	if strings.TrimSpace(f.reason) == "" {
		return usage("--reason says why the points are held, for whoever wonders later")
	}
	if len(f.reason) > repo.MaxHoldReason {
		return usage("--reason takes at most %d bytes", repo.MaxHoldReason)
	}
	until, err := holdUntil(f.until, time.Now())
	if err != nil {
		return err
	}
	repository, ids, err := a.namedPoints(ctx, location, points)
	if err != nil {
		return err
	}
	defer repository.Close()
	if err := repository.HoldForPerson(ctx, ids, f.reason, until); err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	text := "held until ferry release"
	if !until.IsZero() {
		text = "held until " + when(until)
	}
	return a.sayHolds(repository, ids, func(id backup.PointID) string {
		if damage, damaged := repository.DamageOf(id); damaged {
			return text + "; it is " + damage.String()
		}
		return text
	})
}

// holdUntil is the time that a person gave; zero without one.
func holdUntil(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	until, ok := plan.ParseUntil(text, time.Local)
	switch {
	case !ok:
		return until, usage("--until %s: say a day or a time, such as 2027-03-31 or \"2027-03-31 18:00\"", printable(text))
	case !until.After(now):
		return until, usage("--until %s has passed", printable(text))
	}
	return until, nil
}

func (a *app) release(ctx context.Context, location string, points []string) error {
	repository, ids, err := a.namedPoints(ctx, location, points)
	if err != nil {
		return err
	}
	defer repository.Close()
	released, err := repository.ReleaseForPerson(ctx, ids)
	if err != nil {
		return err
	}
	a.warnings(repository.Warnings())
	return a.sayHolds(repository, ids, func(id backup.PointID) string {
		switch {
		case !slices.Contains(released, id):
			return "ferry hold does not hold it"
		case len(repository.Claims(id))+len(repository.HoldsOn(id)) == 0:
			return "released; no job claims it, and the next ferry reclaim removes it"
		}
		return "released"
	})
}

// namedPoints opens a repository to write to, and finds the points that texts name, each once, as they were given.
func (a *app) namedPoints(ctx context.Context, location string, texts []string) (*repo.Repository, []backup.PointID, error) {
	repository, err := a.openRepository(ctx, location)
	if err != nil {
		return nil, nil, err
	}
	var ids []backup.PointID
	if err = errors.Join(repository.NeedsKey(), repository.Writable()); err == nil {
		var all []backup.PointID
		for _, entry := range repository.Entries() {
			all = append(all, entry.ID)
		}
		for _, text := range texts {
			var at int
			if at, err = plan.PointNamed(all, text); err != nil {
				break
			}
			if !slices.Contains(ids, all[at]) {
				ids = append(ids, all[at])
			}
		}
	}
	if err != nil {
		repository.Close()
		return nil, nil, err
	}
	return repository, ids, nil
}

// sayHolds says what became of points.
func (a *app) sayHolds(repository *repo.Repository, ids []backup.PointID, outcome func(backup.PointID) string) error {
	described := holdJSON{Repository: describePlace(repository), Points: []heldJSON{}}
	for _, id := range ids {
		described.Points = append(described.Points, heldJSON{Point: id.String(), Outcome: outcome(id), Holds: describeHolds(repository.HoldsOn(id))})
	}
	if a.json {
		return a.printJSON(described)
	}
	for i, id := range ids {
		a.say("%s  %s", id.Short(), described.Points[i].Outcome)
	}
	return nil
}

// holdText says who holds a point, and until when.
func holdText(h repo.HoldInfo) string {
	text := "held: " + printable(h.Reason)
	if !h.Until.IsZero() {
		text += ", until " + when(h.Until)
	}
	return text
}

func describeHolds(holds []repo.HoldInfo) []holdInfoJSON {
	described := []holdInfoJSON{}
	for _, hold := range holds {
		described = append(described, holdInfoJSON{Reason: printable(hold.Reason), Until: timeOrNone(hold.Until)})
	}
	return described
}

// holdJSON is the output of hold and of release.
type holdJSON struct {
	Repository placeJSON  `json:"repository"`
	Points     []heldJSON `json:"points"`
}

type heldJSON struct {
	Point   string         `json:"point"`
	Outcome string         `json:"outcome"`
	Holds   []holdInfoJSON `json:"holds"`
}
