package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// load reads the log: what this machine remembers of it or the newest good checkpoint, then the entries after it, then
// compares with the head that this machine has seen.
func (r *Repository) load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.cache.seen() // first: another process may commit, and remember that, while this one reads the log
	remembered, err := r.loadRemembered(ctx)
	if err == nil && !remembered {
		err = r.loadCheckpoint(ctx)
	}
	if err != nil {
		return err
	}
	met := false
	meet := func() {
		if seen.is(r.state.Head) {
			met, r.lasting = true, seen.Head
		}
	}
	r.lasting = r.state.Head
	meet()
	if err := r.catchUp(ctx, meet); err != nil {
		return err
	}
	if last := cmp.Or(seen.Newest, seen.Head); last == r.state.Head {
		return nil
	}
	if seen.N == 0 || met {
		r.remember()
		return nil
	}
	if seen.N <= r.state.Head.N {
		raw, err := storage.ReadAll(ctx, r.store, commitlog.EntryName(seen.N), commitlog.MaxSize)
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return err
		}
		if err == nil {
			if _, _, head, err := commitlog.Decode(r.hasher, seen.N, raw); err == nil && head == seen.Head {
				r.remember()
				return nil
			}
		}
	}
	what := fmt.Sprintf("has %d log entries where %d were seen before", r.state.Head.N, seen.N)
	if seen.N <= r.state.Head.N {
		what = fmt.Sprintf("has another log entry %d than was seen before", seen.N)
	}
	r.diverged = &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w: it %s; it was rolled back, or this is another copy of it", r.store.Location(), ErrDiverged, what),
		Hint: "if this copy is the one to go on with, run: ferry adopt " + r.store.Location(),
	}
	return nil
}

// remember keeps the head as the history that this machine has seen. Not being able to is no reason not to go on.
func (r *Repository) remember() {
	if r.state.Head.N == 0 {
		return
	}
	if err := r.cache.setHead(r.lasting, r.state.Head); err != nil {
		r.warn("the head of the log could not be remembered: %v", err)
	}
}

// follow applies the entries after the head, one by one until there is none, and calls each, if not nil, behind every one.
// The caller holds r.mu.
func (r *Repository) follow(ctx context.Context, each func()) error {
	for {
		n := r.state.Head.N + 1
		raw, err := storage.ReadAll(ctx, r.store, commitlog.EntryName(n), commitlog.MaxSize)
		if storage.Absent(err) { // else there is something, perhaps in place of an entry
			return nil
		}
		if err != nil {
			return notFile(err)
		}
		if err := r.append(ctx, n, raw); err != nil {
			return err
		}
		if each != nil {
			each()
		}
	}
}

// append applies entry n, which must follow the head. What is there now is passed over for what was there at first, where
// the storage keeps that. The caller holds r.mu.
func (r *Repository) append(ctx context.Context, n uint64, raw []byte) error {
	err := r.appendRaw(ctx, n, raw)
	if err != nil && !errors.Is(err, ErrNewer) {
		if old := r.original(ctx, commitlog.EntryName(n)); old != nil && r.appendRaw(ctx, n, old) == nil {
			return nil
		}
	}
	return err
}

// original is what a file was before somebody replaced it, where the storage keeps that; else nil.
func (r *Repository) original(ctx context.Context, name string) []byte {
	var content []byte
	if storage.ReadOldest(ctx, r.store, name, commitlog.MaxSize, func(old []byte) error { content = old; return nil }) != nil {
		return nil
	}
	return content
}

func (r *Repository) appendRaw(ctx context.Context, n uint64, raw []byte) error {
	payload, link, head, err := commitlog.Decode(r.hasher, n, raw)
	if errors.Is(err, keyring.ErrNoGeneration) {
		if err = r.reloadKeys(ctx); err != nil {
			return err
		}
		if payload, link, head, err = commitlog.Decode(r.hasher, n, raw); errors.Is(err, keyring.ErrNoGeneration) {
			return &backup.Error{
				Offset: backup.NoOffset, Err: fmt.Errorf("%s in %s: %w: %w", commitlog.EntryName(n), r.store.Location(), ErrWrongKey, err),
				Hint: "the data key was rotated and the key given left out: give another key, or have somebody with one run ferry key add",
			}
		}
	}
	if err == nil && link != r.state.Head.Checksum {
		err = fmt.Errorf("%w: it does not follow entry %d", ErrCorrupt, n-1)
	}
	if err == nil && !r.keys.mayFollow(payload.Generation, r.state.Generation) {
		err = fmt.Errorf("%w: its MAC is of data key generation %d, which does not follow generation %d", ErrForged, payload.Generation, r.state.Generation)
	}
	if err == nil && payload.Keyless {
		if err = r.state.CheckKeyless(&payload); err == nil {
			r.noteKeyless(n)
		}
	}
	if err != nil {
		return &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("%s in %s: %w", commitlog.EntryName(n), r.store.Location(), err),
			Hint: r.putBack(),
		}
	}
	r.heed(raw)
	r.apply(&payload, head)
	return nil
}

