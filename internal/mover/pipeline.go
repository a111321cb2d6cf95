package mover

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/spill"
)

const (
	// runBytes is how much is read at once.
	runBytes = 1 << 20
	// queued runs between the readers and the workers, for each worker, of all that is copied at once.
	queuedPerWorker = 2
)

// run is a piece of an object on its way from a reader to a worker.
type run struct {
	object *object
	// number of the first block; blocks follow each other without gaps.
	number int64
	// patch, if set, has the blocks' numbers instead. It is given back as data is.
	patch *patch
	// data is of pooled memory, given back when the worker is done.
	data *[]byte
	// turn is set if runs are stored in order.
	turn *turn
}

// turn is a run's place in the order: it is stored when before is closed, and closes after.
type turn struct{ before, after chan struct{} }

// blocks of the run with their numbers.
func (r *run) blocks() iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		data, number, step := *r.data, r.number, r.object.blockSize
		if r.object.Shifting {
			step = int64(len(data))
		}
		for i := 0; len(data) > 0; i++ {
			if r.patch != nil {
				number = r.patch.numbers[i]
			}
			block := data[:min(step, int64(len(data)))]
			if !yield(number, block) {
				return
			}
			data = data[len(block):]
			number++
		}
	}
}

// ordered is true if blocks must be stored in the objects' order: a sealed copy is to lie as it will be read. Then one
// goroutine reads, and runs are encoded in parallel and stored in turn.
func (t *task) ordered() bool {
	_, sealed := t.mover.ingest.Domain()
	return sealed
}

// aheadInTurn is how many workers there are beyond one for each processor where runs are stored in order: so many may wait for
// their turn without a processor going idle.
const aheadInTurn = 4

// workers of a task.
func (t *task) workers() int {
	if t.ordered() {
		return t.mover.workers + aheadInTurn
	}
	return t.mover.workers
}

// pipeline moves runs from readers to workers.
type pipeline struct {
	task    *task
	runs    chan run
	balance balance
	// waiting counts workers that wait for a run.
	waiting atomic.Int32
	// streaming is true while one goroutine reads, which may need a processor of its own to do it.
	streaming atomic.Bool
	// last is the turn of the run that was sent last, if runs are stored in order.
	last chan struct{}
}

// move reads all objects that are not inline and stores them.
func (t *task) move(ctx context.Context) error {
	p := &pipeline{task: t, runs: make(chan run, max(queuedPerWorker*t.mover.workers/t.mover.options.AtOnce, 1))}
	workers, ctx := errgroup.WithContext(ctx)
	if t.ordered() {
		p.last = make(chan struct{})
		close(p.last)
	}
	for range t.workers() {
		workers.Go(func() error { return p.work(ctx) })
	}
	workers.Go(func() error {
		defer close(p.runs)
		return p.read(ctx)
	})
	return workers.Wait()
}

// read feeds the pipeline with everything the point has.
func (p *pipeline) read(ctx context.Context) error {
	onePass := false
	transfer, stored := p.task.transfer()
	for i, o := range p.task.objects {
		switch o.Access {
		case source.AccessOnePass:
			onePass = true
		case source.AccessRandom:
			var err error
			if transfer != nil && p.task.takes(stored.Roots[i]) {
				err = p.task.takeOver(ctx, transfer, o, *stored.Roots[i])
			} else {
				err = p.readRandom(ctx, o)
			}
			if err != nil {
				return err
			}
		case source.AccessInline:
			p.task.progress.Done.Add(o.Size)
		}
	}
	if !onePass {
		return nil
	}
	p.streaming.Store(true)
	assembler := newAssembler(ctx, p)
	err := p.task.content.Stream(ctx, assembler)
	if err == nil {
		err = assembler.whole()
	}
	return errors.Join(err, assembler.close())
}

func (p *pipeline) buffer() *[]byte {
	buffer := p.task.mover.buffers.Get().(*[]byte)
	*buffer = (*buffer)[:0]
	return buffer
}

func (p *pipeline) patch() *patch {
	if t, ok := p.task.mover.patches.Get().(*patch); ok {
		t.numbers, t.parts = t.numbers[:0], t.parts[:0]
		return t
	}
	return &patch{}
}

