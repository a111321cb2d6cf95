package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
)

const (
	noteSalt = 16
	maxNote  = 64 << 10
	noteInfo = "ferry v1 recipient"
)

// ErrTooMany: there are as many key files as there may be.
var ErrTooMany = fmt.Errorf("no more than %d recipients", maxFiles)

// Recipient is somebody or something that can open the repository.
type Recipient struct {
	File File
	Kind Kind
	// Known is false if there is no note that the ring can read: the fields below are empty then.
	Known bool
	// ID stays the same over rotations.
	ID format.Name
	// PublicKey is empty for a passphrase.
	PublicKey string
	// Label is what a person calls it; may be empty.
	Label string
	Added time.Time

	// Unread is why the storage did not give the note, though it has one.
	Unread error

	// Damaged is true if the key file is not what was written: nobody opens the repository by it.
	Damaged bool
}

// noteJSON is the note about a key file, section 10.2.
type noteJSON struct {
	Recipient format.Name `json:"recipient"`
	PublicKey string      `json:"publicKey"`
	Label     string      `json:"label"`
	Added     time.Time   `json:"added"`
}

// Add makes a key file that wraps the ring for a recipient, and the note about it. ID, PublicKey, Label and Added are taken
// from what; a zero ID gets a fresh one.
func Add(ctx context.Context, store storage.Store, ring *Ring, to age.Recipient, what Recipient) (Recipient, error) {
	added, err := addAll(ctx, store, ring, []wrapping{{to, what}})
	if err != nil {
		return Recipient{}, err
	}
	return added[0], nil
}

