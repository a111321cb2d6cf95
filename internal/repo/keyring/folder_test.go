package keyring

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/repo/format"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

func TestMain(m *testing.M) {
	SetWork(2)
	os.Exit(m.Run())
}

// must returns a value that an error keeps a test from going on without.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// person is a recipient and what opens its key file. tried counts how often it was asked.
type person struct {
	to        age.Recipient
	identity  age.Identity
	publicKey string
	tried     int
}

func (p *person) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	p.tried++
	return p.identity.Unwrap(stanzas)
}

func x25519(t testing.TB) *person {
	identity := must(age.GenerateX25519Identity())(t)
	return &person{to: identity.Recipient(), identity: identity, publicKey: identity.Recipient().String()}
}

func hybrid(t testing.TB) *person {
	identity := must(age.GenerateHybridIdentity())(t)
	return &person{to: identity.Recipient(), identity: identity, publicKey: identity.Recipient().String()}
}

func passphrase(t testing.TB, secret string) *person {
	p := NewPassphrase(secret)
	return &person{to: must(p.Recipient())(t), identity: must(p.Identity())(t)}
}

func add(t testing.TB, store storage.Store, ring *Ring, p *person, label string) Recipient {
	t.Helper()
	return must(Add(t.Context(), store, ring, p.to, Recipient{PublicKey: p.publicKey, Label: label, Added: made}))(t)
}

// given offers identities once.
func given(people ...*person) Identify {
	return func(_ context.Context, try int, _ []Kind) ([]age.Identity, error) {
		var identities []age.Identity
		if try == 0 {
			for _, p := range people {
				identities = append(identities, p.identity)
			}
		}
		return identities, nil
	}
}

func load(t testing.TB, store storage.Store, of *Ring, people ...*person) (*Ring, []string, error) {
	t.Helper()
	return Load(t.Context(), store, of.Repository, of.Check(), given(people...))
}

func TestSealAndOpen(t *testing.T) {
	ring := New(format.RandomName(), made)
	people := map[Kind]*person{KindX25519: x25519(t), KindHybrid: hybrid(t), KindPassphrase: passphrase(t, "correct horse")}
	for kind, p := range people {
		file := must(Seal(ring, p.to))(t)
		if KindOf(file) != kind {
			t.Errorf("%s is taken for %s", kind, KindOf(file))
		}
		if bytes.Contains(file, []byte("dataKeys")) || bytes.Contains(file, ring.IDKey[:]) {
			t.Errorf("%s: not encrypted", kind)
		}
		read, err := Open(file, x25519(t).identity, hybrid(t).identity, passphrase(t, "wrong").identity, p.identity)
		if err != nil || !bytes.Equal(read.Encode(), ring.Encode()) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := Open(file, x25519(t).identity, hybrid(t).identity, passphrase(t, "wrong").identity); !errors.Is(err, ErrNoMatch) {
			t.Errorf("%s, wrong keys: %v", kind, err)
		}
		if _, err := Open(file); !errors.Is(err, ErrNoMatch) {
			t.Errorf("%s, no keys: %v", kind, err)
		}
	}
}

// Every flip and every cut of a key file is noticed, by its name and by age.
func TestDamagedKeyFile(t *testing.T) {
	p, ring := x25519(t), New(format.RandomName(), made)
	file := must(Seal(ring, p.to))(t)
	name := FileOf(1, file)
	if err := CheckFile(name, file); err != nil {
		t.Fatal(err)
	}
	for i := range file {
		flipped := bytes.Clone(file)
		flipped[i] ^= 1
		for what, damaged := range map[string][]byte{"flipped": flipped, "cut": file[:i]} {
			if read, err := Open(damaged, p.identity); err == nil || read != nil {
				t.Fatalf("%s at %d: opened", what, i)
			}
			if err := CheckFile(name, damaged); !errors.Is(err, format.ErrCorrupt) {
				t.Fatalf("%s at %d: %v", what, i, err)
			}
		}
	}
}

// A key file must not cost hours, nor memory without bound.
func TestHostileKeyFile(t *testing.T) {
	ring, secret := New(format.RandomName(), made), passphrase(t, "secret")
	file := must(Seal(ring, secret.to))(t)
	work := bytes.Index(file, []byte(" 2\n"))
	slow := slices.Concat(file[:work], []byte(" 21\n"), file[work+3:])
	if _, err := Open(slow, secret.identity); !errors.Is(err, format.ErrCorrupt) || !strings.Contains(err.Error(), "work factor") {
		t.Errorf("work factor 21: %v", err)
	}
	if _, err := Open(make([]byte, MaxFile+1), secret.identity); !errors.Is(err, format.ErrCorrupt) {
		t.Errorf("large file: %v", err)
	}
	// Two recipients in one file: not what a program writes.
	a, b := x25519(t), x25519(t)
	var two bytes.Buffer
	w := must(age.Encrypt(&two, a.to, b.to))(t)
	_, _ = w.Write(ring.Encode())
	_ = w.Close()
	if KindOf(two.Bytes()) != KindUnknown {
		t.Error("a file with two recipients has a kind")
	}
	if _, err := Open(two.Bytes(), a.identity); !errors.Is(err, ErrNoMatch) {
		t.Errorf("a file with two recipients: %v", err)
	}
}

