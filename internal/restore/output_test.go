package restore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ferry/internal/direct"
	"ferry/internal/repo"
)

// Blocks of any size and order, with holes anywhere in them, put into their room or not, past the page cache or through it,
// make the file that they are of.
func TestOutput(t *testing.T) {
	const size = 9<<20 + 12_345
	random := rand.New(rand.NewChaCha8([32]byte{7})) //nolint:gosec // no secret
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{8}).Read(content)
	for range 40 { // holes, most of them inside a block
		at := random.IntN(size) &^ (sparseGrain - 1)
		clear(content[at:min(at+sparseGrain*(1+random.IntN(20)), size)])
	}
	for _, blockSize := range []int{4 << 10, 128 << 10, 100_000, 3 << 20} {
		for _, cached := range []bool{false, true} {
			for _, roomy := range []bool{false, true} {
				t.Run(fmt.Sprint(blockSize, cached, roomy), func(t *testing.T) {
					file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
					if err != nil {
						t.Fatal(err)
					}
					defer file.Close()
					if err := file.Truncate(size); err != nil {
						t.Fatal(err)
					}
					writeBlocks(t, newOutput(file, cached), content, blockSize, roomy, random)
					got, err := os.ReadFile(file.Name())
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("%d bytes of %d, equal %v, %v", len(got), size, bytes.Equal(got, content), err)
					}
				})
			}
		}
	}
}

// writeBlocks gives the content to two sinks, in runs that follow each other or not. Blocks come in their room or, if not
// roomy, in memory that is overwritten afterwards.
func writeBlocks(t *testing.T, out *output, content []byte, blockSize int, roomy bool, random *rand.Rand) {
	t.Helper()
	sinks := []repo.Sink{out.sink(), out.sink()}
	sink := sinks[0]
	own := make([]byte, blockSize)
	for at := 0; at < len(content); at += blockSize {
		if random.IntN(5) == 0 {
			sink = sinks[random.IntN(2)]
		}
		part := content[at:min(at+blockSize, len(content))]
		block := repo.Block{Offset: int64(at), Length: int64(len(part))}
		plain := own[:0]
		if room := sink.Room(block); roomy && room != nil {
			plain = room
		}
		plain = append(plain, part...)
		if err := sink.Use(block, plain); err != nil {
			t.Fatal(err)
		}
		clear(own)
	}
	for _, sink := range sinks {
		if err := sink.End(); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.close(); err != nil {
		t.Fatal(err)
	}
}

// What lies together is put together: few writes, and no copy of what came in its room.
func TestOutputGathers(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := newOutput(file, true)
	sink := out.sink().(*gatherer)
	for n := range int64(8) {
		block := repo.Block{Offset: n * pieceSize / 8, Length: pieceSize / 8}
		room := sink.Room(block)
		plain := room[:pieceSize/8]
		copy(plain, bytes.Repeat([]byte{byte(n + 1)}, pieceSize/8))
		if err := sink.Use(block, plain); err != nil {
			t.Fatal(err)
		}
		if at := n * pieceSize / 8; &sink.open.data[at] != &plain[0] {
			t.Errorf("block %d was copied", n)
		}
	}
	if len(sink.open.data) != pieceSize || !direct.Aligned(sink.open.data, sink.open.offset) {
		t.Errorf("a piece of %d bytes, aligned %v", len(sink.open.data), direct.Aligned(sink.open.data, sink.open.offset))
	}
	if err := errors.Join(sink.End(), out.close()); err != nil {
		t.Fatal(err)
	}
}

func TestOutputFails(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	out := newOutput(file, true)
	sink := out.sink()
	err = nil
	for n := int64(0); n < 100 && err == nil; n++ { // behind, so not at once
		err = sink.Use(repo.Block{Offset: n * pieceSize, Length: pieceSize}, bytes.Repeat([]byte{1}, pieceSize))
	}
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("100 pieces to a file that is closed: %v", err)
	}
	if err := out.close(); !errors.Is(err, os.ErrClosed) || errors.Is(err, unix.ENOSPC) {
		t.Errorf("in the end: %v", err)
	}
}
