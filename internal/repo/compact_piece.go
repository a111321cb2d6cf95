package repo

import (
	"context"
	"slices"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
)

const (
	// compactPiece is what is looked at and written at once, in bytes of content; it is held in memory.
	compactPiece = 32 << 20
	// compactSaves is how many reads a piece must save at least to be written again: more than the borders of packs cost. And it must save
	// one for each compactCosts bytes that are written: on a disk that turns, to look for something takes as long as to read that much.
	compactSaves = 5
	compactCosts = 1 << 20
	// maxSettled bounds the memory for blocks that are settled: 512 GiB of different ones, of 128 KiB each, take some 80 MiB.
	maxSettled = 1 << 22
)

// fitting are the first blocks that hold at most so many bytes together, and these; one at least.
func fitting(blocks []Block, most int64) (first []Block, bytes int64) {
	for i, block := range blocks {
		if i > 0 && bytes+block.Length > most {
			return blocks[:i], bytes
		}
		bytes += block.Length
	}
	return blocks, bytes
}

// piece writes blocks of leaves that follow each other again, if that is worth it.
func (c *compactor) piece(ctx context.Context, domain format.Name, leaves [][]Block) error {
	if err := c.rest(ctx); err != nil {
		return err
	}
	found, err := c.find(ctx, domain, leaves)
	if err != nil || found == nil {
		return err
	}
	movable, saved := c.weigh(found)
	sparse, size := 0, int64(0)
	for _, p := range movable {
		thin, err := c.isSparse(ctx, p.place.Pack)
		if err != nil {
			return err
		}
		if thin {
			sparse++
		}
		size += frameSize(p.place)
	}
	if saved >= max(compactSaves, int(size/compactCosts)) || sparse*2 > len(slices.Concat(found...)) {
		if c.options.MaxTime > 0 && c.repo.env.now().Sub(c.started) >= c.options.MaxTime {
			c.report.Stopped = "the time given is used up"
			return errBudget
		}
		if c.options.MaxBytes > 0 && c.report.Read+c.report.Written+2*size > c.options.MaxBytes {
			c.report.Stopped = "the bytes given are used up"
			return errBudget
		}
		if err := c.rewrite(ctx, movable); err != nil {
			return err
		}
	}
	c.settle(found)
	return nil
}

// find looks up where the blocks of a piece lie. It returns nil if that is not a matter of compaction: one is nowhere, or locked.
func (c *compactor) find(ctx context.Context, domain format.Name, leaves [][]Block) ([][]placed, error) {
	set, err := c.repo.lookup(ctx)
	if err != nil {
		return nil, err
	}
	found := make([][]placed, len(leaves))
	for i, blocks := range leaves {
		found[i] = make([]placed, len(blocks))
		for j, block := range blocks {
			place, ok, err := set.FindIn(ctx, domain, block.ID)
			if err != nil || !ok { // damaged
				return nil, err
			}
			locked, err := c.isLocked(ctx, place.Pack)
			if err != nil {
				return nil, err
			}
			if locked {
				c.report.Locked += len(slices.Concat(leaves...))
				return nil, nil
			}
			found[i][j] = placed{block, place}
		}
	}
	return found, nil
}

// weigh says which blocks of a piece would be written again, and how many reads that saves a restore.
func (c *compactor) weigh(found [][]placed) (movable []placed, saved int) {
	again := rewriting{settled: c.settled, moved: map[format.ID]index.Place{}}
	for _, places := range found {
		after := again.places(places)
		saved += reads(places) - reads(after)
	}
	return again.movable, saved
}

// settle remembers the blocks of a piece.
func (c *compactor) settle(found [][]placed) {
	for _, p := range slices.Concat(found...) {
		if len(c.settled) < maxSettled {
			c.settled[settledKey(p.block.ID)] = struct{}{}
		}
	}
}

// rewrite reads blocks, proves them by their ids, and appends them in their order.
func (c *compactor) rewrite(ctx context.Context, movable []placed) error {
	content := make(map[format.ID][]byte, len(movable))
	blocks := make([]Block, len(movable))
	for i, p := range movable {
		blocks[i] = p.block
	}
	err := c.repo.NewBlockReader().Read(ctx, blocks, func(block Block, plain []byte) error {
		content[block.ID] = slices.Clone(plain)
		return nil
	}, func(_ Block, err error) error { return err })
	if err != nil {
		if permanent(err) {
			c.repo.warn("a piece is not compacted: %v", err)
			return nil
		}
		return err
	}
	if c.out.writer != nil && c.out.writer.Size() >= c.repo.packTarget {
		if err := c.flush(ctx); err != nil {
			return err
		}
	}
	if err := c.out.begin(ctx, pack.Header{Generation: c.sealer.Generation()}); err != nil {
		return err
	}
	for _, p := range movable {
		c.buffer = pack.AppendFrame(c.buffer[:0], c.repo.hasher, c.sealer, pack.KindBlock, c.options.Codec, p.block.ID, content[p.block.ID])
		if _, err := c.out.writer.Append(c.buffer); err != nil {
			return err
		}
		c.report.Blocks++
		c.report.Read += frameSize(p.place)
		c.report.Written += int64(len(c.buffer))
	}
	return nil
}
