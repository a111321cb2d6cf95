package pack

import (
	"bytes"
	"testing"

	"ferry/internal/repo/format"
)

func FuzzDecodeFrame(f *testing.F) {
	hasher := hashers()[0]
	for _, codec := range codecs {
		for _, content := range append(smallContents(), bytes.Repeat([]byte("ferry"), 1000)) {
			frame := AppendFrame(nil, hasher, nil, KindBlock, codec, format.ID{1}, content)
			f.Add(frame[FrameHeaderSize:], uint8(codec), uint32(len(content)))
			f.Add(frame[FrameHeaderSize:], uint8(codec), uint32(len(content)+1))
		}
	}
	f.Add([]byte{}, uint8(3), uint32(1<<30))
	f.Fuzz(func(t *testing.T, body []byte, codec uint8, plain uint32) {
		frame := rawFrame(hasher, Codec(codec), plain, uint32(len(body)), body)
		checked, checkErr := CheckFrame(frame, hasher)
		decoded, got, err := DecodeFrame(nil, frame, nil)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			if cap(got) > format.MaxBlock+format.MaxBlock/4 {
				t.Fatalf("%v, with a buffer of %d bytes", err, cap(got))
			}
			return
		}
		if checkErr != nil || checked != decoded || len(got) != int(plain) {
			t.Fatalf("decodes to %+v, %d bytes; checks as %+v, %v", decoded, len(got), checked, checkErr)
		}
		again := AppendFrame(nil, hasher, nil, KindBlock, Codec(codec), decoded.ID, got)
		if _, back, err := DecodeFrame(nil, again, nil); err != nil || !bytes.Equal(back, got) {
			t.Fatalf("encoded again it decodes to %d bytes, %v", len(back), err)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	hasher := hashers()[0]
	frame := AppendFrame(nil, hasher, nil, KindNode, CodecS2, format.ID{1}, bytes.Repeat([]byte("ab"), 50))
	f.Add(frame)
	f.Add(frame[:FrameHeaderSize])
	f.Add(rawFrame(hasher, CodecNone, 1, 1, []byte{1}))
	f.Add([]byte(frameMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, err := ParseFrame(raw)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		most := parsed.Plain
		if parsed.Generation != 0 {
			most += TagSize
		}
		if parsed.Plain == 0 || parsed.Plain > format.MaxBlock || parsed.Stored > most || parsed.Size() > MaxFrame {
			t.Fatalf("accepted %+v", parsed)
		}
		if _, got, err := DecodeFrame(nil, raw, nil); err != nil && !classified(err) {
			t.Fatalf("decoding: an error of no class: %v", err)
		} else if err == nil && len(got) != int(parsed.Plain) {
			t.Fatalf("decoded to %d bytes, not %d", len(got), parsed.Plain)
		}
	})
}

func FuzzReadTable(f *testing.F) {
	hasher := hashers()[1]
	for _, contents := range [][][]byte{nil, smallContents()} {
		raw, _ := write(f, hasher, KindBlock, contents, codecs)
		f.Add(raw, true)
		f.Add(raw, false)
		f.Add(raw[:len(raw)-1], true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, mend bool) {
		if mend && len(raw) >= headerSize+trailerSize {
			raw = reseal(hasher, bytes.Clone(raw)) // else nothing gets behind the checksums
		}
		table, good, damaged, err := check(raw, hasher)
		if err != nil {
			if !classified(err) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		if len(good)+len(damaged) != len(table.Entries) {
			t.Fatalf("%d good and %d damaged of %d", len(good), len(damaged), len(table.Entries))
		}
		next := uint32(headerSize)
		for _, e := range table.Entries {
			if e.Offset != next || e.Kind != table.Header.Kind {
				t.Fatalf("accepted entry %+v at %d", e, next)
			}
			next += uint32(e.FrameSize())
		}
	})
}

// countingReader counts what is read of it.
type countingReader struct {
	*bytes.Reader
	read int64
}

func (c *countingReader) ReadAt(p []byte, offset int64) (int, error) {
	c.read += int64(len(p))
	return c.Reader.ReadAt(p, offset)
}

// In a pack made to be scanned everything looks like the header of a large frame: the scan gives up in time.
func TestScanReadsAHostilePackAFewTimesOnly(t *testing.T) {
	header := make([]byte, FrameHeaderSize)
	copy(header, frameMagic)
	header[4] = byte(KindBlock)
	header[10], header[14] = 0x3f, 0x3f // four MiB of content, and as much stored
	raw := bytes.Repeat(header[:16], 1<<19)
	in := &countingReader{Reader: bytes.NewReader(raw)}
	if found := Scan(in, int64(len(raw)), hashers()[0]); len(found) != 0 {
		t.Fatalf("found %d frames", len(found))
	}
	if limit := int64(scanFactor+1)*int64(len(raw)) + 8<<20; in.read > limit {
		t.Fatalf("read %d bytes of a pack of %d", in.read, len(raw))
	}
}
