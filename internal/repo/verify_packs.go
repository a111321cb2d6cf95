package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"ferry/internal/processors"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// choose decides which packs are read: those whose proof is oldest first, and no more than the budget has.
func (v *verifier) choose() {
	r := v.repo
	fresh := v.proofs.begin(v.options, v.started)
	if begun := v.proofs.begun; !begun.Equal(v.started) {
		v.report.Begun = begun
	}
	r.mu.Lock()
	var stale []commitlog.Pack
	for id, p := range r.state.Packs.All() {
		if v.proofs.at(id, v.level).Before(fresh) {
			stale = append(stale, p)
		} else {
			v.report.Fresh++
			v.report.FreshBytes += p.Size
		}
	}
	r.mu.Unlock()
	behind := func(id format.Name) int { // packs that were never proven go round and round, behind where it was left
		if bytes.Compare(id[:], v.proofs.pack[:]) > 0 {
			return 0
		}
		return 1
	}
	slices.SortFunc(stale, func(a, b commitlog.Pack) int {
		return cmp.Or(v.proofs.at(a.ID, v.level).Compare(v.proofs.at(b.ID, v.level)), cmp.Compare(behind(a.ID), behind(b.ID)),
			bytes.Compare(a.ID[:], b.ID[:]))
	})
	n, size := 0, int64(0)
	for ; n < len(stale); n++ {
		if n > 0 && v.options.MaxBytes > 0 && size+stale[n].Size > v.options.MaxBytes {
			break
		}
		size += stale[n].Size
	}
	v.chosen = stale[:n]
	v.leave(stale[n:])
	v.progress.TotalBytes.Store(size)
}

// leave notes packs that are left for the next time.
func (v *verifier) leave(packs []commitlog.Pack) {
	for _, p := range packs {
		v.report.UnreadBytes += p.Size
	}
	v.report.Unread += len(packs)
	v.report.Cut = v.report.Cut || len(packs) > 0
}

