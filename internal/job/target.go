package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"ferry/internal/answer"
	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
)

// errNotReady ends a session whose target is not ready; the target's state says why.
var errNotReady = errors.New("the target is not ready")

// ErrNoKey is in the error of opening a place of which a key, or the keys of its bucket, were given and cannot be read.
var ErrNoKey = errors.New("a key cannot be read")

// ErrMapLocked: target.map names backups in a target that is encrypted, and no key given opens it.
var ErrMapLocked = errors.New("target.map cannot be followed: the backups that it names are encrypted")

// awaitTarget opens the target. One that is not ready is looked at again while it is waited for, but for another repository.
func (r *runner) awaitTarget(ctx context.Context) error {
	for {
		err := r.openTarget(ctx)
		left := r.left()
		if err == nil || ctx.Err() != nil || r.session.Target.State == StateOther || left <= 0 {
			return err
		}
		r.close()
		if err := r.pauseFor(ctx, min(lookAgain, left), r.targetWait()); err != nil {
			return err
		}
	}
}

// openTarget opens the target and makes sure that it is the one that the job is for. Nothing is made there.
func (r *runner) openTarget(ctx context.Context) error {
	state := &r.session.Target
	state.ID, state.State, state.Reason = "", "", ""
	target, err := answer.Open(ctx, r.Target.Location, func() (*repo.Repository, error) { return r.Target.Open(ctx) }, func(late *repo.Repository) { late.Close() })
	if err == nil {
		r.target = target
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		want := cmp.Or(r.Target.ID, r.met) // one that comes back is the one that went
		state.ID, state.State = target.ID(), StateReady
		if want != "" && want != target.ID() {
			state.State, state.Reason = StateOther, fmt.Sprintf(
				"the repository at %s is %s, and the job is for %s; if that one is meant, say its id in the YAML of repository %s, or run ferry catalog rebuild %[4]s",
				r.Target.Location, target.ID(), want, state.Name)
			return errNotReady
		}
		err = errors.Join(target.NeedsKey(), target.Writable())
	}
	if err == nil && !r.recalled { // what this session has noted since is not in the target yet
		if err = r.recall(ctx); err == nil {
			r.recalled = true
			r.countEarlier()
		}
	}
	if err == nil {
		r.met = target.ID()
		r.waits(Wait{})
		r.session.Nominal = r.interval().Begins.UTC()
		return nil
	}
	if state.State = stateOf(err); state.State == StateNeedsKey && len(r.Job.Target.Map) > 0 {
		err = fmt.Errorf("%w: %w", ErrMapLocked, err)
	}
	state.Reason = backup.SafeText(err.Error())
	switch hint := backup.Hint(err); {
	case !errors.Is(err, repo.ErrNoRepository):
		if hint != "" {
			state.Reason += "; " + backup.SafeText(hint)
		}
	case r.Target.ID == "" && r.met == "": // where one was, it is the disk that is to be looked for
		state.Reason += "; if none was ever made there, ferry repo init makes one"
	}
	return fmt.Errorf("%w: %w", errNotReady, err)
}

// stateOf is the state of a target that gives an error.
func stateOf(err error) PlaceState {
	for _, of := range []struct {
		err   error
		state PlaceState
	}{
		{ErrNoKey, StateNeedsKey}, // before what its file lacks
		{repo.ErrNoRepository, StateOffline},
		{repo.ErrNeedsKey, StateNeedsKey},
		{repo.ErrWrongKey, StateNeedsKey},
		{repo.ErrNoKeyFiles, StateNeedsKey},
		{repo.ErrDiverged, StateOther},
		{repo.ErrReadOnly, StateReadOnly},
		{repo.ErrCannotLock, StateReadOnly},
		{syscall.EROFS, StateReadOnly},
		{fs.ErrPermission, StateReadOnly},
		{storage.ErrFull, StateFull},
		{fs.ErrNotExist, StateOffline},
	} {
		if errors.Is(err, of.err) {
			return of.state
		}
	}
	return StateUnreadable
}

// targetReason says that the target is not ready, and why.
func (r *runner) targetReason() string {
	return fmt.Sprintf("target %s: %s", r.session.Target.State, r.session.Target.Reason)
}
