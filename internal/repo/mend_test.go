package repo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// remembering is the environment of a machine that has seen a store's head.
func remembering(t *testing.T, store *memory.Store) repo.Environment {
	t.Helper()
	env := repo.Environment{CacheDir: newCache(t)}
	closeRepo(t, must(openSmall(t.Context(), store.Clone(), env.CacheDir))(t))
	return env
}

// A repository that cannot be opened gets what it lacks from a mirror, and nothing that is not its own. The end of its log
// only where the machine remembers it.
func TestLogIsMendedFromAMirror(t *testing.T) {
	original, mirror, points := twoCopies(t, repo.Options{})
	stranger, _, _ := twoCopies(t, repo.Options{})
	entries := original.Names("log/")
	last := entries[len(entries)-1]
	for _, name := range append(entries, "repository.json") {
		for what, damage := range map[string]func(*memory.Store) error{
			"gone": func(s *memory.Store) error { return s.Delete(t.Context(), name) },
			"flipped": func(s *memory.Store) error {
				return s.Tamper(name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
			},
			"empty": func(s *memory.Store) error { return s.Tamper(name, func([]byte) []byte { return nil }) },
		} {
			store := original.Clone()
			if err := damage(store); err != nil {
				t.Fatal(err)
			}
			env := remembering(t, original)
			if mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{stranger}); err == nil || len(mended) > 0 {
				t.Errorf("%s %s: a stranger's was taken: %v", name, what, mended)
			}
			if name != last {
				env = repo.Environment{} // what follows proves it
			}
			mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{stranger, mirror})
			if err != nil || len(mended) != 1 || mended[0] != name {
				t.Errorf("%s %s: %v, %v", name, what, mended, err)
				continue
			}
			r := must(openSmall(t.Context(), store, ""))(t)
			check(t, r, points...)
			closeRepo(t, r)
		}
	}
}

// A mirror that cannot be asked is no mirror without the file: the error names it and says why, and another one does as well.
func TestMirrorThatDoesNotAnswer(t *testing.T) {
	original, mirror, _ := twoCopies(t, repo.Options{})
	entries := original.Names("log/")
	unplugged := errors.New("no route to host")
	for _, name := range []string{"repository.json", entries[0], entries[len(entries)-1]} {
		for _, env := range []repo.Environment{{}, remembering(t, original)} {
			if name == entries[len(entries)-1] && env.CacheDir == "" {
				continue // it is not asked for: nobody remembers which it was
			}
			store, silent := original.Clone(), mirror.Clone()
			if err := store.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			silent.SetFault(func(memory.Op, string) error { return unplugged })
			far := named{silent, "sftp://far"}
			mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{far})
			if len(mended) > 0 || !errors.Is(err, repo.ErrCorrupt) || !errors.Is(err, unplugged) || !strings.Contains(err.Error(), "in sftp://far") {
				t.Errorf("%s: mended %v: %v", name, mended, err)
			}
			if mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{far, mirror}); err != nil || len(mended) != 1 {
				t.Errorf("%s, from the other mirror: %v, %v", name, mended, err)
			}
		}
	}
	// The end of the log cannot be read here: no other can stand in for it, and why is told.
	store := original.Clone()
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpOpen && name == entries[len(entries)-1] {
			return unplugged
		}
		return nil
	})
	if _, err := repo.MendLog(t.Context(), store, repo.Environment{}, []storage.Store{mirror}); !errors.Is(err, unplugged) {
		t.Errorf("the end cannot be read: %v", err)
	}
}

