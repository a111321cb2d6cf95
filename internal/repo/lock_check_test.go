package repo_test

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/keyring"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// Whatever section 15 of the format wants locked is asked about: a file of any kind that somebody has unlocked, locked for less
// time or deleted is named, with the key and without. Nothing else is.
func TestCheckLocksAsksAboutEveryKind(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	store := newLockStore(clock)
	options := encryptedOptions(repo.Options{
		BlockSize: smallBlock, Parity: &repo.Parity{Data: 10, Parity: 2}, Lock: &repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600},
	})
	with, without := repo.Environment{Now: clock, Keys: identities{testIdentity()}}, repo.Environment{Now: clock}
	closeRepo(t, must(repo.Init(t.Context(), store, with, options))(t))
	open := func(env repo.Environment) *repo.Repository {
		r := must(repo.Open(t.Context(), store.another(), env))(t)
		r.SetPackTargets(smallPack, smallPack)
		return r
	}
	r := open(with)
	mustCopyAll(t, r, onePoint("m", "p1", content(1, 20*smallBlock)))
	closeRepo(t, r)
	asked := func(checkpoint bool) {
		t.Helper()
		kinds := map[string][]string{}
		for _, name := range store.Names("") {
			switch folder := path.Dir(name); {
			case strings.HasPrefix(name, "index/"), strings.HasPrefix(name, "partials/"), strings.HasPrefix(name, "marks/"):
			case checkpoint && folder == "log": // but the last one the checkpoint stands for them
				kinds[folder] = []string{name}
			case strings.HasSuffix(name, keyring.NoteSuffix):
				kinds["notes"] = append(kinds["notes"], name)
			default:
				kind, _, _ := strings.Cut(name, "/")
				kinds[kind] = append(kinds[kind], name)
			}
		}
		if want := 7; checkpoint && len(kinds) != want+1 || !checkpoint && len(kinds) != want {
			t.Fatalf("kinds %v", slices.Sorted(maps.Keys(kinds)))
		}
		total := 0
		for _, names := range kinds {
			total += len(names)
		}
		for _, env := range []repo.Environment{with, without} {
			judge := func(what string, want ...repo.LockProblem) {
				t.Helper()
				r := open(env)
				defer closeRepo(t, r)
				files, first, problems, err := r.CheckLocks(t.Context())
				if err != nil || !slices.Equal(problems, want) || files != total {
					t.Errorf("%s, with the key: %v: %d files of %d, problems %v, want %v, %v", what, env.Keys != nil, files, total, problems, want, err)
				}
				if len(want) == 1 && !first.Equal(want[0].Until) || len(want) == 0 && first.Before(r.LockInfo().Until) {
					t.Errorf("%s: the first lock ends at %v", what, first)
				}
			}
			judge("all is well")
			for kind, names := range kinds {
				name := names[0]
				until := store.LockOf(name)
				store.SetLock(name, time.Time{})
				judge(kind+" unlocked", repo.LockProblem{File: name})
				store.SetLock(name, until.Add(-24*time.Hour))
				judge(kind+" locked for less time", repo.LockProblem{File: name, Until: until.Add(-24 * time.Hour)})
				store.SetLock(name, until)
				if name == "repository.json" || kind == "keys" && len(names) == 1 && env.Keys != nil || kind == "checkpoints" || kind == "log" {
					continue // it does not open, or another checkpoint is the newest
				}
				var kept []byte
				tamper(t, store.Store, name, func(b []byte) []byte { kept = b; return b })
				store.lose(t, name)
				judge(kind+" deleted", repo.LockProblem{File: name, Missing: true})
				if err := store.Store.Put(t.Context(), name, kept); err != nil {
					t.Fatal(err)
				}
				store.SetLock(name, until)
			}
		}
	}
	asked(false)
	// With a checkpoint the entries before it need no lock any more.
	r = open(with)
	for i := 0; len(store.Names("checkpoints/")) == 0; i++ {
		if i > 500 {
			t.Fatal("no checkpoint is written")
		}
		if _, err := r.Hold(t.Context(), r.Entries()[0].ID, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if first := "log/000000000001"; store.LockOf(first).IsZero() {
		t.Errorf("%s was not locked", first)
	} else {
		store.SetLock(first, time.Time{})
	}
	closeRepo(t, r)
	asked(true)
	// Not one key file is left, and no list that tells of any.
	for _, name := range slices.Concat(store.Names("keys/"), store.Names("marks/keys-")) {
		store.lose(t, name)
	}
	r = open(without)
	defer closeRepo(t, r)
	_, _, problems, err := r.CheckLocks(t.Context())
	if want := []repo.LockProblem{{File: "keys/", Missing: true}}; err != nil || !slices.Equal(problems, want) {
		t.Errorf("no keys at all: %v, %v", problems, err)
	}
}

// Wherever a removal of a key or a rotation is interrupted: a key file that it has deleted is not one that is missing.
func TestCheckLocksAfterInterruptedChangesOfKeys(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	env := repo.Environment{Now: clock, Keys: identities{testIdentity()}}
	before := newLockStore(clock)
	r := must(repo.Init(t.Context(), before, env, encryptedOptions(repo.Options{BlockSize: smallBlock, Lock: &repo.Lock{Mode: "compliance", Seconds: 3600}})))(t)
	second := newIdentity()
	key := must(r.AddKey(t.Context(), repo.KeyRecipient{To: second.Recipient(), PublicKey: second.Recipient().String()}))(t)
	closeRepo(t, r)
	for what, change := range map[string]func(*repo.Repository) error{
		"removal":  func(r *repo.Repository) error { _, err := r.RemoveKey(t.Context(), key.ID); return err },
		"rotation": func(r *repo.Repository) error { _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); return err },
	} {
		for calls, done := 0, false; !done; calls++ {
			store := before.another()
			store.Store = before.Clone()
			for _, name := range store.Names(keyring.Folder) {
				store.SetLock(name, time.Time{}) // its time has come
			}
			r := must(repo.Open(t.Context(), store, env))(t)
			store.CrashAfter(calls)
			done = change(r) == nil
			closeRepo(t, r)
			after := store.another()
			after.Store = store.Clone()
			for _, reader := range []repo.Environment{env, {Now: clock}} {
				r = must(repo.Open(t.Context(), after, reader))(t)
				_, _, problems, err := r.CheckLocks(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range problems {
					if p.Missing {
						t.Errorf("%s interrupted after %d calls, with the key: %v: %s is missing", what, calls, reader.Keys != nil, p.File)
					}
				}
				closeRepo(t, r)
			}
		}
	}
}

// A name that adding a key left on the list, without a file, is told of until somebody takes it off.
func TestKeyThatIsOnlyListed(t *testing.T) {
	store := initialized(t, encryptedOptions(repo.Options{}))
	r := must(repo.Open(t.Context(), store, repo.Environment{Keys: identities{testIdentity()}}))(t)
	defer closeRepo(t, r)
	second := newIdentity()
	store.SetFault(func(op memory.Op, name string) error {
		if op == memory.OpPut && strings.HasPrefix(name, keyring.Folder) {
			return errors.New("interrupted")
		}
		return nil
	})
	if _, err := r.AddKey(t.Context(), repo.KeyRecipient{To: second.Recipient(), PublicKey: second.Recipient().String()}); err == nil {
		t.Fatal("added")
	}
	store.SetFault(nil)
	listed := must(keyring.Files(t.Context(), store))(t)
	there := must(r.ListKeys(t.Context()))(t)
	if len(listed) != 2 || len(there) != 1 {
		t.Fatalf("%d are named, %d there", len(listed), len(there))
	}
	for _, file := range listed {
		if id := file.ID.String(); id != there[0].ID {
			if key, err := r.RemoveKey(t.Context(), id[:12]); err != nil || key.ID != id {
				t.Errorf("%+v, %v", key, err)
			}
			if _, err := r.RemoveKey(t.Context(), id[:12]); !errors.Is(err, repo.ErrNoSuchKey) {
				t.Errorf("removed twice: %v", err)
			}
		}
	}
	if listed = must(keyring.Files(t.Context(), store))(t); len(listed) != 1 || listed[0].ID.String() != there[0].ID {
		t.Errorf("%v are named", listed)
	}
}

// A repository that was moved to where its files cannot be locked is read, and not written to: it would promise what nobody keeps.
func TestMovedWhereItCannotBeLocked(t *testing.T) {
	store := newLockStore(time.Now)
	options, environment := repo.Options{BlockSize: smallBlock, Lock: &repo.Lock{Mode: "host", Seconds: 3600}}, repo.Environment{Keys: identities{testIdentity()}}
	if encryptAll {
		options = encryptedOptions(options)
	}
	closeRepo(t, must(repo.Init(t.Context(), store, environment, options))(t))
	p := onePoint("m", "p", content(1, 20*smallBlock))
	r := must(repo.Open(t.Context(), store, environment))(t)
	mustCopyAll(t, r, p)
	if err := r.HoldForPerson(t.Context(), []backup.PointID{p.ID()}, "court", time.Time{}); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	bucket := store.another()
	bucket.lacks = storage.Host
	for what, moved := range map[string]storage.Store{"locks in another way": bucket, "no locks": store.Store} {
		before, written := len(store.Names("")), store.Calls(memory.OpOverwrite)
		r := must(repo.Open(t.Context(), moved, environment))(t)
		if err := compare(t.Context(), r, p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		_, _, extendErr := r.ExtendLocks(t.Context())
		_, _, _, checkErr := r.CheckLocks(t.Context())
		report, copyErr := copyAll(t.Context(), r, sourcetest.Open(t, onePoint("m", "other", content(2, 20*smallBlock))))
		_, forgetErr := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: p.ID()}}, nil)
		refused := map[string]error{
			"writing": r.Writable(), "extending": extendErr, "checking": checkErr, "copying": errors.Join(copyErr, stepErrors(report)), "forgetting": forgetErr,
		}
		if encryptAll {
			other := must(age.GenerateX25519Identity())(t)
			_, refused["adding a key"] = r.AddKey(t.Context(), repo.KeyRecipient{To: other.Recipient(), PublicKey: other.Recipient().String()})
			_, refused["removing a key"] = r.RemoveKey(t.Context(), must(r.ListKeys(t.Context()))(t)[0].ID)
		}
		for doing, err := range refused {
			if !errors.Is(err, repo.ErrCannotLock) || !errors.Is(err, storage.ErrUnsuitable) || !strings.Contains(backup.Hint(err), "ferry copy "+moved.Location()+" NEW --all --create --lock") {
				t.Errorf("%s, %s: %v; %s", what, doing, err, backup.Hint(err))
			}
		}
		must(r.KeepHeld(t.Context(), p.ID(), "restored"))(t)()
		if after := len(store.Names("")); after != before || store.Calls(memory.OpOverwrite) != written {
			t.Errorf("%s: %d files, %d before, or some were overwritten", what, after, before)
		}
		if told := r.Warnings(); len(told) > 0 {
			t.Errorf("%s: %q", what, told)
		}
		closeRepo(t, r)
	}
}
