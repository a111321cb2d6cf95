package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// The kinds of resources.
const (
	kindJob        = "Job"
	kindRepository = "Repository"
)

// describe names a resource for a person.
func describe(kind, name string) string { return strings.ToLower(kind) + " " + name }

type getInput struct {
	Kind        string `path:"kind" enum:"Job,Repository"`
	Name        string `path:"name" maxLength:"255"`
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of the version that is known already."`
}

type putInput struct {
	Kind        string `path:"kind" enum:"Job,Repository"`
	Name        string `path:"name" maxLength:"255"`
	IfMatch     string `header:"If-Match" doc:"The ETag that the resource must still have; or *, whichever."`
	IfNoneMatch string `header:"If-None-Match" doc:"*: the resource must not be there."`
	Body        api.Document
}

type deleteInput struct {
	Kind    string `path:"kind" enum:"Job,Repository"`
	Name    string `path:"name" maxLength:"255"`
	IfMatch string `header:"If-Match" doc:"The ETag that the resource must still have; or *, whichever."`
	Release bool   `query:"release" doc:"Withdraw the claims of a job: its points go, unless another job or a hold keeps them."`
}

// resourceAnswer is a resource with its version as ETag.
type resourceAnswer struct {
	Status int
	ETag   string `header:"ETag"`
	Body   api.Resource
}

func (s *Server) resourceOperations(described huma.API) {
	tags := []string{"resources"}
	operate(s, described, huma.Operation{
		OperationID: "apply", Method: http.MethodPost, Path: api.PathApply, Tags: tags,
		Summary: "Make and change resources, all of them or none",
	}, func(ctx context.Context, input *struct{ Body api.Apply }) (*answer[api.Applied], error) {
		applied, err := s.apply(ctx, input.Body)
		return reply(applied), err
	})
	operate(s, described, huma.Operation{
		OperationID: "list-resources", Method: http.MethodGet, Path: api.PathResources, Summary: "All resources, by kind and name", Tags: tags,
	}, func(ctx context.Context, input *struct {
		Kind string `query:"kind" enum:"Job,Repository" doc:"Only those of this kind."`
	}) (*answer[[]api.Resource], error) {
		stored, err := s.storedResources(ctx)
		list := []api.Resource{}
		for _, r := range stored {
			if input.Kind == "" || input.Kind == r.Kind {
				list = append(list, resourceOf(r))
			}
		}
		return reply(list), err
	})
	operate(s, described, huma.Operation{
		OperationID: "get-resource", Method: http.MethodGet, Path: api.PathResource, Tags: tags,
		Summary:   "A resource; 304 if it is the one that If-None-Match names",
		Responses: map[string]*huma.Response{"304": {Description: "It is"}},
	}, s.getResource)
	operate(s, described, huma.Operation{
		OperationID: "put-resource", Method: http.MethodPut, Path: api.PathResource, Tags: tags,
		Summary:   "Make a resource (If-None-Match: *, 201) or change it (If-Match, 200)",
		Responses: map[string]*huma.Response{"201": {Description: "Created", Content: jsonOf[api.Resource](described)}},
	}, s.putResource)
	operate(s, described, huma.Operation{
		OperationID: "delete-resource", Method: http.MethodDelete, Path: api.PathResource, DefaultStatus: http.StatusNoContent, Tags: tags,
		Summary: "Delete a resource that no other refers to (If-Match)",
		Description: "The points of a deleted job stay, under its last policy, unless release is true. " +
			"A job whose session has not ended is not deleted.",
	}, func(ctx context.Context, input *deleteInput) (*struct{}, error) {
		return nil, s.deleteResource(ctx, input)
	})
}

func (s *Server) getResource(ctx context.Context, input *getInput) (*resourceAnswer, error) {
	stored, err := s.Catalog.Resources.Get(ctx, input.Kind, input.Name)
	if err != nil {
		return nil, err
	}
	found := answerResource(http.StatusOK, stored)
	if matches(input.IfNoneMatch, stored.Version) {
		found.Status = http.StatusNotModified
	}
	return found, nil
}

