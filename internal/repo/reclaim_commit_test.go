package repo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferry/internal/repo"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// interruptedStore is a storage whose user is interrupted while an entry of the log is being written, and whose answer is
// that of one who was: the entry is there all the same.
type interruptedStore struct {
	*memory.Store
	interrupt func()
	happened  bool
}

func (s *interruptedStore) Put(ctx context.Context, name string, content []byte) error {
	err := s.Store.Put(ctx, name, content)
	if err == nil && s.interrupt != nil && strings.HasPrefix(name, "log/") && strings.Contains(string(content), `"condemned"`) {
		s.happened = true
		s.interrupt()
		s.interrupt = nil
		return errors.New("the connection was closed")
	}
	return err
}

// What a commit that was interrupted may have named stays: the packs that live content was moved to above all.
func TestReclaimInterruptedInItsCommit(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	points := threeMachines()
	mustCopyAll(t, r, points...)
	if _, err := r.Forget(t.Context(), "manual", []repo.Forgetting{{Point: points[0].ID()}}, nil); err != nil {
		t.Fatal(err)
	}
	closeRepo(t, r)
	options := repo.ReclaimOptions{TempDir: t.TempDir(), Policy: repo.DefaultReclaimPolicy()}
	options.Policy.Grace = 0
	happened := 0
	for range 8 { // each entry that condemns in turn
		ctx, interrupt := context.WithCancel(t.Context())
		interrupted := &interruptedStore{Store: store, interrupt: interrupt}
		r := must(openSmall(t.Context(), interrupted, ""))(t)
		_, _ = r.Reclaim(ctx, options) // interrupted or done
		interrupt()
		closeRepo(t, r)
		if interrupted.happened {
			happened++
		}
		again := must(openSmall(t.Context(), store, ""))(t)
		check(t, again, points[1:]...)
		closeRepo(t, again)
	}
	if happened == 0 {
		t.Fatal("nothing was interrupted")
	}
	last := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, last)
	if _, err := last.Reclaim(t.Context(), options); err != nil {
		t.Errorf("reclaim afterwards: %v", err)
	}
	check(t, last, points[1:]...)
}

// fullStore has room for entries of the log and for hints, and for no pack.
type fullStore struct{ *memory.Store }

func (s fullStore) Create(ctx context.Context, name string) (storage.Writer, error) {
	if strings.HasPrefix(name, "packs/") {
		return nil, fmt.Errorf("writing %s: %w", name, storage.ErrFull)
	}
	return s.Store.Create(ctx, name)
}

// On a full disk what nothing needs goes, though what is needed cannot be moved.
func TestReclaimOnAFullStorage(t *testing.T) {
	store := initialized(t, repo.Options{})
	r := must(openSmall(t.Context(), store, ""))(t)
	dead := onePoint("a", "a", content(1, 40*smallBlock))
	kept, shared := onePoint("b", "b", content(2, 3*smallBlock)), onePoint("c", "c", content(3, 60*smallBlock))
	mustCopyAll(t, r, dead)
	mustCopyAll(t, r, kept, shared)
	forget(t, r, dead)
	forget(t, r, shared)
	closeRepo(t, r)
	before, stopped := len(store.Names("packs/")), false
	for range 2 {
		r := must(openSmall(t.Context(), fullStore{store}, ""))(t)
		report, err := r.Reclaim(t.Context(), repo.ReclaimOptions{TempDir: t.TempDir(), Policy: atOnce()})
		if err != nil {
			t.Fatalf("%+v, %v", report, err)
		}
		stopped = stopped || strings.Contains(report.Stopped, "full")
		closeRepo(t, r)
	}
	if after := len(store.Names("packs/")); !stopped || after >= before {
		t.Errorf("stopped for want of room: %v; %d packs, before %d", stopped, after, before)
	}
	last := must(openSmall(t.Context(), store, ""))(t)
	defer closeRepo(t, last)
	check(t, last, kept)
}

// lostAnswerStore loses the answer to the put of a log entry that names a new pack and condemns others: a try of the storage's own
// then finds the entry there. The first read after it fails, too.
type lostAnswerStore struct {
	*memory.Store
	armed, happened bool
	fail            string
}

func (s *lostAnswerStore) Put(ctx context.Context, name string, content []byte) error {
	err := s.Store.Put(ctx, name, content)
	if err == nil && s.armed && strings.HasPrefix(name, "log/") && strings.Contains(string(content), `"condemned"`) && strings.Contains(string(content), `"packs"`) {
		s.armed, s.happened, s.fail = false, true, name
		return storage.ErrExists
	}
	return err
}

func (s *lostAnswerStore) Open(ctx context.Context, name string) (storage.Reader, error) {
	if s.fail != "" && name == s.fail {
		s.fail = ""
		return nil, errors.New("the connection was closed")
	}
	return s.Store.Open(ctx, name)
}

// A commit whose answer was lost, and that could not look whether it is there, meets its own entry when it reads on. What
// that names stays.
func TestReclaimMeetsItsOwnEntry(t *testing.T) {
	for range 30 { // how the points lie in packs is chance: not every run moves anything
		store := initialized(t, repo.Options{})
		r := must(openSmall(t.Context(), store, ""))(t)
		points := threeMachines()
		mustCopyAll(t, r, points...)
		forget(t, r, points[0])
		closeRepo(t, r)
		lossy := &lostAnswerStore{Store: store, armed: true}
		r = must(openSmall(t.Context(), lossy, ""))(t)
		_, _ = r.Reclaim(t.Context(), repo.ReclaimOptions{TempDir: t.TempDir(), Policy: atOnce()})
		closeRepo(t, r)
		again := must(openSmall(t.Context(), store, ""))(t)
		check(t, again, points[1:]...)
		closeRepo(t, again)
		if lossy.happened {
			return
		}
	}
	t.Fatal("no entry moved anything")
}
