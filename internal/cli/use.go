package cli

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// analysisOf is what of a repository is needed: with analyze found now, else what the last reclaim found, or nil.
func (a *app) analysisOf(ctx context.Context, repository *repo.Repository, analyze bool) (*repo.Analysis, error) {
	if analyze {
		return repository.Analyze(ctx, a.tempDir)
	}
	if use := repository.LastUse(ctx); use != nil {
		use.Condemned = repository.CondemnedBytes() // which takes no mark to know
		return &repo.Analysis{Use: *use}, nil
	}
	return nil, nil
}

// useRows say what of a repository is needed. logical is the size of all its points, for what was found now: what the last reclaim found is of
// the points that were there then.
func useRows(found *repo.Analysis, logical int64, analyzed bool) [][]string {
	if found == nil {
		return nil
	}
	use, at, are, take := found.Use, "", "are", "take"
	blocks := found.Machines.All // sealed domains too
	if !analyzed {
		blocks, logical = repo.BlockUse{Distinct: use.Content, Stored: use.Data}, use.Logical
		at, are, take = "; --analyze finds out how it is now", "were", "took"
	}
	rows := [][]string{
		{""},
		{"needed", size(use.Live) + ", as of " + when(use.At) + at},
		{"not needed", size(use.Dead) + "; ferry reclaim gives back what is worth it"},
		{"given up", size(use.Condemned) + " that waits to be deleted"},
	}
	if blocks.Distinct == 0 || blocks.Stored == 0 {
		return rows
	}
	if logical > 0 { // else an earlier version reclaimed, which did not note it
		rows = append(rows, []string{"deduplication", fmt.Sprintf("%s: %s of points %s %s of different blocks", ratio(logical, blocks.Distinct), size(logical), are, size(blocks.Distinct))})
	}
	return append(rows, []string{"compression", fmt.Sprintf("%s: they %s %s", ratio(blocks.Distinct, blocks.Stored), take, size(blocks.Stored))})
}

// ratio of two sizes, as people read it.
func ratio(of, to int64) string {
	if to == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(of)/float64(to))
}

// lastRunRows say what the last copy wrote.
func lastRunRows(run *repo.LastRun, since int) [][]string {
	if run == nil {
		return nil
	}
	rows := [][]string{
		{""},
		{"last copy", fmt.Sprintf("%s, ended %s after %s", counted(int(run.Points), "point"), when(run.Ended), run.Ended.Sub(run.Began).Round(time.Millisecond))},
		{"it wrote", fmt.Sprintf("%s of new blocks as %s, and %s of tree nodes, in %s", size(run.New), size(run.Stored), size(run.Nodes), counted(int(run.Packs), "pack"))},
	}
	if since > 0 {
		rows = append(rows, []string{"since then", counted(since, "pack") + " written by other commands, or by a copy that did not end in order"})
	}
	return rows
}

// printMachines prints what each machine's points need.
func (a *app) printMachines(found *repo.Analysis, names machineNames) {
	if found == nil || len(found.Machines.Machines) == 0 {
		return
	}
	reads, inOrder := map[string]string{}, map[string]string{}
	for _, f := range found.Fragmentation {
		reads[f.Machine.String()], inOrder[f.Machine.String()] = perGiB(f.PerGiB()), perGiB(f.InOrderPerGiB())
	}
	rows := [][]string{{"machine", "points", "size", "different", "stored", "deduplication", "compression", "changed last", "reads per GiB", "in order"}}
	for _, m := range found.Machines.Machines {
		changed := "-"
		if m.Points > 1 {
			changed = size(m.Changed)
		}
		name := names.of(m.Machine.String())
		if m.Incomplete || m.Lost > 0 {
			name += " (not all of it can be read)"
		}
		rows = append(rows, []string{
			name, count(m.Points), size(m.Logical), size(m.Distinct), size(m.Stored), ratio(m.Logical, m.Distinct), ratio(m.Distinct, m.Stored),
			changed, cmp.Or(reads[m.Machine.String()], "-"), cmp.Or(inOrder[m.Machine.String()], "-"),
		})
	}
	a.line("")
	a.table(rows)
	all, lying := found.Machines.All, found.InAll()
	a.line("\nin all %s of different blocks, stored as %s: what machines share counts for each of them above, and once here; %s reads per GiB of their newest points, %s if they lay in order",
		size(all.Distinct), size(all.Stored), perGiB(lying.PerGiB()), perGiB(lying.InOrderPerGiB()))
}

// machineNames are the names of machines, by pseudonym.
type machineNames map[string]string

// of is a machine's name, or its pseudonym where that is not known.
func (names machineNames) of(pseudonym string) string { return cmp.Or(names[pseudonym], pseudonym) }

