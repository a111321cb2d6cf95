package repo

import (
	"context"
	"errors"
	"sync"

	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/tree"
	"ferry/internal/storage"
)

// errGivenUp says that a caller gave up before anything was appended.
var errGivenUp = errors.New("given up while the storage was behind")

// BlockID computes a block's id.
func (in *Ingest) BlockID(plain []byte) format.ID {
	return in.repo.hasher.Sum(format.ContextBlock, plain)
}

// StoreBlock encodes and stores one block. The id must be BlockID's of this very buffer. It returns how many bytes it takes; 0 if the
// block was there already.
func (in *Ingest) StoreBlock(ctx context.Context, id format.ID, plain []byte, codec Codec) (took int, err error) {
	var e Encoded
	if err := in.encode(ctx, &e, 0, id, plain, codec); err != nil {
		return 0, err
	}
	err = in.StoreEncoded(ctx, &e, func(_ EncodedBlock, bytes int) error {
		took = bytes
		return nil
	})
	return took, err
}

// storeFrame makes sure that a block is stored, as the frame that was made of it. It returns what StoreBlock does.
func (in *Ingest) storeFrame(ctx context.Context, id format.ID, plain int64, frame []byte, absent int) (took int, err error) {
	if err := errors.Join(ctx.Err(), in.Failed()); err != nil {
		return 0, err
	}
	known, err := in.reserve(ctx, id, absent)
	if err != nil {
		return 0, err
	}
	if !known {
		if err := in.appendFrame(ctx, pack.KindBlock, id, frame); err != nil {
			return 0, err
		}
		took = len(frame)
	}
	in.count(plain, took)
	return took, nil
}

// count adds a block to the statistics: one that took so many bytes, or was there already.
func (in *Ingest) count(plain int64, took int) {
	if took == 0 {
		in.stats.KnownBlocks.Add(1)
		in.stats.KnownBytes.Add(plain)
		return
	}
	in.stats.NewBlocks.Add(1)
	in.stats.NewBytes.Add(plain)
	in.stats.Stored.Add(int64(took))
}

// Load reads a tree node. With Store it makes an Ingest the tree.Nodes of its repository.
func (in *Ingest) Load(ctx context.Context, id format.ID) ([]byte, error) {
	return in.repo.LoadNode(ctx, id)
}

// Store stores a tree node and returns its id.
func (in *Ingest) Store(ctx context.Context, node []byte) (format.ID, error) {
	id := tree.NodeID(in.repo.hasher, node)
	took, err := in.store(ctx, pack.KindNode, id, node, pack.CodecNone)
	in.stats.NodeBytes.Add(int64(took))
	return id, err
}

// store appends a frame unless its id is known, and returns what it takes. Of several callers with one id, one encodes and
// appends.
func (in *Ingest) store(ctx context.Context, kind pack.Kind, id format.ID, plain []byte, codec Codec) (took int, err error) {
	if err := errors.Join(ctx.Err(), in.Failed()); err != nil {
		return 0, err
	}
	if known, err := in.reserve(ctx, id, notLooked); known || err != nil {
		return 0, err
	}
	buffer := in.buffers.Get().(*[]byte)
	defer in.buffers.Put(buffer)
	*buffer = pack.AppendFrame((*buffer)[:0], in.repo.hasher, in.sealer, kind, codec, id, plain)
	if err := in.appendFrame(ctx, kind, id, *buffer); err != nil {
		return 0, err
	}
	return len(*buffer), nil
}

// appendFrame appends the frame of an id that was reserved. An error ends the ingest, unless the caller gives up while the storage is
// behind: then the id is no longer reserved, and another may store it.
func (in *Ingest) appendFrame(ctx context.Context, kind pack.Kind, id format.ID, frame []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.Failed(); err != nil { // its packs may be gone
		return err
	}
	err := in.append(ctx, kind, frame)
	if errors.Is(err, errGivenUp) {
		delete(in.pending, id)
		in.appended.Broadcast()
		return ctx.Err()
	}
	if err != nil {
		in.failHolding(err)
	}
	return err
}

// notLooked says that nobody has looked for an id.
const notLooked = -1

// known is true if the id is stored or appended. If not, absent is what reserve may be told of it, so that it need not look again.
func (in *Ingest) known(ctx context.Context, id format.ID) (known bool, absent int, err error) {
	in.mu.Lock()
	known, absent = in.pending[id], in.published
	in.mu.Unlock()
	if !known {
		known, err = in.stored(ctx, id)
	}
	return known, absent, err
}

