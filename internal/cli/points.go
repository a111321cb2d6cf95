package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/plan"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// pointJSON is a point in --json. docs/json.md documents it; names do not change.
type pointJSON struct {
	ID      string      `json:"id"`
	Machine machineJSON `json:"machine"`
	Created time.Time   `json:"created"`
	Zone    string      `json:"zone"`
	State   string      `json:"state"`
	Proven  bool        `json:"proven"`
	Reason  string      `json:"reason"`
	Disks   []diskJSON  `json:"disks"`
	Origin  originJSON  `json:"origin"`
	Hops    []hopJSON   `json:"hops"`
}

type machineJSON struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Platform string   `json:"platform"`
	Labels   []string `json:"labels"`
}

type diskJSON struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Size in bytes; -1 if it shows only by reading.
	Size int64 `json:"size"`
}

type originJSON struct {
	Format   string `json:"format"`
	Source   string `json:"source"`
	Location string `json:"location"`
}

type hopJSON struct {
	Repository string    `json:"repository"`
	Time       time.Time `json:"time"`
}

func describePoint(p backup.Point) pointJSON {
	described := pointJSON{
		ID: p.ID.String(), Machine: describeMachine(p.Machine), Created: p.Created.UTC(), Zone: p.Zone, State: string(p.State),
		Proven: p.Proven, Reason: printable(p.Reason), Disks: []diskJSON{}, Hops: []hopJSON{},
		Origin: originJSON{Format: p.Origin.Format, Source: printable(p.Origin.Source), Location: printable(p.Origin.Location)},
	}
	for _, o := range p.Objects {
		if isContent(o) {
			described.Disks = append(described.Disks, diskJSON{Name: printable(o.Name), Role: string(o.Role), Size: o.Size})
		}
	}
	for _, hop := range p.Hops {
		described.Hops = append(described.Hops, hopJSON{Repository: hop.RepositoryID, Time: hop.Time})
	}
	return described
}

func describeMachine(m backup.Machine) machineJSON {
	described := machineJSON{ID: m.Key.String(), Name: printable(m.Name), Platform: string(m.Key.Platform), Labels: []string{}}
	for _, label := range m.Labels {
		described.Labels = append(described.Labels, printable(label))
	}
	return described
}

// isContent is true for what holds the machine's data, as opposed to what describes it.
func isContent(o backup.Object) bool {
	switch o.Role {
	case backup.RoleDisk, backup.RoleArchive, backup.RoleFirmware, backup.RoleTPM, backup.RoleMemory:
		return true
	}
	return false
}

func machineTitle(m backup.Machine) string {
	if m.Name == "" || m.Name == m.Key.NativeID {
		return m.Key.String()
	}
	return printable(m.Name) + "  " + m.Key.String()
}

func (a *app) pointsCommand() *cobra.Command {
	var check bool
	var name string
	command := &cobra.Command{
		Use:   "points LOCATION",
		Short: "List the restore points in a folder of backups or in a Ferry repository",
		Long: `List the restore points in a folder: of any format that Ferry reads, mixed, three levels deep, or of a Ferry
repository. Headers and names are read only, so "complete" means: as far as they tell. With --check everything is read
and points that are good are proven.`,
		Example: `  ferry points /mnt/pve/dump
  ferry points /mnt/usb/vault --json
  ferry points /mnt/pve/dump --check`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.points(cmd.Context(), args[0], name, check)
		},
	}
	command.Flags().BoolVar(&check, "check", false, "read every point whole and prove it")
	command.Flags().StringVar(&name, "source-name", "", "name of the source, for machines without a UUID (default: the folder's name)")
	return command
}

func (a *app) points(ctx context.Context, location, name string, check bool) error {
	opened, err := a.openSource(ctx, location, name)
	if err != nil {
		return err
	}
	defer opened.Close()
	if len(opened.Points) == 0 && len(opened.Problems) > 0 && isRepository(location) {
		return opened.Problems[0]
	}
	broken := 0
	if check {
		if broken, err = a.check(ctx, opened); err != nil {
			return err
		}
	}
	points := []pointJSON{}
	for _, p := range opened.Points {
		points = append(points, describePoint(p.Point))
	}
	if a.json {
		err = a.printJSON(map[string]any{"points": points, "unknownFiles": opened.Unknown})
	} else {
		a.printPoints(opened)
	}
	if err == nil && broken > 0 {
		return &exitError{code: ExitSomeFailed}
	}
	return err
}

// check reads all complete points and turns those that fail into broken ones. It returns how many points are broken.
func (a *app) check(ctx context.Context, opened *registry.Source) (int, error) {
	shown := a.newBars()
	defer shown.done()
	broken := 0
	for i := range opened.Points {
		p := &opened.Points[i]
		if p.State == backup.StateComplete && !p.Proven {
			end := func() {}
			err := job.Check(ctx, *p, func(total, done func() int64) {
				end = shown.add(printable(p.Machine.Name)+" "+when(p.Created), total, done)
			})
			end()
			if ctx.Err() != nil {
				return broken, ctx.Err()
			}
			a.checked(opened, p, err)
		}
		if p.State == backup.StateBroken {
			broken++
		}
	}
	return broken, nil
}

func (a *app) checked(opened *registry.Source, p *source.Point, err error) {
	switch {
	case err == nil:
		p.Proven = true
	case errors.Is(err, backup.ErrLocked) || errors.Is(err, backup.ErrChanged):
		p.State, p.Reason = backup.StateLocked, err.Error()
	default:
		p.State, p.Reason = backup.StateBroken, err.Error()
		if rememberErr := opened.RememberBroken(*p, err.Error()); rememberErr != nil {
			a.warnings([]string{rememberErr.Error()})
		}
	}
}

func (a *app) printPoints(opened *registry.Source) {
	byMachine := map[backup.MachineKey][]source.Point{}
	var all []backup.Point
	for _, p := range opened.Points {
		byMachine[p.Machine.Key] = append(byMachine[p.Machine.Key], p)
		all = append(all, p.Point)
	}
	for i, m := range plan.Machines(all) {
		if i > 0 {
			a.line("")
		}
		a.line("%s", machineTitle(m))
		rows := [][]string{}
		for _, p := range byMachine[m.Key] {
			rows = append(rows, pointRow(p.Point))
		}
		a.table(rows)
	}
	switch {
	case len(opened.Points) == 0:
		a.line("no restore points in %s", opened.Root.Path())
	case opened.Unknown > 0:
		a.line("\n%d other files", opened.Unknown)
	}
	if len(opened.Points) == 0 && opened.Unknown > 0 {
		a.line("%d files of no format that Ferry knows", opened.Unknown)
	}
}

func pointRow(p backup.Point) []string {
	state := string(p.State)
	if p.Proven {
		state = "proven"
	}
	created := when(p.Created)
	if p.Zone == "unknown" {
		created += "?"
	}
	var disks []string
	for _, o := range p.Objects {
		if isContent(o) {
			disks = append(disks, fmt.Sprintf("%s %s", printable(o.Name), size(o.Size)))
		}
	}
	detail := strings.Join(disks, ", ")
	if p.Reason != "" {
		detail = printable(p.Reason)
	}
	return []string{"  " + p.ID.Short(), created, state, p.Origin.Format, detail}
}
