package cli

import (
	"context"

	"ferry/internal/repo"
	"ferry/internal/source/ferry"
	"ferry/internal/source/registry"
)

// newTarget completes the options of a repository that a copy makes: from the flags, and from the repository that is copied
// from, if it is one, what no flag says.
func (a *app) newTarget(ctx context.Context, from *registry.Source, f *copyFlags, given func(flag string) bool) error {
	var err error
	if f.init.Encrypt, err = f.encryption.recipientsFor(ctx, a); err != nil {
		return err
	}
	parent := onlyRepository(from)
	switch {
	case f.sameKeys && !f.encryption.encrypt:
		return usage("--same-keys is for a new repository that is encrypted; add --encrypt")
	case f.sameKeys && parent == nil:
		return usage("--same-keys needs a source that is one Ferry repository")
	case parent == nil:
		return nil
	}
	chosen := f.init
	if err := f.init.Inherit(parent, f.sameKeys); err != nil {
		return keyError(err)
	}
	if given("sha256") {
		f.init.SHA256 = chosen.SHA256
	}
	if given("block-size") {
		f.init.BlockSize = chosen.BlockSize
	}
	if parent.Description().Encrypted && !f.encryption.encrypt {
		a.warnings([]string{"the source is encrypted and the new repository is not; to encrypt it too, add --encrypt"})
	}
	return nil
}

// onlyRepository is the Ferry repository that all points of a source are in; nil if there is none, or more than one.
func onlyRepository(from *registry.Source) *repo.Repository {
	var only *repo.Repository
	for _, point := range from.Points {
		of := ferry.RepositoryOf(point)
		if of == nil || only != nil && of != only {
			return nil
		}
		only = of
	}
	return only
}
