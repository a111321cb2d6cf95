package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
)

var errNothing = errors.New("nothing to commit")

const (
	// holdFor is how long a hold counts after its holder was last heard of.
	holdFor = time.Hour
	// holdRenewed is how often a holder says that it is there.
	holdRenewed = holdFor / 3
)

// Hold keeps a point from being removed while something reads it. It ends when it is released, or an hour after it was
// last renewed: a process that dies holds nothing for long.
type Hold struct {
	repo *Repository
	hold commitlog.Hold
}

// Hold begins to hold a point. If the repository does not have it, the error says so.
func (r *Repository) Hold(ctx context.Context, point backup.PointID, reason string) (*Hold, error) {
	h := &Hold{repo: r, hold: commitlog.Hold{Point: point, ID: format.RandomName().String(), Reason: reason}}
	if err := r.Refresh(ctx); err != nil { // another process may just have added the point
		return h, err
	}
	return h, h.Renew(ctx)
}

// Renew makes the hold count for another hour by the storage's clock.
func (h *Hold) Renew(ctx context.Context) error {
	if err := h.repo.Writable(); err != nil {
		return err // asking for the time writes, too
	}
	now, err := h.repo.storageTime(ctx)
	if err != nil {
		return err
	}
	until := now.Add(holdFor).UTC()
	h.hold.Until = &until
	return h.repo.commit(ctx, &commitlog.Payload{Holds: []commitlog.Hold{h.hold}}, func(state *commitlog.State) error {
		if !state.Points.Has(h.hold.Point) {
			return &backup.Error{
				Offset: backup.NoOffset, Err: fmt.Errorf("point %s is not in %s any more", h.hold.Point.Short(), h.repo.store.Location()),
				Hint: "it was given up just now; ferry points tells what there is",
			}
		}
		return nil
	})
}

// Release ends the hold. Ending one that has ended is not an error.
func (h *Hold) Release(ctx context.Context) error {
	return h.repo.commit(ctx, &commitlog.Payload{HoldsReleased: []commitlog.Hold{{Point: h.hold.Point, ID: h.hold.ID}}}, nil)
}

// KeepHeld holds a point and renews the hold until release is called, which waits for nothing but the storage. Where the
// repository cannot be written to, as on read-only media, nothing is held: who removes points there meanwhile is not kept
// from it. An error is that the point is not there, or ctx's.
func (r *Repository) KeepHeld(ctx context.Context, point backup.PointID, reason string) (release func(), err error) {
	hold, err := r.Hold(ctx, point, reason)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && !r.Has(point):
		return nil, err
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, ErrReadOnly), errors.Is(err, ErrCannotLock), errors.Is(err, ErrDiverged):
		return func() {}, nil
	case err != nil:
		r.warn("the point is not held while it is read: %v", err)
		return func() {}, nil
	}
	ctx = context.WithoutCancel(ctx) // a reader that is being stopped may need some time
	renewing, stop := context.WithCancel(ctx)
	var renewer sync.WaitGroup
	renewer.Go(func() { hold.renewUntil(renewing) })
	return func() {
		stop()
		renewer.Wait()
		if err := hold.Release(ctx); err != nil {
			r.warn("the hold on the point could not be released, it ends by itself within the hour: %v", err)
		}
	}, nil
}

// renewUntil renews the hold every so often until ctx ends.
func (h *Hold) renewUntil(ctx context.Context) {
	ticker := time.NewTicker(holdRenewed)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := h.Renew(ctx); err != nil && ctx.Err() == nil {
				h.repo.warn("the hold on the point could not be renewed: %v", err)
			}
		}
	}
}

// clockMark is a file that is written to learn the storage's time.
const clockMark = "marks/clock"

// storageTime asks the storage for the time by its own clock, by which the times of all its files are.
func (r *Repository) storageTime(ctx context.Context) (time.Time, error) {
	if err := r.store.Overwrite(ctx, clockMark, []byte(r.env.now().UTC().Format(time.RFC3339Nano)+"\n")); err != nil {
		return time.Time{}, err
	}
	info, err := r.store.Stat(ctx, clockMark)
	return info.Modified, err
}
