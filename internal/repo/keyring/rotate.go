package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

// Rotation says what a rotation is to do.
type Rotation struct {
	// Passphrases of recipients that have one: for these the new ring is wrapped with them.
	Passphrases []Passphrase
	// Drop are key files whose recipients do not get the new ring.
	Drop []File
	// Reached is the generation of the log's last MAC.
	Reached uint32
	// Rotated is the generation that the last rotation which ended made, 0 before the first.
	Rotated uint32
	// Now is when the new data key is made.
	Now time.Time
	// Commit is called with the new ring when all new key files are durable, before the old ones go.
	Commit func(*Ring) error
}

// CannotWrapError names recipients that a rotation cannot wrap the new ring for.
type CannotWrapError struct{ Recipients []Recipient }

// Error counts them; the caller names them.
func (e *CannotWrapError) Error() string {
	return fmt.Sprintf("the new key cannot be given to %d of the recipients", len(e.Recipients))
}

// LateError: the rotation is done, and recipients were added while it ran, who do not have the new data key.
type LateError struct{ Recipients []Recipient }

// Error counts them; the caller names them.
func (e *LateError) Error() string {
	return fmt.Sprintf("%d key files were made while the keys were rotated, and do not hold the new data key", len(e.Recipients))
}

// ErrLastRecipient: nobody would be left who can open the repository.
var ErrLastRecipient = errors.New("nobody would be left who can open the repository")

// ErrOutdated: there is a newer generation than the ring has. Only who has all keys may hand them on.
var ErrOutdated = errors.New("there are key files of a newer generation, which the key given does not open")

// wrapping is a recipient that the new ring is wrapped for.
type wrapping struct {
	to   age.Recipient
	what Recipient
}

// Rotate makes a new generation of data keys, which all recipients get that are not dropped. It returns the new ring and
// its recipients. The error may be a CannotWrapError, ErrLastRecipient or ErrOutdated: then nothing was done. With a LateError
// all was done.
//
// New files are durable before old ones go, and data keys are never taken back: a writer may use them as soon as one
// file is there. So a rotation that was interrupted leaves files of both generations, and is done by another one. Only who
// has the newest key can do that, so the file that the ring was read from is replaced first: its owner always can.
func Rotate(ctx context.Context, store storage.Store, ring *Ring, rotation Rotation) (*Ring, []Recipient, error) {
	old, err := Recipients(ctx, store, ring)
	if err != nil {
		return nil, nil, err
	}
	asked, _ := ring.Leftovers(old, rotation.Rotated) // a leftover is nobody that the new ring goes to
	wrappings, err := wrappingsFor(ctx, store, ring, asked, rotation)
	if err != nil {
		return nil, nil, err
	}
	own := ownFirst(wrappings, old, ring.from)
	generation, err := claimGeneration(ctx, store, ring.Newest(), rotation.Now)
	if err != nil {
		return nil, nil, err
	}
	next, err := ring.rotated(generation, rotation.Reached, rotation.Now)
	if err != nil {
		return nil, nil, err
	}
	added, err := addAll(ctx, store, next, wrappings)
	if err != nil {
		return nil, nil, err
	}
	if own {
		next.from = added[0].File
	}
	if err := rotation.Commit(next); err != nil {
		return nil, nil, err
	}
	for _, r := range old {
		// A file that the storage keeps locked is left over, as after an interruption: nobody asks it for the new ring.
		var locked *storage.LockedError
		if err := remove(ctx, store, r.File); err != nil && !errors.As(err, &locked) {
			return nil, nil, err
		}
	}
	missed, err := addedMeanwhile(ctx, store, next, ring.Newest(), old, rotation.Rotated)
	if err := errors.Join(err, settle(ctx, store, func(file File) bool { return file.Generation < generation })); err != nil {
		return nil, nil, err
	}
	if len(missed) > 0 {
		return next, added, &LateError{missed}
	}
	return next, added, nil
}