// addAll makes key files, one after the other, when they are in the newest list.
func addAll(ctx context.Context, store storage.Store, ring *Ring, wrappings []wrapping) ([]Recipient, error) {
	there, list, err := look(ctx, store)
	if err != nil {
		return nil, err
	}
	older := slices.DeleteFunc(slices.Clone(there), func(f File) bool { return f.Generation == ring.Newest() })
	if len(there)-len(older)+len(wrappings) > maxFiles {
		return nil, ErrTooMany
	}
	var added []Recipient
	var names []File
	var contents, notes [][]byte
	for _, w := range wrappings {
		recipient, content, note, err := wrap(ring, w)
		if err != nil {
			return nil, err
		}
		added, names = append(added, recipient), append(names, recipient.File)
		contents, notes = append(contents, content), append(notes, note)
	}
	if err := list.change(ctx, store, with(names)); err != nil {
		return nil, err
	}
	for i, file := range names {
		if err := store.Put(ctx, file.NotePath(), notes[i]); err != nil {
			return nil, err
		}
		if err := store.Put(ctx, file.Path(), contents[i]); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// wrap makes the contents of a key file and of its note.
func wrap(ring *Ring, w wrapping) (recipient Recipient, content, note []byte, err error) {
	if content, err = Seal(ring, w.to); err != nil {
		return Recipient{}, nil, nil, err
	}
	recipient = w.what
	if recipient.ID.IsZero() {
		recipient.ID = format.RandomName()
	}
	recipient.File, recipient.Kind, recipient.Known = FileOf(ring.Newest(), content), KindOf(content), true
	recipient.Added = recipient.Added.UTC().Truncate(time.Second)
	var salt [noteSalt]byte
	rand.Read(salt[:]) // never fails: crypto/rand ends the program instead
	note, err = sealNote(ring, salt, recipient)
	return recipient, content, note, err
}

// Remove deletes a key file and its note, for good: a power cut does not bring them back. The list goes first: a file that it names
// and that is not there is one that somebody else has deleted.
func Remove(ctx context.Context, store storage.Store, file File) error {
	if err := relist(ctx, store, without(func(other File) bool { return other == file })); err != nil {
		return err
	}
	err := store.Delete(ctx, file.Path())
	if err == nil { // before the note goes: a file that comes back without it is nobody knows whose
		err = storage.SyncDeletes(ctx, store, Folder)
	}
	if err == nil {
		err = store.Delete(ctx, file.NotePath())
	}
	if err != nil {
		return errors.Join(err, relistKept(context.WithoutCancel(ctx), store, file))
	}
	return storage.SyncDeletes(ctx, store, Folder)
}

// relistKept lists a file again that could not be removed. One that is gone stays off the list: only its note is left, or the answer
// to its deletion was lost.
func relistKept(ctx context.Context, store storage.Store, file File) error {
	if _, err := store.Stat(ctx, file.Path()); errors.Is(err, storage.ErrNotExist) {
		return nil
	}
	return relist(ctx, store, with([]File{file}))
}

// remove deletes a key file and its note. They may come back until the folder is synced.
func remove(ctx context.Context, store storage.Store, file File) error {
	if err := store.Delete(ctx, file.Path()); err != nil {
		return err
	}
	return store.Delete(ctx, file.NotePath())
}

// Recipients lists whom the key files are for, the newest generation first. Without a ring (nil) it tells file and kind only.
func Recipients(ctx context.Context, store storage.Store, ring *Ring) ([]Recipient, error) {
	files, err := Files(ctx, store)
	if err != nil {
		return nil, err
	}
	var list []Recipient
	for _, file := range files {
		content, err := storage.ReadAll(ctx, store, file.Path(), MaxFile)
		if storage.Absent(err) {
			continue // removed just now
		}
		if err := passing(err); err != nil {
			return nil, err
		}
		recipient := Recipient{File: file, Kind: KindOf(content), Damaged: CheckFile(file, content) != nil}
		if ring != nil {
			raw, err := storage.ReadAll(ctx, store, file.NotePath(), maxNote)
			if err != nil && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if recipient.Unread = passing(err); err == nil {
				openNote(ring, raw, &recipient)
			}
		}
		list = append(list, recipient)
	}
	return list, nil
}

// Leftovers parts the key files that nobody needs from the others: the only place that decides it (docs/format.md, section
// 10.2). Such a file's generation was replaced by the last rotation that ended, which made the generation rotated (0: none
// did), or by a whole key file of the same recipient. The storage may have kept it, a power cut may have brought it back, with
// or without its note, or a rotation was interrupted.
//
// That the log has a MAC of a newer generation shows nothing: so it is as soon as one recipient of an interrupted rotation
// writes, and the old file may be all that another has. Nor is the generation of another rotation at the same time a leftover:
// only its files may hold its key.
func (r *Ring) Leftovers(all []Recipient, rotated uint32) (list, leftovers []Recipient) {
	replaces := func(newer, older uint32) bool { return newer != older && r.Follows(newer, older) }
	for _, one := range all {
		if replaces(rotated, one.File.Generation) || one.Known && slices.ContainsFunc(all, func(other Recipient) bool {
			return other.Known && !other.Damaged && other.ID == one.ID && replaces(other.File.Generation, one.File.Generation)
		}) {
			leftovers = append(leftovers, one)
		} else {
			list = append(list, one)
		}
	}
	return list, leftovers
}

func noteCipher(ring *Ring, file File, salt []byte) (cipher.AEAD, error) {
	key, err := ring.Derive(file.Generation, salt, noteInfo)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// noteNonce may be the same always: the salt makes a key for every note.
var noteNonce [12]byte

// sealNote makes the note about a key file under a salt, which must be fresh.
func sealNote(ring *Ring, salt [noteSalt]byte, r Recipient) ([]byte, error) {
	plain, err := json.Marshal(noteJSON{Recipient: r.ID, PublicKey: r.PublicKey, Label: r.Label, Added: r.Added})
	if err != nil {
		return nil, err
	}
	aead, err := noteCipher(ring, r.File, salt[:])
	if err != nil {
		return nil, err
	}
	note := aead.Seal(salt[:], noteNonce[:], plain, []byte(r.File.base()))
	if len(note) > maxNote {
		return nil, fmt.Errorf("a label of %d bytes is longer than one can be", len(r.Label))
	}
	return note, nil
}

// openNote fills in what the note says; nothing if it cannot be read or is not the ring's.
func openNote(ring *Ring, raw []byte, r *Recipient) {
	if len(raw) < noteSalt {
		return
	}
	aead, err := noteCipher(ring, r.File, raw[:noteSalt])
	if err != nil {
		return
	}
	plain, err := aead.Open(nil, noteNonce[:], raw[noteSalt:], []byte(r.File.base()))
	var note noteJSON
	if err != nil || json.Unmarshal(plain, &note) != nil {
		return
	}
	r.Known, r.ID, r.PublicKey, r.Label, r.Added = true, note.Recipient, note.PublicKey, note.Label, note.Added
}
