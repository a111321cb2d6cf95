package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// ErrMissing: a block or node that a point needs is in no pack, or only where the log says that it is damaged.
var ErrMissing = fmt.Errorf("%w: no pack has a good copy of it", backup.ErrDamaged)

// ReadPoint reads a point's file. A damaged one gives an error wrapping backup.ErrDamaged.
func (r *Repository) ReadPoint(ctx context.Context, id backup.PointID) (*Point, error) {
	if r.locked != nil {
		return nil, r.locked
	}
	entry, err := r.entryOf(id)
	if err != nil {
		return nil, err
	}
	var point *Point
	err = r.readPointFile(ctx, entry, func(raw []byte) (header pointHeader, err error) {
		point, header, err = decodePoint(r.hasher, raw)
		return header, err
	})
	if err != nil {
		return nil, err
	}
	point.checksum = entry.Checksum
	return point, nil
}

// LoadNode reads a tree node and proves that it has the id. It is a tree.Loader. Without the key of an encrypted repository
// the id cannot be computed: then the frame that says it has the id is believed if its checksum holds.
func (r *Repository) LoadNode(ctx context.Context, id format.ID) ([]byte, error) {
	if node := r.nodes.get(id); node != nil {
		return node, nil
	}
	node, err := r.readFrame(ctx, pack.KindNode, id)
	if err != nil {
		return nil, fmt.Errorf("tree node %s: %w", id, err)
	}
	r.nodes.put(id, node)
	return node, nil
}

// readFrame reads one frame's content and proves it. What is not where the index says may have been moved by reclaim or
// compact since the log was read: then the log is read on, and the frame looked up again, as long as there is news.
func (r *Repository) readFrame(ctx context.Context, kind pack.Kind, id format.ID) ([]byte, error) {
	for {
		known := r.head()
		plain, err := r.readCopy(ctx, kind, id)
		if err == nil || ctx.Err() != nil || r.Refresh(ctx) != nil || r.head() == known {
			return plain, err
		}
	}
}

// head of the log as far as it was read.
func (r *Repository) head() commitlog.Head {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Head
}

