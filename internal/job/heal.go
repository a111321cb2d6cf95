package job

import (
	"context"
	"iter"
	"math"
	"time"

	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source/registry"
)

// Heal copies again, from a source that still has them, the points that the repository has and cannot read whole. What is
// good there is not stored again, the points keep their claims, and one whose content is another than it was is refused.
func Heal(ctx context.Context, from *registry.Source, to *repo.Repository, options Options) (Report, error) {
	damaged := func(id backup.PointID) bool { _, is := to.DamageOf(id); return is }
	var points []backup.Point
	for _, p := range from.Points {
		if damaged(p.ID) && p.State == backup.StateComplete {
			points = append(points, p.Point)
		}
	}
	options.Mend = true
	return Copy(ctx, from, to, plan.Make(points, func(backup.PointID) bool { return false }, plan.Request{All: true, Damaged: damaged}), options)
}

// MendReport says what was healed.
type MendReport struct {
	// Blocks and Nodes that have a good copy again, Bytes of their content; FromParity and FromDonors of them came from there.
	Blocks, Nodes, Bytes   int64
	FromParity, FromDonors int64
	// Points that were written or copied again, and derived files that were made again.
	Points int
	Remade []string
	// Failures of copying points again.
	Failures []error
}

// add adds what another run came to.
func (m *MendReport) add(other MendReport) {
	m.Blocks += other.Blocks
	m.Nodes += other.Nodes
	m.Bytes += other.Bytes
	m.FromParity += other.FromParity
	m.FromDonors += other.FromDonors
	m.Points += other.Points
	m.Remade = append(m.Remade, other.Remade...)
	m.Failures = append(m.Failures, other.Failures...)
}

// ever is longer than any proof is old.
const ever = time.Duration(math.MaxInt64)

// Mend heals what a verification found, from the repository itself, from donors, and then from the sources, one by one as
// long as points are damaged. It verifies again what that makes of it, and returns the findings as they are then: only what
// is new is read.
func Mend(ctx context.Context, repository *repo.Repository, found *repo.VerifyReport, donors []*repo.Repository, sources iter.Seq2[*registry.Source, error], options Options) (MendReport, *repo.VerifyReport, error) {
	var mended MendReport
	healed, err := repository.Heal(ctx, found, donors)
	if err != nil {
		return mended, nil, err
	}
	mended = MendReport{
		Blocks: healed.Blocks, Nodes: healed.Nodes, Bytes: healed.Bytes, FromParity: healed.FromParity, FromDonors: healed.FromDonors,
		Points: healed.Points, Remade: healed.Remade,
	}
	again := repo.VerifyOptions{Level: found.Level, NotSince: ever}
	if found.Cut {
		again.MaxBytes = 1 // the budget is used up
	}
	after, err := repository.VerifyWith(ctx, again)
	if err != nil {
		return mended, nil, err
	}
	if after.DamagedPoints > 0 {
		for source, err := range sources {
			if err == nil {
				err = mended.fromSource(ctx, source, repository, options)
			}
			if err == nil {
				after, err = repository.VerifyWith(ctx, again)
			}
			if err != nil {
				return mended, nil, err
			}
			if after.DamagedPoints == 0 {
				break
			}
		}
	}
	after.Packs, after.Frames, after.Bytes, after.Entries = found.Packs, found.Frames, found.Bytes, found.Entries
	after.Fresh, after.Unread, after.FreshBytes, after.UnreadBytes = found.Fresh, found.Unread, found.FreshBytes, found.UnreadBytes
	after.Begun, after.Cut = found.Begun, found.Cut
	after.Remade = append(found.Remade, after.Remade...)
	return mended, after, nil
}

// fromSource copies the damaged points again that a source still has.
func (m *MendReport) fromSource(ctx context.Context, from *registry.Source, repository *repo.Repository, options Options) error {
	report, err := Heal(ctx, from, repository, Options{TempDir: options.TempDir, Codec: options.Codec})
	for _, step := range report.Steps {
		switch step.Outcome {
		case OutcomeCopied:
			m.Points++
			m.Blocks += step.Result.NewBlocks
			m.Bytes += step.Result.NewBytes
		case OutcomeFailed:
			m.Failures = append(m.Failures, step.Err)
		case OutcomeNothing, OutcomeNotReached:
		}
	}
	return err
}
