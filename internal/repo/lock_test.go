package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ferry/internal/backup"
	"ferry/internal/repo"
	"ferry/internal/repo/commitlog"
	"ferry/internal/repo/format"
	"ferry/internal/source/sourcetest"
	"ferry/internal/storage"
	"ferry/internal/storage/memory"
)

// lockStore is a store in memory that locks, and at each commit of a point judges whether what the log says is so.
type lockStore struct {
	*memory.Locking
	// shortened counts the calls of Lock that would have shortened one.
	shortened *atomic.Int64
	// committing is called before an entry of the log is written.
	committing func(name string, entry []byte)
	// lacks is the way to lock that such a store does not have.
	lacks storage.Immutability
}

func newLockStore(now func() time.Time) *lockStore {
	store := memory.New()
	store.SetClock(now)
	return &lockStore{Locking: store.Locking(), shortened: new(atomic.Int64)}
}

// another is the same storage as another process has it.
func (s *lockStore) another() *lockStore {
	return &lockStore{Locking: s.Store.Locking(), shortened: s.shortened, committing: s.committing}
}

func (s *lockStore) Put(ctx context.Context, name string, content []byte) error {
	if s.committing != nil && strings.HasPrefix(name, "log/") {
		s.committing(name, content)
	}
	return s.Locking.Put(ctx, name, content)
}

func (s *lockStore) LockNew(how storage.Immutability, until func(string) time.Time) error {
	if how == s.lacks {
		return &backup.Error{Offset: backup.NoOffset, Err: storage.ErrUnsuitable, Hint: "lock new ones in another way"}
	}
	return s.Locking.LockNew(how, until)
}

func (s *lockStore) Lock(ctx context.Context, name string, how storage.Immutability, until time.Time) error {
	if until.Before(s.LockOf(name)) {
		s.shortened.Add(1)
	}
	return s.Locking.Lock(ctx, name, how, until)
}

