package job

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"ferry/internal/plan"
	"ferry/internal/repo"
	"ferry/internal/storage"
)

// Room for copies.
//
//  1. Before the first copies of a session, what they are expected to take is compared with what the target has left. If that
//     is less, retention and reclaim run first, as they would afterwards.
//  2. The copies begin all the same: what they really take shows only then, and what fits is worth having.
//  3. A target that turns out full gives up what it can at once, the reserve with it, and the copies go on, once in a session.
//  4. If it is full then, the session waits, and says how much was expected and how much is left.

// unknownShare is what a first copy is expected to take of the size of its disks: they are mostly not full, and shrink.
const unknownShare = 2

// expected is what copies are thought to take in the target, in bytes: each as much as the last one of its machine did.
func (r *runner) expected(todo []plan.IntervalStep) int64 {
	var sum int64
	for _, step := range todo {
		took, known := r.memory.Took[step.Point.Machine.Key.String()]
		if !known || r.isWhole(step) {
			took = step.Point.Size / unknownShare
		}
		sum += took
	}
	return sum
}

// checkRoom makes room before the first copies of a session if they are not expected to fit. It is true if it did: what there
// is has changed.
func (r *runner) checkRoom(ctx context.Context, todo []plan.IntervalStep) (bool, error) {
	if r.roomChecked {
		return false, nil
	}
	r.roomChecked = true
	free, known, err := r.target.Free(ctx)
	if err != nil {
		r.warnOnce("how much space the target has left is not known: " + err.Error())
	}
	expected := r.expected(todo)
	if !known || expected <= free {
		return false, nil
	}
	r.warnOnce(fmt.Sprintf("the copies may take %s, and the target has %s left: retention and reclaim run first", shown(expected), shown(free)))
	var full error
	err = r.beside(ctx, PhaseTransform, func(ctx context.Context) error {
		err := r.during(PhaseTransform, func(phase *Phase) error {
			phase.Reason = "the copies may not fit"
			_, err := r.retention(ctx, phase)
			if err == nil {
				err = r.reclaim(ctx, phase, true, repo.DefaultReclaimPolicy())
				r.tellLocked(phase)
			}
			return err
		})
		if errors.Is(err, storage.ErrFull) { // there is more that can be done about it
			full, err = err, nil
		}
		return err
	})
	return true, errors.Join(err, full)
}

// makeRoom frees what can be freed in a target that is full: what retention removes, and what was given up before, at once.
func (r *runner) makeRoom(ctx context.Context) error {
	r.madeRoom = true
	r.warnOnce("the target is full: retention and reclaim run before the copies go on")
	return r.during(PhaseTransform, func(phase *Phase) error {
		phase.Reason = "the target is full"
		_, err := r.target.ReleaseReserve(ctx)
		if err == nil {
			_, err = r.retention(ctx, phase)
		}
		atOnce := repo.DefaultReclaimPolicy()
		atOnce.Grace = 0
		for range 2 { // what one run gives up the next one deletes
			if err == nil {
				err = r.reclaim(ctx, phase, true, atOnce)
			}
		}
		r.tellLocked(phase)
		return err
	})
}

// withRoom adds to the error of a target that is full how much is left, what of that is for the reserve, and what is still to be
// copied.
func (r *runner) withRoom(ctx context.Context, err error, todo []plan.IntervalStep) error {
	if !errors.Is(err, storage.ErrFull) {
		return err
	}
	free, known, freeErr := r.target.Free(ctx)
	if freeErr != nil || !known {
		return err
	}
	kept, whole, reserveErr := r.target.Reserved(ctx)
	if reserveErr != nil {
		return err
	}
	return fmt.Errorf("%w: %s", err, roomText(free, kept, whole, r.expected(todo)))
}

// roomText says why copies did not fit that were expected to take so much, where so much is free beside the kept part of the
// reserve, all in bytes. The expectation may be too low: then that it was is what there is to say.
func roomText(free, kept, whole, expected int64) string {
	text := shown(free) + " left"
	owed := min(free, max(0, whole-kept))
	if owed > 0 {
		text += ", " + shown(owed) + " of that for the rest of the reserve"
	}
	if kept > 0 {
		text += ", beside " + shown(kept) + " kept in reserve"
	}
	if expected > free-owed {
		return text + ", and the copies are expected to take " + shown(expected)
	}
	return text + ", and the copies did not fit, though they were expected to take only " + shown(expected)
}

func shown(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }
