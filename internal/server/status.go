package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/scheduler"
	"ferry/internal/status"
)

func (s *Server) serverOperations(described huma.API) {
	tags := []string{"server"}
	operate(s, described, huma.Operation{
		OperationID: "status", Method: http.MethodGet, Path: api.PathStatus, Summary: "What people look at first", Tags: tags,
	}, func(ctx context.Context, input *struct {
		Machines int `query:"machines" minimum:"0" maximum:"100000" default:"20" doc:"How many machines are listed at most; those whose copy is too old always are."`
	}) (*answer[api.Status], error) {
		standing, err := s.status(ctx, input.Machines)
		return reply(standing), err
	})
	operate(s, described, huma.Operation{
		OperationID: "rebuild-catalog", Method: http.MethodPost, Path: api.PathRebuild, Tags: tags,
		Summary: "Read the points of a repository anew into the catalog, or of all that are targets",
	}, func(ctx context.Context, input *struct{ Body *api.Rebuild }) (*answer[api.Rebuilt], error) {
		repository := ""
		if input.Body != nil {
			repository = input.Body.Repository
		}
		rebuilt, err := s.rebuild(ctx, repository)
		return reply(rebuilt), err
	})
	operate(s, described, huma.Operation{
		OperationID: "adopt-repository", Method: http.MethodPost, Path: api.PathAdopt, Tags: tags,
		Summary: "Go on with a target as it is, after it was rolled back or exchanged for another copy of it",
		Description: "The server refuses to write to a repository whose history is not the one that it has seen: points may be lost that " +
			"the other copy has. This makes the history that it has now the one to go on with, and reads its points anew into the catalog.",
	}, func(ctx context.Context, input *struct {
		Name string `path:"name" maxLength:"255"`
	}) (*answer[api.Adopted], error) {
		adopted, points, err := s.Scheduler.Adopt(ctx, input.Name)
		if err != nil {
			return nil, notNow(err, fmt.Sprintf("repository %s cannot be adopted now", input.Name))
		}
		return reply(api.Adopted{Adopted: adopted, Points: points}), nil
	})
	operate(s, described, huma.Operation{
		OperationID: "live", Method: http.MethodGet, Path: api.PathLive, Summary: "Whether the server lives", Tags: tags,
	}, func(context.Context, *struct{}) (*answer[api.Health], error) {
		return reply(api.Health{OK: true, Checks: []string{}}), nil
	})
	operate(s, described, huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: api.PathReady, Summary: "Whether it is ready to work; 503 with what is not", Tags: tags,
		Responses: map[string]*huma.Response{"503": {Description: "Not ready", Content: jsonOf[api.Health](described)}},
	}, func(ctx context.Context, _ *struct{}) (*answer[api.Health], error) {
		ready := reply(s.health(ctx))
		if !ready.Body.OK {
			ready.Status = http.StatusServiceUnavailable
		}
		return ready, nil
	})
}

// status says how everything stands, with at most so many machines; less than 0: all.
func (s *Server) status(ctx context.Context, machines int) (api.Status, error) {
	resources, err := s.parsed(ctx)
	if err != nil {
		return api.Status{}, err
	}
	o := status.Options{Version: s.Version, Machines: machines}
	for _, trouble := range s.Scheduler.Ready() {
		o.Troubles = append(o.Troubles, status.Trouble(trouble))
	}
	return status.Of(ctx, s.Catalog, resources, s.Now(), o)
}

// rebuild makes the mirror of a repository anew, or of all targets, one after the other. What is wrong with one keeps nobody
// from the others.
func (s *Server) rebuild(ctx context.Context, repository string) (api.Rebuilt, error) {
	names := []string{repository}
	if repository == "" {
		resources, err := s.parsed(ctx)
		if err != nil {
			return api.Rebuilt{}, err
		}
		names = nil
		for _, j := range resources.Jobs {
			if !slices.Contains(names, j.Target.Repository) {
				names = append(names, j.Target.Repository)
			}
		}
	}
	rebuilt := api.Rebuilt{Repositories: []api.RebuiltRepository{}}
	for _, name := range names {
		points, err := s.Scheduler.Rebuild(ctx, name)
		if errors.Is(err, scheduler.ErrUnknownRepository) || ctx.Err() != nil {
			return api.Rebuilt{}, err
		}
		done := api.RebuiltRepository{Name: name, Points: points}
		if err != nil {
			done.Error = backup.SafeText(err.Error())
		}
		rebuilt.Repositories = append(rebuilt.Repositories, done)
	}
	return rebuilt, nil
}

// health says what keeps the server from working.
func (s *Server) health(ctx context.Context) api.Health {
	checks := []string{}
	for _, trouble := range s.Scheduler.Ready() {
		checks = append(checks, trouble.Text)
	}
	if _, err := s.Catalog.Jobs.List(ctx); err != nil {
		checks = append(checks, "the catalog cannot be read")
		s.Log.Error("the catalog cannot be read", "error", err)
	}
	slices.Sort(checks)
	return api.Health{OK: len(checks) == 0, Checks: checks}
}
