package repo

import (
	"context"
	"errors"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
)

// Parity says in how many shards packs are protected.
type Parity = format.Parity

// maxShards of a pack, data and parity together.
const maxShards = 256

// ParityShare is the parity that takes about so much of what is stored: 0.05 for 5 %. It has as many shards as there
// can be, so that as many small places of a pack as possible can be mended. The share is above 0 and at most 1.
func ParityShare(share float64) Parity {
	shards := int(maxShards*share/(1+share) + 0.5)
	shards = max(1, min(shards, maxShards/2))
	return Parity{Data: maxShards - shards, Parity: shards}
}

// protect makes a pack's parity file, where the repository has parity. The pack is read again, front to back: it has
// just been written, and of what it will be read as later this is the nearest thing.
func (r *Repository) protect(ctx context.Context, id format.Name, size int64) error {
	if r.description.Parity == nil {
		return nil
	}
	reader, err := r.store.Open(ctx, pack.ObjectName(id))
	if err != nil {
		return err
	}
	defer reader.Close()
	file, err := r.parity.Encode(reader, parity.NewLayout(id, size, *r.description.Parity))
	if err != nil {
		return err
	}
	if err := r.store.Put(ctx, parity.ObjectName(id), file); !errors.Is(err, storage.ErrExists) {
		return err
	}
	return nil // another verification was faster
}

// parityBytes is what the parity of a pack takes.
func (r *Repository) parityBytes(p commitlog.Pack) int64 {
	if r.description.Parity == nil {
		return 0
	}
	return parity.NewLayout(p.ID, p.Size, *r.description.Parity).FileSize()
}