// Who ends a search is told that, not that nothing was found; and what is read wrong is named, with where it lies.
func TestMendLogTellsWhatEndedIt(t *testing.T) {
	original, mirror, _ := twoCopies(t, repo.Options{})
	for calls := 1; ; calls++ {
		store, searched, ended := original.Clone(), mirror.Clone(), 0
		tamper(t, store, original.Names("log/")[1], func([]byte) []byte { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		fault := memory.InTurn(func(memory.Op, string) error {
			if ended++; ended >= calls {
				cancel()
				return ctx.Err()
			}
			return nil
		})
		store.SetFault(fault)
		searched.SetFault(fault)
		_, err := repo.MendLog(ctx, store, repo.Environment{}, []storage.Store{searched})
		cancel()
		if ended < calls {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended at call %d: %v", calls, err)
		}
	}
	name, read := original.Names("log/")[1], 0
	store := original.Clone()
	tamper(t, store, name, func([]byte) []byte { return nil })
	mirror.SetSpoil(func(of string, content []byte) {
		if of != name {
			return
		}
		if read++; read == 2 { // when it is to be put back
			content[len(content)-1] ^= 1
		}
	})
	_, err := repo.MendLog(t.Context(), store, repo.Environment{}, []storage.Store{named{mirror, "sftp://far"}})
	if !errors.Is(err, repo.ErrCorrupt) || !strings.Contains(err.Error(), name+" in sftp://far") {
		t.Errorf("read wrong from the mirror: %v", err)
	}
}

// named is a store that a person calls something else.
type named struct {
	storage.Store
	location string
}

func (s named) Location() string { return s.location }

// A mirror that went its own way has the id and the beginning of the log, and another end: none of it is put back, however
// much is lost here.
func TestNoOtherHistoryIsMended(t *testing.T) {
	original, fork, points := twoCopies(t, repo.Options{})
	common := len(original.Names("log/"))
	for store, point := range map[*memory.Store]string{original: "here", fork: "there"} {
		r := must(openSmall(t.Context(), store, ""))(t)
		mustCopyAll(t, r, onePoint("new", point, content(95, 2*smallBlock)))
		closeRepo(t, r)
	}
	mirror, entries := original.Clone(), original.Names("log/")
	if len(entries) < common+1 {
		t.Fatalf("%d entries of %d are common", common, len(entries))
	}
	for lost := 1; lost < len(entries); lost++ { // so many entries at the end
		store := original.Clone()
		for _, name := range entries[len(entries)-lost:] {
			tamper(t, store, name, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}
		before := store.Clone()
		for _, env := range []repo.Environment{{}, remembering(t, original)} {
			mended, err := repo.MendLog(t.Context(), store, env, []storage.Store{fork})
			if err == nil || len(mended) > 0 || differs(store, before) {
				t.Errorf("%d lost: another history was put back: %v, %v", lost, mended, err)
			}
		}
		var told *backup.Error
		if _, err := repo.MendLog(t.Context(), store, repo.Environment{}, []storage.Store{mirror}); !errors.Is(err, repo.ErrCorrupt) || !errors.As(err, &told) || told.Hint == "" || differs(store, before) {
			t.Errorf("%d lost, and none remembered: %v", lost, err)
		}
		mended, err := repo.MendLog(t.Context(), store, remembering(t, original), []storage.Store{fork, mirror})
		if err != nil || len(mended) != lost || differs(store, mirror) {
			t.Errorf("%d lost: %v, %v", lost, mended, err)
		}
	}
	// An entry that is whole is not replaced, also where a later one, or what is remembered, says that it is another's.
	store := original.Clone()
	for _, name := range entries[common:] {
		if err := store.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	r := must(openSmall(t.Context(), store, ""))(t)
	mustCopyAll(t, r, points...)
	mustCopyAll(t, r, onePoint("third", "third", content(96, 2*smallBlock)))
	closeRepo(t, r)
	tamper(t, store, entries[1], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	if ends := len(store.Names("log/")); ends > common+1 { // make it shorter than what is remembered
		t.Fatalf("%d entries", ends)
	}
	longer := must(openSmall(t.Context(), original, ""))(t)
	mustCopyAll(t, longer, onePoint("fourth", "fourth", content(97, 2*smallBlock)))
	closeRepo(t, longer)
	before := store.Clone()
	if mended, err := repo.MendLog(t.Context(), store, remembering(t, original), []storage.Store{original}); !errors.Is(err, repo.ErrDiverged) || len(mended) > 0 || differs(store, before) {
		t.Errorf("over another history: %v, %v", mended, err)
	}
}