func TestFileNames(t *testing.T) {
	good := FileOf(7, []byte("x"))
	if parsed, ok := ParseFile(good.Path()); !ok || parsed != good || good.Path() != "keys/000007-2d711642b726b04401627ca9fbac32f5" {
		t.Errorf("%s: %v, %v", good.Path(), parsed, ok)
	}
	for _, name := range []string{
		"", "keys/", "keys/000007", good.Path() + ".recipient", "keys/7-" + good.ID.String(), "keys/000000-" + good.ID.String(), "marks/" + good.base(), good.base(),
		"keys/000007-" + strings.ToUpper(good.ID.String()), "keys/x/" + good.base(), "keys/+00007-" + good.ID.String(), "keys/0000007-" + good.ID.String(),
	} {
		if f, ok := ParseFile(name); ok {
			t.Errorf("%q is taken for a key file: %v", name, f)
		}
	}
}

func TestLoad(t *testing.T) {
	store, ring := memory.New(), New(format.RandomName(), made)
	if _, _, err := load(t, store, ring, x25519(t)); !errors.Is(err, ErrNoKeyFiles) {
		t.Errorf("without key files: %v", err)
	}
	people := []*person{x25519(t), hybrid(t), passphrase(t, "one"), passphrase(t, "two")}
	for _, p := range people {
		add(t, store, ring, p, "")
	}
	for _, p := range people {
		got, warnings, err := load(t, store, ring, x25519(t), p)
		if err != nil || len(warnings) > 0 || !bytes.Equal(got.Encode(), ring.Encode()) {
			t.Errorf("%v, warnings %q", err, warnings)
		}
	}
	if _, _, err := load(t, store, ring); !errors.Is(err, ErrNeedsKey) {
		t.Errorf("no key: %v", err)
	}
	if _, _, err := Load(t.Context(), store, ring.Repository, ring.Check(), nil); !errors.Is(err, ErrNeedsKey) {
		t.Errorf("nobody to ask: %v", err)
	}
	if _, _, err := load(t, store, ring, x25519(t), passphrase(t, "three")); !errors.Is(err, ErrWrongKey) {
		t.Errorf("wrong keys: %v", err)
	}
}

// A second try, such as a passphrase typed again, opens too; kinds say what is worth asking for.
func TestLoadAsksAgain(t *testing.T) {
	store, ring, p := memory.New(), New(format.RandomName(), made), passphrase(t, "right")
	add(t, store, ring, p, "")
	asked := 0
	identify := func(_ context.Context, try int, kinds []Kind) ([]age.Identity, error) {
		if !slices.Equal(kinds, []Kind{KindPassphrase}) || try != asked {
			t.Errorf("try %d of kinds %v", try, kinds)
		}
		asked++
		return []age.Identity{passphrase(t, []string{"wrong", "right"}[try]).identity}, nil
	}
	if got, _, err := Load(t.Context(), store, ring.Repository, ring.Check(), identify); err != nil || got == nil || asked != 2 {
		t.Errorf("%v after %d tries", err, asked)
	}
}

// A passphrase is not tried where something cheaper opens.
func TestPassphraseIsLast(t *testing.T) {
	store, ring, cheap, slow := memory.New(), New(format.RandomName(), made), x25519(t), passphrase(t, "slow")
	for range 4 {
		add(t, store, ring, passphrase(t, "other"), "")
	}
	add(t, store, ring, cheap, "")
	_, _, err := Load(t.Context(), store, ring.Repository, ring.Check(), func(context.Context, int, []Kind) ([]age.Identity, error) {
		return []age.Identity{slow, cheap.identity}, nil
	})
	if err != nil || slow.tried > 0 {
		t.Errorf("%v, the passphrase was tried %d times", err, slow.tried)
	}
}

