package repo_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
)

// keyTasks change who can open the repository. Whom the tests' own key is for always can.
func (b basis) keyTasks(t *testing.T) map[string]task {
	leaver, next := newHolder(t, "leaver"), newHolder(t, "next")
	b = basis{store: initialized(t, repo.Options{}), kept: []*sourcetest.Point{b.other}} // there are many calls: little else is enough
	b.fill(t, b.store)
	var kit []byte
	shared := b.after(t, func(r *repo.Repository) {
		must(r.AddKey(t.Context(), leaver.to))(t)
		kit = must(r.ExportKit("", repo.Passphrase{}))(t)
	})
	keyless := shared.Clone()
	deleteKeys(t, keyless, slices.Concat(keyless.Names("keys/"), keyless.Names("marks/keys-")))
	own := must(repo.ParseRecipient(testIdentity().Recipient().String(), "tests"))(t)
	all := map[string]task{
		"key add": {run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.AddKey(ctx, next.to)
			if errors.Is(err, repo.ErrSameKey) {
				err = nil
			}
			return err
		}, done: opensFor(next, leaver)},
		"key remove": {run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			id, err := idOf(ctx, r, leaver)
			if id != "" {
				_, err = r.RemoveKey(ctx, id)
			}
			return err
		}, done: shutFor(leaver)},
		// Who rotates has the new data key first: no fault keeps that one from rotating again.
		"key rotate": {run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			_, err := r.RotateKeys(ctx, repo.RotateOptions{})
			return err
		}, done: opensFor(leaver)},
		"key drop": {run: func(ctx context.Context, _ testing.TB, r *repo.Repository, _ place) error {
			options := repo.RotateOptions{}
			id, err := idOf(ctx, r, leaver)
			if id != "" {
				options.Drop = []string{id}
			}
			if err == nil {
				_, err = r.RotateKeys(ctx, options)
			}
			return err
		}, done: shutFor(leaver)},
		"key recover": {store: keyless, shut: true, alone: func(ctx context.Context, _ testing.TB, at place) error {
			r, err := repo.OpenWithKit(ctx, at.store, repo.Environment{CacheDir: at.cache, Now: at.now}, repo.Kit{Name: "kit", Content: kit}, nil)
			if err != nil {
				return err
			}
			_, err = r.AddKey(ctx, own)
			if errors.Is(err, repo.ErrSameKey) {
				err = nil
			}
			return errors.Join(err, r.Close())
		}},
	}
	for what, k := range all {
		if k.store == nil {
			k.store = shared
		}
		k.kept = b.kept
		all[what] = k
	}
	return all
}

// errWhose ends a task whose next step would be a person's, who is shown a key of which nothing is known.
var errWhose = errors.New("it is not told whose a key is")

// idOf is the id of somebody's key; empty if it is not listed.
func idOf(ctx context.Context, r *repo.Repository, who holder) (string, error) {
	keys, err := r.ListKeys(ctx)
	for _, key := range keys {
		if key.PublicKey == who.to.PublicKey {
			return key.ID, err
		}
		if !key.Known {
			err = errWhose
		}
	}
	return "", err
}

// opensFor wants the repository to open for each holder, with the newest keys.
func opensFor(holders ...holder) func(*testing.T, *repo.Repository, place) {
	return func(t *testing.T, r *repo.Repository, at place) {
		for _, who := range holders {
			theirs, err := at.forgetful().open(t.Context(), who)
			if err != nil {
				t.Errorf("%s: %v", who.to.Label, err)
				continue
			}
			if theirs.KeyGeneration() != r.KeyGeneration() {
				t.Errorf("%s has generation %d of %d", who.to.Label, theirs.KeyGeneration(), r.KeyGeneration())
			}
			closeRepo(t, theirs)
		}
	}
}

// shutFor wants the repository not to open for somebody whose key was taken away.
func shutFor(who holder) func(*testing.T, *repo.Repository, place) {
	return func(t *testing.T, _ *repo.Repository, at place) { mustBeShutOut(t, at.store, who) }
}
