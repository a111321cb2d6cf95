package keyring

import (
	"context"
	"errors"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// File is the key file that all of the ring was read from; false if it is from several, or from none.
func (r *Ring) File() (File, bool) { return r.from, r.from != (File{}) && !r.united }

// LoadKnown finds the ring in the one key file that opened it before, by its name, and does not look for others: two requests, where
// Load takes one for each of them and some to find them. Nil: it says nothing, and Load is to be asked. So it is where the file was removed
// or damaged, where no identity opens it, and where a rotation has begun since: who makes another data key claims its generation first.
func LoadKnown(ctx context.Context, store storage.Store, known File, repository, check format.Name, identities []age.Identity) *Ring {
	content, err := storage.ReadAll(ctx, store, known.Path(), MaxFile)
	if err != nil || CheckFile(known, content) != nil {
		return nil
	}
	// By reading it, which is one request: that a HEAD finds nothing is asked once more.
	if _, err := storage.ReadAll(ctx, store, Folder+generationName(known.Generation+1), MaxFile); !errors.Is(err, storage.ErrNotExist) {
		return nil
	}
	l := loader{repository: repository, check: check, files: map[uint32][]keyFile{known.Generation: {{known, KindOf(content), content}}}}
	return l.open(ctx, known.Generation, identities)
}
