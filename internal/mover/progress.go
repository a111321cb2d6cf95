package mover

import (
	"sync/atomic"

	"ferry/internal/repo"
)

// Progress counts while a point is copied. All may be read at any time.
type Progress struct {
	// Total is the size of the point's objects in bytes as far as known; Done is how much of it is dealt with: read,
	// known to be zeros, or unchanged. Kept is how much is written down in the repository: an interruption does not lose it.
	Total, Done, Kept atomic.Int64
	// gained counts the blocks that this copy has stored and no earlier one had, again those that earlier ones had and that it reads again:
	// of objects that can only be read from their beginning.
	gained, again atomic.Int64
}

// Gained is true once the copy has stored something that no earlier one had.
func (p *Progress) Gained() bool { return p.gained.Load() > 0 }

// Ahead is true while nothing that earlier copies have stored is read again, and else once the copy has gained at least as much as that. One
// that is interrupted before, again and again, may come to the same place each time, and never to its end. One that is only interrupted
// when it is ahead reads no more again, in all, than the point has.
func (p *Progress) Ahead() bool { return p.gained.Load() >= p.again.Load() }

// noted notes that a block is stored, or was: what an interruption does not lose as soon as it is written down. Zeros of what is read from its
// beginning are no progress: an earlier copy may have noted them in whatever pieces.
func (t *task) noted(o *object, number int64, id repo.ID, length int64) error {
	if err := o.put(number, id, length); err != nil {
		return err
	}
	if !o.done.get(number) && (!id.IsZero() || o.resumable()) {
		t.progress.gained.Add(1)
	}
	t.record.Stored(o.index, number, length, id)
	return nil
}
