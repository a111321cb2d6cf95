package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// Limits of all jobs together that somebody has set are kept among the resources, so that they hold after a restart, with a limit on
// each line. The operations on resources do not show them.
const (
	kindBandwidth = "Bandwidth"
	allJobs       = "all"
)

// bandwidthAnswer is the bandwidth with its version as ETag.
type bandwidthAnswer struct {
	ETag string `header:"ETag"`
	Body api.Bandwidth
}

func (s *Server) bandwidthOperations(described huma.API) {
	tags := []string{"server"}
	operate(s, described, huma.Operation{
		OperationID: "get-bandwidth", Method: http.MethodGet, Path: api.PathBandwidth, Tags: tags,
		Summary: "How much all jobs together may read and write across a network",
	}, func(ctx context.Context, _ *struct{}) (*bandwidthAnswer, error) {
		now, _, err := s.bandwidth(ctx)
		return &bandwidthAnswer{etag(now.Version), now}, err
	})
	operate(s, described, huma.Operation{
		OperationID: "set-bandwidth", Method: http.MethodPut, Path: api.PathBandwidth, Tags: tags,
		Summary: "Have all jobs together keep to other limits, also sessions in progress and after a restart (If-Match)",
	}, func(ctx context.Context, input *struct {
		IfMatch string `header:"If-Match" doc:"The ETag that it must still have; or *, whichever."`
		Body    api.SetBandwidth
	}) (*bandwidthAnswer, error) {
		return s.changeBandwidth(ctx, input.IfMatch, input.Body.Limits, func(limits []string, was int64) error {
			_, err := s.Catalog.Resources.Put(context.WithoutCancel(ctx), kindBandwidth, allJobs, strings.Join(limits, "\n"), was)
			return err
		})
	})
	operate(s, described, huma.Operation{
		OperationID: "reset-bandwidth", Method: http.MethodDelete, Path: api.PathBandwidth, DefaultStatus: http.StatusOK, Tags: tags,
		Summary: "Have the limits be those again that the server was started with (If-Match)",
	}, func(ctx context.Context, input *struct {
		IfMatch string `header:"If-Match" doc:"The ETag that it must still have; or *, whichever."`
	}) (*bandwidthAnswer, error) {
		return s.changeBandwidth(ctx, input.IfMatch, s.Bandwidth, func(_ []string, was int64) error {
			if was == 0 {
				return nil
			}
			return s.Catalog.Resources.Delete(context.WithoutCancel(ctx), kindBandwidth, allJobs, was)
		})
	})
}

// HoldBandwidth has the limits hold that somebody has set, or else those of the options, before the first session begins. It returns
// what is wrong with those of the options. Those that somebody has set hold also where a bucket cannot be kept to them, and those of the options
// where they are no limits any more, with a warning: only a server that runs can be told others.
func (s *Server) HoldBandwidth(ctx context.Context) ([]policy.Problem, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	now, limits, err := s.bandwidth(ctx)
	if err != nil {
		return nil, err
	}
	if !now.Since.IsZero() && len(s.Bandwidth) > 0 {
		s.Log.Warn("the bandwidth of all jobs together is what somebody set, not that of the options", "limits", strings.Join(now.Limits, ", "), "since", now.Since)
	}
	s.hold(limits)
	problems, err := s.unkeepable(ctx, limits)
	var mistakes policy.Problems
	switch {
	case errors.As(err, &mistakes): // no job is run as long as they are there, and only a server that runs can be told what they should be
		return nil, nil
	case err != nil:
		return nil, err
	case len(problems) > 0 && !now.Since.IsZero():
		s.Log.Warn("a bucket cannot be kept to the bandwidth of all jobs together that somebody set: what is copied from and to it may fail",
			"problem", problems[0].Text, "since", now.Since, "hint", "ferry bandwidth sets another: "+problems[0].Hint)
		return nil, nil
	}
	return problems, nil
}

