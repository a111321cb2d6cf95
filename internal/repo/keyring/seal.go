package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"filippo.io/age"

	"ferry/internal/repo/format"
)

// ErrNoMatch: none of the identities opens the key file.
var ErrNoMatch = errors.New("no key given opens this key file")

// Limits of a key file.
const (
	// MaxFile is the size of the largest key file, in bytes.
	MaxFile = 128 << 10
	// maxWork is the largest work factor of scrypt that is tried, as a power of two: 1 GiB of memory and some seconds.
	maxWork = 20
)

// workFactor of new passphrase files: 128 MiB of memory and about half a second.
var workFactor = 17

// SetWork makes the work factor of new passphrase files another one, as a power of two. It is for tests, which have no half
// seconds, and to be called before any other function.
func SetWork(factor int) { workFactor = factor }

// Kind is what a key file is encrypted to.
type Kind string

// The kinds of recipients.
const (
	KindPassphrase Kind = "passphrase"
	KindX25519     Kind = "x25519"
	// KindHybrid is ML-KEM-768 with X25519: safe against quantum computers too.
	KindHybrid  Kind = "hybrid"
	KindUnknown Kind = "unknown"
)

// PostQuantum is true if a computer that breaks elliptic curves does not open files of this kind.
func (k Kind) PostQuantum() bool { return k == KindPassphrase || k == KindHybrid }

var stanzaKinds = map[string]Kind{"scrypt": KindPassphrase, "X25519": KindX25519, "mlkem768x25519": KindHybrid}

// KindOf says what a key file is encrypted to. It needs no key.
func KindOf(file []byte) Kind {
	header, err := age.ExtractHeader(bytes.NewReader(file))
	if err != nil {
		return KindUnknown
	}
	kind := KindUnknown
	for line := range strings.Lines(string(header)) {
		if stanza, ok := strings.CutPrefix(line, "-> "); ok {
			if kind != KindUnknown {
				return KindUnknown // one recipient per file
			}
			name, _, _ := strings.Cut(strings.TrimSpace(stanza), " ")
			if kind = stanzaKinds[name]; kind == "" {
				return KindUnknown
			}
		}
	}
	return kind
}

// kindOfIdentity is the kind of key files that an identity may open.
func kindOfIdentity(identity age.Identity) Kind {
	switch identity.(type) {
	case *age.ScryptIdentity:
		return KindPassphrase
	case *age.X25519Identity:
		return KindX25519
	case *age.HybridIdentity:
		return KindHybrid
	}
	return KindUnknown
}

// ParseRecipient reads a public key: age1pq1… for KindHybrid, else age1… for KindX25519. Errors tell nothing of the text, which
// may be a secret key given by mistake.
func ParseRecipient(text string) (age.Recipient, error) {
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "AGE-SECRET-KEY-"):
		return nil, errors.New("that is a secret key; give its public key, which begins with age1")
	case strings.HasPrefix(text, "age1pq1"):
		if recipient, err := age.ParseHybridRecipient(text); err == nil {
			return recipient, nil
		}
	case strings.HasPrefix(text, "age1"):
		if recipient, err := age.ParseX25519Recipient(text); err == nil {
			return recipient, nil
		}
	}
	return nil, errors.New("not a public key of age; one begins with age1")
}

// Seal makes a key file: the ring, encrypted to one recipient.
func Seal(ring *Ring, recipient age.Recipient) ([]byte, error) {
	if _, stretched := recipient.(*age.ScryptRecipient); stretched {
		defer debug.FreeOSMemory() // the memory for that is more than all else takes
	}
	var file bytes.Buffer
	w, err := age.Encrypt(&file, recipient)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(ring.Encode()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}

// Open reads a key file. The error wraps ErrNoMatch if no identity fits, and format.ErrCorrupt, format.ErrNewer or
// ErrForeign for files that no program makes.
func Open(file []byte, identities ...age.Identity) (*Ring, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("%w: larger than a key file can be", format.ErrCorrupt)
	}
	kind := KindOf(file)
	var fitting []age.Identity
	for _, identity := range identities {
		// An identity of a kind that is not known here may open anything.
		if own := kindOfIdentity(identity); own == kind || own == KindUnknown {
			fitting = append(fitting, identity)
		}
	}
	if len(fitting) == 0 {
		return nil, ErrNoMatch
	}
	if kind == KindPassphrase {
		defer debug.FreeOSMemory()
	}
	plain, err := age.Decrypt(bytes.NewReader(file), fitting...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, ErrNoMatch
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	raw, err := io.ReadAll(plain) // not more than the file
	if err != nil {
		return nil, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	defer clear(raw)
	return Decode(raw)
}
