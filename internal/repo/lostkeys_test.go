package repo_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
)

// Nobody gave a key, one was given that opens nothing, there is no key file, or what there is is damaged: each is told as what it is,
// with what helps, whether or not a key was given.
func TestLostKeyFilesAreNoMissingKey(t *testing.T) {
	first, second, stranger := newHolder(t, "first"), newHolder(t, "second"), newHolder(t, "stranger")
	const none, noKey = "encrypted, and there is no key file that a key could open (keys/ is empty or gone)", "encrypted, and no key was given"
	for _, c := range []struct {
		what          string
		damaged, lost int // of the two key files
		given         []holder
		locked        bool
		is            error
		text          string
	}{
		{"whole", 0, 0, nil, true, repo.ErrNeedsKey, noKey},
		{"whole", 0, 0, []holder{stranger}, false, repo.ErrWrongKey, "encrypted, and no key given opens it"},
		{"one damaged", 1, 0, nil, true, repo.ErrNeedsKey, noKey},
		{"one damaged", 1, 0, []holder{stranger}, false, repo.ErrWrongKey, "encrypted, and no key given opens it (keys/"},
		{"all damaged", 2, 0, nil, true, repo.ErrNoKeyFiles, "encrypted, and all 2 key files are damaged"},
		{"all damaged", 2, 0, []holder{first}, true, repo.ErrNoKeyFiles, "encrypted, and all 2 key files are damaged"},
		{"one lost, one damaged", 1, 1, []holder{first}, true, repo.ErrNoKeyFiles, "encrypted, and the only key file is damaged"},
		{"lost", 0, 2, nil, true, repo.ErrNoKeyFiles, none},
		{"lost", 0, 2, []holder{first}, true, repo.ErrNoKeyFiles, none},
	} {
		store := encryptedFor(t, first, second)
		files := keyFilesOf(store)
		damaged := files[c.lost : c.lost+c.damaged]
		for _, name := range damaged {
			if err := store.Tamper(name, func(content []byte) []byte { content[len(content)-1] ^= 1; return content }); err != nil {
				t.Fatal(err)
			}
		}
		deleteKeys(t, store, files[:c.lost])
		r, err := repo.Open(t.Context(), store, repo.Environment{Keys: keysOf(c.given)})
		if c.locked {
			if err != nil {
				t.Errorf("%s, %d keys: %v", c.what, len(c.given), err)
				continue
			}
			err = r.NeedsKey()
			if !errors.Is(err, repo.ErrNeedsKey) || !strings.Contains(c.text, r.WhyLocked()) || r.WhyLocked() == "" {
				t.Errorf("%s, %d keys: %q, %v", c.what, len(c.given), r.WhyLocked(), err)
			}
			list, listErr := r.ListKeys(t.Context())
			if len(list) != 2-c.lost || errors.Is(listErr, repo.ErrNoKeyFiles) != errors.Is(c.is, repo.ErrNoKeyFiles) {
				t.Errorf("%s: %d keys, %v", c.what, len(list), listErr)
			}
			for _, key := range list {
				if want := slices.ContainsFunc(damaged, func(name string) bool { return strings.HasSuffix(name, key.ID) }); key.Damaged != want {
					t.Errorf("%s: key %s is damaged: %v", c.what, key.ID, key.Damaged)
				}
			}
			if listErr != nil && listErr.Error() != err.Error() {
				t.Errorf("%s: listed: %v", c.what, listErr)
			}
			closeRepo(t, r)
		}
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) || !errors.Is(c.is, repo.ErrNeedsKey) && strings.Contains(err.Error(), "no key was given") {
			t.Errorf("%s, %d keys: %v", c.what, len(c.given), err)
		}
		hint := backup.Hint(err)
		if errors.Is(c.is, repo.ErrNoKeyFiles) {
			if !strings.Contains(hint, "--identity KIT") || !strings.Contains(hint, "ferry repo recover --kit KIT ") || !strings.Contains(hint, "keys/ back") {
				t.Errorf("%s, %d keys: hint %q", c.what, len(c.given), hint)
			}
			continue
		}
		for i, name := range files {
			id := strings.TrimPrefix(name, "keys/000001-")[:12]
			if strings.Contains(hint, id) != (i >= c.damaged) {
				t.Errorf("%s, %d keys: key file %d is %s, and the hint %q", c.what, len(c.given), i, id, hint)
			}
		}
	}
}

// Who has the recovery kit is told as well that there is no key file, until one is made from it.
func TestListKeysByKitWithoutKeyFiles(t *testing.T) {
	h := newHolder(t, "first")
	store := encryptedFor(t, h)
	kit := kitOf(t, openAs(t, store, h), repo.Passphrase{})
	deleteKeys(t, store, store.Names("keys/"))
	r := must(repo.OpenWithKit(t.Context(), store, repo.Environment{}, kit, nil))(t)
	defer closeRepo(t, r)
	if list, err := r.ListKeys(t.Context()); len(list) != 0 || !errors.Is(err, repo.ErrNoKeyFiles) || !strings.Contains(backup.Hint(err), "ferry repo recover") {
		t.Errorf("%+v, %v", list, err)
	}
	must(r.AddKey(t.Context(), h.to))(t)
	if list, err := r.ListKeys(t.Context()); len(list) != 1 || err != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

// Without the key the index is not made anew, and no file is left of the attempt.
func TestReindexWithoutAKey(t *testing.T) {
	store := encryptedFor(t, newHolder(t, "first"))
	r := must(repo.Open(t.Context(), store, repo.Environment{}))(t)
	defer closeRepo(t, r)
	before := store.Names("")
	if _, err := r.Reindex(t.Context(), true, nil); !errors.Is(err, repo.ErrNeedsKey) {
		t.Errorf("%v", err)
	}
	if after := store.Names(""); !slices.Equal(after, before) {
		t.Errorf("files %q became %q", before, after)
	}
}
