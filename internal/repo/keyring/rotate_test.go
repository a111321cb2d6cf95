package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

func rotation(passphrases ...string) Rotation {
	r := Rotation{Now: made.Add(time.Hour), Commit: func(*Ring) error { return nil }}
	for _, secret := range passphrases {
		r.Passphrases = append(r.Passphrases, NewPassphrase(secret))
	}
	return r
}

func TestRotate(t *testing.T) {
	store, ring := memory.New(), New(format.RandomName(), made)
	people := map[string]*person{"x": x25519(t), "h": hybrid(t), "one": passphrase(t, "one"), "two": passphrase(t, "two")}
	before := map[string]Recipient{}
	for label, p := range people {
		before[label] = add(t, store, ring, p, label)
	}

	var cannot *CannotWrapError
	if _, _, err := Rotate(t.Context(), store, ring, rotation("one")); !errors.As(err, &cannot) || len(cannot.Recipients) != 1 || cannot.Recipients[0] != before["two"] {
		t.Fatalf("a passphrase is missing: %v", err)
	}
	if list := must(Recipients(t.Context(), store, ring))(t); len(list) != 4 || list[0].File.Generation != 1 {
		t.Fatalf("refused, and changed: %+v", list)
	}

	asked := rotation("wrong", "two", "one")
	committed := false
	asked.Commit = func(next *Ring) error {
		committed = true
		if list := must(Recipients(t.Context(), store, next))(t); len(list) != 8 {
			t.Errorf("%d key files while committing", len(list))
		}
		return nil
	}
	next, added, err := Rotate(t.Context(), store, ring, asked)
	if err != nil || !committed || len(added) != 4 || next.Current(0).Generation != 2 {
		t.Fatalf("%v, %d recipients, %v", err, len(added), next)
	}
	for label, p := range people {
		got, warnings, err := load(t, store, ring, p)
		if err != nil || len(warnings) > 0 || !bytes.Equal(got.Encode(), next.Encode()) {
			t.Errorf("%s: %v, %q", label, err, warnings)
		}
	}
	list := must(Recipients(t.Context(), store, next))(t)
	if len(list) != 4 {
		t.Errorf("%d key files afterwards", len(list))
	}
	for _, r := range list {
		was := before[r.Label]
		if r.ID != was.ID || r.Kind != was.Kind || r.PublicKey != was.PublicKey || !r.Added.Equal(was.Added) || r.File == was.File {
			t.Errorf("%+v was %+v", r, was)
		}
	}
	for info := range store.List(t.Context(), "") {
		if strings.HasPrefix(info.Name, "keys/000001-") {
			t.Errorf("%s is left", info.Name)
		}
	}
}

func TestRotateDrops(t *testing.T) {
	store, ring, stays, goes := memory.New(), New(format.RandomName(), made), x25519(t), x25519(t)
	add(t, store, ring, stays, "")
	dropped := add(t, store, ring, goes, "").File
	unknown := must(Seal(ring, passphrase(t, "lost").to))(t) // has no note
	put(t, store, FileOf(1, unknown).Path(), unknown)

	asked := rotation()
	asked.Drop = []File{dropped}
	var cannot *CannotWrapError
	if _, _, err := Rotate(t.Context(), store, ring, asked); !errors.As(err, &cannot) || cannot.Recipients[0].File != FileOf(1, unknown) {
		t.Fatalf("%v", err)
	}
	asked.Drop = append(asked.Drop, FileOf(1, unknown))
	next, _, err := Rotate(t.Context(), store, ring, asked)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(t, store, ring, goes, passphrase(t, "lost")); !errors.Is(err, ErrWrongKey) {
		t.Errorf("dropped, and opens: %v", err)
	}
	asked = rotation()
	for _, r := range must(Recipients(t.Context(), store, next))(t) {
		asked.Drop = append(asked.Drop, r.File)
	}
	if _, _, err := Rotate(t.Context(), store, next, asked); !errors.Is(err, ErrLastRecipient) {
		t.Errorf("everyone dropped: %v", err)
	}
	// Who has an old ring only hands on nothing.
	if _, _, err := Rotate(t.Context(), store, ring, rotation()); !errors.Is(err, ErrOutdated) {
		t.Errorf("an old ring: %v", err)
	}
}

