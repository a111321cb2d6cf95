package repo

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// LockProblem is a file that is not locked for as long as the log says.
type LockProblem struct {
	File string
	// Missing is true if it is not there at all.
	Missing bool
	// Until when it is locked; zero if it is not.
	Until time.Time
}

// CheckLocks asks the storage until when each file is locked that must be for as long as the log says (docs/format.md section
// 15). It returns how many files it asked about, the first of their ends, and those that are not locked until then, or not there.
func (r *Repository) CheckLocks(ctx context.Context) (files int, first time.Time, problems []LockProblem, err error) {
	r.checkRetention(ctx)
	switch {
	case r.description.Lock == nil:
		return 0, time.Time{}, nil, nil
	case r.locks == nil: // moved where nothing can be asked
		return 0, time.Time{}, nil, r.readOnly
	}
	r.mu.Lock()
	want := r.state.Locked
	names, err := r.lockedNames(ctx)
	r.mu.Unlock()
	if err == nil && r.description.Encrypted {
		var keys []string
		if keys, err = r.neededKeys(ctx); len(keys) == 0 {
			problems = append(problems, LockProblem{File: keyring.Folder, Missing: true})
		}
		names = append(names, keys...)
	}
	if err != nil {
		return 0, time.Time{}, nil, err
	}
	asked := false
	var mu sync.Mutex
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(2 * storage.ParallelReads(r.store))
	for _, name := range names {
		group.Go(func() error {
			until, err := r.locks.locker.LockedUntil(asking, name)
			missing := storage.Missing(err)
			if err != nil && !missing {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if !asked || until.Before(first) {
				asked, first = true, until
			}
			if missing || until.Before(want) {
				problems = append(problems, LockProblem{File: name, Missing: missing, Until: until})
			}
			return nil
		})
	}
	if err = group.Wait(); err == nil && len(problems) > 0 {
		problems, err = r.stillProblems(ctx, problems)
	}
	slices.SortFunc(problems, func(a, b LockProblem) int { return strings.Compare(a.File, b.File) })
	return len(names), first, problems, err
}

// stillProblems leaves out files that other writers have given up while the storage was asked.
func (r *Repository) stillProblems(ctx context.Context, problems []LockProblem) ([]LockProblem, error) {
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	names, err := r.lockedNames(ctx)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	needed := make(map[string]bool, len(names))
	for _, name := range names {
		needed[name] = true
	}
	return slices.DeleteFunc(problems, func(p LockProblem) bool {
		return !needed[p.File] && !strings.HasPrefix(p.File, keyring.Folder)
	}), nil
}

// neededKeys are the key files but leftovers, and the notes about them, those that were deleted included if a list of them tells
// of them (keyring.Files). Of these none are that a change of the keys has deleted or not written yet: a removal takes a file off the
// list before it deletes it, what a rotation has deleted is a leftover by its name, and as long as the log does not say that a rotation
// is done, those whom it makes files for have older ones. Without the key it is not known what is left over: then those of the newest
// generation are needed for certain, and others are not among them.
func (r *Repository) neededKeys(ctx context.Context) ([]string, error) {
	files, err := keyring.Files(ctx, r.store)
	if err != nil {
		return nil, err
	}
	list, leftovers, err := r.recipients(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	rotated := r.state.Rotated
	r.mu.Unlock()
	named := onlyNamed(files, slices.Concat(list, leftovers))
	if ring := r.ring(); ring != nil {
		var deleted []keyring.Recipient
		named, deleted = ring.Leftovers(named, rotated)
		leftovers = append(leftovers, deleted...)
	}
	for _, one := range named {
		g := one.File.Generation
		if g > rotated && slices.ContainsFunc(list, func(older keyring.Recipient) bool { return older.File.Generation < g }) {
			leftovers = append(leftovers, one)
		}
	}
	files = slices.DeleteFunc(files, func(file keyring.File) bool {
		return slices.ContainsFunc(leftovers, func(one keyring.Recipient) bool { return one.File == file })
	})
	var names []string
	for _, file := range files { // the newest first
		if r.ring() != nil || file.Generation == files[0].Generation {
			names = append(names, file.Path(), file.NotePath())
		}
	}
	return names, nil
}

// onlyNamed are the files that a list names and that are not there.
func onlyNamed(files []keyring.File, there []keyring.Recipient) (named []keyring.Recipient) {
	for _, file := range files {
		if !slices.ContainsFunc(there, func(one keyring.Recipient) bool { return one.File == file }) {
			named = append(named, keyring.Recipient{File: file})
		}
	}
	return named
}
