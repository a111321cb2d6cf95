package vzdump

import (
	"encoding/binary"
	"io"
)

// zstdFrames passes a zstd stream through to a decoder and follows its frames (RFC 8878, section 3.1), to know whether
// every one of them has a checksum: the decoder checks those that are there and does not say which are. It judges
// nothing else; the decoder does.
type zstdFrames struct {
	in    io.Reader
	state zstdState
	// want is how many bytes to gather or to pass over before the next step.
	want      int64
	gathered  []byte
	has       bool // the current frame has a checksum
	frames    int
	unchecked bool
	// single: the current frame's window is its content's size.
	single bool
	// dictionary is how many bytes of its header name one.
	dictionary int
	// window is the largest that a frame has asked for, in bytes.
	window uint64
	// admit, if set, is called before the decoder sees of a frame that its window is larger than usualWindow, once.
	admit func() error
}

type zstdState uint8

const (
	zstdMagic zstdState = iota
	zstdSkippableSize
	zstdDescriptor
	zstdFrameHeader
	zstdBlockHeader
	zstdBlock
	zstdLastBlock
	zstdChecksum
	zstdSkippable
	zstdLost // not zstd; the decoder will say so
)

const (
	zstdFrameMagic     = 0xfd2fb528
	zstdSkippableMagic = 0x184d2a50 // and 15 more
)

func (z *zstdFrames) checked() bool { return z.frames > 0 && !z.unchecked }

func (z *zstdFrames) Read(p []byte) (int, error) {
	n, err := z.in.Read(p)
	z.follow(p[:n])
	if z.window > usualWindow && z.admit != nil {
		admit := z.admit
		z.admit = nil
		if err := admit(); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (z *zstdFrames) follow(p []byte) {
	for len(p) > 0 && z.state != zstdLost {
		if z.want == 0 {
			z.want = z.length()
		}
		take := min(z.want, int64(len(p)))
		if z.gathers() {
			z.gathered = append(z.gathered, p[:take]...)
		}
		p = p[take:]
		if z.want -= take; z.want == 0 {
			z.step()
			z.gathered = z.gathered[:0]
		}
	}
}

// gathers is true in states whose bytes say what comes next.
func (z *zstdFrames) gathers() bool {
	return z.state == zstdMagic || z.state == zstdSkippableSize || z.state == zstdDescriptor || z.state == zstdFrameHeader || z.state == zstdBlockHeader
}

// length of what the state is about, where the step before has not set it.
func (z *zstdFrames) length() int64 {
	switch z.state {
	case zstdDescriptor:
		return 1
	case zstdBlockHeader:
		return 3
	}
	return 4
}

// step goes on when all bytes of a state are there.
func (z *zstdFrames) step() {
	switch z.state {
	case zstdMagic:
		switch magic := binary.LittleEndian.Uint32(z.gathered); {
		case magic == zstdFrameMagic:
			z.state = zstdDescriptor
		case magic&^0xf == zstdSkippableMagic:
			z.state = zstdSkippableSize
		default:
			z.state = zstdLost
		}
	case zstdSkippableSize:
		z.to(zstdSkippable, int64(binary.LittleEndian.Uint32(z.gathered)))
	case zstdDescriptor:
		descriptor := z.gathered[0]
		z.single = descriptor&0x20 != 0
		z.has = descriptor&0x04 != 0
		z.frames++
		z.unchecked = z.unchecked || !z.has
		length := []int64{0, 1, 2, 4}[descriptor&3] + []int64{0, 2, 4, 8}[descriptor>>6]
		if z.single && descriptor>>6 == 0 {
			length++ // the content's size takes a byte
		}
		if !z.single {
			length++ // the window's
		}
		z.dictionary = []int{0, 1, 2, 4}[descriptor&3]
		z.to(zstdFrameHeader, length)
	case zstdFrameHeader:
		z.window = max(z.window, z.windowOf(z.gathered))
		z.state = zstdBlockHeader
	case zstdBlock:
		z.state = zstdBlockHeader
	case zstdBlockHeader:
		header := uint32(z.gathered[0]) | uint32(z.gathered[1])<<8 | uint32(z.gathered[2])<<16
		size := int64(header >> 3)
		if header>>1&3 == 1 {
			size = 1 // one byte, repeated
		}
		if header&1 != 0 {
			z.to(zstdLastBlock, size)
		} else {
			z.to(zstdBlock, size)
		}
	case zstdLastBlock:
		if z.state = zstdMagic; z.has {
			z.state = zstdChecksum
		}
	case zstdChecksum, zstdSkippable:
		z.state = zstdMagic
	}
}

// windowOf is what a frame's header, behind its descriptor, says of its window.
func (z *zstdFrames) windowOf(header []byte) uint64 {
	if !z.single {
		base := uint64(1) << (10 + header[0]>>3)
		return base + base/8*uint64(header[0]&7)
	}
	var size [8]byte
	n := copy(size[:], header[z.dictionary:])
	if n == 2 {
		return uint64(binary.LittleEndian.Uint16(size[:])) + 256
	}
	return binary.LittleEndian.Uint64(size[:])
}

// to enters a state of so many bytes; of none, it is done at once.
func (z *zstdFrames) to(state zstdState, length int64) {
	z.state, z.want = state, length
	if length == 0 {
		z.step()
	}
}