// verifyPacks reads the chosen packs, as many at once as there are processors. Each is read a good piece ahead of what
// is checked.
func (v *verifier) verifyPacks(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan commitlog.Pack)
	group.Go(func() error {
		defer close(queue)
		for i, p := range v.chosen {
			if i > 0 && v.outOfTime() {
				v.leave(v.chosen[i:])
				return nil
			}
			select {
			case queue <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range processors.Number() {
		group.Go(func() error {
			for p := range queue {
				if err := v.verifyPack(ctx, p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// packCheck is the verification of one pack.
type packCheck struct {
	*verifier
	pack   commitlog.Pack
	frames int
	// bad are the first of the damaged frames, badFrames counts all.
	bad       []place
	badFrames int
	// missing is the error of a frame that could not be read because the file is no longer there.
	missing error
}

// verifyPack reads a pack whole. Only trouble of the storage itself is an error; damage is noted.
func (v *verifier) verifyPack(ctx context.Context, p commitlog.Pack) error {
	r, name := v.repo, pack.ObjectName(p.ID)
	c := &packCheck{verifier: v, pack: p}
	live := func(now *commitlog.State) bool { return now.Live(p.ID) }
	reader, err := r.store.Open(ctx, name)
	if err != nil {
		if !storage.Missing(err) {
			return err
		}
		if gone, err := v.gone(ctx, err, live); gone || err != nil {
			return err
		}
		c.finish(ctx, 0, whyMissing(err), pack.Table{})
		return nil
	}
	ahead := newReadAhead(reader)
	defer ahead.Close()
	if err := matchSize(reader.Size(), p); err != nil {
		c.finish(ctx, reader.Size(), err, pack.Table{})
		return nil
	}
	var table pack.Table
	if v.depth(p.ID) == LevelStored {
		table, err = pack.Check(ahead, reader.Size(), r.hasher, func(_ pack.Entry, frame []byte) error { return c.good(ctx, len(frame)) }, c.damaged)
	} else {
		table, err = pack.CheckContent(ahead, reader.Size(), r.hasher, r.opener, func(entry pack.Entry, plain []byte) error {
			if r.contentID(entry.Kind, plain) != entry.ID {
				c.unproven(ctx, reader, entry, fmt.Errorf("%w: content differs from its id", ErrCorrupt))
			}
			return c.good(ctx, entry.FrameSize())
		}, func(entry pack.Entry, err error) { c.unproven(ctx, reader, entry, err) })
	}
	if err == nil {
		err = r.matchLog(table, reader.Size(), p)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if gone, err := v.gone(ctx, cmp.Or(c.missing, err), live); gone || err != nil {
		return err // in a bucket it is gone for who has it open, too
	}
	c.finish(ctx, reader.Size(), err, table)
	return v.verifyParity(ctx, p, err == nil && c.badFrames == 0)
}

// depth is the level to which a pack is read. One with noted damage is read as deep as the key allows: that checksums hold
// does not prove what was noted to be good, and the note is withdrawn afterwards.
func (v *verifier) depth(id format.Name) Level {
	if v.level == LevelStored && v.noted[id] && !v.repo.Locked() {
		return LevelBlocks
	}
	return v.level
}

// good counts a frame that was checked.
func (c *packCheck) good(ctx context.Context, size int) error {
	c.frames++
	c.progress.Bytes.Add(int64(size))
	return ctx.Err()
}

// unproven notes a frame whose content is not what it should be: reading it once more tells rot from forgery.
func (c *packCheck) unproven(ctx context.Context, reader storage.Reader, entry pack.Entry, err error) {
	raw := make([]byte, min(entry.FrameSize(), pack.MaxFrame))
	if readFull(ctx, reader, raw, int64(entry.Offset)) == nil {
		if _, why := c.repo.decodeFrame(nil, raw, entry.Kind, entry.ID); why != nil {
			err = why
		}
	}
	c.damaged(entry, err)
}

// damaged notes a damaged frame, next to others as one place. Of very many only that there are.
func (c *packCheck) damaged(entry pack.Entry, err error) {
	c.badFrames++
	if errors.Is(err, storage.ErrNotExist) {
		c.missing = err
	}
	if c.badFrames > badPerPack {
		return
	}
	c.bad = append(c.bad, place{badPlace{c.pack.ID, entry.Offset}, entry.ID, Damage{
		File: pack.ObjectName(c.pack.ID), Offset: int64(entry.Offset), Length: int64(entry.FrameSize()), Reason: err.Error(),
	}})
}

// finish notes what became of a pack. A pack whose table is damaged, or with very many damaged frames, is not relied on as
// a whole.
func (c *packCheck) finish(ctx context.Context, size int64, err error, table pack.Table) {
	v := c.verifier
	if c.badFrames > badPerPack || err != nil && c.badFrames > 0 {
		if err == nil {
			err = ErrCorrupt
		}
		first := c.bad[0].damage
		err = fmt.Errorf("%w: %d of its %d frames are damaged, the first at %d: %s", err, c.badFrames, len(table.Entries), first.Offset, first.Reason)
	}
	if err != nil {
		c.bad = []place{{badPlace{c.pack.ID, wholePack}, format.ID{}, Damage{File: pack.ObjectName(c.pack.ID), Length: c.pack.Size, Reason: err.Error()}}}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range c.bad {
		v.bad[p.at] = p.damage.Reason
	}
	v.places = append(v.places, c.bad...)
	v.read[c.pack.ID] = true
	v.report.Packs++
	v.report.Frames += int64(c.frames)
	v.report.Bytes += size
	if len(c.bad) == 0 {
		v.sumTable(c.pack.ID, indexEntries(c.pack.ID, table.Entries))
		v.proofs.proven(c.pack.ID, v.level, v.repo.env.now())
		v.proofs.save(ctx, v.repo, false)
	}
}

// verifyParity compares a good pack's parity file with its checksums. One that is damaged or missing is made again.
func (v *verifier) verifyParity(ctx context.Context, p commitlog.Pack, good bool) error {
	r := v.repo
	if r.description.Parity == nil || !good {
		return nil // what parity there is shows when it heals
	}
	name := parity.ObjectName(p.ID)
	err := r.checkParity(ctx, p)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if !unreadable(err) && !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	if r.Writable() == nil {
		found := err
		if !errors.Is(err, storage.ErrNotExist) {
			err = r.store.Delete(ctx, name)
		} else {
			err = nil
		}
		if err == nil {
			err = r.protect(ctx, p.ID, p.Size)
		}
		if err == nil && errors.Is(found, storage.ErrNotFile) { // a folder is not removed, and keeps the name
			err = r.checkParity(ctx, p)
		}
		if err == nil {
			v.mu.Lock()
			v.report.Remade = append(v.report.Remade, name)
			v.mu.Unlock()
			return nil
		}
	}
	return cmp.Or(ctx.Err(), v.derived(ctx, name, err))
}

// checkParity returns an error unless the pack's parity file is whole.
func (r *Repository) checkParity(ctx context.Context, p commitlog.Pack) error {
	reader, err := r.store.Open(ctx, parity.ObjectName(p.ID))
	if err != nil {
		return err
	}
	defer reader.Close()
	opened, err := r.parity.Open(reader, reader.Size(), p.ID, p.Size)
	if err != nil {
		return err
	}
	return r.parity.Check(reader, opened)
}

// contentID computes the id that a frame's content must have.
func (r *Repository) contentID(kind pack.Kind, plain []byte) format.ID {
	if kind == pack.KindNode {
		return tree.NodeID(r.hasher, plain)
	}
	return r.hasher.Sum(format.ContextBlock, plain)
}
