package repo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/storage"
)

// A checkpoint is written after so many entries: the fewest, or one for so many packs in the state, or the most. A reader
// replays no more of them, roughly; all checkpoints together take less than a hundredth of the data that came meanwhile.
const (
	checkpointEvery  = 128
	checkpointShare  = 512
	checkpointSeldom = 1024
)

// loadCheckpoint begins with the newest checkpoint that is good and belongs to the log; with none, from nothing.
func (r *Repository) loadCheckpoint(ctx context.Context) error {
	numbers, err := r.listCheckpoints(ctx)
	if err != nil {
		return err
	}
	r.checkpointsKnown = true
	for i, n := range slices.Backward(numbers) {
		if state, err := r.readCheckpoint(ctx, n); err == nil {
			if r.checkpointGeneration = state.Generation; r.keys.believes(state.Generation) {
				r.state = state
				r.reached()
			} // else what was said with a newer key is read from its beginning
			r.checkpoints[0] = n
			if i > 0 {
				r.checkpoints[1] = numbers[i-1]
			}
			return nil
		} else if ctx.Err() != nil {
			return ctx.Err()
		} else if errors.Is(err, storage.ErrNotExist) {
			continue // another process has just dropped it
		} else if errors.Is(err, errNoEntry) {
			r.warn("there is a checkpoint after log entry %d, but no such entry: the log has lost its end", n)
		} else {
			r.warn("checkpoint %d is not used: %v", n, err)
		}
	}
	return nil
}

// listCheckpoints returns the numbers of all checkpoints, ascending.
func (r *Repository) listCheckpoints(ctx context.Context) ([]uint64, error) {
	var numbers []uint64
	for info, err := range r.store.List(ctx, "checkpoints/") {
		if err != nil {
			return nil, err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// findCheckpoints looks which checkpoints there are, unless it is known, and returns the newest one's number; 0 for none. The
// caller holds r.mu.
func (r *Repository) findCheckpoints(ctx context.Context) (uint64, error) {
	if r.checkpointsKnown {
		return r.checkpoints[0], nil
	}
	numbers, err := r.listCheckpoints(ctx)
	if err != nil {
		return 0, err
	}
	r.checkpointsKnown = true
	for _, n := range numbers {
		r.checkpoints[0], r.checkpoints[1] = n, r.checkpoints[0]
	}
	return r.checkpoints[0], nil
}

// errNoEntry: there is no log entry that a checkpoint is the state after.
var errNoEntry = errors.New("the log has no entry of its number")

// readCheckpoint reads the checkpoint after entry n. An error that wraps storage.ErrNotExist says that it is not there, errNoEntry
// that the entry is not.
func (r *Repository) readCheckpoint(ctx context.Context, n uint64) (*commitlog.State, error) {
	raw, err := storage.ReadAll(ctx, r.store, commitlog.CheckpointName(n), commitlog.MaxSize)
	if err != nil {
		return nil, err
	}
	payload, link, err := commitlog.DecodeCheckpoint(r.hasher, n, raw)
	if err != nil {
		return nil, err
	}
	entry, err := storage.ReadAll(ctx, r.store, commitlog.EntryName(n), commitlog.MaxSize)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, errNoEntry
	}
	if err != nil {
		return nil, err
	}
	_, _, head, err := commitlog.Decode(r.hasher, n, entry)
	if err != nil {
		return nil, err
	}
	if head.Checksum != link {
		return nil, fmt.Errorf("%w: it belongs to another log", ErrCorrupt)
	}
	r.heed(raw)
	state := commitlog.Begin(&payload, head)
	return state, nil
}

// checkpoint writes the state every so often, the less often the larger it is. It is derived: failing to write one is not failing to commit. Two are kept.
func (r *Repository) checkpoint(ctx context.Context) error {
	every := uint64(min(max(checkpointEvery, r.state.Packs.Len()/checkpointShare), checkpointSeldom))
	if r.locked != nil {
		return nil // without the key it would not be believed
	}
	outdated := r.keys != nil && r.checkpointGeneration != 0 && r.checkpointGeneration != r.state.Generation
	if r.state.Head.N < r.checkpoints[0]+every && !outdated {
		return nil
	}
	known, err := r.findCheckpoints(ctx)
	if err != nil || r.state.Head.N < known+every && (!outdated || known == 0) {
		return nil // the next commit tries again
	}
	raw, err := r.encodeState()
	if err == nil && raw == nil {
		return nil
	}
	if err == nil {
		err = r.store.Put(ctx, commitlog.CheckpointName(r.state.Head.N), raw)
	}
	if err != nil && !errors.Is(err, storage.ErrExists) {
		r.warn("checkpoint %d was not written: %v", r.state.Head.N, err)
		return nil
	}
	if oldest := r.checkpoints[1]; oldest > 0 {
		r.dropCheckpoints(ctx, oldest)
	}
	r.checkpoints[0], r.checkpoints[1] = r.state.Head.N, r.checkpoints[0]
	r.checkpointGeneration = r.state.Generation
	return nil
}

// encodeState makes a checkpoint of the state. It is nil if its MAC would be of a later data key than the log's last one: who
// began with it would take for forged what others append meanwhile with the key that counted until then. The caller holds r.mu.
func (r *Repository) encodeState() ([]byte, error) {
	payload := r.state.Payload()
	raw, err := commitlog.EncodeCheckpoint(r.hasher, r.state.Head, payload)
	if err != nil || payload.Generation != r.state.Generation {
		return nil, err
	}
	return raw, nil
}

// dropCheckpoints removes those up to one: this one alone, or where files are locked also earlier ones, which could not be
// removed in their turn. One too many costs space only.
func (r *Repository) dropCheckpoints(ctx context.Context, last uint64) {
	numbers := []uint64{last}
	if r.locks != nil {
		if all, err := r.listCheckpoints(ctx); err == nil {
			numbers = slices.DeleteFunc(all, func(n uint64) bool { return n > last })
		}
	}
	for _, n := range numbers {
		_ = r.store.Delete(ctx, commitlog.CheckpointName(n))
	}
}
