package server

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"ferry/internal/api"
)

// answer is a body with a status.
type answer[T any] struct {
	Status int
	Body   T
}

// reply is the usual answer.
func reply[T any](body T) *answer[T] { return &answer[T]{Status: http.StatusOK, Body: body} }

// routes builds all that the server answers to.
func (s *Server) routes() http.Handler {
	router := chi.NewRouter()
	router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, newProblem(http.StatusNotFound, api.CodeNotFound, "there is no %s", r.URL.Path).hint(api.PathDescription+" lists what there is"))
	})
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, newProblem(http.StatusMethodNotAllowed, api.CodeInvalid, "%s does not take %s", r.URL.Path, r.Method))
	})
	s.description = s.operations(router)
	router.Get(api.PathDescription, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(s.description)
	})
	return s.guarded(router)
}

// isRequest names the types that clients send.
var isRequest = map[string]bool{"Apply": true, "Document": true, "Start": true, "Stop": true, "Rebuild": true, "Retire": true, "SetBandwidth": true}

// operations registers the operations and returns their description, OpenAPI 3.1.
func (s *Server) operations(router chi.Router) []byte {
	described := humachi.New(router, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			// The version is that of the interface: the description is the same whatever program serves it.
			Info: &huma.Info{Title: "Ferry", Version: "1", Description: "What a Ferry server answers on its Unix socket. docs/api.md explains it."},
		},
		Formats: huma.DefaultFormats, DefaultFormat: "application/json", RejectUnknownQueryParameters: true,
	})
	s.resourceOperations(described)
	s.jobOperations(described)
	s.sessionOperations(described)
	s.machineOperations(described)
	s.bandwidthOperations(described)
	s.serverOperations(described)
	s.metricsOperation(router, described)
	for name, schema := range described.OpenAPI().Components.Schemas.Map() {
		if !isRequest[name] { // answers may have more one day; what requests have more is a mistake
			schema.AdditionalProperties = nil
		}
	}
	content, err := json.MarshalIndent(described.OpenAPI(), "", "  ")
	if err != nil {
		panic(err) // built from types
	}
	return append(content, '\n')
}

// operate registers an operation whose errors are explained.
func operate[I, O any](s *Server, described huma.API, operation huma.Operation, handler func(context.Context, *I) (*O, error)) {
	operation.MaxBodyBytes, operation.BodyReadTimeout = -1, -1 // see withBody
	if operation.Responses != nil {                            // then the library describes no errors by itself
		operation.Responses["default"] = &huma.Response{
			Description: "Error", Content: map[string]*huma.MediaType{api.MediaProblem: {Schema: schemaOf[problem](described)}},
		}
	}
	huma.Register(described, operation, func(ctx context.Context, input *I) (*O, error) {
		output, err := handler(ctx, input)
		if err != nil {
			told := explain(err)
			if told.cause != nil {
				s.Log.Error("a request failed", "operation", operation.OperationID, "error", told.cause)
			}
			return nil, told
		}
		return output, nil
	})
}

// jsonOf describes a body of a type.
func jsonOf[T any](described huma.API) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: schemaOf[T](described)}}
}

func schemaOf[T any](described huma.API) *huma.Schema {
	of := reflect.TypeFor[T]()
	return described.OpenAPI().Components.Schemas.Schema(of, true, of.Name())
}