// machineNames reads one point of each machine for its name. Without the key, or of points that are damaged, none is known.
func (a *app) machineNames(ctx context.Context, repository *repo.Repository) (machineNames, error) {
	names := machineNames{}
	if repository.Locked() {
		return names, nil
	}
	read, err := repository.ReadNewest(ctx)
	for _, p := range read {
		if p.Err == nil {
			names[p.Entry.Machine.String()] = shortName(p.Point.Machine)
		}
	}
	return names, err
}

type useJSON struct {
	At        time.Time `json:"at"`
	LogEntry  int64     `json:"logEntry"`
	Live      int64     `json:"liveBytes"`
	Dead      int64     `json:"deadBytes"`
	Condemned int64     `json:"condemnedBytes"`
	Logical   int64     `json:"logicalBytes"`
	Content   int64     `json:"contentBytes"`
	Data      int64     `json:"dataBytes"`
}

func describeUse(found *repo.Analysis) *useJSON {
	if found == nil {
		return nil
	}
	use := found.Use
	return &useJSON{
		At: use.At.UTC(), LogEntry: int64(use.Entry), Live: use.Live, Dead: use.Dead, Condemned: use.Condemned, Logical: use.Logical, Content: use.Content, Data: use.Data,
	}
}

type lyingJSON struct {
	Pseudonym   string `json:"pseudonym"`
	Machine     string `json:"machine"`
	Point       string `json:"point"`
	Blocks      int    `json:"blocks"`
	Bytes       int64  `json:"bytes"`
	Runs        int    `json:"runs"`
	RunsInOrder int    `json:"runsInOrder"`
}

type allLyingJSON struct {
	Blocks      int   `json:"blocks"`
	Bytes       int64 `json:"bytes"`
	Runs        int   `json:"runs"`
	RunsInOrder int   `json:"runsInOrder"`
}

func describeLying(found *repo.Analysis, names machineNames) (described []lyingJSON, all *allLyingJSON) {
	described = []lyingJSON{}
	if found == nil || len(found.Fragmentation) == 0 {
		return described, nil
	}
	for _, f := range found.Fragmentation {
		described = append(described, lyingJSON{
			Pseudonym: f.Machine.String(), Machine: names[f.Machine.String()], Point: f.Point.String(), Blocks: f.Blocks, Bytes: f.Bytes, Runs: f.Runs, RunsInOrder: f.InOrder,
		})
	}
	inAll := found.InAll()
	return described, &allLyingJSON{Blocks: inAll.Blocks, Bytes: inAll.Bytes, Runs: inAll.Runs, RunsInOrder: inAll.InOrder}
}

type machineUseJSON struct {
	Pseudonym string `json:"pseudonym"`
	// Machine is its name; empty where it is not known.
	Machine       string `json:"machine"`
	Points        int    `json:"points"`
	Logical       int64  `json:"logicalBytes"`
	Distinct      int64  `json:"distinctBytes"`
	Stored        int64  `json:"storedBytes"`
	Point         string `json:"point"`
	PreviousPoint string `json:"previousPoint"`
	Changed       int64  `json:"changedBytes"`
	Lost          int    `json:"lostBlocks"`
	Complete      bool   `json:"complete"`
}

type blockUseJSON struct {
	Distinct int64 `json:"distinctBytes"`
	Stored   int64 `json:"storedBytes"`
}

func describeMachines(found *repo.Analysis, names machineNames) (machines []machineUseJSON, all *blockUseJSON) {
	machines = []machineUseJSON{}
	if found == nil || len(found.Machines.Machines) == 0 {
		return machines, nil
	}
	id := func(point backup.PointID) string {
		if point == (backup.PointID{}) {
			return ""
		}
		return point.String()
	}
	for _, m := range found.Machines.Machines {
		machines = append(machines, machineUseJSON{
			Pseudonym: m.Machine.String(), Machine: names[m.Machine.String()], Points: m.Points, Logical: m.Logical, Distinct: m.Distinct, Stored: m.Stored,
			Point: id(m.Newest), PreviousPoint: id(m.Before), Changed: m.Changed, Lost: m.Lost, Complete: !m.Incomplete && m.Lost == 0,
		})
	}
	return machines, &blockUseJSON{Distinct: found.Machines.All.Distinct, Stored: found.Machines.All.Stored}
}

type lastRunJSON struct {
	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended"`
	Points     int64     `json:"points"`
	New        int64     `json:"newBytes"`
	Stored     int64     `json:"storedBytes"`
	Nodes      int64     `json:"nodeBytes"`
	Packs      int64     `json:"packs"`
	PacksSince int       `json:"packsSince"`
}

func describeLastRun(run *repo.LastRun, since int) *lastRunJSON {
	if run == nil {
		return nil
	}
	return &lastRunJSON{
		Began: run.Began.UTC(), Ended: run.Ended.UTC(), Points: run.Points, New: run.New, Stored: run.Stored, Nodes: run.Nodes, Packs: run.Packs, PacksSince: since,
	}
}
