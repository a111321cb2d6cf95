package storagetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ferry/internal/storage"
)

func testList(t *testing.T, store storage.Store) {
	wantList(t, store, "")
	wantList(t, store, "packs/")
	var names []string
	for i := range 70 {
		name := fmt.Sprintf("packs/%02x/object-%d", i%5, i)
		names = append(names, name)
		put(t, store, name, pattern(0, i))
	}
	// A writer that has not committed shows nowhere.
	w := create(t, store, "packs/00/pending", []byte("content"))
	defer w.Abort()
	wantList(t, store, "packs/", names...)
	wantList(t, store, "", names...)

	seen := 0
	for _, err := range store.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 3 {
			break
		}
	}
	if seen != 3 {
		t.Errorf("a listing that was broken off yielded %d objects, want 3", seen)
	}
}

func testListPrefix(t *testing.T, store storage.Store) {
	all := []string{"repository.json", "a/1", "a/b/2", "a/b/c/3", "ab/4", "a-b/5", "A.B/6", ".hidden/7"}
	for _, name := range all {
		put(t, store, name, []byte(name))
	}
	wantList(t, store, "", all...)
	wantList(t, store, "a/", "a/1", "a/b/2", "a/b/c/3")
	wantList(t, store, "a/b/", "a/b/2", "a/b/c/3")
	wantList(t, store, "a/b/c/", "a/b/c/3")
	wantList(t, store, "ab/", "ab/4")
	wantList(t, store, "none/")
	wantList(t, store, "a/1/")
	for _, prefix := range []string{"a", "a/b", "/", "a//", "../", "a/../", "./", "tmp/"} {
		errs := 0
		for info, err := range store.List(t.Context(), prefix) {
			if err == nil {
				t.Errorf("list %q: %s", prefix, info.Name)
			} else {
				errs++
			}
		}
		if errs != 1 {
			t.Errorf("list %q: %d errors, want 1", prefix, errs)
		}
	}
}

// testModified: times are there, do not run backwards, and an overwritten object is as old as its last content.
func testModified(t *testing.T, store storage.Store) {
	var before time.Time
	see := func(name string) {
		t.Helper()
		info, err := store.Stat(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Modified.Unix() <= 0 || info.Modified.Before(before) {
			t.Errorf("%s is of %v, after one of %v", name, info.Modified, before)
		}
		before = info.Modified
	}
	put(t, store, "a", nil)
	see("a")
	// As old as its publication, not as its first byte.
	early := create(t, store, "c", []byte("content"))
	put(t, store, "b", nil)
	see("b")
	if err := early.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	see("c")
	for range 2 {
		if err := store.Overwrite(t.Context(), "marks/d", nil); err != nil {
			t.Fatal(err)
		}
		see("marks/d")
	}
}

func testOverwrite(t *testing.T, store storage.Store) {
	for _, content := range []string{"first", "the second one is longer", "", "3"} {
		if err := store.Overwrite(t.Context(), "marks/progress", []byte(content)); err != nil {
			t.Fatal(err)
		}
		want(t, store, "marks/progress", []byte(content))
	}
	wantList(t, store, "marks/", "marks/progress")
	reader, err := store.Open(t.Context(), "marks/progress")
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	if err := store.Put(t.Context(), "marks/progress", nil); !errors.Is(err, storage.ErrExists) {
		t.Errorf("put of a name taken by overwrite: %v, want ErrExists", err)
	}
	if err := store.Delete(t.Context(), "marks/progress"); err != nil {
		t.Fatal(err)
	}
	wantAbsent(t, store, "marks/progress")
}

// testCancelled: with a context that was cancelled before, nothing happens, and the error says why.
func testCancelled(t *testing.T, store storage.Store) {
	put(t, store, "there", []byte("content"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]func() error{
		"create": func() error { _, err := store.Create(ctx, "new"); return err },
		"put":    func() error { return store.Put(ctx, "new", nil) },
		"open":   func() error { _, err := store.Open(ctx, "there"); return err },
		"stat":   func() error { _, err := store.Stat(ctx, "there"); return err },
		"delete": func() error { return store.Delete(ctx, "there") },
		"overwrite": func() error {
			return store.Overwrite(ctx, "there", []byte("changed"))
		},
		"list": func() error {
			var last error
			for _, err := range store.List(ctx, "") {
				last = err
			}
			return last
		},
	}
	for what, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	want(t, store, "there", []byte("content"))
	wantAbsent(t, store, "new")
}

// testCancelledWhileWriting: neither a cancelled Create nor a cancelled Commit publishes, and the name stays free.
func testCancelledWhileWriting(t *testing.T, store storage.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	writing, err := store.Create(ctx, "writing")
	if err != nil {
		t.Fatal(err)
	}
	committing := create(t, store, "committing", []byte("content"))
	cancel()
	if _, err := writing.Write([]byte("content")); !errors.Is(err, context.Canceled) {
		t.Errorf("write after create's context was cancelled: %v", err)
	}
	if err := writing.Commit(t.Context()); err == nil {
		t.Error("an object was committed after a failed write")
	}
	if err := committing.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("commit with a cancelled context: %v", err)
	}
	for _, name := range []string{"writing", "committing"} {
		wantAbsent(t, store, name)
		put(t, store, name, []byte("again"))
		want(t, store, name, []byte("again"))
	}
}

// testNames: what is no name is refused everywhere, and not taken for a name without an object.
func testNames(t *testing.T, store storage.Store) {
	ctx := t.Context()
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "../a", "a b", "a\\b", "a\x00b", "a:b", "ü", "a%b",
		"a\n", "tmp", "tmp/a", strings.Repeat("x", storage.MaxElementLength+1), strings.Repeat("x/", storage.MaxNameLength/2) + "x",
	} {
		calls := map[string]func() error{
			"create":    func() error { _, err := store.Create(ctx, name); return err },
			"put":       func() error { return store.Put(ctx, name, nil) },
			"overwrite": func() error { return store.Overwrite(ctx, name, nil) },
			"open":      func() error { _, err := store.Open(ctx, name); return err },
			"stat":      func() error { _, err := store.Stat(ctx, name); return err },
			"delete":    func() error { return store.Delete(ctx, name) },
		}
		for what, call := range calls {
			if err := call(); err == nil || errors.Is(err, storage.ErrNotExist) || errors.Is(err, storage.ErrExists) {
				t.Errorf("%s of %.30q: %v, want a refusal", what, name, err)
			}
		}
	}
	good := []string{
		"a", "Z", "0", "-", "_", ".a", "...", "a.b-c_d", "tmpx/a", "a2/tmp/b", strings.Repeat("x", storage.MaxElementLength),
		strings.Repeat("y/", storage.MaxNameLength/2-1) + "yy",
	}
	for _, name := range good {
		put(t, store, name, []byte(name))
		want(t, store, name, []byte(name))
	}
	wantList(t, store, "", good...)
}
