package mover

import (
	"context"
	"errors"
	"iter"
	"sync"
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
	turn turn
}

// turn is a run's place in the order: it is stored when before is closed, and closes after. Numbers begin with 1.
type turn struct {
	number        int64
	before, after chan struct{}
}

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

// sealed is true if all of a copy is to lie as it will be read. Then one goroutine reads.
func (t *task) sealed() bool {
	_, sealed := t.mover.ingest.Domain()
	return sealed
}

// aheadInTurn is how many workers there are for each processor beyond one, of all that is copied at once: so many may wait for their turn without a
// processor going idle. Where one block in eight takes four times as long as the others, two keep 16 processors busy for 92 % of the
// time, one for two thirds.
const aheadInTurn = 2

// fewWorkers hardly overtake each other by themselves, where they store what one machine brings.
const fewWorkers = 4

// inTurn is true if runs are stored in the order in which they were sent. Few workers need no turns; where most is known, waiting for them
// costs a tenth of the time.
func (t *task) inTurn() bool {
	return t.mover.workers > fewWorkers || t.mover.options.AtOnce > 1 || t.sealed()
}

// workers of a task.
func (t *task) workers() int {
	if !t.inTurn() {
		return t.mover.workers
	}
	return t.mover.workers + max(aheadInTurn*t.mover.workers/t.mover.options.AtOnce, 1)
}

// pipeline moves runs from readers to workers, which encode them in parallel and store each one's blocks one behind the other, in turn where
// several would overtake each other: what is copied lies as it will be read, however many processors encode it.
type pipeline struct {
	task    *task
	runs    chan run
	balance balance
	// waiting counts workers that wait for a run.
	waiting atomic.Int32
	// streaming is true while one goroutine reads, which may need a processor of its own to do it.
	streaming atomic.Bool
	// sending is held by who sends a run. last is closed when it is that run's turn.
	sending sync.Mutex
	last    chan struct{}
	// sent counts the runs that were sent.
	sent atomic.Int64
	// gathered are blocks of an object that are stored together with those of the next run. Who has the turn has them.
	gathered repo.Encoded
	of       *object
}

// move reads all objects that are not inline and stores them. What was read when the source broke off is stored all the same.
func (t *task) move(ctx context.Context) error {
	p := &pipeline{task: t, runs: make(chan run, max(queuedPerWorker*t.mover.workers/t.mover.options.AtOnce, 1)), last: make(chan struct{})}
	close(p.last)
	workers, ctx := errgroup.WithContext(ctx)
	for range t.workers() {
		workers.Go(func() error { return p.work(ctx) })
	}
	var readErr error
	workers.Go(func() error {
		defer close(p.runs)
		readErr = p.read(ctx)
		return nil
	})
	if err := workers.Wait(); err != nil {
		return err
	}
	return readErr
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

// send hands a run to the workers. It waits while they are behind. Runs reach them in the order of their turns: a worker waits for the runs
// before its own.
func (p *pipeline) send(ctx context.Context, r run) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	r.turn = turn{number: p.sent.Load() + 1, before: p.last, after: make(chan struct{})}
	select {
	case p.runs <- r:
		p.last = r.turn.after
		p.sent.Add(1)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work stores runs until there are no more.
func (p *pipeline) work(ctx context.Context) error {
	for {
		r, idle, err := p.next(ctx)
		if err != nil || r.data == nil {
			return err
		}
		free, err := p.task.mover.takeProcessor(ctx)
		if err != nil {
			return err
		}
		encoded := p.task.mover.encoded.Get().(*repo.Encoded)
		err = p.encode(ctx, r, p.codec(idle && free), encoded)
		p.task.mover.leaveProcessor()
		if err == nil {
			err = p.store(ctx, r, encoded)
		}
		if err != nil {
			return err
		}
		p.task.mover.encoded.Put(encoded)
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

// encode encodes the blocks of a run that are not known.
func (p *pipeline) encode(ctx context.Context, r run, codec repo.Codec, encoded *repo.Encoded) error {
	encoded.Reset()
	for number, block := range r.blocks() {
		if spill.AllZero(block) {
			encoded.AddZeros(number, int64(len(block)))
		} else if err := p.task.mover.ingest.Encode(ctx, encoded, number, block, codec); err != nil {
			return err
		}
	}
	return nil
}

// store stores the encoded blocks of a run, when it is the run's turn if there are turns.
func (p *pipeline) store(ctx context.Context, r run, encoded *repo.Encoded) error {
	if !p.task.inTurn() {
		return p.task.storeEncoded(ctx, r.object, encoded)
	}
	select {
	case <-r.turn.before:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.storeInTurn(ctx, r, encoded); err != nil {
		return err
	}
	close(r.turn.after)
	return nil
}

// gatherBlocks is how many blocks are kept at most to be stored at once, known ones and zeros with them, of which nothing is stored: a
// restore reads no more of them together than a leaf has.
const gatherBlocks = 256

// storeInTurn stores the encoded blocks of a run. Where others may store something between it and the next, it is kept until there is
// more to be stored at once, but for no longer than another run is on its way.
func (p *pipeline) storeInTurn(ctx context.Context, r run, encoded *repo.Encoded) error {
	if p.task.mover.options.AtOnce == 1 {
		return p.task.storeEncoded(ctx, r.object, encoded)
	}
	if p.of != r.object {
		if err := p.task.storeEncoded(ctx, p.of, &p.gathered); err != nil {
			return err
		}
		p.of = r.object
	}
	p.gathered.Append(encoded)
	if p.gathered.Bytes() < p.task.mover.gather && p.gathered.Blocks() < gatherBlocks && r.turn.number < p.sent.Load() {
		return nil
	}
	return p.task.storeEncoded(ctx, r.object, &p.gathered)
}

// storeEncoded stores blocks of an object, zeros as nothing, what is known not again, and forgets them.
func (t *task) storeEncoded(ctx context.Context, o *object, encoded *repo.Encoded) error {
	defer encoded.Reset()
	return t.mover.ingest.StoreEncoded(ctx, encoded, func(b repo.EncodedBlock, took int) error {
		t.count(b.Length, took)
		return t.noted(o, b.Number, b.ID, b.Length)
	})
}
