package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/scheduler"
	"ferry/internal/status"
)

type jobInput struct {
	Name string `path:"name" maxLength:"255"`
}

func (s *Server) jobOperations(described huma.API) {
	tags := []string{"jobs"}
	operate(s, described, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: api.PathJobs, Summary: "Where all jobs stand, the one whose turn comes next first", Tags: tags,
	}, func(ctx context.Context, _ *struct{}) (*answer[[]api.Job], error) {
		jobs, err := s.jobs(ctx)
		return reply(jobs), err
	})
	operate(s, described, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: api.PathJob, Summary: "Where a job stands", Tags: tags,
	}, func(ctx context.Context, input *jobInput) (*answer[api.Job], error) {
		jobs, err := s.jobs(ctx)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(jobs, func(j api.Job) bool { return j.Name == input.Name })
		if at < 0 {
			return nil, fmt.Errorf("job %s: %w", input.Name, scheduler.ErrUnknownJob)
		}
		return reply(jobs[at]), nil
	})
	operate(s, described, huma.Operation{
		OperationID: "explain-job", Method: http.MethodGet, Path: api.PathJobExplain, Tags: tags,
		Summary:     "What a session that began now would do with every point, and why",
		Description: "The form is that of ferry job explain --json. Sources and target are looked at, which takes its time.",
	}, func(ctx context.Context, input *jobInput) (*answer[any], error) {
		explanation, job, err := s.Scheduler.Explain(ctx, input.Name)
		if err != nil {
			return nil, notNow(err, fmt.Sprintf("job %s cannot be explained now", input.Name))
		}
		return reply(s.Explanation(job, explanation)), nil
	})
	s.simulateOperation(described)
	operate(s, described, huma.Operation{
		OperationID: "run-job", Method: http.MethodPost, Path: api.PathJobRun, DefaultStatus: http.StatusAccepted, Summary: "Begin a session of a job now", Tags: tags,
	}, func(ctx context.Context, input *struct {
		Name string `path:"name" maxLength:"255"`
		Body *api.Start
	}) (*answer[api.Started], error) {
		var how scheduler.Start
		if input.Body != nil {
			how = scheduler.Start{Full: input.Body.Full, Retry: input.Body.Retry}
		}
		started := &answer[api.Started]{Status: http.StatusAccepted}
		return started, s.unlessLeaving(describe(kindJob, input.Name), func() (err error) {
			started.Body.Session, err = s.Scheduler.Start(ctx, input.Name, how)
			return err
		})
	})
	operate(s, described, huma.Operation{
		OperationID: "stop-job", Method: http.MethodPost, Path: api.PathJobStop, DefaultStatus: http.StatusAccepted, Tags: tags,
		Summary: "Ask a job's session to end: after a checkpoint, or now. It has not ended when this is answered",
	}, func(ctx context.Context, input *struct {
		Name string `path:"name" maxLength:"255"`
		Body *api.Stop
	}) (*struct{}, error) {
		return nil, s.Scheduler.Stop(ctx, input.Name, input.Body != nil && input.Body.Now)
	})
	s.switchOperation(described, "enable-job", api.PathJobEnable, "Have a job's intervals begin by themselves", func(ctx context.Context, job string) error {
		return s.unlessLeaving(describe(kindJob, job), func() error { return s.Scheduler.Enable(ctx, job) })
	})
	s.switchOperation(described, "disable-job", api.PathJobDisable, "Let nothing of a job begin by itself; a session goes on", s.Scheduler.Disable)
}

func (s *Server) simulateOperation(described huma.API) {
	operate(s, described, huma.Operation{
		OperationID: "simulate-job", Method: http.MethodGet, Path: api.PathJobSimulate, Tags: []string{"jobs"},
		Summary:     "What a job will keep, day by day, and what size its target will have",
		Description: "The form is that of ferry job simulate --json. Sources and target are looked at, which takes its time.",
	}, func(ctx context.Context, input *struct {
		Name string `path:"name" maxLength:"255"`
		Days int    `query:"days" minimum:"1" maximum:"3660" default:"30" doc:"How many days are looked ahead."`
	}) (*answer[any], error) {
		setup, resources, err := s.Scheduler.Setup(ctx, input.Name)
		var future any
		if err == nil {
			future, err = s.Future(ctx, resources, setup, input.Days)
		}
		if err != nil {
			return nil, notNow(err, fmt.Sprintf("job %s cannot be simulated now", input.Name))
		}
		return reply(future), nil
	})
}

func (s *Server) switchOperation(described huma.API, id, path, summary string, change func(context.Context, string) error) {
	operate(s, described, huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: path, DefaultStatus: http.StatusNoContent, Summary: summary, Tags: []string{"jobs"},
	}, func(ctx context.Context, input *jobInput) (*struct{}, error) { return nil, change(ctx, input.Name) })
}

func (s *Server) jobs(ctx context.Context) ([]api.Job, error) {
	resources, err := s.parsed(ctx)
	if err != nil {
		return nil, err
	}
	return status.Jobs(ctx, s.Catalog, resources, s.Now())
}

// notNow is the problem of something beside the request that is not as it must be, such as a target that is offline, or a file
// that is no longer allowed: its person is told all of it. Errors that mean something else keep their meaning.
func notNow(err error, what string) error {
	known := explain(err)
	if known.Status != http.StatusInternalServerError && known.Status != http.StatusUnprocessableEntity {
		return known
	}
	p := newProblem(http.StatusServiceUnavailable, api.CodeNotReady, "%s: %v", what, err).hint(backup.Hint(err))
	p.cause, p.Mistakes = err, known.Mistakes
	return p
}
