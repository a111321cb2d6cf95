package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"ferry/internal/storage"
)

func testPublishWhole(t *testing.T, store storage.Store) {
	const name = "packs/ab/object"
	w := create(t, store, name, []byte("one "), nil, []byte("two"))
	defer w.Abort()
	wantAbsent(t, store, name)
	wantList(t, store, "")
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, store, name, []byte("one two"))
	wantList(t, store, "", name)

	empty := create(t, store, "empty")
	if err := empty.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, store, "empty", nil)
	if store.Location() == "" {
		t.Error("the store has no location")
	}
}

func testPut(t *testing.T, store storage.Store) {
	for i, content := range [][]byte{[]byte("content"), {}, nil, pattern(1, 1<<20)} {
		name := fmt.Sprintf("log/%012d", i)
		put(t, store, name, content)
		want(t, store, name, content)
	}
}

func testAbort(t *testing.T, store storage.Store) {
	w := create(t, store, "a/b", []byte("content"))
	w.Abort()
	w.Abort()
	wantAbsent(t, store, "a/b")
	wantList(t, store, "")
	put(t, store, "a/b", []byte("another"))
	want(t, store, "a/b", []byte("another"))

	committed := create(t, store, "a/c", []byte("content"))
	if err := committed.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	committed.Abort()
	want(t, store, "a/c", []byte("content"))
}

// testFinishedWriter: a writer that was committed or aborted takes nothing more, and changes nothing more.
func testFinishedWriter(t *testing.T, store storage.Store) {
	committed := create(t, store, "committed", []byte("content"))
	if err := committed.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	aborted := create(t, store, "aborted", []byte("content"))
	aborted.Abort()
	for what, w := range map[string]storage.Writer{"committed": committed, "aborted": aborted} {
		if _, err := w.Write([]byte("more")); err == nil {
			t.Errorf("%s writer takes bytes", what)
		}
		if err := w.Commit(t.Context()); err == nil {
			t.Errorf("%s writer can be committed", what)
		}
	}
	want(t, store, "committed", []byte("content"))
	wantAbsent(t, store, "aborted")
}

func testExists(t *testing.T, store storage.Store) {
	late := create(t, store, "log/1", []byte("late"))
	put(t, store, "log/1", []byte("first"))
	if err := late.Commit(t.Context()); !errors.Is(err, storage.ErrExists) {
		t.Errorf("commit of a name taken meanwhile: %v, want ErrExists", err)
	}
	late.Abort()
	if err := store.Put(t.Context(), "log/1", []byte("second")); !errors.Is(err, storage.ErrExists) {
		t.Errorf("put of a name taken: %v, want ErrExists", err)
	}
	// The same content makes no difference: one writer made it, the other did not.
	if err := store.Put(t.Context(), "log/1", []byte("first")); !errors.Is(err, storage.ErrExists) {
		t.Errorf("put of the same content: %v, want ErrExists", err)
	}
	want(t, store, "log/1", []byte("first"))
	wantList(t, store, "", "log/1")
}

// testOneWinner: of several writers that publish one name at once, exactly one succeeds, and its content is there.
func testOneWinner(t *testing.T, store storage.Store) {
	const writers, rounds = 8, 5
	for round := range rounds {
		name := fmt.Sprintf("log/%d", round)
		results := make([]error, writers)
		var ready, done sync.WaitGroup
		ready.Add(writers)
		for i := range writers {
			done.Go(func() {
				publish := func() error { return store.Put(t.Context(), name, pattern(byte(i), 1000+i)) }
				if i%2 == 0 {
					w, err := store.Create(t.Context(), name)
					if err == nil {
						defer w.Abort()
						_, err = w.Write(pattern(byte(i), 1000+i))
					}
					publish = func() error {
						if err != nil {
							return err
						}
						return w.Commit(t.Context())
					}
				}
				ready.Done()
				ready.Wait()
				results[i] = publish()
			})
		}
		done.Wait()
		winners := 0
		for i, err := range results {
			if err == nil {
				winners++
				want(t, store, name, pattern(byte(i), 1000+i))
			} else if !errors.Is(err, storage.ErrExists) {
				t.Errorf("writer %d: %v, want ErrExists", i, err)
			}
		}
		if winners != 1 {
			t.Errorf("%d of %d writers published %s, want 1", winners, writers, name)
		}
	}
}

// testBuffersAreNotKept: callers use their buffers again.
func testBuffersAreNotKept(t *testing.T, store storage.Store) {
	buffer := []byte("one")
	w := create(t, store, "created", buffer)
	copy(buffer, "two")
	if _, err := w.Write(buffer); err != nil {
		t.Fatal(err)
	}
	copy(buffer, "xxx")
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, store, "created", []byte("onetwo"))

	copy(buffer, "put")
	put(t, store, "put", buffer)
	copy(buffer, "ovr")
	if err := store.Overwrite(t.Context(), "marks/over", buffer); err != nil {
		t.Fatal(err)
	}
	copy(buffer, "xxx")
	want(t, store, "put", []byte("put"))
	want(t, store, "marks/over", []byte("ovr"))

	found, err := read(t.Context(), store, "put")
	if err != nil {
		t.Fatal(err)
	}
	copy(found, "xxx")
	want(t, store, "put", []byte("put"))
}

// testBigObject writes more than any buffer on the way holds, in pieces that fit no block.
func testBigObject(t *testing.T, store storage.Store) {
	const size = 20<<20 + 12345
	content := pattern(9, size)
	w := create(t, store, "packs/cd/big")
	defer w.Abort()
	piece := 1
	for rest := content; len(rest) > 0; piece = (piece*3 + 1) % (1 << 20) {
		n := min(piece, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := read(t.Context(), store, "packs/cd/big")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(found, content) {
		t.Error("the object is not what was written")
	}
}

// testManyAtOnce: goroutines that work on different names do not disturb each other, also in folders nobody made yet.
func testManyAtOnce(t *testing.T, store storage.Store) {
	const workers, objects = 6, 8
	var names []string
	for worker := range workers {
		for object := range objects {
			names = append(names, fmt.Sprintf("packs/%02d/%d", object, worker))
		}
	}
	errs := make([]error, workers)
	var done sync.WaitGroup
	for worker := range workers {
		done.Go(func() {
			for object := range objects {
				name := fmt.Sprintf("packs/%02d/%d", object, worker)
				content := pattern(byte(worker), 100+object)
				if err := store.Put(t.Context(), name, content); err != nil {
					errs[worker] = err
					return
				}
				found, err := read(t.Context(), store, name)
				if err == nil && !bytes.Equal(found, content) {
					err = fmt.Errorf("%s is not what was just put there", name)
				}
				if err != nil {
					errs[worker] = err
					return
				}
			}
		})
	}
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wantList(t, store, "packs/", names...)
}
