package repo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
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
			content = make([]byte, r.reservePiece)
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
	return r.releaseReserve(ctx, 0)
}

// releaseReserve leaves so many pieces of the reserve as they are, and returns false if there were no more.
func (r *Repository) releaseReserve(ctx context.Context, leave int) (bool, error) {
	if err := r.Writable(); err != nil {
		return false, err
	}
	there, err := r.reserved(ctx)
	if err != nil || len(there) <= leave {
		return false, err
	}
	for _, name := range slices.Sorted(maps.Keys(there))[leave:] {
		if err := r.store.Delete(ctx, name); err != nil {
			return false, err
		}
	}
	return true, nil
}

// withReserve writes what gives space back. If there is no space even for that, the reserve is released, and it is written again:
// that alone, so that what a run has done and seen until then stays one run's.
func (r *Repository) withReserve(ctx context.Context, write func() error) error {
	return r.withReserveBut(ctx, 0, write)
}

// moveWithReserve is withReserve for a pack, which may be as large as the reserve: a piece is left for log entries.
func (r *Repository) moveWithReserve(ctx context.Context, write func() error) error {
	return r.withReserveBut(ctx, 1, write)
}

func (r *Repository) withReserveBut(ctx context.Context, leave int, write func() error) error {
	err := write()
	if !errors.Is(err, storage.ErrFull) {
		return err
	}
	if released, releaseErr := r.releaseReserve(ctx, leave); releaseErr != nil || !released {
		return err
	}
	return write()
}

// Reserved is how much of the reserve is there, and how large it is when it is whole, in bytes.
func (r *Repository) Reserved(ctx context.Context) (kept, whole int64, err error) {
	there, err := r.reserved(ctx)
	return int64(len(there)) * r.reservePiece, reservePieces * r.reservePiece, err
}

// reserved are the files of the reserve that are there.
func (r *Repository) reserved(ctx context.Context) (map[string]bool, error) {
	there := map[string]bool{}
	for info, err := range r.store.List(ctx, "marks/") {
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(info.Name, reserveMark) && !info.NotFile && len(there) < 2*reservePieces {
			there[info.Name] = true
		}
	}
	return there, nil
}
