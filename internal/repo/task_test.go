package repo_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// task is something that is done with a repository, and what it may change.
type task struct {
	store, donor *memory.Store
	// run does it with a repository that is open. Where there is none to be opened before the task is done, alone does it.
	run   func(ctx context.Context, t testing.TB, r *repo.Repository, at place) error
	alone func(ctx context.Context, t testing.TB, at place) error
	// kept are points that are there before, and whatever happens; goes and comes are those that the task removes and adds.
	kept  []*sourcetest.Point
	goes  []*sourcetest.Point
	comes []*sourcetest.Point
	// damaged is true if something may be called damaged until the task is done, shut if the repository may not open, or be as it was, until then.
	damaged, shut bool
	// locking is true if the storage can lock.
	locking bool
	// exclusive is true if nothing else may use the repository meanwhile.
	exclusive bool
	// seen is what the machine knows of the repository from before; nil: nothing.
	seen *memory.Store
	// always fails the test unless what holds whatever happened does, done unless what the task promised does.
	always, done func(t *testing.T, r *repo.Repository, at place)
}

// place is a machine that does a task: the stores that it reaches, and what it remembers.
type place struct {
	store, donor *memory.Store
	// cache is a folder; empty: it remembers nothing.
	cache   string
	locking bool
	// now is the time, there and in the stores; passed, in nanoseconds, is what has passed of it.
	now    func() time.Time
	passed *atomic.Int64
}

// place is where a task begins. Unless it is to remember something, it does so only if the task needs it.
func (k task) place(t testing.TB, remembers bool) place {
	at := place{store: k.store.Clone(), locking: k.locking, passed: new(atomic.Int64)}
	if remembers || k.seen != nil {
		at.cache = newCache(t)
	}
	at.now = func() time.Time { return time.Now().Add(time.Duration(at.passed.Load())) }
	at.store.SetClock(at.now)
	if k.donor != nil {
		at.donor = k.donor.Clone()
	}
	if k.seen != nil {
		closeRepo(t, must(openSmall(context.Background(), k.seen.Clone(), at.cache))(t))
	}
	return at
}

// copied is the same place with a store of its own. Nothing goes wrong there.
func (at place) copied() place {
	at.store = at.store.Clone()
	if at.donor != nil {
		at.donor = at.donor.Clone()
	}
	return at
}

// forgetful is another machine, which reaches the same stores.
func (at place) forgetful() place {
	at.cache = ""
	return at
}

func (at place) stores() []*memory.Store {
	if at.donor == nil {
		return []*memory.Store{at.store}
	}
	return []*memory.Store{at.store, at.donor}
}

// open opens the repository there as a new process does.
func (at place) open(ctx context.Context, holders ...holder) (*repo.Repository, error) {
	var store storage.Store = at.store
	if at.locking {
		store = at.store.Locking()
	}
	var keys repo.KeySource = identities{testIdentity()}
	if len(holders) > 0 {
		keys = keysOf(holders)
	}
	r, err := repo.Open(ctx, store, repo.Environment{CacheDir: at.cache, Keys: keys, Now: at.now})
	if err == nil {
		r.SetPackTargets(smallPack, smallPack)
	}
	return r, err
}

// perform is one process that does the task. Everything may go wrong once it has begun.
func (k task) perform(ctx context.Context, t testing.TB, at place, begun func()) error {
	if k.alone != nil {
		begun()
		return k.alone(ctx, t, at)
	}
	r, err := at.open(ctx)
	if err != nil {
		return err
	}
	begun()
	err = k.run(ctx, t, r, at)
	return errors.Join(err, r.Close())
}

// again is the task without anything that goes wrong.
func (k task) again(t testing.TB, at place) error {
	_ = at.store.Delete(context.Background(), "marks/reclaim-lease") // it would end by itself
	return k.perform(context.Background(), t, at, func() {})
}