// reserve is true if the id is stored or appended; else it is the caller's to store now. It waits while another caller
// encodes it: who is told that a block is there may commit a point with it at once. Nobody need look for the id in the index while
// as much is published as when it was absent.
func (in *Ingest) reserve(ctx context.Context, id format.ID, absent int) (known bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		if err := in.Failed(); err != nil {
			return false, err
		}
		appended, reserved := in.pending[id]
		if appended {
			return true, nil
		}
		if reserved {
			if err := in.await(ctx, in.appended); err != nil {
				return false, err
			}
			continue
		}
		if absent == in.published {
			in.pending[id] = false
			return false, nil
		}
		absent = in.published
		in.mu.Unlock()
		found, err := in.stored(ctx, id)
		in.mu.Lock()
		if found || err != nil {
			return found, err
		}
	}
}

// find finds an id in the domain, or among what was measured.
func (in *Ingest) find(ctx context.Context, id format.ID) (index.Place, bool, error) {
	place, found, err := in.index.FindIn(ctx, in.domain, id)
	if !found && err == nil && in.measure != nil {
		return in.measure.known.FindIn(ctx, in.domain, id)
	}
	return place, found, err
}

// stored is true if the domain has the id, and notes that it is relied on.
func (in *Ingest) stored(ctx context.Context, id format.ID) (bool, error) {
	place, found, err := in.find(ctx, id)
	if found {
		in.mu.Lock()
		in.relied[place.Pack] = true
		in.mu.Unlock()
	}
	return found, err
}

// append writes a frame to an open pack of its kind, and sends the open packs off if it is full now. The caller holds the lock,
// which is let go while the storage or the sealer is behind.
func (in *Ingest) append(ctx context.Context, kind pack.Kind, frame []byte) error {
	set, target := &in.data, in.repo.packTarget
	if kind == pack.KindNode {
		set, target = &in.nodes, in.repo.nodePackTarget
	}
	open, err := in.room(ctx, set, kind)
	if err != nil {
		return err
	}
	entry, err := open.pack.Append(frame)
	if err != nil {
		return err
	}
	open.entries = append(open.entries, entry)
	in.pending[entry.ID] = true
	in.appended.Broadcast()
	if open.pack.Size() >= target || open.pack.Plain() >= packPlain {
		in.send(ctx, in.take(kind == pack.KindNode))
	}
	return nil
}

// room returns an open pack that takes a frame without waiting for the storage. If the storage is behind with all that are open,
// another is opened, as far as that pays off; else it waits, until ctx is cancelled: errGivenUp. The caller holds the lock, which is let
// go meanwhile.
func (in *Ingest) room(ctx context.Context, set *openPacks, kind pack.Kind) (*openPack, error) {
	for {
		if err := in.Failed(); err != nil {
			return nil, err
		}
		if open := set.fullest(); open != nil {
			return open, nil
		}
		if len(set.packs)+set.opening < set.most {
			return in.openPack(set, kind)
		}
		if in.await(ctx, in.changed) != nil {
			return nil, errGivenUp
		}
	}
}

// openPack opens a pack. The caller holds the lock, which is let go while the storage is asked. It is to put a frame into the pack
// before it lets go of the lock again.
func (in *Ingest) openPack(set *openPacks, kind pack.Kind) (*openPack, error) {
	header := pack.Header{Kind: kind, Hash: in.repo.hasher.Algorithm(), ID: format.RandomName(), Domain: in.domain}
	if kind == pack.KindBlock {
		header.Generation = in.sealer.Generation()
	}
	set.opening++
	in.mu.Unlock()
	open, err := in.createPack(header)
	in.mu.Lock()
	set.opening--
	in.changed.Broadcast()
	if err != nil {
		return nil, err
	}
	if err := in.Failed(); err != nil { // nobody may come any more who takes it
		in.mu.Unlock()
		open.out.Abort()
		in.mu.Lock()
		return nil, err
	}
	set.packs = append(set.packs, open)
	return open, nil
}

func (in *Ingest) createPack(header pack.Header) (*openPack, error) {
	created := storage.Writer(nowhere{})
	if in.measure == nil {
		var err error
		if created, err = in.repo.store.Create(in.ctx, pack.ObjectName(header.ID)); err != nil {
			return nil, err
		}
	}
	out := newPackOut(created, in.wake)
	writer, err := pack.NewWriter(out, in.repo.hasher, header)
	if err != nil {
		out.Abort()
		return nil, err
	}
	return &openPack{out: out, pack: writer, id: header.ID, kind: header.Kind}, nil
}

// await waits until a condition of the ingest is signalled, or ctx is cancelled, of which it returns the error. The caller holds the
// lock, which is let go meanwhile.
func (in *Ingest) await(ctx context.Context, condition *sync.Cond) error {
	stop := context.AfterFunc(ctx, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		condition.Broadcast()
	})
	defer stop()
	if ctx.Err() == nil {
		condition.Wait()
	}
	return ctx.Err()
}

// wake makes all look again who wait for packs and seals.
func (in *Ingest) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.changed.Broadcast()
}
