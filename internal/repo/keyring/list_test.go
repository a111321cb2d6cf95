package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferry/internal/repo/format"
	"ferry/internal/storage/memory"
)

// lagging is a store whose listings show nothing.
func lagging() *memory.Store {
	store := memory.New()
	store.SetListingLag(-1)
	return store
}

// Several add and remove keys at once on a storage whose listings lag: no change is lost.
func TestListsAtOnce(t *testing.T) {
	const people = 8
	store, ring := lagging(), New(format.RandomName(), made)
	goes := add(t, store, ring, x25519(t), "goes").File
	made := make([]File, people)
	errs := make([]error, people+1)
	var done sync.WaitGroup
	for i := range people {
		p := x25519(t)
		done.Go(func() {
			var added Recipient
			added, errs[i] = Add(t.Context(), store, ring, p.to, Recipient{})
			made[i] = added.File
		})
	}
	done.Go(func() { errs[people] = Remove(t.Context(), store, goes) })
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	files := must(Files(t.Context(), store))(t)
	for _, file := range made {
		if !slices.Contains(files, file) {
			t.Errorf("%s is not found", file.Path())
		}
	}
	if len(files) != people {
		t.Errorf("%d key files are found, want %d", len(files), people)
	}
	if lists := len(store.Names(listPrefix)); lists < people+2+1 || lists > 2*(people+2) {
		t.Errorf("%d lists, want one for each change, and a second for the last at least", lists)
	}
}

// What a removal that fails half way leaves is a list of the files that are there, also when it was cancelled.
func TestRemoveFailsHalfWay(t *testing.T) {
	injected := errors.New("injected")
	for name, c := range map[string]struct {
		fails   func(File) string
		fault   error
		cancels bool
		listed  bool
	}{
		"file":       {File.Path, injected, false, true},
		"cancelled":  {File.Path, context.Canceled, true, true},
		"file, lost": {File.Path, memory.Applied(injected), false, false},
		"note":       {File.NotePath, injected, false, false},
		"note, lost": {File.NotePath, memory.Applied(injected), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			store, ring := lagging(), New(format.RandomName(), made)
			stays := add(t, store, ring, x25519(t), "stays").File
			goes := add(t, store, ring, x25519(t), "goes").File
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			store.SetFault(func(op memory.Op, name string) error {
				if op != memory.OpDelete || name != c.fails(goes) {
					return nil
				}
				if c.cancels {
					cancel()
				}
				return c.fault
			})
			if err := Remove(ctx, store, goes); err == nil {
				t.Error("it is removed without an error")
			}
			store.SetFault(nil)
			_, list, err := look(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(list.files, stays) || slices.Contains(list.files, goes) != c.listed {
				t.Errorf("the list has %v, want the removed one there: %t", list.files, c.listed)
			}
		})
	}
}

// A list that is lost, damaged or made up leaves what the listing shows, keeps nobody out, and nothing from being changed.
func TestBadLists(t *testing.T) {
	var madeUp strings.Builder
	for i := range maxNamed + 10 {
		fmt.Fprintln(&madeUp, File{MaxGeneration, format.Name{byte(i), byte(i >> 8), 1}}.base())
	}
	for what, content := range map[string][]byte{
		"empty": nil, "no names": []byte("\x00\n\n../log/000000000001\n000001\n"), "too large": bytes.Repeat([]byte("x"), maxList+1), "names of nothing": []byte(madeUp.String()),
	} {
		for _, number := range []int{5, lastList - 1, lastList} {
			store, ring, p := memory.New(), New(format.RandomName(), made), x25519(t)
			add(t, store, ring, p, "p")
			add(t, store, ring, x25519(t), "other")
			put(t, store, listName(number), content)
			for range 2 {
				add(t, store, ring, x25519(t), "more")
			}
			for _, name := range store.Names(listPrefix) {
				if _, is := parseList(name); !is {
					t.Errorf("%s, %d: %s was made", what, number, name)
				}
			}
			if list := must(Recipients(t.Context(), store, ring))(t); len(list) != 4 {
				t.Errorf("%s, %d: %d recipients", what, number, len(list))
			}
			if _, l, err := look(t.Context(), store); err != nil || l.number > lastList || len(l.files) > maxNamed {
				t.Errorf("%s, %d: list %d of %d names, %v", what, number, l.number, len(l.files), err)
			}
			if _, warnings, err := load(t, store, ring, p); err != nil || len(warnings) > 0 {
				t.Errorf("%s, %d: %v, %q", what, number, err, warnings)
			}
		}
	}

	// One that the storage does not give is passed over.
	store, ring := lagging(), New(format.RandomName(), made)
	for _, label := range []string{"one", "two"} {
		add(t, store, ring, x25519(t), label)
	}
	store.Settle() // from now on a listing shows the second list
	broken := errors.New("broken")
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && name == listName(2) {
			return broken
		}
		return nil
	})
	add(t, store, ring, x25519(t), "three")
	if list := must(Recipients(t.Context(), store, ring))(t); len(list) != 3 {
		t.Errorf("%d recipients", len(list))
	}
}

// The newest names stay in a list that would be too long.
func TestLongList(t *testing.T) {
	store := lagging()
	var l keyList
	for i := range maxNamed + 3 {
		_, found, err := look(t.Context(), store)
		if err != nil || found.number != l.number {
			t.Fatalf("list %d: %d, %v", i, found.number, err)
		}
		if err := found.change(t.Context(), store, with([]File{{1, format.Name{byte(i), byte(i >> 8), 1}}})); err != nil {
			t.Fatal(err)
		}
		l.number += 2
		store.Settle()
	}
	files := must(Files(t.Context(), store))(t)
	if len(files) != maxNamed || slices.Contains(files, File{1, format.Name{2, 0, 1}}) || !slices.Contains(files, File{1, format.Name{3, 0, 1}}) {
		t.Errorf("%d names", len(files))
	}
}