// send hands a run to the workers. It waits while they are behind. Where runs are stored in order one goroutine sends.
func (p *pipeline) send(ctx context.Context, r run) error {
	if p.last != nil {
		r.turn = &turn{before: p.last, after: make(chan struct{})}
		p.last = r.turn.after
	}
	select {
	case p.runs <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work stores runs until there are no more.
func (p *pipeline) work(ctx context.Context) error {
	var encoded []encodedBlock
	for {
		r, idle, err := p.next(ctx)
		if err != nil || r.data == nil {
			return err
		}
		free, err := p.task.mover.takeProcessor(ctx)
		if err != nil {
			return err
		}
		codec := p.codec(idle && free)
		if r.turn == nil {
			err = p.store(ctx, r, codec)
		} else {
			encoded = p.encode(r, codec, encoded[:0])
		}
		p.task.mover.leaveProcessor()
		if err == nil && r.turn != nil {
			err = p.storeInTurn(ctx, r, encoded)
		}
		if err != nil {
			return err
		}
		p.task.mover.buffers.Put(r.data)
		if r.patch != nil {
			p.task.mover.patches.Put(r.patch)
		}
	}
}

// takeProcessor waits for a processor, and says whether one was free.
func (m *Mover) takeProcessor(ctx context.Context) (free bool, err error) {
	select {
	case m.processors <- struct{}{}:
		return true, nil
	default:
	}
	select {
	case m.processors <- struct{}{}:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (m *Mover) leaveProcessor() { <-m.processors }

// next takes a run, and says whether processors idled before it came. At the end there is a run without data.
func (p *pipeline) next(ctx context.Context) (r run, idle bool, err error) {
	select {
	case r = <-p.runs:
		return r, false, ctx.Err()
	default:
	}
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case r = <-p.runs:
		// A stream is read by decompressing it: only if no other worker was busy was there a processor left over.
		idle = !p.streaming.Load() || int(p.waiting.Load()) == p.task.workers()
		return r, idle, nil
	case <-ctx.Done():
		return r, false, ctx.Err()
	}
}

// codec for a run.
func (p *pipeline) codec(idle bool) repo.Codec {
	if p.task.codec != nil {
		return *p.task.codec
	}
	if p.balance.vote(idle || p.task.mover.ingest.Behind()) {
		return repo.CodecZstd
	}
	return repo.CodecS2
}

// store stores the blocks of a run: zeros as nothing, what is known not again.
func (p *pipeline) store(ctx context.Context, r run, codec repo.Codec) error {
	for number, block := range r.blocks() {
		var id repo.ID
		if !spill.AllZero(block) {
			id = p.task.mover.ingest.BlockID(block)
			took, err := p.task.mover.ingest.StoreBlock(ctx, id, block, codec)
			if err != nil {
				return err
			}
			p.task.count(int64(len(block)), took)
		}
		if err := p.task.noted(r.object, number, id, int64(len(block))); err != nil {
			return err
		}
	}
	return nil
}

// encodedBlock waits for the turn of its run.
type encodedBlock struct {
	number, length int64
	repo.Encoded
}

// encode encodes the blocks of a run, and appends them to encoded.
func (p *pipeline) encode(r run, codec repo.Codec, encoded []encodedBlock) []encodedBlock {
	for number, block := range r.blocks() {
		b := encodedBlock{number: number, length: int64(len(block))}
		if !spill.AllZero(block) {
			b.Encoded = p.task.mover.ingest.Encode(block, codec)
		}
		encoded = append(encoded, b)
	}
	return encoded
}

// storeInTurn stores the encoded blocks of a run when it is the run's turn.
func (p *pipeline) storeInTurn(ctx context.Context, r run, encoded []encodedBlock) error {
	select {
	case <-r.turn.before:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, b := range encoded {
		if !b.ID.IsZero() {
			took, err := p.task.mover.ingest.StoreEncoded(ctx, b.Encoded)
			if err != nil {
				return err
			}
			p.task.count(b.length, took)
		}
		if err := p.task.noted(r.object, b.number, b.ID, b.length); err != nil {
			return err
		}
	}
	close(r.turn.after)
	return nil
}