// hold makes the limits of all jobs together what is given. s.changing is held.
func (s *Server) hold(limits policy.Bandwidth) {
	s.inAll = limits
	if s.Limit != nil {
		s.Limit(limits)
	}
}

// bandwidth is how the limits of all jobs together stand. Where those that somebody has set cannot be read, those of the options hold.
func (s *Server) bandwidth(ctx context.Context) (now api.Bandwidth, limits policy.Bandwidth, err error) {
	now.Limits = append([]string{}, s.Bandwidth...)
	stored, err := s.Catalog.Resources.Get(ctx, kindBandwidth, allJobs)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
	case err != nil:
		return now, nil, err
	default:
		set := []string{}
		if stored.Document != "" {
			set = strings.Split(stored.Document, "\n")
		}
		now.Version = stored.Version
		if _, mistakes := parseLimits(set); mistakes != nil {
			s.Log.Warn("the bandwidth of all jobs together that somebody set cannot be read: what the options say holds",
				"problem", mistakes, "since", stored.Changed, "hint", "ferry bandwidth sets another")
		} else {
			now.Since, now.Limits = stored.Changed, set
		}
	}
	limits, err = parseLimits(now.Limits)
	now.Now = int64(limits.LimitAt(s.Now()))
	return now, limits, err
}

// parseLimits reads limits; the error is of type policy.Problems.
func parseLimits(texts []string) (limits policy.Bandwidth, err error) {
	var problems policy.Problems
	for i, text := range texts {
		limit, err := policy.ParseLimit(text, time.Local)
		if err != nil {
			problems = append(problems, policy.Problem{Path: fmt.Sprintf("limits[%d]", i), Text: err.Error()})
		}
		limits = append(limits, limit)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return limits, nil
}

// changeBandwidth has other limits hold, once store has stored them in place of a version.
func (s *Server) changeBandwidth(ctx context.Context, ifMatch string, texts []string, store func(limits []string, was int64) error) (*bandwidthAnswer, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	was, _, err := s.bandwidth(ctx)
	if err != nil {
		return nil, err
	}
	if err := condition(ifMatch, was.Version, "the bandwidth", ""); err != nil {
		return nil, err
	}
	limits, err := parseLimits(texts)
	if err != nil {
		return nil, err
	}
	problems, err := s.unkeepable(ctx, limits)
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	plain := make([]string, len(texts))
	for i, text := range texts {
		plain[i] = strings.Join(strings.Fields(text), " ")
	}
	if err := store(plain, was.Version); err != nil {
		return nil, err
	}
	s.hold(limits)
	now, _, err := s.bandwidth(context.WithoutCancel(ctx))
	s.Log.Info("the bandwidth of all jobs together was changed", "limits", strings.Join(now.Limits, ", "))
	return &bandwidthAnswer{etag(now.Version), now}, err
}

// unkeepable returns what is wrong with limits of all jobs together: that a bucket among the repositories cannot be kept to them. It is
// an error if that cannot be told, since the resources have mistakes. What any bucket can be kept to, and no limit, is fine whatever they have.
func (s *Server) unkeepable(ctx context.Context, limits policy.Bandwidth) ([]policy.Problem, error) {
	if len(limits.BelowBucket("limits", "a bucket")) == 0 {
		return nil, nil
	}
	resources, err := s.parsed(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range resources.Repositories {
		if r.InBucket() {
			return limits.BelowBucket("limits", "a bucket, repository "+r.Name+","), nil
		}
	}
	return nil, nil
}

// beyondLimit is what is wrong with where a repository lies: that it is a bucket, which cannot be kept to the limits of all jobs
// together. s.changing is held.
func (s *Server) beyondLimit(r policy.Repository) []policy.Problem {
	problems := s.inAll.BelowBucket("limits", "a bucket")
	if len(problems) == 0 || !r.InBucket() {
		return nil
	}
	return []policy.Problem{{Path: "location", Text: "of the limits of all jobs together, " + problems[0].Text, Hint: "ferry bandwidth sets them: " + problems[0].Hint}}
}
