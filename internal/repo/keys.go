package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// keys are the keys of an open repository. A rotation that the log tells of replaces the ring.
type keys struct {
	ring atomic.Pointer[keyring.Ring]
	// reached is the generation of the log's last MAC, 0 before the first.
	reached atomic.Uint32
	// rotated is the generation that the last rotation which ended made, 0 before the first.
	rotated atomic.Uint32
}

// Derive is the ring's.
func (k *keys) Derive(generation uint32, salt []byte, info string) ([32]byte, error) {
	return k.ring.Load().Derive(generation, salt, info)
}

// Generation of the current data key.
func (k *keys) Generation() uint32 { return k.ring.Load().Current(k.reached.Load()).Generation }

// mayFollow is true if the log may go on with a MAC of a generation after one of the last: who made that generation had the key
// of the last. An entry without a MAC may follow any.
func (k *keys) mayFollow(generation, last uint32) bool {
	return k == nil || generation == 0 || last == 0 || k.ring.Load().Follows(generation, last)
}

// believes is true if a checkpoint with a MAC of a generation can be believed without the entries before it: the generation is
// the current one, and there is no other that could be. Else somebody may have made it who had the ring before a rotation.
func (k *keys) believes(generation uint32) bool {
	return k == nil || generation == k.Generation() && !k.ring.Load().Forked()
}

// newHasher makes the hasher for a description and the ring that fits it; nil where it is not encrypted or not unlocked.
func newHasher(algorithm format.Hash, description format.Description, ring *keyring.Ring) (*format.Hasher, *keys) {
	switch {
	case !description.Encrypted:
		return format.NewHasher(algorithm, [32]byte{}), nil
	case ring == nil:
		return format.NewLockedHasher(algorithm), nil
	}
	k := &keys{}
	k.ring.Store(ring)
	return format.NewEncryptedHasher(algorithm, ring.IDKey, k), k
}

// foundKeys are what opens a repository.
type foundKeys struct {
	ring *keyring.Ring
	// kit is the recovery kit that the ring is from, nil if there is none.
	kit *keyring.Kit
	// locked is the error that what needs the key gives, nil unless no key was given or there is no key file that one could open.
	locked   error
	warnings []string
}

// findRing finds the key ring of an encrypted repository: with keys that were given, else in a recovery kit, else with keys that are
// typed. Without any it is locked.
func findRing(ctx context.Context, store storage.Store, description format.Description, env Environment) (found foundKeys, err error) {
	switch {
	case env.kit != nil && !description.Encrypted:
		return found, ErrNotEncrypted
	case env.kit != nil:
		return foundKeys{ring: env.kit.Ring, kit: env.kit}, kitFits(store, env.kit.Ring, description)
	case !description.Encrypted:
		return found, nil
	}
	kits, err := findKits(ctx, env.Keys)
	if err != nil {
		return found, fmt.Errorf("%s: %w", store.Location(), err)
	}
	if found.ring = unlockKnown(ctx, store, description, env); found.ring != nil {
		return found, nil
	}
	var unfit error
	if kits != nil {
		found.ring, found.warnings, err = unlock(ctx, store, description, onlyGiven{env.Keys})
		if err == nil {
			keepKeyFile(description, env, found.ring, found.warnings)
		}
		if err == nil || ctx.Err() != nil {
			return found, err
		}
		if found.kit, unfit = kits.newest(ctx, description); found.kit != nil {
			found.ring = found.kit.Ring
			return found, nil
		}
	}
	found.ring, found.warnings, err = unlock(ctx, store, description, env.Keys)
	switch {
	case err == nil:
		keepKeyFile(description, env, found.ring, found.warnings)
		return found, nil
	case unfit != nil:
		err = fmt.Errorf("%w; %w", err, unfit)
	case errors.Is(err, ErrNeedsKey):
		found.locked = err
		return found, nil
	case errors.Is(err, ErrNoKeyFiles):
		found.locked, found.warnings = &lockedError{err}, append(found.warnings, err.Error()+"; "+backup.Hint(err))
		return found, nil
	}
	if len(found.warnings) > 0 {
		err = fmt.Errorf("%w (%s)", err, strings.Join(found.warnings, "; "))
	}
	return found, err
}