// readCopy reads one frame's content from wherever the index has it. Before it says that the frame is missing, or damaged, it
// has the index proven (proving.go).
func (r *Repository) readCopy(ctx context.Context, kind pack.Kind, id format.ID) ([]byte, error) {
	set, err := r.lookup(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := r.readAny(ctx, set, kind, id)
	if err == nil || ctx.Err() != nil || !permanent(err) {
		return plain, err
	}
	proven, settleErr := r.settle(ctx)
	if settleErr != nil {
		return nil, settleErr
	}
	if plain, err = r.readAny(ctx, proven, kind, id); errors.Is(err, ErrMissing) || err != nil && ctx.Err() == nil && r.misplaced(ctx, proven, id) {
		if proven, settleErr = r.settleByTables(ctx); settleErr != nil {
			return nil, settleErr
		}
		plain, err = r.readAny(ctx, proven, kind, id)
	}
	return plain, err
}

// readAny reads a frame's content from any place that the index has of it. If a copy is damaged, others are tried.
func (r *Repository) readAny(ctx context.Context, set *index.Set, kind pack.Kind, id format.ID) ([]byte, error) {
	place, ok, err := set.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	err = ErrMissing
	if ok {
		var plain []byte
		if plain, err = r.readPlace(ctx, kind, id, place); err == nil || ctx.Err() != nil {
			return plain, err
		}
	}
	others, othersErr := set.FindAll(ctx, id)
	if othersErr != nil {
		return nil, othersErr
	}
	for _, other := range others {
		if ok && other == place {
			continue
		}
		if plain, otherErr := r.readPlace(ctx, kind, id, other); otherErr == nil {
			return plain, nil
		}
	}
	return nil, err
}

// readPlace reads a frame's content from one place, and proves it.
func (r *Repository) readPlace(ctx context.Context, kind pack.Kind, id format.ID, place index.Place) ([]byte, error) {
	if kind == pack.KindNode {
		if node := r.loadNeighbours(ctx, id, place); node != nil {
			return node, nil
		}
	}
	plain, err := r.readNow(ctx, kind, id, place)
	if err != nil && ctx.Err() == nil {
		if original := r.readOriginal(ctx, kind, id, place); original != nil {
			return original, nil
		}
	}
	if err != nil {
		return nil, damagedPack(place, err)
	}
	return plain, nil
}

// readNow reads a frame's content from what is there now.
func (r *Repository) readNow(ctx context.Context, kind pack.Kind, id format.ID, place index.Place) ([]byte, error) {
	file, err := r.files.acquire(ctx, place.Pack)
	if err != nil {
		return nil, err
	}
	defer r.files.release(file)
	raw := make([]byte, pack.FrameHeaderSize+min(int(place.Stored), pack.MaxStored))
	if err := readFull(ctx, file.Reader, raw, int64(place.Offset)); err != nil {
		return nil, err
	}
	return r.decodeFrame(nil, raw, kind, id)
}

// decodeFrame appends the content of a frame to dst, and proves that it is the id's.
func (r *Repository) decodeFrame(dst, raw []byte, kind pack.Kind, id format.ID) ([]byte, error) {
	start := len(dst)
	f, dst, err := pack.DecodeFrame(dst, raw, r.opener)
	switch {
	case err != nil:
		return dst, err
	case f.ID != id || f.Kind != kind:
		return dst, r.wrongFrame(raw, "another frame lies here, that of "+f.ID.String())
	case r.hasher.Locked():
		if kind != pack.KindNode {
			return dst, r.locked
		}
		_, err := pack.CheckFrame(raw, r.hasher)
		return dst, err
	case r.contentID(kind, dst[start:]) != id:
		return dst, r.wrongFrame(raw, "content differs from its id")
	}
	return dst, nil
}

// wrongFrame is the error of a frame that is not what it should be: forged where the repository is encrypted and the
// checksum holds, which no disk does.
func (r *Repository) wrongFrame(raw []byte, what string) error {
	if _, err := pack.CheckFrame(raw, r.hasher); err == nil && r.hasher.Encrypted() {
		return fmt.Errorf("%w: %s", ErrForged, what)
	}
	return fmt.Errorf("%w: %s", ErrCorrupt, what)
}

// damagedPack says where a frame could not be read. Only what cannot be mended by trying again is damage.
func damagedPack(place index.Place, err error) error {
	if errors.Is(err, ErrCorrupt) || storage.Missing(err) {
		err = fmt.Errorf("%w: %w", backup.ErrDamaged, err)
	}
	return fmt.Errorf("pack %s at %d: %w", place.Pack, place.Offset, err)
}

// readRun is the most that is read from a pack at once: neighbours are fetched together.
const (
	readRun = 4 << 20
	readGap = 64 << 10
)

// BlockReader reads many blocks with few reads. It belongs to one goroutine; make one for each.
type BlockReader struct {
	repo   *Repository
	places []placed
	// plain is the content of the block that was read last. It lies in what room returns, if that is set and not nil; else in own.
	plain, own []byte
	room       func(tree.Block) []byte
	// take proves what was read of a block; it is decode unless somebody wants frames.
	take func(placed, []byte) error
	// gap is how much between two places is read and dropped rather than reading twice, in bytes.
	gap int64
	// alone is true if nobody reads beside it: it may have as many reads under way as pay off.
	alone bool
	// spare are buffers for runs.
	spare [][]byte
}

type placed struct {
	block tree.Block
	place index.Place
}

// NewBlockReader makes a reader of blocks.
func (r *Repository) NewBlockReader() *BlockReader {
	b := &BlockReader{repo: r, gap: readGap}
	b.take = b.decode
	return b
}

// Read reads the blocks in the order in which they lie in packs, many at once, and calls use with each block's proven content,
// valid until it returns. Those that were read at once come in the order of their offsets. For a block that cannot be read it calls failed and goes on; an error of either ends the read.
func (b *BlockReader) Read(ctx context.Context, blocks []tree.Block, use func(tree.Block, []byte) error, failed func(tree.Block, error) error) error {
	if b.repo.locked != nil {
		return b.repo.locked
	}
	set, err := b.repo.lookup(ctx)
	if err != nil {
		return err
	}
	b.places = b.places[:0]
	for _, block := range blocks {
		place, ok, err := set.Find(ctx, block.ID)
		if err != nil {
			return err
		}
		if !ok { // but perhaps in a pack that is given up and still there
			if err = b.elsewhere(ctx, block, ErrMissing); err != nil {
				err = failed(block, err)
			} else {
				err = use(block, b.plain)
			}
			if err != nil {
				return err
			}
			continue
		}
		b.places = append(b.places, placed{block, place})
	}
	sortPlaces(b.places)
	return b.runs(ctx, b.places, func(r *run) error { return b.use(ctx, r, use, failed) })
}

// sortPlaces puts places in the order in which they lie in packs.
func sortPlaces(places []placed) {
	slices.SortFunc(places, func(x, y placed) int {
		return cmp.Or(bytes.Compare(x.place.Pack[:], y.place.Pack[:]), cmp.Compare(x.place.Offset, y.place.Offset), cmp.Compare(x.block.Offset, y.block.Offset))
	})
}

func frameEnd(p index.Place) int64 {
	return int64(p.Offset) + pack.FrameHeaderSize + int64(min(p.Stored, pack.MaxStored))
}

// runLength is how many of the places, from the first, are read together.
func runLength(places []placed, gap int64) int {
	first := places[0].place
	end := frameEnd(first)
	n := 1
	for ; n < len(places); n++ {
		p := places[n].place
		if p.Pack != first.Pack || int64(p.Offset) > end+gap || frameEnd(p)-int64(first.Offset) > readRun {
			break
		}
		end = max(end, frameEnd(p))
	}
	return n
}

// use decodes a run that was read, and hands its blocks over, in the object's order: several workers filled the pack, each
// with blocks that follow each other.
func (b *BlockReader) use(ctx context.Context, r *run, use func(tree.Block, []byte) error, failed func(tree.Block, error) error) error {
	slices.SortFunc(r.places, func(x, y placed) int { return cmp.Compare(x.block.Offset, y.block.Offset) })
	for _, p := range r.places {
		at, end := int64(p.place.Offset)-r.start, frameEnd(p.place)-r.start
		frameErr := r.err
		if frameErr == nil || end <= int64(r.read) {
			frameErr = b.take(p, r.raw[at:end])
		}
		if frameErr != nil {
			frameErr = b.elsewhere(ctx, p.block, damagedPack(p.place, frameErr))
		}
		if frameErr != nil {
			frameErr = failed(p.block, frameErr)
		} else {
			frameErr = use(p.block, b.plain)
		}
		if frameErr != nil {
			return frameErr
		}
	}
	return nil
}

// elsewhere puts a block's content in b.plain from another copy of it, if there is one; else it returns err.
func (b *BlockReader) elsewhere(ctx context.Context, block tree.Block, err error) error {
	if ctx.Err() != nil {
		return err
	}
	plain, otherErr := b.repo.readFrame(ctx, pack.KindBlock, block.ID)
	if otherErr != nil || int64(len(plain)) != block.Length {
		return err
	}
	b.plain = plain
	return nil
}

// decode puts a block's proven content in b.plain.
func (b *BlockReader) decode(p placed, frame []byte) error {
	var room []byte
	if b.room != nil {
		room = b.room(p.block)
	}
	own := room == nil
	if own {
		room = b.own[:0]
	}
	plain, err := b.repo.decodeFrame(room, frame, pack.KindBlock, p.block.ID)
	if b.plain = plain; own {
		b.own = plain
	}
	if err == nil && int64(len(plain)) != p.block.Length {
		err = fmt.Errorf("%w: block of %d bytes where the tree needs %d", ErrCorrupt, len(plain), p.block.Length)
	}
	return err
}
