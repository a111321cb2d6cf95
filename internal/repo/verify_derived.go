package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// verifyDerived compares files that could be made again with their checksums, and counts packs that are pending.
func (v *verifier) verifyDerived(ctx context.Context) error {
	r := v.repo
	r.mu.Lock()
	state := r.state.Payload()
	r.mu.Unlock()
	for _, segment := range state.Index {
		wrong, err := v.unlessGone(ctx, v.verifySegment(ctx, segment), func(now *commitlog.State) bool { _, live := now.Index[segment.ID]; return live })
		if err := cmp.Or(ctx.Err(), err); err != nil {
			return err
		}
		if err := v.derived(ctx, segmentName(segment.ID), wrong); err != nil {
			return err
		}
	}
	for _, partial := range state.Partials {
		content, err := storage.ReadAll(ctx, r.store, partial.File, partialLimit)
		if err == nil {
			_, _, err = decodePartial(r.hasher, content, partial.Checksum)
		}
		wrong, err := v.unlessGone(ctx, err, func(now *commitlog.State) bool { return now.Partials[partial.Task] != nil })
		if err != nil {
			return err
		}
		if err := v.derived(ctx, partial.File, wrong); err != nil {
			return err
		}
	}
	for info, err := range r.store.List(ctx, "checkpoints/") {
		if err != nil {
			return err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			err := r.withLaterKeys(ctx, func() error { _, err := r.readCheckpoint(ctx, n); return err })
			if errors.Is(err, storage.ErrNotExist) { // a writer has just dropped it
				continue
			}
			if err := v.derived(ctx, info.Name, err); err != nil {
				return err
			}
		}
	}
	for info, err := range r.store.List(ctx, "packs/") {
		if err != nil {
			return err
		}
		var id format.Name
		if id.UnmarshalText([]byte(path.Base(info.Name))) == nil && !info.NotFile && !r.hasPack(id) {
			v.report.Pending++
		}
	}
	return ctx.Err()
}

// verifySegment reads an index segment from front to back, and compares it with the tables of its packs.
func (v *verifier) verifySegment(ctx context.Context, segment commitlog.Segment) error {
	r := v.repo
	reader, err := r.store.Open(ctx, segmentName(segment.ID))
	if err != nil {
		return err
	}
	defer reader.Close()
	found := segmentSum{packs: len(segment.Packs)}
	sum, err := index.Sweep(reader, reader.Size(), r.hasher, func(e index.Entry) error {
		found.add(e)
		return ctx.Err()
	})
	if err == nil && (reader.Size() != segment.Size || sum != segment.Checksum) {
		err = fmt.Errorf("%w: it is not the segment that the log names", ErrCorrupt)
	}
	if err == nil {
		err = v.segments[segment.ID].compare(found)
	}
	return err
}

// derived tells what is wrong with a derived file. An error is the storage's, which says nothing of the file.
func (v *verifier) derived(ctx context.Context, name string, err error) error {
	if err == nil {
		return nil
	}
	if !permanent(err) && !storage.Missing(err) && !v.repo.answersFor(ctx, name) {
		return err
	}
	if storage.Missing(err) {
		err = whyMissing(err)
	}
	v.damage(Damage{File: name, Reason: err.Error() + "; it is derived, no point needs it"})
	return nil
}

// whyMissing says what is with a file that is missing: nothing lies there, or what lies there.
func whyMissing(err error) error {
	if !errors.Is(err, storage.ErrNotFile) {
		return errors.New("the file is missing")
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return fmt.Errorf("the file is missing: what lies in its place %w", err)
}

func packName(id format.Name) string { return pack.ObjectName(id) }
