// Package pack writes and reads packs: immutable files of self-contained frames with a table of their own
// (docs/format.md section 7).
package pack

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"ferry/internal/repo/format"
)

// Kind says what a frame holds; packs hold frames of one kind only.
type Kind uint8

// The kinds of frames and packs.
const (
	KindBlock Kind = 1
	KindNode  Kind = 2
)

// String returns the kind's name in the log.
func (k Kind) String() string {
	switch k {
	case KindBlock:
		return "data"
	case KindNode:
		return "nodes"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Codec says how a frame's content is compressed.
type Codec uint8

// The codecs.
const (
	CodecNone Codec = 0
	CodecS2   Codec = 1
	CodecZstd Codec = 2
)

// String returns the codec's name.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

const (
	// FrameHeaderSize is the size of a frame's header in bytes.
	FrameHeaderSize = 96
	frameMagic      = "FRM1"
	checksumOffset  = 80
	checksumSize    = 16
)

// Limits of frames, in bytes: content that does not shrink is stored as it is, and encryption adds a tag.
const (
	MaxStored = format.MaxBlock + TagSize
	MaxFrame  = FrameHeaderSize + MaxStored
)

// Checksum of a frame's header and stored bytes.
type Checksum [checksumSize]byte

// Frame is a frame's header.
type Frame struct {
	Kind   Kind
	Codec  Codec
	Plain  uint32
	Stored uint32
	// Generation of the data key; 0: not encrypted, and no salt.
	Generation uint32
	Salt       [format.SaltSize]byte
	ID         format.ID
	Sum        Checksum
}

// Size of the whole frame in bytes.
func (f Frame) Size() int { return FrameHeaderSize + int(f.Stored) }

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	// The window comes before the level, which would cut a block of a repository in Zstandard's blocks of 64 KiB: one of 128 KiB is
	// encoded in place, where of two the first is copied to be looked back at.
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(format.MaxBlock), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // only for impossible options
	}
	return encoder
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(format.MaxBlock), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // only for impossible options
	}
	return decoder
})

// AppendFrame appends a whole frame to dst. The id must be the content's id. Content that does not shrink is stored
// with CodecNone. A sealer that is not nil encrypts it, unless it is a node. Nothing is allocated if dst has room: for
// MaxFrame bytes, or with CodecS2 for what s2.MaxEncodedLen says, the header and the tag.
func AppendFrame(dst []byte, hasher *format.Hasher, sealer *Sealer, kind Kind, codec Codec, id format.ID, plain []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, FrameHeaderSize)...)
	body := len(dst)
	switch codec {
	case CodecS2:
		dst = appendS2(dst, plain)
	case CodecZstd:
		dst = zstdEncoder().EncodeAll(plain, dst)
	}
	if codec == CodecNone || len(dst)-body >= len(plain) {
		codec = CodecNone
		dst = append(dst[:body], plain...)
	}
	header := dst[start:body]
	copy(header, frameMagic)
	header[4], header[5] = byte(kind), byte(codec)
	binary.LittleEndian.PutUint32(header[8:], uint32(len(plain)))
	copy(header[48:], id[:])
	if sealer != nil && kind == KindBlock {
		binary.LittleEndian.PutUint32(header[12:], uint32(len(dst)-body+TagSize))
		dst = slices.Grow(dst, TagSize)
		header = dst[start:body]
		dst = dst[:body+len(sealer.seal(header, dst[body:]))]
	} else {
		binary.LittleEndian.PutUint32(header[12:], uint32(len(dst)-body))
	}
	sum := checksum(hasher, dst[start:])
	copy(header[checksumOffset:], sum[:])
	return dst
}

// checksum of a whole frame: of its header up to where the checksum stands, and its stored bytes.
func checksum(hasher *format.Hasher, frame []byte) Checksum {
	sum := hasher.Sum(format.ContextFrame, frame[:checksumOffset], frame[FrameHeaderSize:])
	return Checksum(sum[:checksumSize])
}

func appendS2(dst, plain []byte) []byte {
	need := s2.MaxEncodedLen(len(plain))
	if cap(dst)-len(dst) < need {
		grown := make([]byte, len(dst), len(dst)+need)
		copy(grown, dst)
		dst = grown
	}
	encoded := s2.Encode(dst[len(dst):len(dst)+need], plain)
	return dst[:len(dst)+len(encoded)]
}

