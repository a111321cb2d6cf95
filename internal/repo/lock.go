package repo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/repo/pack"
	"ferry/internal/repo/parity"
	"ferry/internal/storage"
)

// Locking (docs/format.md section 15). Every file is locked as it is created. What a new point shares with older ones was
// locked earlier, and not for as long: all of it is extended before the point is committed, to the end of the generation,
// so that this happens once in a third of the period and not with every copy.
//
//	repository.json, packs, points  locked until D1       a copy in the next generation needs D2:
//	extend everything to D2  ->  commit {points, locked: D2}  ->  copies until the generation ends: nothing to extend

// Lock says how and for how long files are locked.
type Lock = format.Lock

// locks is what an open repository keeps of its locks.
type locks struct {
	locker storage.Locker
	how    storage.Immutability

	mu sync.Mutex
	// floor is until when new files are locked at least: what the log says.
	floor time.Time
	// own are files that this process created, and until when they are locked. Those of entries that were committed go.
	own map[string]time.Time
	// extended are the files that the last extension reached, until extendedTo, and entries of the log up to extendedHead.
	extended     map[string]bool
	extendedTo   time.Time
	extendedHead uint64
	// missing are the files that the last extension did not find.
	missing []string
}

// newLocks makes the store lock new files, if the description says so; nil if it does not. Of a store that cannot the error
// wraps storage.ErrUnsuitable: the repository can be read.
func newLocks(store storage.Store, description format.Description, now func() time.Time) (*locks, error) {
	if description.Lock == nil {
		return nil, nil
	}
	locker, ok := storage.As[storage.Locker](store)
	if !ok {
		return nil, fmt.Errorf("%s: it locks no files: %w", store.Location(), storage.ErrUnsuitable)
	}
	l := &locks{locker: locker, how: storage.Immutability(description.Lock.Mode), own: map[string]time.Time{}}
	err := locker.LockNew(l.how, func(name string) time.Time {
		if !lockable(name) {
			return time.Time{}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		until := description.Lock.End(now())
		if until.Before(l.floor) {
			until = l.floor
		}
		if folder := path.Dir(name); folder != "log" && folder != "checkpoints" { // nobody names these later
			l.own[name] = until
		}
		return until
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ErrCannotLock: the repository was moved to where its files cannot be locked as it says that they are.
var ErrCannotLock = errors.New("the repository can only be read here, its files are to be locked")

// openLocks is newLocks for a repository that is there: whoever moved it where its files cannot be locked is told what leads there.
func openLocks(store storage.Store, description format.Description, now func() time.Time) (*locks, error) {
	l, err := newLocks(store, description, now)
	if err != nil {
		if hinted, ok := errors.AsType[*backup.Error](err); ok {
			err = hinted.Err // what helps who makes a repository there does not help this one
		}
		err = &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("%w: %w", ErrCannotLock, err),
			Hint: "a repository whose files can be locked here is made from it with ferry copy " + store.Location() + " NEW --all --create --lock MODE --lock-for TIME; or move it back (docs/operations.md)",
		}
	}
	return l, err
}

// prepareLocks makes sure that the store can lock as the options want, and makes it do so from now on.
func (o Options) prepareLocks(ctx context.Context, store storage.Store, env Environment, description *format.Description) (*locks, error) {
	if o.Lock == nil {
		return nil, nil
	}
	if err := o.Lock.Check(); err != nil {
		return nil, err
	}
	description.Locks(*o.Lock)
	l, err := newLocks(store, *description, env.now)
	if err != nil {
		return nil, err
	}
	return l, l.locker.CheckLock(ctx, l.how)
}

// lockable is true for files that are locked.
func lockable(name string) bool {
	folder, _, below := strings.Cut(name, "/")
	switch folder {
	case "keys", "packs", "parity", "points", "log", "checkpoints":
		return below
	}
	return name == format.DescriptionName
}

// LockInfo says how a repository's files are locked.
type LockInfo struct {
	// Lock is nil if they are not.
	Lock *Lock
	// Until is until when all that the log names and that is there is locked at least, by the log; zero if nothing is yet.
	Until time.Time
	// Lost counts the packs and points of which the log says that they are lost or damaged as a whole.
	Lost int
}

// LockInfo of the repository, from the log alone. CheckLocks asks the storage.
func (r *Repository) LockInfo() LockInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return LockInfo{Lock: r.description.Lock, Until: r.state.Locked, Lost: len(notedLost(r.state))}
}

// ExtendLocks locks everything for the repository's period from now on, and returns until when it is locked, and the files that
// should be and are missing. Files of which the log says that they are locked are locked again: somebody may have unlocked them.
func (r *Repository) ExtendLocks(ctx context.Context) (until time.Time, missing []string, err error) {
	if r.description.Lock == nil {
		return time.Time{}, nil, fmt.Errorf("%s: its files are not locked: that is chosen when a repository is made", r.store.Location())
	}
	if err := r.Writable(); err != nil {
		return time.Time{}, nil, err
	}
	if err := r.Refresh(ctx); err != nil {
		return time.Time{}, nil, err
	}
	r.checkRetention(ctx)
	needed, err := r.extendLocks(ctx, true)
	if err == nil && needed.After(r.LockInfo().Until) {
		err = r.commit(ctx, &commitlog.Payload{Locked: needed}, nil)
	}
	if err == nil {
		err = r.Refresh(ctx) // others may have given up what is missing
	}
	if err != nil {
		return time.Time{}, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	missing = r.stillMissing()
	slices.Sort(missing)
	return r.state.Locked, missing, nil
}

// extendLocks locks everything that the state names until the end that is needed now, unless the log says that it is, or also
// then. It returns that end for the payload of the entry that needs it; nil if nothing was to do.
func (r *Repository) extendLocks(ctx context.Context, also bool) (*time.Time, error) {
	if r.locks == nil {
		return nil, nil
	}
	until := r.description.Lock.End(r.env.now())
	r.mu.Lock()
	if !r.state.Locked.Before(until) {
		if !also {
			r.mu.Unlock()
			return nil, nil
		}
		until = r.state.Locked
	}
	head := r.state.Head.N
	names, err := r.lockedNames(ctx)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if r.description.Encrypted {
		keys, err := r.lockedKeys(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, keys...)
	}
	missing, err := r.lockAll(ctx, names, until)
	if err != nil {
		return nil, err
	}
	extended := make(map[string]bool, len(names))
	for _, name := range names {
		extended[name] = true
	}
	for _, name := range missing {
		delete(extended, name)
	}
	r.locks.mu.Lock()
	r.locks.extended, r.locks.extendedTo, r.locks.extendedHead, r.locks.missing = extended, until, head, missing
	r.locks.mu.Unlock()
	return &until, nil
}

// lockedNames are the files that must be locked for as long as the log says (docs/format.md section 15), but those below keys/:
// of the log the newest checkpoint, the entry that it is the state after and all that follow, or all entries without one. The
// caller holds r.mu.
func (r *Repository) lockedNames(ctx context.Context) ([]string, error) {
	checkpoint, err := r.findCheckpoints(ctx)
	if err != nil {
		return nil, err
	}
	names := append(lockedFiles(r.state, r.description.Parity != nil), format.DescriptionName)
	if checkpoint > 0 {
		names = append(names, commitlog.CheckpointName(checkpoint))
	}
	for n := max(checkpoint, 1); n <= r.state.Head.N; n++ {
		names = append(names, commitlog.EntryName(n))
	}
	return names, nil
}

// lockedKeys are the files below keys/ but what rotations have left over: that may go when its lock ends. Where the key files
// cannot be read, or without the key, it is not known what that is, and all are locked.
func (r *Repository) lockedKeys(ctx context.Context) ([]string, error) {
	var leftovers []keyring.Recipient
	if r.ring() != nil {
		if _, found, err := r.recipients(ctx); err == nil {
			leftovers = found
		}
	}
	var names []string
	for info, err := range r.store.List(ctx, keyring.Folder) {
		if err != nil {
			return nil, err
		}
		key := strings.TrimSuffix(info.Name, keyring.NoteSuffix)
		if !slices.ContainsFunc(leftovers, func(one keyring.Recipient) bool { return one.File.Path() == key }) {
			names = append(names, info.Name)
		}
	}
	return names, nil
}

// lockedFiles are the packs with their parity, and the points, that a state needs.
func lockedFiles(state *commitlog.State, protected bool) []string {
	var names []string
	for id := range state.Packs.All() {
		if state.Condemned[id] {
			continue
		}
		names = append(names, pack.ObjectName(id))
		if protected {
			names = append(names, parity.ObjectName(id))
		}
	}
	for point := range state.Points.All() {
		names = append(names, point.File())
	}
	return names
}

// lockAll locks files, several at once, and returns those that are not there, if they are of a kind of which one that is lost does not
// make the others worthless: packs, parity and points. What is lost is to keep nobody from copying, and from healing it. Of keys one
// that is not there any more was removed while they were listed.
func (r *Repository) lockAll(ctx context.Context, names []string, until time.Time) (missing []string, err error) {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * storage.ParallelReads(r.store))
	for _, name := range names {
		group.Go(func() error {
			err := r.locks.locker.Lock(ctx, name, r.locks.how, until)
			if !storage.Missing(err) {
				return err
			}
			switch folder, _, _ := strings.Cut(name, "/"); folder {
			case "packs", "parity", "points", "keys":
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, name)
				return nil
			}
			return &backup.Error{
				Offset: backup.NoOffset, Err: fmt.Errorf("%w: %w", backup.ErrDamaged, err),
				Hint: "ferry verify " + r.store.Location() + " says what is lost; bring the file back from another copy of the repository",
			}
		})
	}
	err = group.Wait()
	return missing, err
}

// lockFor makes true what an entry with this payload would say of locks: what it adds is locked for as long as the rest, and
// so is what others added since the locks were extended. The caller holds r.mu.
func (r *Repository) lockFor(ctx context.Context, payload *commitlog.Payload) error {
	if r.locks == nil {
		return nil
	}
	until, added := r.state.Locked, r.lockedWith(payload)
	var names []string
	r.locks.mu.Lock()
	extends := payload.Locked != nil && payload.Locked.After(until)
	if extends {
		until = *payload.Locked
		for _, name := range lockedFiles(r.state, r.description.Parity != nil) {
			if !r.locks.extended[name] || r.locks.extendedTo.Before(until) {
				names = append(names, name)
			}
		}
		for n := r.locks.extendedHead + 1; n <= r.state.Head.N; n++ {
			names = append(names, commitlog.EntryName(n))
		}
	}
	for _, name := range added {
		if r.locks.own[name].Before(until) {
			names = append(names, name)
		}
	}
	r.locks.floor = until // the entry, too, and whatever comes after it
	r.locks.mu.Unlock()
	missing, err := r.lockAll(ctx, names, until)
	if err != nil {
		return err
	}
	for _, name := range missing { // parity can be made again
		if slices.Contains(added, name) && path.Dir(name) != "parity" {
			return &backup.Error{
				Offset: backup.NoOffset, Err: fmt.Errorf("%w: %s in %s, which was just written, cannot be locked: %w", backup.ErrDamaged, name, r.store.Location(), storage.ErrNotExist),
				Hint: "nothing relies on it yet: copy again, and find out who deletes files there",
			}
		}
	}
	if extends {
		r.locks.mu.Lock()
		r.locks.missing = missing
		r.locks.mu.Unlock()
	}
	return nil
}

// lockedWith are the files that are locked with an entry: those it adds, and the parity of its packs.
func (r *Repository) lockedWith(payload *commitlog.Payload) []string {
	names := slices.DeleteFunc(namedFiles(payload), func(name string) bool { return !lockable(name) })
	if r.description.Parity != nil {
		for _, p := range payload.Packs {
			names = append(names, parity.ObjectName(p.ID))
		}
	}
	return names
}

// lockedBy forgets the files of an entry that was committed, and tells of those that the extension with it did not find. The caller
// holds r.mu.
func (r *Repository) lockedBy(payload *commitlog.Payload) {
	if r.locks == nil {
		return
	}
	r.locks.mu.Lock()
	for _, name := range r.lockedWith(payload) {
		delete(r.locks.own, name)
	}
	if payload.Locked != nil {
		r.locks.extended = nil
	}
	r.locks.mu.Unlock()
	if payload.Locked != nil {
		r.tellMissing()
	}
}