// lose deletes a file, locked or not.
func (s *lockStore) lose(t testing.TB, name string) {
	t.Helper()
	s.SetLock(name, time.Time{})
	if err := s.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// lockedFor wants everything that the state names to be locked until a time.
func (s *lockStore) lockedFor(t testing.TB, state *commitlog.State, until time.Time) {
	t.Helper()
	names := []string{"repository.json"}
	for n := uint64(1); n <= state.Head.N; n++ { // there is no checkpoint
		names = append(names, commitlog.EntryName(n))
	}
	for id := range state.Packs.All() {
		names = append(names, "packs/"+id.String()[:2]+"/"+id.String())
	}
	for p := range state.Points.All() {
		names = append(names, p.File())
	}
	for _, name := range names {
		if locked := s.LockOf(name); locked.Before(until) {
			t.Errorf("%s is locked until %v, want %v", name, locked, until)
		}
	}
}

func TestLocks(t *testing.T) {
	var clockMu sync.Mutex
	clock := time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)
	now := func() time.Time { clockMu.Lock(); defer clockMu.Unlock(); return clock }
	pass := func(d time.Duration) { clockMu.Lock(); defer clockMu.Unlock(); clock = clock.Add(d) }
	lock := repo.Lock{Mode: "compliance", Seconds: 3 * 24 * 3600}
	options := repo.Options{BlockSize: smallBlock, Lock: &lock}
	if encryptAll {
		options = encryptedOptions(options)
	}
	environment := repo.Environment{Now: now, Keys: identities{testIdentity()}}
	store := newLockStore(now)
	if _, err := repo.Init(t.Context(), memory.New(), environment, options); !errors.Is(err, storage.ErrUnsuitable) {
		t.Errorf("a storage that cannot lock: %v", err)
	}
	closeRepo(t, must(repo.Init(t.Context(), store, environment, options))(t))
	open := func(store *lockStore) *repo.Repository {
		r := must(repo.Open(t.Context(), store, environment))(t)
		r.SetPackTargets(smallPack, smallPack)
		return r
	}
	shared := content(1, 60*smallBlock)
	copyPoint := func(r *repo.Repository, i int, base []byte) *sourcetest.Point {
		p := onePoint("m", fmt.Sprint("p", i), changed(base, uint64(i), 60*smallBlock))
		mustCopyAll(t, r, p)
		return p
	}
	r := open(store)
	points := []*sourcetest.Point{copyPoint(r, 1, shared)}
	store.lockedFor(t, r.State(), lock.End(now()))

	// Within the generation nothing is extended.
	before := store.Calls(memory.OpLock)
	pass(time.Hour)
	points = append(points, copyPoint(r, 2, shared))
	if n := store.Calls(memory.OpLock) - before; n != 0 {
		t.Errorf("%d locks were set within a generation", n)
	}
	store.lockedFor(t, r.State(), lock.End(now()))

	// In the next one everything is, and before the entry that needs it is there.
	pass(30 * time.Hour)
	judged := 0
	store.committing = func(_ string, entry []byte) {
		if bytes.Contains(entry, []byte(`"points":[`)) {
			judged++
			store.lockedFor(t, r.State(), lock.End(now()))
		}
	}
	points = append(points, copyPoint(r, 3, shared))
	if judged == 0 {
		t.Error("no entry with a point was seen")
	}
	store.committing = nil
	if until := r.LockInfo().Until; !until.Equal(lock.End(now())) {
		t.Errorf("the log says %v, want %v", until, lock.End(now()))
	}
	store.lockedFor(t, r.State(), lock.End(now()))

	// A writer has stored and locked its packs in one generation; before it commits them, another commits in the next.
	slow, second := store.another(), store.another()
	late, other := open(slow), open(second)
	ingest := must(late.NewIngest(t.Context(), repo.IngestOptions{}))(t)
	plain := content(77, smallBlock)
	if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(plain), plain, repo.CodecNone); err != nil {
		t.Fatal(err)
	}
	slow.committing = func(string, []byte) {
		slow.committing = nil
		pass(30 * time.Hour)
		points = append(points, copyPoint(other, 4, shared))
	}
	if err := ingest.Close(t.Context(), nil); err != nil || slow.committing != nil {
		t.Fatal(err)
	}
	if err := other.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	store.lockedFor(t, other.State(), other.LockInfo().Until)
	// And one that extends all that it knows of while another commits packs that it does not know of yet.
	third := open(store.another())
	extending := store.another()
	pass(30 * time.Hour)
	r2 := open(extending)
	extending.committing = func(string, []byte) {
		extending.committing = nil
		before := clock
		pass(-30 * time.Hour) // a clock that is behind
		ingest := must(third.NewIngest(t.Context(), repo.IngestOptions{}))(t)
		plain := content(78, smallBlock)
		if _, err := ingest.StoreBlock(t.Context(), ingest.BlockID(plain), plain, repo.CodecNone); err != nil {
			t.Error(err)
		}
		if err := ingest.Close(t.Context(), nil); err != nil {
			t.Error(err)
		}
		pass(before.Sub(clock))
	}
	if _, _, err := r2.ExtendLocks(t.Context()); err != nil || extending.committing != nil {
		t.Fatal(err)
	}
	store.lockedFor(t, r2.State(), r2.LockInfo().Until)
	for _, r := range []*repo.Repository{late, third, r2} {
		closeRepo(t, r)
	}

	// Without a copy, on demand.
	pass(30 * time.Hour)
	if until, missing, err := other.ExtendLocks(t.Context()); err != nil || len(missing) > 0 || !until.Equal(lock.End(now())) {
		t.Errorf("extending: %v, %v", until, err)
	}
	store.lockedFor(t, other.State(), lock.End(now()))
	files, first, problems, err := other.CheckLocks(t.Context())
	if err != nil || len(problems) > 0 || files == 0 || first.Before(lock.End(now())) {
		t.Errorf("%d files, the first until %v, problems %v, %v", files, first, problems, err)
	}
	// What somebody unlocked is found, and locked again.
	store.SetLock(aPack(t, store), time.Time{})
	if _, _, problems, err := other.CheckLocks(t.Context()); err != nil || len(problems) != 1 || problems[0].File != aPack(t, store) {
		t.Errorf("one file is unlocked: %v, %v", problems, err)
	}
	if _, _, err := other.ExtendLocks(t.Context()); err != nil {
		t.Error(err)
	}
	store.lockedFor(t, other.State(), lock.End(now()))
	if n := store.shortened.Load(); n > 0 {
		t.Errorf("%d locks were to be shortened", n)
	}
	check(t, other, points...)
	closeRepo(t, other)
	closeRepo(t, r)
	if err := store.Delete(t.Context(), aPack(t, store)); !errors.As(err, new(*storage.LockedError)) {
		t.Errorf("deleting a pack: %v", err)
	}
}

// aPack is the name of a pack.
func aPack(t testing.TB, store *lockStore) string {
	t.Helper()
	names := store.Names("packs/")
	if len(names) == 0 {
		t.Fatal("there are no packs")
	}
	return names[0]
}

