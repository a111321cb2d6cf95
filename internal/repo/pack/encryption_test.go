package pack

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

// testKeys are data keys by generation.
type testKeys map[uint32][32]byte

func (testKeys) Generation() uint32 { return 1 }

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

// currentKeys are keys of which another is the current one.
type currentKeys struct {
	testKeys
	generation uint32
}

func (k currentKeys) Generation() uint32 { return k.generation }

var someKeys = testKeys{1: {1}, 2: {2}}

func newSealer(t fataler, generation uint32) *Sealer {
	sealer, err := NewSealer(currentKeys{someKeys, generation})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return sealer
}

func TestEncryptedFrameRoundTrip(t *testing.T) {
	all := hashers()
	sealers := []*Sealer{newSealer(t, 1), newSealer(t, 2)}
	rapid.Check(t, func(t *rapid.T) {
		hasher := rapid.SampledFrom(all).Draw(t, "hasher")
		sealer := rapid.SampledFrom(sealers).Draw(t, "sealer")
		codec := rapid.SampledFrom(codecs).Draw(t, "codec")
		plain := anyContent().Draw(t, "plain")
		before := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "before")
		id := hasher.Sum(format.ContextBlock, plain)
		buffer := AppendFrame(bytes.Clone(before), hasher, sealer, KindBlock, codec, id, plain)
		frame := buffer[len(before):]
		f, err := CheckFrame(frame, hasher)
		if err != nil || f.ID != id || int(f.Plain) != len(plain) || f.Generation != sealer.generation || f.Salt != sealer.salt {
			t.Fatalf("frame %+v, %v", f, err)
		}
		if bytes.Contains(frame[FrameHeaderSize:], plain) && len(plain) > 3 {
			t.Fatal("the content stands there in clear")
		}
		if _, _, err := DecodeFrame(nil, frame, nil); !errors.Is(err, format.ErrNeedsKey) {
			t.Fatalf("without a key: %v", err)
		}
		whole := bytes.Clone(frame)
		decoded, got, err := DecodeFrame(bytes.Clone(before), frame, NewOpener(someKeys, hasher))
		if err != nil || decoded != f || !bytes.Equal(got, append(before, plain...)) || !bytes.Equal(frame, whole) {
			t.Fatalf("decodes to %+v, %x, %v", decoded, got, err)
		}
	})
}

// The frame is what docs/format.md section 10 says, made by hand.
func TestEncryptedFrameBytes(t *testing.T) {
	hasher := hashers()[0]
	sealer := newSealer(t, 2)
	content := []byte("ferry")
	id := hasher.Sum(format.ContextBlock, content)
	AppendFrame(nil, hasher, sealer, KindBlock, CodecNone, id, content)
	frame := AppendFrame(nil, hasher, sealer, KindBlock, CodecNone, id, content)
	if counter := binary.LittleEndian.Uint64(frame[24:]); counter != 1 {
		t.Fatalf("the second frame has the counter %d", counter)
	}
	key, err := someKeys.Derive(2, frame[32:48], "ferry v1 frame")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(key[:])
	gcm, _ := cipher.NewGCM(block)
	nonce := append(make([]byte, 4), frame[24:32]...)
	data := slices.Concat([]byte("ferry v1"), []byte{1, 0, 5, 0, 0, 0}, id[:])
	if want := gcm.Seal(nil, nonce, content, data); !bytes.Equal(frame[FrameHeaderSize:], want) {
		t.Errorf("stored %x, want %x", frame[FrameHeaderSize:], want)
	}
}

// What somebody without the key can make of frames: the checksum always fits.
func TestForgedFrames(t *testing.T) {
	hasher := hashers()[0]
	sealer := newSealer(t, 1)
	opener := NewOpener(someKeys, hasher)
	content := bytes.Repeat([]byte("ferry"), 30)
	make := func(codec Codec) []byte {
		return AppendFrame(nil, hasher, sealer, KindBlock, codec, format.ID{1}, content)
	}
	for _, codec := range codecs {
		good := make(codec)
		for at := range good {
			forged := bytes.Clone(good)
			forged[at] ^= 0x40
			if at < checksumOffset || at >= FrameHeaderSize {
				resealFrame(hasher, forged)
			}
			_, _, err := DecodeFrame(nil, forged, opener)
			switch {
			case at >= checksumOffset && at < FrameHeaderSize:
				if err != nil { // the seal holds; the table's checksum is another
					t.Errorf("%s, byte %d: %v", codec, at, err)
				}
			case at >= 16 && at < 20 || at >= 24: // key generation, nonce, salt, id, content
				if !errors.Is(err, format.ErrForged) || !errors.Is(err, format.ErrCorrupt) {
					t.Errorf("%s, byte %d: %v", codec, at, err)
				}
			case !classified(err):
				t.Errorf("%s, byte %d: %v", codec, at, err)
			}
			torn := bytes.Clone(good)
			torn[at] ^= 0x40 // and the checksum does not fit
			if _, _, err := DecodeFrame(nil, torn, opener); errors.Is(err, format.ErrForged) {
				t.Errorf("%s, byte %d: a disk's error is called forged: %v", codec, at, err)
			}
		}
	}
	// The content of one frame under the header of another.
	a, b := make(CodecNone), make(CodecNone)
	swapped := resealFrame(hasher, append(bytes.Clone(a[:FrameHeaderSize]), b[FrameHeaderSize:]...))
	if _, _, err := DecodeFrame(nil, swapped, opener); !errors.Is(err, format.ErrForged) {
		t.Errorf("content of another frame: %v", err)
	}
	// The same frame opens with the key of its generation alone.
	other := NewOpener(testKeys{1: {9}}, hasher)
	if _, _, err := DecodeFrame(nil, a, other); !errors.Is(err, format.ErrForged) {
		t.Errorf("with another key: %v", err)
	}
}