// addedMeanwhile finds key files of generations up to one that were not there when a rotation to the next ring found the old
// ones. Who makes a key file reads the log afterwards (docs/format.md, section 10.2). So whoever is left out is found here, or
// is told there.
func addedMeanwhile(ctx context.Context, store storage.Store, next *Ring, upTo uint32, old []Recipient, rotated uint32) ([]Recipient, error) {
	now, err := Recipients(ctx, store, next)
	if err != nil {
		return nil, err
	}
	list, _ := next.Leftovers(now, rotated) // by the rotation before: by this one, all of them are
	return slices.DeleteFunc(list, func(r Recipient) bool {
		return r.File.Generation > upTo || slices.ContainsFunc(old, func(o Recipient) bool { return o.File == r.File })
	}), nil
}

// wrappingsFor decides whom a new ring goes to: each recipient once, whichever of its key files are there.
func wrappingsFor(ctx context.Context, store storage.Store, ring *Ring, old []Recipient, rotation Rotation) ([]wrapping, error) {
	var wrappings []wrapping
	var cannot []Recipient
	seen := map[format.Name]bool{}
	for _, r := range old {
		if r.File.Generation > ring.Newest() {
			return nil, fmt.Errorf("%w: %s", ErrOutdated, r.File.Path())
		}
		if slices.Contains(rotation.Drop, r.File) {
			seen[r.ID] = true
		}
	}
	for _, r := range old {
		if slices.Contains(rotation.Drop, r.File) || r.Known && seen[r.ID] {
			continue
		}
		to, err := recipientOf(ctx, store, r, rotation.Passphrases)
		if err != nil {
			return nil, err
		}
		if to == nil && r.Unread != nil {
			return nil, r.Unread // trying again may help, which leaving the recipient out does not
		}
		if to == nil {
			cannot = append(cannot, r)
			continue
		}
		seen[r.ID] = r.Known
		wrappings = append(wrappings, wrapping{to, r})
	}
	// A second key file of somebody who gets the new ring anyway need not be wrapped for.
	cannot = slices.DeleteFunc(cannot, func(r Recipient) bool { return r.Known && seen[r.ID] })
	switch {
	case len(cannot) > 0:
		return nil, &CannotWrapError{cannot}
	case len(wrappings) == 0:
		return nil, ErrLastRecipient
	}
	return wrappings, nil
}

// ownFirst puts the recipient of a key file before the others; false if it is not among them. It may be another file of the
// same recipient that is wrapped for.
func ownFirst(wrappings []wrapping, all []Recipient, own File) bool {
	var id format.Name
	for _, r := range all {
		if r.File == own && r.Known {
			id = r.ID
		}
	}
	isOwn := func(w wrapping) bool { return w.what.File == own || !id.IsZero() && w.what.ID == id }
	slices.SortStableFunc(wrappings, func(a, b wrapping) int { return boolToInt(isOwn(b)) - boolToInt(isOwn(a)) })
	return len(wrappings) > 0 && isOwn(wrappings[0])
}

// recipientOf is what wraps for a recipient again: its public key, or the passphrase that opens its key file. Nil: nothing.
func recipientOf(ctx context.Context, store storage.Store, r Recipient, passphrases []Passphrase) (age.Recipient, error) {
	if r.Known && r.PublicKey != "" {
		if to, err := ParseRecipient(r.PublicKey); err == nil {
			return to, nil
		}
		return nil, nil
	}
	if r.Kind != KindPassphrase || len(passphrases) == 0 {
		return nil, nil
	}
	content, err := storage.ReadAll(ctx, store, r.File.Path(), MaxFile)
	if err != nil {
		return nil, err
	}
	for _, passphrase := range passphrases {
		identity, err := passphrase.Identity()
		if err != nil {
			return nil, err
		}
		if _, err := Open(content, identity); err == nil {
			return passphrase.Recipient()
		}
	}
	return nil, nil
}

// claimGeneration reserves a generation that no other program makes a key of.
func claimGeneration(ctx context.Context, store storage.Store, newest uint32, now time.Time) (uint32, error) {
	for generation := newest + 1; generation <= MaxGeneration; generation++ {
		err := store.Put(ctx, Folder+generationName(generation), []byte("claimed "+now.UTC().Format(time.RFC3339)+"\n"))
		if !errors.Is(err, storage.ErrExists) {
			return generation, err
		}
	}
	return 0, fmt.Errorf("no generation of data keys is left up to %d", MaxGeneration)
}
