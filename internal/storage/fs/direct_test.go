package fs

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"ferry/internal/direct"
	"ferry/internal/storage"
)

// Large pieces go past the page cache where that fits, small and unaligned ones through it, in one object.
func TestDirectAndOtherWritesMakeOneObject(t *testing.T) {
	store, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	content := make([]byte, 5*directLeast+777)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	created, err := store.Create(t.Context(), "packs/aa/direct")
	if err != nil {
		t.Fatal(err)
	}
	w := created.(*writer)
	fit := w.directFit
	past := 0
	for rest := content; len(rest) > 0; {
		n := directLeast
		switch len(content) - len(rest) {
		case 2 * directLeast: // a piece that leaves the offset unaligned, then one that is unaligned
			n = 1000
		case 2*directLeast + 1000:
			n = directLeast + 100
		case 3*directLeast + 1100: // and back
			n = direct.Align - 1100
		}
		n = min(n, len(rest))
		piece := make([]byte, n)
		copy(piece, rest)
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		if w.direct {
			past++
		}
		rest = rest[n:]
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fit && past < 3 || !fit && past > 0 {
		t.Errorf("%d writes went past the page cache; the file system is fit for that: %v", past, fit)
	}
	got, err := storage.ReadAll(t.Context(), store, "packs/aa/direct", 1<<30)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes read of %d, equal %v, %v", len(got), len(content), bytes.Equal(got, content), err)
	}
}
