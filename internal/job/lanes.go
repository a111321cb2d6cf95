package job

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Copies at once. The points of a machine make a lane, and are copied one after the other.
//
//  1. As long as there is a slot for one of them, the next lane begins, in the order of the plan. A lane whose source has no slot
//     keeps none of another source from beginning.
//  2. A lane keeps its slot from point to point, unless another job waits for one: then it gives it back, and takes its turn.
//  3. All go through one ingest: what machines share is stored once, and small ones share packs and commits. Only points that are
//     read whole have an ingest each.
//  4. When nothing is copied because all lanes wait for other jobs, what is copied is committed.
//
// A job asks for one slot at a time: however many machines it has, others come to their turn.

// mostAtOnce is how many machines a job copies at once at most, whatever the slots: each takes memory.
const mostAtOnce = 16

// gate is where the lanes of a copy get their slots.
type gate struct {
	slots *Slots
	// of is the job, limits are those of the repositories that the points lie in, by the number of their source.
	of     string
	limits func(source int) limits
	// waits is told why nothing is copied; the zero value: something is.
	waits func(Wait)
}

// lanes are copies at once while they run.
type lanes struct {
	*copier
	gate gate
	// cancel ends all lanes: the target cannot be written to.
	cancel context.CancelFunc
	// asking is taken by whoever asks for a slot, places by each lane.
	asking, places chan struct{}

	holding sync.Mutex // guards what follows, and what gate.waits does
	// held counts the slots that lanes have.
	held int
}

// slot of a lane.
type slot struct {
	source  int
	release func()
}

// runLanes copies the points of all lanes, by their places in the plan.
func (c *copier) runLanes(ctx context.Context, pending [][]int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &lanes{copier: c, gate: c.gate, cancel: cancel, asking: make(chan struct{}, 1), places: make(chan struct{}, mostAtOnce)}
	var going sync.WaitGroup
	defer going.Wait()
	pending = slices.Clone(pending)
	for len(pending) > 0 {
		select {
		case l.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		next, had, err := l.enter(ctx, pending)
		if err != nil {
			return
		}
		lane := pending[next]
		pending = slices.Delete(pending, next, next+1)
		going.Go(func() {
			l.run(ctx, lane, had)
			<-l.places
		})
	}
}

// run copies the points of a lane, which has a slot for the first.
func (l *lanes) run(ctx context.Context, lane []int, had slot) {
	for at, i := range lane {
		if l.works[i].source != had.source || at > 0 && l.gate.slots.wanted(l.gate.of) {
			l.leave(ctx, had)
			var err error
			if _, had, err = l.enter(ctx, [][]int{lane[at:]}); err != nil {
				return
			}
		}
		if err := l.copyOne(ctx, i, false); err != nil {
			l.fail(err)
			l.cancel()
		}
		if ctx.Err() != nil {
			break
		}
	}
	l.leave(ctx, had)
}

// enter takes a slot for the first of some lanes that there is one for.
func (l *lanes) enter(ctx context.Context, pending [][]int) (next int, had slot, err error) {
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-ctx.Done():
		return 0, slot{}, ctx.Err()
	}
	var firsts []int // of each source, the first lane
	var choices []limits
	for i, lane := range pending {
		source := l.works[lane[0]].source
		if !slices.ContainsFunc(firsts, func(first int) bool { return l.works[pending[first][0]].source == source }) {
			firsts, choices = append(firsts, i), append(choices, l.gate.limits(source))
		}
	}
	chosen, release, err := l.gate.slots.take(ctx, l.gate.of, choices, func() {
		l.holding.Lock()
		defer l.holding.Unlock()
		l.idle(ctx)
	})
	if err != nil {
		return 0, slot{}, err
	}
	l.holding.Lock()
	defer l.holding.Unlock()
	l.held++
	l.gate.waits(Wait{})
	next = firsts[chosen]
	return next, slot{l.works[pending[next][0]].source, release}, nil
}

// leave gives a slot back.
func (l *lanes) leave(ctx context.Context, had slot) {
	had.release()
	l.holding.Lock()
	defer l.holding.Unlock()
	l.held--
	l.idle(ctx)
}

// idle commits what is copied, and says what is waited for, if nothing is copied: who asks for a slot waits for other jobs.
func (l *lanes) idle(ctx context.Context) {
	reason := l.gate.slots.waits(l.gate.of)
	if l.held > 0 || reason == "" || ctx.Err() != nil {
		return
	}
	l.commit(ctx)
	l.gate.waits(waitFor(WaitSlot, reason))
}

// commit commits what was copied. What becomes of it the points are told, and the ingest knows if it can no longer be used.
func (c *copier) commit(ctx context.Context) {
	c.mu.Lock()
	shared := c.shared
	c.mu.Unlock()
	if shared != nil {
		_ = shared.ingest.Flush(ctx)
	}
}

// fail notes the first error that ends the copy as a whole.
func (c *copier) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil && !errors.Is(err, context.Canceled) {
		c.failed = err
	}
}
