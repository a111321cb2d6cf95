package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	head := r.lasting
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
func OpenWithKit(ctx context.Context, store storage.Store, env Environment, file Kit, passphrases []Passphrase) (*Repository, error) {
	kit, err := file.open(passphrases...)
	if err != nil {
		return nil, err
	}
	env.kit = &kit
	return Open(ctx, store, env)
}

// Kit is a file that is a recovery kit.
type Kit struct {
	Name    string
	Content []byte
}

// open reads the kit. The passphrases are tried on one that is encrypted.
func (k Kit) open(passphrases ...Passphrase) (keyring.Kit, error) {
	kit, err := keyring.DecodeKit(k.Content, passphrases...)
	if err != nil {
		err = fmt.Errorf("recovery kit %s: %w", k.Name, err)
	}
	return kit, err
}

// Opens is true if a passphrase opens a kit that is encrypted, whatever is in it. That is slow.
func (k Kit) Opens(passphrase Passphrase) bool {
	_, err := k.open(passphrase)
	return !errors.Is(err, ErrKitPassphrase)
}

// KitSource is a KeySource that may have recovery kits as well.
type KitSource interface {
	// Kits returns recovery kits, and the passphrases that are tried on those that are encrypted.
	Kits(ctx context.Context) (kits []Kit, passphrases []Passphrase, err error)
	// KitPassphrase is asked for the passphrase of a kit that none of those that were tried opens. It may be one that was typed for another
	// repository since; it is empty if there is nobody to ask.
	KitPassphrase(ctx context.Context, kit Kit, tried []Passphrase) (Passphrase, error)
}

// foundKits are the recovery kits that a source of keys has.
type foundKits struct {
	source      KitSource
	kits        []Kit
	passphrases []Passphrase
}

// findKits returns the recovery kits of a source, nil if it has none.
func findKits(ctx context.Context, keys KeySource) (*foundKits, error) {
	source, is := keys.(KitSource)
	if !is {
		return nil, nil
	}
	kits, passphrases, err := source.Kits(ctx)
	if err != nil || len(kits) == 0 {
		return nil, err
	}
	return &foundKits{source, kits, slices.Clip(passphrases)}, nil
}

// newest is the repository's recovery kit with the newest data key, nil if none is the repository's. What is wrong with the others is
// the error.
func (f *foundKits) newest(ctx context.Context, description format.Description) (newest *keyring.Kit, unfit error) {
	for _, file := range f.kits {
		kit, err := f.open(ctx, file)
		if err == nil {
			if err = kit.Ring.Fits(description.ID, description.KeyCheck); err != nil {
				err = fmt.Errorf("recovery kit %s: %w", file.Name, err)
			}
		}
		switch {
		case err != nil && unfit != nil:
			unfit = fmt.Errorf("%w; %w", unfit, err)
		case err != nil:
			unfit = err
		case newest == nil || kit.Ring.Newest() > newest.Ring.Newest():
			newest = &kit
		}
	}
	return newest, unfit
}

// open reads a kit with the passphrases that there are, or one that a person is asked for.
func (f *foundKits) open(ctx context.Context, file Kit) (keyring.Kit, error) {
	kit, err := file.open(f.passphrases...)
	if !errors.Is(err, ErrKitPassphrase) {
		return kit, err
	}
	typed, askErr := f.source.KitPassphrase(ctx, file, f.passphrases)
	if askErr != nil {
		return kit, askErr
	}
	if typed.IsEmpty() {
		return kit, err
	}
	f.passphrases = append(f.passphrases, typed)
	return file.open(typed)
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