// create writes the description of a new repository, and before it the key files without which nobody could open it.
func create(ctx context.Context, store storage.Store, env Environment, description *format.Description, options Options) (content []byte, ring *keyring.Ring, err error) {
	var made []keyring.Recipient
	if len(options.Encrypt) > 0 {
		if _, err := store.Stat(ctx, format.DescriptionName); err == nil {
			return nil, nil, fmt.Errorf("%s: %w", store.Location(), ErrExists) // no key files into somebody else's
		}
		ring = options.newRing(description.ID, env.now())
		description.Encrypt(ring.Check())
		if made, err = wrapRing(ctx, store, ring, options.Encrypt, env.now()); err != nil {
			return nil, nil, err
		}
	}
	content, err = json.MarshalIndent(description, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	content = append(content, '\n')
	if err = store.Put(ctx, format.DescriptionName, content); err == nil {
		return content, ring, nil
	}
	there, readErr := storage.ReadAll(ctx, store, format.DescriptionName, int64(len(content)))
	switch {
	case readErr == nil && bytes.Equal(there, content):
		return content, ring, nil // only the answer was lost
	case errors.Is(err, storage.ErrExists):
		unwrapRing(ctx, store, made)
		return nil, nil, fmt.Errorf("%s: %w", store.Location(), ErrExists)
	}
	return nil, nil, err // it may be there nevertheless: without its key files nobody could open it
}

// Inherit takes from another repository what makes equal content have equal ids in both, so that blocks need not be read to
// be compared: hash, block size and, where both are encrypted and that one is open, the id key. With sameKeys the data keys too:
// then blocks go over as they are stored, and whoever learns the keys of one repository can read both.
func (o *Options) Inherit(from *Repository, sameKeys bool) error {
	if sameKeys && from.ring() == nil {
		return cmp.Or(from.locked, fmt.Errorf("%s: %w", from.Location(), ErrNotEncrypted))
	}
	o.SHA256 = from.hasher.Algorithm() == format.HashHMACSHA256
	o.BlockSize = from.description.BlockSize
	o.inherited, o.sameKeys = from.ring(), sameKeys
	return nil
}

// newRing makes the key ring of a new repository.
func (o *Options) newRing(repository format.Name, now time.Time) *keyring.Ring {
	if o.inherited != nil && o.sameKeys {
		return o.inherited.For(repository)
	}
	ring := keyring.New(repository, now)
	if o.inherited != nil {
		ring.IDKey = o.inherited.IDKey
	}
	return ring
}

// reached notes how far the log's MACs and rotations have come. The caller holds r.mu, or nobody else has the repository yet.
func (r *Repository) reached() {
	if r.keys != nil {
		r.keys.reached.Store(r.state.Generation)
		r.keys.rotated.Store(r.state.Rotated)
	}
}

// Locked is true if the repository is encrypted, and no key was given or there is no key file that one could open. What needs none works:
// listing points by pseudonym, giving points up, reclaiming space, proving stored bytes.
func (r *Repository) Locked() bool { return r.hasher.Locked() }

// NeedsKey returns nil unless the repository is locked; else the error that tells which key opens it, or that none does. It wraps ErrNeedsKey.
func (r *Repository) NeedsKey() error { return r.locked }

// reloadKeys reads the key files again when the log is of a key that the ring lacks: somebody rotated it.
func (r *Repository) reloadKeys(ctx context.Context) error {
	if r.env.kit != nil {
		return &backup.Error{
			Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", r.store.Location(), ErrKitTooOld),
			Hint: "give the recovery kit that was exported after the rotation, or a key; who has a key makes such a kit: ferry key export",
		}
	}
	ring, warnings, err := unlock(ctx, r.store, r.description, r.env.Keys)
	if err != nil {
		return err
	}
	for _, warning := range warnings {
		r.warn("%s", warning)
	}
	known := r.ring().DataKeys
	if !slices.ContainsFunc(known, func(key keyring.DataKey) bool { return !ring.Has(key.Generation) }) { // else a key file was damaged meanwhile
		r.keys.ring.Store(ring)
	}
	return nil
}

// withLaterKeys reads something that others may have written with a data key that was made since: then once more, with the key
// files as they are now. The caller does not hold r.mu.
func (r *Repository) withLaterKeys(ctx context.Context, read func() error) error {
	err := read()
	if !errors.Is(err, keyring.ErrNoGeneration) {
		return err
	}
	r.mu.Lock()
	err = r.reloadKeys(ctx)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return read()
}

// noteKeyless keeps the number of an entry that nobody with the key wrote. The caller holds r.mu.
func (r *Repository) noteKeyless(n uint64) {
	if r.locked == nil {
		r.keyless = append(r.keyless, n)
	}
}

// knowKeyless makes numbers, of all entries up to one, what is known of them.
func (r *Repository) knowKeyless(numbers []uint64, upTo uint64) {
	if r.locked != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keyless = slices.Concat(numbers, slices.DeleteFunc(r.keyless, func(n uint64) bool { return n <= upTo }))
}

// Keyless returns the numbers of the log entries that nobody with the key wrote, as far as they were read: those since the last
// checkpoint, after Verify all. Such a writer may give points and packs up, and nothing else. It is empty for a locked repository.
func (r *Repository) Keyless() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keyless)
}

// keylessShown is how many of them a warning names.
const keylessShown = 8

// keylessWarning tells of such entries.
func keylessWarning(numbers []uint64) string {
	shown, more := numbers, ""
	if len(numbers) > keylessShown {
		shown, more = numbers[len(numbers)-keylessShown:], fmt.Sprintf("%d, the last of them ", len(numbers))
	}
	var names []string
	for _, n := range shown {
		names = append(names, strconv.FormatUint(n, 10))
	}
	return fmt.Sprintf("log entries were written without the key: %s%s; they can only have given up points, packs and unfinished copies", more, strings.Join(names, ", "))
}

// checkDowngrade returns an error if a repository that was encrypted when this machine last saw it is not any more: what is
// written to it could be read by everyone.
func (r *Repository) checkDowngrade() error {
	if r.description.Encrypted || !r.cache.wasEncrypted() {
		return nil
	}
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s in %s: %w: it says that the repository is not encrypted, and it was when this machine saw it last", format.DescriptionName, r.store.Location(), ErrForged),
		Hint: "somebody changed it; bring the repository back from another copy, or make a new one",
	}
}