// Two at once get different generations, and nobody's key is lost.
func TestRotateTwiceAtOnce(t *testing.T) {
	store, ring, p := memory.New(), New(format.RandomName(), made), x25519(t)
	add(t, store, ring, p, "p")
	outer := rotation()
	var inner *Ring
	outer.Commit = func(*Ring) error {
		// The other one listed before any file of this one was there.
		other := must(ring.rotated(must(claimGeneration(t.Context(), store, 1, made))(t), 0, made))(t)
		inner = other
		add(t, store, other, p, "p")
		return nil
	}
	next, _, err := Rotate(t.Context(), store, ring, outer)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := load(t, store, ring, p)
	if err != nil || !got.SameDataKey(next, 2) || !got.SameDataKey(inner, 3) {
		t.Fatalf("%v, %v", err, got)
	}
	last, _, err := Rotate(t.Context(), store, got, rotation())
	if err != nil || last.Current(0).Generation != 4 {
		t.Fatalf("%v, %v", err, last)
	}
	if got, warnings, err := load(t, store, ring, p); err != nil || len(warnings) > 0 || !bytes.Equal(got.Encode(), last.Encode()) {
		t.Errorf("%v, %q", err, warnings)
	}
}

// However a rotation is interrupted, everyone who could open the repository still can, no data key that a writer may
// have used is lost, and another rotation finishes it.
func TestRotateInterrupted(t *testing.T) {
	ring := New(format.RandomName(), made)
	people := []*person{x25519(t), x25519(t), hybrid(t)}
	for calls := 1; ; calls++ {
		store := memory.New()
		for i, p := range people {
			add(t, store, ring, p, fmt.Sprint(i))
		}
		failing := &stopping{Store: store, left: calls}
		var used *Ring
		asked := rotation()
		asked.Commit = func(next *Ring) error { used = next; return nil }
		_, _, err := Rotate(t.Context(), failing, ring, asked)
		for i, p := range people {
			got, _, loadErr := load(t, store, ring, p)
			if loadErr != nil {
				t.Fatalf("stopped at call %d: %d: %v", calls, i, loadErr)
			}
			if used != nil && !got.SameDataKey(used, used.Newest()) {
				t.Fatalf("stopped at call %d: %d lacks a key that was committed", calls, i)
			}
		}
		if err == nil {
			if calls != 15 { // a claim, a list under two numbers, then a note and a key file each, then both of the old ones
				t.Errorf("only %d calls", calls)
			}
			return
		}
		if !errors.Is(err, errStopped) {
			t.Fatal(err)
		}
		got, _, _ := load(t, store, ring, people...)
		if _, _, err := Rotate(t.Context(), store, got, rotation()); err != nil {
			t.Fatalf("stopped at call %d, and again: %v", calls, err)
		}
		for _, p := range people {
			if _, warnings, err := load(t, store, ring, p); err != nil || len(warnings) > 0 {
				t.Fatalf("stopped at call %d, and finished: %v, %q", calls, err, warnings)
			}
		}
		if list := must(Recipients(t.Context(), store, ring))(t); len(list) != len(people) {
			t.Fatalf("stopped at call %d, and finished: %d key files", calls, len(list))
		}
	}
}

var errStopped = errors.New("stopped")

// stopping lets so many changes through and no more.
type stopping struct {
	storage.Store
	left int
}

func (s *stopping) change() error {
	if s.left == 0 {
		return errStopped
	}
	s.left--
	return nil
}

func (s *stopping) Put(ctx context.Context, name string, content []byte) error {
	if err := s.change(); err != nil {
		return err
	}
	return s.Store.Put(ctx, name, content)
}

