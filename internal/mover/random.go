package mover

import (
	"context"
	"errors"
	"iter"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source"
)

// readers of one disk at a time. More than processors, because they wait.
const readers = 4

// readRandom reads what may have changed of an object that can be read at random.
func (p *pipeline) readRandom(ctx context.Context, o *object) error {
	disk, err := p.task.content.Disk(o.index)
	if err != nil {
		return place(p.task.point, o.Name, backup.NoOffset, err)
	}
	o.Size = disk.Size()
	if o.Shifting {
		return p.readShifting(ctx, o, disk)
	}
	ranges := make(chan blockRange)
	group, ctx := errgroup.WithContext(ctx)
	parallel := readers
	if p.task.sealed() {
		parallel = 1
	}
	for range parallel {
		group.Go(func() error {
			var patcher *patcher
			for r := range ranges {
				var err error
				if r.patch == nil {
					err = p.readRange(ctx, o, disk, r)
				} else {
					if patcher == nil {
						patcher = p.newPatcher(o, disk)
					}
					err = patcher.put(ctx, r.patch)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(ranges)
		return p.planRanges(ctx, o, disk, ranges)
	})
	return group.Wait()
}

// planRanges sends the ranges that must be read, in order, and notes what need not be.
func (p *pipeline) planRanges(ctx context.Context, o *object, disk source.Disk, ranges chan<- blockRange) error {
	perRun := max(runBytes/o.blockSize, 1)
	send := func(r blockRange) error {
		select {
		case ranges <- r:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var open *patch
	for r, err := range blockRanges(o, disk.Extents(ctx, p.task.proofFor(o))) {
		if err != nil {
			return place(p.task.point, o.Name, backup.NoOffset, err)
		}
		switch r.kind {
		case backup.ExtentUnchanged:
			p.task.unchanged.Add(o.bytes(r))
			p.task.progress.Done.Add(o.bytes(r))
		case backup.ExtentZero:
			p.task.progress.Done.Add(o.bytes(r))
			if o.base == nil {
				continue
			}
			for n := r.first; n < r.first+r.count; n++ {
				if err := o.put(n, repo.ID{}, 0); err != nil {
					return err
				}
			}
		case backup.ExtentData:
			if len(r.parts) > 0 && p.resumed(o, r.first, 1) > 0 {
				if open == nil {
					open = p.patch()
				}
				if open.add(r.first, o.blockSize, r.parts); int64(len(open.numbers)) == perRun {
					if err := send(blockRange{patch: open}); err != nil {
						return err
					}
					open = nil
				}
			}
			if len(r.parts) > 0 {
				continue
			}
			for first := r.first; first < r.first+r.count; {
				count := p.resumed(o, first, min(perRun, r.first+r.count-first))
				if count < 0 {
					first += -count
					continue
				}
				if err := send(blockRange{first: first, count: count}); err != nil {
					return err
				}
				first += count
			}
		}
	}
	if open != nil {
		return send(blockRange{patch: open})
	}
	return nil
}

// resumed looks at up to count blocks from first. If the first is stored already it returns, negative, how many are in
// a row; else how many must be read in a row.
func (p *pipeline) resumed(o *object, first, count int64) int64 {
	have := o.done.get(first)
	n := int64(1)
	for n < count && o.done.get(first+n) == have {
		n++
	}
	if !have {
		return n
	}
	bytes := o.bytes(blockRange{first: first, count: n})
	p.task.resumed.Add(bytes)
	p.task.progress.Done.Add(bytes)
	return -n
}

// proofFor returns what the source is asked to compare with: the base, if it has a tree of this object.
func (t *task) proofFor(o *object) *backup.Base {
	if t.base == nil || o.base == nil {
		return nil
	}
	return &backup.Base{ID: t.base.ID, Validator: t.base.Origin.Validator}
}

func (p *pipeline) readRange(ctx context.Context, o *object, disk source.Disk, r blockRange) error {
	buffer := p.buffer()
	length, offset := o.bytes(r), r.first*o.blockSize
	*buffer = (*buffer)[:length]
	if err := p.readSource(o, disk, *buffer, offset); err != nil {
		return err
	}
	p.task.progress.Done.Add(length)
	return p.send(ctx, run{object: o, number: r.first, data: buffer})
}

// blockRange is a run of blocks of which the source says the same.
type blockRange struct {
	first, count int64
	kind         backup.ExtentKind
	// parts of a single block that is partly as in the base, valid until the next range; else none.
	parts []backup.Extent
	// patch, on the way to the readers, is some such blocks; then the rest is not set.
	patch *patch
}

// bytes of the range, the object's last block with its true length.
func (o *object) bytes(r blockRange) int64 {
	return min((r.first+r.count)*o.blockSize, o.Size) - r.first*o.blockSize
}

// blockRanges turns extents, which end anywhere, into ranges of whole blocks. A block is unchanged or zeros only if all
// of it is; a block whose length differs from the base's is read, whatever the source says of it.
//
//	extents:  zero zero|data .. unchanged|unchanged
//	blocks:   [   zero ][ data ][  data  ][unchanged]
func blockRanges(o *object, extents iter.Seq2[backup.Extent, error]) iter.Seq2[blockRange, error] {
	return func(yield func(blockRange, error) bool) {
		b := &blocker{object: o, same: o.sameBlocks(), yield: yield}
		for e, err := range extents {
			if err == nil && (e.Offset != b.at || e.Length < 0 || e.End() > o.Size) {
				err = errBadExtents
			}
			if err != nil {
				yield(blockRange{}, err)
				return
			}
			if !b.add(e) {
				return
			}
		}
		if b.at != o.Size {
			yield(blockRange{}, errBadExtents)
			return
		}
		b.flush()
	}
}

var errBadExtents = errors.New("the source's extents do not cover the disk")

// blocker collects extents into the range that is being made, and a block that is not whole yet.
type blocker struct {
	object *object
	// same is how many blocks, from the first, can be as in the base: those that have the same length there.
	same  int64
	yield func(blockRange, error) bool
	at    int64 // offset that extents have reached
	open  blockRange
	mixed bool // at is inside a block
	kind  backup.ExtentKind
	// parts of that block, at most one more than are of use.
	parts []backup.Extent
}

func (b *blocker) add(e backup.Extent) bool {
	size := b.object.blockSize
	for b.at < e.End() {
		if b.at%size == 0 && e.End()-b.at >= size {
			whole := (e.End() - b.at) / size
			if !b.push(blockRange{first: b.at / size, count: whole, kind: e.Kind}) {
				return false
			}
			b.at += whole * size
			continue
		}
		if !b.mixed {
			b.mixed, b.kind, b.parts = true, e.Kind, b.parts[:0]
		} else if b.kind != e.Kind {
			b.kind = backup.ExtentData
		}
		number := b.at / size
		end := min((number+1)*size, b.object.Size)
		b.part(backup.Extent{Offset: b.at, Length: min(e.End(), end) - b.at, Kind: e.Kind})
		b.at = min(e.End(), end)
		if b.at < end {
			return true
		}
		b.mixed = false
		if b.patchable(number, end-number*size) {
			if !b.flush() || !b.yield(blockRange{first: number, count: 1, kind: b.kind, parts: b.parts}, nil) {
				return false
			}
			continue
		}
		if !b.push(blockRange{first: number, count: 1, kind: b.kind}) {
			return false
		}
	}
	return true
}

// part adds a part of a block that is not whole yet.
func (b *blocker) part(e backup.Extent) {
	if last := len(b.parts) - 1; last >= 0 && b.parts[last].Kind == e.Kind {
		b.parts[last].Length += e.Length
	} else if len(b.parts) <= maxParts {
		b.parts = append(b.parts, e)
	}
}

// patchable is true if the block, of length bytes, is better put together from the base's and what may have changed.
func (b *blocker) patchable(number, length int64) bool {
	if len(b.parts) < 2 || len(b.parts) > maxParts || number >= b.same {
		return false
	}
	unchanged := int64(0)
	for _, e := range b.parts {
		if e.Kind == backup.ExtentUnchanged {
			unchanged += e.Length
		}
	}
	return unchanged*patchShare >= length
}

// sameBlocks is how many blocks, from the first, have the same length in the base.
func (o *object) sameBlocks() int64 {
	switch {
	case o.base == nil:
		return 0
	case o.base.Size == o.Size:
		return o.base.Blocks()
	}
	return min(o.base.Size, o.Size) / o.blockSize
}

// push adds a range; what cannot be as in the base is data.
func (b *blocker) push(r blockRange) bool {
	if r.kind != backup.ExtentUnchanged || r.first+r.count <= b.same {
		return b.join(r)
	}
	if same := b.same - r.first; same > 0 {
		if !b.join(blockRange{first: r.first, count: same, kind: r.kind}) {
			return false
		}
		r.first, r.count = b.same, r.count-same
	}
	r.kind = backup.ExtentData
	return b.join(r)
}

// join adds a range, to the one before if it goes on with the same.
func (b *blocker) join(r blockRange) bool {
	if b.open.count > 0 && b.open.kind == r.kind && b.open.first+b.open.count == r.first {
		b.open.count += r.count
		return true
	}
	ok := b.flush()
	b.open = r
	return ok
}

func (b *blocker) flush() bool {
	r := b.open
	b.open = blockRange{}
	return r.count == 0 || b.yield(r, nil)
}