func TestParseEncryptedFrameRefuses(t *testing.T) {
	hasher := hashers()[0]
	sealer := newSealer(t, 1)
	frame := func(codec Codec, plain, stored int, change ...func([]byte)) []byte {
		f := rawFrame(hasher, codec, uint32(plain), uint32(stored), make([]byte, max(stored, 0)))
		f[16] = 1
		for _, c := range change {
			c(f)
		}
		return resealFrame(hasher, f)
	}
	for _, c := range []struct {
		what  string
		frame []byte
		want  error
	}{
		{"good", AppendFrame(nil, hasher, sealer, KindBlock, CodecS2, format.ID{1}, []byte("a")), nil},
		{"as long as can be", frame(CodecS2, 20, 36), nil},
		{"longer than can be", frame(CodecS2, 20, 37), format.ErrCorrupt},
		{"a tag alone", frame(CodecS2, 20, 16), format.ErrCorrupt},
		{"half a tag", frame(CodecS2, 20, 8), format.ErrCorrupt},
		{"not compressed and too short", frame(CodecNone, 20, 35), format.ErrCorrupt},
		{"a node", frame(CodecNone, 20, 36, func(f []byte) { f[4] = byte(KindNode) }), format.ErrCorrupt},
		{"reserved", frame(CodecNone, 20, 36, func(f []byte) { f[20] = 1 }), format.ErrCorrupt},
	} {
		if _, err := ParseFrame(c.frame); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if node := AppendFrame(nil, hasher, sealer, KindNode, CodecNone, format.ID{1}, []byte("node")); len(node) != FrameHeaderSize+4 {
		t.Errorf("a node takes %d bytes", len(node))
	}
}

// A pack of encrypted frames, read with the key and without.
func TestEncryptedPack(t *testing.T) {
	for _, hasher := range hashers() {
		var out bytes.Buffer
		sealer := newSealer(t, 2)
		header := Header{Kind: KindBlock, Hash: hasher.Algorithm(), ID: format.Name{1}, Domain: format.Name{2}, Generation: sealer.Generation()}
		w, err := NewWriter(&out, hasher, header)
		if err != nil {
			t.Fatal(err)
		}
		var entries []Entry
		for i, content := range smallContents() {
			entry, err := w.Append(AppendFrame(nil, hasher, sealer, KindBlock, codecs[i], hasher.Sum(format.ContextBlock, content), content))
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, entry)
		}
		if _, _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		raw := out.Bytes()
		table, err := ReadTable(bytes.NewReader(raw), int64(len(raw)), hasher)
		if err != nil || table.Header != header || !slices.Equal(table.Entries, entries) {
			t.Fatalf("%+v, %v", table, err)
		}
		if found := Scan(bytes.NewReader(raw), int64(len(raw)), hasher); !slices.Equal(found, entries) {
			t.Errorf("scan finds %+v", found)
		}
		opener := NewOpener(someKeys, hasher)
		read := func(raw []byte) (good [][]byte, damaged []error) {
			_, err := CheckContent(bytes.NewReader(raw), int64(len(raw)), hasher, opener, func(e Entry, plain []byte) error {
				if hasher.Sum(format.ContextBlock, plain) != e.ID {
					t.Errorf("content of %s is another", e.ID)
				}
				good = append(good, bytes.Clone(plain))
				return nil
			}, func(_ Entry, err error) { damaged = append(damaged, err) })
			if err != nil {
				t.Error(err)
			}
			return good, damaged
		}
		good, damaged := read(raw)
		if !slices.EqualFunc(good, smallContents(), bytes.Equal) || damaged != nil {
			t.Errorf("read %x, damaged %v", good, damaged)
		}
		for at := int(entries[0].Offset); at < int(entries[0].Offset)+entries[0].FrameSize(); at++ {
			flipped := bytes.Clone(raw)
			flipped[at] ^= 1
			if good, damaged := read(flipped); len(good) != 2 || len(damaged) != 1 || errors.Is(damaged[0], format.ErrForged) {
				t.Errorf("byte %d: %d good, damaged %v", at, len(good), damaged)
			}
		}
		// The frame of somebody without the key, whose table fits it too, so that nothing shows without the key.
		forged := bytes.Clone(raw)
		first := forged[entries[0].Offset:][:entries[0].FrameSize()]
		first[len(first)-1] ^= 1
		resealFrame(hasher, first)
		copy(forged[len(forged)-trailerSize-3*entrySize+48:], first[checksumOffset:FrameHeaderSize])
		forged = reseal(hasher, forged)
		if _, _, damaged, err := check(forged, hasher); err != nil && !errors.Is(err, format.ErrNeedsKey) || damaged != nil {
			t.Errorf("without the key: %v, damaged %v", err, damaged)
		}
		if good, damaged := read(forged); len(good) != 2 || len(damaged) != 1 || !errors.Is(damaged[0], format.ErrForged) {
			t.Errorf("forged: %d good, damaged %v", len(good), damaged)
		}
	}
}

