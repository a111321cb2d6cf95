package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"ferry/internal/api"
	"ferry/internal/policy"
)

// shelf is where a resource is put: a file, the server that runs, or nowhere.
type shelf struct {
	// name is that of the file, or "the server"; empty: the resource is only printed.
	name   string
	server *asked
	// there is what the file has, and known the resources that the file or the server has.
	there []byte
	known policy.Resources
}

// shelfOf is the file that the flags name, else the server, if one runs.
func shelfOf(ctx context.Context, f adoptFlags, at *asked) (*shelf, error) {
	s := &shelf{}
	switch {
	case f.as == "" || f.file == "-":
		return s, nil
	case f.file != "":
		s.name = f.file
		return s, s.readFile()
	}
	if !at.client().Running(ctx) {
		if at.socket != "" {
			return s, noServer(at.path())
		}
		return s, nil
	}
	var err error
	s.name, s.server = "the server", at
	s.known, err = at.known(ctx)
	return s, err
}

// readFile reads what the file has. It may be new.
func (s *shelf) readFile() error {
	var err error
	if s.there, err = os.ReadFile(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return usage("%w", err)
	}
	if len(bytes.TrimSpace(s.there)) == 0 {
		s.there = nil
		return nil
	}
	if s.known, err = policy.Parse(policy.File{Name: s.name, Content: s.there}); err != nil {
		return &exitError{code: ExitUsage, err: err}
	}
	return nil
}

// addition is what the file needs at its end to have the resource too.
func (s *shelf) addition(resource policy.Repository) []byte {
	added := resource.YAML()
	if len(s.there) > 0 {
		added = append([]byte("---\n"), added...)
		if s.there[len(s.there)-1] != '\n' {
			added = append([]byte("\n"), added...)
		}
	}
	return added
}

// fits returns an error unless the resource can be put there: it is well formed, and neither its name nor its id is known.
func (s *shelf) fits(resource policy.Repository) error {
	i := slices.IndexFunc(s.known.Repositories, func(r policy.Repository) bool { return r.ID == resource.ID || r.Name == resource.Name })
	if i >= 0 {
		known := s.known.Repositories[i]
		return hinted(usage("%s has repository %s already: %s at %s", printable(s.name), known.Name, cmp.Or(known.ID, "any id"), printable(known.Location)),
			"if it was moved, change its location there to "+printable(resource.Location))
	}
	_, err := policy.Parse(policy.File{Name: cmp.Or(s.name, "the resource"), Content: slices.Concat(s.there, s.addition(resource))})
	if err != nil {
		return &exitError{code: ExitUsage, err: err}
	}
	return nil
}

// put puts the resource there.
func (s *shelf) put(ctx context.Context, resource policy.Repository) error {
	switch {
	case s.server != nil:
		_, err := s.server.client().Apply(ctx, api.Apply{Documents: string(resource.YAML())})
		return s.server.failed(err)
	case s.name != "":
		file, err := os.OpenFile(s.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = file.Write(s.addition(resource))
		return errors.Join(err, file.Sync(), file.Close())
	}
	return nil
}
