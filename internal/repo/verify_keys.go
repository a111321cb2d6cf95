package repo

import (
	"context"
	"errors"

	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// verifyKeys proves that the key files are what was written, which needs no key, and with the key that a rotation can wrap
// the next ring for each of them.
func (v *verifier) verifyKeys(ctx context.Context) error {
	r := v.repo
	if !r.hasher.Encrypted() {
		return nil
	}
	files, err := keyring.Files(ctx, r.store)
	if err != nil {
		return err
	}
	leftover := map[keyring.File]bool{} // no damage, whatever became of it: nobody needs it
	var recipients []keyring.Recipient
	if r.keys != nil {
		var leftovers []keyring.Recipient
		if recipients, leftovers, err = r.recipients(ctx); err != nil {
			return err
		}
		for _, one := range leftovers {
			leftover[one.File] = true
		}
	}
	good, there := map[keyring.File]bool{}, false
	for _, file := range files {
		content, err := storage.ReadAll(ctx, r.store, file.Path(), keyring.MaxFile)
		if err == nil {
			err = keyring.CheckFile(file, content)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil || leftover[file] || errors.Is(err, storage.ErrNotExist): // it was removed just now
		case !unreadable(err) && !errors.Is(err, storage.ErrTooLarge):
			return err
		default:
			v.damage(Damage{File: file.Path(), Reason: err.Error() + "; whom it is for cannot open the repository"})
		}
		good[file] = err == nil
		there = there || !errors.Is(err, storage.ErrNotExist)
	}
	if !there {
		v.damage(Damage{File: keyring.Folder, Reason: (&keyring.NoKeyFilesError{}).Reason() + ": only the recovery kit opens the repository"})
	}
	for _, recipient := range recipients {
		if good[recipient.File] && !recipient.Known {
			v.damage(Damage{File: recipient.File.NotePath(), Reason: "the note about this recipient is lost or damaged, or somebody without the key made this key file: a rotation leaves it out"})
		}
	}
	return nil
}
