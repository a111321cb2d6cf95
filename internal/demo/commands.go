package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"ferry/internal/backup"
	"ferry/internal/job"
	"ferry/internal/mover"
	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/restore"
	"ferry/internal/source/registry"
	"ferry/internal/storage/fs"
)

// path of something in the story's folder.
func (s *story) path(name ...string) string {
	return filepath.Join(append([]string{s.Dir}, name...)...)
}

// open lists a source.
func (s *story) open(ctx context.Context, folder string) (*registry.Source, error) {
	opened, err := registry.Open(ctx, s.path(folder), registry.Options{CacheDir: s.Environment.CacheDir, Formats: s.Formats})
	if err != nil {
		return nil, err
	}
	if len(opened.Problems) > 0 {
		opened.Close()
		return nil, errors.Join(opened.Problems...)
	}
	return opened, nil
}

// opened is a repository with the store that it lies in.
type opened struct {
	*repo.Repository
	store *fs.Store
}

func (o *opened) Close() error { return errors.Join(o.Repository.Close(), o.store.Close()) }

// repository opens a repository, or makes it.
func (s *story) repository(ctx context.Context, folder string, create bool) (*opened, error) {
	openStore := fs.Open
	if create {
		openStore = fs.Create
	}
	store, err := openStore(s.path(folder))
	if err != nil {
		return nil, err
	}
	var r *repo.Repository
	if create {
		r, err = repo.Init(ctx, store, s.Environment, repo.Options{})
	} else {
		r, err = repo.Open(ctx, store, s.Environment)
	}
	if err != nil {
		store.Close()
		return nil, err
	}
	return &opened{r, store}, nil
}

// copying is one run of ferry copy.
type copying struct {
	from, to string
	// create makes the repository; all takes every point.
	create, all bool
}

func (c copying) String() string {
	command := "ferry copy " + c.from + " " + c.to
	if c.create {
		command += " --create"
	}
	if c.all {
		command += " --all"
	}
	return command
}

// copy does what ferry copy does. Steps that failed are an error here.
func (s *story) copy(ctx context.Context, c copying) (job.Report, CopySummary, error) {
	from, err := s.open(ctx, c.from)
	if err != nil {
		return job.Report{}, CopySummary{}, err
	}
	defer from.Close()
	to, err := s.repository(ctx, c.to, c.create)
	if err != nil {
		return job.Report{}, CopySummary{}, err
	}
	defer to.Close()
	var points []backup.Point
	for _, p := range from.Points {
		points = append(points, p.Point)
	}
	listing := from.Root.BytesRead()
	report, err := job.Copy(ctx, from, to.Repository, plan.Make(points, to.Has, plan.Request{All: c.all}), job.Options{
		Codec: mover.CodecAuto, TempDir: s.TempDir,
	})
	summary := CopySummary{
		Command: c.String(), Copied: report.Copied(), AlreadyThere: report.There(),
		StoredBytes: report.Stored, DataBytesRead: report.SourceBytes - listing,
	}
	for _, step := range report.Steps {
		if step.Err != nil {
			err = errors.Join(err, step.Err)
		}
		summary.LogicalBytes += step.Result.Logical
		summary.ReadBytes += step.Result.Read
		summary.NewBytes += step.Result.NewBytes
	}
	s.summary.Copies = append(s.summary.Copies, summary)
	return report, summary, err
}

// info describes a repository, as ferry repo info does.
func (s *story) info(ctx context.Context, folder string) (RepositorySummary, []backup.Point, error) {
	r, err := s.repository(ctx, folder, false)
	if err != nil {
		return RepositorySummary{}, nil, err
	}
	defer r.Close()
	usage := r.Usage()
	summary := RepositorySummary{
		ID: r.ID(), Location: r.Location(), Points: usage.Points, StoredBytes: usage.PackBytes, Packs: usage.Packs,
	}
	points, err := pointsOf(ctx, r)
	for _, p := range points {
		for _, o := range p.Objects {
			summary.LogicalBytes += o.Size
		}
	}
	return summary, points, err
}

func pointsOf(ctx context.Context, r *opened) ([]backup.Point, error) {
	var points []backup.Point
	for _, entry := range r.Entries() {
		p, err := r.ReadPoint(ctx, entry.ID)
		if err != nil {
			return nil, err
		}
		points = append(points, p.Point)
	}
	return points, nil
}

// check does what ferry verify does.
func (s *story) check(ctx context.Context, folder string) (*repo.VerifyReport, error) {
	r, err := s.repository(ctx, folder, false)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Verify(ctx, nil)
}

// restoring is one run of ferry restore.
type restoring struct {
	from, machine string
	// point is the beginning of an id; empty means the latest.
	point string
	to    string
}

func (r restoring) String() string {
	command := "ferry restore " + r.from + " " + r.machine
	if r.point != "" {
		command += " --point " + r.point
	}
	return command + " --to " + r.to
}

// fetch does what ferry restore does, and returns the point that was restored.
func (s *story) fetch(ctx context.Context, r restoring) (backup.Point, error) {
	from, err := s.repository(ctx, r.from, false)
	if err != nil {
		return backup.Point{}, err
	}
	defer from.Close()
	points, err := pointsOf(ctx, from)
	if err != nil {
		return backup.Point{}, err
	}
	m, err := plan.FindMachine(points, r.machine)
	if err != nil {
		return backup.Point{}, err
	}
	chosen, err := plan.FindPoint(points, m.Key, r.point, time.UTC)
	if err != nil {
		return backup.Point{}, err
	}
	stored, err := from.ReadPoint(ctx, chosen.ID)
	if err != nil {
		return backup.Point{}, err
	}
	if _, err := restore.Restore(ctx, from.Repository, stored, s.path(r.to), restore.Options{}); err != nil {
		return backup.Point{}, fmt.Errorf("%s: %w", r, err)
	}
	if s.restored != nil {
		err = s.restored(s.path(r.to))
	}
	return chosen, err
}
