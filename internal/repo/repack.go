package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// repackAll moves what is live out of packs, one full pack after the other, each with a log entry of its own. Frames move as
// they are: no key is needed, and nothing is decoded. If a frame's checksum does not hold, the log notes it and errRot ends
// the run.
func (c *reclaimer) repackAll(ctx context.Context) error {
	all := groups(c.report.Steps, c.repo.fullPack)
	if len(all) == 0 {
		return nil
	}
	keepers := map[format.Name][]uint32{}
	for _, group := range all {
		for _, step := range group {
			keepers[step.Pack] = nil
		}
	}
	for name, d := range c.marker.domains {
		if d.sealed {
			continue
		}
		_, err := c.marker.place(ctx, name, c.state, func(p index.Place) {
			if _, chosen := keepers[p.Pack]; chosen {
				keepers[p.Pack] = append(keepers[p.Pack], p.Offset)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, group := range all {
		live := liveBytes(group)
		if !c.mayMove(live) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.repo.moveWithReserve(ctx, func() error { return c.repack(ctx, group, keepers) }); err != nil {
			return err
		}
		c.moved += 2 * live
	}
	return nil
}

// liveBytes is what is to be moved of a group of packs.
func liveBytes(group []ReclaimStep) int64 {
	live := int64(0)
	for _, step := range group {
		live += step.LiveBytes
	}
	return live
}

// repack moves a group's live frames to one new pack, names it and condemns the others in one entry.
func (c *reclaimer) repack(ctx context.Context, group []ReclaimStep, keepers map[format.Name][]uint32) error {
	mover := newFrameMover(c.repo, c.state.Packs.Of(group[0].Pack))
	defer mover.abort()
	var sources []format.Name
	for _, step := range group {
		if c.spared[step.Pack] {
			continue
		}
		whole, err := mover.move(ctx, c.state.Packs.Of(step.Pack), keepers[step.Pack])
		if err != nil {
			return err
		}
		if whole {
			sources = append(sources, step.Pack)
		}
	}
	payload := &commitlog.Payload{Bad: mover.bad}
	if err := mover.finish(ctx, payload); err != nil {
		return err
	}
	var err error
	if len(mover.bad) > 0 {
		// What was moved stays moved: the next run finds its old places dead. The damage is not added to c.state, so that this run
		// deletes nothing more: what was condemned earlier may be what is left.
		err = c.commit(ctx, payload, ofNamedPacks(payload))
	} else {
		err = c.condemn(ctx, payload, sources)
	}
	mover.dropUnnamed(ctx, err)
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range payload.Condemned {
		c.report.Moved.add(true, c.state.Packs.Of(id).Size)
	}
	for _, p := range payload.Packs {
		c.report.Written.add(true, p.Size)
	}
	if len(mover.bad) > 0 {
		return errRot
	}
	return nil
}

// refused is true for errors that a commit's own check gave: nothing was written to the log.
func refused(err error) bool {
	return errors.Is(err, errNothing) || errors.Is(err, errStale) || errors.Is(err, ErrCondemned)
}

// frameMover copies frames into one new pack.
type frameMover struct {
	repo   *Repository
	domain format.Name
	kind   pack.Kind

	id     format.Name
	out    storage.Writer
	writer *pack.Writer
	// encrypted packs may hold any frame, others none that is.
	encrypted bool
	buffer    []byte
	// bad are frames that were found damaged, and packs whose tables were.
	bad []commitlog.Bad
}

func newFrameMover(r *Repository, from commitlog.Pack) *frameMover {
	m := &frameMover{repo: r, domain: from.Domain, kind: pack.KindBlock}
	if from.Kind == pack.KindNode.String() {
		m.kind = pack.KindNode
	}
	return m
}

// move appends a pack's frames at the offsets given. It is true if all of them were good. An error wrapping errLies is that the
// pack has no frames there, errStale that it was given up and deleted meanwhile: in a bucket also after it was opened.
func (m *frameMover) move(ctx context.Context, p commitlog.Pack, offsets []uint32) (whole bool, err error) {
	whole, err = m.moveNow(ctx, p, offsets)
	if errors.Is(err, storage.ErrNotExist) && m.repo.Refresh(ctx) == nil && !m.repo.isLive(p.ID) {
		return false, errStale
	}
	return whole, err
}

func (m *frameMover) moveNow(ctx context.Context, p commitlog.Pack, offsets []uint32) (whole bool, err error) {
	reader, err := m.repo.store.Open(ctx, pack.ObjectName(p.ID))
	if err != nil {
		return false, fmt.Errorf("pack %s: %w", p.ID, err)
	}
	defer reader.Close()
	table, err := m.repo.readTable(ctx, reader, p)
	if err != nil {
		if !unreadable(err) {
			return false, fmt.Errorf("pack %s: %w", p.ID, err)
		}
		m.repo.warn("pack %s is not moved: %v", p.ID, err)
		if errors.Is(err, ErrCorrupt) {
			m.bad = append(m.bad, commitlog.Bad{Pack: p.ID, Length: p.Size})
		}
		return false, nil
	}
	if err := m.begin(ctx, table.Header); err != nil {
		return false, err
	}
	if table.Header.Generation != 0 && !m.encrypted {
		return false, nil // it is moved with packs of its kind in another run
	}
	entries := make(map[uint32]pack.Entry, len(table.Entries))
	for _, e := range table.Entries {
		entries[e.Offset] = e
	}
	slices.Sort(offsets)
	whole = true
	for run := range runsOf(offsets, entries) {
		start := int64(run[0].Offset)
		last := run[len(run)-1]
		m.buffer = slices.Grow(m.buffer[:0], int(int64(last.Offset)-start)+last.FrameSize())
		raw := m.buffer[:int(int64(last.Offset)-start)+last.FrameSize()]
		n, readErr := reader.ReadAt(raw, start)
		for _, e := range run {
			at, end := int(int64(e.Offset)-start), int(int64(e.Offset)-start)+e.FrameSize()
			if end > n {
				if readErr != nil && !errors.Is(readErr, io.EOF) {
					return false, fmt.Errorf("pack %s: %w", p.ID, readErr)
				}
			} else if pack.CheckEntry(raw[at:end], e, m.repo.hasher) == nil {
				if _, err := m.writer.Append(raw[at:end]); err != nil {
					return false, err
				}
				continue
			}
			whole = false
			m.bad = append(m.bad, commitlog.Bad{Pack: p.ID, Offset: int64(e.Offset), Length: int64(e.FrameSize()), ID: e.ID})
		}
	}
	if found := countIn(offsets, entries); found < len(offsets) {
		return false, fmt.Errorf("the index cannot be relied on: %w (%s)", errLies, p.ID)
	}
	return whole, nil
}

// begin opens the new pack. It is one that may hold encrypted frames if a pack that frames come from is.
func (m *frameMover) begin(ctx context.Context, from pack.Header) error {
	if m.writer != nil {
		return nil
	}
	id := format.RandomName()
	out, err := m.repo.store.Create(ctx, pack.ObjectName(id))
	if err != nil {
		return err
	}
	header := pack.Header{Kind: m.kind, Hash: m.repo.hasher.Algorithm(), ID: id, Domain: m.domain, Generation: from.Generation}
	writer, err := pack.NewWriter(out, m.repo.hasher, header)
	if err != nil {
		out.Abort()
		return err
	}
	m.id, m.out, m.writer, m.encrypted = id, out, writer, from.Generation != 0
	return nil
}

// finish makes the new pack durable and names it in the payload. Without frames there is none.
func (m *frameMover) finish(ctx context.Context, payload *commitlog.Payload) error {
	if m.writer == nil || m.writer.Frames() == 0 {
		return nil
	}
	root, size, err := m.writer.Finish()
	if err == nil {
		err = m.out.Commit(ctx)
	}
	if err == nil {
		m.out = nil
		if err = m.repo.protect(ctx, m.id, size); err != nil {
			m.drop(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("pack %s: %w", m.id, err)
	}
	payload.Packs = append(payload.Packs, commitlog.Pack{
		ID: m.id, Kind: m.kind.String(), Domain: m.domain, Size: size, Frames: m.writer.Frames(), Root: root,
	})
	return nil
}

// dropUnnamed removes the new pack if the commit that was to name it failed so that no entry does, and nobody else will: its
// own check refused it, or a medium had no space for the entry, and the log read on does not have it. The space the pack takes may be
// all that is left for entries. After any other error, as of a bucket whose answer to an earlier try was lost, the entry may still come to be
// there: the next run finds what is garbage.
func (m *frameMover) dropUnnamed(ctx context.Context, err error) {
	full := errors.Is(err, storage.ErrFull) && !storage.GrowsOnDemand(m.repo.store)
	if refused(err) || full && m.repo.Refresh(ctx) == nil {
		m.drop(ctx)
	}
}

// drop removes the new pack, unless an entry names it after all: the commit's own, met again after its answer was lost. If
// that fails it is garbage, which the next run finds.
func (m *frameMover) drop(ctx context.Context) {
	if m.writer != nil && m.out == nil && !m.repo.hasPack(m.id) {
		_ = m.repo.deletePack(context.WithoutCancel(ctx), m.id)
	}
}

// abort drops what was not finished.
func (m *frameMover) abort() {
	if m.out != nil {
		m.out.Abort()
	}
}

// runsOf divides the frames at ascending offsets into runs that are read at once. Offsets without a frame are passed over.
func runsOf(offsets []uint32, entries map[uint32]pack.Entry) iter.Seq[[]pack.Entry] {
	return func(yield func([]pack.Entry) bool) {
		var run []pack.Entry
		for _, offset := range offsets {
			e, ok := entries[offset]
			if !ok {
				continue
			}
			if len(run) > 0 {
				end := int64(run[len(run)-1].Offset) + int64(run[len(run)-1].FrameSize())
				if int64(e.Offset) > end+readGap || int64(e.Offset)+int64(e.FrameSize())-int64(run[0].Offset) > readRun {
					if !yield(run) {
						return
					}
					run = nil
				}
			}
			run = append(run, e)
		}
		if len(run) > 0 {
			yield(run)
		}
	}
}

func countIn(offsets []uint32, entries map[uint32]pack.Entry) int {
	n := 0
	for _, offset := range offsets {
		if _, ok := entries[offset]; ok {
			n++
		}
	}
	return n
}
