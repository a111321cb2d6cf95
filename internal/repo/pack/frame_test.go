package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"ferry/internal/repo/format"
)

var (
	algorithms = []format.Hash{format.HashBLAKE3, format.HashHMACSHA256}
	codecs     = []Codec{CodecNone, CodecS2, CodecZstd}
)

func hashers() []*format.Hasher {
	var all []*format.Hasher
	for _, algorithm := range algorithms {
		all = append(all, format.NewHasher(algorithm, [32]byte{}))
	}
	return all
}

// anyContent draws content of 1 to about 3000 bytes, some of which shrinks.
func anyContent() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		unit := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "unit")
		return bytes.Repeat(unit, rapid.IntRange(1, 80).Draw(t, "times"))
	})
}

func TestFrameRoundTrip(t *testing.T) {
	all := hashers()
	rapid.Check(t, func(t *rapid.T) {
		hasher := rapid.SampledFrom(all).Draw(t, "hasher")
		kind := rapid.SampledFrom([]Kind{KindBlock, KindNode}).Draw(t, "kind")
		codec := rapid.SampledFrom(codecs).Draw(t, "codec")
		plain := anyContent().Draw(t, "plain")
		before := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "before")
		id := hasher.Sum(format.ContextBlock, plain)
		buffer := AppendFrame(bytes.Clone(before), hasher, nil, kind, codec, id, plain)
		if !bytes.Equal(buffer[:len(before)], before) {
			t.Fatal("what was in the buffer changed")
		}
		frame := buffer[len(before):]
		f, err := CheckFrame(frame, hasher)
		if err != nil || f.Kind != kind || f.ID != id || int(f.Plain) != len(plain) || f.Size() != len(frame) {
			t.Fatalf("frame %+v, %v", f, err)
		}
		if f.Codec != codec && f.Codec != CodecNone || f.Stored > f.Plain || (f.Codec == CodecNone) != (f.Stored == f.Plain) {
			t.Fatalf("frame %+v of %d bytes by %s", f, len(plain), codec)
		}
		decoded, got, err := DecodeFrame(bytes.Clone(before), frame, nil)
		if err != nil || decoded != f || !bytes.Equal(got, append(before, plain...)) {
			t.Fatalf("decodes to %+v, %x, %v", decoded, got, err)
		}
	})
}

// rawFrame makes a frame of any header fields, with a checksum that fits.
func rawFrame(hasher *format.Hasher, codec Codec, plain, stored uint32, body []byte) []byte {
	frame := make([]byte, FrameHeaderSize, FrameHeaderSize+len(body))
	copy(frame, frameMagic)
	frame[4], frame[5] = byte(KindBlock), byte(codec)
	binary.LittleEndian.PutUint32(frame[8:], plain)
	binary.LittleEndian.PutUint32(frame[12:], stored)
	return resealFrame(hasher, append(frame, body...))
}

func resealFrame(hasher *format.Hasher, frame []byte) []byte {
	sum := hasher.Sum(format.ContextFrame, frame[:checksumOffset], frame[FrameHeaderSize:])
	copy(frame[checksumOffset:], sum[:checksumSize])
	return frame
}

// Frames whose checksum is right but that say what no writer says.
func TestParseFrameRefuses(t *testing.T) {
	hasher := hashers()[0]
	change := func(at int, value byte) []byte {
		frame := rawFrame(hasher, CodecNone, 4, 4, []byte("abcd"))
		frame[at] = value
		return resealFrame(hasher, frame)
	}
	for _, c := range []struct {
		what  string
		frame []byte
		want  error
	}{
		{"good", change(4, byte(KindNode)), nil},
		{"empty", nil, format.ErrCorrupt},
		{"half a header", change(4, 1)[:FrameHeaderSize-1], format.ErrCorrupt},
		{"magic", change(0, 'f'), format.ErrCorrupt},
		{"kind 0", change(4, 0), format.ErrCorrupt},
		{"kind 3", change(4, 3), format.ErrCorrupt},
		{"codec 3", change(5, 3), format.ErrNewer},
		{"reserved 6", change(6, 1), format.ErrCorrupt},
		{"reserved 7", change(7, 1), format.ErrCorrupt},
		{"encrypted, and no longer than its content", change(16, 1), format.ErrCorrupt},
		{"reserved 20", change(20, 1), format.ErrCorrupt},
		{"reserved 23", change(23, 1), format.ErrCorrupt},
		{"nonce without a key", change(24, 1), format.ErrCorrupt},
		{"salt without a key", change(47, 1), format.ErrCorrupt},
		{"nothing", rawFrame(hasher, CodecNone, 0, 0, nil), format.ErrCorrupt},
		{"nothing stored", rawFrame(hasher, CodecS2, 1, 0, nil), format.ErrCorrupt},
		{"too long", rawFrame(hasher, CodecS2, format.MaxBlock+1, 1, []byte{0}), format.ErrCorrupt},
		{"grown", rawFrame(hasher, CodecS2, 1, 2, []byte{0, 0}), format.ErrCorrupt},
	} {
		_, err := ParseFrame(c.frame)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	frame := change(4, 1)
	for _, wrong := range [][]byte{frame[:len(frame)-1], append(bytes.Clone(frame), 0)} {
		if _, err := CheckFrame(wrong, hasher); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("frame in %d bytes: %v", len(wrong), err)
		}
		if _, _, err := DecodeFrame(nil, wrong, nil); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("frame in %d bytes decodes: %v", len(wrong), err)
		}
	}
}

