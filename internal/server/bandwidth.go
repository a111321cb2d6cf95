package server

import (
	"context"
	"errors"

	"ferry/internal/policy"
)

// CheckBandwidth returns what is wrong with the limit in all: that a bucket among the repositories cannot be kept to it.
func (s *Server) CheckBandwidth(ctx context.Context) ([]policy.Problem, error) {
	resources, err := s.parsed(ctx)
	var mistakes policy.Problems
	if errors.As(err, &mistakes) { // no job is run as long as they are there
		return nil, nil
	}
	for _, r := range resources.Repositories {
		if r.InBucket() {
			return s.Bandwidth.BelowBucket("bandwidth", "a bucket, repository "+r.Name+","), nil
		}
	}
	return nil, err
}

// beyondLimit is what is wrong with where a repository lies: that it is a bucket, which cannot be kept to the limit in all.
func (s *Server) beyondLimit(r policy.Repository) []policy.Problem {
	problems := s.Bandwidth.BelowBucket("bandwidth", "a bucket")
	if len(problems) == 0 || !r.InBucket() {
		return nil
	}
	return []policy.Problem{{Path: "location", Text: "of the limits of all jobs together, " + problems[0].Text, Hint: "ferry serve --bandwidth sets them: " + problems[0].Hint}}
}