// Whichever list is lost, and whenever, no key file is: on a storage whose listings show nothing, also not to who adds, removes
// or rotates next.
func TestLostList(t *testing.T) {
	people := []*person{x25519(t), x25519(t), x25519(t)}
	ring := New(format.RandomName(), made)
	for lost := 1; ; lost++ {
		loses := func(store *memory.Store) {
			if err := store.Delete(t.Context(), listName(lost)); err != nil {
				t.Fatal(err)
			}
		}
		store := lagging()
		goes := add(t, store, ring, x25519(t), "goes").File
		for i, p := range people {
			add(t, store, ring, p, fmt.Sprint(i))
			loses(store)
		}
		if err := Remove(t.Context(), store, goes); err != nil {
			t.Fatal(err)
		}
		loses(store)
		next, recipients, err := Rotate(t.Context(), store, ring, rotation())
		if err != nil || len(recipients) != len(people) {
			t.Fatalf("list %d lost: the new ring goes to %d, %v", lost, len(recipients), err)
		}
		lists := len(store.Names(listPrefix))
		loses(store)
		for i, p := range people {
			if got, warnings, err := load(t, store, ring, p); err != nil || len(warnings) > 0 || !got.SameDataKey(next, 2) {
				t.Errorf("list %d lost: %d: %v, %q", lost, i, err, warnings)
			}
		}
		if lost > lists+1 {
			return
		}
	}
}

func TestListNames(t *testing.T) {
	for _, name := range []string{"", "marks/keys-", "marks/keys-000000", "marks/keys-1", "marks/keys-0000001", "marks/keys-1000000", "marks/keys-+00001", "marks/keys--00001", "marks/keys-00000a", "keys-000001", "marks/keys-000001.recipient"} {
		if number, is := parseList(name); is {
			t.Errorf("%q is list %d", name, number)
		}
	}
	for _, number := range []int{1, 42, lastList} {
		if got, is := parseList(listName(number)); !is || got != number {
			t.Errorf("%s: %d, %v", listName(number), got, is)
		}
		if _, is := ParseFile(listName(number)); is {
			t.Errorf("%s is a key file", listName(number))
		}
	}
}

// errUnavailable is what a storage answers that will give the file later.
var errUnavailable = errors.New("the storage does not answer")

// withhold makes the storage not give the files that is is true for.
func withhold(store *memory.Store, is func(name string) bool) {
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && is(name) {
			return errUnavailable
		}
		return nil
	})
}

// Key files that only lists name are not missing where the storage does not give the lists: not for opening, and not for changing.
func TestListsThatAreNotGiven(t *testing.T) {
	store, ring, p := lagging(), New(format.RandomName(), made), x25519(t)
	add(t, store, ring, p, "p")
	withhold(store, func(name string) bool { return strings.HasPrefix(name, listPrefix) })
	if _, _, err := load(t, store, ring, p); !errors.Is(err, errUnavailable) {
		t.Errorf("opening: %v", err)
	}
	if list, err := Recipients(t.Context(), store, ring); !errors.Is(err, errUnavailable) {
		t.Errorf("%d recipients, %v", len(list), err)
	}
	if _, err := Add(t.Context(), store, ring, x25519(t).to, Recipient{}); !errors.Is(err, errUnavailable) {
		t.Errorf("adding: %v", err)
	}
	if _, _, err := Rotate(t.Context(), store, ring, rotation()); !errors.Is(err, errUnavailable) {
		t.Errorf("rotating: %v", err)
	}
}

// Whichever list the storage does not give, no key file is missing; and one that is there is not passed over by a change.
func TestOneListThatIsNotGiven(t *testing.T) {
	for shown := range 3 {
		for lost := 1; lost <= 6; lost++ {
			store, ring := lagging(), New(format.RandomName(), made)
			var files []File
			for i := range 2 {
				content := must(Seal(ring, x25519(t).to))(t)
				files = append(files, FileOf(1, content))
				_, list, err := look(t.Context(), store)
				if err := errors.Join(err, list.change(t.Context(), store, with(files))); err != nil {
					t.Fatal(err)
				}
				if i < shown {
					store.Settle() // the lists, and not the key file
				}
				put(t, store, files[i].Path(), content)
			}
			withhold(store, func(name string) bool { return name == listName(lost) })
			found, err := Files(t.Context(), store)
			if err == nil && !(slices.Contains(found, files[0]) && slices.Contains(found, files[1])) || err != nil && !errors.Is(err, errUnavailable) {
				t.Errorf("%d changes are shown, list %d is not given: %d key files, %v", shown, lost, len(found), err)
			}
			added, err := Add(t.Context(), store, ring, x25519(t).to, Recipient{})
			if err == nil {
				files = append(files, added.File)
			} else if !errors.Is(err, errUnavailable) {
				t.Error(err)
			}
			store.SetFault(nil)
			found = must(Files(t.Context(), store))(t)
			for i, file := range files {
				if !slices.Contains(found, file) {
					t.Errorf("%d changes are shown, list %d was not given to a change: file %d is not found", shown, lost, i)
				}
			}
		}
	}
}
