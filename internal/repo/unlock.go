package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"filippo.io/age"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
	"ferry/internal/storage"
)

// Errors of opening an encrypted repository.
var (
	// ErrWrongKey: keys were given, and none of them opens the repository.
	ErrWrongKey = keyring.ErrWrongKey
	// ErrNoKeyFiles: the repository is encrypted, and its key files are lost or damaged: no key opens it, but a recovery kit.
	ErrNoKeyFiles = keyring.ErrNoKeyFiles
)

// KeyKind is what a key file is encrypted to.
type KeyKind = keyring.Kind

// The kinds of recipients.
const (
	KeyPassphrase = keyring.KindPassphrase
	KeyX25519     = keyring.KindX25519
	KeyHybrid     = keyring.KindHybrid
)

// KeySource gives the keys that a person or a configuration has.
type KeySource interface {
	// Identities is asked when a repository turns out to be encrypted, and again as long as nothing opened it. None ends
	// that.
	Identities(ctx context.Context, request KeyRequest) ([]age.Identity, error)
}

// KeyRequest says what a key is needed for.
type KeyRequest struct {
	// Location of the repository.
	Location string
	// Kinds of key files that the repository has.
	Kinds []KeyKind
	// Try counts from 0.
	Try int
	// Given is true if only keys that were given are wanted: nobody is to be asked yet.
	Given bool
}

// KeyRecipient is whom a repository is to be opened by.
type KeyRecipient struct {
	To age.Recipient
	// PublicKey is its text, empty for a passphrase.
	PublicKey string
	// Label is what a person calls it; may be empty.
	Label string
}

// onlyGiven is a source of keys of which nobody is asked for one.
type onlyGiven struct{ KeySource }

func (g onlyGiven) Identities(ctx context.Context, request KeyRequest) ([]age.Identity, error) {
	request.Given = true
	return g.KeySource.Identities(ctx, request)
}

// unlock finds the key ring of an encrypted repository in its key files. Without a source, or with one that has no key, the error
// wraps ErrNeedsKey; it may wrap ErrWrongKey or ErrNoKeyFiles as well.
func unlock(ctx context.Context, store storage.Store, description format.Description, source KeySource) (*keyring.Ring, []string, error) {
	ring, warnings, err := keyring.Load(ctx, store, description.ID, description.KeyCheck, func(ctx context.Context, try int, has []KeyKind) ([]age.Identity, error) {
		if source == nil {
			return nil, nil
		}
		return source.Identities(ctx, KeyRequest{Location: store.Location(), Kinds: has, Try: try})
	})
	if err == nil {
		return ring, warnings, nil
	}
	if errors.Is(err, ErrNoKeyFiles) {
		return nil, warnings, noKeyFiles(store, err)
	}
	hint := ""
	if errors.Is(err, ErrNeedsKey) || errors.Is(err, ErrWrongKey) {
		hint = keyHint(ctx, store)
	}
	return nil, warnings, &backup.Error{Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", store.Location(), err), Hint: hint}
}

// unlockKnown finds the key ring in the key file that this machine opened the repository with before, where each request is a round trip.
// Nobody is asked for a key. Nil: unlock is to be asked. What it does not see is that other people's key files are damaged.
func unlockKnown(ctx context.Context, store storage.Store, description format.Description, env Environment) *keyring.Ring {
	known, is := newCache(env.CacheDir, description).keyFile()
	if !is || env.Keys == nil || storage.ParallelReads(store) < 2 {
		return nil
	}
	given, err := env.Keys.Identities(ctx, KeyRequest{Location: store.Location(), Given: true})
	if err != nil || len(given) == 0 {
		return nil
	}
	return keyring.LoadKnown(ctx, store, known, description.ID, description.KeyCheck, given)
}

// keepKeyFile remembers by which key file the repository was opened, for unlockKnown: unless there is something to warn of each time.
func keepKeyFile(description format.Description, env Environment, ring *keyring.Ring, warnings []string) {
	if file, whole := ring.File(); whole && len(warnings) == 0 && file.Generation == ring.Newest() {
		newCache(env.CacheDir, description).keepKeyFile(file)
	}
}

// noKeyFiles says of an ErrNoKeyFiles who can read the repository all the same, and what is to be done.
func noKeyFiles(store storage.Store, err error) error {
	return &backup.Error{
		Offset: backup.NoOffset, Err: fmt.Errorf("%s: %w", store.Location(), err),
		Hint: "bring keys/ back from a copy of the repository; without it only who has the recovery kit can read it, with --identity KIT; " +
			"a new key file is made from it by: ferry repo recover --kit KIT " + store.Location(),
	}
}

// lockedError is why a repository is locked. It is an ErrNeedsKey, whether or not a key was given.
type lockedError struct{ reason error }

func (e *lockedError) Error() string   { return e.reason.Error() }
func (e *lockedError) Unwrap() []error { return []error{ErrNeedsKey, e.reason} }

// WhyLocked says in a part of a sentence why the repository is locked; it is empty if it is not.
func (r *Repository) WhyLocked() string {
	var none *keyring.NoKeyFilesError
	switch {
	case r.locked == nil:
		return ""
	case errors.As(r.locked, &none):
		return none.Reason()
	}
	return "no key was given"
}

// keyHint says which keys a repository has, and how to give one.
func keyHint(ctx context.Context, store storage.Store) string {
	list, err := keyring.Recipients(ctx, store, nil)
	if err != nil {
		return "" // the error of opening is the one to report
	}
	ids := map[KeyKind][]string{}
	for _, r := range list {
		if r.Damaged {
			continue
		}
		ids[r.Kind] = append(ids[r.Kind], r.File.ID.String()[:keyIDShown])
	}
	var ways []string
	for _, way := range []struct {
		kind KeyKind
		how  string
	}{
		{KeyPassphrase, "a passphrase (--passphrase-file, --passphrase-command or FERRY_PASSPHRASE)"},
		{KeyX25519, "an age key (--identity FILE)"},
		{KeyHybrid, "a hybrid age key (--identity FILE)"},
	} {
		if len(ids[way.kind]) > 0 {
			ways = append(ways, fmt.Sprintf("%s: %s", way.how, strings.Join(ids[way.kind], ", ")))
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return "it opens with " + strings.Join(ways, "; or ")
}

// keyIDShown is how many digits of a key file's id messages show.
const keyIDShown = 12

// wrapRing makes key files for recipients. If it fails, those that were made are removed again.
func wrapRing(ctx context.Context, store storage.Store, ring *keyring.Ring, recipients []KeyRecipient, now time.Time) ([]keyring.Recipient, error) {
	var made []keyring.Recipient
	for _, r := range recipients {
		added, err := keyring.Add(ctx, store, ring, r.To, keyring.Recipient{PublicKey: r.PublicKey, Label: r.Label, Added: now})
		if err != nil {
			unwrapRing(ctx, store, made)
			return nil, err
		}
		made = append(made, added)
	}
	return made, nil
}

// unwrapRing removes key files that are of no use: of a repository that was not made.
func unwrapRing(ctx context.Context, store storage.Store, made []keyring.Recipient) {
	for _, r := range made {
		_ = keyring.Remove(context.WithoutCancel(ctx), store, r.File) // the error that led here is the one to report
	}
}
