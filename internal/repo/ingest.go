package repo

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/index"
	"ferry/internal/repo/pack"
	"ferry/internal/storage"
)

// Codec says how new blocks are compressed.
type Codec = pack.Codec

// The codecs of new blocks.
const (
	CodecNone = pack.CodecNone
	CodecS2   = pack.CodecS2
	CodecZstd = pack.CodecZstd
)

const (
	// packTarget is the stored size of a data pack at which those that are open are sealed; packPlain the content, so that what an
	// interruption loses of a pack is bounded for content that compresses well, too.
	packTarget = 64 << 20
	packPlain  = 256 << 20
	// nodePackTarget is below the format's 16 MiB.
	nodePackTarget = 15 << 20
)

// Ingest stores content in a repository. Any number of goroutines may use one. Begin it with NewIngest and end it with Close.
//
// The path of a block:
//
//	Encode:       id -> known? -> encode
//	StoreEncoded: reserve -> append to the open pack, several blocks one behind the other
//	pack full:    table, sync, publish -> index -> log entry with the pack, the partials and the points that waited
//
// Sealing runs behind: while seals are on their way, at most maxQueue before somebody waits, the next packs are filled. What waits for half a minute goes
// though its pack is not full, as soon as nothing else is on its way.
//
// There is one open pack of blocks, and one of nodes. Where it pays off to write several objects at once and the storage is behind
// with the pack of blocks, others are opened beside it (storage.ParallelWrites), not in a sealed domain, which is read as it was
// written. They go together when one of them is full, so what is written down never tells of a block whose pack is still open.
// Those who store wait for the storage without the lock: who finds a block known does not wait for those who store others.
type Ingest struct {
	repo  *Repository
	index *index.Set
	// domain that all of it is stored in: nothing is deduplicated against what is in another. The first task of a sealed ingest
	// may take up another, before anything is stored.
	domain format.Name
	sealed bool
	// mending is true if what is stored is needed already: nodes are committed without a point.
	mending bool
	// measure, if not nil, makes it an ingest that stores nothing.
	measure *measure
	// announced is true when the log has the domain. Touched by the sealer only, once the first task has begun.
	announced bool
	// ctx is for packs and commits, which outlive the copy that happens to begin them. Only Abandon cancels it: what is full
	// is worth the second that it takes to commit it after a stop was asked for.
	ctx    context.Context
	cancel context.CancelFunc

	// storing is taken by who stores encoded blocks one behind the other.
	storing chan struct{}

	mu sync.Mutex // guards what follows, and appending
	// pending are ids that the log does not have yet: true when appended to a pack, false while being encoded.
	pending map[format.ID]bool
	// appended is signalled when a pending id becomes true, and when the ingest fails: then those that are false stay so.
	appended *sync.Cond
	// published counts the times that pending ids became known to the index.
	published int
	// begun is true when the first task has begun.
	begun bool
	// losses counts the times that packs that were relied on turned out given up by another writer.
	losses int
	data   openPacks
	nodes  openPacks
	tasks  []*Task // that have records since the last seal
	points []readyPoint
	// relied are the packs that blocks were found in.
	relied map[format.Name]bool
	// queue holds the seals in the order in which they were taken: a point in one may refer to packs in those before.
	queue   []*seal
	closing bool
	// due is true when what waits has waited long enough. timer makes it so; it runs while waits is true.
	due, waits bool
	timer      *time.Timer
	changed    *sync.Cond // of queue, closing and due, and of what there is room for in packs, with mu

	// atOnce is how many packs, points and the like of a seal are made durable at once.
	atOnce int
	// makingRoom is held while open packs give their space.
	makingRoom sync.Mutex

	sealing sync.WaitGroup
	// sealer encrypts frames; nil: they are not.
	sealer  *pack.Sealer
	failed  atomic.Pointer[error]
	buffers sync.Pool

	stats Stats
}

// Stats counts what an ingest did. All are bytes or frames since it began.
type Stats struct {
	// NewBlocks and NewBytes were not in the repository; Stored is what they took, headers included.
	NewBlocks, NewBytes, Stored atomic.Int64
	// KnownBlocks and KnownBytes were there already.
	KnownBlocks, KnownBytes atomic.Int64
	// NodeBytes is what new tree nodes took.
	NodeBytes atomic.Int64
	// Written is what packs took, with their tables, and the points' files; the index, which is some fifty bytes for each block,
	// and the log are not in it.
	Written atomic.Int64
	// Packs counts packs sealed.
	Packs atomic.Int64
	// Kept is what of NewBytes, Stored and NodeBytes is in packs that the log names. The rest is lost if the ingest fails.
	Kept struct{ NewBytes, Stored, NodeBytes atomic.Int64 }
}

// readyPoint is a point whose blocks and nodes are all appended. It is committed with the packs they are in.
type readyPoint struct {
	point *Point
	raw   []byte // its file
	claim commitlog.Claim
	task  *Task
	// damaged says what of it is not known to be here, if it has places.
	damaged commitlog.Damaged
	done    func(error)
}

// IngestOptions say where an ingest stores.
type IngestOptions struct {
	// Sealed stores in a domain of its own: nothing is shared with what the repository has, and nothing that comes
	// later shares with it. It goes as a whole when its last point goes. It is a new one, or that of an interrupted copy of
	// the first point that is copied.
	Sealed bool
	// Plain leaves blocks unencrypted also where the repository is encrypted, for storage that deduplicates or compresses
	// by itself. Only a sealed domain can be plain.
	Plain bool

	// Measure stores nothing: all is counted as it would be. A repository that must not be written to will do.
	Measure bool

	// into, if set, is the domain to store in, one that exists: for what is stored again.
	into format.Name
}