// TestLockEnds: a lock lasts for the period at least, and for a generation more at most; all of a generation end together.
func TestLockEnds(t *testing.T) {
	for _, seconds := range []int64{60, 3600, 30 * 24 * 3600, 365 * 24 * 3600} {
		lock := repo.Lock{Mode: "host", Seconds: seconds}
		generation := time.Duration(seconds/3) * time.Second
		ends := map[time.Time]bool{}
		start := time.Date(2026, 11, 22, 1, 2, 3, 456, time.UTC)
		for i := range 300 {
			now := start.Add(time.Duration(i) * generation / 100)
			end := lock.End(now)
			if least := now.Add(time.Duration(seconds) * time.Second); end.Before(least) || end.After(least.Add(generation)) {
				t.Errorf("%d seconds from %v: %v", seconds, now, end)
			}
			ends[end] = true
		}
		if len(ends) < 3 || len(ends) > 4 {
			t.Errorf("%d seconds: %d ends in three generations", seconds, len(ends))
		}
	}
	for _, wrong := range []repo.Lock{{Mode: "host"}, {Mode: "none", Seconds: 3600}, {Mode: "host", Seconds: 1 << 40}, {Mode: "host", Seconds: -60}} {
		if wrong.Check() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	var d format.Description
	if d.Locks(repo.Lock{Mode: "host", Seconds: 60}); d.OptionalFeatures != format.OptionalLocked {
		t.Error("older writers are not kept out")
	}
}

// The only key file that somebody has after an interrupted rotation stays locked as long as the points; one that nobody needs
// does not.
func TestLocksAfterAnInterruptedRotation(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	store := newLockStore(clock)
	first, second := newHolder(t, "first"), newHolder(t, "second")
	env := repo.Environment{Now: clock, Keys: keysOf{first}}
	options := repo.Options{BlockSize: smallBlock, Lock: &repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600}, Encrypt: []repo.KeyRecipient{first.to, second.to}}
	closeRepo(t, must(repo.Init(t.Context(), store, env, options))(t))
	r := must(repo.Open(t.Context(), store, env))(t)
	old := map[string]string{}
	for _, key := range must(r.ListKeys(t.Context()))(t) {
		old[key.Label] = "keys/000001-" + key.ID
	}
	interruptRotation(t, store.Store, r, 1)
	closeRepo(t, r)

	before := store.LockOf(old["first"])
	now = now.AddDate(0, 3, 0)
	r = must(repo.Open(t.Context(), store, env))(t)
	defer closeRepo(t, r)
	until, _, err := r.ExtendLocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{old["second"], old["second"] + ".recipient"} {
		if locked := store.LockOf(name); locked.Before(until) {
			t.Errorf("%s, which is needed, is locked until %v, want %v", name, locked, until)
		}
	}
	if got := store.LockOf(old["first"]); !got.Equal(before) {
		t.Errorf("the leftover is locked until %v, was until %v", got, before)
	}
}

// A storage that keeps the old key files does not keep a rotation from being done, and who was dropped stays dropped.
func TestRotationUnderLocks(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	store := newLockStore(clock)
	stays, goes := newHolder(t, "stays"), newHolder(t, "goes")
	options := repo.Options{BlockSize: smallBlock, Lock: &repo.Lock{Mode: "compliance", Seconds: 30 * 24 * 3600}, Encrypt: []repo.KeyRecipient{stays.to, goes.to}}
	env := repo.Environment{Now: clock, Keys: keysOf{stays}}
	closeRepo(t, must(repo.Init(t.Context(), store, env, options))(t))
	r := must(repo.Open(t.Context(), store, env))(t)
	defer closeRepo(t, r)
	var drop string
	for _, key := range must(r.ListKeys(t.Context()))(t) {
		if key.Label == "goes" {
			drop = key.ID
		}
	}
	for generation := uint32(2); generation < 5; generation++ {
		dropped := []string{drop}
		if generation > 2 {
			dropped = nil
		}
		list, err := r.RotateKeys(t.Context(), repo.RotateOptions{Drop: dropped})
		if err != nil || len(list) != 1 || list[0].Label != "stays" || r.KeyGeneration() != generation {
			t.Fatalf("generation %d: %+v, %v", r.KeyGeneration(), list, err)
		}
	}
	oldest := func() (left []string) {
		for _, name := range store.Names("keys/") {
			if strings.HasPrefix(name, "keys/000001-") {
				left = append(left, name)
			}
		}
		return left
	}
	if len(oldest()) == 0 {
		t.Fatal("the storage did not keep the old key files: nothing was tested")
	}
	if _, err := repo.Open(t.Context(), store.another(), repo.Environment{Now: clock, Keys: keysOf{goes}}); !errors.Is(err, repo.ErrWrongKey) {
		t.Errorf("opened by one who was dropped: %v", err)
	}
	// When the locks have ended, the next rotation removes what was left over.
	now = now.AddDate(0, 3, 0)
	if _, err := r.RotateKeys(t.Context(), repo.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := oldest(); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}
