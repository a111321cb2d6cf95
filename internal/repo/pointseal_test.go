package repo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo/format"
	"ferry/internal/repo/keyring"
)

// keyedHasher has the keys of a fresh ring.
func keyedHasher() *format.Hasher {
	description := format.NewDescription(format.HashBLAKE3, 4096, time.Time{})
	ring := keyring.New(description.ID, time.Time{})
	description.Encrypt(ring.Check())
	hasher, _ := newHasher(format.HashBLAKE3, description, ring)
	return hasher
}

// sealedPointOf is a point of an encrypted repository.
func sealedPointOf(t *testing.T, hasher *format.Hasher) (*Point, []byte) {
	t.Helper()
	p := samplePoint()
	pseudonym := hasher.Sum(format.ContextMachine, p.Machine.Key.Canonical())
	raw, err := encodePoint(hasher, format.Name(pseudonym[:16]), p)
	if err != nil {
		t.Fatal(err)
	}
	return p, raw
}

func TestEncryptedPoint(t *testing.T) {
	hasher := keyedHasher()
	want, raw := sealedPointOf(t, hasher)
	got, header, err := decodePoint(hasher, raw)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("reads back as\n%+v, %v; want\n%+v", got, err, want)
	}
	for _, secret := range []string{"web", "dump", "scsi0", "vzdump", "native", "Berlin", "proxmox"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("the file has %q in clear", secret)
		}
	}
	// The header is there without the key, and the same.
	locked := format.NewLockedHasher(format.HashBLAKE3)
	opened, err := openPoint(locked, raw)
	if err != nil || !reflect.DeepEqual(opened.header, header) {
		t.Errorf("without the key: %+v, %v; want %+v", opened.header, err, header)
	}
	if _, _, err := decodePoint(locked, raw); !errors.Is(err, format.ErrNeedsKey) {
		t.Errorf("without the key: %v", err)
	}
	// Two points never share a salt.
	if _, again := sealedPointOf(t, hasher); bytes.Equal(again[24:40], raw[24:40]) {
		t.Error("two points have one salt")
	}
}

// Whatever somebody without the key changes, and however well the checksum fits again.
func TestForgedPoint(t *testing.T) {
	hasher := keyedHasher()
	_, raw := sealedPointOf(t, hasher)
	mustBeForged := func(what string, forged []byte) {
		t.Helper()
		p, _, err := decodePoint(hasher, resealPoint(forged))
		if !errors.Is(err, format.ErrCorrupt) && !errors.Is(err, format.ErrNewer) && !errors.Is(err, keyring.ErrNoGeneration) {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
		if err != nil && !errors.Is(err, format.ErrForged) && bytes.Equal(forged[:24], raw[:24]) {
			t.Errorf("%s: not called forged: %v", what, err)
		}
	}
	for at := range raw[:len(raw)-32] {
		forged := bytes.Clone(raw)
		forged[at] ^= 1
		mustBeForged("one bit", forged)
	}
	_, foreign := sealedPointOf(t, keyedHasher())
	mustBeForged("a point of another key", foreign)
	mustBeForged("no MAC", append(bytes.Clone(raw[:len(raw)-pointTail]), make([]byte, pointTail)...))
	plain := bytes.Clone(encodedPoint(t, samplePoint()))
	if _, _, err := decodePoint(hasher, plain); !errors.Is(err, format.ErrForged) {
		t.Errorf("a point that is not encrypted: %v", err)
	}
	if _, _, err := decodePoint(decodeHasher, raw); !errors.Is(err, format.ErrForged) {
		t.Errorf("an encrypted point where nothing is: %v", err)
	}
	// A holder of the key who puts the body of one point into another: the tag says whose it is.
	other := samplePoint()
	other.ID = backup.NewPointID(other.Machine.Key, "another")
	sealed, err := openPoint(hasher, raw)
	if err != nil {
		t.Fatal(err)
	}
	sealed.header.ID = other.ID
	if _, err := sealed.body(hasher); !errors.Is(err, format.ErrForged) {
		t.Errorf("the body of another point: %v", err)
	}
	if generation := binary.LittleEndian.Uint32(raw[20:]); generation != 1 {
		t.Errorf("generation %d", generation)
	}
}

// Whatever stands where a point of an encrypted repository should, it is refused or is one that a holder of the key made.
func FuzzOpenPoint(f *testing.F) {
	hasher := keyedHasher()
	p := samplePoint()
	pseudonym := hasher.Sum(format.ContextMachine, p.Machine.Key.Canonical())
	raw, err := encodePoint(hasher, format.Name(pseudonym[:16]), p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:pointFixed+pointTail])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) >= 32 {
			raw = resealPoint(bytes.Clone(raw))
		}
		got, _, err := decodePoint(hasher, raw)
		if err == nil && got.ID != p.ID {
			t.Fatalf("accepted %+v", got)
		}
		if err != nil && !classified(err) && !errors.Is(err, keyring.ErrNoGeneration) {
			t.Fatalf("an error of no class: %v", err)
		}
	})
}
