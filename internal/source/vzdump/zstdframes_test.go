package vzdump

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// FuzzZstdFrames: what is known of a stream's frames does not depend on how the bytes come, and where the decoder takes all of a
// stream, the frames were followed to its end.
func FuzzZstdFrames(f *testing.F) {
	f.Add(zstdFrame(f, []byte("some content, some content"), true), uint8(1))
	f.Add(append(zstdFrame(f, nil, false), zstdFrame(f, make([]byte, 200<<10), true)...), uint8(7))
	f.Add([]byte("\x53\x2a\x4d\x18\x03\x00\x00\x00abc"), uint8(3))
	f.Fuzz(func(t *testing.T, content []byte, step uint8) {
		var whole, pieces zstdFrames
		whole.follow(content)
		for piece := range slices.Chunk(content, int(step)+1) {
			pieces.follow(piece)
		}
		if whole.checked() != pieces.checked() || whole.state != pieces.state || whole.want != pieces.want || whole.frames != pieces.frames {
			t.Fatalf("%+v in one piece, %+v in pieces", whole, pieces)
		}
		decoder, err := zstd.NewReader(bytes.NewReader(content), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			t.Fatal(err)
		}
		defer decoder.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(decoder, 64<<20))
		if err == nil && n < 64<<20 && (whole.state != zstdMagic || whole.want != 0 || len(whole.gathered) > 0) {
			t.Fatalf("the decoder is at the end, and the frames are followed to %+v", whole)
		}
	})
}
