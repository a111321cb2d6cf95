package repo

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
)

// SealPoint makes a point's file under a salt of the test's.
var SealPoint = sealPoint

// DecodePoint reads a point's file.
func DecodePoint(hasher *format.Hasher, raw []byte) (*Point, error) {
	p, _, err := decodePoint(hasher, raw)
	return p, err
}

// SetPackTargets makes packs small, so that little content fills many.
func (r *Repository) SetPackTargets(data, nodes int64) { r.packTarget, r.nodePackTarget = data, nodes }

// AppendEntry commits an entry as another program could.
func (r *Repository) AppendEntry(ctx context.Context, payload *commitlog.Payload) error {
	return r.commit(ctx, payload, nil)
}

// State of the log as this process knows it.
func (r *Repository) State() *commitlog.State { return r.state }

// PlacesOf returns the packs in which the index finds an id.
func (r *Repository) PlacesOf(ctx context.Context, id format.ID) ([]format.Name, error) {
	set, err := r.lookup(ctx)
	if err != nil {
		return nil, err
	}
	var packs []format.Name
	if place, ok, err := set.Find(ctx, id); err != nil {
		return nil, err
	} else if ok {
		packs = append(packs, place.Pack)
	}
	return packs, nil
}

// FrameOrder returns the ids of a pack's frames as they lie, by its own table.
func (r *Repository) FrameOrder(ctx context.Context, p commitlog.Pack) ([]format.ID, error) {
	entries, _, err := r.readPackTable(ctx, p)
	var ids []format.ID
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	return ids, err
}

// SetSpillEntries makes few entries that no segment covers too many for memory.
func (r *Repository) SetSpillEntries(n int) { r.spillEntries = n }

// ReadSegmentsInParts makes no segment so small that it is read whole at once.
func (r *Repository) ReadSegmentsInParts() { r.smallSegment = 0 }

// LocalSegments counts the segments that this process has for itself.
func (r *Repository) LocalSegments() int { return len(r.local) }

// OpenSegments are the segments that the index has.
func (r *Repository) OpenSegments() []format.Name {
	open, done := r.index.Segments()
	defer done()
	return slices.Collect(maps.Keys(open))
}

// SettleAnew compares the segments that the index has with their checksums.
func (r *Repository) SettleAnew(ctx context.Context) error { return r.settleAnew(ctx) }

// BlockID computes a block's id.
func (r *Repository) BlockID(plain []byte) format.ID { return r.hasher.Sum(format.ContextBlock, plain) }

// ReadFrame reads a block and proves it.
func (r *Repository) ReadFrame(ctx context.Context, id format.ID) ([]byte, error) {
	return r.readFrame(ctx, pack.KindBlock, id)
}

// IgnoreLease makes reclaim run whoever else does: it must do no harm.
func (r *Repository) IgnoreLease() { r.leaseless = true }

// TakeLease takes the lease as reclaim and compact do.
func (r *Repository) TakeLease(ctx context.Context, what string) (release func(), err error) {
	return r.lease(ctx, format.RandomName(), what)
}

// ReplaceIndex commits a segment in place of all others, of entries that change may falsify.
func (r *Repository) ReplaceIndex(ctx context.Context, change func(*index.Entry)) error {
	set, err := r.lookup(ctx)
	if err != nil {
		return err
	}
	var entries []index.Entry
	packs := map[format.Name]bool{}
	for e, err := range set.All(ctx) {
		if err != nil {
			return err
		}
		change(&e)
		entries = append(entries, e)
		packs[e.Pack] = true
	}
	raw := index.Build(r.hasher, entries)
	record := commitlog.Segment{ID: format.RandomName(), Size: int64(len(raw)), Checksum: format.ID(raw[len(raw)-32:])}
	record.Packs = slices.SortedFunc(maps.Keys(packs), compareNames)
	if err := r.store.Put(ctx, segmentName(record.ID), raw); err != nil {
		return err
	}
	return r.commit(ctx, &commitlog.Payload{Index: []commitlog.Segment{record}, IndexRemoved: slices.Collect(maps.Keys(r.state.Index))}, nil)
}

// LosePack gives a pack up and deletes it, whatever needs it.
func (r *Repository) LosePack(ctx context.Context, id format.Name) error {
	if err := r.commit(ctx, &commitlog.Payload{Condemned: []format.Name{id}}, nil); err != nil {
		return err
	}
	if err := r.store.Delete(ctx, pack.ObjectName(id)); err != nil {
		return err
	}
	return r.commit(ctx, &commitlog.Payload{Deleted: []format.Name{id}}, nil)
}

// SetLeavesAhead bounds how many leaves of a tree are read ahead.
func (r *Repository) SetLeavesAhead(nodes int) { r.leavesAhead = nodes }

// SetReservePiece makes the files of the reserve small.
func (r *Repository) SetReservePiece(size int64) { r.reservePiece = size }

// SetNodePacksLimit bounds the memory for packs of nodes, in bytes.
func (r *Repository) SetNodePacksLimit(limit int64) { r.nodePacksLimit = limit }

// SetWrittenDownWithin sets how long something waits for a pack to be full.
func (r *Repository) SetWrittenDownWithin(d time.Duration) { r.writtenDownWithin = d }

// WriteCheckpoint writes the state, to the repository and to this machine's cache, however few entries came since the last time.
func (r *Repository) WriteCheckpoint(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	raw, err := r.encodeState()
	if err != nil {
		return err
	}
	remembered, _, err := commitlog.EncodeRemembered(r.hasher, r.state)
	if err != nil {
		return err
	}
	r.checkpoints[0], r.rememberedAt = r.state.Head.N, r.state.Head.N
	return errors.Join(r.store.Put(ctx, commitlog.CheckpointName(r.state.Head.N), raw), r.cache.setState(remembered))
}

// ProcessStarted is when a process began, as leases have it.
func ProcessStarted(pid int) (uint64, error) { return processStarted(pid) }
