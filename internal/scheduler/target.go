package scheduler

import (
	"context"
	"fmt"
	"slices"

	"ferry/internal/job"
	"ferry/internal/policy"
	"ferry/internal/repo"
)

// Rebuild makes the mirror of a repository's points anew, from all of its points, and returns how many there are. The repository
// is one that a job has as its target.
func (s *Scheduler) Rebuild(ctx context.Context, repository string) (points int64, err error) {
	target, err := s.targetNamed(ctx, repository)
	if err != nil {
		return 0, err
	}
	defer target.Close()
	return s.mirrorAnew(ctx, repository, target)
}

// Adopt makes the history that a repository has now the one to go on with, and its mirror anew. It returns whether the history was
// another before, and how many points there are.
func (s *Scheduler) Adopt(ctx context.Context, repository string) (adopted bool, points int64, err error) {
	target, err := s.targetNamed(ctx, repository)
	if err != nil {
		return false, 0, err
	}
	defer target.Close()
	if adopted = target.Diverged() != nil; adopted {
		if err := target.Adopt(); err != nil {
			return false, 0, err
		}
		s.log.Warn("a repository with another history was adopted", "repository", repository, "id", target.ID())
	}
	points, err = s.mirrorAnew(ctx, repository, target)
	return adopted, points, err
}

// targetNamed opens the repository of a name, with its key. It is one that a job has as its target.
func (s *Scheduler) targetNamed(ctx context.Context, repository string) (*repo.Repository, error) {
	resources, err := s.resources(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(resources.Jobs, func(of policy.Job) bool { return of.Target.Repository == repository })
	if at < 0 {
		return nil, fmt.Errorf("repository %s: %w", repository, ErrUnknownRepository)
	}
	setup, err := s.options.Prepare(ctx, resources, resources.Jobs[at].Name)
	if err != nil {
		return nil, err
	}
	target, err := openTarget(ctx, setup.Target)
	if err != nil {
		return nil, err
	}
	if err := target.NeedsKey(); err != nil {
		target.Close()
		return nil, err
	}
	return target, nil
}

func (s *Scheduler) mirrorAnew(ctx context.Context, repository string, target *repo.Repository) (points int64, err error) {
	points, err = s.replaceMirror(ctx, repository, target)
	if err == nil {
		err = s.recordFigure(ctx, repository, target)
	}
	return points, err
}

// Release withdraws what a job claims in its target: its points go when nobody else claims them. Another repository in the place of
// the target is left alone, as by sessions.
func (s *Scheduler) Release(ctx context.Context, resources policy.Resources, of string) error {
	setup, err := s.prepare(ctx, resources, of)
	if err != nil {
		return err
	}
	target, err := openTarget(ctx, setup.Target)
	if err != nil {
		return err
	}
	defer target.Close()
	var points []repo.Forgetting
	for _, entry := range target.Entries() {
		if _, mine := job.ClaimOf(target, of, entry.ID); mine {
			points = append(points, repo.Forgetting{Point: entry.ID, Reason: "released with its job"})
		}
	}
	if _, err = target.Forget(ctx, of, points, nil); err != nil {
		return err
	}
	// It is done, whatever comes of noting it: the next session of another job, or catalog rebuild, makes up for that.
	if err := s.noteTarget(context.WithoutCancel(ctx), setup.Target.Name, target); err != nil {
		s.log.Error("what a target has after claims were withdrawn cannot be noted", "job", of, "error", err)
	}
	return nil
}

// openTarget opens a target, which must have the id that is given, if one is.
func openTarget(ctx context.Context, of job.Goal) (*repo.Repository, error) {
	target, err := of.Open(ctx)
	if err == nil && of.ID != "" && target.ID() != of.ID {
		err = fmt.Errorf("the repository at %s is %s, and repository %s is %s", of.Location, target.ID(), of.Name, of.ID)
		target.Close()
	}
	if err != nil {
		return nil, err
	}
	return target, nil
}
