package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// CommitPoint hands over a point whose objects are all stored through the task. It is committed with the claim, whose Point
// it sets (without one if the claim names no job: a point that was there keeps its claims), and with the packs that hold
// it, which may be later: done is called then, from another goroutine. Flush or Close make it happen at once. An error is of this
// point alone, which cannot be written down; done is not called then.
func (in *Ingest) CommitPoint(p *Point, claim Claim, task *Task, done func(error)) error {
	claim.Point = p.ID
	return in.commitPoint(readyPoint{point: p, claim: claim, task: task, done: done})
}

// commitPoint hands over a point that is ready but for its file.
func (in *Ingest) commitPoint(ready readyPoint) error {
	p := ready.point
	p.Domain, p.Sealed = in.domain, in.sealed
	raw, err := encodePoint(in.repo.hasher, in.repo.Pseudonym(p.Machine.Key), p)
	if err != nil {
		return err
	}
	if len(raw) > pointLimit {
		return fmt.Errorf("the point's description takes %d bytes, more than any may have", len(raw))
	}
	ready.raw = raw
	in.mu.Lock()
	defer in.mu.Unlock()
	in.points = append(in.points, ready)
	in.wait()
	return nil
}

// publish makes a seal's packs durable, then says in the log what they make true. The index that others share learns of
// them only then: until the log names a pack, nobody may rely on it.
func (in *Ingest) publish(ctx context.Context, s *seal) error {
	if in.measure != nil {
		return in.publishMeasured(s)
	}
	r := in.repo
	r.checkRetention(ctx)
	payload := &commitlog.Payload{}
	if err := in.publishPacks(ctx, s, payload); err != nil {
		in.keepDurable(ctx, s, payload)
		return err
	}
	in.refuseLost(s)
	ended := endTasks(s.points, payload)
	if err := in.publishPartials(ctx, s, payload); err != nil {
		return err
	}
	if err := in.publishPoints(ctx, s, payload); err != nil {
		return err
	}
	var written *newSegment
	err := in.withRoom(func() (err error) { written, err = in.writeIndex(ctx, s, payload); return err })
	if err != nil || payloadEmpty(payload) {
		return err
	}
	if !in.announced {
		payload.Domains = []commitlog.Domain{{ID: in.domain, Sealed: in.sealed}}
	}
	if len(payload.Points) > 0 { // what they share with older ones is kept as long as they are
		if payload.Locked, err = r.extendLocks(ctx, false); err != nil {
			return err
		}
	}
	var committed bool
	err = in.withRoom(func() (err error) { committed, err = in.commit(ctx, payload, s); return err })
	if written != nil && (!committed || len(payload.Index) == 0) {
		_ = written.opened.Close() // it was lost with a pack that it covers
		written = nil
	}
	if !committed {
		return err
	}
	in.announced = true
	in.adopt(s.packs, written)
	for _, batch := range s.partials {
		if batch.task.written != nil {
			batch.task.written.Add(batch.bytes)
		}
	}
	// What the log no longer names can go. Failing to remove it costs space only; reclaim finds it.
	var needless []string
	if err == nil {
		needless = ended
	}
	for _, id := range payload.IndexRemoved {
		needless = append(needless, segmentName(id))
	}
	_ = in.together(ctx, len(needless), func(ctx context.Context, i int) error {
		_ = r.store.Delete(ctx, needless[i])
		return nil
	})
	return err
}

// together does a thing for each of so many, several at once where the storage gains by it. The first error ends the others.
func (in *Ingest) together(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(in.atOnce)
	for i := range n {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return do(ctx, i)
		})
	}
	return group.Wait()
}

// publishPacks makes the packs durable. After an error no more are begun, but those on their way are not cancelled: what becomes
// durable is kept. The payload and the seal have those then; the others were dropped.
func (in *Ingest) publishPacks(ctx context.Context, s *seal, payload *commitlog.Payload) error {
	packs := make([]commitlog.Pack, len(s.packs))
	err := in.together(ctx, len(s.packs), func(_ context.Context, i int) (err error) {
		packs[i], err = in.publishPack(ctx, s.packs[i])
		return err
	})
	var durable []*openPack
	for i, open := range s.packs {
		if packs[i].ID.IsZero() { // failed, or not begun
			open.out.Abort()
			continue
		}
		durable, payload.Packs = append(durable, open), append(payload.Packs, packs[i])
	}
	s.packs = durable
	return err
}