func (s *Server) putResource(ctx context.Context, input *putInput) (*resourceAnswer, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	was, err := s.required(ctx, input.Kind, input.Name, input.IfMatch, input.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	documents := policy.Split([]byte(input.Body.Document))
	if err := s.check(ctx, input.Body.Document, documents); err != nil {
		return nil, err
	}
	if d := documents[0]; len(documents) != 1 || d.Kind != input.Kind || d.Name != input.Name {
		return nil, newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "the document is not just %s", describe(input.Kind, input.Name)).
			hint(api.PathApply + " takes any number of resources")
	}
	put, err := s.Catalog.Resources.Put(context.WithoutCancel(ctx), input.Kind, input.Name, documents[0].Text, was)
	if err != nil {
		return nil, err
	}
	s.changed("put", []string{describe(put.Kind, put.Name)})
	status := http.StatusOK
	if was == 0 {
		status = http.StatusCreated
	}
	return answerResource(status, put), nil
}

// required is the version at which the resource must be that is to be changed, and is; 0 if it must not be there, and is not.
func (s *Server) required(ctx context.Context, kind, name, ifMatch, ifNoneMatch string) (int64, error) {
	current, err := s.version(ctx, kind, name)
	switch {
	case err != nil:
		return 0, err
	case ifMatch != "" && ifNoneMatch != "":
		return 0, newProblem(http.StatusBadRequest, api.CodeInvalid, "If-Match and If-None-Match exclude each other")
	case ifNoneMatch == "*" && current != 0:
		return 0, &catalog.ConflictError{Kind: kind, Name: name, Current: current}
	case ifNoneMatch == "*":
		return 0, nil
	case ifMatch != "" && current == 0:
		return 0, &catalog.ConflictError{Kind: kind, Name: name, Expected: -1}
	}
	return current, condition(ifMatch, current, describe(kind, name), ", or If-None-Match: * for a new resource")
}

// condition returns an error unless If-Match names the version at which something is that a request changes. what names it for a
// person, and instead is what the request might have said instead.
func condition(ifMatch string, current int64, what, instead string) error {
	if ifMatch == "" {
		return newProblem(http.StatusPreconditionRequired, api.CodeCondition, "the request does not say which version it changes").
			hint("If-Match with the ETag of the version that you know" + instead)
	}
	if !matches(ifMatch, current) {
		p := newProblem(http.StatusPreconditionFailed, api.CodeChanged, "%s is at version %s, not %s", what, etag(current), ifMatch).
			hint("get it as it is now, and change that")
		p.etag = etag(current)
		return p
	}
	return nil
}

// version is that of a resource, or 0 if it is not there.
func (s *Server) version(ctx context.Context, kind, name string) (int64, error) {
	stored, err := s.Catalog.Resources.Get(ctx, kind, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return 0, nil
	}
	return stored.Version, err
}

// storedResources are the resources, by kind and name.
func (s *Server) storedResources(ctx context.Context) ([]catalog.Resource, error) {
	return s.Catalog.Resources.List(ctx, false, kindJob, kindRepository)
}

// parsed are the resources that hold.
func (s *Server) parsed(ctx context.Context) (policy.Resources, error) {
	list, err := s.storedResources(ctx)
	if err != nil || len(list) == 0 {
		return policy.Resources{}, err
	}
	var files []policy.File
	for _, r := range list {
		files = append(files, fileOf(r))
	}
	resources, err := policy.Rules{Memory: &s.read}.Parse(files...)
	var problems policy.Problems
	if errors.As(err, &problems) { // a program that was less strict took them
		var names []string
		for _, found := range problems {
			if !slices.Contains(names, found.File) {
				names = append(names, found.File)
			}
		}
		p := newProblem(http.StatusInternalServerError, api.CodeNotReady, "resources that are stored have mistakes: %s", strings.Join(names, ", ")).
			hint("apply them anew, or delete them")
		p.Mistakes, p.cause = invalid(problems).Mistakes, err
		return policy.Resources{}, p
	}
	return resources, err
}

// fileOf is a stored resource as a file whose mistakes name it.
func fileOf(r catalog.Resource) policy.File {
	return policy.File{Name: describe(r.Kind, r.Name), Content: []byte(r.Document)}
}

func resourceOf(r catalog.Resource) api.Resource {
	return api.Resource{Kind: r.Kind, Name: r.Name, Version: r.Version, Document: r.Document, Changed: r.Changed}
}

func answerResource(status int, r catalog.Resource) *resourceAnswer {
	return &resourceAnswer{Status: status, ETag: etag(r.Version), Body: resourceOf(r)}
}

// etag is a version as an entity tag.
func etag(version int64) string { return fmt.Sprintf(`"%d"`, version) }

// matches is true if a list of entity tags has that of a version, or is "*".
func matches(list string, version int64) bool {
	for _, tag := range strings.Split(list, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == etag(version) {
			return true
		}
	}
	return false
}
