package commitlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

var testHasher = format.NewHasher(format.HashBLAKE3, [32]byte{})

func encodeEntry(t interface{ Fatalf(string, ...any) }, n uint64, payload *Payload) []byte {
	raw, head, err := Encode(testHasher, n, format.ID{7}, payload)
	if err != nil || head.N != n || head.Checksum != format.ID(raw[len(raw)-32:]) {
		t.Fatalf("encode: head %+v, %v", head, err)
	}
	return raw
}

func TestEntriesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hasher := format.NewHasher(rapid.SampledFrom([]format.Hash{format.HashBLAKE3, format.HashHMACSHA256}).Draw(t, "hash"), [32]byte{})
		n, link := rapid.Uint64Min(1).Draw(t, "n"), format.ID{rapid.Byte().Draw(t, "link")}
		payload := drawPayload(t)
		raw, head, err := Encode(hasher, n, link, &payload)
		if err != nil {
			t.Fatal(err)
		}
		got, gotLink, gotHead, err := Decode(hasher, n, raw)
		if err != nil || gotLink != link || gotHead != head || !reflect.DeepEqual(got, payload) {
			t.Fatalf("entry reads back as %+v, %v; want %+v", got, err, payload)
		}
		raw, err = EncodeCheckpoint(hasher, head, &payload)
		if err != nil {
			t.Fatal(err)
		}
		got, gotLink, err = DecodeCheckpoint(hasher, n, raw)
		if err != nil || gotLink != head.Checksum || !reflect.DeepEqual(got, payload) {
			t.Fatalf("checkpoint reads back as %+v, %v; want %+v", got, err, payload)
		}
	})
}

func samplePayload() *Payload {
	created := time.Date(2026, 11, 22, 1, 0, 0, 500_000_000, time.UTC)
	return &Payload{
		Time: created, Writer: "22", Repository: &Repository{ID: format.Name{1}, Checksum: format.ID{2}},
		Packs:  []Pack{{ID: format.Name{3}, Kind: "data", Domain: format.Name{1}, Size: 200, Frames: 1, Root: format.ID{4}}},
		Points: []Point{Point{ID: [32]byte{5}, Machine: format.Name{6}, Created: created, Checksum: format.ID{7}}.WithFile("points/a")},
		Claims: []Claim{{Point: [32]byte{5}, Job: "nightly", Flags: []string{"weekly"}}},
	}
}

func classified(err error) bool {
	return errors.Is(err, format.ErrCorrupt) || errors.Is(err, format.ErrNewer) || errors.Is(err, format.ErrNeedsKey)
}

func TestEveryBitFlipIsFound(t *testing.T) {
	for _, algorithm := range []format.Hash{format.HashBLAKE3, format.HashHMACSHA256} {
		hasher := format.NewHasher(algorithm, [32]byte{})
		entry, head, err := Encode(hasher, 3, format.ID{9}, samplePayload())
		if err != nil {
			t.Fatal(err)
		}
		checkpoint, err := EncodeCheckpoint(hasher, head, samplePayload())
		if err != nil {
			t.Fatal(err)
		}
		decodeEntry := func(raw []byte) error {
			_, _, _, err := Decode(hasher, 3, raw)
			return err
		}
		decodeCheckpoint := func(raw []byte) error {
			_, _, err := DecodeCheckpoint(hasher, 3, raw)
			return err
		}
		for _, c := range []struct {
			raw    []byte
			decode func([]byte) error
			other  []byte
		}{{entry, decodeEntry, checkpoint}, {checkpoint, decodeCheckpoint, entry}} {
			if err := c.decode(c.raw); err != nil {
				t.Fatal(err)
			}
			if err := c.decode(c.other); !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("an entry in place of a checkpoint, or the other way: %v", err)
			}
			for bit := range len(c.raw) * 8 {
				c.raw[bit/8] ^= 1 << (bit % 8)
				if err := c.decode(c.raw); !classified(err) {
					t.Errorf("%s, bit %d: %v", algorithm, bit, err)
				}
				c.raw[bit/8] ^= 1 << (bit % 8)
			}
			for size := range c.raw {
				if err := c.decode(c.raw[:size]); !errors.Is(err, format.ErrCorrupt) {
					t.Errorf("%s, %d of %d bytes: %v", algorithm, size, len(c.raw), err)
				}
			}
		}
	}
}

// reseal makes the checksum right again after a change.
func reseal(raw []byte) []byte {
	sum := testHasher.Sum(format.ContextLogEntry, raw[:len(raw)-32])
	copy(raw[len(raw)-32:], sum[:])
	return raw
}