// keepDurable names the packs in the log that became durable though others of their seal did not: else they would be nobody's, and
// lie on a storage that may be full. What needs all of them, points and what unfinished copies have stored, is not said.
func (in *Ingest) keepDurable(ctx context.Context, s *seal, payload *commitlog.Payload) {
	if len(payload.Packs) == 0 {
		return
	}
	if !in.announced {
		payload.Domains = []commitlog.Domain{{ID: in.domain, Sealed: in.sealed}}
	}
	kept := &seal{packs: s.packs}
	var committed bool
	_ = in.withRoom(func() (err error) { committed, err = in.commit(ctx, payload, kept); return err }) // the seal has failed by another error
	if committed {
		in.announced = true
		in.adopt(kept.packs, nil)
	}
}

// publishPartials writes down what unfinished copies have stored, but for those whose point is committed in this very entry.
func (in *Ingest) publishPartials(ctx context.Context, s *seal, payload *commitlog.Payload) error {
	unfinished := slices.DeleteFunc(slices.Clone(s.partials), func(batch partialBatch) bool {
		return slices.Contains(payload.PartialsEnded, batch.task.name)
	})
	payload.Partials = make([]commitlog.Partial, len(unfinished))
	return in.together(ctx, len(unfinished), func(ctx context.Context, i int) error {
		return in.withRoom(func() (err error) {
			payload.Partials[i], err = unfinished[i].write(ctx, in.repo)
			return err
		})
	})
}

// publishPoints writes the points' files.
func (in *Ingest) publishPoints(ctx context.Context, s *seal, payload *commitlog.Payload) error {
	payload.Points = make([]commitlog.Point, len(s.points))
	err := in.together(ctx, len(s.points), func(ctx context.Context, i int) error {
		return in.withRoom(func() (err error) {
			payload.Points[i], err = in.repo.writePoint(ctx, s.points[i])
			return err
		})
	})
	for _, ready := range s.points {
		in.stats.Written.Add(int64(len(ready.raw)))
		if ready.damaged.Places > 0 {
			payload.Damaged = append(payload.Damaged, ready.damaged)
		}
		if ready.claim.Job != "" {
			payload.Claims = append(payload.Claims, ready.claim)
		}
	}
	return err
}

// withRoom writes what says in the log what durable packs hold. If the storage is full, what is not durable yet gives its space for
// that: it could not be kept, and those packs would be nobody's.
func (in *Ingest) withRoom(write func() error) error {
	err := write()
	if !errors.Is(err, storage.ErrFull) {
		return err
	}
	in.fail(err)
	in.makingRoom.Lock()
	in.mu.Lock()
	open := slices.Concat(in.data.take(), in.nodes.take())
	for _, waiting := range in.queue[1:] { // the first is the one that is written
		open = append(open, waiting.packs...)
	}
	in.changed.Broadcast()
	in.mu.Unlock()
	abort(open)
	in.makingRoom.Unlock()
	return write()
}

// refuseLost takes points from the seal since whose copy began blocks were given up that the ingest relied on: theirs
// may be among them. They are to be copied again.
func (in *Ingest) refuseLost(s *seal) {
	var lost []readyPoint
	in.mu.Lock()
	s.points = slices.DeleteFunc(s.points, func(ready readyPoint) bool {
		gone := ready.task != nil && ready.task.losses != in.losses
		if gone {
			lost = append(lost, ready)
		}
		return gone
	})
	in.mu.Unlock()
	for _, ready := range lost {
		ready.done(ErrCondemned)
	}
}

// commit appends the payload to the log. If what it relies on was given up meanwhile, or files of its own were taken for
// garbage, what is left is committed without the points, and the error wraps ErrCondemned: those points must be copied
// again, the ingest goes on.
func (in *Ingest) commit(ctx context.Context, payload *commitlog.Payload, s *seal) (committed bool, err error) {
	err = in.repo.commit(ctx, payload, func(state *commitlog.State) error { return in.unsound(state, s.points) })
	if !errors.Is(err, ErrCondemned) {
		return err == nil, err
	}
	payload.Points, payload.Damaged, payload.Claims, payload.PartialsEnded = nil, nil, nil, nil
	for {
		if lost := in.lose(ctx, payload, s); lost != nil {
			return false, lost
		}
		if payloadEmpty(payload) {
			return false, err
		}
		restErr := in.repo.commit(ctx, payload, nil)
		if errors.Is(restErr, ErrCondemned) {
			continue // more was given up
		}
		return restErr == nil, cmp.Or(restErr, err)
	}
}

