package repo

import (
	"context"
	"fmt"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// ExportKit makes a recovery kit: text that restores access when keys/ is lost. An empty passphrase leaves it open to
// everyone who can read it. The kit says that the repository lies at the location.
func (r *Repository) ExportKit(location string, passphrase Passphrase) ([]byte, error) {
	if err := r.mustHaveRing(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	head := r.state.Head
	r.mu.Unlock()
	return keyring.Kit{Ring: r.ring(), Exported: r.env.now(), Entries: head.N, Checksum: head.Checksum}.Encode(location, passphrase)
}

// Errors of reading recovery kits.
var (
	ErrNoKit         = keyring.ErrNoKit
	ErrKitPassphrase = keyring.ErrKitPassphrase
)

// MaxKit is the size of the largest recovery kit, in bytes.
const MaxKit = keyring.MaxKit

// IsKit is true if a file is a recovery kit, whole or not.
func IsKit(file []byte) bool { return keyring.IsKit(file) }

// KitIsEncrypted is true if a recovery kit needs a passphrase.
func KitIsEncrypted(kit []byte) bool { return keyring.KitIsEncrypted(kit) }

// OpenWithKit opens an encrypted repository with the keys of a recovery kit, so that AddKey can make key files again. The
// passphrases are tried on a kit that is encrypted. What is amiss with the repository is in its warnings.
func OpenWithKit(ctx context.Context, store storage.Store, env Environment, kitFile []byte, passphrases []Passphrase) (*Repository, error) {
	kit, err := keyring.DecodeKit(kitFile, passphrases...)
	if err != nil {
		return nil, err
	}
	env.kit = &kit
	return Open(ctx, store, env)
}

// KitSource is a KeySource that may have recovery kits as well.
type KitSource interface {
	// Kits returns recovery kits, and the passphrases that are tried on those that are encrypted.
	Kits(ctx context.Context) (kits [][]byte, passphrases []Passphrase, err error)
}

// kitAmong is the recovery kit of a repository that the source of keys has; nil if it has none.
func kitAmong(ctx context.Context, source KeySource, repository format.Name) (*keyring.Kit, error) {
	kits, is := source.(KitSource)
	if !is {
		return nil, nil
	}
	files, passphrases, err := kits.Kits(ctx)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		kit, err := keyring.DecodeKit(file, passphrases...)
		if err != nil {
			return nil, err
		}
		if kit.Ring.Repository == repository {
			return &kit, nil
		}
	}
	return nil, nil
}

// ErrKitTooOld: the log goes on with a data key that the recovery kit does not have.
var ErrKitTooOld = fmt.Errorf("%w: the recovery kit was made before the key was rotated", keyring.ErrNoGeneration)

func kitFits(store storage.Store, ring *keyring.Ring, description format.Description) error {
	err := ring.Fits(description.ID, description.KeyCheck)
	if err != nil {
		err = &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", store.Location(), err), Hint: "the recovery kit is that of another repository"}
	}
	return err
}

// checkKit warns of a repository that does not have the history that it had when the kit was made.
func (r *Repository) checkKit(ctx context.Context, kit keyring.Kit) {
	if kit.Entries == 0 {
		return
	}
	raw, err := storage.ReadAll(ctx, r.store, commitlog.EntryName(kit.Entries), commitlog.MaxSize)
	if err == nil {
		var head commitlog.Head
		if _, _, head, err = commitlog.Decode(r.hasher, kit.Entries, raw); err == nil && head.Checksum == kit.Checksum {
			return
		}
	}
	r.warn("the repository does not have the log entry %d that it had when the kit was made: it was rolled back, or this is another copy of it", kit.Entries)
}
