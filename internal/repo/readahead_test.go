package repo

import (
	"bytes"
	"testing"

	"ferry/internal/repo/pack"
)

// openBytes are a file in memory.
type openBytes struct{ *bytes.Reader }

func (openBytes) Close() error { return nil }

// A repository has many packs: who reads them one after the other makes no new memory for each.
func TestMemoryToReadAheadIsUsedAgain(t *testing.T) {
	made := 0
	makePiece := aheadPieces.New
	aheadPieces.New = func() any { made++; return makePiece() }
	defer func() { aheadPieces.New = makePiece }()
	content := bytes.Repeat([]byte{1, 2, 3, 5, 7, 11, 13}, aheadPiece*5/4/7)
	const packs = 16
	frame := make([]byte, 1<<20)
	for range packs {
		ahead := newReadAhead(openBytes{bytes.NewReader(content)})
		for offset := int64(pack.FirstFrame); offset < int64(len(content)); offset += int64(len(frame)) {
			n := min(len(content)-int(offset), len(frame))
			if _, err := ahead.ReadAt(frame[:n], offset); err != nil || !bytes.Equal(frame[:n], content[offset:offset+int64(n)]) {
				t.Fatalf("at %d: %v, or other bytes", offset, err)
			}
		}
		if err := ahead.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if made > packs*3/2 { // of the two for each; under the race detector a pool loses some of what it is given
		t.Errorf("%d pieces of memory for %d packs", made, packs)
	}
}
