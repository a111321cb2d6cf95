package repo_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// kitHolder is somebody with recovery kits beside keys, and counts what they are asked for.
type kitHolder struct {
	keysOf
	kits []repo.Kit
	// given are passphrases that are there, and typed what is typed when there is a question.
	given []repo.Passphrase
	typed repo.Passphrase

	kitQuestions []string
	tried        []repo.Passphrase // of the last question
	keyQuestions int
}

func (k *kitHolder) Identities(ctx context.Context, request repo.KeyRequest) ([]age.Identity, error) {
	if !request.Given {
		k.keyQuestions++
	}
	return k.keysOf.Identities(ctx, request)
}

func (k *kitHolder) Kits(context.Context) ([]repo.Kit, []repo.Passphrase, error) {
	return k.kits, k.given, nil
}

func (k *kitHolder) KitPassphrase(_ context.Context, kit repo.Kit, tried []repo.Passphrase) (repo.Passphrase, error) {
	k.kitQuestions, k.tried = append(k.kitQuestions, kit.Name), tried
	return k.typed, nil
}

func kitNamed(kit repo.Kit, name string) repo.Kit { return repo.Kit{Name: name, Content: kit.Content} }

// Keys that work are not given up for a recovery kit, which may be worse than they are: without a rotation's key, of another
// repository, or unreadable.
func TestKeysThatWorkGoBeforeKits(t *testing.T) {
	h := newHolder(t, "")
	store := encryptedFor(t, h)
	r := openAs(t, store, h)
	old := kitOf(t, r, repo.Passphrase{})
	secret := kitOf(t, r, repo.NewPassphrase("the passphrase of the kit"))
	must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	for name, kit := range map[string]repo.Kit{"old": old, "encrypted": secret, "broken": {Content: old.Content[:len(old.Content)/2]}} {
		who := &kitHolder{keysOf: keysOf{h}, kits: []repo.Kit{kit}}
		opened, err := repo.Open(t.Context(), store, repo.Environment{Keys: who})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		mustCopyAll(t, opened, threeMachines()...)
		closeRepo(t, opened)
		if len(who.kitQuestions) != 0 || who.keyQuestions != 0 {
			t.Errorf("%s: asked for %q, and %d times for keys", name, who.kitQuestions, who.keyQuestions)
		}
	}
}

// A kit opens what no key opens, nobody gave one for, or whose key files are lost, damaged or not to be read; of several the one with
// the newest key.
func TestKitWhereNoKeyWorks(t *testing.T) {
	h, stranger := newHolder(t, ""), newHolder(t, "stranger")
	store := encryptedFor(t, h)
	r := openAs(t, store, h)
	kits := []repo.Kit{kitNamed(kitOf(t, r, repo.Passphrase{}), "old.txt")}
	must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t)
	secret := repo.NewPassphrase("the passphrase of the kit")
	kits = append(kits, kitNamed(kitOf(t, r, secret), "new.txt"), kits[0])
	points := threeMachines()
	mustCopyAll(t, r, points...)
	keyFile := func(name string) bool {
		return strings.HasPrefix(name, "keys/") && !strings.HasSuffix(name, ".recipient")
	}

	lost, damaged := store.Clone(), store.Clone()
	deleteKeys(t, lost, lost.Names("keys/"))
	for _, name := range damaged.Names("keys/") {
		if keyFile(name) {
			if err := damaged.Tamper(name, func(content []byte) []byte { content[0] ^= 1; return content }); err != nil {
				t.Fatal(err)
			}
		}
	}
	unread := store.Clone()
	unread.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpRead && keyFile(name) {
			return errors.New("input/output error")
		}
		return nil
	})
	for name, tc := range map[string]struct {
		store storage.Store
		keys  keysOf
	}{"no key": {store, nil}, "another's key": {store, keysOf{stranger}}, "lost": {lost, keysOf{h}}, "damaged": {damaged, keysOf{h}}, "not to be read": {unread, keysOf{h}}} {
		for _, who := range []*kitHolder{{given: []repo.Passphrase{secret}}, {typed: secret}} {
			who.keysOf, who.kits = tc.keys, kits
			opened, err := repo.Open(t.Context(), tc.store, repo.Environment{Keys: who})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if err := compare(t.Context(), opened, points[len(points)-1]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			closeRepo(t, opened)
			if asked := who.given == nil; asked != slices.Equal(who.kitQuestions, []string{"new.txt"}) || who.keyQuestions != 0 {
				t.Errorf("%s: asked for %q, and %d times for keys", name, who.kitQuestions, who.keyQuestions)
			}
		}
	}
}

// Where kits do not open it either, each is named with its reason, and only then somebody is asked for a key.
func TestKitsThatDoNotOpen(t *testing.T) {
	h := newHolder(t, "")
	r := openAs(t, encryptedFor(t, h), h)
	plain, secret := kitOf(t, r, repo.Passphrase{}), kitOf(t, r, repo.NewPassphrase("the passphrase of the kit"))
	store := encryptedFor(t, h)
	wrong := []repo.Passphrase{repo.NewPassphrase("another")}
	who := &kitHolder{given: wrong, kits: []repo.Kit{kitNamed(plain, "other.txt"), kitNamed(secret, "secret.txt"), {Name: "broken.txt", Content: plain.Content[:len(plain.Content)/2]}}}
	_, err := repo.Open(t.Context(), store, repo.Environment{Keys: who})
	if !errors.Is(err, repo.ErrNeedsKey) || !errors.Is(err, repo.ErrKitPassphrase) || !errors.Is(err, repo.ErrNoKit) {
		t.Fatalf("opened: %v", err)
	}
	for _, want := range []string{"recovery kit other.txt: ", r.ID(), "recovery kit secret.txt: it is encrypted", "recovery kit broken.txt: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if who.keyQuestions != 1 || !slices.Equal(who.kitQuestions, []string{"secret.txt"}) || !slices.Equal(who.tried, wrong) {
		t.Errorf("asked for %q after %d passphrases, and %d times for keys", who.kitQuestions, len(who.tried), who.keyQuestions)
	}
}
