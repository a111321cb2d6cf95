package repo

import (
	"context"
	"errors"
	"slices"

	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// verifyKeys proves that the key files are what was written, which needs no key, and with the key that a rotation can wrap
// the next ring for each of them. What looks damaged is looked at until it looks the same twice, or keyLooks times: a rotation beside
// this takes files away and makes others, with a data key that this ring lacks.
func (v *verifier) verifyKeys(ctx context.Context) error {
	if !v.repo.hasher.Encrypted() {
		return nil
	}
	var found []Damage
	for range keyLooks {
		before := found
		var err error
		if found, err = v.keyDamage(ctx); err != nil {
			return err
		}
		if len(found) == 0 || slices.Equal(found, before) {
			break
		}
	}
	for _, d := range found {
		v.damage(d)
	}
	for _, file := range v.unopened {
		v.repo.warn("%s is of a newer data key than the key given opens: a rotation is on its way or was interrupted, or somebody without the key made the file; "+
			"whoever has that data key ends the rotation with another one", file.Path())
	}
	return nil
}

// keyLooks is how often key files are looked at that are damaged in another way each time, as on a disk whose reads cannot be trusted.
const keyLooks = 5

// keyDamage is what is damaged of the key files and their notes as they are now.
func (v *verifier) keyDamage(ctx context.Context) (list []Damage, err error) {
	r := v.repo
	files, err := keyring.Files(ctx, r.store)
	if err != nil {
		return nil, err
	}
	leftover := map[keyring.File]bool{} // no damage, whatever became of it: nobody needs it
	var recipients []keyring.Recipient
	if r.keys != nil {
		if slices.ContainsFunc(files, func(file keyring.File) bool { return !r.ring().Has(file.Generation) }) {
			r.mu.Lock()
			_ = r.reloadKeys(ctx) // where none opens a newer one, the notes about that cannot be read
			r.mu.Unlock()
		}
		var leftovers []keyring.Recipient
		if recipients, leftovers, err = r.recipients(ctx); err != nil {
			return nil, err
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
			return nil, ctx.Err()
		}
		switch {
		case err == nil || leftover[file] || storage.Absent(err): // it was removed just now
		case !unreadable(err) && !errors.Is(err, storage.ErrTooLarge):
			return nil, err
		default:
			list = append(list, Damage{File: file.Path(), Reason: err.Error() + "; whom it is for cannot open the repository"})
		}
		good[file] = err == nil
		there = there || !storage.Absent(err)
	}
	if !there {
		list = append(list, Damage{File: keyring.Folder, Reason: (&keyring.NoKeyFilesError{}).Reason() + ": only the recovery kit opens the repository"})
	}
	v.unopened = nil
	for _, recipient := range recipients {
		switch {
		case !good[recipient.File] || recipient.Known:
		case recipient.Unread != nil:
			return nil, recipient.Unread
		case !r.ring().Has(recipient.File.Generation): // another key's: it says nothing of the note
			v.unopened = append(v.unopened, recipient.File)
		default:
			list = append(list, Damage{File: recipient.File.NotePath(), Reason: "the note about this recipient is lost or damaged, or somebody without the key made this key file: a rotation leaves it out"})
		}
	}
	return list, nil
}
