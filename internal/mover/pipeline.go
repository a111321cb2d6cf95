package mover

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"ferry/internal/repo"
	"ferry/internal/source"
	"ferry/internal/spill"
)

const (
	// runBytes is how much is read at once.
	runBytes = 1 << 20
	// queued runs between the readers and the workers, for each worker.
	queuedPerWorker = 2
)

// run is a piece of an object on its way from a reader to a worker.
type run struct {
	object *object
	// number of the first block; blocks follow each other without gaps.
	number int64
	// data is of pooled memory, given back when the worker is done.
	data *[]byte
}

// pipeline moves runs from readers to workers.
type pipeline struct {
	task *task
	runs chan run
	pool sync.Pool
}

// move reads all objects that are not inline and stores them.
func (t *task) move(ctx context.Context) error {
	p := &pipeline{task: t, runs: make(chan run, queuedPerWorker*t.mover.workers)}
	size := int(max(runBytes, t.mover.ingest.Repository().BlockSize(), maxChunk))
	p.pool.New = func() any { buffer := make([]byte, 0, size); return &buffer }

	workers, ctx := errgroup.WithContext(ctx)
	for range t.mover.workers {
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
	for _, o := range p.task.objects {
		switch o.Access {
		case source.AccessOnePass:
			onePass = true
		case source.AccessRandom:
			if err := p.readRandom(ctx, o); err != nil {
				return err
			}
		case source.AccessInline:
			p.task.progress.Done.Add(o.Size)
		}
	}
	if !onePass {
		return nil
	}
	assembler := newAssembler(ctx, p)
	err := p.task.content.Stream(ctx, assembler)
	if err == nil {
		err = assembler.whole()
	}
	return errors.Join(err, assembler.close())
}

func (p *pipeline) buffer() *[]byte {
	buffer := p.pool.Get().(*[]byte)
	*buffer = (*buffer)[:0]
	return buffer
}

// send hands a run to the workers. It waits while they are behind.
func (p *pipeline) send(ctx context.Context, r run) error {
	select {
	case p.runs <- r:
		return p.task.checkpoint(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work stores runs until there are no more.
func (p *pipeline) work(ctx context.Context) error {
	for {
		select {
		case r, ok := <-p.runs:
			if !ok {
				return nil
			}
			if err := p.store(ctx, r); err != nil {
				return err
			}
			p.pool.Put(r.data)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// store stores the blocks of a run: zeros as nothing, what is known not again.
func (p *pipeline) store(ctx context.Context, r run) error {
	data, number, step := *r.data, r.number, r.object.blockSize
	if r.object.Shifting {
		step = int64(len(data))
	}
	for len(data) > 0 {
		block := data[:min(step, int64(len(data)))]
		data = data[len(block):]
		var id repo.ID
		if !spill.AllZero(block) {
			id = p.task.mover.ingest.BlockID(block)
			if _, err := p.task.mover.ingest.StoreBlock(ctx, id, block, p.task.codec); err != nil {
				return err
			}
		}
		if err := r.object.put(number, id, int64(len(block))); err != nil {
			return err
		}
		p.task.record.Stored(r.object.index, number, id)
		number++
	}
	return nil
}
