package mover

import "sync/atomic"

// balance says what the processors have time for, by who waits for whom. Each run that a worker takes votes: if it had
// to wait for the run, or if the repository's storage is behind, then processors idle, and the denser codec costs
// nothing. While runs wait for workers the processors are the bottleneck, and the fast codec it is.
//
//	source slow:  workers wait for runs        -> dense
//	storage slow: full chunks wait for storage -> dense, and less is written
//	neither:      runs wait for workers        -> fast
//
// Choosing dense makes the workers slower, until runs wait for them again: so the processors stay just busy.
type balance struct {
	score atomic.Int32
}

const (
	// balanceFull is how far votes are remembered, balanceDense from where on there is time: a short wait, as at the
	// beginning, is not enough.
	balanceFull  = 32
	balanceDense = 16
)

// vote takes a run's vote and returns whether there is time for the denser codec.
func (b *balance) vote(idle bool) bool {
	for {
		old := b.score.Load()
		next := max(old-1, 0)
		if idle {
			next = min(old+1, balanceFull)
		}
		if b.score.CompareAndSwap(old, next) {
			return next >= balanceDense
		}
	}
}
