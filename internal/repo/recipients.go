package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// Errors of changing who can open a repository.
var (
	// ErrNotEncrypted: the repository is not, and cannot become so: encryption is chosen when it is made.
	ErrNotEncrypted = errors.New("the repository is not encrypted")
	// ErrNoSuchKey: no key file has this id, or several begin with it.
	ErrNoSuchKey = errors.New("no such key")
	// ErrSameKey: the recipient can open the repository already.
	ErrSameKey = errors.New("this public key can open the repository already")
	// ErrLastRecipient: nobody would be left who can open the repository.
	ErrLastRecipient = keyring.ErrLastRecipient
	// ErrOutdatedKey: there is a newer generation of keys than the key given opens.
	ErrOutdatedKey = keyring.ErrOutdated
)

// Passphrase is a secret that a person knows. It prints as a placeholder.
type Passphrase = keyring.Passphrase

// NewPassphrase takes a secret, which must not be empty to be of use.
func NewPassphrase(secret string) Passphrase { return keyring.NewPassphrase(secret) }

// SetPassphraseWork is for tests: it makes trying passphrases fast, also for those who should not.
func SetPassphraseWork(factor int) { keyring.SetWork(factor) }

// PassphraseRecipient is a recipient that a passphrase opens for.
func PassphraseRecipient(passphrase Passphrase, label string) (KeyRecipient, error) {
	to, err := passphrase.Recipient()
	return KeyRecipient{To: to, Label: label}, err
}

// ParseRecipient reads the public key of an age key. Errors tell nothing of the text, which may be a secret by mistake.
func ParseRecipient(publicKey, label string) (KeyRecipient, error) {
	to, err := keyring.ParseRecipient(publicKey)
	return KeyRecipient{To: to, PublicKey: strings.TrimSpace(publicKey), Label: label}, err
}

// Key is a key file: what somebody or something opens the repository by.
type Key struct {
	// ID is 32 hex digits, made from the file. Not secret.
	ID string
	// Generation of the newest data key in it.
	Generation uint32
	Kind       KeyKind
	// Known is false where nothing is known but the file: the fields below are empty then.
	Known bool
	// PublicKey is empty for a passphrase.
	PublicKey string
	Label     string
	Added     time.Time
	// Damaged is true if the file is not what was written: nobody opens the repository by it.
	Damaged bool

	file keyring.File
}

func describeKey(r keyring.Recipient) Key {
	return Key{
		ID: r.File.ID.String(), Generation: r.File.Generation, Kind: r.Kind, Known: r.Known, PublicKey: r.PublicKey, Label: r.Label, Added: r.Added, Damaged: r.Damaged, file: r.File,
	}
}

// PostQuantum is true if a computer that breaks elliptic curves does not open a repository by this key. One that is damaged until nothing
// tells its kind opens nothing.
func (k Key) PostQuantum() bool {
	return k.Kind.PostQuantum() || k.Damaged && k.Kind == keyring.KindUnknown
}

// PostQuantum is true if a computer that breaks elliptic curves does not open a repository by these keys: the weakest of
// them counts.
func PostQuantum(keys []Key) bool {
	for _, key := range keys {
		if !key.PostQuantum() {
			return false
		}
	}
	return true
}

// ListKeys lists the key files: the newest generation first, then in the order in which they were added. Leftovers of
// rotations, which nobody needs, are not among them. A locked repository tells ids and kinds only, and cannot tell leftovers. Where
// the storage does not say what is known of a key, the error is beside the list; so is ErrNoKeyFiles where none of them is whole.
func (r *Repository) ListKeys(ctx context.Context) ([]Key, error) {
	if !r.description.Encrypted {
		return nil, ErrNotEncrypted
	}
	list, _, err := r.recipients(ctx)
	for _, one := range list {
		err = cmp.Or(err, one.Unread)
	}
	if err == nil && !slices.ContainsFunc(list, func(one keyring.Recipient) bool { return !one.Damaged }) {
		err = noKeyFiles(r.store, &keyring.NoKeyFilesError{Damaged: len(list)})
	}
	return describeKeys(list), err
}

// recipients lists whom the key files are for, and apart from them the leftovers of rotations.
func (r *Repository) recipients(ctx context.Context) (list, leftovers []keyring.Recipient, err error) {
	ring := r.ring()
	all, err := keyring.Recipients(ctx, r.store, ring)
	if ring == nil || err != nil {
		return all, nil, err
	}
	list, leftovers = ring.Leftovers(all, r.keys.rotated.Load())
	return list, leftovers, nil
}

