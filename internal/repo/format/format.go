// Package format holds what all files of a repository share: the prelude, checksums, ids and the description in
// repository.json. docs/format.md is the specification; section numbers in comments refer to it.
package format

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Version of the repository format that this program reads and writes.
const Version = 1

// RequiredEncrypted is the required feature bit of encrypted repositories.
const RequiredEncrypted = 1 << 0

// OptionalLocked is the optional feature bit of repositories whose files are locked. It stands in repository.json only.
const OptionalLocked = 1 << 0

// Magic is what a binary file begins with (section 1).
type Magic string

// The kinds of binary files.
const (
	MagicLog        Magic = "FerryLog"
	MagicCheckpoint Magic = "FerryChk"
	MagicPoint      Magic = "FerryPnt"
	MagicPack       Magic = "FerryPak"
	MagicIndex      Magic = "FerryIdx"
	MagicPartial    Magic = "FerryPrt"
	MagicParity     Magic = "FerryPar"
	MagicVerified   Magic = "FerryVfy"
	MagicJob        Magic = "FerryJob"
	// MagicRemembered begins what a machine remembers of a repository, which is in no repository.
	MagicRemembered Magic = "FerryRem"
)

// PreludeSize is the size of the prelude in bytes.
const PreludeSize = 20

// Limits of the format.
const (
	// MaxBlock is the largest plain length of a block or node, in bytes.
	MaxBlock = 4 << 20
	// MinBlockSize and MaxBlockSize bound the block size of fixed blocks, a power of two.
	MinBlockSize = 4 << 10
	MaxBlockSize = MaxBlock
)

// Errors of reading files of a repository.
var (
	// ErrCorrupt: bytes are not what was written.
	ErrCorrupt = errors.New("corrupt")
	// ErrNewer: written by a newer program, with a version or feature this one does not know.
	ErrNewer = errors.New("needs a newer version of ferry")
	// ErrNeedsKey: encrypted, and no key was given.
	ErrNeedsKey = errors.New("encrypted, and no key was given")
	// ErrForged: the checksum holds, but not what only a holder of the key can make. It is an ErrCorrupt that no disk did.
	ErrForged error = forged{}
)

type forged struct{}

func (forged) Error() string { return "forged: the checksum holds, the proof by key does not" }

// Unwrap makes what is forged corrupt too: neither is to be relied on.
func (forged) Unwrap() error { return ErrCorrupt }

// AppendPrelude appends a prelude without feature bits.
func AppendPrelude(dst []byte, magic Magic) []byte {
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint32(dst, Version)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
}

// MarkEncrypted sets the required feature bit of files that hold encrypted bytes in a prelude.
func MarkEncrypted(prelude []byte) { prelude[12] |= RequiredEncrypted }

// IsEncrypted is true if the prelude has that bit.
func IsEncrypted(file []byte) bool {
	return len(file) >= PreludeSize && file[12]&RequiredEncrypted != 0
}

// CheckPrelude reads the prelude at the beginning of a file. Only points, packs and jobs may be encrypted. Errors wrap
// ErrCorrupt or ErrNewer.
func CheckPrelude(file []byte, magic Magic) error {
	if len(file) < PreludeSize {
		return fmt.Errorf("%w: %d bytes, shorter than any such file", ErrCorrupt, len(file))
	}
	if string(file[:8]) != string(magic) {
		return fmt.Errorf("%w: begins with %q, not %q", ErrCorrupt, file[:8], string(magic))
	}
	version := binary.LittleEndian.Uint32(file[8:])
	required := binary.LittleEndian.Uint32(file[12:])
	if magic == MagicPoint || magic == MagicPack || magic == MagicJob {
		required &^= RequiredEncrypted
	}
	switch {
	case version == 0:
		return fmt.Errorf("%w: version 0", ErrCorrupt)
	case version > Version:
		return fmt.Errorf("%w: format version %d", ErrNewer, version)
	case required != 0:
		return fmt.Errorf("%w: required features %#x", ErrNewer, required)
	}
	return nil
}

// HasUnknownOptional is true if the prelude has optional feature bits: files of this repository must not be changed
// by this version.
func HasUnknownOptional(file []byte) bool {
	return len(file) >= PreludeSize && binary.LittleEndian.Uint32(file[16:]) != 0
}

// ID is 32 bytes that a hash made: a block id, a node id, a root id or a checksum.
type ID [32]byte

// IsZero is true for the id that stands for "nothing" and "zeros".
func (id ID) IsZero() bool { return id == ID{} }

// String returns 64 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText makes an id a JSON string of hex digits.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error { return decodeHex(id[:], text) }

// Name is a random 128-bit id: of a repository, a domain, a pack, an index segment, a task; or a machine's pseudonym.
type Name [16]byte

// IsZero is true for a name that was never set.
func (n Name) IsZero() bool { return n == Name{} }

// String returns 32 hex digits.
func (n Name) String() string { return hex.EncodeToString(n[:]) }

// Compare orders names by their bytes.
func (n Name) Compare(other Name) int { return bytes.Compare(n[:], other[:]) }

// MarshalText makes a name a JSON string of hex digits.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *Name) UnmarshalText(text []byte) error { return decodeHex(n[:], text) }

func decodeHex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) {
		return fmt.Errorf("%w: %q is not %d hex digits", ErrCorrupt, text, 2*len(dst))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrCorrupt, text, err)
	}
	if bytes.ContainsAny(text, "ABCDEF") {
		return fmt.Errorf("%w: %q has upper-case hex digits", ErrCorrupt, text)
	}
	return nil
}