func TestPackRefusesEncryptedFrames(t *testing.T) {
	hasher := hashers()[0]
	w, err := NewWriter(&bytes.Buffer{}, hasher, Header{Kind: KindBlock, Hash: hasher.Algorithm()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append(AppendFrame(nil, hasher, newSealer(t, 1), KindBlock, CodecNone, format.ID{1}, []byte("a"))); err == nil {
		t.Error("a pack that says that it is not encrypted takes an encrypted frame")
	}
}

func TestEncryptionDoesNotAllocate(t *testing.T) {
	for _, hasher := range hashers() {
		sealer, opener := newSealer(t, 1), NewOpener(someKeys, hasher)
		for _, plain := range [][]byte{bytes.Repeat([]byte("ferry"), 20000), noise(100000)} {
			for _, codec := range []Codec{CodecNone, CodecS2} {
				buffer, back := make([]byte, 0, MaxFrame), make([]byte, 0, len(plain))
				allocated := testing.AllocsPerRun(20, func() {
					buffer = AppendFrame(buffer[:0], hasher, sealer, KindBlock, codec, format.ID{1}, plain)
					var err error
					if _, back, err = DecodeFrame(back[:0], buffer, opener); err != nil {
						t.Fatal(err)
					}
				})
				if allocated != 0 && !raceEnabled {
					t.Errorf("%s, %s: %v allocations", hasher.Algorithm(), codec, allocated)
				}
			}
		}
	}
}

// Sessions beyond the bound cost deriving a key again, and nothing else; counters never repeat.
func TestManySessionsInParallel(t *testing.T) {
	hasher := hashers()[0]
	opener := NewOpener(someKeys, hasher)
	shared := newSealer(t, 1)
	var workers sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for worker := range 4 {
		workers.Go(func() {
			for i := range maxSessions / 2 {
				content := fmt.Appendf(nil, "%d of %d", i, worker)
				for _, sealer := range []*Sealer{shared, newSealer(t, 2)} {
					frame := AppendFrame(nil, hasher, sealer, KindBlock, CodecNone, format.ID{1}, content)
					if _, got, err := DecodeFrame(nil, frame, opener); err != nil || !bytes.Equal(got, content) {
						t.Errorf("%q, %v", got, err)
					}
					mu.Lock()
					if nonce := string(frame[24:48]); seen[nonce] {
						t.Error("counter and salt are used twice")
					} else {
						seen[nonce] = true
					}
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if len(opener.aeads) > maxSessions {
		t.Errorf("%d derived keys are kept", len(opener.aeads))
	}
}

func FuzzDecodeEncryptedFrame(f *testing.F) {
	hasher := hashers()[0]
	sealer, opener := newSealer(f, 1), NewOpener(someKeys, hasher)
	for _, codec := range codecs {
		f.Add(AppendFrame(nil, hasher, sealer, KindBlock, codec, format.ID{1}, bytes.Repeat([]byte("ferry"), 9)), true)
	}
	f.Fuzz(func(t *testing.T, frame []byte, mend bool) {
		if mend && len(frame) >= FrameHeaderSize {
			frame = resealFrame(hasher, bytes.Clone(frame))
		}
		parsed, got, err := DecodeFrame(nil, frame, opener)
		if err != nil && !classified(err) {
			t.Fatalf("an error of no class: %v", err)
		}
		if err == nil && (len(got) != int(parsed.Plain) || parsed.Size() > MaxFrame) {
			t.Fatalf("decoded %+v to %d bytes", parsed, len(got))
		}
	})
}
