// Package storagetest is the contract suite of package storage: what every implementation must show before a
// repository is laid on it. Implementations call [Run] from their own tests.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"ferry/internal/storage"
)

// Run tests a Store. The function open gives an empty one for each part of the suite, and closes it by t.Cleanup.
//
// Listings may lag behind. A store whose listings do has a method Settle(), after which they show everything; the
// suite calls it before it judges a listing.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, part := range []struct {
		name string
		test func(*testing.T, storage.Store)
	}{
		{"PublishWhole", testPublishWhole},
		{"Put", testPut},
		{"Abort", testAbort},
		{"FinishedWriter", testFinishedWriter},
		{"Exists", testExists},
		{"OneWinner", testOneWinner},
		{"BuffersAreNotKept", testBuffersAreNotKept},
		{"BigObject", testBigObject},
		{"ReadRanges", testReadRanges},
		{"NotExist", testNotExist},
		{"ReadAll", testReadAll},
		{"Delete", testDelete},
		{"List", testList},
		{"ListPrefix", testListPrefix},
		{"Modified", testModified},
		{"Overwrite", testOverwrite},
		{"OverwriteUnderReaders", testOverwriteUnderReaders},
		{"Cancelled", testCancelled},
		{"CancelledWhileWriting", testCancelledWhileWriting},
		{"Names", testNames},
		{"ManyAtOnce", testManyAtOnce},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, open(t)) })
	}
}

// create writes an object in the given pieces, without committing it.
func create(t *testing.T, store storage.Store, name string, pieces ...[]byte) storage.Writer {
	t.Helper()
	w, err := store.Create(t.Context(), name)
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
	for _, piece := range pieces {
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			t.Fatalf("write to %s: %d of %d bytes, %v", name, n, len(piece), err)
		}
	}
	return w
}

func put(t *testing.T, store storage.Store, name string, content []byte) {
	t.Helper()
	if err := store.Put(t.Context(), name, content); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
}

// want checks that an object has exactly this content, by every way to see it but a listing.
func want(t *testing.T, store storage.Store, name string, content []byte) {
	t.Helper()
	found, err := read(t.Context(), store, name)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	if !bytes.Equal(found, content) {
		t.Fatalf("%s has %d bytes %.40q…, want %d bytes %.40q…", name, len(found), found, len(content), content)
	}
	info, err := store.Stat(t.Context(), name)
	if err != nil || info.Name != name || info.Size != int64(len(content)) {
		t.Fatalf("stat %s: %+v, %v, want %d bytes", name, info, err, len(content))
	}
}

// wantAbsent checks that an object does not exist.
func wantAbsent(t *testing.T, store storage.Store, name string) {
	t.Helper()
	if reader, err := store.Open(t.Context(), name); !errors.Is(err, storage.ErrNotExist) {
		if err == nil {
			reader.Close()
		}
		t.Fatalf("open %s: %v, want ErrNotExist", name, err)
	}
	if info, err := store.Stat(t.Context(), name); !errors.Is(err, storage.ErrNotExist) {
		t.Fatalf("stat %s: %+v, %v, want ErrNotExist", name, info, err)
	}
}

// read reads an object whole. It returns errors, so that goroutines of a test may use it.
func read(ctx context.Context, store storage.Store, name string) ([]byte, error) {
	reader, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	content := make([]byte, reader.Size())
	n, err := reader.ReadAt(content, 0)
	if err == io.EOF {
		err = nil
	}
	if err == nil && n < len(content) {
		err = fmt.Errorf("%d bytes of %d without an error", n, len(content))
	}
	return content[:n], err
}

// wantList checks which names are listed, each once, and that sizes and times are those of Stat.
func wantList(t *testing.T, store storage.Store, prefix string, names ...string) {
	t.Helper()
	if settling, ok := store.(interface{ Settle() }); ok {
		settling.Settle()
	}
	found := map[string]storage.Info{}
	for info, err := range store.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		if _, twice := found[info.Name]; twice {
			t.Fatalf("list %q: %s twice", prefix, info.Name)
		}
		found[info.Name] = info
	}
	sorted := slices.Sorted(maps.Keys(found))
	slices.Sort(names)
	if !slices.Equal(sorted, names) {
		t.Fatalf("list %q: %q, want %q", prefix, sorted, names)
	}
	for name, listed := range found {
		info, err := store.Stat(t.Context(), name)
		if err != nil || info.Size != listed.Size || !info.Modified.Equal(listed.Modified) {
			t.Fatalf("list %q: %+v, but stat says %+v, %v", prefix, listed, info, err)
		}
	}
}

// pattern gives bytes that differ at every place of an object up to 16 MiB, and between seeds.
func pattern(seed byte, size int) []byte {
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i) ^ byte(i>>8)*3 ^ byte(i>>16)*7 ^ seed
	}
	return content
}