// Refresh reads what other writers have committed since.
func (r *Repository) Refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follow(ctx, nil)
}

// snapshot returns the state as it is now, for reading. It copies all of it but the packs, which are copied when they change.
func (r *Repository) snapshot() *commitlog.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Clone()
}

// packCount is how many packs the log has.
func (r *Repository) packCount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Packs.Len()
}

// hasPack is true if the log has the pack.
func (r *Repository) hasPack(id format.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.state.Packs.Has(id)
	return known
}

// isLive is true if the log has the pack and it is not given up.
func (r *Repository) isLive(id format.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Live(id)
}

// commit appends an entry to the log. Everything the payload names must be durable already. If another writer was
// first, its entries are read and it is tried again behind them. check, if not nil, looks before each try whether the
// payload still holds in the state that it would follow, and may change it; its error ends the commit, and nothing was
// committed. A payload that names a file which was given up is refused with ErrCondemned.
func (r *Repository) commit(ctx context.Context, payload *commitlog.Payload, check func(*commitlog.State) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	payload.Time = r.env.now().UTC()
	payload.Writer = r.writer.String()
	payload.Program = r.env.Program
	for {
		if err := errors.Join(r.diverged, r.readOnly); err != nil {
			return err
		}
		if check != nil {
			if err := check(r.state); err != nil {
				return err
			}
		}
		if err := r.refuseGivenUp(payload); err != nil {
			return err
		}
		if r.locked != nil {
			if err := r.checkKeyless(ctx, payload); err != nil {
				return err
			}
		}
		if err := r.lockFor(ctx, payload); err != nil {
			return err
		}
		previous := r.state.Head
		raw, head, err := commitlog.Encode(r.hasher, previous.N+1, previous.Checksum, payload)
		if err != nil {
			return err
		}
		if len(raw) > commitlog.MaxSize {
			return fmt.Errorf("a log entry of %d bytes is larger than one can be", len(raw))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// Not cancelled from here on: who is told that it failed must be able to believe it.
		name, certain := commitlog.EntryName(head.N), context.WithoutCancel(ctx)
		err = r.store.Put(certain, name, raw)
		if err != nil && r.isThere(certain, name, raw) {
			err = nil
		}
		if err == nil {
			r.apply(payload, head)
			r.lockedBy(payload)
			r.remember()
			return r.checkpoint(ctx)
		}
		if !errors.Is(err, storage.ErrExists) {
			return err
		}
		if err := r.follow(ctx, nil); err != nil {
			return err
		}
	}
}

// checkKeyless returns an error unless the payload needs no key. Holds end by the storage's clock: so the entry has its time,
// by which readers judge. The caller holds r.mu.
func (r *Repository) checkKeyless(ctx context.Context, payload *commitlog.Payload) error {
	if len(payload.PointsRemoved) > 0 {
		now, err := r.storageTime(ctx)
		if err != nil {
			return err
		}
		payload.Time = now.UTC()
	}
	if r.state.CheckKeyless(payload) != nil {
		return r.locked
	}
	return nil
}

// isThere is true if an object whose writing failed is there nevertheless, durably: the answer can be what was lost,
// also that to an earlier try of the storage's own. That it is seen says nothing of a power cut; that the storage refuses
// to create it again, which it does only for what is durable, does.
func (r *Repository) isThere(ctx context.Context, name string, raw []byte) bool {
	there, err := storage.ReadAll(ctx, r.store, name, commitlog.MaxSize)
	return err == nil && bytes.Equal(there, raw) && errors.Is(r.store.Put(ctx, name, raw), storage.ErrExists)
}

// heed makes the repository read only if a file that a writer would have to follow has features that this program does
// not know (docs/format.md section 1). The caller holds r.mu, or nobody else has the repository yet.
func (r *Repository) heed(file []byte) {
	if format.HasUnknownOptional(file) {
		r.readOnly = ErrReadOnly
	}
}

// Writable returns why the repository must not be written to, or nil: an error wrapping ErrDiverged, ErrReadOnly or ErrCannotLock.
func (r *Repository) Writable() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.diverged, r.readOnly)
}

// Diverged returns an error wrapping ErrDiverged if the repository's history is not the one this machine has seen.
// Such a repository can be read; writing is refused until Adopt.
func (r *Repository) Diverged() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.diverged
}

// Adopt makes the history that the repository has now the one this machine goes on with.
func (r *Repository) Adopt() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.diverged = nil
	return r.cache.setHead(r.lasting, r.state.Head)
}
