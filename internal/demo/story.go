package demo

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"ferry/internal/backup"
	"ferry/internal/client"
	"ferry/internal/job"
)

// Folders of the story, in its own.
const (
	dumpFolder     = "dump"
	vaultFolder    = "vault"
	damagedFolder  = "damaged"
	restoredFolder = "restored"
	offsiteFolder  = "offsite"
)

// story is a demonstration under way.
type story struct {
	Options
	summary Summary
	dumps   []dumped
	// points that the vault has when all are copied, by machine and time.
	points []backup.Point
	// client asks the server.
	client *client.Client
}

func (s *story) prepare(context.Context) error {
	if socket := s.path(socketName); len(socket) > longestSocket {
		return fmt.Errorf("the path %s is too long for a server's socket: the folder must be one with a shorter path", socket)
	}
	for _, folder := range []string{dumpFolder, restoredFolder} {
		if err := os.Mkdir(s.path(folder), 0o700); err != nil {
			return err
		}
	}
	for _, m := range machines() {
		s.summary.Machines = append(s.summary.Machines, MachineSummary{ID: m.key().String(), Name: m.name})
	}
	return nil
}

// backUp is a night in which every machine is backed up.
func (s *story) backUp(ctx context.Context, day int) error {
	for _, m := range machines() {
		if err := s.backUpMachine(ctx, m, day); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) backUpMachine(ctx context.Context, m machine, day int) error {
	d, err := dump(ctx, s.path(dumpFolder), m, day)
	if err != nil {
		return err
	}
	s.dumps = append(s.dumps, d)
	s.summary.ArchiveBytes += d.archiveSize
	for _, disk := range m.disks {
		s.summary.GeneratedBytes += disk.size
	}
	return nil
}

// firstDay: what is there, and the first copy of it.
func (s *story) firstDay(ctx context.Context) error {
	if err := s.backUp(ctx, 0); err != nil {
		return err
	}
	s.Narrator.Heading("Day 1: two backups, and a copy of them")
	s.Narrator.Say("In the night Proxmox VE wrote backups of a web server and a database to the folder dump. What is there?")
	s.Narrator.Command("ferry points " + dumpFolder)
	if err := s.listPoints(ctx); err != nil {
		return err
	}
	s.Narrator.Say("Copy them into a new Ferry repository, vault. The system that both machines run on is stored once.")
	return s.copyNewest(ctx, copying{from: dumpFolder, to: vaultFolder, create: true}, 0)
}

// listPoints shows the points of the first day. Ferry must have found out by itself whose they are.
func (s *story) listPoints(ctx context.Context) error {
	source, err := s.open(ctx, dumpFolder)
	if err != nil {
		return err
	}
	defer source.Close()
	var rows [][]string
	var found []string
	for _, p := range source.Points {
		var disks []string
		for _, o := range p.Objects {
			if o.Role == backup.RoleDisk {
				disks = append(disks, o.Name+" "+bytesText(o.Size))
			}
		}
		rows = append(rows, []string{p.Machine.Name, p.ID.Short(), timeText(p.Created), string(p.State), p.Origin.Format, strings.Join(disks, ", ")})
		found = append(found, p.Machine.Key.String())
		if p.State != backup.StateComplete {
			return fmt.Errorf("point %s of %s is %s: %s", p.ID.Short(), p.Machine.Name, p.State, p.Reason)
		}
	}
	s.Narrator.Result(rows...)
	var expected []string
	for _, m := range machines() {
		expected = append(expected, m.key().String())
	}
	slices.Sort(expected)
	if !slices.Equal(found, expected) {
		return fmt.Errorf("machines found are %q, not %q", found, expected)
	}
	return nil
}

// copyNewest copies the machines' newest points, as ferry copy does without --all, and checks what came of it.
func (s *story) copyNewest(ctx context.Context, c copying, day int) error {
	s.Narrator.Command(c.String())
	report, summary, err := s.copy(ctx, c)
	if err != nil {
		return err
	}
	s.Narrator.Result(copiedRows(report)...)
	return expectCopy(summary, len(machines()), len(machines())*day)
}

func expectCopy(summary CopySummary, copied, there int) error {
	if summary.Copied != copied || summary.AlreadyThere != there {
		return fmt.Errorf("%s: %d points copied and %d already there, not %d and %d", summary.Command, summary.Copied, summary.AlreadyThere, copied, there)
	}
	if copied == 0 && (summary.DataBytesRead != 0 || summary.StoredBytes != 0) {
		return fmt.Errorf("%s: nothing was to be done, but %d bytes of data were read and %d stored", summary.Command, summary.DataBytesRead, summary.StoredBytes)
	}
	return nil
}

// copiedRows shows points that were copied, and counts those that were there.
func copiedRows(report job.Report) [][]string {
	var rows [][]string
	for _, step := range report.Steps {
		if step.Outcome == job.OutcomeCopied {
			r := step.Result
			rows = append(rows, []string{
				"copied", step.Point.Machine.Name, timeText(step.Point.Created), bytesText(r.Logical),
				"read " + bytesText(r.Read), "new " + bytesText(r.NewBytes), "stored " + bytesText(r.Stored),
			})
		}
	}
	return rows
}

func copiedText(summary CopySummary) string {
	return fmt.Sprintf("%d copied, %d already there, 0 failed; stored %s", summary.Copied, summary.AlreadyThere, bytesText(summary.StoredBytes))
}

// laterDays: only what changed is stored, and what is there is not copied again.
func (s *story) laterDays(ctx context.Context) error {
	s.Narrator.Heading("Days 2 and 3: only what is new")
	s.Narrator.Say("Every night brings two more full backups. Of each, only the blocks that the vault lacks are stored.")
	for day := 1; day < days; day++ {
		if err := s.backUp(ctx, day); err != nil {
			return err
		}
		if err := s.copyNewest(ctx, copying{from: dumpFolder, to: vaultFolder}, day); err != nil {
			return fmt.Errorf("day %d: %w", day+1, err)
		}
	}
	s.Narrator.Say("Once more, with nothing new: of each backup only the beginning is read.")
	c := copying{from: dumpFolder, to: vaultFolder}
	s.Narrator.Command(c.String())
	_, summary, err := s.copy(ctx, c)
	if err != nil {
		return err
	}
	s.Narrator.Result([]string{copiedText(summary)})
	if err := expectCopy(summary, 0, len(s.dumps)); err != nil {
		return err
	}
	return s.showVault(ctx)
}

// showVault says what the repository has and what it takes.
func (s *story) showVault(ctx context.Context) error {
	summary, points, err := s.info(ctx, vaultFolder)
	if err != nil {
		return err
	}
	s.points = points
	slices.SortFunc(s.points, func(a, b backup.Point) int {
		return cmp.Or(strings.Compare(a.Machine.Key.String(), b.Machine.Key.String()), a.Created.Compare(b.Created))
	})
	for i, m := range s.summary.Machines {
		for _, p := range s.points {
			if p.Machine.Key.String() == m.ID {
				s.summary.Machines[i].Points = append(s.summary.Machines[i].Points, p.ID.String())
			}
		}
	}
	read := int64(0)
	for _, c := range s.summary.Copies {
		read += c.ReadBytes
	}
	s.summary.Vault = summary
	s.Narrator.Say("Every point in the vault is whole and needs no other one. What do they take together?")
	s.Narrator.Command("ferry repo info " + vaultFolder)
	s.Narrator.Result(
		[]string{"points", fmt.Sprintf("%d of %d machines", summary.Points, len(s.summary.Machines))},
		[]string{"size of all points", fmt.Sprintf("%s: %s of data, the rest are holes", bytesText(summary.LogicalBytes), bytesText(read))},
		[]string{"stored", fmt.Sprintf("%s: a %s of the data; the archives of vzdump take %s", bytesText(summary.StoredBytes), fraction(summary.StoredBytes, read), bytesText(s.summary.ArchiveBytes))},
	)
	if summary.Points != len(s.dumps) {
		return fmt.Errorf("the vault has %d points, not %d", summary.Points, len(s.dumps))
	}
	return nil
}

// fraction is a share in words.
func fraction(part, whole int64) string {
	names := map[int64]string{2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth", 10: "tenth"}
	if name, ok := names[(whole+part/2)/max(part, 1)]; ok {
		return name
	}
	return fmt.Sprintf("%d %%", part*100/max(whole, 1))
}

// bytesText is a number of bytes as people read it.
func bytesText(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }
