package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/restore"
)

// verify: the copy is proven, without its source.
func (s *story) verify(ctx context.Context) error {
	s.Narrator.Heading("Is the copy good?")
	s.Narrator.Say("Verify reads and proves every stored byte. It does not need the backups that were copied.")
	s.Narrator.Command("ferry verify " + vaultFolder)
	report, err := s.check(ctx, vaultFolder)
	if err != nil {
		return err
	}
	if len(report.Damage) > 0 || report.Points != len(s.dumps) {
		return fmt.Errorf("the vault has %d points and %d damaged places, not %d and none", report.Points, len(report.Damage), len(s.dumps))
	}
	s.summary.Vault.VerifiedBytes = report.Bytes
	s.Narrator.Result([]string{verifiedText(report) + ": everything is what was copied"})
	return nil
}

func verifiedText(report *repo.VerifyReport) string {
	return fmt.Sprintf("verified %d points, %d packs, %d blocks and nodes, %s", report.Points, report.Packs, report.Frames, bytesText(report.Bytes))
}

// flipBit: one wrong bit is found, and named.
func (s *story) flipBit(ctx context.Context) error {
	if err := os.CopyFS(s.path(damagedFolder), os.DirFS(s.path(vaultFolder))); err != nil {
		return err
	}
	pack, size, err := largestFile(s.path(damagedFolder, "packs"))
	if err != nil {
		return err
	}
	damage := DamageSummary{Location: s.path(damagedFolder), File: filepath.Join("packs", pack), Offset: size / 2}
	if err := flip(s.path(damagedFolder, damage.File), damage.Offset); err != nil {
		return err
	}
	s.Narrator.Say(fmt.Sprintf("And if a disk goes bad? The folder damaged is a copy of the vault, with one bit of %s flipped.", bytesText(s.summary.Vault.StoredBytes)))
	s.Narrator.Command("ferry verify " + damagedFolder)
	elsewhere := *s // verify notes in the copy's log what it finds: whoever remembers that finds the vault behind it
	elsewhere.Environment.CacheDir = ""
	report, err := elsewhere.check(ctx, damagedFolder)
	if err != nil {
		return err
	}
	var first repo.Damage
	for _, d := range report.Damage {
		if d.Machine != "" && !slices.Contains(damage.Points, d.Point) {
			damage.Points = append(damage.Points, d.Point)
			if first.Machine == "" {
				first = d
			}
		}
	}
	if first.Machine == "" {
		return fmt.Errorf("a bit of %s in %s was flipped and verify did not say whose it is", damage.File, damagedFolder)
	}
	s.summary.FlippedBit = damage
	where := fmt.Sprintf("%s, bytes %d to %d", first.Object, first.Offset, first.Offset+first.Length-1)
	rows := [][]string{{fmt.Sprintf("DAMAGED  machine %s, point %s, %s", first.Machine, first.Point[:12], where)}}
	if more := len(damage.Points) - 1; more > 0 {
		rows = append(rows, []string{fmt.Sprintf("         and in %d more points that share the block", more)})
	}
	s.Narrator.Result(rows...)
	return nil
}

// restore: the first and the latest point of a machine, compared with what was generated.
func (s *story) restore(ctx context.Context) error {
	s.Narrator.Heading("Getting a machine back")
	s.Narrator.Say("Restore disks and configuration, and compare them with those generated: byte for byte, and by SHA-256.")
	web := machines()[0]
	first := slices.IndexFunc(s.points, func(p backup.Point) bool { return p.Machine.Key == web.key() })
	if first < 0 {
		return fmt.Errorf("the vault has no point of %s", web.name)
	}
	if err := s.restoreAndCompare(ctx, restoring{
		from: vaultFolder, machine: web.name, point: s.points[first].ID.Short(), to: filepath.Join(restoredFolder, web.name+"-first"),
	}, web, 0); err != nil {
		return err
	}
	return s.restoreAndCompare(ctx, restoring{
		from: vaultFolder, machine: web.name, to: filepath.Join(restoredFolder, web.name+"-latest"),
	}, web, days-1)
}

// sumsExtension is of the list of checksums beside a restored folder.
const sumsExtension = ".sha256"

// restoreAndCompare restores a point that must be the backup of a machine and a day.
func (s *story) restoreAndCompare(ctx context.Context, r restoring, m machine, day int) error {
	s.Narrator.Command(r.String())
	point, err := s.fetch(ctx, r)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.dumps, func(d dumped) bool { return d.machine.vmid == m.vmid && d.day == day })
	generated := s.dumps[i]
	if !point.Created.Equal(m.created(day)) {
		return fmt.Errorf("%s: the point is of %s, not of %s", r, timeText(point.Created), timeText(m.created(day)))
	}
	compared, err := generated.compare(ctx, s.path(r.to))
	s.summary.Restores = append(s.summary.Restores, RestoreSummary{
		Command: r.String(), Folder: s.path(r.to), Machine: point.Machine.Key.String(), Point: point.ID.String(),
		Files: len(generated.files), Bytes: compared, Equal: err == nil,
	})
	if err != nil {
		return err
	}
	s.Narrator.Result([]string{fmt.Sprintf("restored %s of %s: %d files, %s, all equal", m.name, timeText(point.Created), len(generated.files), bytesText(compared))})
	return generated.sums(s.path(r.to + sumsExtension))
}

// offsite: the copy of the copy, which stands alone.
func (s *story) offsite(ctx context.Context) error {
	s.Narrator.Heading("The copy of the copy")
	s.Narrator.Say("Fill a second repository, at another site, from the vault. Points keep their ids: a second run copies nothing.")
	first := copying{from: vaultFolder, to: offsiteFolder, create: true, all: true}
	for _, run := range []struct {
		copying
		copied, there int
	}{
		{first, len(s.points), 0}, {copying{from: vaultFolder, to: offsiteFolder, all: true}, 0, len(s.points)},
	} {
		s.Narrator.Command(run.String())
		_, summary, err := s.copy(ctx, run.copying)
		if err != nil {
			return err
		}
		s.Narrator.Result([]string{copiedText(summary)})
		if err := expectCopy(summary, run.copied, run.there); err != nil {
			return err
		}
	}
	if err := s.checkOffsite(ctx); err != nil {
		return err
	}
	s.Narrator.Say("It stands alone: the database comes back from there, too.")
	database := machines()[1]
	return s.restoreAndCompare(ctx, restoring{
		from: offsiteFolder, machine: database.name, to: filepath.Join(restoredFolder, database.name+"-offsite"),
	}, database, days-1)
}

// checkOffsite: it has the vault's points under the same ids, and all of it is good.
func (s *story) checkOffsite(ctx context.Context) error {
	summary, points, err := s.info(ctx, offsiteFolder)
	if err != nil {
		return err
	}
	ids := map[backup.PointID]bool{}
	for _, p := range points {
		ids[p.ID] = true
	}
	for _, p := range s.points {
		if !ids[p.ID] {
			return fmt.Errorf("point %s of %s has another id in the second repository", p.ID.Short(), p.Machine.Name)
		}
	}
	report, err := s.check(ctx, offsiteFolder)
	if err != nil {
		return err
	}
	if len(report.Damage) > 0 || report.Points != len(s.points) {
		return fmt.Errorf("the second repository has %d points and %d damaged places, not %d and none", report.Points, len(report.Damage), len(s.points))
	}
	summary.VerifiedBytes = report.Bytes
	s.summary.Offsite = summary
	return nil
}

// suggest what to try next.
func (s *story) suggest(context.Context) error {
	web, database := machines()[0], machines()[1]
	in := func(names ...string) string { return restore.Quote(s.path(names...)) }
	first := web.name + "-first"
	s.summary.Next = append(s.served(), []Suggestion{
		{"ferry points " + in(offsiteFolder), "the second repository"},
		{fmt.Sprintf("ferry restore %s %s --to %s", in(offsiteFolder), database.name, in(restoredFolder, database.name)), "says how to bring it back"},
		{fmt.Sprintf("cd %s && sha256sum -c ../%s", in(restoredFolder, first), first+sumsExtension), "compare without Ferry"},
		{"ferry points /var/lib/vz/dump", "or where your own backups are"},
		{"rm -r " + restore.Quote(s.Dir), "remove the demonstration"},
	}...)
	return nil
}