// Entries whose checksum is right but that say what no writer without a key says.
func TestDecodeRefuses(t *testing.T) {
	good := encodeEntry(t, 3, samplePayload())
	change := func(at int, value byte) []byte {
		raw := bytes.Clone(good)
		raw[at] = value
		return reseal(raw)
	}
	with := func(payload string) []byte {
		raw := append(bytes.Clone(good[:headerSize]), payload...)
		binary.LittleEndian.PutUint32(raw[64:], uint32(len(payload)))
		return reseal(append(raw, make([]byte, tailSize)...))
	}
	for _, c := range []struct {
		what string
		raw  []byte
		n    uint64
		want error
	}{
		{"good", good, 3, nil},
		{"unknown members", with(`{"time":"2026-11-22T01:00:00Z","writer":"","later":{"a":[1]}}`), 3, nil},
		{"another number", good, 4, format.ErrCorrupt},
		{"a later version", change(8, 2), 3, format.ErrNewer},
		{"a requirement", change(12, 4), 3, format.ErrNewer},
		{"encryption", change(12, 1), 3, format.ErrNewer},
		{"a key generation", change(20, 1), 3, format.ErrForged},
		{"a MAC without a key", change(len(good)-tailSize, 1), 3, format.ErrForged},
		{"the end of a MAC", change(len(good)-33, 1), 3, format.ErrCorrupt},
		{"a shorter payload", change(64, good[64]-1), 3, format.ErrCorrupt},
		{"a payload of 4 GiB", change(67, 255), 3, format.ErrCorrupt},
		{"no payload", with(""), 3, format.ErrCorrupt},
		{"half a payload", with(`{"packs":[`), 3, format.ErrCorrupt},
		{"a list", with(`[]`), 3, format.ErrCorrupt},
		{"a short id", with(`{"condemned":["00"]}`), 3, format.ErrCorrupt},
		{"an id of other digits", with(`{"deleted":["zz000000000000000000000000000000"]}`), 3, format.ErrCorrupt},
		{"a time that is none", with(`{"time":"yesterday"}`), 3, format.ErrCorrupt},
	} {
		if _, _, _, err := Decode(testHasher, c.n, c.raw); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	if got := EntryName(1) + " " + CheckpointName(999999999999); got != "log/000000000001 checkpoints/999999999999" {
		t.Errorf("names %q", got)
	}
	for base, want := range map[string]uint64{
		"000000000001": 1, "000000000128": 128, "999999999999": 999999999999,
		"": 0, "1": 0, "000000000000": 0, "0000000000001": 0, "+00000000001": 0, "-00000000001": 0, "00000000000a": 0, "0x0000000001": 0, "\x2000000000001": 0,
	} {
		if got, ok := ParseNumber(base); ok != (want > 0) || (ok && got != want) {
			t.Errorf("%q is number %d, %v; want %d", base, got, ok, want)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(f, 3, samplePayload()))
	f.Add(encodeEntry(f, 3, &Payload{}))
	raw := encodeEntry(f, 3, &Payload{})
	f.Add(raw[:headerSize])
	f.Add(bytes.Replace(raw, []byte("writer"), []byte("points"), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) >= headerSize+tailSize { // else nothing gets behind the checksum
			raw = bytes.Clone(raw)
			binary.LittleEndian.PutUint64(raw[24:], 3)
			binary.LittleEndian.PutUint32(raw[64:], uint32(len(raw)-headerSize-tailSize))
			reseal(raw)
		}
		payload, link, head, err := Decode(testHasher, 3, raw)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		again, _, err := Encode(testHasher, head.N, link, &payload)
		if err != nil {
			t.Fatal(err)
		}
		back, _, _, err := Decode(testHasher, 3, again)
		if one, other := mustJSON(t, payload), mustJSON(t, back); err != nil || !bytes.Equal(one, other) {
			t.Fatalf("%s encodes and decodes to %s, %v", one, other, err)
		}
		state := NewState()
		state.Apply(&payload, head)
		second := Begin(state.Payload(), head)
		if one, other := mustJSON(t, state.Payload()), mustJSON(t, second.Payload()); !bytes.Equal(one, other) {
			t.Fatalf("a checkpoint of %s says %s", one, other)
		}
	})
}

func mustJSON(t *testing.T, value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A checkpoint's packs are decoded into room for just as many, and a payload that only looks as if it had many gets less
// than it takes itself.
func TestRoomForPacks(t *testing.T) {
	const packs = 3000
	payload := Payload{Packs: make([]Pack, packs)}
	for i := range payload.Packs {
		payload.Packs[i] = Pack{ID: format.RandomName(), Kind: "data", Size: 1, Frames: 1}
	}
	raw, err := EncodeCheckpoint(testHasher, Head{N: 3}, &payload)
	if err != nil {
		t.Fatal(err)
	}
	decoded, _, err := DecodeCheckpoint(testHasher, 3, raw)
	if err != nil || len(decoded.Packs) != packs || cap(decoded.Packs) != packs {
		t.Fatalf("room for %d packs, %d are there: %v", cap(decoded.Packs), len(decoded.Packs), err)
	}
	hostile := bytes.Repeat([]byte(`"root":`), 1<<20)
	if taken := cap(roomForPacks(hostile)) * int(unsafe.Sizeof(Pack{})); taken == 0 || taken > len(hostile) {
		t.Errorf("%d bytes of payload take %d bytes of memory", len(hostile), taken)
	}
}