// lose makes the ingest forget what was given up: packs that it relied on, and packs of its own that nobody will ever name.
// What was stored in these is to be stored again.
func (in *Ingest) lose(ctx context.Context, payload *commitlog.Payload, s *seal) error {
	if _, err := in.repo.lookup(ctx); err != nil { // hides what was given up
		return err
	}
	gone := in.repo.withoutGivenUp(payload)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.losses++
	in.repo.mu.Lock()
	maps.DeleteFunc(in.relied, func(name format.Name, _ bool) bool { return !in.repo.state.Live(name) })
	in.repo.mu.Unlock()
	s.packs = slices.DeleteFunc(s.packs, func(open *openPack) bool {
		if gone[open.id] {
			for _, e := range open.entries {
				delete(in.pending, e.ID)
			}
		}
		return gone[open.id]
	})
	return nil
}

// unsound returns an error wrapping ErrCondemned if, in that state, something is given up that the ingest relies on: a
// pack, or a point that one of these takes subtrees over from.
func (in *Ingest) unsound(state *commitlog.State, points []readyPoint) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name := range in.relied {
		if !state.Live(name) {
			return fmt.Errorf("pack %s: %w", name, ErrCondemned)
		}
	}
	for _, ready := range points {
		if t := ready.task; t != nil && t.base != nil {
			// Removed and copied again meanwhile it can be another, which its checksum shows.
			if entry, there := state.Points.Get(t.base.ID); !there || entry.Checksum != t.base.checksum {
				return fmt.Errorf("point %s was removed: %w", t.base.ID.Short(), ErrCondemned)
			}
		}
	}
	return nil
}

// adopt makes committed packs, and the segment that was written with them, part of the index.
func (in *Ingest) adopt(packs []*openPack, written *newSegment) {
	r := in.repo
	r.indexing.Lock()
	for _, open := range packs {
		if !r.packs[open.id] {
			r.packs[open.id] = true
			if in.sealed {
				in.index.Assign(open.id, in.domain)
			}
			in.index.AddPack(open.id, indexEntries(open.id, open.entries))
		}
	}
	r.indexing.Unlock()
	if written != nil {
		r.adoptSegment(written)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, open := range packs {
		for _, e := range open.entries {
			delete(in.pending, e.ID)
			in.stats.keep(e)
		}
		in.relied[open.id] = true
	}
	in.published++
	in.stats.Packs.Add(int64(len(packs)))
}

// keep counts a frame that is in a pack which the log names.
func (s *Stats) keep(e pack.Entry) {
	if e.Kind == pack.KindNode {
		s.Kept.NodeBytes.Add(int64(e.FrameSize()))
		return
	}
	s.Kept.NewBytes.Add(int64(e.Plain))
	s.Kept.Stored.Add(int64(e.FrameSize()))
}

// endTasks ends the unfinished copies that the points finish, and returns their files.
func endTasks(points []readyPoint, payload *commitlog.Payload) []string {
	var files []string
	for _, ready := range points {
		if ready.task != nil {
			names, tasks := ready.task.end()
			files = append(files, names...)
			payload.PartialsEnded = append(payload.PartialsEnded, tasks...)
		}
	}
	return files
}

func payloadEmpty(p *commitlog.Payload) bool {
	return len(p.Packs)+len(p.Index)+len(p.Points)+len(p.Partials)+len(p.PartialsEnded) == 0
}

func (in *Ingest) publishPack(ctx context.Context, open *openPack) (commitlog.Pack, error) {
	root, size, err := open.pack.Finish()
	if err == nil {
		err = open.out.Commit(ctx)
	}
	if err == nil {
		err = in.repo.protect(ctx, open.id, size)
	}
	if err != nil {
		return commitlog.Pack{}, fmt.Errorf("pack %s: %w", open.id, err)
	}
	in.stats.Written.Add(size)
	return commitlog.Pack{ID: open.id, Kind: open.kind.String(), Domain: in.domain, Size: size, Frames: open.pack.Frames(), Root: root}, nil
}

// writePoint writes a point's file, under a name that was never used: one that reclaim gave up must not come again.
func (r *Repository) writePoint(ctx context.Context, ready readyPoint) (commitlog.Point, error) {
	p, raw := ready.point, ready.raw
	entry := commitlog.Point{ID: p.ID, Machine: r.Pseudonym(p.Machine.Key), Created: p.Created.UTC(), Checksum: format.ID(raw[len(raw)-32:])}.WithNewFile()
	err := r.store.Put(ctx, entry.File(), raw)
	if errors.Is(err, storage.ErrExists) { // as good as never, or the answer to a first try was lost
		entry = entry.WithNewFile()
		err = r.store.Put(ctx, entry.File(), raw)
	}
	if err != nil {
		return commitlog.Point{}, &backup.Error{Machine: p.Machine.Name, Point: p.ID.Short(), Offset: backup.NoOffset, Err: err}
	}
	r.keepPointFile(entry, raw)
	return entry, nil
}
