package format

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// Keys are the data keys of an encrypted repository (section 10.1).
type Keys interface {
	// Derive makes the key for one use from the data key of a generation.
	Derive(generation uint32, salt []byte, info string) ([32]byte, error)
	// Generation of the data key for what is written from now on; not 0.
	Generation() uint32
}

// What keys are derived for (section 10.3).
const (
	InfoLog       = "ferry v1 log"
	InfoPoint     = "ferry v1 point"
	InfoPointBody = "ferry v1 point body"
	InfoFrame     = "ferry v1 frame"
	InfoJob       = "ferry v1 job"
)

// SaltSize is the size of a salt, TagSize what encryption adds to what it encrypts, MACSize that of a MAC, in bytes.
const (
	SaltSize = 16
	TagSize  = 16
	MACSize  = 32
)

// NewAEAD makes AES-256-GCM with the key that is derived for a use.
func NewAEAD(keys Keys, generation uint32, salt []byte, info string) (cipher.AEAD, error) {
	key, err := keys.Derive(generation, salt, info)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// NewEncryptedHasher makes the hasher of an encrypted repository whose keys are here: it makes and checks MACs too.
func NewEncryptedHasher(algorithm Hash, idKey [32]byte, keys Keys) *Hasher {
	h := NewHasher(algorithm, idKey)
	h.encrypted, h.keys = true, keys
	return h
}

// NewLockedHasher makes the hasher of an encrypted repository whose keys are not here. It computes no ids: Sum in a keyed
// context panics. MACs it takes as they are.
func NewLockedHasher(algorithm Hash) *Hasher {
	h := NewHasher(algorithm, [32]byte{})
	h.encrypted = true
	return h
}

// Encrypted is true for the hasher of an encrypted repository.
func (h *Hasher) Encrypted() bool { return h.encrypted }

// Locked is true if the repository is encrypted and its keys are not here.
func (h *Hasher) Locked() bool { return h.encrypted && h.keys == nil }

// Keys of the repository; nil if it is not encrypted, or locked.
func (h *Hasher) Keys() Keys { return h.keys }

// Generation of the key for new files; 0 without keys.
func (h *Hasher) Generation() uint32 {
	if h.keys == nil {
		return 0
	}
	return h.keys.Generation()
}

// MAC proves that a holder of a generation's key wrote the message. It is zeros for generation 0.
func (h *Hasher) MAC(info string, generation uint32, message []byte) (mac [MACSize]byte, err error) {
	if generation == 0 {
		return mac, nil
	}
	key, err := h.keys.Derive(generation, nil, info)
	if err != nil {
		return mac, err
	}
	hash := hmac.New(sha256.New, key[:])
	hash.Write(message)
	hash.Sum(mac[:0])
	return mac, nil
}

// CheckMAC checks the MAC of a message whose checksum holds. keyless is true if there is none although the repository is
// encrypted: somebody without the key wrote it, or a forger, which is the caller's to tell apart. The error wraps ErrForged, or
// is that of keys without the generation.
func (h *Hasher) CheckMAC(info string, generation uint32, message, mac []byte) (keyless bool, err error) {
	there := anySet(mac)
	switch {
	case !h.encrypted && (generation != 0 || there):
		return false, fmt.Errorf("%w: it has a MAC, and repository.json says that the repository is not encrypted", ErrForged)
	case generation == 0 && there:
		return false, fmt.Errorf("%w: it has a MAC of no key", ErrForged)
	case generation == 0:
		return h.encrypted, nil
	case h.keys == nil:
		return false, nil
	}
	want, err := h.MAC(info, generation, message)
	if err != nil {
		return false, err
	}
	if !hmac.Equal(want[:], mac) {
		return false, fmt.Errorf("%w: its MAC is not that of the key", ErrForged)
	}
	return false, nil
}

func anySet(bytes []byte) bool {
	for _, b := range bytes {
		if b != 0 {
			return true
		}
	}
	return false
}
