package format

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"testing"
)

// testKeys are data keys by generation; the greatest is the current one.
type testKeys map[uint32][32]byte

var errNoKey = errors.New("no such generation")

func (k testKeys) Derive(generation uint32, salt []byte, info string) (derived [32]byte, err error) {
	key, ok := k[generation]
	if !ok {
		return derived, errNoKey
	}
	raw, err := hkdf.Key(sha256.New, key[:], salt, info, 32)
	copy(derived[:], raw)
	return derived, err
}

func (k testKeys) Generation() (current uint32) {
	for generation := range k {
		current = max(current, generation)
	}
	return current
}

func TestCheckMAC(t *testing.T) {
	message, zeros := []byte("message"), make([]byte, MACSize)
	plain := NewHasher(HashBLAKE3, [32]byte{})
	locked := NewLockedHasher(HashBLAKE3)
	keyed := NewEncryptedHasher(HashBLAKE3, [32]byte{1}, testKeys{1: {1}, 2: {2}})
	other := NewEncryptedHasher(HashBLAKE3, [32]byte{1}, testKeys{1: {3}})
	mac := func(h *Hasher, info string, generation uint32) []byte {
		made, err := h.MAC(info, generation, message)
		if err != nil {
			t.Fatal(err)
		}
		return made[:]
	}
	for _, c := range []struct {
		what       string
		hasher     *Hasher
		generation uint32
		mac        []byte
		keyless    bool
		want       error
	}{
		{"not encrypted", plain, 0, zeros, false, nil},
		{"not encrypted, with a MAC", plain, 1, mac(keyed, InfoLog, 1), false, ErrForged},
		{"not encrypted, with a MAC of no key", plain, 0, mac(keyed, InfoLog, 1), false, ErrForged},
		{"not encrypted, with a generation", plain, 1, zeros, false, ErrForged},
		{"locked", locked, 1, mac(keyed, InfoLog, 1), false, nil},
		{"locked, without a MAC", locked, 0, zeros, true, nil},
		{"locked, with a MAC of no key", locked, 0, mac(keyed, InfoLog, 1), false, ErrForged},
		{"proven", keyed, 1, mac(keyed, InfoLog, 1), false, nil},
		{"proven by a later key", keyed, 2, mac(keyed, InfoLog, 2), false, nil},
		{"without a MAC", keyed, 0, zeros, true, nil},
		{"with zeros of a key", keyed, 1, zeros, false, ErrForged},
		{"for another use", keyed, 1, mac(keyed, InfoPoint, 1), false, ErrForged},
		{"of another generation", keyed, 2, mac(keyed, InfoLog, 1), false, ErrForged},
		{"of another key", keyed, 1, mac(other, InfoLog, 1), false, ErrForged},
		{"of a generation that is not here", other, 2, mac(keyed, InfoLog, 2), false, errNoKey},
	} {
		keyless, err := c.hasher.CheckMAC(InfoLog, c.generation, message, c.mac)
		if keyless != c.keyless || !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: keyless %v, %v", c.what, keyless, err)
		}
	}
	if plain.Generation() != 0 || locked.Generation() != 0 || keyed.Generation() != 2 {
		t.Error("generations")
	}
	if plain.Locked() || !locked.Locked() || keyed.Locked() || plain.Encrypted() || !locked.Encrypted() || !keyed.Encrypted() {
		t.Error("who is locked")
	}
}

// A locked hasher computes checksums, and never an id that would be another's.
func TestLockedHasher(t *testing.T) {
	plain, locked := NewHasher(HashBLAKE3, [32]byte{}), NewLockedHasher(HashBLAKE3)
	for context := range contexts {
		func() {
			defer func() {
				if panicked := recover() != nil; panicked != context.keyed() {
					t.Errorf("%s: panicked %v", context, panicked)
				}
			}()
			if locked.Sum(context, []byte("ferry")) != plain.Sum(context, []byte("ferry")) {
				t.Errorf("%s differs", context)
			}
		}()
	}
}