func (s *stopping) Delete(ctx context.Context, name string) error {
	if err := s.change(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, name)
}

// typedFrom is what a person types of a kit: from the line that begins with -----BEGIN to the one with -----END.
func typedFrom(file []byte) []byte {
	begin := []byte("-----BEGIN")
	_, rest, _ := bytes.Cut(file, begin)
	return slices.Concat(begin, rest)
}

func TestKit(t *testing.T) {
	ring := fixed()
	kit := Kit{Ring: ring, Exported: made, Entries: 17, Checksum: format.ID{5}}
	secret := NewPassphrase("correct horse")
	for name, passphrase := range map[string]Passphrase{"open": {}, "encrypted": secret} {
		file := must(kit.Encode("/mnt/vault", passphrase))(t)
		if KitIsEncrypted(file) == passphrase.IsEmpty() || bytes.Contains(file, []byte("dataKeys")) != passphrase.IsEmpty() {
			t.Errorf("%s: %s", name, file)
		}
		for _, line := range bytes.Split(file, []byte("\n")) {
			if len(line) > 120 {
				t.Errorf("%s: a line of %d bytes", name, len(line))
			}
		}
		mailed := bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n"))
		for _, f := range [][]byte{file, mailed, slices.Concat([]byte("> printed\n"), file, []byte("\n\n"))} {
			read, err := DecodeKit(f, NewPassphrase("wrong"), secret)
			if err != nil || !bytes.Equal(read.Ring.Encode(), ring.Encode()) || read.Entries != 17 || read.Checksum != kit.Checksum || !read.Exported.Equal(made) {
				t.Errorf("%s: %v, %+v", name, err, read)
			}
		}
		typed := typedFrom(file)
		for _, f := range [][]byte{typed, bytes.ReplaceAll(typed, []byte("\n"), []byte(" \n\t")), bytes.Replace(typed, []byte("YW"), []byte("Y\nW"), 1)} {
			if read, err := DecodeKit(f, secret); !IsKit(f) || err != nil || !bytes.Equal(read.Ring.Encode(), ring.Encode()) {
				t.Errorf("%s, typed: %v, %s", name, err, f)
			}
		}
		for i := 0; i < len(file); i += 7 {
			if read, err := DecodeKit(file[:i], secret); err == nil && !bytes.Equal(read.Ring.Encode(), ring.Encode()) {
				t.Errorf("%s: cut at %d, read otherwise", name, i)
			}
		}
	}
	encrypted := must(kit.Encode("", secret))(t)
	for _, given := range [][]Passphrase{nil, {NewPassphrase("wrong")}} {
		if _, err := DecodeKit(encrypted, given...); !errors.Is(err, ErrKitPassphrase) {
			t.Errorf("%d passphrases: %v", len(given), err)
		}
	}
	for _, file := range []string{"", "hello", kitBegin, kitBegin + kitEnd, kitBegin + "{}" + kitEnd} {
		if _, err := DecodeKit([]byte(file)); err == nil {
			t.Errorf("%q is a kit", file)
		}
	}
	for _, to := range []*person{x25519(t), hybrid(t)} {
		var other bytes.Buffer
		text := armor.NewWriter(&other)
		w := must(age.Encrypt(text, to.to))(t)
		if err := errors.Join(w.Close(), text.Close()); err != nil || IsKit(other.Bytes()) {
			t.Errorf("%v, a kit: %s", err, other.Bytes())
		}
	}
	var other bytes.Buffer
	if err := encryptArmored(&other, []byte("AGE-SECRET-KEY-1"), secret); err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeKit(other.Bytes(), secret); !errors.Is(err, ErrNoKit) {
		t.Errorf("encrypted, and something else: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if out := fmt.Sprintf(verb, []any{secret, &secret, kit, Rotation{Passphrases: []Passphrase{secret}}}); strings.Contains(out, "horse") || strings.Contains(out, fmt.Sprintf("%x", "horse")) {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

// A rotation that ends after any of its calls is done by the same key again, whoever's that is: it has the new data key first.
// So it is in the second rotation of one process, and where that key wrote to the log in between, with the newest data key that
// it has. It goes to everyone.
func TestWhoeverRotatesCanDoItAgain(t *testing.T) {
	people := []*person{x25519(t), hybrid(t), x25519(t), x25519(t)}
	broken := errors.New("broken")
	type log struct{ reached, rotated uint32 }
	rotate := func(store storage.Store, ring *Ring, log *log) (*Ring, []Recipient, error) {
		asked := rotation()
		asked.Reached, asked.Rotated = log.reached, log.rotated
		asked.Commit = func(next *Ring) error { log.reached, log.rotated = next.Newest(), next.Newest(); return nil }
		return Rotate(t.Context(), store, ring, asked)
	}
	for who, rotator := range people {
		store, ring := memory.New(), New(format.RandomName(), made)
		for _, p := range people {
			add(t, store, ring, p, "")
		}
		own, _, err := load(t, store, ring, rotator)
		if err != nil {
			t.Fatal(err)
		}
		begun := log{own.Newest(), 0}
		for range 2 {
			for n := 1; ; n++ {
				there, calls, after := store.Clone(), 0, begun
				there.SetFault(memory.InTurn(func(memory.Op, string) error {
					if calls++; calls >= n {
						return broken
					}
					return nil
				}))
				if _, _, err = rotate(there, own, &after); err == nil {
					if n < 2*len(people) {
						t.Errorf("interrupted %d times only: the test shows little", n)
					}
					break
				}
				there.SetFault(nil)
				found, _, err := load(t, there, ring, rotator)
				if err != nil {
					t.Fatalf("person %d, call %d: it does not open: %v", who, n, err)
				}
				wrote := log{found.Current(after.reached).Generation, after.rotated}
				for what, log := range map[string]log{"at once": after, "after a copy": wrote} {
					again := there.Clone()
					if _, list, err := rotate(again, found, &log); err != nil || len(list) != len(people) {
						t.Errorf("person %d, call %d: again %s: %d recipients, %v", who, n, what, len(list), err)
					}
					if left := must(Files(t.Context(), again))(t); len(left) != len(people) {
						t.Errorf("person %d, call %d: again %s: %d key files", who, n, what, len(left))
					}
				}
			}
			if own, _, err = rotate(store, own, &begun); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Who is added while a rotation runs is told of, and nobody else: not what an older rotation left over and is back.
func TestAddedWhileRotating(t *testing.T) {
	store, ring, p, late := memory.New(), New(format.RandomName(), made), x25519(t), x25519(t)
	add(t, store, ring, p, "p")
	before := store.Clone()
	second, _, err := Rotate(t.Context(), store, ring, rotation())
	if err != nil {
		t.Fatal(err)
	}
	asked := rotation()
	asked.Reached, asked.Rotated = 2, 2
	var added Recipient
	asked.Commit = func(*Ring) error {
		for _, name := range before.Names("keys/000001-") {
			put(t, store, name, must(storage.ReadAll(t.Context(), before, name, MaxFile))(t))
		}
		added = add(t, store, second, late, "late")
		return nil
	}
	next, list, err := Rotate(t.Context(), store, second, asked)
	var told *LateError
	if !errors.As(err, &told) || len(told.Recipients) != 1 || told.Recipients[0] != added || next == nil || len(list) != 1 {
		t.Errorf("%v, went to %+v", err, list)
	}
	// All that was to be done is done.
	if left := store.Names("keys/000002-"); len(left) != 2 || left[0] != added.File.Path() {
		t.Errorf("left are %q", left)
	}
	if got, _, err := load(t, store, ring, p); err != nil || got.Newest() != 3 {
		t.Errorf("%v", err)
	}
}
