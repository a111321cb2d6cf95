package fs

import (
	"os"
	"path/filepath"
	"testing"

	"ferry/internal/pagecache/pagecachetest"
)

// What is read once leaves in the page cache what was there, and nothing else.
func TestReadOnceDoesNotFillTheCache(t *testing.T) {
	const size, warm, piece = 16 << 20, 4 << 20, 1 << 20
	path := filepath.Join(pagecachetest.Folder(t), "pack")
	pagecachetest.File(t, path, size, warm)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(file, size, path)
	for offset := int64(0); offset < size; offset += piece {
		if n, err := r.ReadOnceAt(make([]byte, piece), offset); n != piece || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	pagecachetest.Resident(t, path, 0, warm, warm)
	pagecachetest.Resident(t, path, warm, size-warm, 0)
}