// describeKeys sorts them, too.
func describeKeys(list []keyring.Recipient) []Key {
	var keys []Key
	for _, recipient := range list {
		keys = append(keys, describeKey(recipient))
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), a.Added.Compare(b.Added), cmp.Compare(a.ID, b.ID))
	})
	return keys
}

// KeyGeneration is the generation of the data key for what is written from now on; 0 without the key.
func (r *Repository) KeyGeneration() uint32 { return r.hasher.Generation() }

// ring is nil if the repository is not encrypted, or locked.
func (r *Repository) ring() *keyring.Ring {
	if r.keys == nil {
		return nil
	}
	return r.keys.ring.Load()
}

// mustHaveRing returns an error unless the ring is here.
func (r *Repository) mustHaveRing() error {
	if !r.description.Encrypted {
		return ErrNotEncrypted
	}
	return r.locked
}

// mustChangeKeys returns an error unless the ring is here, and what lies in keys/ may be written. A repository that was rolled back may still
// be given a key.
func (r *Repository) mustChangeKeys() error {
	r.mu.Lock()
	readOnly := r.readOnly
	r.mu.Unlock()
	return errors.Join(r.mustHaveRing(), readOnly)
}

// AddKey lets a recipient open the repository. Nothing but keys/ is written, and a list of what is there.
func (r *Repository) AddKey(ctx context.Context, recipient KeyRecipient) (Key, error) {
	if err := r.mustChangeKeys(); err != nil {
		return Key{}, err
	}
	if err := r.Refresh(ctx); err != nil { // somebody else may have rotated
		return Key{}, err
	}
	there, _, err := r.recipients(ctx) // notes that cannot be read keep nobody from getting a key
	if err != nil {
		return Key{}, err
	}
	for _, key := range describeKeys(there) {
		if recipient.PublicKey != "" && key.PublicKey == recipient.PublicKey && key.Generation == r.ring().Newest() {
			return key, ErrSameKey
		}
	}
	added, err := keyring.Add(ctx, r.store, r.ring(), recipient.To, keyring.Recipient{PublicKey: recipient.PublicKey, Label: recipient.Label, Added: r.env.now()})
	if err != nil {
		return Key{}, err
	}
	if err := r.Refresh(ctx); err != nil { // and so they may have meanwhile, without having seen it
		return Key{}, err
	}
	if _, leftover := r.ring().Leftovers([]keyring.Recipient{added}, r.keys.rotated.Load()); len(leftover) > 0 {
		return Key{}, errRotatedMeanwhile
	}
	return describeKey(added), nil
}

// RemoveKey deletes the key file whose id begins with what is given. Nothing but keys/ is written, and such a list. Whoever opened the
// repository with it may have kept the keys: RotateKeys makes new ones for what is written from then on.
//
// The last key file is not removed, nor the last one that something is known of: the others may be anybody's. One that is not there
// and that the list names is taken off it: adding it was interrupted, or somebody has deleted it.
func (r *Repository) RemoveKey(ctx context.Context, id string) (Key, error) {
	if err := r.mustChangeKeys(); err != nil {
		return Key{}, err
	}
	if err := r.Refresh(ctx); err != nil { // somebody else may have rotated: whose the new key files are is not known before
		return Key{}, err
	}
	list, leftovers, err := r.recipients(ctx)
	if err != nil {
		return Key{}, err
	}
	for _, one := range list {
		if one.Unread != nil { // it may be another file of the one that is to go
			return Key{}, one.Unread
		}
	}
	keys := describeKeys(list)
	key, err := findKey(keys, id)
	if errors.Is(err, ErrNoSuchKey) {
		return r.unlistKey(ctx, slices.Concat(list, leftovers), id, err)
	}
	if err != nil {
		return Key{}, err
	}
	left := 0
	for _, other := range keys {
		if other.file != key.file && other.Generation == r.ring().Newest() && other.Known {
			left++
		}
	}
	if left == 0 && key.Generation == r.ring().Newest() {
		return Key{}, ErrLastRecipient
	}
	for _, leftover := range leftovers { // one of them may be for the same recipient
		var locked *storage.LockedError
		if err := keyring.Remove(ctx, r.store, leftover.File); err != nil && !errors.As(err, &locked) {
			return Key{}, err
		}
	}
	return key, keyring.Remove(ctx, r.store, key.file)
}

