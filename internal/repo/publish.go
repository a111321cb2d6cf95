package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// publish makes a seal's packs durable, then says in the log what they make true.
func (in *Ingest) publish(ctx context.Context, s *seal) error {
	r := in.repo
	payload := &commitlog.Payload{}
	for i, open := range s.packs {
		if err := in.publishPack(ctx, open, payload); err != nil {
			abort(s.packs[i:])
			return err
		}
	}
	ended := endTasks(s, payload)
	for _, batch := range s.partials {
		if slices.Contains(payload.PartialsEnded, batch.task.name) {
			continue // its point is committed in this very entry
		}
		if err := batch.write(ctx, r, payload); err != nil {
			return err
		}
	}
	for _, ready := range s.points {
		entry, err := r.writePoint(ctx, ready.point)
		if err != nil {
			return err
		}
		payload.Points = append(payload.Points, entry)
		payload.Claims = append(payload.Claims, ready.claim)
	}
	if err := in.writeIndex(ctx, s.last, payload); err != nil {
		return err
	}
	if payloadEmpty(payload) {
		return nil
	}
	if err := in.commit(ctx, payload); err != nil {
		return err
	}
	// What the log no longer names can go. Failing to remove it costs space only; reclaim finds it.
	for _, name := range ended {
		_ = r.store.Delete(ctx, name)
	}
	for _, id := range payload.IndexRemoved {
		_ = r.store.Delete(ctx, segmentName(id))
	}
	return nil
}

// commit appends the payload to the log. If blocks that it relies on were given up meanwhile, the packs are committed
// without the points, and the error wraps ErrCondemned: those points must be copied again, the ingest goes on.
func (in *Ingest) commit(ctx context.Context, payload *commitlog.Payload) error {
	err := in.repo.commit(ctx, payload, in.reliesOn)
	if errors.Is(err, ErrCondemned) {
		if _, lookupErr := in.repo.lookup(ctx); lookupErr != nil { // hides what was given up
			return lookupErr
		}
		in.mu.Lock()
		clear(in.relied)
		in.mu.Unlock()
		payload.Points, payload.Claims, payload.PartialsEnded = nil, nil, nil
		if packsErr := in.repo.commit(ctx, payload, nil); packsErr == nil {
			return err
		} else {
			err = packsErr
		}
	}
	if err != nil {
		for _, p := range payload.Packs {
			in.index.Hide(p.ID) // no log entry names it: nothing may rely on it
		}
	}
	return err
}

// endTasks ends the unfinished copies that the seal's points finish, and returns their files.
func endTasks(s *seal, payload *commitlog.Payload) []string {
	var files []string
	for _, ready := range s.points {
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

func (in *Ingest) publishPack(ctx context.Context, open *openPack, payload *commitlog.Payload) error {
	root, size, err := open.pack.Finish()
	if err == nil {
		err = open.out.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", open.id, err)
	}
	payload.Packs = append(payload.Packs, commitlog.Pack{
		ID: open.id, Kind: open.kind.String(), Domain: in.repo.domain(), Size: size, Frames: open.pack.Frames(), Root: root,
	})
	in.repo.indexing.Lock()
	in.repo.packs[open.id] = true
	in.repo.indexing.Unlock()
	in.index.AddPack(open.id, indexEntries(open.id, open.entries))
	in.mu.Lock()
	for _, e := range open.entries {
		delete(in.pending, e.ID)
	}
	in.relied[open.id] = true
	in.published++
	in.mu.Unlock()
	in.stats.Packs.Add(1)
	return nil
}

func (in *Ingest) reliesOn(name format.Name) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.relied[name]
}

// writePoint writes a point's file. A file of that name that says something else is left over from a point that was
// removed, or from an interrupted commit; then the name gets a suffix.
func (r *Repository) writePoint(ctx context.Context, p *Point) (commitlog.Point, error) {
	machine := r.Pseudonym(p.Machine.Key)
	raw, err := encodePoint(r.hasher, machine, r.domain(), p)
	if err != nil {
		return commitlog.Point{}, err
	}
	name := pointName(machine, p.Created, p.ID)
	err = r.store.Put(ctx, name, raw)
	if errors.Is(err, storage.ErrExists) {
		name += "-" + format.RandomName().String()[:8]
		err = r.store.Put(ctx, name, raw)
	}
	if err != nil {
		return commitlog.Point{}, &backup.Error{Machine: p.Machine.Name, Point: p.ID.Short(), Offset: backup.NoOffset, Err: err}
	}
	return commitlog.Point{ID: p.ID, Machine: machine, Created: p.Created.UTC(), File: name, Checksum: format.ID(raw[len(raw)-32:])}, nil
}