// However many key files somebody puts there, opening does not try a passphrase for hours.
func TestManyPassphrases(t *testing.T) {
	store, ring, slow := memory.New(), New(format.RandomName(), made), passphrase(t, "slow")
	next := must(ring.rotated(2, 0, made))(t)
	content := map[*Ring][]byte{ring: must(Seal(ring, passphrase(t, "other").to))(t), next: must(Seal(next, passphrase(t, "other").to))(t)}
	for i := range byte(50) {
		for ring, file := range content {
			file = append(bytes.Clone(file), i) // damaged only behind the header
			put(t, store, FileOf(ring.Newest(), file).Path(), file)
		}
	}
	_, _, err := Load(t.Context(), store, ring.Repository, ring.Check(), func(_ context.Context, try int, _ []Kind) ([]age.Identity, error) {
		return []age.Identity{slow}[:1-min(try, 1)], nil
	})
	if !errors.Is(err, ErrWrongKey) || slow.tried != maxFiles {
		t.Errorf("%v after %d tries", err, slow.tried)
	}
}

// However many key files there are, not all of them are read.
func TestManyKeyFiles(t *testing.T) {
	store, ring := memory.New(), New(format.RandomName(), made)
	for i := range 2 * maxRead {
		content := []byte{byte(i), byte(i >> 8)}
		put(t, store, FileOf(uint32(1+i/maxFiles), content).Path(), content)
	}
	store.ResetCounts()
	if _, _, err := load(t, store, ring, x25519(t)); !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	if read := store.Calls(memory.OpRead); read != maxRead {
		t.Errorf("%d were read", read)
	}
}

// Key files of others: swapped in from another repository, made by somebody who knows a public key, damaged. They are named
// and passed over.
func TestLoadPassesOver(t *testing.T) {
	p := x25519(t)
	ring, other := New(format.RandomName(), made), New(format.RandomName(), made)
	forged := New(ring.Repository, made) // anyone can make this
	newer := must(forged.rotated(9, 0, made))(t)
	cases := map[string]func(storage.Store){
		"of another repository": func(s storage.Store) { add(t, s, other, p, "") },
		"forged":                func(s storage.Store) { add(t, s, forged, p, "") },
		"forged, and newer":     func(s storage.Store) { add(t, s, newer, p, "") },
		"of a generation that the name does not say": func(s storage.Store) {
			content := must(Seal(ring, p.to))(t)
			put(t, s, FileOf(5, content).Path(), content)
		},
		"damaged": func(s storage.Store) {
			content := must(Seal(ring, p.to))(t)
			name := FileOf(1, content)
			content[len(content)-1] ^= 1
			put(t, s, name.Path(), content)
		},
		"not JSON": func(s storage.Store) {
			var file bytes.Buffer
			w := must(age.Encrypt(&file, p.to))(t)
			_, _ = w.Write([]byte("hello"))
			_ = w.Close()
			put(t, s, FileOf(1, file.Bytes()).Path(), file.Bytes())
		},
	}
	for name, spoil := range cases {
		store := memory.New()
		spoil(store)
		if got, warnings, err := load(t, store, ring, p); err == nil || got != nil || len(warnings) != 1 {
			t.Errorf("%s alone: %v, warnings %q", name, err, warnings)
		}
		add(t, store, ring, p, "")
		got, _, err := load(t, store, ring, p)
		if err != nil || !bytes.Equal(got.Encode(), ring.Encode()) {
			t.Errorf("%s beside the right one: %v", name, err)
		}
	}
}

func put(t testing.TB, store storage.Store, name string, content []byte) {
	t.Helper()
	if err := store.Put(t.Context(), name, content); err != nil {
		t.Fatal(err)
	}
}