// ParseFrame reads a frame's header. It checks everything that the header alone can show.
func ParseFrame(header []byte) (Frame, error) {
	var f Frame
	if len(header) < FrameHeaderSize || string(header[:4]) != frameMagic {
		return f, fmt.Errorf("%w: no frame here", format.ErrCorrupt)
	}
	f.Kind, f.Codec = Kind(header[4]), Codec(header[5])
	f.Plain = binary.LittleEndian.Uint32(header[8:])
	f.Stored = binary.LittleEndian.Uint32(header[12:])
	f.Generation = binary.LittleEndian.Uint32(header[16:])
	copy(f.Salt[:], header[32:])
	copy(f.ID[:], header[48:])
	copy(f.Sum[:], header[checksumOffset:])
	encoded := f.Stored
	if f.Generation != 0 {
		encoded -= min(TagSize, encoded)
	}
	switch {
	case f.Kind != KindBlock && f.Kind != KindNode:
		return f, fmt.Errorf("%w: frame of %s", format.ErrCorrupt, f.Kind)
	case f.Codec > CodecZstd:
		return f, fmt.Errorf("%w: frame with %s", format.ErrNewer, f.Codec)
	case anySet(header[6:8]) || anySet(header[20:24]):
		return f, fmt.Errorf("%w: frame has reserved bytes set", format.ErrCorrupt)
	case f.Generation == 0 && anySet(header[24:48]):
		return f, fmt.Errorf("%w: frame has a nonce or a salt and is not encrypted", format.ErrCorrupt)
	case f.Generation != 0 && f.Kind == KindNode:
		return f, fmt.Errorf("%w: frame of a node is encrypted", format.ErrCorrupt)
	case f.Plain == 0 || f.Plain > format.MaxBlock || encoded == 0 || encoded > f.Plain || (f.Codec == CodecNone && encoded != f.Plain):
		return f, fmt.Errorf("%w: frame with impossible lengths %d and %d", format.ErrCorrupt, f.Plain, f.Stored)
	}
	return f, nil
}

// anySet is true if a byte is not zero.
func anySet(reserved []byte) bool {
	for _, b := range reserved {
		if b != 0 {
			return true
		}
	}
	return false
}

// CheckFrame checks a whole frame's checksum: that its stored bytes are what was written. It needs no key.
func CheckFrame(frame []byte, hasher *format.Hasher) (Frame, error) {
	f, err := parseWhole(frame)
	if err == nil && checksum(hasher, frame) != f.Sum {
		err = fmt.Errorf("%w: frame checksum differs", format.ErrCorrupt)
	}
	return f, err
}

// parseWhole reads the header of a frame that is there whole and nothing behind it.
func parseWhole(frame []byte) (Frame, error) {
	f, err := ParseFrame(frame)
	if err == nil && len(frame) != f.Size() {
		err = fmt.Errorf("%w: frame of %d bytes in %d", format.ErrCorrupt, f.Size(), len(frame))
	}
	return f, err
}

// DecodeFrame appends a frame's plain content to dst. What is encrypted is opened, which proves it as well: the error
// wraps format.ErrNeedsKey if opener is nil, format.ErrForged if it was sealed by somebody without the key. What is not
// encrypted is not proven, nor is the content's id: the caller knows the context to hash it in. A frame that decodes to
// another length than it says is corrupt. The frame's bytes stay as they are.
func DecodeFrame(dst, frame []byte, opener *Opener) (Frame, []byte, error) {
	f, err := parseWhole(frame)
	if err != nil {
		return f, dst, err
	}
	start := len(dst)
	if need := start + int(f.Plain); cap(dst) < need {
		grown := make([]byte, start, need)
		copy(grown, dst)
		dst = grown
	}
	encoded := frame[FrameHeaderSize:]
	if f.Generation != 0 {
		with := scratches.Get().(*scratch)
		defer scratches.Put(with)
		if f.Codec == CodecNone {
			dst, err = opener.open(dst, f, frame, with)
			return f, dst, err
		}
		if encoded, err = opener.open(with.bytes[:0], f, frame, with); err != nil {
			return f, dst, err
		}
		with.bytes = encoded
	}
	dst, err = decode(dst, f, encoded)
	return f, dst, err
}

// decode appends content that a frame's codec made to dst, which has room for it.
func decode(dst []byte, f Frame, encoded []byte) ([]byte, error) {
	start := len(dst)
	switch f.Codec {
	case CodecNone:
		dst = append(dst, encoded...)
	case CodecS2:
		length, err := s2.DecodedLen(encoded)
		if err != nil || length != int(f.Plain) {
			return dst, fmt.Errorf("%w: s2 content does not have the stated length", format.ErrCorrupt)
		}
		decoded, err := s2.Decode(dst[start:start+length], encoded)
		if err != nil {
			return dst, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
		}
		dst = dst[:start+len(decoded)]
	case CodecZstd:
		decoded, err := zstdDecoder().DecodeAll(encoded, dst[start:start:start+int(f.Plain)])
		if err != nil {
			return dst, fmt.Errorf("%w: %w", format.ErrCorrupt, err)
		}
		dst = dst[:start+len(decoded)]
	}
	if len(dst)-start != int(f.Plain) {
		return dst, fmt.Errorf("%w: frame decodes to %d bytes, not %d", format.ErrCorrupt, len(dst)-start, f.Plain)
	}
	return dst, nil
}
