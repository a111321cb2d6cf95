package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"ferry/internal/storage"
)

// The reserve (docs/format.md section 13) is space that a full storage has left for giving space back: the log entry that
// removes a point takes some, and so does moving what is live out of a pack that is mostly dead.
const (
	reserveMark = "marks/reserve-"
	// reservePiece is the size of one of its files, in bytes, and reservePieces their number: together as large as a pack. In
	// pieces, so that what is used up of it for good, little by little, is one of them and not all.
	reservePiece  = 4 << 20
	reservePieces = packTarget / reservePiece
)

// Reserve makes the reserve whole, unless the storage grows on demand, as a bucket does. An error wrapping storage.ErrFull
// says that there is no space for it; what fits is there then.
func (r *Repository) Reserve(ctx context.Context) error {
	if err := r.Writable(); err != nil || storage.GrowsOnDemand(r.store) {
		return err
	}
	there, err := r.reserved(ctx)
	if err != nil {
		return err
	}
	var content []byte
	for n := range reservePieces {
		name := fmt.Sprintf("%s%02d", reserveMark, n)
		if there[name] {
			continue
		}
		if content == nil {
			content = make([]byte, reservePiece)
		}
		rand.Read(content) // never fails. Zeros, or the same again, take no space in some file systems
		if err := r.store.Put(ctx, name, content); err != nil && !errors.Is(err, storage.ErrExists) {
			return fmt.Errorf("keeping space in reserve: %w", err)
		}
	}
	return nil
}

// ReleaseReserve gives the reserve's space back to the storage, and returns false if there was none.
func (r *Repository) ReleaseReserve(ctx context.Context) (bool, error) {
	if err := r.Writable(); err != nil {
		return false, err
	}
	there, err := r.reserved(ctx)
	if err != nil {
		return false, err
	}
	for name := range there {
		if err := r.store.Delete(ctx, name); err != nil {
			return false, err
		}
	}
	return len(there) > 0, nil
}

// withReserve runs what gives space back. If there is no space even for that, the reserve is released, and it runs again.
func (r *Repository) withReserve(ctx context.Context, run func() error) error {
	err := run()
	if !errors.Is(err, storage.ErrFull) {
		return err
	}
	if released, releaseErr := r.ReleaseReserve(ctx); releaseErr != nil || !released {
		return err
	}
	return run()
}

// reserved are the files of the reserve that are there.
func (r *Repository) reserved(ctx context.Context) (map[string]bool, error) {
	there := map[string]bool{}
	for info, err := range r.store.List(ctx, "marks/") {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(info.Name, reserveMark) && len(there) < 2*reservePieces {
			there[info.Name] = true
		}
	}
	return there, nil
}
