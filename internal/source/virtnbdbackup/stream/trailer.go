package stream

import (
	"bufio"
	"errors"
	"io"
)

// trailer is the list at the end of a compressed file: the stored size of each data frame's payload, in the order of
// the frames. An entry is a number, or {"<sum>": [size, size…]} where the payload is several lz4 frames. It is read
// while the frames are walked, so that a long list needs no memory.
type trailer struct {
	// start is the list's offset in the file, which is where the stop frame has to end.
	start int64
	text  *bufio.Reader
	// read counts the bytes of the list taken so far, for messages.
	read    int64
	entries int
	ended   bool
	// parts is reused from entry to entry.
	parts []int64
}

// trailerLimit bounds the list's length in bytes. The extents an index may have need less.
const trailerLimit = 128 << 20

// lz4MinSize is the least number of bytes of an lz4 frame: magic, descriptor of three bytes, end mark.
const lz4MinSize = 11

// openTrailer finds the list by the comp frame that ends the file.
func openTrailer(r io.ReaderAt, size int64, last header) (*trailer, error) {
	const behind = HeaderSize + int64(len(lineEnd))
	if last.start != 0 || last.length > size-behind || last.length > trailerLimit {
		return nil, broken(size-HeaderSize, "a list of %d bytes of compressed sizes cannot be", last.length)
	}
	start := size - behind - last.length
	var end [len(lineEnd)]byte
	if n, err := r.ReadAt(end[:], start+last.length); n < len(end) {
		return nil, shortRead(start+last.length, err)
	}
	if string(end[:]) != lineEnd {
		return nil, broken(start+last.length, "the list of compressed sizes does not end where it says")
	}
	return &trailer{start: start, text: bufio.NewReaderSize(io.NewSectionReader(r, start, last.length), 4<<10)}, nil
}

// next returns the stored size of the next data frame's payload and of the lz4 frames in it. The slice is valid until
// the next call. It returns io.EOF behind the last entry, once the whole list has proven to be well formed. At most
// limit parts are taken.
func (t *trailer) next(limit int) (int64, []int64, error) {
	if t.ended {
		return 0, nil, io.EOF
	}
	opening := byte('[')
	if t.entries > 0 {
		opening = ','
	}
	c, err := t.symbol()
	if err != nil {
		return 0, nil, err
	}
	if c == ']' && t.entries > 0 {
		return 0, nil, t.end()
	}
	if c != opening {
		return 0, nil, t.bad()
	}
	t.entries++
	if c, err = t.symbol(); err != nil {
		return 0, nil, err
	}
	t.parts = t.parts[:0]
	switch {
	case c == ']' && opening == '[':
		return 0, nil, t.end()
	case c == '{':
		return t.severalParts(limit)
	default:
		size, err := t.number(c)
		t.parts = append(t.parts, size)
		return size, t.parts, err
	}
}

// severalParts reads an entry behind its brace, and checks that the parts add up.
func (t *trailer) severalParts(limit int) (int64, []int64, error) {
	if err := t.expect('"'); err != nil {
		return 0, nil, err
	}
	c, err := t.symbol()
	if err != nil {
		return 0, nil, err
	}
	total, err := t.number(c)
	if err != nil {
		return 0, nil, err
	}
	for _, want := range []byte{'"', ':', '['} {
		if err := t.expect(want); err != nil {
			return 0, nil, err
		}
	}
	var sum int64
	for {
		if c, err = t.symbol(); err != nil {
			return 0, nil, err
		}
		size, err := t.number(c)
		if err != nil {
			return 0, nil, err
		}
		if len(t.parts) >= limit {
			return 0, nil, errTooManyExtents
		}
		t.parts = append(t.parts, size)
		if sum += size; sum > total {
			return 0, nil, broken(t.start+t.read, "parts of more than their sum of %d compressed bytes", total)
		}
		if c, err = t.symbol(); err != nil {
			return 0, nil, err
		}
		if c == ']' {
			break
		}
		if c != ',' {
			return 0, nil, t.bad()
		}
	}
	if sum != total {
		return 0, nil, broken(t.start+t.read, "parts of %d compressed bytes in all, not %d", sum, total)
	}
	return total, t.parts, t.expect('}')
}

// number reads a decimal number that begins with c.
func (t *trailer) number(c byte) (int64, error) {
	var value int64
	for digits := 0; ; digits++ {
		if c < '0' || c > '9' {
			if digits == 0 {
				return 0, t.bad()
			}
			t.read--
			if err := t.text.UnreadByte(); err != nil {
				return 0, err
			}
			break
		}
		if value = value*10 + int64(c-'0'); value > sizeLimit {
			return 0, t.bad()
		}
		var err error
		if c, err = t.char(); err != nil {
			return 0, err
		}
	}
	if value < lz4MinSize {
		return 0, broken(t.start+t.read, "an lz4 frame of %d bytes cannot be", value)
	}
	return value, nil
}

// end checks that nothing follows the list.
func (t *trailer) end() error {
	t.ended = true
	switch _, err := t.text.ReadByte(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return err
	}
	return t.bad()
}

func (t *trailer) expect(want byte) error {
	c, err := t.symbol()
	if err == nil && c != want {
		err = t.bad()
	}
	return err
}

// symbol returns the next byte that is not a space.
func (t *trailer) symbol() (byte, error) {
	for {
		c, err := t.char()
		if err != nil || (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
			return c, err
		}
	}
}

func (t *trailer) char() (byte, error) {
	c, err := t.text.ReadByte()
	if errors.Is(err, io.EOF) {
		return 0, t.bad()
	}
	t.read++
	return c, err
}

func (t *trailer) bad() error {
	return broken(t.start+t.read, "the list of compressed sizes is malformed")
}
