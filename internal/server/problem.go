package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/backup"
	"ferry/internal/catalog"
	"ferry/internal/policy"
	"ferry/internal/scheduler"
)

// problem is the error of a request, with all that its client is told.
type problem struct {
	api.Problem
	// etag of the resource as it is, if the problem is about its version.
	etag string
	// cause is for the log; nil if the client is told everything.
	cause error
}

func (p *problem) Error() string { return p.Detail }

func (p *problem) Unwrap() error { return p.cause }

// GetStatus is the HTTP status.
func (p *problem) GetStatus() int { return p.Status }

// ContentType is that of problems.
func (p *problem) ContentType(string) string { return api.MediaProblem }

// GetHeaders gives the version of what has changed meanwhile.
func (p *problem) GetHeaders() http.Header {
	if p.etag == "" {
		return nil
	}
	return http.Header{"Etag": {p.etag}}
}

// MarshalJSON writes what the client is told, safe to print.
func (p *problem) MarshalJSON() ([]byte, error) {
	told := p.Problem
	told.Detail, told.Hint = backup.SafeText(told.Detail), backup.SafeText(told.Hint)
	told.Mistakes = make([]api.Mistake, len(p.Mistakes))
	for i, m := range p.Mistakes {
		m.Path, m.Text, m.Hint = backup.SafeText(m.Path), backup.SafeText(m.Text), backup.SafeText(m.Hint)
		told.Mistakes[i] = m
	}
	return json.Marshal(told)
}

func newProblem(status int, code, format string, args ...any) *problem {
	return &problem{Problem: api.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}}
}

func (p *problem) hint(text string) *problem {
	p.Hint = text
	return p
}

// init has huma's own refusals, of parameters and bodies, in the form of all others, and lists never null. The library has both
// for the whole program only.
func init() {
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, message string, details ...error) huma.StatusError {
		code := ""
		switch status {
		case http.StatusNotFound:
			code = api.CodeNotFound
		case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
			code = api.CodeInvalid
		}
		p := newProblem(status, code, "%s", message)
		for _, err := range details {
			var detail huma.ErrorDetailer
			if errors.As(err, &detail) {
				d := detail.ErrorDetail()
				p.Mistakes = append(p.Mistakes, api.Mistake{Path: d.Location, Text: d.Message})
			} else if err != nil {
				p.Mistakes = append(p.Mistakes, api.Mistake{Text: err.Error()})
			}
		}
		return p
	}
}

// explain makes an error that a handler got into what its client is told. What is not known stays in the log.
func explain(err error) *problem {
	var known *problem
	var problems policy.Problems
	var conflict *catalog.ConflictError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &problems):
		return invalid(problems)
	case errors.As(err, &conflict):
		p := newProblem(http.StatusPreconditionFailed, api.CodeChanged, "%v", conflict).hint("get it as it is now, and change that")
		if conflict.Current != 0 {
			p.etag = etag(conflict.Current)
		}
		return p
	case errors.Is(err, scheduler.ErrRunning):
		return newProblem(http.StatusConflict, api.CodeRunning, "%v", err).hint("ferry session follow JOB shows it, ferry job stop JOB ends it")
	case errors.Is(err, scheduler.ErrNotRunning):
		return newProblem(http.StatusConflict, api.CodeNotRunning, "%v", err)
	case errors.Is(err, scheduler.ErrNothingToRetry):
		return newProblem(http.StatusConflict, api.CodeNothingToRetry, "%v", err)
	case errors.Is(err, scheduler.ErrNotReady):
		return newProblem(http.StatusServiceUnavailable, api.CodeNotReady, "%v", err)
	case errors.Is(err, catalog.ErrNotFound), errors.Is(err, scheduler.ErrUnknownJob), errors.Is(err, scheduler.ErrUnknownRepository):
		return newProblem(http.StatusNotFound, api.CodeNotFound, "%v", err).hint("ferry get says which jobs and repositories there are, ferry session list which sessions")
	case errors.Is(err, catalog.ErrTooLarge), errors.Is(err, catalog.ErrInvalid):
		return newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "%v", err)
	case errors.Is(err, catalog.ErrFull):
		return withCause(http.StatusInsufficientStorage, api.CodeNotReady, "there is no space left for the server's catalog", err)
	case errors.Is(err, catalog.ErrBusy):
		return withCause(http.StatusServiceUnavailable, api.CodeNotReady, "the server's catalog is in use by another process", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return withCause(http.StatusServiceUnavailable, api.CodeNotReady, "the request was given up, or the server ends", err)
	}
	return withCause(http.StatusInternalServerError, "", "the server failed; its log says more", err)
}

// withCause is a problem whose cause is for the log only.
func withCause(status int, code, detail string, cause error) *problem {
	p := newProblem(status, code, "%s", detail)
	p.cause = cause
	return p
}

// invalid is the problem of mistakes in YAML.
func invalid(problems policy.Problems) *problem {
	first := problems[0]
	first.File = "" // it is that of a stored resource, or none
	p := newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "%s", first)
	if first.Line > 0 {
		p.Detail = fmt.Sprintf("line %d: %s", first.Line, first)
	}
	if len(problems) > 1 {
		p.Detail = fmt.Sprintf("%d mistakes; the first: %s", len(problems), p.Detail)
	}
	for _, found := range problems {
		p.Mistakes = append(p.Mistakes, api.Mistake{
			Resource: found.File, Line: found.Line, Column: found.Column, Path: found.Path, Text: found.Text, Hint: found.Hint,
		})
	}
	return p
}
