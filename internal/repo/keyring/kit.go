package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"ferry/internal/repo/format"
)

const (
	kitFormat  = "ferry-recovery-kit"
	kitVersion = 1
	kitTitle   = "Ferry recovery kit"
	kitBegin   = "-----BEGIN FERRY RECOVERY KIT-----"
	kitEnd     = "-----END FERRY RECOVERY KIT-----"
	// MaxKit is the size of the largest recovery kit, in bytes.
	MaxKit = 1 << 20
)

// Errors of reading recovery kits.
var (
	// ErrNoKit: the file is not a recovery kit.
	ErrNoKit = errors.New("not a recovery kit of ferry")
	// ErrKitPassphrase: the kit is encrypted, and no passphrase given opens it.
	ErrKitPassphrase = errors.New("it is encrypted, and no passphrase given opens it")
)

// Kit is what a repository is recovered with when its key files are lost (section 10.4).
type Kit struct {
	Ring *Ring
	// Exported is when the kit was made.
	Exported time.Time
	// Entries is the number of log entries that there were then, and Checksum that of the last.
	Entries  uint64
	Checksum format.ID
}

type kitJSON struct {
	Format   string          `json:"format"`
	Version  int             `json:"version"`
	Exported time.Time       `json:"exported"`
	Entries  uint64          `json:"entries"`
	Checksum format.ID       `json:"checksum"`
	Ring     json.RawMessage `json:"ring"`
}

// Encode writes the kit as text, with what it is for and how it is used. An empty passphrase leaves it open to everyone who
// can read it.
func (k Kit) Encode(location string, passphrase Passphrase) ([]byte, error) {
	secret, err := json.MarshalIndent(kitJSON{
		Format: kitFormat, Version: kitVersion, Exported: k.Exported.UTC().Truncate(time.Second), Entries: k.Entries, Checksum: k.Checksum, Ring: k.Ring.Encode(),
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	secret = append(secret, '\n')
	how := "Anyone who reads this file can read the repository. Keep it offline and away from\nthe repository: on paper in a safe, or in a password manager."
	if !passphrase.IsEmpty() {
		how = "This file is encrypted with a passphrase, and worth nothing without it. Keep both,\napart from each other and away from the repository."
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, kitTitle+`

Repository  %s
Exported    %s, at %s
Data keys   up to generation %d

%s

What it is for: the repository is encrypted, and its folder keys/ or every key to it
is lost. This file brings access back. Whole, as it is, it goes into

    ferry repo recover --kit THIS-FILE REPOSITORY

which asks for a new passphrase (or takes --recipient age1...) and reads no data.
Where nothing may be written to it, this file is a key by itself:

    ferry restore REPOSITORY MACHINE --to FOLDER --identity THIS-FILE

After "ferry key rotate", export a new one: this one does not open the repository
any more.

`, k.Ring.Repository, k.Exported.UTC().Format(time.RFC3339), location, k.Ring.Newest(), how)
	if passphrase.IsEmpty() {
		fmt.Fprintf(&out, "%s\n%s%s\n", kitBegin, secret, kitEnd)
		return out.Bytes(), nil
	}
	err = encryptArmored(&out, secret, passphrase)
	return out.Bytes(), err
}

func encryptArmored(out io.Writer, secret []byte, passphrase Passphrase) error {
	defer debug.FreeOSMemory()
	to, err := passphrase.Recipient()
	if err != nil {
		return err
	}
	text := armor.NewWriter(out)
	w, err := age.Encrypt(text, to)
	if err != nil {
		return err
	}
	if _, err := w.Write(secret); err != nil {
		return err
	}
	return errors.Join(w.Close(), text.Close())
}

// IsKit is true if a file is a kit, whole or not. One that was typed off the paper may have nothing but what stands between its marks:
// of a file that age encrypted with a passphrase only its content tells whether it is one.
func IsKit(file []byte) bool {
	if !KitIsEncrypted(file) {
		return bytes.Contains(file, []byte(kitBegin))
	}
	if bytes.Contains(file, []byte(kitTitle)) {
		return true
	}
	raw, _ := io.ReadAll(armor.NewReader(strings.NewReader(armored(file)))) // who reads it is told what is wrong with the rest
	return KindOf(raw) == KindPassphrase
}

// KitIsEncrypted is true if a kit needs a passphrase.
func KitIsEncrypted(file []byte) bool { return bytes.Contains(file, []byte(armor.Header)) }

// DecodeKit reads a kit. The passphrases are tried on one that is encrypted. Errors wrap ErrNoKit, ErrKitPassphrase,
// format.ErrCorrupt or format.ErrNewer and tell nothing of the content.
func DecodeKit(file []byte, passphrases ...Passphrase) (Kit, error) {
	if len(file) > MaxKit {
		return Kit{}, fmt.Errorf("%w: too large", ErrNoKit)
	}
	// Editors and mail programs change line ends and indent.
	file = bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))
	secret := between(file, kitBegin, kitEnd)
	if KitIsEncrypted(file) {
		var err error
		if secret, err = decryptArmored(armored(file), passphrases); err != nil {
			return Kit{}, err
		}
	}
	if secret == "" {
		return Kit{}, ErrNoKit
	}
	var in kitJSON
	switch err := json.Unmarshal([]byte(secret), &in); {
	case err != nil && KitIsEncrypted(file):
		return Kit{}, ErrNoKit // it is what was encrypted: something else
	case err != nil || in.Format != kitFormat || in.Version < 1:
		return Kit{}, format.ErrCorrupt
	}
	if in.Version > kitVersion {
		return Kit{}, format.ErrNewer
	}
	ring, err := Decode(in.Ring)
	if err != nil {
		return Kit{}, err
	}
	return Kit{Ring: ring, Exported: in.Exported, Entries: in.Entries, Checksum: in.Checksum}, nil
}

// armored is the encrypted part of a kit as age writes it: whoever typed it may have indented it and ended lines elsewhere.
func armored(file []byte) string {
	var text strings.Builder
	text.WriteString(armor.Header + "\n")
	for line := range slices.Chunk([]byte(strings.Join(strings.Fields(between(file, armor.Header, armor.Footer)), "")), armorColumns) {
		text.Write(append(line, '\n'))
	}
	text.WriteString(armor.Footer)
	return text.String()
}

// armorColumns are the characters of a line of what age writes as text.
const armorColumns = 64

// between returns what stands between two marks, or "".
func between(file []byte, begin, end string) string {
	_, rest, _ := strings.Cut(string(file), begin)
	inside, _, found := strings.Cut(rest, end)
	if !found {
		return ""
	}
	return inside
}

func decryptArmored(armored string, passphrases []Passphrase) (string, error) {
	defer debug.FreeOSMemory()
	var identities []age.Identity
	for _, passphrase := range passphrases {
		identity, err := passphrase.Identity()
		if err != nil {
			return "", err
		}
		identities = append(identities, identity)
	}
	if len(identities) == 0 {
		return "", ErrKitPassphrase
	}
	plain, err := age.Decrypt(armor.NewReader(strings.NewReader(armored)), identities...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return "", ErrKitPassphrase
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	secret, err := io.ReadAll(plain)
	if err != nil {
		return "", fmt.Errorf("%w: %w", format.ErrCorrupt, err)
	}
	return string(secret), nil
}
