package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// prober is a store that can try whether it is fit for a repository.
type prober interface{ Probe(context.Context) error }

// Init makes a new repository in an empty store and opens it.
func Init(ctx context.Context, store storage.Store, env Environment, options Options) (*Repository, error) {
	algorithm := format.HashBLAKE3
	if options.SHA256 {
		algorithm = format.HashHMACSHA256
	}
	if options.BlockSize == 0 {
		options.BlockSize = DefaultBlockSize
	}
	if err := format.CheckBlockSize(options.BlockSize); err != nil {
		return nil, err
	}
	if prober, ok := storage.As[prober](store); ok {
		if err := prober.Probe(ctx); err != nil {
			return nil, err
		}
	}
	description := format.NewDescription(algorithm, options.BlockSize, env.now())
	if options.Parity != nil {
		if err := options.Parity.Check(); err != nil {
			return nil, err
		}
		description.Parity = options.Parity
	}
	locks, err := options.prepareLocks(ctx, store, env, &description)
	if err != nil {
		return nil, err
	}
	content, ring, err := create(ctx, store, env, &description, options)
	if err != nil {
		return nil, err
	}
	r := newRepository(store, env, description, algorithm, ring)
	r.locks = locks
	r.retentionAsked.Do(func() {}) // the probe has
	if err := r.begin(ctx, content); err != nil {
		return nil, err
	}
	return r, nil
}

// checkEmpty returns an error unless a repository without a log has nothing else either: else its log is lost, and a new
// one would make nothing of what is there.
func (r *Repository) checkEmpty(ctx context.Context) error {
	for _, folder := range []string{"packs/", "points/", "checkpoints/", "index/", "partials/"} {
		for info, err := range r.store.List(ctx, folder) {
			if err == nil {
				err = &backup.Error{
					Offset: backup.NoOffset, Err: fmt.Errorf("log/ in %s: %w: it is empty, but %s exists", r.store.Location(), ErrCorrupt, info.Name),
					Hint: "bring back the folder log/ from another copy of the repository; its packs and points are not touched by this",
				}
			}
			return err
		}
	}
	return nil
}

// begin writes the log's first entry, which binds it to the description. If another process did, that is as good.
func (r *Repository) begin(ctx context.Context, description []byte) error {
	until, err := r.extendLocks(ctx, false)
	if err != nil {
		return err
	}
	err = r.commit(ctx, &commitlog.Payload{
		Locked:     until,
		Repository: &commitlog.Repository{ID: r.description.ID, Checksum: r.hasher.Sum(format.ContextRepository, description)},
		Domains:    []commitlog.Domain{{ID: r.description.ID}},
	}, func(state *commitlog.State) error {
		if state.Head.N > 0 {
			return errBegun
		}
		return nil
	})
	if errors.Is(err, errBegun) {
		return nil
	}
	return err
}

var errBegun = errors.New("the log has begun")

// Open opens the repository in a store. If it is not there, the error wraps ErrNoRepository.
func Open(ctx context.Context, store storage.Store, env Environment) (*Repository, error) {
	var content []byte
	var description format.Description
	var algorithm format.Hash
	err := storage.ReadIntact(ctx, store, format.DescriptionName, 1<<20, func(raw []byte) (err error) {
		content = raw
		if description, algorithm, err = format.ParseDescription(raw); err != nil {
			err = fmt.Errorf("%s in %s: %w", format.DescriptionName, store.Location(), err)
		}
		return err
	})
	if errors.Is(err, storage.ErrNoStorage) || storage.Absent(err) {
		return nil, &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("%w at %s", ErrNoRepository, store.Location()),
			Hint: "is the disk mounted? To make a new repository there, add --create to ferry copy or use ferry repo init",
		}
	}
	if err != nil {
		return nil, notFile(err)
	}
	found, err := findRing(ctx, store, description, env)
	if errors.Is(err, ErrWrongKey) { // or the description is not that of this repository any more
		return nil, cmp.Or(begunWithAnother(ctx, store, description, algorithm, content), err)
	}
	if err != nil {
		return nil, err
	}
	env.kit = found.kit
	r := newRepository(store, env, description, algorithm, found.ring)
	r.locked, r.warnings = found.locked, found.warnings
	if err := r.checkDowngrade(); err != nil {
		return nil, err
	}
	if r.locks, r.readOnly = openLocks(store, description, env.now); description.OptionalFeatures&^format.OptionalLocked != 0 {
		r.readOnly = ErrReadOnly
	}
	if err := r.load(ctx); err != nil {
		return nil, err
	}
	if r.locks != nil {
		r.locks.floor = r.state.Locked
	}
	if r.state.Head.N == 0 {
		if err := r.checkEmpty(ctx); err != nil {
			return nil, err
		}
		// Init was interrupted, or is still between the description and the first entry: finish it.
		if err := r.begin(ctx, content); err != nil {
			return nil, err
		}
	}
	if r.state.Repository.ID != description.ID || r.state.Repository.Checksum != r.hasher.Sum(format.ContextRepository, content) {
		return nil, notBegunWith(store)
	}
	if env.kit != nil {
		r.checkKit(ctx, *env.kit)
	}
	return r, nil
}

// begunWithAnother returns an error if the log begins with another description than the one that is there. No key is needed for that.
func begunWithAnother(ctx context.Context, store storage.Store, description format.Description, algorithm format.Hash, content []byte) error {
	raw, err := storage.ReadAll(ctx, store, commitlog.EntryName(1), commitlog.MaxSize)
	if err != nil {
		return nil // then nothing can be said of it
	}
	hasher := format.NewLockedHasher(algorithm)
	payload, _, _, err := commitlog.Decode(hasher, 1, raw)
	if err != nil || payload.Repository != nil && *payload.Repository == (commitlog.Repository{ID: description.ID, Checksum: hasher.Sum(format.ContextRepository, content)}) {
		return nil
	}
	return notBegunWith(store)
}

func notBegunWith(store storage.Store) error {
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s in %s: %w: it is not the file that the log begins with", format.DescriptionName, store.Location(), ErrCorrupt),
		Hint: fmt.Sprintf("ferry verify %s --heal-from PLACE puts it back from a mirror of the repository's files", store.Location()),
	}
}
