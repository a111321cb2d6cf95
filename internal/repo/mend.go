package repo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// MendLog puts back what a repository cannot be opened without, from other copies of its files: repository.json and log
// entries that are missing or damaged. It is for a store that Open refuses. mirrors are stores with the same repository. It
// returns the names of the files that it put back. Of env it needs CacheDir.
//
// A file is taken from a mirror only if it is proven, and nothing is put back before all of it is:
//
//  1. The last entry is that with the highest number here, if it is whole; else, or if this machine remembers a later head,
//     the head that it remembers. What a mirror has more is another history, or a newer one.
//  2. Every other entry is proven by the one behind it, which has its checksum.
//  3. Entry 1 has the checksum of repository.json.
//
// An entry that is whole here is never replaced. If it is not the one that the next entry follows, no file is put back.
//
// A copy that cannot be asked, because it cannot be reached or its medium fails, is passed over. If what it may have is not
// found elsewhere, the error names it and wraps why.
func MendLog(ctx context.Context, store storage.Store, env Environment, mirrors []storage.Store) ([]string, error) {
	m := &mender{store: store, copies: append([]storage.Store{store}, mirrors...), env: env, unanswered: map[storage.Store]error{}}
	var failed error
	for i, from := range m.copies {
		content, err := m.fetch(ctx, from, format.DescriptionName, 1<<20)
		if err != nil {
			continue
		}
		description, algorithm, err := format.ParseDescription(content)
		if err != nil {
			continue
		}
		m.hasher = format.NewHasher(algorithm, [32]byte{})
		if description.Encrypted {
			m.hasher = format.NewLockedHasher(algorithm) // checksums and the chain are enough to know a file by
		}
		lost, err := m.prove(ctx, description, m.hasher.Sum(format.ContextRepository, content))
		if err == nil {
			if i > 0 {
				lost = append(lost, lostFile{name: format.DescriptionName, content: func(context.Context) ([]byte, error) { return content, nil }})
			}
			return m.put(ctx, lost)
		}
		if failed == nil || !errors.Is(err, errNotBound) {
			failed = err
		}
	}
	if ctx.Err() != nil { // nobody has looked through all copies
		return nil, ctx.Err()
	}
	if failed == nil {
		failed = fmt.Errorf("%w: no copy of %s was found that is whole", ErrCorrupt, format.DescriptionName)
	}
	for _, from := range m.copies {
		failed = errors.Join(failed, m.unanswered[from])
	}
	return nil, failed
}

// errNotBound: the log begins with another description.
var errNotBound = fmt.Errorf("%w: no copy of %s was found that the log begins with", ErrCorrupt, format.DescriptionName)

type mender struct {
	store storage.Store
	// copies are the store and its mirrors.
	copies []storage.Store
	env    Environment
	hasher *format.Hasher
	// unanswered has for each copy the first error that does not say what of it is there.
	unanswered map[storage.Store]error
}

// lostFile is one to be put back, and what gives its proven content: a log may be too long to keep in memory.
type lostFile struct {
	name    string
	content func(context.Context) ([]byte, error)
}

// prove follows the log from its end to its beginning, which must have the description, and returns the entries that are lost.
func (m *mender) prove(ctx context.Context, description format.Description, checksum format.ID) ([]lostFile, error) {
	last, err := m.last(ctx, description)
	if err != nil {
		return nil, err
	}
	var lost []lostFile
	behind := last.Checksum // what the entry behind, or the end, says of this one
	for n := last.N; n > 0; n-- {
		want := behind
		payload, link, own, from := m.find(ctx, n, want)
		if from == nil {
			err := fmt.Errorf("%w: it was found whole neither here nor in any other copy that was given", ErrCorrupt)
			if own {
				err = fmt.Errorf("%w: it is whole, and not what the entry behind it follows or this machine remembers", ErrDiverged)
			}
			return nil, errors.Join(ctx.Err(), fmt.Errorf("%s in %s: %w", commitlog.EntryName(n), m.store.Location(), err))
		}
		if from != m.store {
			lost = append(lost, lostFile{commitlog.EntryName(n), func(ctx context.Context) ([]byte, error) {
				raw, _, _, head, err := m.read(ctx, from, n)
				if err == nil && head.Checksum != want {
					err = fmt.Errorf("%s in %s: %w: it has just changed", commitlog.EntryName(n), from.Location(), ErrCorrupt)
				}
				return raw, err
			}})
		}
		if n == 1 && (payload.Repository == nil || *payload.Repository != commitlog.Repository{ID: description.ID, Checksum: checksum}) {
			return nil, errNotBound
		}
		behind = link
	}
	slices.Reverse(lost)
	return lost, nil
}