func TestLoadTakesTheNewest(t *testing.T) {
	store, old, both, left := memory.New(), New(format.RandomName(), made), x25519(t), hybrid(t)
	next := must(old.rotated(2, 0, made))(t)
	add(t, store, old, both, "")
	add(t, store, old, left, "")
	add(t, store, next, both, "")
	if got, warnings, err := load(t, store, old, both, left); err != nil || got.Newest() != 2 || len(warnings) > 0 {
		t.Errorf("%v, %v, warnings %q", got, err, warnings)
	}
	if got, warnings, err := load(t, store, old, left); err != nil || got.Newest() != 1 || len(warnings) != 1 {
		t.Errorf("%v, %v, warnings %q", got, err, warnings)
	}
	// Another rotation at the same time: its keys are found as well.
	other := must(old.rotated(3, 0, made))(t)
	add(t, store, other, both, "")
	if got, _, err := load(t, store, old, both); err != nil || !got.Has(2) || !got.Has(3) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRecipients(t *testing.T) {
	store, ring := memory.New(), New(format.RandomName(), made)
	p := hybrid(t)
	added := add(t, store, ring, p, "the safe")
	secret := add(t, store, ring, passphrase(t, "one"), "office")
	list := must(Recipients(t.Context(), store, ring))(t)
	if len(list) != 2 || !slices.Contains(list, added) || !slices.Contains(list, secret) || added.PublicKey != p.publicKey || !added.Added.Equal(made) {
		t.Errorf("%+v", list)
	}
	for _, r := range must(Recipients(t.Context(), store, nil))(t) {
		if r.Known || r.Label != "" || r.Kind == KindUnknown {
			t.Errorf("without a key: %+v", r)
		}
	}
	for info, err := range store.List(t.Context(), "") {
		content := must(storage.ReadAll(t.Context(), store, info.Name, 1<<20))(t)
		if err != nil || bytes.Contains(content, []byte("safe")) || bytes.Contains(content, []byte(p.publicKey)) || bytes.Contains(content, []byte("office")) {
			t.Errorf("%s tells labels or public keys", info.Name)
		}
	}

	// A note of another file, and one that was changed, say nothing.
	note := must(storage.ReadAll(t.Context(), store, secret.File.NotePath(), maxNote))(t)
	for i, raw := range [][]byte{note[:10], append(bytes.Clone(note[:len(note)-1]), note[len(note)-1]^1)} {
		r := Recipient{File: secret.File}
		if openNote(ring, raw, &r); r.Known {
			t.Errorf("changed note %d is read: %+v", i, r)
		}
	}
	r := Recipient{File: added.File}
	if openNote(ring, note, &r); r.Known {
		t.Errorf("the note of another file is read: %+v", r)
	}

	if err := Remove(t.Context(), store, added.File); err != nil {
		t.Fatal(err)
	}
	if _, _, err := load(t, store, ring, p); !errors.Is(err, ErrWrongKey) {
		t.Errorf("removed, and opens: %v", err)
	}
	if list := must(Recipients(t.Context(), store, ring))(t); len(list) != 1 || list[0] != secret {
		t.Errorf("%+v", list)
	}
}

func TestTooManyRecipients(t *testing.T) {
	store, ring, p := memory.New(), New(format.RandomName(), made), x25519(t)
	for range maxFiles {
		add(t, store, ring, p, "")
	}
	if _, err := Add(t.Context(), store, ring, p.to, Recipient{}); !errors.Is(err, ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
}

func TestParseRecipient(t *testing.T) {
	for _, p := range []*person{x25519(t), hybrid(t)} {
		if _, err := ParseRecipient(" " + p.publicKey + "\n"); err != nil {
			t.Error(err)
		}
		secret := p.identity.(interface{ String() string }).String()
		for _, bad := range []string{secret, "age1" + secret, p.publicKey[:40], p.publicKey + "q", "ssh-ed25519 AAAA", ""} {
			if _, err := ParseRecipient(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}

// A key file that was made once must open for ever.
func TestGoldenKeyFiles(t *testing.T) {
	identities := must(os.ReadFile("testdata/identities.txt"))(t)
	known := must(age.ParseIdentities(bytes.NewReader(identities)))(t)
	known = append(known, passphrase(t, "ferry golden passphrase").identity)
	for _, kind := range []Kind{KindX25519, KindHybrid, KindPassphrase} {
		file := must(os.ReadFile(filepath.Join("testdata", string(kind)+".age")))(t)
		ring, err := Open(file, known...)
		if err != nil || !bytes.Equal(ring.Encode(), fixed().Encode()) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A key file that the storage does not give makes no key wrong, and none missing: it may be the one that the key opens.
func TestKeyFilesThatAreNotGiven(t *testing.T) {
	store, ring, p, other := memory.New(), New(format.RandomName(), made), x25519(t), passphrase(t, "other")
	own := add(t, store, ring, p, "p").File
	for _, beside := range []bool{false, true} {
		if beside {
			add(t, store, ring, other, "other")
		}
		withhold(store, func(name string) bool { return name == own.Path() })
		for what, people := range map[string][]*person{"its key": {p}, "a wrong key": {x25519(t)}, "no key": nil} {
			if _, _, err := load(t, store, ring, people...); !errors.Is(err, errUnavailable) {
				t.Errorf("%s, another file: %v: %v", what, beside, err)
			}
		}
	}
	if got, warnings, err := load(t, store, ring, other); err != nil || got.Newest() != 1 || len(warnings) != 1 {
		t.Errorf("the other's: %v, %q", err, warnings)
	}
	// A newer one that is not given is not one that leaves the key out.
	next := must(ring.rotated(2, 0, made))(t)
	newer := add(t, store, next, other, "other").File
	withhold(store, func(name string) bool { return name == newer.Path() })
	if _, _, err := load(t, store, ring, other); !errors.Is(err, errUnavailable) {
		t.Errorf("of a newer generation: %v", err)
	}
}
