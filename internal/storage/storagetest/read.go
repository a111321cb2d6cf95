package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"ferry/internal/storage"
)

func testReadRanges(t *testing.T, store storage.Store) {
	content := pattern(3, 100_000)
	put(t, store, "packs/ef/ranges", content)
	reader, err := store.Open(t.Context(), "packs/ef/ranges")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if reader.Size() != int64(len(content)) {
		t.Fatalf("size %d, want %d", reader.Size(), len(content))
	}
	size := len(content)
	ranges := []struct{ offset, length, want int }{
		{0, size, size}, {0, 1, 1}, {4095, 4097, 4097}, {size - 1, 1, 1}, {0, 0, 0}, {size / 2, 0, 0},
		// Past the end: what there is, and io.EOF.
		{size - 10, 20, 10}, {0, size + 1, size}, {size, 1, 0}, {size + 5000, 10, 0},
	}
	check := func(offset, length, want int) error {
		buffer := make([]byte, length)
		n, err := reader.ReadAt(buffer, int64(offset))
		switch {
		case n != want:
			return fmt.Errorf("%d bytes at %d: got %d (%v), want %d", length, offset, n, err, want)
		case n < length && err != io.EOF:
			return fmt.Errorf("%d bytes at %d: %v, want EOF", length, offset, err)
		case n == length && err != nil && (err != io.EOF || offset+length < size):
			return fmt.Errorf("%d bytes at %d: %v", length, offset, err)
		case n > 0 && !bytes.Equal(buffer[:n], content[offset:offset+n]):
			return fmt.Errorf("%d bytes at %d are not what was written", length, offset)
		}
		return nil
	}
	for _, r := range ranges {
		if err := check(r.offset, r.length, r.want); err != nil {
			t.Error(err)
		}
	}
	if n, err := reader.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF || n != 0 {
		t.Errorf("read at -1: %d bytes, %v, want an error", n, err)
	}
	// Reads may run in parallel.
	errs := make([]error, 8)
	var done sync.WaitGroup
	for i := range errs {
		done.Go(func() {
			for step := range 50 {
				offset := (i*7919 + step*1543) % (size - 3000)
				errs[i] = errors.Join(errs[i], check(offset, 3000, 3000))
			}
		})
	}
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func testNotExist(t *testing.T, store storage.Store) {
	wantAbsent(t, store, "nothing")
	wantAbsent(t, store, "no/such/place")
	put(t, store, "packs/ab/object", []byte("content"))
	wantAbsent(t, store, "packs/ab/object2")
	wantAbsent(t, store, "packs/ab/objec")
	// What looks like a folder is none: the store is flat.
	wantAbsent(t, store, "packs/ab")
	wantAbsent(t, store, "packs")
	wantAbsent(t, store, "packs/ab/object/below")
	if err := store.Delete(t.Context(), "packs"); err != nil {
		t.Errorf("delete of what is no object: %v", err)
	}
	want(t, store, "packs/ab/object", []byte("content"))
}

func testReadAll(t *testing.T, store storage.Store) {
	content := pattern(5, 5000)
	put(t, store, "points/m/p", content)
	found, err := storage.ReadAll(t.Context(), store, "points/m/p", 5000)
	if err != nil || !bytes.Equal(found, content) {
		t.Errorf("read all: %d bytes, %v", len(found), err)
	}
	if _, err := storage.ReadAll(t.Context(), store, "points/m/p", 4999); err == nil {
		t.Error("an object above the limit was read")
	}
	if _, err := storage.ReadAll(t.Context(), store, "points/m/q", 5000); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("read all of nothing: %v, want ErrNotExist", err)
	}
}

func testDelete(t *testing.T, store storage.Store) {
	put(t, store, "packs/ab/one", []byte("one"))
	put(t, store, "packs/ab/two", []byte("two"))
	for range 2 {
		if err := store.Delete(t.Context(), "packs/ab/one"); err != nil {
			t.Fatalf("delete: %v", err)
		}
		wantAbsent(t, store, "packs/ab/one")
	}
	if err := store.Delete(t.Context(), "no/such/object"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	wantList(t, store, "", "packs/ab/two")
	put(t, store, "packs/ab/one", []byte("again"))
	want(t, store, "packs/ab/one", []byte("again"))
	want(t, store, "packs/ab/two", []byte("two"))
	wantList(t, store, "", "packs/ab/one", "packs/ab/two")
}

// testOverwriteUnderReaders: a reader sees one content or another, never a mixture, a part, or nothing.
func testOverwriteUnderReaders(t *testing.T, store storage.Store) {
	const name, versions, readers = "marks/lease", 40, 4
	version := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i*977%9000) }
	if err := store.Overwrite(t.Context(), name, version(0)); err != nil {
		t.Fatal(err)
	}
	finished := make(chan struct{})
	errs := make([]error, readers)
	var done sync.WaitGroup
	for i := range readers {
		done.Go(func() {
			for last := false; !last; {
				select {
				case <-finished:
					last = true
				default:
				}
				found, err := read(t.Context(), store, name)
				if err == nil && (len(found) == 0 || !bytes.Equal(found, version(int(found[0])))) {
					err = fmt.Errorf("%d bytes are no version", len(found))
				}
				if err == nil && last && found[0] != versions {
					err = fmt.Errorf("version %d after the last overwrite", found[0])
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	var failed error
	for i := range versions {
		failed = errors.Join(failed, store.Overwrite(t.Context(), name, version(i+1)))
	}
	close(finished)
	done.Wait()
	if err := errors.Join(append(errs, failed)...); err != nil {
		t.Fatal(err)
	}
	wantList(t, store, "", name)
}
