package repo

import (
	"context"
	"errors"

	"ferry/internal/repo/format"
	"ferry/internal/repo/pack"
)

type openPack struct {
	out  *packOut
	pack *pack.Writer
	id   format.Name
	kind pack.Kind
	// entries of the frames so far.
	entries []pack.Entry
}

// openPacks are the packs of a kind that are being filled.
type openPacks struct {
	packs []*openPack
	// opening is how many the storage is asked for; most is how many there are at once at most.
	opening, most int
}

// fullest is the pack that will be full first, of those with which the storage is not behind; nil if there is none. So the storage
// gets as many at once as it needs to keep up, and no more are begun.
func (o *openPacks) fullest() (fullest *openPack) {
	for _, open := range o.packs {
		if (fullest == nil || open.pack.Size() > fullest.pack.Size()) && !open.out.behind() {
			fullest = open
		}
	}
	return fullest
}

// behind is true if the next frame has to wait for the storage.
func (o *openPacks) behind() bool {
	return len(o.packs)+o.opening >= o.most && o.fullest() == nil
}

// take hands the packs over.
func (o *openPacks) take() []*openPack {
	packs := o.packs
	o.packs = nil
	return packs
}

// seal is one batch on its way to durability: packs, and what may be said once they are durable.
type seal struct {
	packs    []*openPack
	partials []partialBatch
	points   []readyPoint
	// last makes an index segment of what none covers, however little.
	last bool
	done chan error
}

// runSealer publishes seals in order until the ingest is closed.
func (in *Ingest) runSealer() {
	for {
		in.mu.Lock()
		for len(in.queue) == 0 && !in.closing && !in.due {
			in.changed.Wait()
		}
		if len(in.queue) == 0 && in.due && !in.closing {
			in.queue = append(in.queue, in.take(false))
		}
		if len(in.queue) == 0 {
			in.mu.Unlock()
			return
		}
		s := in.queue[0]
		in.mu.Unlock()
		err := in.Failed()
		if err == nil {
			err = in.publish(in.ctx, s)
		} else {
			abort(s.packs)
		}
		if err != nil && !errors.Is(err, ErrCondemned) {
			in.fail(err)
			err = in.Failed() // the first: where the ingest was abandoned meanwhile, why
		}
		for _, p := range s.points {
			p.done(err)
		}
		if s.done != nil {
			s.done <- err
		}
		in.mu.Lock()
		in.queue = in.queue[1:]
		in.changed.Broadcast()
		in.mu.Unlock()
	}
}

func abort(packs []*openPack) {
	for _, open := range packs {
		open.out.Abort()
	}
}

// take makes a seal of the open packs and of all that may be said once they are durable. A full node pack goes alone:
// nothing refers to its nodes yet. The caller holds the lock.
func (in *Ingest) take(nodesOnly bool) *seal {
	if nodesOnly {
		return &seal{packs: in.nodes.take()}
	}
	in.timer.Stop()
	in.waits, in.due = false, false
	s := &seal{points: in.points, packs: in.data.take()}
	if len(in.points) > 0 || in.mending {
		s.packs = append(s.packs, in.nodes.take()...)
	}
	for _, task := range in.tasks {
		s.partials = append(s.partials, task.take())
	}
	in.points, in.tasks = nil, nil
	return s
}

// maxQueue is how many seals may wait or be on their way before those who fill packs wait.
const maxQueue = 2

// send queues a seal and waits while too many are on their way, until ctx is cancelled: the seal goes its way then too. The
// caller holds the lock; it is let go while waiting.
func (in *Ingest) send(ctx context.Context, s *seal) {
	in.queue = append(in.queue, s)
	in.changed.Broadcast()
	for len(in.queue) > maxQueue && ctx.Err() == nil {
		_ = in.await(ctx, in.changed)
	}
}
