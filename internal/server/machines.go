package server

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/plan"
	"ferry/internal/status"
)

func (s *Server) machineOperations(described huma.API) {
	operate(s, described, huma.Operation{
		OperationID: "retire-machine", Method: http.MethodPost, Path: api.PathRetire, Tags: []string{"machines"},
		Summary:     "Say that a machine has gone for good, or that it is back",
		Description: "Jobs with purgeAfter remove what they have of a machine that has gone, so long after it was said.",
	}, func(ctx context.Context, input *struct{ Body api.Retire }) (*answer[api.Retired], error) {
		retired, err := s.retire(ctx, input.Body)
		return reply(retired), err
	})
}

func (s *Server) retire(ctx context.Context, asked api.Retire) (api.Retired, error) {
	known, err := s.Catalog.Machines.All(ctx)
	if err != nil {
		return api.Retired{}, err
	}
	machines := make([]backup.Machine, len(known))
	for i, k := range known {
		machines[i] = k.Machine
	}
	machine, err := plan.AmongMachines(machines, asked.Machine)
	switch {
	case errors.Is(err, plan.ErrNotFound):
		return api.Retired{}, newProblem(http.StatusNotFound, api.CodeNotFound, "%v", err)
	case errors.Is(err, plan.ErrAmbiguous):
		return api.Retired{}, newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "%v", err)
	}
	held, err := s.Catalog.Machines.Retire(ctx, machine.Key, !asked.Back)
	if err != nil {
		return api.Retired{}, err
	}
	s.Log.Info("a machine was retired, or is back", "machine", machine.Key.String(), "since", held.Since)
	return api.Retired{Machine: status.Machine(machine), Since: held.Since}, nil
}
