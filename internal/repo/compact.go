package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"ferry/internal/idle"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// CompactOptions of one run.
type CompactOptions struct {
	// MaxTime ends the run before its next piece; 0: no limit. MaxBytes bounds what is read and written, in bytes; 0: none.
	MaxTime  time.Duration
	MaxBytes int64
	// Codec that blocks are encoded with again; CodecZstd is denser, CodecNone and CodecS2 are not.
	Codec Codec
	// Rest, if not nil, is called before each piece, with how long was worked since it was called last. Its error ends the run.
	Rest func(ctx context.Context, worked time.Duration) error
}

// CompactReport says what a run did.
type CompactReport struct {
	// Before and After are how the machines' newest points lie, of machines that the run came to.
	Before, After []Fragmentation
	// Blocks were written again: Read and Written are their stored bytes before and after, headers included.
	Blocks        int
	Read, Written int64
	Packs         int
	// Locked are blocks that were left where they are, because the storage keeps their packs for now in any case.
	Locked int
	// Stopped says why the run ended before all was done; empty: it was not so.
	Stopped string
}

// Compact writes the blocks of each machine's newest point again, in their order, and encodes them denser. What they
// leave behind is dead: the newest place of a block counts (placing.go), and reclaim gives the others back. It needs the key.
//
// A point is looked at in pieces of up to 32 MiB. One is written again if that saves a restore enough reads, or if much of it is in packs of
// a codec that is not dense. Of a block that several pieces need, the first one decides where it lies: else they would take it from each
// other in every run. So what was compacted once is left alone. What it reads and writes gives way to everybody else's.
func (r *Repository) Compact(ctx context.Context, options CompactOptions) (*CompactReport, error) {
	if err := errors.Join(r.locked, r.Writable(), r.Refresh(ctx)); err != nil {
		return nil, err
	}
	run := format.RandomName()
	release, err := r.lease(ctx, run, "compact")
	if err != nil {
		return nil, err
	}
	defer release()
	ctx = idle.Access(ctx)
	now := r.env.now()
	c := &compactor{
		repo: r, options: options, report: &CompactReport{}, started: now, rested: now, domains: r.snapshot().Domains,
		sparse: map[format.Name]bool{}, locked: map[format.Name]bool{}, settled: map[uint64]struct{}{},
	}
	if r.keys != nil {
		if c.sealer, err = pack.NewSealer(r.keys); err != nil {
			return nil, err
		}
	}
	err = c.compact(ctx)
	return c.report, err
}

type compactor struct {
	repo    *Repository
	options CompactOptions
	report  *CompactReport
	started time.Time
	// rested is when the run went on after its last rest.
	rested  time.Time
	domains map[format.Name]commitlog.Domain
	sealer  *pack.Sealer

	// out is the pack that is being filled, of one domain.
	out *frameMover
	// sparse packs have many blocks of a codec that is not dense; locked ones the storage keeps. Looked up once each.
	sparse, locked map[format.Name]bool
	// settled are blocks of pieces before, by the beginnings of their ids: they stay where they are now. Bounded.
	settled map[uint64]struct{}
	buffer  []byte
}

// errBudget ends a run in order.
var errBudget = errors.New("the budget is used up")

func (c *compactor) compact(ctx context.Context) error {
	for _, entry := range c.repo.newestPoints() {
		before, err := c.repo.fragmentation(ctx, entry)
		if err != nil && c.repo.gone(ctx, entry) {
			continue
		}
		if err != nil {
			if ctx.Err() != nil || !permanent(err) {
				return err
			}
			c.repo.warn("point %s is not compacted: %v", entry.ID.Short(), err)
			continue
		}
		err = c.point(ctx, entry)
		if flushed := c.flush(ctx); err == nil || errors.Is(err, errBudget) {
			err = cmp.Or(flushed, err)
		}
		if c.out != nil {
			c.out.abort()
			c.out = nil
		}
		if err != nil && !errors.Is(err, errBudget) {
			if c.repo.gone(ctx, entry) {
				continue
			}
			return err
		}
		after, afterErr := c.repo.fragmentation(ctx, entry)
		if afterErr != nil && c.repo.gone(ctx, entry) {
			continue
		}
		if afterErr != nil {
			return afterErr
		}
		c.report.Before, c.report.After = append(c.report.Before, before), append(c.report.After, after)
		if err != nil {
			return nil // the report says why
		}
	}
	return nil
}

