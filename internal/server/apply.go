package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	calls "ferry/internal/answer"
	"ferry/internal/api"
	"ferry/internal/catalog"
	"ferry/internal/policy"
)

// apply makes and changes resources, all or none: they are checked together with those that stay, and stored in one
// transaction.
func (s *Server) apply(ctx context.Context, wanted api.Apply) (api.Applied, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	documents := policy.Split([]byte(wanted.Documents))
	list, err := s.storedResources(ctx)
	if err != nil {
		return api.Applied{}, err
	}
	stored := map[string]catalog.Resource{}
	for _, r := range list {
		stored[describe(r.Kind, r.Name)] = r
	}
	kept := func(d policy.Document) bool {
		return wanted.KeepExisting && stored[describe(d.Kind, d.Name)].Version > 0
	}
	given := slices.DeleteFunc(slices.Clone(documents), kept)
	if len(given) > 0 || len(documents) == 0 {
		if err := s.check(ctx, wanted.Documents, given); err != nil {
			return api.Applied{}, err
		}
	}
	applied := api.Applied{Resources: make([]api.AppliedResource, len(documents))}
	var changes []catalog.ResourceChange
	var changed []int // places of the changes in applied
	for i, d := range documents {
		was, there := stored[describe(d.Kind, d.Name)]
		outcome := "unchanged"
		switch {
		case there && was.Document == d.Text:
		case kept(d):
			outcome = "kept"
		default:
			outcome = map[bool]string{false: "created", true: "changed"}[there]
			changes = append(changes, catalog.ResourceChange{Kind: d.Kind, Name: d.Name, Document: d.Text, Expected: was.Version})
			changed = append(changed, i)
		}
		applied.Resources[i] = api.AppliedResource{Kind: d.Kind, Name: d.Name, Version: was.Version, Outcome: outcome}
	}
	if wanted.DryRun || len(changes) == 0 {
		return applied, nil
	}
	// Whoever has gone meanwhile: it is done, and everybody knows, or not.
	put, err := s.Catalog.Resources.PutAll(context.WithoutCancel(ctx), changes)
	if err != nil {
		return api.Applied{}, err
	}
	names := make([]string, len(put))
	for i, r := range put {
		applied.Resources[changed[i]].Version, names[i] = r.Version, describe(r.Kind, r.Name)
	}
	s.changed("apply", names)
	return applied, nil
}

// changed tells the scheduler, and the log, that resources were changed.
func (s *Server) changed(how string, resources []string) {
	s.Log.Info("resources were changed", "by", how, "resources", strings.Join(resources, ", "))
	s.Scheduler.Changed()
}

// check returns an error unless documents hold, together with the stored resources that they do not replace. s.changing is
// held, so what was checked is what is stored.
//
// Each document is read as it will be stored. Mistakes are told with the lines of the whole.
func (s *Server) check(ctx context.Context, whole string, documents []policy.Document) error {
	if len(documents) == 0 {
		_, err := policy.Parse(policy.File{Content: []byte(whole)}) // it says why
		if err == nil {
			err = newProblem(http.StatusUnprocessableEntity, api.CodeInvalid, "there is no resource in what was sent")
		}
		return err
	}
	given, lines := map[string]bool{}, map[string]int{}
	files := make([]policy.File, len(documents))
	for i, d := range documents {
		given[describe(d.Kind, d.Name)] = true
		files[i] = policy.File{Name: fmt.Sprintf("document %d", i+1), Content: []byte(d.Text)}
		lines[files[i].Name] = d.Line - 1
	}
	for name := range given {
		if err := s.notLeaving(name); err != nil {
			return err
		}
	}
	stored, err := s.storedResources(ctx)
	if err != nil {
		return err
	}
	for _, r := range stored {
		if !given[describe(r.Kind, r.Name)] {
			files = append(files, fileOf(r))
		}
	}
	rules := policy.Rules{
		Memory: &s.read,
		Repository: func(r policy.Repository) []policy.Problem {
			return only(given[describe(kindRepository, r.Name)], r, func(r policy.Repository) []policy.Problem {
				return slices.Concat(s.place(ctx, r), s.Allowed.Secrets(r), s.beyondLimit(r))
			})
		},
		Job: func(j policy.Job) []policy.Problem { return only(given[describe(kindJob, j.Name)], j, s.Allowed.Job) },
	}
	_, err = rules.Parse(files...)
	if problems, ok := err.(policy.Problems); ok { //nolint:errorlint // Parse gives this type and no other
		return relocated(problems, lines)
	}
	for _, d := range documents {
		if d.Name == "" {
			return policy.Problems{{Line: d.Line, Column: 1, Text: "this is not one resource", Hint: "part resources by lines of ---"}}
		}
	}
	return err
}

// placeTimeout is how long it may take to find out where the links of a location lead.
const placeTimeout = 2 * time.Second

// place is what is wrong with where a repository lies, which may be on a share that does not answer: other changes wait meanwhile.
func (s *Server) place(ctx context.Context, r policy.Repository) []policy.Problem {
	if len(s.Allowed.Places) == 0 { // no link is looked at
		return s.Allowed.Place(r)
	}
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	problems, err := calls.Open(ctx, r.Location, func() ([]policy.Problem, error) { return s.Allowed.Place(r), nil }, nil)
	if err != nil {
		return []policy.Problem{{Path: "location", Text: "where it leads cannot be found out: " + err.Error()}}
	}
	return problems
}

// only asks a rule about resources that are given: those that are stored already were asked about then.
func only[T any](given bool, of T, rule func(T) []policy.Problem) []policy.Problem {
	if !given {
		return nil
	}
	return rule(of)
}

// relocated gives the mistakes of documents their lines in the whole, and puts them before those of stored resources.
func relocated(problems policy.Problems, lines map[string]int) policy.Problems {
	for i := range problems {
		if above, of := lines[problems[i].File]; of {
			problems[i].File = ""
			problems[i].Line += above
		}
	}
	slices.SortStableFunc(problems, func(a, b policy.Problem) int { return cmp.Compare(a.File, b.File) })
	return problems
}