// NewIngest begins to store. It refuses a repository that must not be written to.
func (r *Repository) NewIngest(ctx context.Context, options IngestOptions) (*Ingest, error) {
	if options.Plain && !options.Sealed {
		return nil, errors.New("only a sealed domain can be plain")
	}
	err := r.locked
	if !options.Measure {
		err = errors.Join(err, r.Writable())
	}
	if err != nil {
		return nil, err
	}
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	set, err := r.lookup(ctx)
	if err != nil {
		return nil, err
	}
	in := &Ingest{
		repo: r, index: set, domain: r.defaultDomain(), announced: true,
		pending: map[format.ID]bool{}, relied: map[format.Name]bool{}, storing: make(chan struct{}, 1),
	}
	if options.Sealed {
		in.domain, in.sealed, in.announced = format.RandomName(), true, false
	}
	if !options.into.IsZero() {
		in.domain, in.sealed, in.mending = options.into, r.isSealed(options.into), true
	}
	if options.Measure {
		in.measure = r.newMeasure(in.domain)
	}
	if r.keys != nil && !options.Plain {
		if in.sealer, err = pack.NewSealer(r.keys); err != nil {
			return nil, err
		}
	}
	in.data.most, in.atOnce = storage.ParallelWrites(r.store)
	in.nodes.most = 1
	if in.sealed || options.Measure {
		in.data.most = 1
	}
	in.ctx, in.cancel = context.WithCancel(context.WithoutCancel(ctx))
	in.changed, in.appended = sync.NewCond(&in.mu), sync.NewCond(&in.mu)
	in.timer = time.AfterFunc(r.writtenDownWithin, in.fallDue)
	in.timer.Stop()
	in.buffers.New = func() any {
		size := r.description.BlockSize
		buffer := make([]byte, 0, pack.FrameHeaderSize+size+size/4+64)
		return &buffer
	}
	in.sealing.Go(in.runSealer)
	return in, nil
}

// Stats of this ingest; they may be read at any time.
func (in *Ingest) Stats() *Stats { return &in.stats }

// fail ends the ingest for good and wakes all who wait: for packs, for seals, and for an id that another caller encodes and will not
// append any more. The first error is kept.
func (in *Ingest) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.failHolding(err)
}

// failHolding is fail for a caller that holds the lock.
func (in *Ingest) failHolding(err error) {
	in.failed.CompareAndSwap(nil, &err)
	in.appended.Broadcast()
	in.changed.Broadcast()
}

// Failed returns the error that ended the ingest for good, or nil: nothing more can be stored through it.
func (in *Ingest) Failed() error {
	if err := in.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Behind is true while the storage is slower than what is stored: whoever stores will have to wait for it.
func (in *Ingest) Behind() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue) > maxQueue || in.data.behind()
}

// Waits is true if a point was handed over and is not committed yet. Flush commits it.
func (in *Ingest) Waits(id backup.PointID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	waits := func(points []readyPoint) bool {
		return slices.ContainsFunc(points, func(p readyPoint) bool { return p.point.ID == id })
	}
	return waits(in.points) || slices.ContainsFunc(in.queue, func(s *seal) bool { return waits(s.points) })
}

// Flush makes durable and commits all that was given so far. If ctx is cancelled it does not wait for that; it happens all
// the same.
func (in *Ingest) Flush(ctx context.Context) error { return in.flush(ctx, false) }

func (in *Ingest) flush(ctx context.Context, last bool) error {
	if err := in.Failed(); err != nil {
		return err
	}
	in.mu.Lock()
	s := in.take(false)
	s.last, s.done = last, make(chan error, 1)
	in.send(ctx, s)
	in.mu.Unlock()
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Abandon makes the ingest fail with the cause at once: nothing that is not committed is written any more, and what is on its way
// is not waited for, as far as the storage heeds that. Close is called all the same.
func (in *Ingest) Abandon(cause error) {
	in.fail(cause)
	in.cancel()
}

// Close ends the ingest. With a nil cause what was given is committed first; else it is dropped, except for what whole
// packs already hold.
func (in *Ingest) Close(ctx context.Context, cause error) error {
	var err error
	if cause == nil {
		err = in.flush(ctx, true)
	} else {
		in.fail(cause)
	}
	in.mu.Lock()
	in.closing = true
	in.timer.Stop()
	in.changed.Broadcast()
	in.mu.Unlock()
	in.sealing.Wait()
	in.cancel()
	in.mu.Lock()
	open, points := slices.Concat(in.data.take(), in.nodes.take()), in.points
	in.points = nil
	in.mu.Unlock()
	abort(open)
	for _, p := range points {
		p.done(errors.Join(cause, err))
	}
	if in.measure != nil {
		in.measure.known.Close()
	}
	return err
}

// ChunkerTable returns the 256 numbers by which streams that shift are cut. They depend on the id key, so that where
// a stream is cut tells nothing to someone without it.
func (in *Ingest) ChunkerTable() [256]uint64 {
	var table [256]uint64
	for i := range table {
		sum := in.repo.hasher.Sum(format.ContextChunker, []byte{byte(i)})
		table[i] = binary.LittleEndian.Uint64(sum[:])
	}
	return table
}

// Domain that the ingest stores in, and whether it is a sealed one. That of a sealed one is known when its first task has begun.
func (in *Ingest) Domain() (domain format.Name, sealed bool) { return in.domain, in.sealed }

// Repository that the ingest stores in.
func (in *Ingest) Repository() *Repository { return in.repo }