// point writes a point's pieces again that are worth it.
func (c *compactor) point(ctx context.Context, entry commitlog.Point) error {
	domain, roots, err := c.repo.pointRoots(ctx, entry)
	if err != nil {
		return err
	}
	if c.domains[domain].Sealed {
		return nil // it lies in order, and shares nothing
	}
	c.out = &frameMover{repo: c.repo, domain: domain, kind: pack.KindBlock}
	for _, root := range roots {
		var leaves [][]Block
		length := int64(0)
		for blocks, err := range c.repo.Leaves(ctx, root) {
			if err != nil {
				return err
			}
			for len(blocks) > 0 {
				part, bytes := fitting(blocks, compactPiece)
				if length+bytes > compactPiece {
					if err := c.piece(ctx, domain, leaves); err != nil {
						return err
					}
					leaves, length = nil, 0
				}
				leaves = append(leaves, part)
				length += bytes
				blocks = blocks[len(part):]
			}
		}
		if err := c.piece(ctx, domain, leaves); err != nil {
			return err
		}
	}
	return nil
}

func (c *compactor) rest(ctx context.Context) error {
	if c.options.Rest == nil {
		return nil
	}
	err := c.options.Rest(ctx, c.repo.env.now().Sub(c.rested))
	c.rested = c.repo.env.now()
	return err
}

// flush seals the pack and names it in the log.
func (c *compactor) flush(ctx context.Context) error {
	if c.out == nil || c.out.writer == nil || c.out.writer.Frames() == 0 {
		return nil
	}
	full := c.out
	c.out = &frameMover{repo: c.repo, domain: full.domain, kind: full.kind}
	payload := &commitlog.Payload{}
	defer full.abort()
	if err := full.finish(ctx, payload); err != nil {
		return err
	}
	err := c.repo.commit(ctx, payload, nil)
	full.dropUnnamed(ctx, err)
	if errors.Is(err, ErrCondemned) { // it was taken for garbage while this process slept
		c.report.Stopped = "what was written was taken for garbage meanwhile; the next run begins again"
		return errBudget
	}
	if err != nil {
		return err
	}
	c.report.Packs++
	return nil
}

// isSparse is true if more than a half of a pack's blocks are of a codec that is not dense.
func (c *compactor) isSparse(ctx context.Context, name format.Name) (bool, error) {
	if c.options.Codec != CodecZstd {
		return false, nil
	}
	if sparse, known := c.sparse[name]; known {
		return sparse, nil
	}
	table, err := c.table(ctx, name)
	if errors.Is(err, storage.ErrNotExist) {
		return false, nil // moved just now
	}
	if err != nil && !unreadable(err) {
		return false, fmt.Errorf("pack %s: %w", name, err)
	}
	thin := 0
	for _, e := range table.Entries {
		if e.Codec == pack.CodecS2 {
			thin++
		}
	}
	c.sparse[name] = thin*2 > len(table.Entries)
	return c.sparse[name], nil
}

func (c *compactor) table(ctx context.Context, name format.Name) (pack.Table, error) {
	reader, err := c.repo.store.Open(ctx, pack.ObjectName(name))
	if err != nil {
		return pack.Table{}, err
	}
	defer reader.Close()
	c.repo.mu.Lock()
	p := c.repo.state.Packs.Of(name)
	c.repo.mu.Unlock()
	return c.repo.readTable(ctx, reader, p)
}

// isLocked is true if the storage keeps a pack for now: then writing its blocks again wins nothing.
func (c *compactor) isLocked(ctx context.Context, name format.Name) (bool, error) {
	locker, can := storage.As[storage.Locker](c.repo.store)
	if !can {
		return false, nil
	}
	if locked, known := c.locked[name]; known {
		return locked, nil
	}
	until, err := locker.LockedUntil(ctx, pack.ObjectName(name))
	if err != nil && !storage.Missing(err) {
		return false, err
	}
	c.locked[name] = until.After(c.started)
	return c.locked[name], nil
}
