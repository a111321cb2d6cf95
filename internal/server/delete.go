package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// deleteResource deletes a resource that nothing refers to.
//
//  1. With the lock held: it is what the client thinks it is, nothing refers to it, and no session of a job runs. The job is
//     switched off and nothing begins any more.
//  2. Without the lock, since a target may take its time: its claims are withdrawn, if that is wanted. Where that fails, the
//     job is there as before.
//  3. With the lock: it is deleted, if nothing refers to it by now and no session of it has begun.
func (s *Server) deleteResource(ctx context.Context, input *deleteInput) error {
	name := describe(input.Kind, input.Name)
	if input.Release && input.Kind != kindJob {
		return newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "only jobs have claims to withdraw, not %s", name)
	}
	version, switchOn, err := s.beginLeaving(ctx, input)
	if err != nil {
		return err
	}
	deleted := false
	defer func() { // also after a panic
		s.changing.Lock()
		defer s.changing.Unlock()
		delete(s.leaving, name)
		if !deleted {
			switchOn()
		}
	}()
	if input.Release {
		if err := s.release(ctx, input.Name); err != nil {
			return err
		}
	}
	err = s.deleteUnused(ctx, input.Kind, input.Name, version)
	deleted = err == nil
	return err
}

// deleteUnused is the third step.
func (s *Server) deleteUnused(ctx context.Context, kind, name string, version int64) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.unused(ctx, kind, name); err != nil {
		return err
	}
	if kind == kindJob { // the scheduler may have begun one just before it heard
		if err := s.notRunning(ctx, name); err != nil {
			return err
		}
	}
	// Whoever has gone meanwhile: it is done, and everybody knows, or not.
	if err := s.Catalog.Resources.Delete(context.WithoutCancel(ctx), kind, name, version); err != nil {
		return err
	}
	s.changed("delete", []string{describe(kind, name)})
	return nil
}

// beginLeaving is the first step. switchOn takes back that the job was switched off.
func (s *Server) beginLeaving(ctx context.Context, input *deleteInput) (version int64, switchOn func(), err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	name := describe(input.Kind, input.Name)
	if err := s.notLeaving(name); err != nil {
		return 0, nil, err
	}
	if version, err = s.required(ctx, input.Kind, input.Name, input.IfMatch, ""); err != nil {
		return 0, nil, err
	}
	if err := s.unused(ctx, input.Kind, input.Name); err != nil {
		return 0, nil, err
	}
	switchOn = func() {}
	if input.Kind == kindJob {
		if switchOn, err = s.switchOff(ctx, input.Name); err != nil {
			return 0, nil, err
		}
	}
	s.leaving[name] = true
	return version, switchOn, nil
}

// unlessLeaving does something with a resource that does not begin to be deleted meanwhile. If it is being deleted it returns
// an error.
func (s *Server) unlessLeaving(name string, do func() error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.notLeaving(name); err != nil {
		return err
	}
	return do()
}

// notLeaving returns an error if a resource is being deleted. s.changing is held.
func (s *Server) notLeaving(name string) error {
	if s.leaving[name] {
		return newProblem(http.StatusConflict, api.CodeUsed, "%s is being deleted", name)
	}
	return nil
}

// switchOff sees to it that no session of a job runs or begins by itself. on takes that back.
func (s *Server) switchOff(ctx context.Context, job string) (on func(), err error) {
	state, err := s.Catalog.Jobs.State(ctx, job)
	if err != nil {
		return nil, err
	}
	on = func() {}
	if state.Enabled || state.Start.IsZero() { // by the catalog: the scheduler takes no word about jobs while a stored resource has mistakes
		if err := s.Catalog.Jobs.Disable(ctx, job); err != nil {
			return nil, err
		}
		s.Scheduler.Changed()
		on = func() {
			if err := s.Catalog.Jobs.Enable(context.WithoutCancel(ctx), job); err != nil {
				s.Log.Error("a job could not be enabled again", "job", job, "error", err)
			}
			s.Scheduler.Changed()
		}
	}
	if err := s.notRunning(ctx, job); err != nil {
		on()
		return nil, err
	}
	return on, nil
}

// notRunning returns an error if a session of a job has not ended.
func (s *Server) notRunning(ctx context.Context, job string) error {
	live, err := s.Catalog.Sessions.Live(ctx)
	if err == nil && slices.ContainsFunc(live, func(session catalog.Session) bool { return session.Job == job }) {
		err = newProblem(http.StatusConflict, api.CodeRunning, "a session of job %s has not ended", job).hint("stop it first")
	}
	return err
}

// release withdraws the claims of a job.
func (s *Server) release(ctx context.Context, job string) error {
	if s.Release == nil {
		return newProblem(http.StatusNotImplemented, "", "this server withdraws no claims")
	}
	resources, err := s.parsed(ctx)
	if err != nil {
		return err
	}
	if err := s.Release(ctx, resources, job); err != nil {
		p := newProblem(http.StatusConflict, api.CodeNotReady, "the claims of job %s cannot be withdrawn, so it stays: %v", job, err)
		p.cause = err
		return p
	}
	s.Log.Info("the claims of a job were withdrawn", "job", job)
	return nil
}

// unused returns an error if a stored resource refers to one. What else is wrong with them is no reason to keep it.
func (s *Server) unused(ctx context.Context, kind, name string) error {
	stored, err := s.storedResources(ctx)
	if err != nil {
		return err
	}
	var with, without []policy.File
	for _, r := range stored {
		with = append(with, fileOf(r))
		if r.Kind != kind || r.Name != name {
			without = append(without, fileOf(r))
		}
	}
	before := s.problemsOf(with)
	var users []string
	for _, p := range s.problemsOf(without) {
		known := slices.ContainsFunc(before, func(b policy.Problem) bool { return b.File == p.File && b.Path == p.Path })
		if !known && !slices.Contains(users, p.File) {
			users = append(users, p.File)
		}
	}
	if len(users) == 0 {
		return nil
	}
	return newProblem(http.StatusConflict, api.CodeUsed, "%s is in use by %s", describe(kind, name), strings.Join(users, ", ")).
		hint("change or delete what uses it first")
}

func (s *Server) problemsOf(files []policy.File) policy.Problems {
	if len(files) == 0 {
		return nil
	}
	_, err := policy.Rules{Memory: &s.read}.Parse(files...)
	problems, _ := err.(policy.Problems) //nolint:errorlint // Parse gives this type and no other
	return problems
}
