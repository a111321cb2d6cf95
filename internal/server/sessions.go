package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/status"
)

type sessionInput struct {
	ID int64 `path:"id" minimum:"1"`
}

func (s *Server) sessionOperations(described huma.API) {
	tags := []string{"sessions"}
	operate(s, described, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: api.PathSessions, Tags: tags,
		Summary: "Sessions, newest first, without their phases, tasks and reports",
	}, func(ctx context.Context, input *struct {
		Job    string `query:"job" maxLength:"255" doc:"Only those of this job, which may have been deleted."`
		Before int64  `query:"before" minimum:"0" doc:"Only those before this session: the last one of the page before."`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	}) (*answer[[]api.Session], error) {
		found, err := s.Catalog.Sessions.Of(ctx, input.Job, input.Before, input.Limit)
		list := make([]api.Session, len(found))
		for i, session := range found {
			list[i] = status.Session(session)
		}
		return reply(list), err
	})
	operate(s, described, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: api.PathSession, Summary: "A session with its phases and tasks, and its report once it has ended", Tags: tags,
	}, func(ctx context.Context, input *sessionInput) (*answer[api.Session], error) {
		session, err := s.session(ctx, input.ID)
		if err == nil {
			session.Report, err = s.Catalog.Sessions.Report(ctx, input.ID)
		}
		return reply(session), err
	})
	s.eventsOperation(described, tags)
}

// session is a session with phases and tasks.
func (s *Server) session(ctx context.Context, id int64) (api.Session, error) {
	found, err := s.Catalog.Sessions.Get(ctx, id)
	if err != nil {
		return api.Session{}, err
	}
	phases, err := s.Catalog.Sessions.Phases(ctx, id)
	if err != nil {
		return api.Session{}, err
	}
	tasks, err := s.Catalog.Tasks.Of(ctx, id)
	if err != nil {
		return api.Session{}, err
	}
	session := status.Session(found)
	for _, phase := range phases {
		session.Phases = append(session.Phases, status.Phase(phase))
	}
	for _, task := range tasks {
		session.Tasks = append(session.Tasks, status.Task(task))
	}
	return session, nil
}