// left fails the test unless a place has what it must after the task was tried, and the task can be done then. If hasty, space is
// also given back before anybody looks for mistakes: it must not be that of good data.
func (k task) left(t *testing.T, at place, done, hasty bool) {
	t.Helper()
	if !sameContent(at.store, k.store) { // else it has what it had
		if hasty {
			at := at.copied().forgetful()
			_ = at.store.Delete(context.Background(), "marks/reclaim-lease")
			k.look(t, at, done, func(r *repo.Repository) {
				if err := reclaiming(context.Background(), t, r, at); err != nil {
					t.Errorf("reclaim: %v", err)
				}
			})
		}
		k.look(t, at, done, func(*repo.Repository) {})
	}
	if err := k.again(t, at); err != nil {
		t.Errorf("the next time: %v", err)
	}
	k.look(t, at, true, func(*repo.Repository) {})
}

// look opens the repository, and fails the test unless it is sound after something more was done.
func (k task) look(t *testing.T, at place, done bool, more func(*repo.Repository)) {
	t.Helper()
	r, err := at.open(context.Background())
	if err == nil {
		defer closeRepo(t, r)
	}
	if k.shut && !done && (err != nil || r.Locked() || r.Diverged() != nil) {
		return
	}
	if err == nil {
		err = r.Diverged()
	}
	if err != nil {
		t.Fatal(err)
	}
	more(r)
	k.sound(t, r, at, done)
}

// sound fails the test unless the repository has what it must, whole, and nothing that is good is called damaged for
// longer than until the next verification.
func (k task) sound(t *testing.T, r *repo.Repository, at place, done bool) {
	t.Helper()
	if done || !k.damaged {
		check(t, r, slices.Concat(k.kept, k.goes, k.comes)...)
		state := r.State()
		if len(state.Damaged) > 0 || !k.damaged && len(state.Bad) > 0 {
			t.Errorf("still called damaged: %v, %v", state.Damaged, state.Bad)
		}
	}
	for _, p := range k.kept {
		if !r.Has(p.ID()) {
			t.Errorf("point %s is lost", p.Native)
		}
	}
	for _, p := range k.goes {
		if done && r.Has(p.ID()) {
			t.Errorf("point %s is there though it was forgotten", p.Native)
		}
	}
	for _, p := range k.comes {
		if done && !r.Has(p.ID()) {
			t.Errorf("point %s is not there though it was acknowledged", p.Native)
		}
	}
	if k.always != nil {
		k.always(t, r, at)
	}
	if done && k.done != nil {
		k.done(t, r, at)
	}
}

// sameContent is true if two stores have the same files, but for hints.
func sameContent(one, other *memory.Store) bool {
	content := func(store *memory.Store) map[string][]byte {
		files := map[string][]byte{}
		for _, name := range store.Names("") {
			if !strings.HasPrefix(name, "marks/") || strings.HasPrefix(name, "marks/keys-") || strings.HasPrefix(name, "marks/reserve-") {
				_ = store.Tamper(name, func(b []byte) []byte { files[name] = b; return b })
			}
		}
		return files
	}
	return maps.EqualFunc(content(one), content(other), bytes.Equal)
}

// explained is true if an error says that the storage failed or that somebody ended it; after wrong bytes, that something
// is damaged, unknown, or refused before anything was done.
func explained(err error, wrongBytes bool) bool {
	reasons := []error{errInjected, context.Canceled, errWhose}
	if wrongBytes {
		reasons = []error{repo.ErrCorrupt, backup.ErrDamaged, repo.ErrNewer, repo.ErrNoKeyFiles}
	}
	if wrongBytes && errors.Is(err, repo.ErrWrongKey) && strings.Contains(err.Error(), "repository.json was made with; that is damaged") {
		return true // the check of the keys, which stands there
	}
	var unread *notOffered
	if errors.As(err, &unread) {
		return slices.ContainsFunc(reasons, func(why error) bool { return strings.Contains(unread.reason, why.Error()) })
	}
	var inUse *repo.InUseError // the lease that could not be given back ends by itself
	return slices.ContainsFunc(reasons, func(why error) bool { return errors.Is(err, why) }) || errors.As(err, &inUse) || wrongBytes && refused(err)
}

// refused is true if an error says that nothing was done, and why that must not be, as far as could be read.
func refused(err error) bool {
	var cannot *repo.CannotRotateError
	var inUse *repo.InUseError
	return errors.As(err, &cannot) || errors.As(err, &inUse) || errors.Is(err, repo.ErrLastRecipient) || errors.Is(err, errWhose)
}
