package job

import (
	"context"
	"errors"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/source/registry"
)

// Missing is what the next interval would write, found by reading what it would read.
type Missing struct {
	Target  TargetState
	Sources []SourceState
	// Points that the interval would copy, in its order.
	Points []*MissingPoint
	// Written is what new packs, with their tables, and the points' files would take in all, in bytes. The index and the log are
	// not in it.
	Written int64
	// Warnings of looking.
	Warnings []string
}

// MissingPoint is what of a point the target lacks. What an earlier point of the list brings is not missing any more.
type MissingPoint struct {
	Point *backup.Brief
	// Whole is true if the point would be read whole, and stored apart from all else.
	Whole bool
	// Logical is the size of its objects, Read what had to be read of them, in bytes.
	Logical, Read int64
	// NewBlocks are those that the target lacks, NewBytes what they hold, Stored what they take there with their headers, and
	// Nodes what new tree nodes take.
	NewBlocks, NewBytes, Stored, Nodes int64
	// Err says why it could not be found out.
	Err error
}

// ErrWindowClosed: sources may not be read now.
var ErrWindowClosed = errors.New("the window is closed")

// FindMissing plans as a session does that would begin now, and reads the points that it would copy as it would, from the
// same blocks on, but stores nothing. announce is told of the steps before anything is read. The error is that the target is
// not ready, that the window is closed, or what looking gave.
func FindMissing(ctx context.Context, setup Setup, announce func([]plan.IntervalStep)) (*Missing, error) {
	r := newRunner(setup)
	defer r.close()
	defer r.endListings()
	found := &Missing{}
	err := r.openTarget(ctx)
	if err == nil {
		err = r.findMissing(ctx, found, announce)
	}
	found.Target, found.Sources, found.Warnings = r.session.Target, r.session.Sources, r.session.Warnings
	return found, err
}

func (r *runner) findMissing(ctx context.Context, found *Missing, announce func([]plan.IntervalStep)) error {
	v, err := r.look(ctx)
	if err != nil {
		return err
	}
	defer v.close()
	for _, warning := range v.plan.Warnings {
		r.warnOnce(warning)
	}
	steps := v.plan.Steps(plan.ActionCopy)
	if open, until := r.window(); len(steps) > 0 && !open {
		return fmt.Errorf("%w until %s", ErrWindowClosed, r.show(until))
	}
	announce(steps)
	reading, cancel := r.whileOpen(ctx)
	defer cancel()
	m := &measuring{runner: r, found: found}
	err = m.all(reading, v.opened, steps)
	if ctx.Err() == nil && errors.Is(context.Cause(reading), errWindow) {
		return ErrWindowClosed
	}
	return err
}

// measuring is a search for what is missing while it runs.
type measuring struct {
	*runner
	found *Missing
	// shared is the ingest of all points that are not read whole, so that what one brings is there for the next.
	shared *repo.Ingest
}

func (m *measuring) all(ctx context.Context, opened []*registry.Source, steps []plan.IntervalStep) (err error) {
	defer func() {
		if m.shared != nil {
			err = errors.Join(err, m.end(ctx, m.shared))
		}
	}()
	points := make([]map[backup.PointID]source.Point, len(opened))
	for _, step := range steps {
		if points[step.Source] == nil {
			points[step.Source] = byID(opened[step.Source])
		}
		if err := m.point(ctx, step, opened[step.Source], points[step.Source][step.Point.ID]); err != nil {
			return err
		}
	}
	return nil
}

// point measures one point. Its own trouble is noted with it.
func (m *measuring) point(ctx context.Context, step plan.IntervalStep, from *registry.Source, p source.Point) (err error) {
	missing := MissingPoint{Point: step.Point, Whole: m.isWhole(step)}
	into := m.shared
	if into == nil || missing.Whole {
		if into, err = m.target.NewIngest(ctx, repo.IngestOptions{Measure: true, Sealed: missing.Whole}); err != nil {
			return err
		}
		if missing.Whole {
			defer func() { err = errors.Join(err, m.end(ctx, into)) }()
		} else {
			m.shared = into
		}
	}
	m.found.Points = append(m.found.Points, &missing)
	before := into.Stats().NodeBytes.Load()
	copier := mover.New(into, mover.Options{Codec: m.Copy.Codec, TempDir: m.Copy.TempDir, Job: m.Job.Name, Seeded: m.seeded, Progress: m.Copy.Started})
	err = copier.CopyFrom(ctx, from.Root.Calls(), p, func(result mover.Result, err error) { // when it would be committed: at the latest when the ingest ends
		missing.Logical, missing.Read, missing.Err = result.Logical, result.Read, err
		missing.NewBlocks, missing.NewBytes, missing.Stored = result.NewBlocks, result.NewBytes, result.Stored
	})
	missing.Nodes = into.Stats().NodeBytes.Load() - before
	if err != nil {
		missing.Err = err
	}
	return errors.Join(ctx.Err(), into.Failed())
}

// end ends an ingest and adds what it would have written.
func (m *measuring) end(ctx context.Context, into *repo.Ingest) error {
	err := into.Close(context.WithoutCancel(ctx), into.Failed())
	m.found.Written += into.Stats().Written.Load()
	return err
}