// unlistKey takes a key file off the list that is not there. If there is none whose id begins so, it returns what was found before.
func (r *Repository) unlistKey(ctx context.Context, there []keyring.Recipient, id string, none error) (Key, error) {
	files, err := keyring.Files(ctx, r.store)
	if err != nil {
		return Key{}, err
	}
	key, err := findKey(describeKeys(onlyNamed(files, there)), id)
	if err != nil {
		return Key{}, none
	}
	return key, keyring.Remove(ctx, r.store, key.file)
}

// leastKeyID is how many digits of a key's id must be given.
const leastKeyID = 6

func findKey(keys []Key, id string) (found Key, err error) {
	if len(id) < leastKeyID {
		return found, fmt.Errorf("%w: at least %d digits of its id are needed", ErrNoSuchKey, leastKeyID)
	}
	n := 0
	for _, key := range keys {
		if strings.HasPrefix(key.ID, id) {
			found = key
			n++
		}
	}
	switch n {
	case 0:
		return found, fmt.Errorf("%w: %s", ErrNoSuchKey, backup.EncodeName(id))
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%w: %d keys begin with %s", ErrNoSuchKey, n, id)
}

// errRotatedMeanwhile: somebody else rotated the keys while they were rotated or one was added, and may not have seen the key
// files that were made for that. They do no harm.
var errRotatedMeanwhile = errors.New("somebody else rotated the keys at the same time: look at who has them (ferry key list), and try again")

// RotateOptions say what a rotation is given.
type RotateOptions struct {
	// Passphrases of the recipients that have one.
	Passphrases []Passphrase
	// Drop are ids of keys, or what they begin with, that do not get the new data key.
	Drop []string
}

// CannotRotateError names keys that a new data key cannot be given to.
type CannotRotateError struct{ Keys []Key }

// Error counts them; the caller names them.
func (e *CannotRotateError) Error() string {
	return fmt.Sprintf("the new data key cannot be given to %d of the recipients", len(e.Keys))
}

// LateKeysError: the rotation is done, and these keys were added while it ran: they do not have the new data key.
type LateKeysError struct{ Keys []Key }

// Error counts them; the caller names them.
func (e *LateKeysError) Error() string {
	return fmt.Sprintf("%d keys were added while the keys were rotated, and do not have the new data key", len(e.Keys))
}

// RotateKeys makes a new generation of the data key for new packs, and gives it to all recipients that are not dropped. What
// is stored stays as it is, and readable. The error may be a CannotRotateError: then nothing was done; or a LateKeysError beside
// the result.
func (r *Repository) RotateKeys(ctx context.Context, options RotateOptions) ([]Key, error) {
	if err := errors.Join(r.mustHaveRing(), r.Writable()); err != nil {
		return nil, err
	}
	if err := r.Refresh(ctx); err != nil { // somebody else may have rotated
		return nil, err
	}
	there, _, err := r.recipients(ctx) // also one whose note cannot be read may be dropped
	if err != nil {
		return nil, err
	}
	present := describeKeys(there)
	rotation := keyring.Rotation{Passphrases: options.Passphrases, Reached: r.keys.reached.Load(), Rotated: r.keys.rotated.Load(), Now: r.env.now()}
	for _, id := range options.Drop {
		key, err := findKey(present, id)
		if err != nil {
			return nil, err
		}
		rotation.Drop = append(rotation.Drop, key.file)
	}
	// An entry with the new key's MAC: a ring with another key of this generation is found out by it. It also says that the
	// rotation is done.
	rotation.Commit = func(next *keyring.Ring) error {
		r.keys.ring.Store(next)
		return r.commit(ctx, &commitlog.Payload{Rotated: next.Newest()}, func(*commitlog.State) error {
			if r.KeyGeneration() != next.Newest() {
				return errRotatedMeanwhile
			}
			return nil
		})
	}
	_, list, err := keyring.Rotate(ctx, r.store, r.ring(), rotation)
	var cannot *keyring.CannotWrapError
	if errors.As(err, &cannot) {
		return nil, &CannotRotateError{Keys: describeKeys(cannot.Recipients)}
	}
	var late *keyring.LateError
	if errors.As(err, &late) {
		err = &LateKeysError{Keys: describeKeys(late.Recipients)}
	}
	return describeKeys(list), err
}