// Content that decodes to more, or less, than the frame states must be refused, and cost no more memory than the
// stated length.
func TestDecodeFrameRefusesLies(t *testing.T) {
	const real = 3 << 20
	zeros := make([]byte, real)
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(format.MaxBlock))
	if err != nil {
		t.Fatal(err)
	}
	streamed := new(bytes.Buffer) // a frame that does not state its content's length
	encoder.Reset(streamed)
	for range real / 4096 {
		encoder.Write(zeros[:4096])
	}
	encoder.Close()
	stating := encoder.EncodeAll(zeros, nil)
	twice := encoder.EncodeAll(zeros[:real/2], encoder.EncodeAll(zeros[:real/2], nil))
	hasher := hashers()[0]
	for _, c := range []struct {
		what  string
		codec Codec
		body  []byte
	}{
		{"s2", CodecS2, s2.Encode(nil, zeros)},
		{"s2 without content", CodecS2, binary.AppendUvarint(nil, 1000)},
		{"s2 of nonsense", CodecS2, append(binary.AppendUvarint(nil, 1000), bytes.Repeat([]byte{0xff}, 50)...)},
		{"zstd", CodecZstd, stating},
		{"zstd without a stated length", CodecZstd, streamed.Bytes()},
		{"two zstd frames", CodecZstd, twice},
		{"zstd of nonsense", CodecZstd, bytes.Repeat([]byte{0x28, 0xb5, 0x2f, 0xfd}, 10)},
		{"zstd of nothing", CodecZstd, encoder.EncodeAll(nil, nil)},
		{"zstd with a window larger than any block", CodecZstd, []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x70, 3, 0, 0, 1, 0, 0}},
		{"none", CodecNone, zeros[:100]},
	} {
		for _, plain := range []int{len(c.body), 1000, real - 1, real + 1, format.MaxBlock} {
			if plain < len(c.body) || (c.codec == CodecNone && plain == len(c.body)) {
				continue
			}
			frame := rawFrame(hasher, c.codec, uint32(plain), uint32(len(c.body)), c.body)
			before := []byte("before")
			_, got, err := DecodeFrame(before, frame, nil)
			if !errors.Is(err, format.ErrCorrupt) {
				t.Errorf("%s stated as %d bytes: %v, want ErrCorrupt", c.what, plain, err)
			}
			if limit := len(before) + plain + plain/4 + 4096; cap(got) > limit {
				t.Errorf("%s stated as %d bytes: a buffer of %d bytes", c.what, plain, cap(got))
			}
		}
	}
	for _, body := range [][]byte{stating, streamed.Bytes()} {
		frame := rawFrame(hasher, CodecZstd, real, uint32(len(body)), body)
		if _, got, err := DecodeFrame(nil, frame, nil); err != nil || !bytes.Equal(got, zeros) {
			t.Errorf("what another zstd encoder makes: %d bytes, %v", len(got), err)
		}
	}
}

// The largest block there is, with content that shrinks and content that does not.
func TestLargestBlock(t *testing.T) {
	hasher := hashers()[0]
	for _, plain := range [][]byte{bytes.Repeat([]byte("ferry"), format.MaxBlock/5+1)[:format.MaxBlock], noise(format.MaxBlock)} {
		for _, codec := range codecs {
			frame := AppendFrame(nil, hasher, nil, KindBlock, codec, format.ID{1}, plain)
			if _, got, err := DecodeFrame(nil, frame, nil); err != nil || !bytes.Equal(got, plain) || len(frame) > MaxFrame {
				t.Errorf("%s: frame of %d bytes decodes to %d bytes, %v", codec, len(frame), len(got), err)
			}
		}
	}
}

// noise is content that no codec makes smaller.
func noise(size int) []byte {
	hasher := hashers()[0]
	var content []byte
	for last := (format.ID{}); len(content) < size; content = append(content, last[:]...) {
		last = hasher.Sum(format.ContextBlock, last[:])
	}
	return content[:size]
}

func TestAppendFrameDoesNotAllocate(t *testing.T) {
	for _, hasher := range hashers() {
		for _, plain := range [][]byte{bytes.Repeat([]byte("ferry"), 20000), noise(100000)} {
			for _, codec := range []Codec{CodecNone, CodecS2} {
				buffer := make([]byte, 0, MaxFrame)
				allocated := testing.AllocsPerRun(20, func() {
					buffer = AppendFrame(buffer[:0], hasher, nil, KindBlock, codec, format.ID{1}, plain)
				})
				if allocated != 0 && !raceEnabled {
					t.Errorf("%s, %s: %v allocations", hasher.Algorithm(), codec, allocated)
				}
			}
		}
	}
}

func TestKindAndCodecNames(t *testing.T) {
	for kind, want := range map[Kind]string{KindBlock: "data", KindNode: "nodes", 3: "kind 3"} {
		if kind.String() != want {
			t.Errorf("kind %q, want %q", kind, want)
		}
	}
	for codec, want := range map[Codec]string{CodecNone: "none", CodecS2: "s2", CodecZstd: "zstd", 3: "codec 3"} {
		if codec.String() != want {
			t.Errorf("codec %q, want %q", codec, want)
		}
	}
}
