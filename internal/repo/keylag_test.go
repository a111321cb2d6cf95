package repo_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// laggingFor is a store with an encrypted repository whose listings show nothing, ever.
func laggingFor(t testing.TB, holders ...holder) *memory.Store {
	t.Helper()
	store, options := memory.New(), repo.Options{BlockSize: smallBlock}
	store.SetListingLag(-1)
	for _, h := range holders {
		options.Encrypt = append(options.Encrypt, h.to)
	}
	closeRepo(t, must(repo.Init(t.Context(), store, repo.Environment{}, options))(t))
	return store
}

// Keys are added, rotated and removed one right after the other, on a storage whose listings show nothing of it: nobody is
// left out, and nobody who was shut out is let in.
func TestKeysUnderLaggingListings(t *testing.T) {
	first, second, third := newHolder(t, "first"), newHolder(t, "second"), newHolder(t, "third")
	store, points := laggingFor(t, first, second), threeMachines()
	if names := must(listed(t, store, "keys/"))(t); len(names) > 0 {
		t.Fatalf("listings show %q: nothing is tested", names)
	}
	r := openAs(t, store, second)
	mustCopyAll(t, r, points[:1]...)
	must(r.AddKey(t.Context(), third.to))(t)
	for generation := uint32(2); generation < 5; generation++ {
		if list := must(r.RotateKeys(t.Context(), repo.RotateOptions{}))(t); len(list) != 3 || r.KeyGeneration() != generation {
			t.Fatalf("generation %d went to %+v", r.KeyGeneration(), list)
		}
		for _, h := range []holder{first, second, third} {
			mustCopyAll(t, openAs(t, store, h), points...)
		}
	}
	if report := verified(t, r, repo.VerifyOptions{}); len(report.Damage) > 0 {
		t.Errorf("damage %+v", report.Damage)
	}
	drop := map[string]string{}
	for _, key := range must(r.ListKeys(t.Context()))(t) {
		drop[key.Label] = key.ID
	}
	must(r.RemoveKey(t.Context(), drop["third"]))(t)
	mustBeShutOut(t, store, third)
	must(r.RotateKeys(t.Context(), repo.RotateOptions{Drop: []string{drop["first"]}}))(t)
	mustBeShutOut(t, store, first)
	mustBeShutOut(t, store, third)
	check(t, openAs(t, store, second), points...)
	if left := keyFilesOf(store); len(left) != 1 {
		t.Errorf("left are %q", left)
	}
}

func listed(t testing.TB, store storage.Store, prefix string) (names []string, err error) {
	for info, err := range store.List(t.Context(), prefix) {
		if err != nil {
			return nil, err
		}
		names = append(names, info.Name)
	}
	return names, nil
}

// A key is added at any moment of a rotation, and the keys are rotated at any moment of adding one. Whoever was added has the
// new data key, or one of the two is told.
func TestKeyAddedWhileKeysAreRotated(t *testing.T) {
	for what, addInRotation := range map[string]bool{"added in a rotation": true, "rotated while one is added": false} {
		t.Run(what, func(t *testing.T) {
			outcomes := map[string]int{}
			for at := 1; addWhileRotating(t, addInRotation, at, outcomes); at++ {
			}
			if outcomes["has it"] == 0 || (outcomes["only who rotates is told"] > 0) != addInRotation || (outcomes["who adds is told"] > 0) == addInRotation {
				t.Errorf("not everything was met: %v", outcomes)
			}
		})
	}
}

// addWhileRotating does one before a call of the other, the number of which is given; false if there are not so many.
func addWhileRotating(t *testing.T, addInRotation bool, at int, outcomes map[string]int) bool {
	first, second, added := newHolder(t, "first"), newHolder(t, "second"), newHolder(t, "added")
	store := laggingFor(t, first, second)
	var addErr, rotateErr error
	calls, met := 0, false
	hooked := &between{Store: store, when: func(memory.Op, string) bool { calls++; return calls == at }}
	rotator, adder := openAs(t, store, first), openAs(t, store, second)
	rotate := func() { _, rotateErr = rotator.RotateKeys(t.Context(), repo.RotateOptions{}) }
	add := func() { _, addErr = adder.AddKey(t.Context(), added.to) }
	outer, inner := add, rotate
	if addInRotation {
		rotator, outer, inner = openAs(t, hooked, first), rotate, add
	} else {
		adder = openAs(t, hooked, second)
	}
	calls, hooked.do = 0, func() { met = true; inner() }
	outer()
	if !met {
		return false
	}
	var late *repo.LateKeysError
	if rotateErr != nil && (!errors.As(rotateErr, &late) || len(late.Keys) != 1 || late.Keys[0].PublicKey != added.to.PublicKey) {
		t.Fatalf("call %d: the rotation failed: %v", at, rotateErr)
	}
	if addErr != nil && !strings.Contains(addErr.Error(), "at the same time") {
		t.Fatalf("call %d: adding failed: %v", at, addErr)
	}
	switch opened, err := repo.Open(t.Context(), store, repo.Environment{Keys: keysOf{added}}); {
	case err == nil:
		outcomes["has it"]++
		if opened.KeyGeneration() != 2 {
			t.Errorf("call %d: opened with generation %d", at, opened.KeyGeneration())
		}
		closeRepo(t, opened)
	case addErr != nil:
		outcomes["who adds is told"]++
	case late != nil:
		outcomes["only who rotates is told"]++
	default:
		t.Errorf("call %d: left out, and nobody is told: %v", at, err)
	}
	// Doing what they are told helps.
	if _, err := adder.AddKey(t.Context(), added.to); err != nil && !errors.Is(err, repo.ErrSameKey) {
		t.Errorf("call %d: added again: %v", at, err)
	}
	for _, h := range []holder{first, second, added} {
		closeRepo(t, openAs(t, store, h))
	}
	return true
}

// between does something once, before a call that a test picks. Other calls wait meanwhile.
type between struct {
	*memory.Store
	when func(op memory.Op, name string) bool
	do   func()
	mu   sync.Mutex // guards do, and what when uses
}

func (s *between) step(op memory.Op, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if do := s.do; do != nil && s.when(op, name) {
		s.do = nil
		do()
	}
}

func (s *between) Put(ctx context.Context, name string, content []byte) error {
	s.step(memory.OpPut, name)
	return s.Store.Put(ctx, name, content)
}

func (s *between) Overwrite(ctx context.Context, name string, content []byte) error {
	s.step(memory.OpOverwrite, name)
	return s.Store.Overwrite(ctx, name, content)
}

func (s *between) Open(ctx context.Context, name string) (storage.Reader, error) {
	s.step(memory.OpOpen, name)
	return s.Store.Open(ctx, name)
}

func (s *between) Delete(ctx context.Context, name string) error {
	s.step(memory.OpDelete, name)
	return s.Store.Delete(ctx, name)
}

func (s *between) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	s.step(memory.OpList, prefix)
	return s.Store.List(ctx, prefix)
}