// last is the entry at which the log ends.
func (m *mender) last(ctx context.Context, description format.Description) (commitlog.Head, error) {
	var last commitlog.Head
	for info, err := range m.store.List(ctx, "log/") {
		if err != nil {
			return last, err
		}
		if n, ok := commitlog.ParseNumber(path.Base(info.Name)); ok {
			last.N = max(last.N, n)
		}
	}
	seen := newCache(m.env.CacheDir, description).seen()
	if seen.N <= last.N && last.N > 0 {
		if _, _, _, head, err := m.read(ctx, m.store, last.N); err == nil {
			return head, nil
		}
	}
	for _, head := range []commitlog.Head{seen.Head, seen.Newest} {
		if head.N >= last.N && head.N > 0 {
			return head, nil
		}
	}
	return last, errors.Join(ctx.Err(), &backup.Error{
		Offset: backup.NoOffset,
		Err: fmt.Errorf("%s: %w: its last log entry is damaged or missing, and this machine does not remember what it was: another copy may have another history",
			m.store.Location(), ErrCorrupt),
		Hint: "run this on the machine that used the repository last; or go on with the other copy instead of this one",
	})
}

// find looks for the copy of entry n that has a checksum, here first; nil if there is none. own is true if the entry is whole here.
func (m *mender) find(ctx context.Context, n uint64, want format.ID) (payload commitlog.Payload, link format.ID, own bool, from storage.Store) {
	for _, from := range m.copies {
		_, payload, link, head, err := m.read(ctx, from, n)
		switch {
		case err != nil:
		case head.Checksum == want:
			return payload, link, own, from
		case from == m.store:
			return payload, link, true, nil
		}
	}
	return payload, link, false, nil
}

func (m *mender) read(ctx context.Context, from storage.Store, n uint64) (raw []byte, payload commitlog.Payload, link format.ID, head commitlog.Head, err error) {
	if raw, err = m.fetch(ctx, from, commitlog.EntryName(n), commitlog.MaxSize); err == nil {
		if payload, link, head, err = commitlog.Decode(m.hasher, n, raw); err != nil {
			err = fmt.Errorf("%s in %s: %w", commitlog.EntryName(n), from.Location(), err)
		}
	}
	return raw, payload, link, head, err
}

// fetch reads a copy of a file whole, and keeps why it could not be asked for.
func (m *mender) fetch(ctx context.Context, from storage.Store, name string, limit int64) ([]byte, error) {
	raw, err := storage.ReadAll(ctx, from, name, limit)
	if err == nil {
		return raw, nil
	}
	err = fmt.Errorf("%s in %s: %w", name, from.Location(), err)
	if !errors.Is(err, storage.ErrNotExist) && m.unanswered[from] == nil && ctx.Err() == nil {
		m.unanswered[from] = err
	}
	return nil, err
}

// put brings files back: each has the one content that its name ever had.
func (m *mender) put(ctx context.Context, lost []lostFile) (mended []string, err error) {
	for _, file := range lost {
		content, err := file.content(ctx)
		if err == nil {
			err = m.store.Overwrite(ctx, file.name, content)
		}
		if err != nil {
			return mended, err
		}
		mended = append(mended, file.name)
	}
	return mended, nil
}
